//! TLS configurations from flags and files.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::Failure;
use super::certificate::is_authority_as_server;

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

/// Builds the configuration of a client that trusts only the certificates in a file, and those that they signed.
pub(crate) fn client_config_trusting(path: &Path) -> Result<ClientConfig, Failure> {
    let bad = |reason: String| Failure::TlsFile {
        path: path.to_owned(),
        reason,
    };
    let certificates = read_certificates(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| bad(error.to_string()))?;
    }
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = TrustFile {
        authorities: authorities.build().map_err(|error| bad(error.to_string()))?,
        certificates,
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = builder.map_err(Failure::tls)?.dangerous();
    let config = config.with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

/// Builds the configuration of a client that accepts any certificate. The connection is encrypted, but the server is not
/// authenticated.
pub(crate) fn danger_client_config_trusting_anyone() -> Result<ClientConfig, Failure> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let verifier = Arc::new(DangerTrustAnyone(provider()));
    let config = builder.map_err(Failure::tls)?.dangerous();
    let config = config.with_custom_certificate_verifier(verifier);
    Ok(config.with_no_client_auth())
}

/// Verifier that accepts certificates signed by those in a file, and the certificates in the file themselves. Names and
/// validity periods are checked in both cases.
#[derive(Debug)]
struct TrustFile {
    authorities: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for TrustFile {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .authorities
            .verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        let is_own = |certificate| self.certificates.iter().any(|own| own == certificate);
        match verified {
            Err(rustls::Error::InvalidCertificate(error)) if is_issuer_missing(&error) && is_own(certificate) => {
                // The validity period was checked before the issuer; only the name is left to check.
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Whether the only problem of a certificate is its issuer.
fn is_issuer_missing(error: &CertificateError) -> bool {
    match error {
        CertificateError::UnknownIssuer => true,
        CertificateError::Other(other) => is_authority_as_server(other),
        _ => false,
    }
}

/// Verifier that accepts any certificate for any name, even if expired. It only checks that the server has the private key.
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

fn bad_file(path: &Path, error: &rustls::pki_types::pem::Error) -> Failure {
    Failure::TlsFile {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
