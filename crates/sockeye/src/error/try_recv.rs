//! The error of receiving without waiting.

use std::fmt;

use crate::error::Error;

/// Error of `try_recv`: there is no message.
#[derive(Clone, Debug)]
pub enum TryRecvError {
    /// No message has arrived, or other tasks should run first: await `recv`.
    Empty,
    /// The connection has ended [normally](crate::WebSocket#the-end): `recv` returns `None`.
    Ended,
    /// The connection has failed with this error, which `recv` returns too.
    Failed(Error),
}

impl TryRecvError {
    /// Whether a message may still arrive.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no message has arrived"),
            Self::Ended => f.write_str("the connection has ended"),
            Self::Failed(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for TryRecvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Empty | Self::Ended => None,
            Self::Failed(error) => error.source(),
        }
    }
}
