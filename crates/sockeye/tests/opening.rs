//! What RFC 6455 asks of a client's random numbers, its patience and its TLS.

mod common;

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use common::script::transport;
use common::{Local, answer, look, open};
use sockeye::Client;

#[tokio::test(start_paused = true)]
async fn client_draws_a_key_for_each_connection() {
    // checks [6455-4.1-22]
    let mut keys = BTreeSet::new();
    for _ in 0..16 {
        let (io, peer) = transport(false);
        let client = Client::default();
        let mut connecting = pin!(client.connect_over(io, "ws://localhost/"));
        assert!(look(&mut connecting).await.is_pending());
        let request = String::from_utf8(peer.takes_bytes()).unwrap();
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        keys.insert(key.unwrap().to_owned());
    }
    assert_eq!(keys.len(), 16);
}

#[tokio::test(start_paused = true)]
async fn client_masks_each_frame_with_a_key_that_those_before_do_not_tell() {
    // checks [6455-5.3-2, 6455-5.3-3, 6455-5.3-4, 6455-10.3-1]
    const COUNT: usize = 256;
    let (mut ws, peer) = open(Local::Client).await;
    let mut keys = vec![];
    for _ in 0..COUNT {
        ws.send("x").await.unwrap();
        // FIN and text, the mask bit and the length, the key, the payload.
        let bytes = peer.takes_bytes();
        let [0x81, 0x81, a, b, c, d, _] = bytes[..] else {
            panic!("{bytes:02x?}");
        };
        keys.push(u32::from_be_bytes([a, b, c, d]));
    }
    // By chance, two of 256 keys are the same once in 130,000 runs; more than that never.
    let distinct: BTreeSet<_> = keys.iter().collect();
    assert!(distinct.len() >= COUNT - 1);
    // Nor is there one step from each to the next.
    let steps: BTreeSet<_> = keys.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.len() >= COUNT - 3);
    // Each bit is set in about half of them: seven standard deviations of 8 are allowed for.
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
    let mut connecting = pin!(client.connect_over(io, "ws://localhost/"));
    assert!(look(&mut connecting).await.is_pending());
    let request = peer.takes_bytes();
    let end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    assert_eq!(end, Some(request.len() - 4), "one head and nothing behind it");
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(look(&mut connecting).await.is_pending());
    assert_eq!(peer.takes_bytes(), []);
    peer.sends_bytes(answer(&request));
    connecting.await.unwrap();
    assert_eq!(peer.takes_bytes(), []);
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn client_names_the_host_in_tls() {
    // checks [6455-4.1-14]
    use std::sync::Arc;

    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::server::ResolvesServerCertUsingSni;
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use sockeye::Server;

    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    // Has a certificate for who says that name, and for nobody else.
    let mut by_name = ResolvesServerCertUsingSni::new();
    let certified = CertifiedKey::from_der(vec![certificate.clone()], key.into(), &provider).unwrap();
    by_name.add("localhost", certified).unwrap();
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(by_name));
    let server = Server::builder().tls_config(Arc::new(config)).build();

    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder().tls_config(Arc::new(config)).build().unwrap();

    let (near, far) = tokio::io::duplex(64 * 1024);
    let accepting = async { server.accept(far).await?.accept().await };
    let both = async { tokio::join!(client.connect_over(near, "wss://localhost/"), accepting) };
    let (connected, accepted) = common::within(30, both).await;
    connected.unwrap();
    accepted.unwrap();
}
