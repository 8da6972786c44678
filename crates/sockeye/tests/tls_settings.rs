//! TLS settings of clients, against servers of rustls on sockets.
#![cfg(feature = "tls")]

mod common;

use std::sync::{Arc, Mutex};

use common::{text_of, within};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use sockeye::{Client, ClientTls, Error, ErrorKind, Server};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for a name, signed by an authority, with its key.
fn signed(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap(), key)
}

fn key_der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// What a server saw of a TLS handshake.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    kind: Option<HandshakeKind>,
    sni: Option<String>,
    alpn: Option<Vec<u8>>,
    client: Option<CertificateDer<'static>>,
}

/// An echo server. If `clients` is given, it requires a certificate that is signed by it.
async fn server(
    (certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>),
    clients: Option<CertificateDer<'static>>,
) -> (u16, Arc<Mutex<Vec<Seen>>>) {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = match clients {
        None => builder.unwrap().with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.unwrap().with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(vec![]));
    let recorder = seen.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let connection = tls.get_ref().1;
            recorder.lock().unwrap().push(Seen {
                kind: connection.handshake_kind(),
                sni: connection.server_name().map(str::to_owned),
                alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
                client: connection
                    .peer_certificates()
                    .map(|chain| chain[0].clone().into_owned()),
            });
            tokio::spawn(async move {
                let mut ws = Server::default().accept(tls).await?.accept().await?;
                while let Some(message) = ws.recv().await? {
                    ws.send(message).await?;
                }
                Ok::<_, Error>(())
            });
        }
    });
    (port, seen)
}

async fn check_echo(client: &Client, port: u16) {
    let mut ws = within(30, client.connect(&format!("wss://localhost:{port}/")))
        .await
        .unwrap();
    ws.send("encrypted").await.unwrap();
    assert_eq!(text_of(within(30, ws.recv()).await), "encrypted");
}

async fn check_error(tls: ClientTls, port: u16, says: &str) {
    let client = Client::builder().tls(tls).build().unwrap();
    let error = within(30, client.connect(&format!("wss://localhost:{port}/")))
        .await
        .unwrap_err();
    assert!(error.is_tls() && error.to_string().contains(says), "{error}");
}

#[tokio::test]
async fn second_connection_resumes_the_session() {
    let authority = authority();
    let (certificate, key) = signed(&authority, "localhost");
    let (port, seen) = server((certificate.der().clone(), key_der(&key)), None).await;
    let tls = ClientTls::new().without_roots().trust_pem(authority.pem());
    let client = Client::builder().tls(tls).build().unwrap();
    // TLS 1.3 sends the ticket after the handshake: the echo shows that the client has read it.
    check_echo(&client, port).await;
    check_echo(&client.clone(), port).await;
    let kinds: Vec<_> = seen.lock().unwrap().iter().map(|seen| seen.kind).collect();
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}

#[tokio::test]
async fn authorities_and_self_signed_certificates_are_trusted_in_addition() {
    let authority = authority();
    let (certificate, key) = signed(&authority, "localhost");
    let (port, _) = server((certificate.der().clone(), key_der(&key)), None).await;
    // In addition to the roots of the platform, if there are any.
    let tls = ClientTls::new().trust(authority.der().clone());
    check_echo(&Client::builder().tls(tls).build().unwrap(), port).await;
    // Any other certificate of the authority does not make it trusted.
    let other = signed(&authority, "x").0.der().clone();
    check_error(
        ClientTls::new().without_roots().trust(other),
        port,
        "invalid peer certificate",
    )
    .await;

    for is_authority in [false, true] {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let (port, _) = server((own.der().clone(), key_der(&key)), None).await;
        let tls = ClientTls::new().without_roots().trust(own.der().clone());
        check_echo(&Client::builder().tls(tls).build().unwrap(), port).await;
        // The name is checked.
        let tls = ClientTls::new()
            .without_roots()
            .trust(own.der().clone())
            .server_name("other.example");
        check_error(tls, port, "other.example").await;
    }
}

#[cfg(feature = "webpki-roots")]
#[tokio::test]
async fn webpki_roots_are_used_and_extended() {
    let authority = authority();
    let (certificate, key) = signed(&authority, "localhost");
    let (port, _) = server((certificate.der().clone(), key_der(&key)), None).await;
    check_error(ClientTls::new().webpki_roots(), port, "UnknownIssuer").await;
    let tls = ClientTls::new().webpki_roots().trust(authority.der().clone());
    check_echo(&Client::builder().tls(tls).build().unwrap(), port).await;
}

