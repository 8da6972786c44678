//! A self-signed certificate, and a server and a client that use it.

use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sockeye::{Client, Server};

/// A new certificate for `localhost`.
pub(crate) fn certified() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// A server with this certificate.
pub(crate) fn server(certified: &CertifiedKey<KeyPair>) -> Server {
    Server::builder().tls_config(Arc::new(server_config(certified))).build()
}

pub(crate) fn server_config(certified: &CertifiedKey<KeyPair>) -> ServerConfig {
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap()
}

/// A client that trusts only this certificate.
pub(crate) fn client(certified: &CertifiedKey<KeyPair>) -> Client {
    let config = Arc::new(client_config(certified));
    Client::builder().tls_config(config).build().unwrap()
}

pub(crate) fn client_config(certified: &CertifiedKey<KeyPair>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
