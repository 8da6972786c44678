//! RFC 6455 requirements on a client's random numbers, on waiting for the response, and on TLS.

mod common;

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use common::script::transport;
use common::{Local, answer, open, poll_once};
use sockeye::Client;

#[tokio::test(start_paused = true)]
async fn client_uses_a_new_nonce_for_each_connection() {
    // checks [6455-4.1-22]
    let mut keys = BTreeSet::new();
    for _ in 0..16 {
        let (io, peer) = transport(false);
        let client = Client::default();
        let mut connecting = pin!(client.request("ws://localhost/").connect_over(io));
        assert!(poll_once(&mut connecting).await.is_pending());
        let request = String::from_utf8(peer.take_bytes()).unwrap();
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        keys.insert(key.unwrap().to_owned());
    }
    assert_eq!(keys.len(), 16);
}

#[tokio::test(start_paused = true)]
async fn client_masking_keys_are_unpredictable() {
    // checks [6455-5.3-2, 6455-5.3-3, 6455-5.3-4, 6455-10.3-1]
    const COUNT: usize = 256;
    let (mut ws, peer) = open(Local::Client).await;
    let mut keys = vec![];
    for _ in 0..COUNT {
        ws.send("x").await.unwrap();
        // FIN and opcode, mask bit and length, key, payload.
        let bytes = peer.take_bytes();
        let [0x81, 0x81, a, b, c, d, _] = bytes[..] else {
            panic!("{bytes:02x?}");
        };
        keys.push(u32::from_be_bytes([a, b, c, d]));
    }
    // Among 256 random keys, two are equal once in 130,000 runs; more than two practically never.
    let distinct: BTreeSet<_> = keys.iter().collect();
    assert!(distinct.len() >= COUNT - 1);
    // The differences between successive keys vary too.
    let steps: BTreeSet<_> = keys.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.len() >= COUNT - 3);
    // Each bit is set in about half of the keys: allows seven standard deviations of 8.
    for bit in 0..u32::BITS {
        let set = keys.iter().filter(|key| **key >> bit & 1 == 1).count();
        assert!(set.abs_diff(COUNT / 2) <= 56, "bit {bit} is set in {set}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_sends_nothing_between_its_request_and_the_response() {
    // checks [6455-4.1-28]
    let (io, peer) = transport(false);
    let client = Client::default();
    let mut connecting = pin!(client.request("ws://localhost/").connect_over(io));
    assert!(poll_once(&mut connecting).await.is_pending());
    let request = peer.take_bytes();
    let end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    assert_eq!(end, Some(request.len() - 4), "one head and nothing behind it");
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(poll_once(&mut connecting).await.is_pending());
    assert!(peer.take_bytes().is_empty());
    peer.send_bytes(answer(&request));
    connecting.await.unwrap();
    assert!(peer.take_bytes().is_empty());
}

#[cfg(feature = "tls")]
mod tls {
    use std::sync::Arc;

    use common::within;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::server::ResolvesServerCertUsingSni;
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use sockeye::{CloseCode, Server};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server with a certificate for `localhost` only, and a client that trusts it.
    fn configured() -> (Arc<ServerConfig>, Client) {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let certified = CertifiedKey::from_der(vec![certificate.clone()], key.into(), &provider).unwrap();
        let mut by_name = ResolvesServerCertUsingSni::new();
        by_name.add("localhost", certified).unwrap();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(by_name));
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder().tls_config(Arc::new(client)).build().unwrap();
        (Arc::new(server), client)
    }

    #[tokio::test]
    async fn client_sends_the_host_name_in_tls() {
        // checks [6455-4.1-14]
        let (config, client) = configured();
        let server = Server::builder().tls_config(config).build();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let accepting = async { server.accept(far).await?.accept().await };
        let both = async { tokio::join!(client.request("wss://localhost/").connect_over(near), accepting) };
        let (connected, accepted) = within(30, both).await;
        connected.unwrap();
        accepted.unwrap();
    }

    #[tokio::test]
    async fn client_sends_close_notify_after_the_closing_handshake() {
        // checks [6455-7.1.1-1]
        let (config, client) = configured();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let closing = async {
            let (mut ws, _) = client.request("wss://localhost/").connect_over(near).await.unwrap();
            ws.close(CloseCode::NORMAL, "").await.unwrap();
        };
        let peer = async {
            let mut tls = tokio_rustls::TlsAcceptor::from(config).accept(far).await.unwrap();
            let mut request = vec![];
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(tls.read_buf(&mut request).await.unwrap(), 0);
            }
            tls.write_all(answer(&request).as_bytes()).await.unwrap();
            // The client's close frame: a header of two bytes, a key of four, a code of two.
            tls.read_exact(&mut [0; 8]).await.unwrap();
            tls.write_all(b"\x88\x02\x03\xe8").await.unwrap();
            tls.shutdown().await.unwrap();
            // Without close_notify, this would be an error.
            tls.read(&mut [0]).await
        };
        let (_, end) = within(30, async { tokio::join!(closing, peer) }).await;
        assert_eq!(end.unwrap(), 0);
    }
}
