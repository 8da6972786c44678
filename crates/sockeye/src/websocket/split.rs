//! One connection, several tasks.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use sockeye_proto::{CloseCode, CloseFrame, CloseInfo};

use crate::endpoint::{Driver, FlushEnd};
use crate::error::Error;
use crate::message::Message;
use crate::message::event::Event;
use crate::message::outbound::Outbound;
use crate::message::prepared::PreparedMessage;
use crate::websocket::sender_sink::SinkState;
use crate::websocket::shared::{ConnectionGuard, NotQueued, Operation, Shared, wait_for_lock};
use crate::websocket::try_lock::InboxMode;
use crate::websocket::try_recv::TryRecvError;
use crate::websocket::try_send::{TrySendAllError, TrySendError, try_send};
use crate::websocket::wakers::SlotKey;

/// Sends on a connection that was [split](crate::WebSocket::split). Clones send on the same connection, and whole
/// messages never mix.
///
/// Nothing is read and no deadline is watched unless the [`Receiver`] is polled: without it, pings of the peer stay
/// unanswered and a peer that is gone is not noticed.
///
/// Its futures are cancel-safe as those of [`WebSocket`](crate::WebSocket) are. It is a [`Sink`](futures_sink::Sink) too.
#[derive(Debug)]
pub struct Sender {
    pub(super) shared: Arc<Shared>,
    /// Of this sender, not of its clones. `None` until it is first used as a sink.
    pub(super) sink: Option<Box<SinkState>>,
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            sink: None,
        }
    }
}

