//! TLS with rustls.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, InvalidMessage, PeerMisbehaved, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::error::{Error, Kind};

/// The only ALPN protocol (RFC 7301): the opening handshake is an HTTP/1.1 request.
pub(crate) const ALPN: &[u8] = b"http/1.1";

/// Defines a function that makes HTTP/1.1 the only ALPN protocol of a configuration. A configuration for HTTP often
/// prefers HTTP/2, and a peer that selects that cannot read an HTTP/1.1 request.
macro_rules! http1_only {
    ($name:ident, $config:ty) => {
        pub(crate) fn $name(mut config: Arc<$config>) -> Arc<$config> {
            if config.alpn_protocols != [ALPN] {
                Arc::make_mut(&mut config).alpn_protocols = vec![ALPN.to_vec()];
            }
            config
        }
    };
}

http1_only!(client_config, ClientConfig);
http1_only!(server_config, ServerConfig);

/// The cryptography: the default of the process, or else that of the feature `ring`, or else of `aws-lc-rs`.
// In this order, so that a feature that another crate enables changes nothing.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, Error> {
    if let Some(provider) = CryptoProvider::get_default() {
        return Ok(provider.clone());
    }
    #[cfg(feature = "ring")]
    return Ok(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
    return Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err(Error::new(Kind::Tls(io::Error::other(ExplainedTlsError(
        "no cryptography: enable the feature `ring` or `aws-lc-rs` of the crate sockeye, or install a default \
         CryptoProvider of rustls"
            .into(),
    )))))
}

/// Performs the TLS handshake of a client.
pub(crate) async fn connect<S>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    io: S,
) -> Result<client::TlsStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // RFC 6455 §4.1 (5): the name is sent (SNI) and checked against the certificate. [6455-4.1-12, 6455-4.1-14]
    let tls = TlsConnector::from(config).connect(name, io).await.map_err(tls_error)?;
    check_alpn(tls.get_ref().1.alpn_protocol())?;
    Ok(tls)
}

/// A TLS session of a client that is driven by a thread.
#[cfg(all(unix, feature = "blocking"))]
pub(crate) fn client_session(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<rustls::ClientConnection, Error> {
    rustls::ClientConnection::new(config, name).map_err(|error| tls_error(io::Error::other(error)))
}

/// A TLS session of a server that is driven by a thread.
#[cfg(all(unix, feature = "blocking"))]
pub(crate) fn server_session(config: Arc<ServerConfig>) -> Result<rustls::ServerConnection, Error> {
    rustls::ServerConnection::new(config).map_err(|error| tls_error(io::Error::other(error)))
}

/// Performs the TLS handshake of a server.
// [6455-4.2.2-1, 6455-10.6-1]
pub(crate) async fn accept<S>(config: Arc<ServerConfig>, io: S) -> Result<server::TlsStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let tls = TlsAcceptor::from(config).accept(io).await.map_err(tls_error)?;
    check_alpn(tls.get_ref().1.alpn_protocol())?;
    Ok(tls)
}

/// Fails if TLS negotiated a protocol other than HTTP/1.1. Negotiating none is common.
pub(crate) fn check_alpn(protocol: Option<&[u8]>) -> Result<(), Error> {
    match protocol {
        None | Some(ALPN) => Ok(()),
        Some(other) => Err(tls_error(io::Error::other(ExplainedTlsError(format!(
            "TLS negotiated the protocol {}, but WebSocket needs http/1.1: offer only http/1.1 (ALPN)",
            other.escape_ascii()
        ))))),
    }
}

/// Replaces errors of ALPN, and of a peer without TLS, by ones that explain the cause. Keeps other errors.
pub(crate) fn tls_error(error: io::Error) -> Error {
    let rustls_error = error.get_ref().and_then(|inner| inner.downcast_ref());
    let explained = match rustls_error {
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            "the server does not speak HTTP/1.1 on this port: it rejected the protocol http/1.1 (ALPN)"
        }
        Some(rustls::Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol)) => {
            "the server selected a protocol that was not offered; only http/1.1 was offered (ALPN)"
        }
        Some(rustls::Error::NoApplicationProtocol) => {
            "the client does not offer http/1.1 (ALPN); it may offer only HTTP/2"
        }
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the peer does not speak TLS on this port: use ws instead of wss, or the port for TLS"
        }
        _ => return Error::new(Kind::Tls(error)),
    };
    Error::new(Kind::Tls(io::Error::new(
        error.kind(),
        ExplainedTlsError(explained.into()),
    )))
}

/// An error of TLS with an explanation: the peer speaks another protocol, or there is no cryptography.
#[derive(Debug)]
struct ExplainedTlsError(String);

impl fmt::Display for ExplainedTlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for ExplainedTlsError {}

/// No root certificates were found to verify servers with, because the machine has no CA store. Common in minimal
/// container images.
///
/// It is inside the [`std::io::Error`] of an [`Error`](crate::Error) for which [`is_tls`](crate::Error::is_tls) is
/// true. A client needs no CA store with [`ClientTls::trust`](crate::ClientTls::trust) or with the feature
/// `webpki-roots`.
#[derive(Debug)]
pub struct NoRootCertificates {
    source: rustls::Error,
}

impl NoRootCertificates {
    pub(crate) const fn new(source: rustls::Error) -> Self {
        Self { source }
    }
}

impl fmt::Display for NoRootCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no trusted CA certificates were found on this machine: install them (the package is usually named \
             ca-certificates), or set SSL_CERT_FILE to a PEM file or SSL_CERT_DIR to a directory of them, or compile \
             them into the program with the feature `webpki-roots` of the crate sockeye and ClientTls::webpki_roots, or \
             give the client its own with ClientTls::trust",
        )
    }
}

impl StdError for NoRootCertificates {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

/// The configuration of a server with a certificate chain and its private key in PEM format, without client
/// certificates.
pub(crate) fn server_config_pem(chain: &[u8], key: &[u8]) -> Result<ServerConfig, Error> {
    let chain = certificates(chain).map_err(|reason| invalid("certificate", reason))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| invalid("private key", error.to_string()))?;
    ServerConfig::builder_with_provider(provider()?)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Kind::Tls(io::Error::other(error))))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| invalid("certificate and private key", error.to_string()))
}

pub(crate) fn invalid(what: &'static str, reason: String) -> Error {
    Error::invalid_input(InvalidTls { what, reason })
}

/// A TLS setting is invalid.
#[derive(Debug)]
struct InvalidTls {
    what: &'static str,
    reason: String,
}

impl fmt::Display for InvalidTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}

impl StdError for InvalidTls {}

/// The certificates in a PEM file, at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("no certificate in PEM format".into()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(error.to_string()),
    }
}
