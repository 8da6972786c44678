//! The command queue of a split connection: commands of tasks that found it locked, for the lock holder.

use sockeye_proto::{CloseCode, CloseInfo};

use crate::endpoint::{DeferredQueue, WaiterId};
use crate::error::Error;
use crate::message::outbound::Outbound;
use crate::websocket::try_lock::EnqueueError;

/// The cost of a message in the command queue, in addition to its length.
pub(super) const COMMAND_OVERHEAD: usize = 64;

/// Boxed, because it is empty most of the time.
pub(super) type CommandQueue = Option<Box<CommandQueueState>>;

/// The commands of tasks that found the connection locked, and how the connection was closed.
#[derive(Debug, Default)]
pub(super) struct CommandQueueState {
    pub(super) commands: Vec<Command>,
    /// The total length of the messages and new reservations, plus [`COMMAND_OVERHEAD`] each, plus the part of messages
    /// beyond their permits.
    pub(super) len: usize,
    /// The total length of the messages for which capacity was already reserved.
    pub(super) reserved_len: usize,
    /// Whether one of the messages may be compressed in parts, so that nothing can be queued behind it.
    pub(super) is_blocked: bool,
    /// Messages of outboxes. Accepted before the commands are executed, because a command may close the connection.
    pub(super) deferred: DeferredQueue,
    pub(super) close_info: Option<CloseInfo>,
    /// The error of sending, once the connection has ended.
    pub(super) send_error: Option<Error>,
}

/// A command for the lock holder.
#[derive(Debug)]
pub(super) enum Command {
    Message(Outbound),
    /// A message for which this many bytes were reserved.
    PermitMessage(Outbound, usize),
    AddReservation(usize),
    ReleaseReservation(usize),
    CancelReserve(WaiterId),
    Close(CloseCode, Box<str>),
    /// A streamed message will not be finished.
    CloseUnfinishedMessage,
    Abort,
    /// Abort, unless the closing handshake has begun: the receiver was dropped.
    AbortIfOpen,
}

/// Why nothing was added to the command queue.
#[derive(Debug)]
pub(crate) enum NotQueued {
    /// The connection is no longer locked: lock it.
    Unlocked,
    /// The command queue cannot complete the operation: wait for the lock.
    NeedsLock,
    /// The command queue has no capacity, or its holder has closed it.
    Full,
    /// The connection is closed or lost.
    Closed(Error),
}

impl From<EnqueueError> for NotQueued {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Unlocked => Self::Unlocked,
            EnqueueError::Closed => Self::Full,
        }
    }
}
