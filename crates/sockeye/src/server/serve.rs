//! Serving a listener: accepts connections, runs a task for each, and shuts down gracefully.

use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::error::Error;
use crate::server::handler::{HandlerTask, OnError};
use crate::server::response::plain_bytes;
use crate::server::serve_error::ServeError;
use crate::server::tasks::{ConnectionTasks, TaskToken};
use crate::server::{Incoming, PlainHttp, ReceivedRequest, Server};
use crate::transport::socket;

/// The first and the longest pause after consecutive failures of the listener, such as exhausted file descriptors.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The minimum time between two reports of [`ServeError::Accept`].
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A source of connections for [`Server::serve`].
pub trait Listener: Send + 'static {
    /// The transport of an accepted connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Accepts the next connection. It is called again after an error: immediately if only one connection was lost
    /// (such as `ConnectionAborted` or `HostUnreachable`), otherwise after 5 ms to 1 s.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Io>>;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        Self::poll_accept(self, cx).map_ok(|(tcp, _)| tcp)
    }
}

#[cfg(unix)]
impl Listener for tokio::net::UnixListener {
    type Io = tokio::net::UnixStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Io>> {
        Self::poll_accept(self, cx).map_ok(|(unix, _)| unix)
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type OnHttp = Box<dyn Fn(Request<()>) -> BoxFuture<Response<Bytes>> + Send + Sync>;

/// A server together with a listener, created by [`Server::serve`]. Nothing is accepted until [`run`](Self::run) is
/// awaited.
#[must_use = "nothing is accepted before `run`"]
pub struct Serve<L> {
    server: Server,
    listener: L,
    hooks: Hooks,
    shutdown: Option<(BoxFuture<()>, Duration)>,
}

#[derive(Default)]
struct Hooks {
    on_http: Option<OnHttp>,
    on_error: Option<OnError>,
}

impl Hooks {
    fn report(&self, error: impl FnOnce() -> ServeError) {
        if let Some(on_error) = &self.on_error {
            on_error(error());
        }
    }
}

impl Server {
    /// Serves a listener: accepts its connections and runs a task for each. See [`Serve`] for the options. Nothing is
    /// accepted until [`Serve::run`] is awaited.
    ///
    /// ```no_run
    /// # use sockeye::Server;
    /// # async fn example() -> std::io::Result<()> {
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:9001").await?;
    /// Server::default()
    ///     .serve(listener)
    ///     .run(|incoming| async move {
    ///         let mut ws = incoming.accept().await?;
    ///         while let Some(message) = ws.recv().await? {
    ///             ws.feed(message).await?;
    ///         }
    ///         Ok(())
    ///     })
    ///     .await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve<L: Listener>(&self, listener: L) -> Serve<L> {
        Serve::new(self.clone(), listener)
    }
}

impl<L: Listener> Serve<L> {
    pub(crate) fn new(server: Server, listener: L) -> Self {
        Self {
            server,
            listener,
            hooks: Hooks::default(),
            shutdown: None,
        }
    }

