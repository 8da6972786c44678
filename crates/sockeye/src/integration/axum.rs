//! WebSockets in axum 0.8 applications.
//!
//! [`WebSocketUpgrade`] is an extractor. Its settings are those of an [`Upgrader`] in the state of the router:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use axum::response::Response;
//! use axum::{Router, routing::any};
//! use sockeye::Server;
//! use sockeye::axum::{Upgrader, WebSocketUpgrade};
//!
//! async fn echo(upgrade: WebSocketUpgrade) -> Response {
//!     upgrade.on_upgrade(|mut ws| async move {
//!         while let Some(message) = ws.recv().await? {
//!             ws.feed(message).await?;
//!         }
//!         Ok(())
//!     })
//! }
//!
//! # async fn example() -> std::io::Result<()> {
//! let server = Server::builder().subprotocols(["v1.echo"]).build();
//! let upgrader = Upgrader::new(server).on_error(|error| eprintln!("{error}"));
//! let app = Router::new().route("/echo", any(echo)).with_state(upgrader.clone());
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, app)
//!     .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
//!     .await?;
//! // axum does not wait for WebSockets. This closes them with 1001 and waits for their handlers.
//! upgrader.shutdown(Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! Origins, subprotocols, limits, timeouts, keepalive and compression are settings of the [`Server`](crate::Server). A
//! route with other settings has a state of its own: `.with_state(upgrader.with_server(server))`. In an application
//! with its own state type, implement `FromRef`:
//!
//! ```
//! use axum::extract::FromRef;
//! use sockeye::axum::Upgrader;
//!
//! #[derive(Clone)]
//! struct AppState {
//!     upgrader: Upgrader,
//! }
//!
//! impl FromRef<AppState> for Upgrader {
//!     fn from_ref(state: &AppState) -> Self {
//!         state.upgrader.clone()
//!     }
//! }
//! ```
//!
//! # Rejections
//!
//! A request that is not a valid handshake, or whose origin or host is not allowed, is answered with an
//! [`UpgradeError`], whose body says why. [`Upgrader::on_error`] logs it. Extract `Result<WebSocketUpgrade,
//! UpgradeError>` to answer it differently, or `Option<WebSocketUpgrade>` for a route that serves a page too.
//!
//! # Tests without a network
//!
//! [`serve_in_memory`](crate::tower::serve_in_memory) serves the router over memory. Responses to requests that are
//! rejected can also be tested with tower's `oneshot`.
//!
//! # HTTP/2
//!
//! Only HTTP/1.1 is supported. WebSockets over HTTP/2 (RFC 8441) use CONNECT instead of GET, so register the route with
//! `any`; the same types will accept them.

use std::fmt;

use ::hyper::upgrade::OnUpgrade;
use axum_core::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use super::upgrade::{RequestHead, Upgrade, is_handshake};
use super::upgrader::ReceivedUpgrade;
use crate::error::Error;
use crate::server::response::Acceptance;
use crate::websocket::WebSocket;

pub use super::upgrade::UpgradeError;
pub use super::upgrader::Upgrader;

/// Extractor of a valid opening handshake, which [`on_upgrade`](Self::on_upgrade) accepts.
///
/// The handshake is valid, and its origin and host are allowed. To reject it for another reason, drop this value and
/// return a response.
#[must_use = "the client gets a 101 response only from `on_upgrade`"]
pub struct WebSocketUpgrade {
    upgrader: Upgrader,
    upgrading: OnUpgrade,
    received: ReceivedUpgrade,
}

impl WebSocketUpgrade {
    /// The `Origin` header: the origin of the page whose script connects. `None` if the header is missing, because the
    /// client is not a browser.
    pub fn origin(&self) -> Option<&str> {
        self.received.incoming.request().origin()?.as_str()
    }

    /// The subprotocols that the client offers, in its order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.received.incoming.request().subprotocols()
    }

    /// Accepts the handshake with the first of the server's subprotocols that the client offered, and runs `handler` in
    /// a new task once axum has sent the response. See [`Upgrader::upgrade`] for the task.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn on_upgrade<F, R>(self, handler: F) -> Response
    where
        F: FnOnce(WebSocket) -> R + Send + 'static,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.on_upgrade_with(Acceptance::new(), handler)
    }

    /// Accepts the handshake with a chosen subprotocol and headers. See [`Upgrader::upgrade_with`].
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn on_upgrade_with<F, R>(self, acceptance: Acceptance, handler: F) -> Response
    where
        F: FnOnce(WebSocket) -> R + Send + 'static,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let open = |handshake| Upgrade::new(self.upgrading, handshake);
        let response = self.upgrader.accept(self.received, acceptance, open, handler);
        response.into_response()
    }
}

impl<S> FromRequestParts<S> for WebSocketUpgrade
where
    Upgrader: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = UpgradeError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, UpgradeError> {
        let upgrader = Upgrader::from_ref(state);
        let upgrading = parts.extensions.remove::<OnUpgrade>();
        // Without one, such as in a test with `oneshot`, the future of the upgrade fails.
        let upgrading = upgrading.unwrap_or_else(|| ::hyper::upgrade::on(http::Request::new(())));
        let permit = parts.extensions.remove();
        let head = RequestHead {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
        };
        let received = upgrader.receive(head, permit)?;
        Ok(Self {
            upgrader,
            upgrading,
            received,
        })
    }
}

/// `None` for a request that does not ask for a WebSocket. An invalid handshake is rejected.
impl<S> OptionalFromRequestParts<S> for WebSocketUpgrade
where
    Upgrader: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = UpgradeError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, UpgradeError> {
        if !is_handshake(&parts.headers) {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .map(Some)
    }
}

impl fmt::Debug for WebSocketUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketUpgrade")
            .field("origin", &self.origin())
            .finish_non_exhaustive()
    }
}

impl IntoResponse for UpgradeError {
    fn into_response(self) -> Response {
        IntoResponse::into_response(Self::into_response(self))
    }
}
