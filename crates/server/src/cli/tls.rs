//! TLS as the flags want it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

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

/// TLS for a client that trusts the certificates in a file, and what they vouch for, and nobody else.
pub(crate) fn client_config_trusting(path: &Path) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| Failure::TlsFile {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = builder.map_err(Failure::tls)?.with_root_certificates(roots);
    Ok(with_alpn(config.with_no_client_auth()))
}

/// TLS for a client that takes whatever certificate it is shown. It is encrypted, but to whom is unknown.
pub(crate) fn danger_client_config_trusting_anyone() -> Result<ClientConfig, Failure> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let verifier = Arc::new(DangerTrustAnyone(provider()));
    let config = builder.map_err(Failure::tls)?.dangerous();
    let config = config.with_custom_certificate_verifier(verifier);
    Ok(with_alpn(config.with_no_client_auth()))
}

/// Takes any certificate for any name, expired ones too. Only that the server has the key to it is checked.
#[derive(Debug)]
struct DangerTrustAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for DangerTrustAnyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn with_alpn(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
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
