//! Sending without waiting, and its error.

use std::fmt;

use sockeye_proto::{CloseCause, CloseInfo, Side};

use crate::browser::connection::Connection;
use crate::error::{Error, Kind};
use crate::message::outbound::Outbound;

/// Error of `try_send`: the message was not sent.
#[derive(Clone, Debug)]
pub enum TrySendError {
    /// More bytes than [`Limits::write_buffer_max`](crate::Limits::write_buffer_max) would wait in the browser.
    #[non_exhaustive]
    Full {
        /// The message that was not sent.
        message: Outbound,
        /// The number of bytes that wait in the browser: see [`Sender::queued_bytes`](crate::Sender::queued_bytes).
        queued_bytes: usize,
    },
    /// The connection is closed or lost.
    Closed(Error),
}

impl TrySendError {
    /// Whether the queue was full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { queued_bytes, .. } => {
                write!(f, "the send queue is full: {queued_bytes} bytes wait to be written")
            }
            Self::Closed(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for TrySendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full { .. } => None,
            Self::Closed(error) => error.source(),
        }
    }
}

/// Gives a message to the browser if there is room.
pub(crate) fn try_send(connection: &Connection, message: Outbound) -> Result<(), TrySendError> {
    if let Some(error) = connection.state().send_error() {
        return Err(TrySendError::Closed(error));
    }
    if !connection.takes_messages() {
        // The peer is closing. The browser reports its close frame later.
        let close_info = CloseInfo::from_parts(Side::Peer, CloseCause::Peer, None, None);
        return Err(TrySendError::Closed(Error::new(Kind::Closed(close_info))));
    }
    if !connection.has_room_for(message.len()) {
        let queued_bytes = connection.queued_bytes();
        return Err(TrySendError::Full { message, queued_bytes });
    }
    connection.give(&message).map_err(TrySendError::Closed)
}
