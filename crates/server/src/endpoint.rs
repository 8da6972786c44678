//! The WebSocket endpoint as a route of an application with its own HTTP server.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use sockeye::hyper::HttpResponse;

use crate::http::HttpService;
use crate::node::Node;

/// The WebSocket endpoint of a server, for an application that has its own HTTP server, such as axum or hyper 1. Clones
/// refer to the same server.
///
/// [`Server::run`](crate::Server::run) must run besides: it evicts expired history, and disconnects clients at the shutdown.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use std::net::SocketAddr;
///
/// use axum::Router;
/// use axum::extract::{ConnectInfo, Request, State};
/// use axum::routing::get;
/// use sockeye::hyper::HttpResponse;
/// use sockeye_server::{Endpoint, Server};
///
/// async fn websocket(
///     State(endpoint): State<Endpoint>,
///     ConnectInfo(peer): ConnectInfo<SocketAddr>,
///     mut request: Request,
/// ) -> HttpResponse {
///     endpoint.upgrade(&mut request, peer)
/// }
///
/// let server = Server::builder().build()?;
/// let app = Router::new().route("/connection/websocket", get(websocket)).with_state(server.endpoint());
/// tokio::spawn(server.run());
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
/// # }
/// ```
#[derive(Clone)]
pub struct Endpoint {
    service: Arc<HttpService>,
}

impl Endpoint {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        // The address of the listener is unknown, so only `Config::hosts` restricts names.
        let service = Arc::new(HttpService::new(node, false));
        Self { service }
    }

    /// Accepts a WebSocket of a client, or refuses it as the server itself does: by its origin and host, the limits of
    /// connections and handshakes, and during a shutdown. Returns the response, to which headers may be added. The
    /// client is served by a task of its own once the response is sent.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn upgrade<B>(&self, request: &mut http::Request<B>, peer: SocketAddr) -> HttpResponse {
        self.service.admit(request, peer)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}
