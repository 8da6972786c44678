//! A certificate for one test run.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tempfile::TempDir;

/// A self-signed certificate for `localhost` and `127.0.0.1` and its key, as PEM files that are deleted when it is
/// dropped.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate in DER, for clients that trust it.
    pub der: Vec<u8>,
    folder: TempDir,
}

impl Certificate {
    /// Generates a certificate.
    ///
    /// # Panics
    /// If it cannot be generated or written.
    pub fn generate() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("the names are valid");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let certificate = Self {
            der: made.cert.der().to_vec(),
            folder,
        };
        std::fs::write(certificate.cert_path(), made.cert.pem()).expect("the folder is writable");
        std::fs::write(certificate.key_path(), made.signing_key.serialize_pem()).expect("the folder is writable");
        certificate
    }

    /// TLS settings of a server with this certificate.
    ///
    /// # Panics
    /// If the certificate is invalid.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from_pem_file(self.key_path()).expect("the key was written by `generate`");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions
            .expect("ring does all versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone().into()], key);
        Arc::new(config.expect("the certificate is valid"))
    }

    /// Path of the certificate file.
    pub fn cert_path(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Path of the key file.
    pub fn key_path(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}

/// TLS settings of a client that trusts only `certificate`.
///
/// # Panics
/// If the certificate is invalid.
pub fn trusting(certificate: CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("the certificate is valid");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions
        .expect("ring does all versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
