//! A sender as a `Sink`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_sink::Sink;
use sockeye_proto::{CloseCode, Compress};

use crate::endpoint::FlushEnd;
use crate::error::Error;
use crate::message::Message;
use crate::message::outbound::OutboundMessage;
use crate::websocket::TrySendError;
use crate::websocket::shared::{Framed, QueuedCommand, wait_for_lock};
use crate::websocket::split::Sender;
use crate::websocket::try_lock::InboxMode;
use crate::websocket::wakers::SlotKey;

/// A [`Sender`] as a [`Sink`], made by [`Sender::into_sink`].
///
/// `poll_ready` waits while more than [`Limits::write_buffer_max`](crate::Limits::write_buffer_max) would be queued. `close`
/// sends the close frame with 1000 after everything queued, and flushes it; it does not wait for the peer's.
///
/// # Errors
///
/// The connection is closed or lost, or the peer reads too slowly: see [`Sender::send`]. `start_send` without a `poll_ready`
/// that was ready may fail with an error of which [`Error::is_misuse`] is true; then this message is not sent, and the
/// connection goes on.
///
/// # Cancel safety
///
/// If another sender used up the capacity, `start_send` keeps the message; the next `poll_ready`, `poll_flush` or
/// `poll_close` queues it. Dropping the sink loses it.
#[derive(Debug)]
pub struct SenderSink {
    sender: Sender,
    slot: SlotKey,
    /// A message that found no room.
    unsent: Option<Message>,
    /// How far the flush goes that is under way.
    flush_end: FlushEnd,
    is_closing: bool,
}

impl SenderSink {
    pub(crate) fn new(sender: Sender) -> Self {
        Self {
            sender,
            slot: SlotKey::operation(),
            unsent: None,
            flush_end: FlushEnd::default(),
            is_closing: false,
        }
    }

    /// The sender, for its other methods.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Queues the message that found no room.
    fn poll_unsent(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let Some(message) = self.unsent.take() else {
            return Poll::Ready(Ok(()));
        };
        let outgoing = OutboundMessage::new(message, Compress::Auto);
        let shared = self.sender.shared();
        let command = || QueuedCommand::Message(outgoing.to_message(), Compress::Auto);
        let enqueue = || shared.try_enqueue(outgoing.len(), command).map(Ok);
        let inbox_mode = shared.inbox_mode_for(outgoing.len(), Framed::OnEnqueue);
        let polled = shared.poll(&mut self.slot, cx, inbox_mode, enqueue, |guard, cx| {
            guard.driver.poll_feed(cx, &outgoing)
        });
        if polled.is_pending() {
            self.unsent = Some(outgoing.to_message());
        }
        polled
    }

    fn poll_flush_queued(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let (end, shared) = (&mut self.flush_end, self.sender.shared());
        // A message in the inbox would come behind the close frame.
        let inbox_mode = match self.is_closing {
            true => InboxMode::Closed,
            false => InboxMode::Open,
        };
        let flushed = shared.poll(&mut self.slot, cx, inbox_mode, wait_for_lock, |guard, cx| {
            if self.is_closing {
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

impl Sink<Message> for SenderSink {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_unsent(cx))?;
        let this = &mut *self;
        let shared = this.sender.shared();
        shared.poll(&mut this.slot, cx, InboxMode::Open, wait_for_lock, |guard, cx| {
            guard.driver.poll_room_for(cx, 0)
        })
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        // A second message would replace it, or overtake it.
        if self.unsent.is_some() {
            return Err(Error::misuse(NotReady));
        }
        match self.sender.try_feed(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(message)) => {
                self.unsent = Some(message);
                Ok(())
            }
            Err(TrySendError::Closed(error)) => Err(error),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_unsent(cx))?;
        self.poll_flush_queued(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.is_closing {
            ready!(self.poll_unsent(cx))?;
            self.is_closing = true;
            // An earlier flush does not go as far as the close frame.
            self.flush_end = FlushEnd::default();
        }
        self.poll_flush_queued(cx)
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

impl Drop for SenderSink {
    fn drop(&mut self) {
        self.sender.shared().release(&mut self.slot);
    }
}
