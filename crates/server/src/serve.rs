//! The entry point: accepts connections, and shuts down.

use std::future::Pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::accept::accept_all;
use crate::config::Config;
use crate::connection_limiter::{Admission, LimitReached};
use crate::endpoint::Endpoint;
use crate::handle::ServerHandle;
use crate::handlers::{ClientMessage, Handlers, RpcCall, RpcError};
use crate::http::{self, HttpService};
use crate::node::Node;

/// A server that embeds into a Rust program. [`serve`] is the short form.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use sockeye_server::{Config, Server};
///
/// let server = Server::builder().config(Config::default()).build().expect("a valid configuration");
/// let handle = server.handle();
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let shutdown = async { drop(tokio::signal::ctrl_c().await) };
/// server.with_shutdown(shutdown).serve(listener).await
/// # }
/// ```
#[derive(Debug)]
pub struct Server<S = Pending<()>> {
    node: Arc<Node>,
    shutdown: S,
}

/// Builder for [`Server`].
#[derive(Debug, Default)]
pub struct ServerBuilder {
    config: Config,
    handlers: Handlers,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl ServerBuilder {
    /// Sets the configuration.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Enables TLS: `https://` and `wss://` only.
    pub fn tls_config(mut self, tls: Arc<rustls::ServerConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the handler of calls (`rpc`) of clients. It replaces the hook of
    /// [`HookOptions::rpc_url`](crate::HookOptions).
    ///
    /// The result is sent to the client: as JSON if it is JSON. The calls of one client are handled one after the
    /// other, those of different clients at the same time. A handler that takes longer than
    /// [`HookOptions::timeout`](crate::HookOptions) is dropped at an await point, and the client gets the temporary error 100;
    /// so it does if the handler panics. If the client disconnects, its handlers are dropped.
    ///
    /// ```
    /// use sockeye_server::codes::ErrorCode;
    /// use sockeye_server::{RpcCall, Server};
    ///
    /// let server = Server::builder().on_rpc(async |call: RpcCall| match &*call.method {
    ///     "time" => Ok(br#"{"hour":12}"#.to_vec()),
    ///     _ => Err(ErrorCode::MethodNotFound.into()),
    /// });
    /// # drop(server);
    /// ```
    pub fn on_rpc<F, R>(mut self, handler: F) -> Self
    where
        F: Fn(RpcCall) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<u8>, RpcError>> + Send + 'static,
    {
        self.handlers.set_rpc(handler);
        self
    }

    /// Sets the handler of messages (`send`) of clients, to which there is no reply. Without one, they are ignored. The
    /// messages and calls of one client are handled one after the other; the limits of [`on_rpc`](Self::on_rpc) apply.
    pub fn on_message<F, R>(mut self, handler: F) -> Self
    where
        F: Fn(ClientMessage) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.handlers.set_message(handler);
        self
    }

    /// Builds the server. It does not accept connections until [`Server::serve`]. With a [journal](Config::journal),
    /// this blocks while it reads the log.
    ///
    /// # Errors
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) with a [`ConfigError`](crate::ConfigError) if fields of
    /// the configuration contradict each other, or an error that tells why the log cannot be used.
    pub fn build(self) -> io::Result<Server> {
        self.config
            .check()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let node = Node::open(self.config)?;
        node.set_handlers(self.handlers);
        if let Some(tls) = self.tls {
            node.set_tls(tls);
        }
        Ok(Server {
            node,
            shutdown: std::future::pending(),
        })
    }
}

impl Server {
    /// Starts to build a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }
}