#[tokio::test]
async fn client_certificate_is_shown_to_a_server_that_asks() {
    let authority = authority();
    let (certificate, key) = signed(&authority, "localhost");
    let identity = (certificate.der().clone(), key_der(&key));
    let (port, seen) = server(identity, Some(authority.der().clone())).await;
    let (own, own_key) = signed(&authority, "me");
    let trusting = || ClientTls::new().without_roots().trust(authority.der().clone());
    let tls = trusting().client_certificate_pem(own.pem(), own_key.serialize_pem());
    assert!(!format!("{tls:?}").contains("BEGIN"));
    check_echo(&Client::builder().tls(tls).build().unwrap(), port).await;
    assert_eq!(seen.lock().unwrap()[0].client.as_ref(), Some(own.der()));
    // With TLS 1.3 the client learns of it when it reads: in the opening handshake.
    let client = Client::builder().tls(trusting()).build().unwrap();
    let error = within(30, client.connect(&format!("wss://localhost:{port}/")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn server_name_and_alpn_can_be_changed() {
    let authority = authority();
    let (certificate, key) = signed(&authority, "other.example");
    let (port, seen) = server((certificate.der().clone(), key_der(&key)), None).await;
    let trusting = || ClientTls::new().without_roots().trust(authority.der().clone());
    check_error(trusting(), port, "not valid for name \"localhost\"").await;
    for (tls, alpn) in [
        (trusting().server_name("other.example"), Some(b"http/1.1".to_vec())),
        (trusting().server_name("other.example").without_alpn(), None),
    ] {
        seen.lock().unwrap().clear();
        check_echo(&Client::builder().tls(tls).build().unwrap(), port).await;
        let seen = seen.lock().unwrap()[0].clone();
        assert_eq!((seen.sni.as_deref(), seen.alpn), (Some("other.example"), alpn));
    }
}

#[tokio::test]
async fn any_certificate_is_accepted_if_the_danger_is() {
    let (certificate, key) = signed(&authority(), "wrong.example");
    let (port, _) = server((certificate.der().clone(), key_der(&key)), None).await;
    let tls = ClientTls::new().danger_accept_any_certificate();
    check_echo(&Client::builder().tls(tls).build().unwrap(), port).await;
}

#[test]
fn invalid_settings_are_reported_by_build() {
    let pem = authority().pem();
    let (certificate, _) = signed(&authority(), "me");
    for (tls, says) in [
        (
            ClientTls::new().trust_pem("no PEM"),
            "trusted certificates: no certificate in PEM format",
        ),
        (
            ClientTls::new().without_roots().trust(vec![1, 2, 3].into()),
            "trusted certificates: ",
        ),
        (ClientTls::new().without_roots(), "trusted certificates: "),
        (
            ClientTls::new().client_certificate_pem(&pem, "s3cret"),
            "private key of the client certificate: ",
        ),
        (
            ClientTls::new().client_certificate_pem("x", "s3cret"),
            "client certificate: no certificate",
        ),
        (
            ClientTls::new()
                .without_roots()
                .trust_pem(&pem)
                .client_certificate(vec![certificate.der().clone()], key_der(&KeyPair::generate().unwrap())),
            "client certificate: keys may not be consistent: KeyMismatch",
        ),
        (ClientTls::new().server_name("no name"), "TLS server name: "),
    ] {
        let error = Client::builder().tls(tls).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(text.contains(says) && !text.contains("s3cret"), "{text}");
    }
}

#[tokio::test]
async fn server_reads_its_certificate_and_key_from_pem() {
    let authority = authority();
    let (certificate, key) = signed(&authority, "localhost");
    let server = Server::builder()
        .tls_pem(certificate.pem(), key.serialize_pem())
        .unwrap()
        .build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = server.serve(listener).run(|incoming| async move {
        let mut ws = incoming.accept().await?;
        while let Some(message) = ws.recv().await? {
            ws.send(message).await?;
        }
        Ok(())
    });
    tokio::spawn(serving);
    let tls = ClientTls::new().without_roots().trust(authority.der().clone());
    check_echo(&Client::builder().tls(tls).build().unwrap(), port).await;

    let other = KeyPair::generate().unwrap().serialize_pem();
    for (chain, key, says) in [
        (
            "no PEM".to_owned(),
            other.clone(),
            "certificate: no certificate in PEM format",
        ),
        (certificate.pem(), "s3cret".to_owned(), "private key: "),
        (certificate.pem(), other, "certificate and private key: "),
    ] {
        let error = Server::builder().tls_pem(chain, key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(
            error.to_string().contains(says) && !error.to_string().contains("s3cret"),
            "{error}"
        );
    }
}
