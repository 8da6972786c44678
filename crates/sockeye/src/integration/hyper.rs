//! Accepts WebSockets on a hyper 1 server, or on a framework built on it, beside other requests.
//!
//! With hyper:
//!
//! ```no_run
//! use std::convert::Infallible;
//!
//! use hyper::{Request, body::Incoming};
//! use sockeye::Server;
//! use sockeye::hyper::HttpResponse;
//!
//! async fn handle(server: Server, mut request: Request<Incoming>) -> Result<HttpResponse, Infallible> {
//!     let (response, upgrade) = match sockeye::hyper::upgrade(&server, &mut request) {
//!         Ok(upgraded) => upgraded,
//!         Err(refusal) => {
//!             eprintln!("refused: {:?}", refusal.error());
//!             return Ok(refusal.into_response());
//!         }
//!     };
//!     tokio::spawn(async move {
//!         let mut ws = upgrade.await?;
//!         while let Some(message) = ws.recv().await? {
//!             ws.feed(message).await?;
//!         }
//!         Ok::<(), sockeye::Error>(())
//!     });
//!     Ok(response)
//! }
//! ```
//!
//! The connection must be served with upgrades enabled: `http1::Connection::with_upgrades`, or
//! `serve_connection_with_upgrades` of hyper-util.
//!
//! With axum, whose handlers can return an [`HttpResponse`] as it is:
//!
//! ```no_run
//! use axum::extract::{Request, State};
//! use axum::{Router, routing::get};
//! use sockeye::Server;
//! use sockeye::hyper::HttpResponse;
//!
//! async fn websocket(State(server): State<Server>, mut request: Request) -> HttpResponse {
//!     match sockeye::hyper::upgrade(&server, &mut request) {
//!         Ok((response, upgrade)) => {
//!             tokio::spawn(async move {
//!                 let mut ws = upgrade.await?;
//!                 ws.send("hello").await
//!             });
//!             response
//!         }
//!         Err(refusal) => refusal.into_response(),
//!     }
//! }
//!
//! # async fn example() -> std::io::Result<()> {
//! let router = Router::new().route("/", get(websocket)).with_state(Server::default());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, router).await
//! # }
//! ```
//!
//! # What the connection runs over
//!
//! hyper gives its transport back in a box. The [`WebSocket`] runs on the `TcpStream` itself, with Nagle's algorithm
//! switched off, where that is what was served: by hyper, by hyper-util's `auto` server, by `axum::serve`. The same goes
//! for `UnixStream`, and for the TLS streams of tokio-rustls over `TcpStream`. Other types cannot be recognized: the
//! connection works, but each read and write passes through two more layers, and unless the server called `set_nodelay`
//! when it accepted the socket, a small message can wait 40 ms for the acknowledgement of the one before.
//! [`Upgrade::transport`] names such a type.

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
use sockeye_proto::handshake::{self, Acceptance, Headers, HttpVersion, Request, UpgradeParts};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::error::Error;
use crate::server::{Answer, Server};
use crate::transport::Io;
use crate::transport::socket::prepare_socket;
use crate::websocket::WebSocket;

/// A response as hyper is given it.
pub type HttpResponse = http::Response<Full<Bytes>>;

/// Checks a request and accepts it, with the first of the server's subprotocols that the client offered: the response to
/// give to hyper, and a future that is the WebSocket once hyper has sent it. The response may be given further headers
/// first.
///
/// The body of the request may be of any type. Limits of the request head and the handshake deadline are hyper's to keep;
/// everything else is as with [`Server::accept`].
///
/// # Errors
///
/// The request is not a valid opening handshake, or its origin or host is not allowed. The [`Refusal`] has the reason, and
/// the response to give to hyper.
pub fn upgrade<B>(server: &Server, request: &mut http::Request<B>) -> Result<(HttpResponse, Upgrade), Refusal> {
    upgrade_with(server, request, |_, acceptance| acceptance)
}