impl<S: Future<Output = ()>> Server<S> {
    /// The server API, also while [`serve`](Self::serve) runs.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(self.node.clone())
    }

    /// Sets the future that starts the shutdown. Without one, the server runs until the future of
    /// [`serve`](Self::serve) is dropped.
    pub fn with_shutdown<T: Future<Output = ()>>(self, shutdown: T) -> Server<T> {
        Server {
            node: self.node,
            shutdown,
        }
    }

    /// Serves connections of a bound listener, as the function [`serve`] does.
    ///
    /// # Errors
    /// Returns the error of the listener if it has no local address.
    ///
    /// # Cancel safety
    /// Dropping the future stops accepting connections. Connected clients stay until the runtime shuts down.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        run(Some(listener), self.node, self.shutdown).await
    }

    /// The WebSocket endpoint, for an application with its own HTTP server. Needs [`run`](Self::run).
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.node.clone())
    }

    /// Does what [`serve`](Self::serve) does besides accepting connections: for an application whose HTTP server passes
    /// requests to the [`endpoint`](Self::endpoint). Returns after the shutdown.
    ///
    /// # Errors
    /// None at present.
    ///
    /// # Cancel safety
    /// Dropping the future stops the eviction of expired history. Connected clients stay until the runtime shuts down.
    pub async fn run(self) -> io::Result<()> {
        run(None, self.node, self.shutdown).await
    }
}

/// Serves connections of a bound listener until `shutdown` completes. Then disconnects all clients with 3001, so that
/// they reconnect, spread over [`Timeouts::drain`](crate::Timeouts::drain), and returns when they are gone or after
/// [`Timeouts::shutdown`](crate::Timeouts::shutdown).
///
/// | path | serves |
/// |---|---|
/// | `/`, `/chat`, `/market`, `/game` | the demonstrations, if [`Config::demos`] is set |
/// | `/connection/websocket` | the Centrifugo client protocol over WebSocket, in JSON or Protobuf |
/// | `/connection/sse`, `/connection/http_stream` | the same protocol over server-sent events and HTTP streaming |
/// | `/emulation` | commands of clients that use server-sent events or HTTP streaming |
/// | `/connection/check` | the reason why the WebSocket of a page was refused, for the page |
/// | `/api/<method>` | the HTTP API |
/// | `/health/live` | 200 |
/// | `/health/ready` | 200 if a publication passes through the engine, 503 otherwise and during the shutdown |
/// | `/metrics` | metrics for Prometheus |
/// | `/console` | the admin console, if a password is set |
///
/// Refused requests are logged as warnings: a burst of twenty, then one per second.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
/// sockeye_server::serve(listener, sockeye_server::Config::default(), ctrl_c).await
/// # }
/// ```
///
/// # Errors
/// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) with a [`ConfigError`](crate::ConfigError) if fields of the
/// configuration contradict each other, the error of the listener if it has no local address, or an error that tells
/// why the log cannot be used. Errors of single connections are logged and do not stop the server.
///
/// # Cancel safety
/// Dropping the future stops accepting connections. Connected clients stay until the runtime shuts down.
pub async fn serve(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let server = match config.journal {
        None => Server::builder().config(config).build()?,
        // It may take long to read the log.
        Some(_) => tokio::task::spawn_blocking(|| Server::builder().config(config).build()).await??,
    };
    server.with_shutdown(shutdown).serve(listener).await
}

