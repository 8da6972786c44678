//! TLS settings of a client.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::error::{Error, Kind};
use crate::transport::tls::{ALPN, NoRootCertificates, certificates, invalid, provider};

/// TLS settings of a client, for [`ClientBuilder::tls`](crate::ClientBuilder::tls). They have the same effect for
/// every `wss://` connection and for `https://` proxies.
///
/// By default the server's certificate is verified with the root certificates of the platform, for the host of the URL.
/// TLS 1.2 and 1.3 are used. A session is resumed if the server allows it: connections of one client (and its clones)
/// share 256 sessions. For everything else that rustls can do, use
/// [`ClientBuilder::tls_config`](crate::ClientBuilder::tls_config).
///
/// Invalid settings are reported by [`ClientBuilder::build`](crate::ClientBuilder::build).
///
/// ```no_run
/// use sockeye::{Client, ClientTls};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = ClientTls::new()
///     .trust_pem(std::fs::read("company-ca.pem")?)
///     .client_certificate_pem(std::fs::read("me.pem")?, std::fs::read("me.key")?);
/// let client = Client::builder().tls(tls).build()?;
/// # Ok(())
/// # }
/// ```
///
/// # Cryptography
///
/// The default [`CryptoProvider`] of the process is used if the application has
/// [installed](CryptoProvider::install_default) one. Otherwise the feature `ring` provides it, or else the feature
/// `aws-lc-rs`.
#[must_use]
pub struct ClientTls {
    roots: Roots,
    trusted: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    server_name: Option<ServerName<'static>>,
    offers_alpn: bool,
    accepts_any_certificate: bool,
    /// The first invalid setting.
    invalid: Option<Error>,
}

/// The root certificates before those of the application are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Roots {
    Platform,
    #[cfg(feature = "webpki-roots")]
    Webpki,
    None,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self {
            roots: Roots::Platform,
            trusted: vec![],
            identity: None,
            server_name: None,
            offers_alpn: true,
            accepts_any_certificate: false,
            invalid: None,
        }
    }
}

impl ClientTls {
    /// Creates the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses the root certificates of Mozilla, compiled into the program by the crate `webpki-roots`, instead of those
    /// of the platform. They are the same on every machine, also in a container without a CA store, and change only
    /// with a new version of the crate.
    #[cfg(feature = "webpki-roots")]
    pub fn webpki_roots(mut self) -> Self {
        self.roots = Roots::Webpki;
        self
    }

    /// Trusts only the certificates added with [`trust`](Self::trust) and [`trust_pem`](Self::trust_pem).
    pub fn without_roots(mut self) -> Self {
        self.roots = Roots::None;
        self
    }

    /// Trusts this certificate in addition: as a certificate authority, and as the certificate of the server itself.
    /// Names and validity periods are checked in both cases.
    pub fn trust(mut self, certificate: CertificateDer<'static>) -> Self {
        self.trusted.push(certificate);
        self
    }

    /// Trusts the certificates of a PEM file in addition: see [`trust`](Self::trust).
    pub fn trust_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        match certificates(pem.as_ref()) {
            Ok(certificates) => self.trusted.extend(certificates),
            Err(reason) => self.fail("trusted certificates", reason),
        }
        self
    }

    /// Sets the client certificate (its chain, leaf first) and private key, for servers that request one. Default:
    /// none.
    pub fn client_certificate(mut self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        self.identity = Some((chain, key));
        self
    }

    /// Sets certificate chain and private key from PEM files: see [`client_certificate`](Self::client_certificate). The
    /// key is in PKCS#8, PKCS#1 (RSA) or SEC1 (EC) format, and not encrypted.
    pub fn client_certificate_pem(mut self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let key = PrivateKeyDer::from_pem_slice(key.as_ref());
        match (certificates(chain.as_ref()), key) {
            (Ok(chain), Ok(key)) => self.identity = Some((chain, key)),
            (Err(reason), _) => self.fail("client certificate", reason),
            (_, Err(error)) => self.fail("private key of the client certificate", error.to_string()),
        }
        self
    }

    /// Sets the name that is sent to the server (SNI, RFC 6066) and that its certificate must be valid for, instead of
    /// the host of the URL. The `Host` header does not change.
    pub fn server_name(mut self, name: &str) -> Self {
        match ServerName::try_from(name.to_owned()) {
            Ok(name) => self.server_name = Some(name),
            Err(error) => self.fail("TLS server name", error.to_string()),
        }
        self
    }

    /// Disables ALPN (RFC 7301). By default `http/1.1` is offered, but some old servers fail when a client uses ALPN.
    pub fn without_alpn(mut self) -> Self {
        self.offers_alpn = false;
        self
    }

    /// Accepts any certificate of the server, for any name, also if it has expired.
    ///
    /// **Insecure**: anyone on the network path can read and change everything. Only for tests; to trust one
    /// self-signed certificate, use [`trust`](Self::trust).
    pub fn danger_accept_any_certificate(mut self) -> Self {
        self.accepts_any_certificate = true;
        self
    }

    pub(crate) fn take_server_name(&mut self) -> Option<ServerName<'static>> {
        self.server_name.take()
    }

    /// Builds the configuration of rustls.
    pub(crate) fn into_config(self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(error) = self.invalid {
            return Err(error);
        }
        let provider = provider()?;
        let verifier: Arc<dyn ServerCertVerifier> = match self.accepts_any_certificate {
            true => Arc::new(DangerAcceptAny(provider.clone())),
            false => verifier(self.roots, self.trusted, &provider)?,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(Kind::Tls(io::Error::other(error))))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| invalid("client certificate", error.to_string()))?,
        };
        if self.offers_alpn {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        Ok(Arc::new(config))
    }

    fn fail(&mut self, what: &'static str, reason: String) {
        self.invalid.get_or_insert_with(|| invalid(what, reason));
    }
}

