//! TLS from files.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Failure;

/// The opening handshake is an HTTP/1.1 request.
const ALPN: &[u8] = b"http/1.1";

/// TLS for a server, from the files with its certificate chain and its private key.
pub(crate) fn server_config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, Failure> {
    let chain = read_certificates(cert)?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| bad_file(key, &error))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, private_key));
    let mut config = config.map_err(|error| Failure::TlsFile {
        path: cert.to_owned(),
        reason: format!("does not go with the key in {}: {error}", key.display()),
    })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad_file(path, &error))?;
    match certificates.is_empty() {
        true => Err(Failure::TlsFile {
            path: path.to_owned(),
            reason: "has no certificate in PEM".into(),
        }),
        false => Ok(certificates),
    }
}

fn bad_file(path: &Path, error: &rustls::pki_types::pem::Error) -> Failure {
    Failure::TlsFile {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
