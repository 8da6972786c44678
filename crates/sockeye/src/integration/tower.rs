//! A tower layer that checks and limits opening handshakes, and serving a tower service in memory.
//!
//! ```no_run
//! use axum::{Router, routing::any};
//! use sockeye::OriginPolicy;
//! use sockeye::axum::{Upgrader, WebSocketUpgrade};
//! use sockeye::tower::HandshakeLayer;
//!
//! # async fn chat(_: WebSocketUpgrade) {}
//! let layer = HandshakeLayer::new()
//!     .origins(OriginPolicy::SameHost)
//!     .connections_max(10_000)
//!     .handshakes_per_second_max(500)
//!     .on_reject(|rejection| eprintln!("{rejection}"));
//! let app: Router = Router::new()
//!     .route("/chat", any(chat))
//!     .with_state(Upgrader::new(Default::default()))
//!     .layer(layer);
//! ```
//!
//! The layer works before any service that upgrades WebSockets, of this crate or of others. It checks HTTP/1.1
//! handshakes; those over HTTP/2 (extended CONNECT, RFC 8441) will be checked by the same layer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use ::hyper::body::Incoming;
use ::hyper::server::conn::http1;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use pin_project_lite::pin_project;
use sockeye_proto::handshake;
use tokio::io::DuplexStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::upgrade::{RequestHead, UpgradeError, check, is_handshake};
use crate::error::Error;
use crate::server::Server;
use crate::server::response::unavailable;
use crate::sync::lock;

pub use super::connection_permit::ConnectionPermit;

/// Default of [`HandshakeLayer::connections_max`].
const CONNECTIONS_MAX: usize = 100_000;

/// Default of [`HandshakeLayer::handshakes_per_second_max`].
const HANDSHAKES_PER_SECOND_MAX: u32 = 10_000;

/// The time whose worth of handshakes may arrive at once.
const BURST: Duration = Duration::from_secs(2);

/// Capacity of each direction of [`serve_in_memory`].
const PIPE_LEN: usize = 64 * 1024;

/// Tower layer that rejects opening handshakes before the service that upgrades them: by origin and host, by their
/// rate, and by the number of open connections.
///
/// A request that does not ask for a WebSocket passes unchanged. A rejected handshake never reaches the service; its
/// response has a status of [`UpgradeError::status`] and a body that says why. The type of the body must implement
/// `From<Bytes>`, as those of axum, salvo and poem do.
///
/// Clones and all services of a layer share the limits.
///
/// # Counting connections
///
/// The layer adds a [`ConnectionPermit`] to the extensions of each request that it admits. The connection counts as
/// long as the permit exists: see there who has to keep it.
#[derive(Clone)]
pub struct HandshakeLayer {
    rules: Arc<Rules>,
}

type OnReject = Arc<dyn Fn(&UpgradeError) + Send + Sync>;

#[derive(Clone)]
struct Rules {
    /// Has the policies.
    server: Server,
    origins: handshake::OriginPolicy,
    hosts: handshake::HostPolicy,
    connections_max: usize,
    connections: Arc<Semaphore>,
    rate: Arc<RateLimit>,
    on_reject: Option<OnReject>,
}

impl Default for HandshakeLayer {
    fn default() -> Self {
        let rules = Rules {
            server: Server::default(),
            origins: handshake::OriginPolicy::default(),
            hosts: handshake::HostPolicy::default(),
            connections_max: CONNECTIONS_MAX,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            rate: Arc::new(RateLimit::new(HANDSHAKES_PER_SECOND_MAX)),
            on_reject: None,
        };
        Self { rules: Arc::new(rules) }
    }
}

impl HandshakeLayer {
    /// Creates a layer with the default settings: origins of the same host, any host, 100,000 connections, 10,000
    /// handshakes per second.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the allowed origins. Default: the same host. Clients without an Origin header are always allowed. Others
    /// get a 403.
    #[must_use]
    pub fn origins(self, origins: handshake::OriginPolicy) -> Self {
        self.with(|rules| rules.origins = origins)
    }

    /// Sets the hosts that the server answers for. Default: any. Requests for others get a 421.
    #[must_use]
    pub fn hosts(self, hosts: handshake::HostPolicy) -> Self {
        self.with(|rules| rules.hosts = hosts)
    }

    /// Sets the maximum number of open connections, including unfinished handshakes. Default: 100,000. Beyond it,
    /// clients get a 503.
    #[must_use]
    pub fn connections_max(self, count: usize) -> Self {
        let count = count.min(Semaphore::MAX_PERMITS);
        self.with(|rules| {
            rules.connections_max = count;
            rules.connections = Arc::new(Semaphore::new(count));
        })
    }

    /// Sets the maximum number of handshakes per second, at least 1. Default: 10,000. Bursts of two seconds' worth are
    /// allowed. Beyond it, clients get a 503 with `Retry-After`. Handshakes that are rejected for another reason do not
    /// count.
    #[must_use]
    pub fn handshakes_per_second_max(self, count: u32) -> Self {
        self.with(|rules| rules.rate = Arc::new(RateLimit::new(count)))
    }

    /// Sets a hook that is called for each rejected handshake, for example to log it. Default: none. It must not block.
    #[must_use]
    pub fn on_reject(self, hook: impl Fn(&UpgradeError) + Send + Sync + 'static) -> Self {
        self.with(|rules| rules.on_reject = Some(Arc::new(hook)))
    }

    /// The number of admitted connections whose [`ConnectionPermit`] exists.
    pub fn connection_count(&self) -> usize {
        self.rules.connections_max - self.rules.connections.available_permits()
    }

    fn with(self, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = Rules::clone(&self.rules);
        change(&mut rules);
        let policies = Server::builder()
            .origins(rules.origins.clone())
            .hosts(rules.hosts.clone());
        rules.server = policies.build();
        Self { rules: Arc::new(rules) }
    }
}