/// Checks a request and accepts it as [`upgrade`] does, with an acceptance of your choice: `accept` is given the request
/// and the acceptance that `upgrade` would use, to choose another subprotocol or to add headers.
///
/// To turn a request down for a reason of your own, answer it without calling this.
///
/// # Errors
///
/// Those of [`upgrade`]; and if the acceptance chooses what the client did not offer, a [`Refusal`] with status 500 and an
/// error of which [`Error::is_misuse`] is true.
pub fn upgrade_with<B>(
    server: &Server,
    request: &mut http::Request<B>,
    accept: impl FnOnce(&Request, Acceptance) -> Acceptance,
) -> Result<(HttpResponse, Upgrade), Refusal> {
    let incoming = check(server, request).map_err(|refusal| Refusal::new(refusal.error.into(), &refusal.response))?;
    let acceptance = accept(incoming.request(), server.acceptance(incoming.request()));
    let answer = server.answer(incoming, acceptance).map_err(|error| {
        let response = error.response.clone();
        Refusal::new(Error::misuse(error), &response)
    })?;
    let response = to_http(&answer.accepted.response);
    let upgrade = Upgrade {
        upgrading: ::hyper::upgrade::on(request),
        answer: Some((server.clone(), answer)),
        unwrap: None,
    };
    Ok((response, upgrade))
}

/// A request that was refused: why, and the response that tells the client.
pub struct Refusal {
    error: Error,
    response: Box<HttpResponse>,
}

impl Refusal {
    fn new(error: Error, response: &handshake::Response) -> Self {
        let response = Box::new(to_http(response));
        Self { error, response }
    }

    /// Why the request was refused: it broke a rule ([`Error::is_protocol`]), or a policy does not allow its origin or host
    /// ([`Error::is_denied`], [`Error::denial`]).
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The response to give to hyper.
    pub fn response(&self) -> &HttpResponse {
        &self.response
    }

    /// The response to give to hyper.
    pub fn into_response(self) -> HttpResponse {
        *self.response
    }
}

impl From<Refusal> for HttpResponse {
    fn from(refusal: Refusal) -> Self {
        refusal.into_response()
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("error", &self.error)
            .field("status", &self.response.status())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request refused with status {}", self.response.status().as_u16())
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

fn check<B>(server: &Server, request: &http::Request<B>) -> Result<handshake::Incoming, handshake::InvalidRequest> {
    let mut headers = Headers::new();
    for (name, value) in request.headers() {
        // What http accepted as a header is one.
        let _ = headers.try_append(name.as_str(), value.as_bytes());
    }
    let incoming = handshake::Incoming::from_upgrade(UpgradeParts {
        method: request.method().as_str(),
        target: &request.uri().to_string(),
        // Newer versions have no Upgrade header and are refused for that.
        version: match request.version() < http::Version::HTTP_11 {
            true => HttpVersion::HTTP_10,
            false => HttpVersion::HTTP_11,
        },
        headers,
    })?;
    match server.check(incoming.request()) {
        Ok(()) => Ok(incoming),
        Err(fault) => Err(incoming.reject_with_error(fault)),
    }
}

fn to_http(response: &handshake::Response) -> HttpResponse {
    let mut http = http::Response::new(Full::from(response.body().to_vec()));
    // Every status, name and value of the handshake's is one of http's.
    if let Ok(status) = http::StatusCode::from_u16(response.status().as_u16()) {
        *http.status_mut() = status;
    }
    for (name, value) in response.headers().iter() {
        let name = http::HeaderName::from_bytes(name.as_str().as_bytes());
        let value = http::HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            http.headers_mut().append(name, value);
        }
    }
    http
}

/// The WebSocket, once hyper has sent the response.
///
/// # Errors
///
/// The connection ended before, or it was not served with upgrades enabled ([`Error::is_io`]). Polled again after it was
/// ready, it fails with such an error too.
///
/// # Cancel safety
///
/// Dropping the future closes the connection.
pub struct Upgrade {
    upgrading: OnUpgrade,
    answer: Option<(Server, Answer)>,
    unwrap: Option<Box<Unwrap>>,
}

/// Takes the transport out of what hyper gives back, if it is of the type that the caller named.
type Unwrap = dyn FnOnce(Upgraded, &mut Vec<u8>) -> Result<Box<dyn Io>, Upgraded> + Send;

impl Upgrade {
    /// Names the type `T` of the transport that is served, inside a `TokioIo`, where it is none of those that are
    /// [recognized](self#what-the-connection-runs-over); `unwrap` makes of it what the connection is to run over.
    ///
    /// This is the place to switch off Nagle's algorithm on the socket in the wrapper. If `unwrap` returns a `TcpStream`,
    /// that is done for you. A second call replaces the first. If the transport turns out to be of another type, `unwrap` is not called, and the connection
    /// works as without.
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
    pub fn transport<T, U>(mut self, unwrap: impl FnOnce(T) -> U + Send + 'static) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        U: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.unwrap = Some(Box::new(move |upgraded, read_buf| {
            downcast::<T>(upgraded, read_buf).map(|io| Box::new(unwrap(io)) as Box<dyn Io>)
        }));
        self
    }
}

