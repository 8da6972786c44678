//! TLS by rustls.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, PeerMisbehaved, ServerConfig};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::error::{Error, Kind};

/// The one protocol that is spoken over TLS (ALPN, RFC 7301): the opening handshake is an HTTP/1.1 request.
const ALPN: &[u8] = b"http/1.1";

/// Defines a function that makes HTTP/1.1 the only protocol of a configuration. One that was made for HTTP names HTTP/2
/// first, and a peer that takes it up cannot read an HTTP/1.1 request.
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

/// TLS 1.2 and 1.3 with the platform's roots of trust, made once.
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

/// The client's side.
pub(crate) async fn connect<S>(config: Arc<ClientConfig>, host: &str, io: S) -> Result<client::TlsStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // RFC 6455 §4.1 (5): the name is sent along (SNI), and held against the certificate. [6455-4.1-12, 6455-4.1-14]
    let name = ServerName::try_from(host.to_owned()).map_err(Error::address)?;
    let tls = TlsConnector::from(config).connect(name, io).await.map_err(tls_error)?;
    check_alpn(tls.get_ref().1.alpn_protocol())?;
    Ok(tls)
}

/// The server's side.
// [6455-4.2.2-1, 6455-10.6-1]
pub(crate) async fn accept<S>(config: Arc<ServerConfig>, io: S) -> Result<server::TlsStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let tls = TlsAcceptor::from(config).accept(io).await.map_err(tls_error)?;
    check_alpn(tls.get_ref().1.alpn_protocol())?;
    Ok(tls)
}

/// Refuses TLS that agreed on another protocol than HTTP/1.1. To have agreed on none is common.
pub(crate) fn check_alpn(protocol: Option<&[u8]>) -> Result<(), Error> {
    match protocol {
        None | Some(ALPN) => Ok(()),
        Some(other) => Err(tls_error(io::Error::other(WrongProtocol(format!(
            "TLS agreed on the protocol {}, but an opening handshake is HTTP/1.1: offer http/1.1 only (ALPN)",
            other.escape_ascii()
        ))))),
    }
}

/// Says in plain words what a failed negotiation of the protocol means, and leaves other errors as they are.
fn tls_error(error: io::Error) -> Error {
    let rustls_error = error.get_ref().and_then(|inner| inner.downcast_ref());
    let explained = match rustls_error {
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            "the server does not speak HTTP/1.1 on this port: it refused the protocol http/1.1 (ALPN)"
        }
        Some(rustls::Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol)) => {
            "the server chose a protocol that was not offered; the offer is http/1.1 (ALPN)"
        }
        Some(rustls::Error::NoApplicationProtocol) => {
            "the client offers other protocols than http/1.1 (ALPN), such as HTTP/2 only"
        }
        _ => return Error::new(Kind::Tls(error)),
    };
    Error::new(Kind::Tls(io::Error::new(error.kind(), WrongProtocol(explained.into()))))
}

/// TLS works, but for another protocol.
#[derive(Debug)]
struct WrongProtocol(String);

impl fmt::Display for WrongProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for WrongProtocol {}

/// There are no certificates that servers could be checked against: no CA store on this machine, as in an empty container
/// image.
///
/// Inside the [`std::io::Error`] that is the [`source`](StdError::source) of an [`Error`](crate::Error) of which
/// [`is_tls`](crate::Error::is_tls) is true. Only a client without a [`tls_config`](crate::ClientBuilder::tls_config) of its
/// own needs the store.
#[derive(Debug)]
pub struct NoRootCertificates {
    source: rustls::Error,
}

impl fmt::Display for NoRootCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no trusted CA certificates were found on this machine: install them (the package is mostly named \
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
