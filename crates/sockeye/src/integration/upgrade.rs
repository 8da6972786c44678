//! One upgrade on a hyper server: the check of the request, the response, and the future of the connection.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::hyper::upgrade::{OnUpgrade, Upgraded};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use sockeye_proto::handshake::{self, HttpVersion, UpgradeParts};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::convert;
use crate::error::Error;
use crate::observe;
use crate::server::response::Acceptance;
use crate::server::{AcceptedHandshake, Server};
use crate::transport::Io;
use crate::transport::socket;
use crate::websocket::WebSocket;

/// The response type that hyper and axum expect.
pub type HttpResponse = http::Response<Full<Bytes>>;

/// Checks an opening handshake and accepts it, with the first of the server's subprotocols that the client offered.
///
/// Returns the response to give to hyper, and a future that resolves to the WebSocket once hyper has sent the response.
/// Headers may be added to the response before.
///
/// The body of the request may have any type. hyper enforces the limits of the request head and the handshake timeout;
/// everything else is as with [`Server::accept`].
///
/// # Errors
///
/// The request is not a valid opening handshake, or its origin or host is not allowed. The [`UpgradeError`] has the
/// reason and the response to give to hyper.
pub fn upgrade<B>(server: &Server, request: &mut http::Request<B>) -> Result<(HttpResponse, Upgrade), UpgradeError> {
    upgrade_with(server, request, Acceptance::new())
}

/// Checks an opening handshake and accepts it with a chosen subprotocol and headers. Otherwise like [`upgrade`].
///
/// To reject a request for another reason, return a response without calling this.
///
/// # Errors
///
/// Those of [`upgrade`]. If the acceptance has an invalid header, or a subprotocol that the client did not offer, the
/// status is 500 and [`Error::is_invalid_input`] is true.
pub fn upgrade_with<B>(
    server: &Server,
    request: &mut http::Request<B>,
    acceptance: Acceptance,
) -> Result<(HttpResponse, Upgrade), UpgradeError> {
    let incoming = check(server, RequestHead::of(request))?;
    let (response, handshake) = accept(server, incoming, acceptance)?;
    let upgrade = Upgrade::new(::hyper::upgrade::on(request), handshake);
    Ok((response, upgrade))
}

/// An accepted opening handshake, which becomes a WebSocket with the transport of the connection.
pub(crate) struct Handshake {
    server: Server,
    accepted_handshake: AcceptedHandshake,
}

impl Handshake {
    /// Opens the WebSocket over the transport, after the response has been sent.
    pub(crate) fn open(self, io: Box<dyn Io>) -> Result<WebSocket, Error> {
        socket::set_options(&*io as &dyn Any).map_err(Error::io)?;
        Ok(self.server.open(io, self.accepted_handshake))
    }
}

/// A rejected opening handshake: the reason, and the response for the client.
///
/// `{}` writes status and reason on one line, for logs.
pub struct UpgradeError {
    error: Error,
    response: Box<HttpResponse>,
}

impl UpgradeError {
    pub(crate) fn new(error: Error, response: &handshake::Response) -> Self {
        observe::report_failed_upgrade(&error);
        let response = Box::new(convert::response(response).map(Full::new));
        Self { error, response }
    }

    /// Why the request was rejected: it violated the protocol ([`Error::is_protocol`]), or a policy does not allow its
    /// origin or host ([`Error::is_denied`], [`Error::denial`]).
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The status of the response: 400, 403, 405, 421 or 426, 500 for an invalid acceptance, or 503 during a shutdown
    /// and beyond a limit.
    pub fn status(&self) -> http::StatusCode {
        self.response.status()
    }

    /// The response: its body says why the request was rejected.
    pub fn response(&self) -> &HttpResponse {
        &self.response
    }

    /// The response to give to hyper.
    pub fn into_response(self) -> HttpResponse {
        *self.response
    }

    #[cfg(feature = "tower")]
    pub(crate) fn into_parts(self) -> (http::response::Parts, Bytes) {
        let (head, body) = self.response.into_parts();
        (head, body.into_inner().unwrap_or_default())
    }
}

impl From<UpgradeError> for HttpResponse {
    fn from(error: UpgradeError) -> Self {
        error.into_response()
    }
}

impl fmt::Debug for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeError")
            .field("error", &self.error)
            .field("status", &self.response.status())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "upgrade rejected with status {}: {}",
            self.response.status(),
            self.error
        )
    }
}

impl std::error::Error for UpgradeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// The parts of a request that the handshake uses.
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a http::Method,
    pub(crate) uri: &'a http::Uri,
    pub(crate) version: http::Version,
    pub(crate) headers: &'a http::HeaderMap,
}

impl<'a> RequestHead<'a> {
    pub(crate) fn of<B>(request: &'a http::Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
        }
    }
}

