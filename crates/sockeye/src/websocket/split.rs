//! One connection, several tasks.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use sockeye_proto::{CloseCode, CloseInfo, Compress};

use crate::endpoint::{Driver, FlushEnd};
use crate::error::Error;
use crate::message::Message;
use crate::message::outbound::OutboundMessage;
use crate::message::prepared::PreparedMessage;
use crate::websocket::sender_sink::SenderSink;
use crate::websocket::shared::{ConnectionGuard, Framed, NotQueued, Operation, QueuedCommand, Shared, wait_for_lock};
use crate::websocket::try_lock::InboxMode;
use crate::websocket::wakers::SlotKey;
use crate::websocket::{TrySendAllError, TrySendError, try_send, try_send_prepared};

/// Sends on a connection that was [split](crate::WebSocket::split). Clones send on the same connection, and whole
/// messages never mix.
///
/// Nothing is read and no deadline is watched unless the [`Receiver`] is polled: without it, pings of the peer stay
/// unanswered and a peer that is gone is not noticed.
///
/// Its futures are cancel-safe as those of [`WebSocket`](crate::WebSocket) are.
#[derive(Clone, Debug)]
pub struct Sender {
    shared: Arc<Shared>,
}

/// Receives on a connection that was [split](crate::WebSocket::split).
///
/// Pings are answered and the peer's silence is noticed while [`recv`](Self::recv) is being awaited. The connection
/// stays as long as the receiver or any sender does; without the receiver nothing is read any more.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    slot: SlotKey,
    /// Whether the connection knows the runtime on which this receives.
    has_runtime: bool,
}

pub(crate) fn split(driver: Driver, subprotocol: Option<Box<str>>) -> (Sender, Receiver) {
    let shared = Shared::new(driver, subprotocol);
    let sender = Sender { shared: shared.clone() };
    let receiver = Receiver {
        shared,
        slot: SlotKey::receiver(),
        has_runtime: false,
    };
    (sender, receiver)
}

impl Sender {
    /// Sends a message; returns when its bytes, and those of all before it, are with the kernel.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued one leaves whole, with the next call.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Queues a message; waits only while it would go beyond [`Limits::write_buffer_max`](crate::Limits::write_buffer_max),
    /// or while an earlier one is being compressed: see [`WebSocket::feed`](crate::WebSocket::feed).
    /// It leaves with [`flush`](Self::flush), or when [`Receiver::recv`] is next polled; [`try_send`](Self::try_send) has
    /// that done at once.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued one leaves whole, with the next call.
    pub fn feed(&self, message: impl Into<Message>) -> impl Future<Output = Result<(), Error>> {
        self.feed_with(message, Compress::Auto)
    }

    /// Queues a message, and says whether to compress it where compression was negotiated. Waits only for room: see
    /// [`feed`](Self::feed).
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued one leaves whole, with the next call.
    pub fn feed_with(
        &self,
        message: impl Into<Message>,
        compress: Compress,
    ) -> impl Future<Output = Result<(), Error>> {
        let message = OutboundMessage::new(message.into(), compress);
        let mut operation = Operation::new(&self.shared);
        poll_fn(move |cx| {
            operation.poll_queue(
                cx,
                (message.len(), Framed::OnEnqueue),
                |driver, cx| driver.poll_feed(cx, &message),
                || QueuedCommand::Message(message.to_message(), compress),
            )
        })
    }

    /// Sends a prepared message, which other connections are sent too; returns when its bytes are with the kernel: see
    /// [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued one leaves whole, with the next call.
    pub async fn send_prepared(&self, prepared: &PreparedMessage) -> Result<(), Error> {
        self.feed_prepared(prepared).await?;
        self.flush().await
    }

    /// Queues a prepared message, which other connections are sent too. Waits only for room: see [`feed`](Self::feed).
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued one leaves whole, with the next call.
    pub async fn feed_prepared(&self, prepared: &PreparedMessage) -> Result<(), Error> {
        let mut operation = Operation::new(&self.shared);
        poll_fn(|cx| {
            operation.poll_queue(
                cx,
                (prepared.message().len(), Framed::InAdvance),
                |driver, cx| driver.poll_feed_prepared(cx, prepared),
                || QueuedCommand::PreparedMessage(prepared.clone()),
            )
        })
        .await
    }