    /// Sets a hook that answers plain HTTP requests, such as health checks. Default: plain HTTP requests are rejected
    /// with 426, 405 or 400.
    ///
    /// The request body is not read, and the connection is closed after the response. `Content-Length` and `Connection`
    /// are set automatically. The hook and sending its response are limited by
    /// [`Timeouts::handshake`](crate::Timeouts::handshake) each; if the hook takes longer, its future is dropped and
    /// the client gets a 503. Origin and host policies do not apply, because load balancers send neither header. For
    /// routes, request bodies or persistent connections, use `sockeye::hyper`.
    ///
    /// ```no_run
    /// # use sockeye::{Server, http::{Response, StatusCode}};
    /// # async fn example(listener: tokio::net::TcpListener) {
    /// Server::default()
    ///     .serve(listener)
    ///     .on_http(|request| async move {
    ///         let is_known = request.uri().path() == "/healthz";
    ///         let mut response = Response::new(if is_known { "ok\n" } else { "not found\n" });
    ///         *response.status_mut() = if is_known { StatusCode::OK } else { StatusCode::NOT_FOUND };
    ///         response
    ///     })
    /// # ;}
    /// ```
    pub fn on_http<F, R, B>(mut self, hook: F) -> Self
    where
        F: Fn(Request<()>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<B>> + Send + 'static,
        B: Into<Bytes>,
    {
        self.hooks.on_http = Some(Box::new(move |request| {
            let response = hook(request);
            Box::pin(async move { response.await.map(Into::into) })
        }));
        self
    }

    /// Sets a hook that is called for each failure, for example to log it: see [`ServeError`]. Default: none. It must
    /// not block.
    pub fn on_error(mut self, hook: impl Fn(ServeError) + Send + Sync + 'static) -> Self {
        self.hooks.on_error = Some(Arc::new(Box::new(hook)));
        self
    }

    /// Shuts down once `signal` is ready, within `deadline`. Default: [`run`](Self::run) never returns.
    ///
    /// The shutdown closes the listener and connections that are still in the opening handshake. It closes every open
    /// connection with 1001 (going away): its [`recv`](crate::WebSocket::recv) returns the messages that the client
    /// sent before its own close frame, then `Ok(None)`, so that the handler can return. `run` returns once all
    /// handlers have returned. Handlers that are still running at the `deadline` are dropped, and their connections are
    /// closed without a closing handshake.
    ///
    /// If a handler returns before the closing handshake is finished, for instance because `send` failed after the
    /// close frame was sent, a background task finishes it. A process that exits as soon as `run` returns cuts that
    /// off: await [`close`](crate::WebSocket::close) in the handler to avoid it.
    ///
    /// The close frame is sent when the handler polls `recv`. The handler's task is woken for that, so every future
    /// that it awaits directly is polled, including those in `select!` or `join!`. A receiver in another task sends the
    /// close frame at its next message or ping.
    ///
    /// ```no_run
    /// # use sockeye::Server;
    /// # use std::time::Duration;
    /// # async fn example(listener: tokio::net::TcpListener) {
    /// let aborted = Server::default()
    ///     .serve(listener)
    ///     .graceful_shutdown(tokio::signal::ctrl_c(), Duration::from_secs(10))
    ///     .run(|incoming| async move { incoming.accept().await?.recv().await.map(drop) })
    ///     .await;
    /// println!("{aborted} connections had to be aborted");
    /// # }
    /// ```
    pub fn graceful_shutdown<S>(mut self, signal: S, deadline: Duration) -> Self
    where
        S: Future + Send + 'static,
    {
        let signal = async move { drop(signal.await) };
        self.shutdown = Some((Box::pin(signal), deadline));
        self
    }

    /// Accepts connections and calls `handler` for each valid request in its own task, until the
    /// [shutdown](Self::graceful_shutdown). Returns the number of connections that were aborted at the shutdown
    /// deadline.
    ///
    /// The handler accepts or rejects the request. Errors that it returns are reported to [`on_error`](Self::on_error),
    /// except a [normal close](Error::is_normal_close); [`Error::other`] wraps an application's error. A handler that
    /// returns an error or panics ends only its own connection, without a close frame: the client sees 1006. To give it
    /// a code, call [`WebSocket::close`](crate::WebSocket::close) before returning. If a handler moves its WebSocket to
    /// another task, it has to wait for that task to include it in the shutdown.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and aborts every handler: their connections are closed without a closing
    /// handshake.
    pub async fn run<H, R>(self, handler: H) -> usize
    where
        H: Fn(Incoming) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let Self {
            server,
            mut listener,
            hooks,
            shutdown,
        } = self;
        let tasks = ConnectionTasks::new();
        // Aborts when this future is dropped.
        let _abort = tasks.abort_on_drop();
        let state = Arc::new(ServeState {
            server: server.with_own_group(),
            handler,
            hooks,
        });
        let (signal, deadline) = shutdown.unwrap_or_else(|| (Box::pin(pending()), Duration::MAX));
        {
            let mut signal = pin!(signal);
            let mut accepting = pin!(accept_loop(&mut listener, &state, &tasks));
            poll_fn(|cx| match signal.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => accepting.as_mut().poll(cx),
            })
            .await;
        }
        drop(listener);
        state.server.group().request_shutdown();
        tasks.shut_down(deadline).await
    }
}

