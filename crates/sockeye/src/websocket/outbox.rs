//! `Outbox`: a sender with a policy for a full send queue.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, ready};

use sockeye_proto::CloseCode;

use crate::endpoint::DeferredMessage;
use crate::error::{Error, Kind};
use crate::message::outbound::Outbound;
use crate::websocket::operation::Operation;
use crate::websocket::split::Sender;
use crate::websocket::try_send::TrySendError;

/// What an [`Outbox`] does with a message for which the send queue has no capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// Wait until there is capacity.
    Wait,
    /// Drop the new message.
    DropNewest,
    /// Drop the oldest messages of outboxes with this policy that are not encoded yet, until there is capacity. The new
    /// message is always accepted.
    DropOldest,
    /// Close the connection with 1013 ([`CloseCode::TRY_AGAIN_LATER`]) after everything queued. The new message is
    /// dropped.
    Close,
}

/// A sender that handles a full queue as its [`Overflow`] policy says, so that its [`send`](Self::send) has only one
/// kind of error: the connection is closed or lost. Made by [`Sender::with_overflow`].
///
/// Only whole messages are dropped, and never a ping, a pong or a close frame.
///
/// With [`DropOldest`](Overflow::DropOldest), at most about 64 KiB are encoded ahead of the transport; later messages
/// stay unencoded, so that they can still be dropped. They take up to
/// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max) bytes, or one larger message, in addition to the
/// encoded ones. With [`DropNewest`](Overflow::DropNewest) and [`Close`](Overflow::Close), messages are encoded
/// immediately, unless a large message is being compressed, a task waits for a reservation, or other messages are still
/// unencoded; encoded and unencoded messages share the limit. Messages of the [`Sender`] may overtake unencoded ones;
/// those of one outbox keep their order.
///
/// Clones send on the same connection and share the count of [`dropped`](Self::dropped) messages.
///
/// Costs 16 bytes more than a sender and one allocation. While the connection is not busy, a message costs the same as
/// with [`Sender::try_send`].
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: Sender,
    overflow: Overflow,
    dropped: Arc<AtomicU64>,
}

impl Sender {
    /// Converts the sender into an [`Outbox`], which handles a full queue according to `overflow`.
    #[must_use]
    pub fn with_overflow(self, overflow: Overflow) -> Outbox {
        Outbox::new(self, overflow)
    }
}

impl Outbox {
    pub(super) fn new(sender: Sender, overflow: Overflow) -> Self {
        Self {
            sender,
            overflow,
            dropped: Arc::default(),
        }
    }

    /// Queues a message, and schedules a flush as [`Sender::try_send`] does. If the queue is full, does what the policy
    /// says. Waits only with [`Overflow::Wait`]; with any other policy, the future is ready when it is first polled.
    ///
    /// `Ok` does not mean that the message was queued: [`dropped`](Self::dropped) counts the ones that were not.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost. With [`Overflow::Close`], this includes the call that closes the connection.
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent.
    pub async fn send(&self, message: impl Into<Outbound>) -> Result<(), Error> {
        let message = message.into();
        match self.overflow {
            Overflow::Wait => self.send_when_capacity(&message).await,
            _ => self.queue(message),
        }
    }

    /// Queues a message without waiting, as [`send`](Self::send) does: for code that is not async, or that holds a
    /// lock.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Closed`]: as the error of [`send`](Self::send). [`TrySendError::Full`]: the queue is full, and the
    /// policy is [`Overflow::Wait`]; no other policy returns it.
    pub fn try_send(&self, message: impl Into<Outbound>) -> Result<(), TrySendError> {
        match self.overflow {
            Overflow::Wait => self.sender.try_send(message),
            _ => self.queue(message.into()).map_err(TrySendError::Closed),
        }
    }

    /// Queues a message, or does what the policy says, which is not [`Overflow::Wait`].
    fn queue(&self, message: Outbound) -> Result<(), Error> {
        let drop_count = (self.overflow == Overflow::DropOldest).then(|| self.dropped.clone());
        if self
            .sender
            .shared
            .queue_or_defer(DeferredMessage::new(message, drop_count))?
        {
            return Ok(());
        }
        self.dropped.fetch_add(1, Relaxed);
        if self.overflow == Overflow::Close {
            self.sender.shared.start_close(CloseCode::TRY_AGAIN_LATER, "");
            return Err(Error::new(Kind::Overflow));
        }
        Ok(())
    }

    async fn send_when_capacity(&self, message: &Outbound) -> Result<(), Error> {
        let mut operation = Operation::new(&self.sender.shared);
        poll_fn(|cx| {
            operation.poll_queue_with(cx, message, |guard, cx| {
                ready!(guard.driver.poll_feed(cx, message))?;
                guard.request_flush();
                Poll::Ready(Ok(()))
            })
        })
        .await
    }

    /// The number of messages of this outbox and its clones that were dropped because the queue was full. Messages that
    /// were lost with the connection are not counted.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// What happens to a message for which the queue has no capacity.
    pub fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// The sender, for everything else: pings, closing, [`queued_bytes`](Sender::queued_bytes).
    pub fn sender(&self) -> &Sender {
        &self.sender
    }
}
