//! The state of a connection's transport, and whether the end was reported to the application.

use std::task::Poll;

use crate::error::Error;
use crate::transport::Transport;

/// The state of the transport, with all transitions.
///
/// | from | to | when |
/// |---|---|---|
/// | `Open` | `WriteClosed` | the protocol requests a half-close, and everything is written |
/// | `Open` | `ReadClosed` | the peer ends its side after its close frame while output is still queued |
/// | `ReadClosed` | `BothClosed` | as from `Open` to `WriteClosed` |
/// | any of the four | `WriteFailed` | a write fails |
/// | any of the four | `Closed` | the connection ends normally, or a background task takes it over |
/// | any of the four | `Failed` | a read fails, or a deadline passes |
/// | `WriteFailed` | `Failed` | the transport ends: nothing more can be received |
///
/// [`close_write`](Self::close_write), [`close_read`](Self::close_read), [`fail_write`](Self::fail_write) and
/// [`close`](Self::close) are the only transitions.
// `repr(u8)` puts the transport at the same offset in each variant and the state into its own byte. Otherwise every
// message would decode the state from the transport's discriminant. The failed states come last, so that one comparison
// finds them.
#[repr(u8)]
pub(super) enum TransportState {
    Open(Transport),
    /// This side has shut down its writing direction. The peer still sends.
    WriteClosed(Transport),
    /// The peer has ended its side after its close frame. Queued output is still written.
    ReadClosed(Transport),
    /// Both directions are shut down.
    BothClosed(Transport),
    /// The transport was closed normally.
    Closed,
    /// Writing has failed. Input that arrived before is still received. Boxed, so that the error does not enlarge other
    /// connections.
    WriteFailed(Box<(Transport, Error)>),
    /// The transport was closed because of this error.
    Failed(Error),
}

/// The transport of a closed connection, still to be shut down.
pub(super) struct ClosedTransport {
    pub(super) transport: Transport,
    pub(super) is_write_closed: bool,
}

impl TransportState {
    #[inline]
    pub(super) fn io(&self) -> Option<&Transport> {
        match self {
            Self::Open(io) | Self::WriteClosed(io) | Self::ReadClosed(io) | Self::BothClosed(io) => Some(io),
            Self::WriteFailed(failed) => Some(&failed.0),
            Self::Failed(_) | Self::Closed => None,
        }
    }

    /// The transport, unless writing to it has failed.
    #[inline]
    pub(super) fn writable(&mut self) -> Option<&mut Transport> {
        match self {
            Self::Open(io) | Self::WriteClosed(io) | Self::ReadClosed(io) | Self::BothClosed(io) => Some(io),
            Self::WriteFailed(..) | Self::Failed(_) | Self::Closed => None,
        }
    }

    /// The transport to read from, or `None` at its end. Pending if the peer has ended its side while output is queued.
    #[cold]
    pub(super) fn poll_readable(&mut self) -> Poll<Option<&mut Transport>> {
        match self {
            Self::Open(io) | Self::WriteClosed(io) => Poll::Ready(Some(io)),
            Self::WriteFailed(failed) => Poll::Ready(Some(&mut failed.0)),
            Self::ReadClosed(_) | Self::BothClosed(_) => Poll::Pending,
            Self::Closed | Self::Failed(_) => Poll::Ready(None),
        }
    }

    /// The transport, if its writing direction works and is not shut down.
    #[inline]
    pub(super) fn write_open(&mut self) -> Option<&mut Transport> {
        match self {
            Self::Open(io) | Self::ReadClosed(io) => Some(io),
            Self::WriteClosed(_) | Self::BothClosed(_) | Self::WriteFailed(..) | Self::Failed(_) | Self::Closed => None,
        }
    }

    /// Why the transport failed. `None` if it is open or was closed normally.
    #[inline]
    pub(super) fn failure(&self) -> Option<&Error> {
        match self {
            Self::WriteFailed(failed) => Some(&failed.1),
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Whether there is a [`failure`](Self::failure).
    #[inline]
    pub(super) fn has_failure(&self) -> bool {
        matches!(self, Self::WriteFailed(..) | Self::Failed(_))
    }

    #[inline]
    pub(super) fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    #[inline]
    pub(super) fn is_write_failed(&self) -> bool {
        matches!(self, Self::WriteFailed(..))
    }

    /// Whether the peer has ended its side while output was queued.
    #[inline]
    pub(super) fn is_read_closed(&self) -> bool {
        matches!(self, Self::ReadClosed(_) | Self::BothClosed(_))
    }

    /// Records that this side has shut down its writing direction.
    #[cold]
    pub(super) fn close_write(&mut self) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Open(io) => Self::WriteClosed(io),
            Self::ReadClosed(io) => Self::BothClosed(io),
            other => other,
        };
    }

    /// Records that the peer has ended its side.
    #[cold]
    pub(super) fn close_read(&mut self) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Open(io) => Self::ReadClosed(io),
            Self::WriteClosed(io) => Self::BothClosed(io),
            other => other,
        };
    }

    /// Records that a write has failed.
    #[cold]
    pub(super) fn fail_write(&mut self, error: Error) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Open(io) | Self::WriteClosed(io) | Self::ReadClosed(io) | Self::BothClosed(io) => {
                Self::WriteFailed(Box::new((io, error)))
            }
            other => other,
        };
    }

    /// Closes the transport. An earlier failure is kept; otherwise `error` becomes the failure.
    #[cold]
    pub(super) fn close(&mut self, error: Option<Error>) -> Option<ClosedTransport> {
        let failure = self.failure().cloned().or(error);
        let after = failure.map_or(Self::Closed, Self::Failed);
        let ended = |transport, is_write_closed| ClosedTransport {
            transport,
            is_write_closed,
        };
        match std::mem::replace(self, after) {
            Self::Open(io) | Self::ReadClosed(io) => Some(ended(io, false)),
            Self::WriteFailed(failed) => Some(ended(failed.0, false)),
            Self::WriteClosed(io) | Self::BothClosed(io) => Some(ended(io, true)),
            Self::Failed(_) | Self::Closed => None,
        }
    }

    /// Moves the transport with its state to another driver. This one keeps the failure.
    #[cold]
    pub(super) fn take(&mut self) -> Self {
        let after = self.failure().cloned().map_or(Self::Closed, Self::Failed);
        std::mem::replace(self, after)
    }
}

/// Whether the end was reported to the application.
///
/// `recv` reports the end again to a caller that ignores it, but lets other tasks run in between. A stream reports an
/// error once, then `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndStatus {
    NotReported,
    Reported {
        /// Whether other tasks have run since the last report.
        has_yielded: bool,
        /// Whether the end was an error that a stream has already returned.
        is_stream_terminated: bool,
    },
    /// No application is attached: a background task finishes the connection.
    Background,
}
