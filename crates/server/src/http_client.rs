//! One bounded request over HTTP or HTTPS.

use std::error::Error;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use http::request::Builder;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest wait for a whole GET, from name resolution to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest body that is read.
const BODY_SIZE_MAX: usize = 256 * 1024;

/// Largest head of a response that is read.
const HEAD_SIZE_MAX: usize = 32 * 1024;

/// An address to fetch from, checked once.
pub(crate) struct HttpClient {
    host: String,
    port: u16,
    /// The `Host` field.
    authority: HeaderValue,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl HttpClient {
    /// Checks an address; `https` uses `tls`, or else the platform's roots of trust.
    pub(crate) fn new(url: &str, tls: Option<Arc<ClientConfig>>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("is not a URL: {error}"))?;
        let authority = uri.authority().ok_or("is not a URL with a host")?;
        if authority.as_str().contains('@') {
            return Err("has a user name or password, which is not supported".into());
        }
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("has neither https:// nor http://".into()),
        };
        // IPv6 addresses stand in brackets in URLs only.
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let tls = if is_https {
            let name = ServerName::try_from(host.clone()).map_err(|_| "has a host that is no valid name")?;
            let config = tls.map_or_else(platform_tls, Ok)?;
            Some((TlsConnector::from(config), name))
        } else {
            None
        };
        let default_port = if is_https { 443 } else { 80 };
        Ok(Self {
            host,
            port: authority.port_u16().unwrap_or(default_port),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| "has a host that is no valid name")?,
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            tls,
        })
    }

    /// Fetches the body of a response with status 200. Redirects are not followed.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(crate) async fn fetch(&self) -> Result<Bytes, HttpClientError> {
        let request = Request::get(self.path.as_str());
        self.send(request, Bytes::new(), TIMEOUT).await
    }

    /// Sends JSON in a POST request with further header fields, and returns the body of a response with status 200.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(crate) async fn post(
        &self,
        headers: impl Iterator<Item = (HeaderName, HeaderValue)>,
        body: String,
        timeout: Duration,
    ) -> Result<Bytes, HttpClientError> {
        let mut request = Request::post(self.path.as_str()).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.send(request, body.into(), timeout).await
    }

    async fn send(&self, request: Builder, body: Bytes, timeout: Duration) -> Result<Bytes, HttpClientError> {
        let exchange = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            match &self.tls {
                Some((connector, name)) => {
                    let io = connector.connect(name.clone(), tcp).await?;
                    self.exchange(io, request, body).await
                }
                None => self.exchange(tcp, request, body).await,
            }
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .map_err(|_| HttpClientError::Timeout(timeout))?
    }

    async fn exchange<S>(&self, io: S, request: Builder, body: Bytes) -> Result<Bytes, HttpClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut client = http1::Builder::new();
        client.max_buf_size(HEAD_SIZE_MAX);
        let (mut sender, connection) = client.handshake(TokioIo::new(io)).await?;
        let request = request
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("sockeye/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|error| HttpClientError::Other(error.into()))?;
        let mut exchange = pin!(async {
            let response = sender.send_request(request).await?;
            match response.status() {
                StatusCode::OK => read_body(response.into_body()).await,
                status => Err(HttpClientError::Status(status)),
            }
        });
        // The connection moves the bytes of the exchange; it may end first, with the body read and not yet collected.
        tokio::select! {
            biased;
            body = &mut exchange => body,
            _ = connection => exchange.await,
        }
    }
}

async fn read_body(body: hyper::body::Incoming) -> Result<Bytes, HttpClientError> {
    if body.size_hint().lower() > BODY_SIZE_MAX as u64 {
        return Err(HttpClientError::TooLarge);
    }
    let body = Limited::new(body, BODY_SIZE_MAX).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            HttpClientError::TooLarge
        } else {
            HttpClientError::Other(error)
        }
    })
}

fn platform_tls() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.and_then(BuilderVerifierExt::with_platform_verifier);
    let config = builder.map_err(|error| format!("needs TLS, and this machine has no root certificates: {error}"))?;
    Ok(Arc::new(config.with_no_client_auth()))
}

/// Why a fetch failed.
#[derive(Debug)]
pub(crate) enum HttpClientError {
    Timeout(Duration),
    TooLarge,
    Status(StatusCode),
    Other(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for HttpClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(timeout) => write!(f, "no complete answer within {timeout:?}"),
            Self::TooLarge => write!(f, "the answer is larger than {BODY_SIZE_MAX} bytes"),
            Self::Status(status) if status.is_redirection() => {
                write!(
                    f,
                    "answered {status}; redirects are not followed, configure the final address"
                )
            }
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl From<std::io::Error> for HttpClientError {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<hyper::Error> for HttpClientError {
    fn from(error: hyper::Error) -> Self {
        Self::Other(error.into())
    }
}
