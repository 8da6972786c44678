//! WebSockets on the connections of HTTP servers.

#[cfg(feature = "hyper")]
pub mod hyper;
