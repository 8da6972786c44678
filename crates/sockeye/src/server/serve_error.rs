//! Errors reported by [`Serve`](crate::Serve).

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::error::Error;

/// A failure while serving, reported to [`Serve::on_error`](crate::Serve::on_error). Serving continues.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The listener failed, usually because file descriptors ran out. Accepting is retried after 5 ms, 10 ms, and so on
    /// up to 1 s. Reported at most once per second.
    Accept(io::Error),
    /// A client was not accepted: its request was invalid or not allowed, its TLS handshake failed, or it was too slow.
    Handshake {
        /// The address of the client, if the transport is TCP.
        peer_addr: Option<SocketAddr>,
        /// Why the opening handshake failed.
        error: Error,
    },
    /// The application's handler returned an error other than a [normal close](Error::is_normal_close).
    Handler {
        /// The address of the client, if the transport is TCP.
        peer_addr: Option<SocketAddr>,
        /// The error that the handler returned.
        error: Error,
    },
}

impl ServeError {
    /// The error of the connection. `None` if the listener failed.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Accept(_) => None,
            Self::Handshake { error, .. } | Self::Handler { error, .. } => Some(error),
        }
    }

    /// The address of the client. `None` if the listener failed or the transport is not TCP.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Accept(_) => None,
            Self::Handshake { peer_addr, .. } | Self::Handler { peer_addr, .. } => *peer_addr,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peer_addr, error) = match self {
            Self::Accept(error) => return write!(f, "cannot accept connections: {error}"),
            Self::Handshake { peer_addr, error } | Self::Handler { peer_addr, error } => (peer_addr, error),
        };
        match peer_addr {
            Some(peer_addr) => write!(f, "{peer_addr}: {error}"),
            None => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Accept(error) => error.source(),
            Self::Handshake { error, .. } | Self::Handler { error, .. } => error.source(),
        }
    }
}
