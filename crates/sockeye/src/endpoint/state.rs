//! The states of a connection's transport, and how much of its end the application has seen.

use std::task::Poll;

use crate::error::Error;
use crate::transport::Transport;

/// The state of the transport.
///
/// | from | to | when |
/// |---|---|---|
/// | `Open` | `WriteClosed` | the protocol wants this side closed, and everything is written |
/// | `Open` | `ReadClosed` | the peer ends its side after its close frame, and output still waits |
/// | `ReadClosed` | `BothClosed` | as from `Open` to `WriteClosed` |
/// | any of the four | `WriteFailed` | a write fails |
/// | any of the four | `Closed` | the connection ends in order, or is taken over by a background task |
/// | any of the four | `Failed` | a read fails, or a deadline passes |
/// | `WriteFailed` | `Failed` | the transport ends: nothing more can be received |
///
/// [`close_write`](Self::close_write), [`close_read`](Self::close_read), [`fail_write`](Self::fail_write) and
/// [`close`](Self::close) are the only transitions.
// `repr(u8)` puts the transport at the same offset in each variant and the state into a byte of its own. Otherwise the state is
// decoded from the transport's own discriminant for every message. The failed states come last, so that one comparison finds
// them.
#[repr(u8)]
pub(super) enum TransportState {
    Open(Transport),
    /// This side has shut down its writing direction. The peer still sends.
    WriteClosed(Transport),
    /// The peer has ended its side after its close frame. The output that remains is still written.
    ReadClosed(Transport),
    /// Both directions are shut down.
    BothClosed(Transport),
    /// There is no transport any more, by the protocol's own doing.
    Closed,
    /// Writing has failed. What had arrived before is still received.
    /// Boxed, so that the error takes no memory of other connections.
    WriteFailed(Box<(Transport, Error)>),
    /// There is no transport any more, because of this error.
    Failed(Error),
}

/// A transport that was taken out of its state.
pub(super) struct Ended {
    pub(super) transport: Transport,
    pub(super) is_write_closed: bool,
}

impl TransportState {
    #[inline]
    pub(super) fn transport(&self) -> Option<&Transport> {
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

    /// The transport to read from, or `None` at its end. Pending if the peer has ended its side and output still waits.
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

    /// Why the transport is gone or cannot be written to, if not by the protocol's own doing.
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

    /// Whether the peer has ended its side and output still waited then.
    #[inline]
    pub(super) fn is_read_closed(&self) -> bool {
        matches!(self, Self::ReadClosed(_) | Self::BothClosed(_))
    }

    /// This side has shut down its writing direction.
    #[cold]
    pub(super) fn close_write(&mut self) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Open(io) => Self::WriteClosed(io),
            Self::ReadClosed(io) => Self::BothClosed(io),
            other => other,
        };
    }

    /// The peer has ended its side.
    #[cold]
    pub(super) fn close_read(&mut self) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Open(io) => Self::ReadClosed(io),
            Self::WriteClosed(io) => Self::BothClosed(io),
            other => other,
        };
    }

    /// A write has failed.
    #[cold]
    pub(super) fn fail_write(&mut self, error: Error) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Open(io) | Self::WriteClosed(io) | Self::ReadClosed(io) | Self::BothClosed(io) => {
                Self::WriteFailed(Box::new((io, error)))
            }
            other => other,
        };
    }

    /// Gives up the transport. An earlier failure stays; otherwise `error` is the failure, if there is one.
    #[cold]
    pub(super) fn close(&mut self, error: Option<Error>) -> Option<Ended> {
        let failure = self.failure().cloned().or(error);
        let after = failure.map_or(Self::Closed, Self::Failed);
        let ended = |transport, is_write_closed| Ended {
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

    /// Moves the transport, in its state, to another driver. This one keeps the failure.
    #[cold]
    pub(super) fn take(&mut self) -> Self {
        let after = self.failure().cloned().map_or(Self::Closed, Self::Failed);
        std::mem::replace(self, after)
    }
}

/// How much of the end the application has seen.
///
/// `recv` reports the end again to a caller that overlooks it, but lets other tasks run in between. A stream reports an error
/// once, then `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReport {
    NotReturned,
    Returned {
        /// Whether other tasks have run since.
        has_yielded: bool,
        /// Whether it was an error, which a stream has returned.
        is_stream_over: bool,
    },
    /// This driver finishes the connection in the background. It has no application.
    Background,
}

/// What the other operations on a connection must know: each pending operation waits with an earlier deadline, for the
/// transport, or for messages that were received ahead. A set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakeState(u8);

impl WakeState {
    /// Messages can be sent.
    pub(crate) const OPEN: u8 = 1;
    /// What an operation waits for may never come: the transport has ended, or it cannot be written to.
    pub(crate) const LOST: u8 = 1 << 1;
    /// There is a transport: it is neither closed nor left to the background.
    pub(crate) const TRANSPORT: u8 = 1 << 2;
    /// A sender that waited has received messages ahead of the receiver.
    pub(crate) const READ_AHEAD: u8 = 1 << 3;

    const ALL: u8 = Self::OPEN | Self::LOST | Self::TRANSPORT | Self::READ_AHEAD;

    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL)
    }

    #[inline]
    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    /// Whether every pending operation must be polled again, because the state was `before` when it was polled last.
    #[inline]
    pub(crate) fn must_wake_since(self, before: Self) -> bool {
        let is_new_end = (self.0 ^ before.0) & (Self::OPEN | Self::LOST | Self::TRANSPORT) != 0;
        let is_new_read_ahead = self.0 & !before.0 & Self::READ_AHEAD != 0;
        is_new_end || is_new_read_ahead
    }
}