/// Whether a request asks for a WebSocket, validly or not.
#[cfg(feature = "tower")]
pub(crate) fn is_handshake(headers: &http::HeaderMap) -> bool {
    let mut protocols = headers
        .get_all(http::header::UPGRADE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    protocols.any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
}

/// Validates the handshake and checks origin and host.
pub(crate) fn check(server: &Server, request: RequestHead<'_>) -> Result<handshake::Incoming, UpgradeError> {
    let incoming = handshake::Incoming::from_upgrade(UpgradeParts {
        method: request.method.as_str(),
        target: &request.uri.to_string(),
        // Requests of newer HTTP versions are rejected because they have no Upgrade header.
        version: match request.version < http::Version::HTTP_11 {
            true => HttpVersion::HTTP_10,
            false => HttpVersion::HTTP_11,
        },
        headers: convert::headers(request.headers),
    });
    let checked = incoming.and_then(|incoming| match server.check(incoming.request()) {
        Ok(()) => Ok(incoming),
        Err(error) => Err(incoming.reject_with_error(error)),
    });
    checked.map_err(|invalid| UpgradeError::new(Error::from(invalid.error), &invalid.response))
}

/// Accepts a checked handshake.
pub(crate) fn accept(
    server: &Server,
    incoming: handshake::Incoming,
    acceptance: Acceptance,
) -> Result<(HttpResponse, Handshake), UpgradeError> {
    let accepted_handshake = server
        .accept_handshake(incoming, acceptance)
        .map_err(|(error, response)| UpgradeError::new(error, &response))?;
    let response = convert::response(&accepted_handshake.accepted.response).map(Full::new);
    let server = server.clone();
    Ok((
        response,
        Handshake {
            server,
            accepted_handshake,
        },
    ))
}

/// Future of the WebSocket, ready once hyper has sent the response.
///
/// # Errors
///
/// The connection ended first, or it was served without upgrades enabled ([`Error::is_io`]). Polling again after
/// completion returns such an error too.
///
/// # Cancel safety
///
/// Dropping the future closes the connection.
pub struct Upgrade {
    upgrading: OnUpgrade,
    handshake: Option<Handshake>,
    extract: Option<Box<Extract>>,
}

/// Takes the transport out of hyper's wrapper if it has the type that the caller named.
type Extract = dyn FnOnce(Upgraded, &mut Vec<u8>) -> Result<Box<dyn Io>, Upgraded> + Send;

impl Upgrade {
    pub(crate) fn new(upgrading: OnUpgrade, handshake: Handshake) -> Self {
        Self {
            upgrading,
            handshake: Some(handshake),
            extract: None,
        }
    }

    /// Names the type `T` of the served transport, inside a `TokioIo`, if it is not one of the [recognized
    /// types](crate::hyper#supported-transports). `extract` converts it into the transport that the connection uses.
    ///
    /// Disable Nagle's algorithm of the wrapped socket in `extract`; if `extract` returns a `TcpStream`, that is done
    /// automatically. A second call replaces the first. If the transport has another type, `extract` is not called, and
    /// the connection works as without it.
    ///
    /// ```no_run
    /// # use sockeye::hyper::Upgrade;
    /// # use tokio::net::TcpStream;
    /// # type Metered = tokio::io::BufStream<TcpStream>;
    /// # async fn example(upgrade: Upgrade) -> Result<(), sockeye::Error> {
    /// let ws = upgrade
    ///     .transport(|io: Metered| {
    ///         let _ = io.get_ref().set_nodelay(true);
    ///         io
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn transport<T, U>(mut self, extract: impl FnOnce(T) -> U + Send + 'static) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        U: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.extract = Some(Box::new(move |upgraded, read_buf| {
            downcast::<T>(upgraded, read_buf).map(|io| Box::new(extract(io)) as Box<dyn Io>)
        }));
        self
    }
}

impl Future for Upgrade {
    type Output = Result<WebSocket, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut handshake) = self.handshake.take() else {
            return Poll::Ready(Err(Error::io(std::io::Error::other("polled after completion"))));
        };
        let opened = match Pin::new(&mut self.upgrading).poll(cx) {
            Poll::Ready(Ok(upgraded)) => {
                let read_buf = &mut handshake.accepted_handshake.accepted.read_buf;
                let io = transport(upgraded, self.extract.take(), read_buf);
                handshake.open(io)
            }
            Poll::Ready(Err(error)) => Err(Error::io(std::io::Error::other(error))),
            Poll::Pending => {
                self.handshake = Some(handshake);
                return Poll::Pending;
            }
        };
        Poll::Ready(opened.inspect_err(observe::report_failed_upgrade))
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}

/// The transport of the connection: the unwrapped one if its type is known, which saves two layers for each read and
/// write, and their memory. Appends the bytes that hyper has already read to `read_buf`.
fn transport(upgraded: Upgraded, extract: Option<Box<Extract>>, read_buf: &mut Vec<u8>) -> Box<dyn Io> {
    let known = match extract {
        Some(extract) => extract(upgraded, read_buf),
        None => Err(upgraded),
    };
    let known = known.or_else(|upgraded| boxed::<TcpStream>(upgraded, read_buf));
    #[cfg(unix)]
    let known = known.or_else(|upgraded| boxed::<tokio::net::UnixStream>(upgraded, read_buf));
    #[cfg(feature = "tls")]
    let known = {
        macro_rules! extract {
            ($($tls:ty),*) => { known$(.or_else(|upgraded| boxed::<$tls>(upgraded, read_buf)))* };
        }
        crate::transport::socket::with_tls_types!(extract)
    };
    known.unwrap_or_else(|upgraded| Box::new(TokioIo::new(upgraded)))
}