async fn run(listener: Option<TcpListener>, node: Arc<Node>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let is_loopback = match &listener {
        Some(listener) => listener.local_addr()?.ip().is_loopback(),
        None => false,
    };
    let service = Arc::new(HttpService::new(node.clone(), is_loopback));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let (drain, shutdown_timeout) = {
        let timeouts = &node.startup_config().timeouts;
        (timeouts.drain, timeouts.shutdown)
    };

    let accepting = accept_all(
        |cx| match &listener {
            Some(listener) => listener.poll_accept(cx),
            None => Poll::Pending,
        },
        |(stream, peer)| {
            let per_address_max = node.config().limits.connections_per_address_max;
            match node.connection_limiter().admit(peer.ip(), per_address_max) {
                Ok(permit) => match node.tls() {
                    None => drop(tokio::spawn(http::serve_connection(
                        service.clone(),
                        stream,
                        peer,
                        permit,
                    ))),
                    Some(tls) => drop(tokio::spawn(serve_tls(tls, service.clone(), stream, peer, permit))),
                },
                Err(closed) => {
                    log_limit_reached(&node, peer, closed);
                    // A client with TLS could not read the answer.
                    if node.tls().is_none()
                        && let Ok(permit) = refusals.clone().try_acquire_owned()
                    {
                        tokio::spawn(refuse(stream, permit));
                    }
                }
            }
        },
    );
    // Clients need it until they are disconnected.
    let _engine = AbortOnDropHandle::new(tokio::spawn(crate::handle::run(node.clone())));
    // Boxed, so that it can be dropped before the listener.
    let mut accepting = Box::pin(accepting);
    tokio::select! {
        never = accepting.as_mut() => match never {},
        () = node.run_maintenance() => {}
        () = node.run_position_check() => {}
        () = node.run_demos() => {}
        () = shutdown => {}
    }

    // The listener stays open while clients are disconnected, so that probes see that the server is alive and not
    // ready.
    let deadline = Instant::now() + shutdown_timeout;
    tokio::select! {
        never = accepting.as_mut() => match never {},
        _ = timeout_at(deadline, node.drain(drain)) => {}
    }
    drop(accepting);
    drop(listener);
    if timeout_at(deadline, node.connection_limiter().wait_until_idle())
        .await
        .is_err()
    {
        let left = node.connection_limiter().connections();
        tracing::warn!(left, "dropped connections that did not close in time");
    }
    if let Err(error) = node.engine().close().await {
        tracing::error!(%error, "the engine could not be closed in order; the next start treats this as a crash");
    }
    Ok(())
}

/// Performs the TLS handshake, and serves the connection.
async fn serve_tls(
    tls: Arc<rustls::ServerConfig>,
    service: Arc<HttpService>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: Admission,
) {
    let handshake = TlsAcceptor::from(tls).accept(stream);
    match timeout(TLS_TIMEOUT, handshake).await {
        // A new task, so that the memory of the handshake is freed.
        Ok(Ok(stream)) => drop(tokio::spawn(http::serve_connection(service, stream, peer, permit))),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "the TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
    }
}

/// Time for the TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn log_limit_reached(node: &Node, peer: SocketAddr, closed: LimitReached) {
    let limits = &node.config().limits;
    let (reason, limit, value) = match closed {
        LimitReached::Connections => ("connections", "connections_max", limits.connections_max),
        LimitReached::Address => (
            "address",
            "connections_per_address_max",
            limits.connections_per_address_max,
        ),
    };
    node.metrics().refusal(reason);
    node.refusals()
        .log(|| tracing::warn!(%peer, status = 503, "refused a connection: limits.{limit} ({value}) is reached"));
}

/// Maximum number of refused connections that are answered concurrently. Further ones are closed without an answer.
const REFUSALS_MAX: usize = 64;

/// Time for a refused client to read its answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The response to a connection beyond the limit.
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Retry-After: 5\r\nContent-Type: text/plain\r\nContent-Length: 48\r\nConnection: close\r\n\r\n\
    too many connections are open; try again later\r\n";

/// Sends [`TOO_MANY_CONNECTIONS`]. The client's input is read and discarded, because closing a socket with unread input
/// resets the connection, which can discard the response.
async fn refuse(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let answer = async {
        let mut scratch = [0; 1024];
        let _request_len = stream.read(&mut scratch).await?;
        stream.write_all(TOO_MANY_CONNECTIONS).await?;
        stream.shutdown().await?;
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // It does not matter whether the client received the response.
    let _ = timeout(REFUSAL_TIMEOUT, answer).await;
}

#[cfg(test)]
mod drain_tests;
#[cfg(test)]
mod hook_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod protocol_tests;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod transport_tests;
