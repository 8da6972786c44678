//! WebSockets on the connections of HTTP servers.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "hyper")]
mod connection_permit;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "hyper")]
mod upgrade;
#[cfg(feature = "hyper")]
mod upgrader;