impl Future for Upgrade {
    type Output = Result<WebSocket, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((server, mut answer)) = self.answer.take() else {
            return Poll::Ready(Err(std::io::Error::other("polled after it was ready").into()));
        };
        let upgraded = match Pin::new(&mut self.upgrading).poll(cx) {
            Poll::Ready(upgraded) => upgraded.map_err(std::io::Error::other)?,
            Poll::Pending => {
                self.answer = Some((server, answer));
                return Poll::Pending;
            }
        };
        let io = transport(upgraded, self.unwrap.take(), &mut answer.accepted.read_buf);
        prepare_socket(&*io as &dyn Any)?;
        Poll::Ready(Ok(server.open(io, answer)))
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}

/// What the connection runs over: the transport itself where its type is known, which spares every read and write two
/// layers and every connection their memory. What hyper has read of it already is added to `read_buf`.
fn transport(upgraded: Upgraded, unwrap: Option<Box<Unwrap>>, read_buf: &mut Vec<u8>) -> Box<dyn Io> {
    let known = match unwrap {
        Some(unwrap) => unwrap(upgraded, read_buf),
        None => Err(upgraded),
    };
    let known = known.or_else(|upgraded| boxed::<TcpStream>(upgraded, read_buf));
    #[cfg(unix)]
    let known = known.or_else(|upgraded| boxed::<tokio::net::UnixStream>(upgraded, read_buf));
    #[cfg(feature = "tls")]
    let known = {
        macro_rules! unwrap {
            ($($tls:ty),*) => { known$(.or_else(|upgraded| boxed::<$tls>(upgraded, read_buf)))* };
        }
        crate::transport::socket::with_tls_types!(unwrap)
    };
    known.unwrap_or_else(|upgraded| Box::new(TokioIo::new(upgraded)))
}

fn boxed<T>(upgraded: Upgraded, read_buf: &mut Vec<u8>) -> Result<Box<dyn Io>, Upgraded>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    downcast::<T>(upgraded, read_buf).map(|io| Box::new(io) as Box<dyn Io>)
}

/// Takes a transport of type `T` out of hyper's box, and out of the wrapper that hyper-util's `auto` server puts around it
/// to look at the first bytes.
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

    /// Which server of hyper's it is.
    #[derive(Clone, Copy, Debug)]
    enum Served {
        Http1,
        Auto,
    }

    /// What the connection would run over if this were served, and what was read of it before. The client's end is kept.
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
                    let serving = http1::Builder::new().serve_connection(TokioIo::new(io), service);
                    drop(serving.with_upgrades().await);
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
        let serving = http1::Builder::new().serve_connection(TokioIo::new(io), service);
        tokio::spawn(serving.with_upgrades());
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
    async fn a_transport_that_is_known_is_taken_out_of_every_wrapper() {
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
