//! TLS by rustls.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::error::{Error, Kind};

/// The opening handshake is an HTTP/1.1 request, and a server that speaks more is to know.
pub(crate) const ALPN: &[u8] = b"http/1.1";

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
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|error| tls_error(io::Error::other(error)))?
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
    TlsConnector::from(config).connect(name, io).await.map_err(tls_error)
}

/// The server's side.
// [6455-4.2.2-1, 6455-10.6-1]
pub(crate) async fn accept<S>(config: Arc<ServerConfig>, io: S) -> Result<server::TlsStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    TlsAcceptor::from(config).accept(io).await.map_err(tls_error)
}

fn tls_error(error: io::Error) -> Error {
    Error::new(Kind::Tls(error))
}