impl fmt::Debug for HandshakeLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeLayer")
            .field("origins", &self.rules.origins)
            .field("hosts", &self.rules.hosts)
            .field("connections_max", &self.rules.connections_max)
            .field("connection_count", &self.connection_count())
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for HandshakeLayer {
    type Service = HandshakeService<S>;

    fn layer(&self, inner: S) -> HandshakeService<S> {
        let layer = self.clone();
        HandshakeService { inner, layer }
    }
}

/// Service of a [`HandshakeLayer`].
#[derive(Clone, Debug)]
pub struct HandshakeService<S> {
    inner: S,
    layer: HandshakeLayer,
}

impl<S, B, R> Service<Request<B>> for HandshakeService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: From<Bytes>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = HandshakeFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if is_handshake(request.headers()) {
            match self.layer.rules.admit(RequestHead::of(&request)) {
                Ok(permit) => drop(request.extensions_mut().insert(permit)),
                Err(error) => {
                    if let Some(on_reject) = &self.layer.rules.on_reject {
                        on_reject(&error);
                    }
                    let (head, body) = error.into_parts();
                    return HandshakeFuture {
                        inner: None,
                        rejection: Some(Response::from_parts(head, R::from(body))),
                    };
                }
            }
        }
        HandshakeFuture {
            inner: Some(self.inner.call(request)),
            rejection: None,
        }
    }
}

impl Rules {
    fn admit(&self, request: RequestHead<'_>) -> Result<ConnectionPermit, UpgradeError> {
        let incoming = check(&self.server, request)?;
        let reject = |reason: String, retry_after| {
            let response = incoming.reject(unavailable(&reason, Some(retry_after)));
            UpgradeError::new(Error::other(reason), &response)
        };
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            let count = self.connections_max;
            return Err(reject(format!("{count} connections are open, as many as allowed"), 1));
        };
        match self.rate.admit() {
            Ok(()) => Ok(ConnectionPermit::new(permit)),
            Err(wait) => {
                let count = self.rate.per_second_max;
                let seconds = wait.as_millis().div_ceil(1000) as u64;
                Err(reject(format!("more than {count} handshakes per second"), seconds))
            }
        }
    }
}

pin_project! {
    /// Future of the response of a [`HandshakeService`].
    pub struct HandshakeFuture<F, R> {
        // `None` if the handshake was rejected.
        #[pin]
        inner: Option<F>,
        rejection: Option<Response<R>>,
    }
}

impl<F, R, E> Future for HandshakeFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.inner.as_pin_mut() {
            Some(inner) => inner.poll(cx),
            None => Poll::Ready(Ok(this.rejection.take().expect("polled after completion"))),
        }
    }
}

impl<F, R> fmt::Debug for HandshakeFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeFuture").finish_non_exhaustive()
    }
}

/// A limit of a rate.
#[derive(Debug)]
struct RateLimit {
    per_second_max: u32,
    /// When everything admitted so far would have arrived at the exact rate. `None` before the first.
    due: Mutex<Option<Instant>>,
}

impl RateLimit {
    fn new(per_second_max: u32) -> Self {
        Self {
            per_second_max: per_second_max.max(1),
            due: Mutex::new(None),
        }
    }

    /// Admits an event, or returns the time after which it would be admitted.
    fn admit(&self) -> Result<(), Duration> {
        let interval = Duration::from_secs(1) / self.per_second_max;
        let now = Instant::now();
        let mut due = lock(&self.due);
        let next = due.map_or(now, |due| due.max(now)) + interval;
        let ahead = next.saturating_duration_since(now + BURST);
        if !ahead.is_zero() {
            return Err(ahead);
        }
        *due = Some(next);
        Ok(())
    }
}

/// Serves one HTTP/1.1 connection of a tower service, such as an axum router, over memory, and returns the client's
/// end. For tests without a network; time may be paused.
///
/// Each direction holds up to 64 KiB. The connection is served by a task of the current runtime until either side
/// closes it. Extractors of the client's address need a mock, such as axum's `MockConnectInfo`.
///
/// ```
/// use axum::response::Response;
/// use axum::{Router, routing::any};
/// use sockeye::axum::{Upgrader, WebSocketUpgrade};
/// use sockeye::tower::serve_in_memory;
/// use sockeye::{Client, Error, Message};
///
/// async fn greet(upgrade: WebSocketUpgrade) -> Response {
///     upgrade.on_upgrade(|mut ws| async move { ws.send("hello").await })
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let app = Router::new().route("/ws", any(greet)).with_state(Upgrader::new(Default::default()));
/// let request = Client::default().request("ws://test/ws");
/// let (mut ws, _response) = request.connect_over(serve_in_memory(app)).await?;
/// assert_eq!(ws.recv().await?, Some(Message::text("hello")));
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Panics outside a tokio runtime.
pub fn serve_in_memory<S, B>(service: S) -> DuplexStream
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (server, client) = tokio::io::duplex(PIPE_LEN);
    let service = TowerToHyperService::new(service);
    let connection = http1::Builder::new().serve_connection(TokioIo::new(server), service);
    // The client sees the end of a failed connection.
    drop(tokio::spawn(async move { drop(connection.with_upgrades().await) }));
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rate_allows_bursts_of_two_seconds() {
        let limit = RateLimit::new(10);
        for _ in 0..20 {
            assert_eq!(limit.admit(), Ok(()));
        }
        assert_eq!(limit.admit(), Err(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(limit.admit(), Ok(()));
        assert!(limit.admit().is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..20 {
            assert_eq!(limit.admit(), Ok(()));
        }
        assert!(limit.admit().is_err());
    }
}
