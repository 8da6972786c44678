//! The client in a web page: the public types over the WebSocket of the browser. It takes the place of `client`,
//! `websocket` and `settings` on wasm32.
//!
//! The browser performs the handshakes, TLS, framing, compression and pings. What is left is the state that an
//! application sees ([`state`]), the limits on messages that wait in either direction, and deadlines. `state` and
//! `close` use no JavaScript, so that they are tested on other targets too.
//!
//! Everything runs in one thread: no type here is `Send`, except for the client and its settings.

#[cfg(target_arch = "wasm32")]
pub(crate) mod client;
mod close;
#[cfg(target_arch = "wasm32")]
mod connection;
#[cfg(target_arch = "wasm32")]
mod drain;
pub(crate) mod settings;
mod state;
#[cfg(target_arch = "wasm32")]
mod timer;
#[cfg(target_arch = "wasm32")]
pub(crate) mod websocket;