    /// Hands to the kernel everything that is queued by now; what other senders queue meanwhile may stay behind.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn flush(&self) -> Result<(), Error> {
        let mut end = FlushEnd::default();
        let mut operation = Operation::new(&self.shared);
        poll_fn(|cx| operation.poll(cx, |driver, cx| driver.poll_flush_to(cx, &mut end))).await
    }

    /// Queues a message if there is room for it now, and never waits. There is no room while a large message is being
    /// compressed.
    ///
    /// A background task on the receiver's runtime (before the first `recv`: the runtime on which the connection was split)
    /// flushes it, batched with everything queued until the calling task yields. Outside a runtime, the receiver flushes.
    /// The rest is written while [`Receiver::recv`] is awaited.
    ///
    /// If the connection is in use, the message goes to its inbox, limited by the free space at that moment; up to twice
    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max) can be queued briefly.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] gives the message back. [`TrySendError::Closed`]: the connection is closed or lost. A message
    /// that went to the inbox is dropped if the connection closes first; the next [`flush`](Self::flush) reports that.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        self.try_queue(message.into(), |guard| guard.request_flush())
    }

    /// Queues a prepared message if there is room for it now, and never waits: what a broadcast calls for each of its
    /// receivers. A background task flushes it, as with [`try_send`](Self::try_send). The call may compress the message: see
    /// [`PreparedMessage`]. For several messages at once, [`try_send_all`](Self::try_send_all) costs less.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] gives the message back. [`TrySendError::Closed`]: the connection is closed or lost. A message
    /// that went to the inbox is dropped if the connection closes first; the next [`flush`](Self::flush) reports that.
    pub fn try_send_prepared(&self, prepared: &PreparedMessage) -> Result<(), TrySendError> {
        let len = prepared.message().len();
        loop {
            if let Some(mut guard) = self.shared.try_lock(self.shared.inbox_mode_for(len, Framed::InAdvance)) {
                try_send_prepared(&mut guard.driver, prepared)?;
                guard.request_flush();
                return Ok(());
            }
            match self.try_enqueue_prepared(prepared) {
                Err(NotQueued::Unlocked) => {}
                Err(not_queued) => return Err(not_queued.into_error(prepared.message())),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Queues several prepared messages if there is room for them now, and writes at once what the kernel takes of them and
    /// of everything queued before. Never waits. The cheapest broadcast if all messages are at hand.
    ///
    /// A call is a system call as a rule, some 5 us; with thousands of receivers, let other tasks run now and then. Messages
    /// of other senders come between only where these do not fit the write buffer together. On another runtime than that of
    /// the [`Receiver`], or outside of one, the messages leave as with `try_send_prepared`.
    ///
    /// # Errors
    ///
    /// [`TrySendAllError`] says how many were queued, of which some may have left, and why the next was not: no room, or the
    /// connection is closed or lost ([`TrySendError`]).
    pub fn try_send_all(&self, messages: &[PreparedMessage]) -> Result<(), TrySendAllError> {
        let mut queued = 0;
        loop {
            let len_max = messages[queued..].iter().map(|message| message.message().len()).max();
            let Some(mut guard) = self
                .shared
                .try_lock(self.shared.inbox_mode_for(len_max.unwrap_or(0), Framed::InAdvance))
            else {
                match self.try_enqueue_all(messages, &mut queued) {
                    Ok(()) => return Ok(()),
                    Err(NotQueued::Unlocked) => continue,
                    Err(not_queued) => {
                        let cause = not_queued.into_error(messages[queued].message());
                        return Err(TrySendAllError { queued, cause });
                    }
                }
            };
            let stopped = messages[queued..].iter().find_map(|message| {
                let sent = try_send_prepared(&mut guard.driver, message);
                queued += usize::from(sent.is_ok());
                sent.err()
            });
            let has_made_room = guard.flush_or_request();
            match stopped {
                Some(TrySendError::Full(_)) if has_made_room => {}
                Some(cause) => return Err(TrySendAllError { queued, cause }),
                None => return Ok(()),
            }
        }
    }

    /// The sender as a [`Sink`](futures_sink::Sink).
    pub fn into_sink(self) -> SenderSink {
        SenderSink::new(self)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Queues a message without a flush, unless it is left to the task that uses the connection.
    pub(crate) fn try_feed(&self, message: Message) -> Result<(), TrySendError> {
        self.try_queue(message, |_| {})
    }

    fn try_queue(&self, message: Message, then: impl FnOnce(&mut ConnectionGuard<'_>)) -> Result<(), TrySendError> {
        loop {
            if let Some(mut guard) = self
                .shared
                .try_lock(self.shared.inbox_mode_for(message.len(), Framed::OnEnqueue))
            {
                try_send(&mut guard.driver, message)?;
                then(&mut guard);
                return Ok(());
            }
            match self.shared.try_enqueue(message.len(), || {
                QueuedCommand::Message(message.clone(), Compress::Auto)
            }) {
                Ok(()) => return Ok(()),
                Err(NotQueued::Unlocked) => {}
                Err(not_queued) => return Err(not_queued.into_error(&message)),
            }
        }
    }

    fn try_enqueue_prepared(&self, prepared: &PreparedMessage) -> Result<(), NotQueued> {
        self.shared.try_enqueue(prepared.message().len(), || {
            QueuedCommand::PreparedMessage(prepared.clone())
        })
    }

    /// Leaves the messages to the task that uses the connection, and counts those that were `queued`.
    fn try_enqueue_all(&self, messages: &[PreparedMessage], queued: &mut usize) -> Result<(), NotQueued> {
        while let Some(message) = messages.get(*queued) {
            self.try_enqueue_prepared(message)?;
            *queued += 1;
        }
        // Also what was queued before.
        self.shared.request_flush()
    }

    /// Sends a ping with a payload of at most 125 bytes; see [`WebSocket::ping`](crate::WebSocket::ping).
    ///
    /// # Errors
    ///
    /// The payload is too long ([`Error::is_misuse`]), the connection is closed or lost, or the peer reads too slowly.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it got access to the connection: no ping is sent. After that: sent with the next call.
    pub async fn ping(&self, payload: &[u8]) -> Result<(), Error> {
        Operation::new(&self.shared)
            .lock(|guard| {
                guard.driver.ping(payload)?;
                // The receiver's timer is set for a later deadline than that of the pong.
                guard.wake_all();
                Ok::<_, Error>(())
            })
            .await?;
        self.flush().await
    }

    /// Sends the close frame after everything queued, and flushes it. The receiver goes through the rest of the closing
    /// handshake: it gives the messages that still arrive, then `None`. If both halves are dropped, a task of the current
    /// runtime finishes it in the background.
    ///
    /// # Errors
    ///
    /// The connection is lost. If the code or reason may not be sent ([`Error::is_misuse`]), the connection is closed with
    /// the nearest ones that may: see [`CloseFrame::new_lossy`](crate::CloseFrame::new_lossy).
    ///
    /// # Cancel safety
    ///
    /// The closing handshake begins with the first poll. Dropped after that, the close frame leaves with the next call of any
    /// method, at the latest when [`Receiver::recv`] is polled.
    pub async fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let mut start = StartClose {
            shared: &self.shared,
            frame: Some((code, reason)),
        };
        let started = Operation::new(&self.shared).lock(|guard| {
            start.frame = None;
            guard.start_close(code, reason)
        });
        let started = started.await;
        match self.flush().await {
            Err(error) if !error.is_normal_close() => Err(error),
            _ => started,
        }
    }

    /// How the connection was closed, as far as it is known; `None` while it is open.
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.shared.close_info()
    }

    /// Whether messages can still be sent.
    pub fn is_open(&self) -> bool {
        self.shared.is_open()
    }

    /// The round-trip time of the newest answered ping, to the microsecond.
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.rtt()
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.shared.subprotocol()
    }
}

impl Receiver {
    /// Receives the next message; `None` after a [normal end](crate::WebSocket#the-end), from then on.
    ///
    /// # Errors
    ///
    /// The peer closed with another code than 1000 and 1001 ([`Error::close_code`]), is gone ([`Error::is_timeout`]) or
    /// broke the protocol ([`Error::is_protocol`]), or the connection was lost. The same error from then on.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        poll_fn(|cx| self.poll(cx, Driver::poll_recv))
    }

    /// How the connection was closed, as far as it is known; `None` while it is open.
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.shared.close_info()
    }

    /// The round-trip time of the newest answered ping, to the microsecond.
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.rtt()
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.shared.subprotocol()
    }

    fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let Self {
            shared,
            slot,
            has_runtime,
        } = self;
        shared.poll(slot, cx, InboxMode::Open, wait_for_lock, |guard, cx| {
            if !std::mem::replace(has_runtime, true) {
                guard.set_receiver_runtime();
            }
            poll(&mut guard.driver, cx)
        })
    }
}

/// A task that has ended is not kept in memory by its waker.
impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.release(&mut self.slot);
    }
}

/// Begins the closing handshake when it is dropped, unless that was done. Otherwise a future of [`Sender::close`] that is
/// dropped while another task uses the connection would do nothing.
struct StartClose<'a> {
    shared: &'a Arc<Shared>,
    /// `None` once it has begun.
    frame: Option<(CloseCode, &'a str)>,
}

impl Drop for StartClose<'_> {
    fn drop(&mut self) {
        if let Some((code, reason)) = self.frame.take() {
            self.shared.start_close(code, reason);
        }
    }
}

/// The messages until the connection is closed. After an error comes the end.
impl Stream for Receiver {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx, Driver::poll_next)
    }
}
