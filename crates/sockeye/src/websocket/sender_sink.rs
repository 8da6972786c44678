//! A sender as a `Sink`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_sink::Sink;
use sockeye_proto::CloseCode;

use crate::endpoint::FlushEnd;
use crate::error::Error;
use crate::message::outbound::Outbound;
use crate::websocket::shared::{Shared, wait_for_lock};
use crate::websocket::split::Sender;
use crate::websocket::try_lock::InboxMode;
use crate::websocket::try_send::TrySendError;
use crate::websocket::wakers::SlotKey;

/// The state of a sender that is used as a [`Sink`].
#[derive(Debug)]
pub(crate) struct SinkState {
    slot: SlotKey,
    /// A message that found no room.
    unsent: Option<Outbound>,
    /// How far the flush goes that is under way.
    flush_end: FlushEnd,
    is_closing: bool,
}

impl SinkState {
    fn new() -> Self {
        Self {
            slot: SlotKey::operation(),
            unsent: None,
            flush_end: FlushEnd::default(),
            is_closing: false,
        }
    }

    /// Drops the waker of the task that uses the sink.
    pub(crate) fn release(&mut self, shared: &Shared) {
        shared.release(&mut self.slot);
    }

    /// Queues the message that found no room.
    fn poll_unsent(&mut self, shared: &Arc<Shared>, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let Some(message) = &self.unsent else {
            return Poll::Ready(Ok(()));
        };
        let queued = ready!(shared.poll_queue(&mut self.slot, cx, message));
        self.unsent = None;
        Poll::Ready(queued)
    }

    fn poll_flush_queued(&mut self, shared: &Arc<Shared>, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let (end, is_closing) = (&mut self.flush_end, self.is_closing);
        // A message in the inbox would come behind the close frame.
        let inbox_mode = match is_closing {
            true => InboxMode::Closed,
            false => InboxMode::Open,
        };
        let flushed = shared.poll(&mut self.slot, cx, inbox_mode, wait_for_lock, |guard, cx| {
            if is_closing {
                // Does nothing if it was called before.
                guard.driver.start_close(CloseCode::NORMAL, "")?;
            }
            guard.driver.poll_flush_to(cx, end)
        });
        if flushed.is_ready() {
            self.flush_end = FlushEnd::default();
        }
        flushed
    }
}

impl Sender {
    fn sink_parts(&mut self) -> (&Arc<Shared>, &mut SinkState) {
        let state = self.sink.get_or_insert_with(|| Box::new(SinkState::new()));
        (&self.shared, state)
    }
}

/// The items are everything that converts into an [`Outbound`]. `poll_ready` waits while more than
/// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max) would be queued. `SinkExt::close` sends the close frame with
/// 1000 after everything queued, and flushes it; it does not wait for the peer's. Methods of [`Sender`] have precedence over
/// those of `SinkExt`.
///
/// # Errors
///
/// The connection is closed or lost, or the peer reads too slowly: see [`Sender::send`]. `start_send` without a `poll_ready`
/// that was ready may fail with an error of which [`Error::is_invalid_input`] is true; then this message is not sent, and the
/// connection goes on.
///
/// # Cancel safety
///
/// If another sender used up the capacity, `start_send` keeps the message; the next `poll_ready`, `poll_flush` or
/// `poll_close` queues it. Dropping this sender loses it. A clone does not have it.
impl<T: Into<Outbound>> Sink<T> for Sender {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let (shared, state) = self.sink_parts();
        ready!(state.poll_unsent(shared, cx))?;
        shared.poll(&mut state.slot, cx, InboxMode::Open, wait_for_lock, |guard, cx| {
            guard.driver.poll_room_for(cx, 0)
        })
    }

    fn start_send(mut self: Pin<&mut Self>, message: T) -> Result<(), Error> {
        // A second message would replace it, or overtake it.
        if self.sink.as_ref().is_some_and(|state| state.unsent.is_some()) {
            return Err(Error::misuse(NotReady));
        }
        match self.try_feed(message.into()) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full { message, .. }) => {
                self.sink_parts().1.unsent = Some(message);
                Ok(())
            }
            Err(TrySendError::Closed(error)) => Err(error),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let (shared, state) = self.sink_parts();
        ready!(state.poll_unsent(shared, cx))?;
        state.poll_flush_queued(shared, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let (shared, state) = self.sink_parts();
        if !state.is_closing {
            ready!(state.poll_unsent(shared, cx))?;
            state.is_closing = true;
            // An earlier flush does not go as far as the close frame.
            state.flush_end = FlushEnd::default();
        }
        state.poll_flush_queued(shared, cx)
    }
}

/// `start_send` was called while an earlier message still waits for capacity.
#[derive(Debug)]
struct NotReady;

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sink is not ready: an earlier message waits, so call poll_ready before start_send")
    }
}

impl std::error::Error for NotReady {}
