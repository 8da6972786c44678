//! Queueing without waiting, and its errors.

use std::fmt;
use std::time::Instant;

use crate::endpoint::Driver;
use crate::error::Error;
use crate::message::outbound::Outbound;

/// Error of `try_send`: the message was not queued.
#[derive(Clone, Debug)]
pub enum TrySendError {
    /// The queue is full, or a large message is being compressed.
    #[non_exhaustive]
    Full {
        /// The message that was not queued.
        message: Outbound,
        /// The number of bytes that wait to be written: see [`Sender::queued_bytes`](crate::Sender::queued_bytes).
        queued_bytes: usize,
        /// When the queue became full: the time of the first message that was rejected or delayed, with a resolution of
        /// one millisecond. Reset when a message is accepted or the queue is empty.
        since: Instant,
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
            Self::Full { queued_bytes: 0, .. } => f.write_str("the send queue is reserved for other messages"),
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

/// Error of [`Sender::try_send_all`](crate::Sender::try_send_all): not all messages were queued.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrySendAllError {
    /// The number of messages that were queued.
    pub queued: usize,
    /// Why the next message was not queued.
    pub cause: TrySendError,
}

impl fmt::Display for TrySendAllError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "only {} messages were queued: {}", self.queued, self.cause)
    }
}

impl std::error::Error for TrySendAllError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

/// Queues a message if there is capacity.
pub(crate) fn try_send(driver: &mut Driver, message: Outbound) -> Result<(), TrySendError> {
    if driver.has_capacity_for(message.len()) {
        let queued = driver.queue(&message).map_err(TrySendError::Closed);
        driver.clear_queue_full();
        return queued;
    }
    Err(TrySendError::Full {
        message,
        queued_bytes: driver.queued_len(),
        since: driver.record_queue_full(),
    })
}
