//! A client for one address over HTTP or HTTPS, with a deadline and a size limit for each exchange. Connections are
//! kept for the next request.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, USER_AGENT};
use http::request::Builder;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower_service::Service;

/// Longest wait for a whole GET, from name resolution to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest body that is read.
const BODY_SIZE_MAX: usize = 256 * 1024;

/// Largest head of a response that is read.
const HEAD_SIZE_MAX: usize = 32 * 1024;

/// How long a connection is kept without a request. Servers close idle connections after 2 s (gunicorn) or 5 s
/// (Node.js, uvicorn), and a request that is sent at that moment fails.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of connections that are kept without a request.
const IDLE_MAX: usize = 64;

/// A client for an address, which is checked once.
pub(crate) struct HttpClient {
    uri: Uri,
    client: Client<Connector, Full<Bytes>>,
}

impl HttpClient {
    /// Validates the URL. For `https`, uses `tls`, or the platform's root certificates.
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
        let connector = Connector {
            host: host.into(),
            port: authority.port_u16().unwrap_or(default_port),
            tls,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(HEAD_SIZE_MAX)
            .build(connector);
        Ok(Self { uri, client })
    }

    /// Fetches the body of a response with status 200. Redirects are not followed.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(crate) async fn fetch(&self) -> Result<Bytes, HttpClientError> {
        let request = Request::get(&self.uri);
        self.send(request, Bytes::new(), TIMEOUT).await
    }

    /// Sends JSON in a POST request with further header fields, and returns the body of a response with status 200.
    ///
    /// A request that could not be written because the server had closed a kept connection is sent again on a new one.
    /// One that was written is not.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(crate) async fn post(
        &self,
        headers: impl Iterator<Item = (HeaderName, HeaderValue)>,
        body: String,
        timeout: Duration,
    ) -> Result<Bytes, HttpClientError> {
        let mut request = Request::post(&self.uri).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.send(request, body.into(), timeout).await
    }

    async fn send(&self, request: Builder, body: Bytes, timeout: Duration) -> Result<Bytes, HttpClientError> {
        let request = request
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("sockeye/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| HttpClientError::Other(error.into()))?;
        let exchange = async {
            let response = self.client.request(request).await?;
            match response.status() {
                StatusCode::OK => read_body(response.into_body()).await,
                status => Err(HttpClientError::Status(status)),
            }
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .map_err(|_| HttpClientError::Timeout(timeout))?
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

/// Opens connections to one address.
#[derive(Clone)]
struct Connector {
    host: Arc<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    async fn connect(self) -> io::Result<TokioIo<Stream>> {
        let tcp = TcpStream::connect((&*self.host, self.port)).await?;
        tcp.set_nodelay(true)?;
        let stream = match self.tls {
            Some((connector, name)) => Either::Right(connector.connect(name, tcp).await?),
            None => Either::Left(tcp),
        };
        Ok(TokioIo::new(Stream(stream)))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// A connection, with TLS or without.
struct Stream(Either<TcpStream, TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
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
    let config = builder.map_err(|error| {
        format!("needs root certificates, which the platform does not provide: {error}; install ca-certificates")
    })?;
    Ok(Arc::new(config.with_no_client_auth()))
}

/// Why an exchange failed.
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
            Self::Timeout(timeout) => write!(f, "no complete response within {timeout:?}"),
            Self::TooLarge => write!(f, "the response is larger than {BODY_SIZE_MAX} bytes"),
            Self::Status(status) if status.is_redirection() => {
                write!(
                    f,
                    "the server answered with status {status}; redirects are not followed: configure the final URL"
                )
            }
            Self::Status(status) => write!(f, "the server answered with status {status}"),
            Self::Other(error) => {
                error.fmt(f)?;
                let mut source = error.source();
                while let Some(error) = source {
                    write!(f, ": {error}")?;
                    source = error.source();
                }
                Ok(())
            }
        }
    }
}

impl From<hyper_util::client::legacy::Error> for HttpClientError {
    fn from(error: hyper_util::client::legacy::Error) -> Self {
        Self::Other(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers `per_connection` requests of a connection, then closes it, and counts connections.
    async fn server(per_connection: usize) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    for number in 1..=per_connection {
                        let mut request = Vec::new();
                        while !request.ends_with(b"}") {
                            match tcp.read_u8().await {
                                Ok(byte) => request.push(byte),
                                Err(_) => return,
                            }
                        }
                        let request = String::from_utf8(request).unwrap();
                        assert!(request.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{request}");
                        let close = if number == per_connection {
                            "connection: close\r\n"
                        } else {
                            ""
                        };
                        let answer = format!("HTTP/1.1 200 OK\r\n{close}content-length: 2\r\n\r\n{{}}");
                        tcp.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        (url, connections)
    }

    async fn post(client: &HttpClient) -> Result<Bytes, HttpClientError> {
        client
            .post([].into_iter(), "{}".to_owned(), Duration::from_secs(20))
            .await
    }

    #[tokio::test]
    async fn requests_in_a_row_share_a_connection() {
        let (url, connections) = server(3).await;
        let client = HttpClient::new(&url, None).unwrap();
        for expect in [1, 1, 1, 2, 2, 2, 3] {
            assert_eq!(&*post(&client).await.unwrap(), b"{}");
            assert_eq!(connections.load(Ordering::SeqCst), expect);
        }
    }

    #[tokio::test]
    async fn an_error_says_why_there_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let client = HttpClient::new(&url, None).unwrap();
        let error = post(&client).await.unwrap_err().to_string();
        assert!(error.contains("refused"), "{error}");
    }
}
