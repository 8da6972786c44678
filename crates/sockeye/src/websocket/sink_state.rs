//! State of a sender used as a `Sink`.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sockeye_proto::CloseCode;

use crate::endpoint::FlushTarget;
use crate::error::Error;
use crate::message::outbound::Outbound;
use crate::websocket::operation::needs_lock;
use crate::websocket::shared::Shared;
use crate::websocket::try_lock::QueueMode;
use crate::websocket::wakers::SlotKey;

/// The state of a sender that is used as a [`Sink`](futures_sink::Sink).
#[derive(Debug)]
pub(crate) struct SinkState {
    pub(super) slot: SlotKey,
    /// A message that `start_send` could not queue.
    pub(super) unsent: Option<Outbound>,
    /// The end of the flush in progress.
    pub(super) flush_end: FlushTarget,
    pub(super) is_closing: bool,
}

impl SinkState {
    pub(super) fn new() -> Self {
        Self {
            slot: SlotKey::operation(),
            unsent: None,
            flush_end: FlushTarget::default(),
            is_closing: false,
        }
    }

    /// Drops the waker of the task that uses the sink.
    pub(crate) fn release(&mut self, shared: &Shared) {
        shared.release(&mut self.slot);
    }

    /// Queues the message that `start_send` could not queue.
    pub(super) fn poll_unsent(&mut self, shared: &Arc<Shared>, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let Some(message) = &self.unsent else {
            return Poll::Ready(Ok(()));
        };
        let queued = ready!(shared.poll_queue(&mut self.slot, cx, message));
        self.unsent = None;
        Poll::Ready(queued)
    }

    pub(super) fn poll_flush_queued(&mut self, shared: &Arc<Shared>, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let (end, is_closing) = (&mut self.flush_end, self.is_closing);
        // A message in the command queue would be queued behind the close frame.
        let queue_mode = match is_closing {
            true => QueueMode::Closed,
            false => QueueMode::Open,
        };
        let flushed = shared.poll(&mut self.slot, cx, queue_mode, needs_lock, |guard, cx| {
            if is_closing {
                // Has no effect after the first call.
                guard.driver.start_close(CloseCode::NORMAL, "")?;
            }
            guard.driver.poll_flush_to(cx, end)
        });
        if flushed.is_ready() {
            self.flush_end = FlushTarget::default();
        }
        flushed
    }
}