fn boxed<T>(upgraded: Upgraded, read_buf: &mut Vec<u8>) -> Result<Box<dyn Io>, Upgraded>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    downcast::<T>(upgraded, read_buf).map(|io| Box::new(io) as Box<dyn Io>)
}

/// Takes a transport of type `T` out of hyper's wrapper, and out of the wrapper that hyper-util's `auto` server adds to
/// detect the HTTP version.
fn downcast<T>(upgraded: Upgraded, read_buf: &mut Vec<u8>) -> Result<T, Upgraded>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let upgraded = match upgraded.downcast::<TokioIo<T>>() {
        Ok(parts) => {
            read_buf.extend_from_slice(&parts.read_buf);
            return Ok(parts.io.into_inner());
        }
        Err(upgraded) => upgraded,
    };
    let parts = auto::upgrade::downcast::<TokioIo<T>>(upgraded)?;
    read_buf.extend_from_slice(&parts.read_buf);
    Ok(parts.io.into_inner())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use ::hyper::server::conn::http1;
    use ::hyper::service::service_fn;
    use hyper_util::rt::TokioExecutor;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nextra";

    /// The server that serves the connection.
    #[derive(Clone, Copy, Debug)]
    enum Served {
        Http1,
        Auto,
    }

    /// Returns the transport after the upgrade, the bytes read before it, and the client's end, which must stay open.
    async fn upgraded<T>(served: Served, io: T, mut peer: impl AsyncRead + AsyncWrite + Unpin) -> (Box<dyn Io>, Vec<u8>)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let service = service_fn(move |mut request: http::Request<::hyper::body::Incoming>| {
            let sender = sender.lock().unwrap().take().unwrap();
            tokio::spawn(async move { sender.send(::hyper::upgrade::on(&mut request).await).map_err(drop) });
            let mut response = HttpResponse::default();
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            std::future::ready(Ok::<_, Infallible>(response))
        });
        tokio::spawn(async move {
            match served {
                Served::Http1 => {
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
                    drop(connection.with_upgrades().await);
                }
                Served::Auto => {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection_with_upgrades(TokioIo::new(io), service).await);
                }
            }
        });
        peer.write_all(REQUEST).await.unwrap();
        let upgraded = receiver.await.unwrap().unwrap();
        let mut read_buf = vec![];
        let mut io = transport(upgraded, None, &mut read_buf);
        while read_buf.len() < b"extra".len() {
            io.read_buf(&mut read_buf).await.unwrap();
        }
        (io, read_buf)
    }

    #[tokio::test]
    async fn upgrade_polled_after_it_was_ready_fails() {
        let (io, mut peer) = duplex(4096);
        let (sender, receiver) = oneshot::channel();
        let sender = Mutex::new(Some(sender));
        let service = service_fn(move |mut request: http::Request<::hyper::body::Incoming>| {
            let (response, upgrade) = super::upgrade(&Server::default(), &mut request).unwrap();
            let sender = sender.lock().unwrap().take().unwrap();
            assert!(sender.send(upgrade).is_ok());
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
        tokio::spawn(connection.with_upgrades());
        peer.write_all(
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        )
        .await
        .unwrap();
        let mut upgrade = receiver.await.unwrap();
        (&mut upgrade).await.unwrap();
        assert!((&mut upgrade).await.unwrap_err().is_io());
    }

    #[tokio::test]
    async fn known_transport_is_unwrapped_from_every_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for served in [Served::Http1, Served::Auto] {
            let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (tcp, _) = listener.accept().await.unwrap();
            let (io, read_buf) = upgraded(served, tcp, peer).await;
            assert!((&*io as &dyn Any).is::<TcpStream>(), "{served:?}");
            assert_eq!(read_buf, b"extra", "{served:?}");
            #[cfg(unix)]
            {
                let (unix, peer) = tokio::net::UnixStream::pair().unwrap();
                let (io, read_buf) = upgraded(served, unix, peer).await;
                assert!((&*io as &dyn Any).is::<tokio::net::UnixStream>(), "{served:?}");
                assert_eq!(read_buf, b"extra", "{served:?}");
            }
            let (unknown, peer) = duplex(1024);
            let (io, read_buf) = upgraded(served, unknown, peer).await;
            assert!((&*io as &dyn Any).is::<TokioIo<Upgraded>>(), "{served:?}");
            assert!(!(&*io as &dyn Any).is::<DuplexStream>(), "{served:?}");
            assert_eq!(read_buf, b"extra", "{served:?}");
        }
    }
}
