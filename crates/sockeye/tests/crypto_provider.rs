//! The application chooses the cryptography of TLS: with the features `ring` and `aws-lc-rs`, or by installing a default
//! provider of rustls. One test, because the installed provider is that of the process.
#![cfg(any(feature = "ring", feature = "aws-lc-rs"))]

mod common;

use std::sync::{Arc, Mutex};

use common::within;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{NamedGroup, ServerConfig};
use sockeye::{Client, ClientTls, Server};
use tokio::net::TcpListener;

/// The provider that is used without an installed one: that of the feature `ring`, or else of `aws-lc-rs`.
fn of_features() -> CryptoProvider {
    #[cfg(feature = "ring")]
    return rustls::crypto::ring::default_provider();
    #[cfg(not(feature = "ring"))]
    return rustls::crypto::aws_lc_rs::default_provider();
}

/// A provider with a single key exchange that is not the preferred one of any default: with the feature `aws-lc-rs`, one
/// that ring does not have.
fn chosen() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return CryptoProvider {
        kx_groups: vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768],
        ..rustls::crypto::aws_lc_rs::default_provider()
    };
    #[cfg(not(feature = "aws-lc-rs"))]
    return CryptoProvider {
        kx_groups: vec![rustls::crypto::ring::kx_group::SECP384R1],
        ..rustls::crypto::ring::default_provider()
    };
}

fn groups_of(provider: &CryptoProvider) -> Vec<NamedGroup> {
    provider.kx_groups.iter().map(|group| group.name()).collect()
}

/// The certificate of a server, and the key exchanges that the last client offered.
#[derive(Debug)]
struct Recorder {
    certified: Arc<CertifiedKey>,
    offered: Mutex<Vec<NamedGroup>>,
}

impl ResolvesServerCert for Recorder {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        *self.offered.lock().unwrap() = hello.named_groups().unwrap_or_default().to_vec();
        Some(self.certified.clone())
    }
}

/// Opens a `wss://` connection to a server with this provider. Returns the key exchanges that the client offered.
async fn offered(provider: CryptoProvider) -> Vec<NamedGroup> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let chain = vec![certified.cert.der().clone()];
    let recorder = Arc::new(Recorder {
        certified: Arc::new(CertifiedKey::from_der(chain, key.into(), &provider).unwrap()),
        offered: Mutex::default(),
    });
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(recorder.clone());
    let server = Server::builder().tls_config(Arc::new(config)).build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
    let accepting =
        tokio::spawn(async move { server.accept(listener.accept().await.unwrap().0).await?.accept().await });
    let tls = ClientTls::new().without_roots().trust(certified.cert.der().clone());
    let client = Client::builder().tls(tls).build().unwrap();
    within(30, client.connect(&url)).await.unwrap();
    accepting.await.unwrap().unwrap();
    recorder.offered.lock().unwrap().clone()
}

#[tokio::test]
async fn installed_provider_replaces_that_of_the_features() {
    let of_features_groups = groups_of(&of_features());
    assert_eq!(offered(of_features()).await, of_features_groups);

    let chosen_groups = groups_of(&chosen());
    assert_ne!(chosen_groups, of_features_groups);
    chosen().install_default().unwrap();
    assert_eq!(offered(chosen()).await, chosen_groups);
}