impl<L> fmt::Debug for Serve<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// State shared by the tasks of a server.
struct ServeState<H> {
    server: Server,
    handler: H,
    hooks: Hooks,
}

/// Accepts connections for as long as it is polled.
async fn accept_loop<L, H, R>(listener: &mut L, state: &Arc<ServeState<H>>, tasks: &Arc<ConnectionTasks>)
where
    L: Listener,
    H: Fn(Incoming) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut backoff = BACKOFF_MIN;
    let mut reported_at: Option<Instant> = None;
    loop {
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok(io) => {
                backoff = BACKOFF_MIN;
                drop(tokio::spawn(state.clone().handle_connection(io, tasks.track())));
            }
            // Only one connection is lost.
            Err(error) if is_connection_error(&error) => tokio::task::yield_now().await,
            Err(error) => {
                if reported_at.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
                    reported_at = Some(Instant::now());
                    state.hooks.report(|| ServeError::Accept(error));
                }
                sleep(backoff).await;
                backoff = BACKOFF_MAX.min(2 * backoff);
            }
        }
    }
}

/// Whether the error concerns only the connection that was being accepted: on Linux, `accept` returns its pending
/// errors.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | ConnectionRefused
            | Interrupted
            | TimedOut
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
    )
}

impl<H, R> ServeState<H>
where
    H: Fn(Incoming) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Error>> + Send + 'static,
{
    /// Receives the request of a connection. Spawns a second task for the handler, so that the memory of the handshake
    /// is freed.
    async fn handle_connection<S>(self: Arc<Self>, io: S, mut task: TaskToken)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let has_error_hook = self.hooks.on_error.is_some();
        let peer_addr = if has_error_hook { socket::peer_addr(&io) } else { None };
        let received = {
            let receiving = pin!(self.server.receive(io, self.hooks.on_http.is_some()));
            task.run_until_closing(receiving).await
        };
        let received = match received {
            Some(Ok(received)) => received,
            Some(Err(error)) => {
                self.hooks.report(|| ServeError::Handshake { peer_addr, error });
                return;
            }
            None => return,
        };
        match received {
            ReceivedRequest::Plain(plain) => {
                task.run_until_aborted(pin!(self.answer_plain_http(plain))).await;
            }
            ReceivedRequest::WebSocket(incoming) if task.is_closing() => {
                task.run_until_aborted(pin!(incoming.reject(StatusCode::SERVICE_UNAVAILABLE)))
                    .await;
            }
            ReceivedRequest::WebSocket(incoming) => {
                let handler = (self.handler)(incoming);
                let on_error = self.hooks.on_error.clone();
                drop(tokio::spawn(HandlerTask::new(handler, task, peer_addr, on_error)));
            }
        }
    }

    /// Answers a plain HTTP request.
    async fn answer_plain_http(&self, mut plain: PlainHttp) {
        let Some(on_http) = &self.hooks.on_http else {
            return;
        };
        let handshake_timeout = self.server.timeouts().handshake;
        let method = plain.request.method().clone();
        let request = std::mem::replace(&mut *plain.request, Request::new(()));
        let response = timeout(handshake_timeout, on_http(request)).await.unwrap_or_else(|_| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        });
        let response = plain_bytes(&method, &response);
        plain.respond(self.server.runtime(), response, handshake_timeout).await;
    }
}