/// A task that has ended is not kept in memory by its waker.
impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(state) = &mut self.sink {
            state.release(&self.shared);
        }
    }
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
    let sender = Sender {
        shared: shared.clone(),
        sink: None,
    };
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
    pub async fn send(&self, message: impl Into<Outbound>) -> Result<(), Error> {
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
    pub fn feed(&self, message: impl Into<Outbound>) -> impl Future<Output = Result<(), Error>> {
        let message = message.into();
        let mut operation = Operation::new(&self.shared);
        poll_fn(move |cx| operation.poll_queue(cx, &message))
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
    /// compressed. For broadcasts, send a [`PreparedMessage`] to each receiver; the first call may compress it.
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
    /// [`TrySendError::Full`] gives the message back, and says how much is queued and since when there has been no room.
    /// [`TrySendError::Closed`]: the connection is closed or lost. A message that went to the inbox is dropped if the
    /// connection closes first; the next [`flush`](Self::flush) reports that.
    pub fn try_send(&self, message: impl Into<Outbound>) -> Result<(), TrySendError> {
        self.try_queue(message.into(), |guard| guard.request_flush())
    }

    /// Queues several prepared messages if there is room for them now, and writes at once what the kernel takes of them and
    /// of everything queued before. Never waits. The cheapest broadcast if all messages are at hand.
    ///
    /// A call is a system call as a rule, some 5 us; with thousands of receivers, let other tasks run now and then. Messages
    /// of other senders come between only where these do not fit the write buffer together. On another runtime than that of
    /// the [`Receiver`], or outside of one, the messages leave as with `try_send`.
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
                .try_lock(self.shared.inbox_mode_for_len(len_max.unwrap_or(0), true))
            else {
                match self.try_enqueue_all(messages, &mut queued) {
                    Ok(()) => return Ok(()),
                    Err(NotQueued::Unlocked) => continue,
                    Err(not_queued) => {
                        let message = (&messages[queued]).into();
                        let cause = self.shared.try_send_error(not_queued, message);
                        return Err(TrySendAllError { queued, cause });
                    }
                }
            };
            let stopped = messages[queued..].iter().find_map(|message| {
                let sent = try_send(&mut guard.driver, message.into());
                queued += usize::from(sent.is_ok());
                sent.err()
            });
            let has_made_room = guard.flush_or_request();
            match stopped {
                Some(TrySendError::Full { .. }) if has_made_room => {}
                Some(cause) => return Err(TrySendAllError { queued, cause }),
                None => return Ok(()),
            }
        }
    }

    /// Queues a message without a flush, unless it is left to the task that uses the connection.
    pub(super) fn try_feed(&self, message: Outbound) -> Result<(), TrySendError> {
        self.try_queue(message, |_| {})
    }

    fn try_queue(&self, message: Outbound, then: impl FnOnce(&mut ConnectionGuard<'_>)) -> Result<(), TrySendError> {
        loop {
            if let Some(mut guard) = self.shared.try_lock(self.shared.inbox_mode_for(&message)) {
                try_send(&mut guard.driver, message)?;
                then(&mut guard);
                return Ok(());
            }
            match self.shared.try_enqueue(&message) {
                Ok(()) => return Ok(()),
                Err(NotQueued::Unlocked) => {}
                Err(not_queued) => return Err(self.shared.try_send_error(not_queued, message)),
            }
        }
    }

    /// Leaves the messages to the task that uses the connection, and counts those that were `queued`.
    fn try_enqueue_all(&self, messages: &[PreparedMessage], queued: &mut usize) -> Result<(), NotQueued> {
        while let Some(message) = messages.get(*queued) {
            self.shared.try_enqueue(&message.into())?;
            *queued += 1;
        }
        // Also what was queued before.
        self.shared.request_flush()
    }

    /// Sends a ping and waits for its pong: the round-trip time. If a ping is unanswered already, this waits for its pong. The
    /// pong is received by the receiver's task, so this waits for as long as [`Receiver::recv`] is not awaited.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it got access to the connection: no ping is sent. After that: sent with the next call.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = Operation::new(&self.shared).lock(|guard| {
            // The receiver's timer is set for a later deadline than that of the pong.
            guard.wake_all();
            guard.driver.start_ping()
        });
        let number = start.await?;
        let mut operation = Operation::new(&self.shared);
        poll_fn(|cx| operation.poll(cx, |driver, cx| driver.poll_pong_of_receiver(cx, number))).await
    }

    /// Sends a ping with a payload of at most 125 bytes, and does not wait for its pong, which updates [`rtt`](Self::rtt).
    ///
    /// # Errors
    ///
    /// The payload is too long ([`Error::is_invalid_input`]), the connection is closed or lost, or the peer reads too slowly.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it got access to the connection: no ping is sent. After that: sent with the next call.
    pub async fn send_ping(&self, payload: &[u8]) -> Result<(), Error> {
        Operation::new(&self.shared)
            .lock(|guard| {
                guard.driver.send_ping(payload)?;
                // The receiver's timer is set for a later deadline than that of the pong.
                guard.wake_all();
                Ok::<_, Error>(())
            })
            .await?;
        self.flush().await
    }

    /// Sends an unsolicited pong with a payload of at most 125 bytes (RFC 6455 §5.5.3): a sign of life that asks for no
    /// answer. Pings of the peer are answered without it.
    ///
    /// # Errors
    ///
    /// The payload is too long ([`Error::is_invalid_input`]), the connection is closed or lost, or the peer reads too slowly.
    ///
    /// # Cancel safety
    ///
    /// A pong that is not queued yet is not sent. A queued one leaves with the next call.
    pub async fn send_pong(&self, payload: &[u8]) -> Result<(), Error> {
        let mut operation = Operation::new(&self.shared);
        poll_fn(|cx| operation.poll(cx, |driver, cx| driver.poll_feed_pong(cx, payload))).await?;
        drop(operation);
        self.flush().await
    }

    /// Sends the close frame after everything queued, and flushes it. The receiver goes through the rest of the closing
    /// handshake: it gives the messages that still arrive, then `None`. If both halves are dropped, a task of the current
    /// runtime finishes it in the background.
    ///
    /// # Errors
    ///
    /// The connection is lost. If the code or reason may not be sent ([`Error::is_invalid_input`]), the connection is closed with
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

    /// Begins to close, without waiting: the close frame leaves after everything queued. A background task flushes it, as
    /// with [`try_send`](Self::try_send); the receiver goes through the rest of the closing handshake. A peer that reads
    /// slowly gets all that is queued first: [`abort`](Self::abort) does not wait for it.
    ///
    /// # Errors
    ///
    /// The code or reason may not be sent ([`Error::is_invalid_input`]). The connection is closing all the same, with the nearest
    /// ones that may: see [`CloseFrame::new_lossy`].
    pub fn start_close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let checked = CloseFrame::new(code, reason);
        self.shared.start_close(code, reason);
        checked.map(drop).map_err(Error::from)
    }

    /// Closes TCP at once, also where the closing handshake has begun. What is queued is lost and the peer sees 1006. Pending
    /// operations fail, and the receiver gets an error after the messages that have arrived.
    pub fn abort(&self) {
        self.shared.abort();
    }

    /// Waits until no message can be sent any more: either side has begun to close, or the connection is lost. Returns at
    /// once if that is so already. The end of the connection is noticed while [`Receiver::recv`] is awaited.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn closed(&self) {
        let mut operation = Operation::new(&self.shared);
        poll_fn(|cx| operation.poll_closed(cx)).await;
    }

    /// The number of bytes that wait to be written: frames in the write buffer, and messages that wait for another task to
    /// queue them. [`Limits::write_buffer_max`](crate::Limits::write_buffer_max) bounds it. What is still to be compressed of
    /// a large message is not counted, nor what the kernel holds.
    pub fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes()
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

    /// Receives the next message, ping or pong; `None` after a [normal end](crate::WebSocket#the-end), from then on. Pings are
    /// answered as with [`recv`](Self::recv), which leaves control frames out.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn recv_event(&mut self) -> impl Future<Output = Result<Option<Event>, Error>> {
        poll_fn(|cx| self.poll(cx, Driver::poll_recv_event))
    }

    /// Receives a message that has already arrived, and never waits: see [`WebSocket::try_recv`](crate::WebSocket::try_recv).
    /// Drains the rest of a burst before the next [`recv`](Self::recv) at the least cost. [`TryRecvError::Empty`] also while a sender
    /// uses the connection at the same moment.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], or the [end](crate::WebSocket#the-end) of the connection. `recv` and later calls give the end
    /// too.
    pub fn try_recv(&mut self) -> Result<Message, TryRecvError> {
        match self.shared.try_lock(InboxMode::Open) {
            Some(mut guard) => guard.try_recv(),
            None => Err(TryRecvError::Empty),
        }
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
