//! Accepts upgrades on an HTTP server, runs a task for each WebSocket, and closes them at shutdown.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sockeye_proto::handshake;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::connection_permit::ConnectionPermit;
use super::upgrade::{Handshake, HttpResponse, RequestHead, Upgrade, UpgradeError, accept, check};
use crate::error::Error;
use crate::server::Server;
use crate::server::handler::{HandlerTask, OnError};
use crate::server::response::{Acceptance, unavailable};
use crate::server::serve_error::ServeError;
use crate::server::tasks::{ConnectionTasks, TaskToken};
use crate::settings::ConnectionGroup;
use crate::sync::lock;
use crate::websocket::WebSocket;

/// Accepts WebSockets on an HTTP server, runs a task for each, and closes them all at shutdown.
///
/// hyper and axum forget a connection once it is upgraded, so their graceful shutdown does not wait for WebSockets.
/// Create one upgrader for each HTTP server, give clones of it to the handlers, and call [`shutdown`](Self::shutdown)
/// when the server stops:
///
/// ```no_run
/// # async fn example(listener: tokio::net::TcpListener) -> std::io::Result<()> {
/// use std::time::Duration;
///
/// use axum::extract::{Request, State};
/// use axum::{Router, routing::any};
/// use sockeye::Server;
/// use sockeye::hyper::{HttpResponse, Upgrader};
///
/// async fn websocket(State(upgrader): State<Upgrader>, mut request: Request) -> HttpResponse {
///     upgrader.upgrade(&mut request, |mut ws| async move { ws.send("hello").await })
/// }
///
/// let upgrader = Upgrader::new(Server::default()).on_error(|error| eprintln!("{error}"));
/// let app = Router::new().route("/ws", any(websocket)).with_state(upgrader.clone());
/// axum::serve(listener, app)
///     .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
///     .await?;
/// upgrader.shutdown(Duration::from_secs(10)).await;
/// # Ok(())
/// # }
/// ```
///
/// Clones share the tasks. Dropping all clones leaves the connections open.
#[derive(Clone)]
pub struct Upgrader {
    server: Server,
    shared: Arc<Shared>,
    on_error: Option<OnError>,
}

struct Shared {
    tasks: Arc<ConnectionTasks>,
    /// The connections of all servers that belong to these tasks.
    groups: Mutex<Vec<Weak<ConnectionGroup>>>,
}

/// A valid request that was received but not accepted yet.
pub(crate) struct ReceivedUpgrade {
    pub(crate) incoming: handshake::Incoming,
    permit: Option<ConnectionPermit>,
    task: TaskToken,
}

impl Upgrader {
    /// Creates an upgrader that accepts WebSockets with the settings of `server`. TLS settings are not used: the HTTP
    /// server terminates TLS.
    pub fn new(server: Server) -> Self {
        let shared = Arc::new(Shared {
            tasks: ConnectionTasks::new(),
            groups: Mutex::default(),
        });
        Self {
            server: shared.register(&server),
            shared,
            on_error: None,
        }
    }

    /// Returns an upgrader with other settings, for example for a route with other limits or subprotocols, whose
    /// connections end at the same [`shutdown`](Self::shutdown). Call it once for each route, not for each request.
    #[must_use]
    pub fn with_server(&self, server: Server) -> Self {
        Self {
            server: self.shared.register(&server),
            ..self.clone()
        }
    }

