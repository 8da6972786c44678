//! The inbox of a split connection: commands of tasks that found it locked.

use sockeye_proto::{CloseCode, CloseInfo};

use crate::endpoint::{DeferredQueue, Ticket};
use crate::error::Error;
use crate::message::outbound::Outbound;

/// The cost of a message in the inbox, in addition to its length.
pub(super) const COMMAND_COST: usize = 64;

/// Boxed, because it is empty most of the time.
pub(super) type Inbox = Option<Box<InboxState>>;

/// The commands of tasks that found the connection locked, and how the connection was closed.
#[derive(Debug, Default)]
pub(super) struct InboxState {
    pub(super) commands: Vec<Command>,
    /// The total length of the messages and new reservations, plus [`COMMAND_COST`] for each, and what messages exceed
    /// their permits by.
    pub(super) len: usize,
    /// The total length of the messages for which room was already reserved.
    pub(super) reserved_len: usize,
    /// Whether one of the messages may be compressed in parts, so that nothing can be queued behind it.
    pub(super) is_full: bool,
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
    ReservedMessage(Outbound, usize),
    Reserve(usize),
    Release(usize),
    LeaveLine(Ticket),
    Close(CloseCode, Box<str>),
    Abort,
}

/// Why nothing was put into the inbox.
#[derive(Debug)]
pub(crate) enum NotQueued {
    /// The connection is no longer locked: lock it.
    Unlocked,
    /// The inbox has no room.
    Full,
    /// The connection is closed or lost.
    Closed(Error),
}
