//! TLS configurations from flags and files.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use sockeye::ClientTls;

use super::Failure;
use super::options::ConnectOptions;

/// Builds the configuration of a server from the files of its certificate chain and private key.
pub(crate) fn server_config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, Failure> {
    let chain = read_certificates(cert)?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| bad_file(key, &error))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, private_key));
    let config = config.map_err(|error| Failure::TlsFile {
        path: cert.to_owned(),
        reason: format!("does not match the key in {}: {error}", key.display()),
    })?;
    Ok(Arc::new(config))
}

/// The TLS settings of a client from its flags.
pub(crate) fn client_tls(options: &ConnectOptions) -> Result<ClientTls, Failure> {
    let mut tls = ClientTls::new();
    if options.insecure {
        tls = tls.danger_accept_any_certificate();
    }
    if let Some(path) = &options.cacert {
        tls = tls.without_roots();
        for certificate in read_certificates(path)? {
            // Here, so that the error names the file.
            let mut store = RootCertStore::empty();
            let checked = store.add(certificate.clone());
            checked.map_err(|error| Failure::TlsFile {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            tls = tls.trust(certificate);
        }
    }
    if let Some(cert) = &options.cert {
        // The key may be in the same file, as with curl.
        let key = options.key.as_ref().unwrap_or(cert);
        let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| bad_file(key, &error))?;
        tls = tls.client_certificate(read_certificates(cert)?, private_key);
    }
    Ok(tls)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad_file(path, &error))?;
    match certificates.is_empty() {
        true => Err(Failure::TlsFile {
            path: path.to_owned(),
            reason: "contains no certificate in PEM format".into(),
        }),
        false => Ok(certificates),
    }
}

fn bad_file(path: &Path, error: &pem::Error) -> Failure {
    let reason = match error {
        // Only for keys: a file without certificates yields an empty list.
        pem::Error::NoItemsFound => "contains no private key in PEM format".into(),
        pem::Error::Io(error) => error.to_string(),
        error => format!("is not valid PEM: {error}"),
    };
    Failure::TlsFile {
        path: path.to_owned(),
        reason,
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
