//! TLS with rustls.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, InvalidMessage, PeerMisbehaved, ServerConfig};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::error::{Error, Kind};

/// The only ALPN protocol (RFC 7301): the opening handshake is an HTTP/1.1 request.
const ALPN: &[u8] = b"http/1.1";

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

/// TLS 1.2 and 1.3 with the platform's root certificates. Created once.
// [6455-10.6-1, 6455-10.6-3]
pub(crate) fn default_client_config() -> Result<Arc<ClientConfig>, Error> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_error(io::Error::other(error)))?
        .with_platform_verifier()
        .map_err(|source| tls_error(io::Error::other(NoRootCertificates { source })))?
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}

/// Performs the TLS handshake of a client.
pub(crate) async fn connect<S>(config: Arc<ClientConfig>, host: &str, io: S) -> Result<client::TlsStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // RFC 6455 §4.1 (5): the name is sent (SNI) and checked against the certificate. [6455-4.1-12, 6455-4.1-14]
    let name = ServerName::try_from(host.to_owned()).map_err(Error::invalid_url)?;
    let tls = TlsConnector::from(config).connect(name, io).await.map_err(tls_error)?;
    check_alpn(tls.get_ref().1.alpn_protocol())?;
    Ok(tls)
}

/// A TLS session of a client that is driven by a thread.
#[cfg(all(unix, feature = "blocking"))]
pub(crate) fn client_session(config: Arc<ClientConfig>, host: &str) -> Result<rustls::ClientConnection, Error> {
    let name = ServerName::try_from(host.to_owned()).map_err(Error::invalid_url)?;
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
        Some(other) => Err(tls_error(io::Error::other(WrongProtocol(format!(
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
    Error::new(Kind::Tls(io::Error::new(error.kind(), WrongProtocol(explained.into()))))
}

/// Error of a TLS handshake with a peer that speaks another protocol.
#[derive(Debug)]
struct WrongProtocol(String);

impl fmt::Display for WrongProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for WrongProtocol {}

/// No root certificates were found to verify servers with, because the machine has no CA store. Common in minimal
/// container images.
///
/// It is inside the [`std::io::Error`] of an [`Error`](crate::Error) for which [`is_tls`](crate::Error::is_tls) is
/// true. Only a client without its own [`tls_config`](crate::ClientBuilder::tls_config) needs the CA store.
#[derive(Debug)]
pub struct NoRootCertificates {
    source: rustls::Error,
}

impl fmt::Display for NoRootCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no trusted CA certificates were found on this machine: install them (the package is usually named \
             ca-certificates), or set SSL_CERT_FILE to a PEM file or SSL_CERT_DIR to a directory of them, or give the \
             client its own roots with ClientBuilder::tls_config",
        )
    }
}

impl StdError for NoRootCertificates {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}
