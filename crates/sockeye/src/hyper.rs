//! Accepts WebSockets on a hyper 1 server, beside other requests.
//!
//! ```no_run
//! use std::convert::Infallible;
//!
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper::{Request, Response, body::Incoming};
//! use sockeye::Server;
//!
//! async fn handle(server: Server, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
//!     let (response, upgrade) = match sockeye::hyper::upgrade(&server, &mut request) {
//!         Ok(upgraded) => upgraded,
//!         Err(refusal) => return Ok(*refusal),
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
//! The connection must be served with upgrades enabled (`http1::Connection::with_upgrades`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::hyper::upgrade::{OnUpgrade, Upgraded};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use sockeye_proto::handshake::{self, Headers, HttpVersion, UpgradeParts};
use tokio::net::TcpStream;

use crate::connection::Io;
use crate::error::Error;
use crate::server::{Answer, Server};
use crate::websocket::WebSocket;

/// A response as hyper is given it.
pub type HttpResponse = http::Response<Full<Bytes>>;

/// Checks a request and accepts it: the response to give to hyper, and a future that is the WebSocket once hyper has
/// sent it. The response may be given further headers first.
///
/// Limits of the request head and the handshake deadline are hyper's to keep; everything else is as with
/// [`Server::accept`].
///
/// # Errors
///
/// The response that refuses the request: it is not a valid opening handshake, or its origin may not connect.
pub fn upgrade<B>(
    server: &Server,
    request: &mut http::Request<B>,
) -> Result<(HttpResponse, Upgrade), Box<HttpResponse>> {
    let pending = check(server, request).map_err(|refusal| Box::new(to_http(&refusal.response)))?;
    let acceptance = server.acceptance(pending.request());
    let answer = server
        .answer(pending, acceptance)
        .map_err(|error| Box::new(to_http(&error.response)))?;
    let response = to_http(&answer.accepted.response);
    let upgrade = Upgrade {
        upgrading: ::hyper::upgrade::on(request),
        answer: Some((server.clone(), answer)),
    };
    Ok((response, upgrade))
}

fn check<B>(server: &Server, request: &http::Request<B>) -> Result<handshake::Pending, handshake::Refusal> {
    let mut headers = Headers::new();
    for (name, value) in request.headers() {
        // What http accepted as a header is one.
        let _ = headers.try_append(name.as_str(), value.as_bytes());
    }
    let pending = handshake::Pending::from_upgrade(UpgradeParts {
        method: request.method().as_str(),
        target: &request.uri().to_string(),
        // Newer versions have no Upgrade header and are refused for that.
        version: match request.version() < http::Version::HTTP_11 {
            true => HttpVersion::HTTP_10,
            false => HttpVersion::HTTP_11,
        },
        headers,
    })?;
    match server.check(pending.request()) {
        Ok(()) => Ok(pending),
        Err(fault) => Err(pending.refuse(fault)),
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
/// The connection ended before, or it was not served with upgrades enabled ([`Error::is_io`]).
///
/// # Cancel safety
///
/// The connection is closed.
pub struct Upgrade {
    upgrading: OnUpgrade,
    answer: Option<(Server, Answer)>,
}

impl Future for Upgrade {
    type Output = Result<WebSocket, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let upgraded = ready!(Pin::new(&mut self.upgrading).poll(cx)).map_err(std::io::Error::other)?;
        let Some((server, mut answer)) = self.answer.take() else {
            return Poll::Ready(Err(std::io::Error::other("polled after it was ready").into()));
        };
        let io = transport(upgraded, &mut answer.accepted.leftover)?;
        Poll::Ready(Ok(server.open(io, answer)))
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}

/// What the connection runs over: the TCP stream itself where that is what hyper was given, which spares every read
/// and write two layers and every connection their memory.
fn transport(upgraded: Upgraded, leftover: &mut Vec<u8>) -> Result<Box<dyn Io>, Error> {
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            leftover.extend_from_slice(&parts.read_buf);
            let tcp = parts.io.into_inner();
            tcp.set_nodelay(true)?;
            Ok(Box::new(tcp))
        }
        Err(upgraded) => Ok(Box::new(TokioIo::new(upgraded))),
    }
}