    /// Sets a hook that is called for each failure, for example to log it: a rejected or failed handshake, and an error
    /// that a handler returned, except a [normal close](Error::is_normal_close). Default: none. It must not block.
    ///
    /// It applies to clones that are made afterwards.
    #[must_use]
    pub fn on_error(mut self, hook: impl Fn(ServeError) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(Box::new(hook)));
        self
    }

    /// Accepts an opening handshake with the first of the server's subprotocols that the client offered, and runs
    /// `handler` in a new task once the HTTP server has sent the response. Headers may be added to the response before.
    ///
    /// If the request is not a valid handshake, or its origin or host is not allowed, the response is the rejection,
    /// and its body says why. During a [`shutdown`](Self::shutdown) its status is 503.
    ///
    /// The task ends if the response is not sent within [`Timeouts::handshake`](crate::Timeouts::handshake). A panic
    /// in the handler ends only its own connection.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn upgrade<B, F, R>(&self, request: &mut http::Request<B>, handler: F) -> HttpResponse
    where
        F: FnOnce(WebSocket) -> R + Send + 'static,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.upgrade_with(request, Acceptance::new(), handler)
    }

    /// Accepts an opening handshake with a chosen subprotocol and headers. Otherwise like [`upgrade`](Self::upgrade).
    ///
    /// If the acceptance has an invalid header, or a subprotocol that the client did not offer, the response has status
    /// 500, and the hook gets an error for which [`Error::is_invalid_input`] is true.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn upgrade_with<B, F, R>(
        &self,
        request: &mut http::Request<B>,
        acceptance: Acceptance,
        handler: F,
    ) -> HttpResponse
    where
        F: FnOnce(WebSocket) -> R + Send + 'static,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let upgrading = ::hyper::upgrade::on(&mut *request);
        let permit = request.extensions_mut().remove();
        let open = |handshake| Upgrade::new(upgrading, handshake);
        match self.receive(RequestHead::of(request), permit) {
            Ok(received) => self.accept(received, acceptance, open, handler),
            Err(error) => error.into_response(),
        }
    }

    /// Accepts an opening handshake on a framework that hides hyper's upgrade but has a future of its own for the
    /// transport. Otherwise like [`upgrade`](Self::upgrade).
    ///
    /// `upgrading` resolves to the transport once the response has been sent, such as the future that
    /// `Request::take_upgrade` of poem returns. Bytes that the HTTP server read after the request must be part of the
    /// transport.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn upgrade_over<B, U, S, E, F, R>(&self, request: &http::Request<B>, upgrading: U, handler: F) -> HttpResponse
    where
        U: Future<Output = Result<S, E>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce(WebSocket) -> R + Send + 'static,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let permit = request.extensions().get().cloned();
        let open = |handshake: Handshake| async move {
            let io = upgrading.await.map_err(|error| Error::io(io::Error::other(error)))?;
            handshake.open(Box::new(io))
        };
        match self.receive(RequestHead::of(request), permit) {
            Ok(received) => self.accept(received, Acceptance::new(), open, handler),
            Err(error) => error.into_response(),
        }
    }

    /// Closes every connection with 1001 (going away), and waits until all handlers have returned. Returns the number
    /// of connections that were aborted at the `deadline`: their handlers are dropped, without a closing handshake.
    /// New handshakes are rejected with 503 from now on.
    ///
    /// A connection is closed when its handler polls `recv`, as described at
    /// [`Serve::graceful_shutdown`](crate::Serve::graceful_shutdown). Call it after the HTTP server has stopped
    /// accepting, or at the same time if other requests may take long.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the connections are still asked to close, but none is aborted. May be called again,
    /// and by several tasks.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        self.shared.request_shutdown();
        self.shared.tasks.shut_down(deadline).await
    }

    /// The number of tasks: open connections, and handshakes that are not finished.
    pub fn connection_count(&self) -> usize {
        self.shared.tasks.count()
    }

    /// Checks a request.
    pub(crate) fn receive(
        &self,
        request: RequestHead<'_>,
        permit: Option<ConnectionPermit>,
    ) -> Result<ReceivedUpgrade, UpgradeError> {
        let task = self.shared.tasks.track();
        let checked = check(&self.server, request).and_then(|incoming| match task.is_closing() {
            true => Err(shutting_down(incoming)),
            false => Ok(incoming),
        });
        match checked {
            Ok(incoming) => Ok(ReceivedUpgrade { incoming, permit, task }),
            Err(error) => {
                report_handshake(&self.on_error, error.error());
                Err(error)
            }
        }
    }

    /// Accepts a request, and spawns the task of its connection. `open` makes the future of the WebSocket.
    pub(crate) fn accept<O, F, R>(
        &self,
        received: ReceivedUpgrade,
        acceptance: Acceptance,
        open: impl FnOnce(Handshake) -> O,
        handler: F,
    ) -> HttpResponse
    where
        O: Future<Output = Result<WebSocket, Error>> + Send + 'static,
        F: FnOnce(WebSocket) -> R + Send + 'static,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let ReceivedUpgrade { incoming, permit, task } = received;
        match accept(&self.server, incoming, acceptance) {
            Ok((response, handshake)) => {
                let task = OpeningTask {
                    opening: open(handshake),
                    limit: self.server.timeouts().handshake,
                    task,
                    permit,
                    on_error: self.on_error.clone(),
                };
                drop(tokio::spawn(task.run(handler)));
                response
            }
            Err(error) => {
                report_handshake(&self.on_error, error.error());
                error.into_response()
            }
        }
    }
}

impl fmt::Debug for Upgrader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrader")
            .field("server", &self.server)
            .field("connection_count", &self.connection_count())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Copies a server with a connection group of its own, so that its connections can be closed.
    fn register(&self, server: &Server) -> Server {
        let server = server.with_own_group();
        let mut groups = lock(&self.groups);
        groups.retain(|known| known.strong_count() > 0);
        groups.push(Arc::downgrade(server.group()));
        server
    }

    fn request_shutdown(&self) {
        let groups = lock(&self.groups);
        for group in groups.iter().filter_map(Weak::upgrade) {
            group.request_shutdown();
        }
    }
}

/// The task of a connection until the HTTP server has sent the response.
struct OpeningTask<O> {
    opening: O,
    limit: Duration,
    task: TaskToken,
    permit: Option<ConnectionPermit>,
    on_error: Option<OnError>,
}

impl<O> OpeningTask<O>
where
    O: Future<Output = Result<WebSocket, Error>>,
{
    /// Opens the WebSocket, and spawns a second task for the handler, so that the memory of the handshake is freed.
    async fn run<F, R>(self, handler: F)
    where
        F: FnOnce(WebSocket) -> R,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let Self {
            opening,
            limit,
            mut task,
            permit,
            on_error,
        } = self;
        let opened = task.run_until_aborted(pin!(timeout(limit, opening))).await;
        match opened.map(|opened| opened.unwrap_or_else(|_| Err(Error::timeout("the opening handshake")))) {
            Some(Ok(ws)) => {
                let peer_addr = on_error.as_ref().and_then(|_| ws.peer_addr());
                let guard = permit.map(|permit| Box::new(permit) as Box<dyn Any + Send>);
                let task = HandlerTask::new(handler(ws), task, peer_addr, on_error).with_guard(guard);
                drop(tokio::spawn(task));
            }
            Some(Err(error)) => report_handshake(&on_error, &error),
            None => {}
        }
    }
}

fn report_handshake(on_error: &Option<OnError>, error: &Error) {
    if let Some(on_error) = on_error {
        let error = error.clone();
        on_error(ServeError::Handshake { peer_addr: None, error });
    }
}

fn shutting_down(incoming: handshake::Incoming) -> UpgradeError {
    let rejection = unavailable("the server is shutting down", None);
    UpgradeError::new(Error::other("the server is shutting down"), &incoming.reject(rejection))
}