/// Omits the certificates and the key.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("roots", &self.roots)
            .field("trusted", &self.trusted.len())
            .field("has_client_certificate", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .field("offers_alpn", &self.offers_alpn)
            .field("accepts_any_certificate", &self.accepts_any_certificate)
            .finish_non_exhaustive()
    }
}

/// The verifier of the server's certificate.
fn verifier(
    roots: Roots,
    trusted: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let bad_trusted = |error: &dyn fmt::Display| invalid("trusted certificates", error.to_string());
    let mut store = RootCertStore::empty();
    for certificate in &trusted {
        store.add(certificate.clone()).map_err(|error| bad_trusted(&error))?;
    }
    let inner: Arc<dyn ServerCertVerifier> = match roots {
        Roots::Platform => Arc::new(
            platform_verifier(&trusted, provider)
                .map_err(|source| Error::new(Kind::Tls(io::Error::other(NoRootCertificates::new(source)))))?,
        ),
        #[cfg(feature = "webpki-roots")]
        Roots::Webpki => {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            webpki_verifier(store, provider).map_err(|error| bad_trusted(&error))?
        }
        Roots::None => webpki_verifier(store, provider).map_err(|error| bad_trusted(&error))?,
    };
    Ok(match trusted.is_empty() {
        true => inner,
        false => Arc::new(TrustedServers { inner, trusted }),
    })
}

#[cfg(not(target_os = "android"))]
fn platform_verifier(
    trusted: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Verifier, rustls::Error> {
    Verifier::new_with_extra_roots(trusted.iter().cloned(), provider.clone())
}

/// Android's verifier accepts no further authorities; [`TrustedServers`] still accepts the certificates themselves.
#[cfg(target_os = "android")]
fn platform_verifier(
    _trusted: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Verifier, rustls::Error> {
    Verifier::new(provider.clone())
}

fn webpki_verifier(
    store: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, rustls::client::VerifierBuilderError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build()
}

/// Verifier that also accepts a trusted certificate presented by the server itself, which webpki accepts only as an
/// issuer.
#[derive(Debug)]
struct TrustedServers {
    inner: Arc<dyn ServerCertVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for TrustedServers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        match verified {
            Err(rustls::Error::InvalidCertificate(error))
                if is_issuer_missing(&error) && self.trusted.iter().any(|own| own == certificate) =>
            {
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
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Whether the only problem of a certificate is its issuer: it is unknown, or the certificate is itself an authority,
/// as self-signed ones often are.
fn is_issuer_missing(error: &CertificateError) -> bool {
    match error {
        CertificateError::UnknownIssuer => true,
        // rustls has no variant for it, and returns the error of webpki.
        CertificateError::Other(other) => other.to_string() == "CaUsedAsEndEntity",
        _ => false,
    }
}

/// Verifier that accepts any certificate for any name, even if expired. It only checks that the server has the private
/// key.
#[derive(Debug)]
struct DangerAcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for DangerAcceptAny {
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
