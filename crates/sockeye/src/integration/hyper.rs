//! WebSockets on a hyper 1 server, or on a framework built on it such as axum, beside other requests.
//!
//! An [`Upgrader`] runs a handler for each WebSocket and closes them all when the server shuts down:
//!
//! ```no_run
//! use std::convert::Infallible;
//!
//! use hyper::{Request, body::Incoming};
//! use sockeye::hyper::{HttpResponse, Upgrader};
//!
//! async fn handle(upgrader: Upgrader, mut request: Request<Incoming>) -> Result<HttpResponse, Infallible> {
//!     Ok(upgrader.upgrade(&mut request, |mut ws| async move {
//!         while let Some(message) = ws.recv().await? {
//!             ws.feed(message).await?;
//!         }
//!         Ok(())
//!     }))
//! }
//! ```
//!
//! [`upgrade`] is the same step by step, for applications that run their own tasks:
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
//!         Err(error) => {
//!             eprintln!("{error}");
//!             return Ok(error.into_response());
//!         }
//!     };
//!     tokio::spawn(async move {
//!         let mut ws = upgrade.await?;
//!         ws.send("hello").await
//!     });
//!     Ok(response)
//! }
//! ```
//!
//! The connection must be served with upgrades enabled: `http1::Connection::with_upgrades`, or
//! `serve_connection_with_upgrades` of hyper-util.
//!
//! The feature `axum` adds an extractor for axum, and the feature `tower` a layer that limits handshakes and a way to
//! test without a network. For a framework that hides hyper's upgrade, such as poem, see [`Upgrader::upgrade_over`].
//!
//! # Supported transports
//!
//! hyper returns the upgraded transport as a type-erased wrapper. If the server served a `TcpStream`, a `UnixStream` or
//! a TLS stream of tokio-rustls over a `TcpStream`, with hyper, hyper-util's `auto` server or `axum::serve`, the
//! [`WebSocket`](crate::WebSocket) uses that transport directly, and Nagle's algorithm is disabled on TCP. Other types
//! are not recognized: the connection works, but each read and write passes through two more layers, and unless the
//! server called `set_nodelay` on the socket, a small message can be delayed by 40 ms until the previous one is
//! acknowledged. Name such a type with [`Upgrade::transport`].

pub use super::connection_permit::ConnectionPermit;
pub use super::upgrade::{HttpResponse, Upgrade, UpgradeError, upgrade, upgrade_with};
pub use super::upgrader::Upgrader;
