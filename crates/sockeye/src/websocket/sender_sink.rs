//! `Sink` for senders.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_sink::Sink;

use crate::endpoint::FlushTarget;
use crate::error::Error;
use crate::message::outbound::Outbound;
use crate::websocket::operation::needs_lock;
use crate::websocket::shared::Shared;
use crate::websocket::sink_state::SinkState;
use crate::websocket::split::Sender;
use crate::websocket::try_lock::QueueMode;
use crate::websocket::try_send::TrySendError;

impl Sender {
    fn sink_parts(&mut self) -> (&Arc<Shared>, &mut SinkState) {
        let state = self.sink.get_or_insert_with(|| Box::new(SinkState::new()));
        (&self.shared, state)
    }
}

/// Items are all types that convert into an [`Outbound`]. `poll_ready` waits while the queue exceeds
/// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max). `SinkExt::close` sends a close frame with 1000 after
/// everything queued and flushes it, but does not wait for the peer's. Methods of [`Sender`] take precedence over those
/// of `SinkExt`.
///
/// # Errors
///
/// The connection is closed or lost, or the peer reads too slowly: see [`Sender::send`]. If `start_send` is called
/// without a ready `poll_ready`, it may fail with an error for which [`Error::is_invalid_input`] is true; that message
/// is not sent, and the connection stays open.
///
/// # Cancel safety
///
/// If another sender used up the capacity, `start_send` stores the message, and the next `poll_ready`, `poll_flush` or
/// `poll_close` queues it. It is lost if this sender is dropped. Clones do not share it.
impl<T: Into<Outbound>> Sink<T> for Sender {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let (shared, state) = self.sink_parts();
        ready!(state.poll_unsent(shared, cx))?;
        shared.poll(&mut state.slot, cx, QueueMode::Open, needs_lock, |guard, cx| {
            guard.driver.poll_capacity_for(cx, 0)
        })
    }

    fn start_send(mut self: Pin<&mut Self>, message: T) -> Result<(), Error> {
        // A second message would replace or overtake the first.
        if self.sink.as_ref().is_some_and(|state| state.unsent.is_some()) {
            return Err(Error::invalid_input(NotReady));
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
            // An earlier flush does not include the close frame.
            state.flush_end = FlushTarget::default();
        }
        state.poll_flush_queued(shared, cx)
    }
}

/// Error of `start_send` while an earlier message still waits for capacity.
#[derive(Debug)]
struct NotReady;

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sink is not ready: an earlier message waits, so call poll_ready before start_send")
    }
}

impl std::error::Error for NotReady {}
