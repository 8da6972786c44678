//! Reserved capacity in the send queue.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Error;
use crate::message::outbound::Outbound;
use crate::websocket::shared::Shared;
use crate::websocket::try_send::TrySendError;

/// Reserved capacity in the send queue of a connection for one message, made by
/// [`Sender::reserve`](crate::Sender::reserve) and [`Sender::try_reserve`](crate::Sender::try_reserve).
///
/// Dropping it releases the capacity. Costs one reference count. While a permit exists, the connection keeps about 300
/// bytes of state, and received messages take a slower path.
#[must_use = "dropping a permit releases its capacity"]
pub struct Permit {
    shared: Arc<Shared>,
    /// `None` once it is used.
    reserved: Option<usize>,
}

impl Permit {
    pub(super) fn new(shared: Arc<Shared>, reserved: usize) -> Self {
        Self {
            shared,
            reserved: Some(reserved),
        }
    }

    /// The number of reserved bytes.
    pub fn reserved_bytes(&self) -> usize {
        self.reserved.unwrap_or(0)
    }

    /// Queues a message without waiting, and schedules a flush as [`Sender::try_send`](crate::Sender::try_send) does.
    /// Room that the message does not need is released.
    ///
    /// If a large message is being compressed, this one follows it.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Closed`]: the connection is closed or lost. A message that was queued while another task used
    /// the connection is dropped if the connection closes first; the next [`flush`](crate::Sender::flush) reports that.
    ///
    /// A message of at most [`reserved_bytes`](Self::reserved_bytes) never fails with [`TrySendError::Full`]. A longer
    /// one does, if there is no capacity for the rest; the error returns it, and the reservation is released.
    pub fn send(mut self, message: impl Into<Outbound>) -> Result<(), TrySendError> {
        let reserved = self.reserved.take().unwrap_or(0);
        self.shared.send_with_permit(message.into(), reserved)
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("reserved_bytes", &self.reserved_bytes())
            .finish_non_exhaustive()
    }
}

/// Releases unused capacity.
impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            self.shared.release_reservation(reserved);
        }
    }
}

/// Error of [`Sender::try_reserve`](crate::Sender::try_reserve).
#[derive(Clone, Debug)]
pub enum TryReserveError {
    /// The queue has no capacity, a large message is being compressed, or other tasks wait for a reservation.
    #[non_exhaustive]
    Full {
        /// The number of bytes that wait to be written: see [`Sender::queued_bytes`](crate::Sender::queued_bytes).
        queued_bytes: usize,
        /// Since when the queue has been full: see [`TrySendError::Full`].
        since: Instant,
    },
    /// The connection is closed or lost.
    Closed(Error),
}

impl TryReserveError {
    /// Whether the queue was full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

impl fmt::Display for TryReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { queued_bytes: 0, .. } => {
                f.write_str("the send queue has no capacity to reserve: it is reserved for other messages")
            }
            Self::Full { queued_bytes, .. } => {
                write!(
                    f,
                    "the send queue has no capacity to reserve: {queued_bytes} bytes wait to be written"
                )
            }
            Self::Closed(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for TryReserveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full { .. } => None,
            Self::Closed(error) => error.source(),
        }
    }
}
