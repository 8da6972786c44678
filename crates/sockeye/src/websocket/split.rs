//! Split connections: several tasks share one connection.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use sockeye_proto::deflate::NegotiatedParams;
use sockeye_proto::{CloseCode, CloseFrame, CloseInfo};

use crate::endpoint::{Driver, FlushTarget};
use crate::error::Error;
use crate::message::Message;
use crate::message::event::Event;
use crate::message::outbound::Outbound;
use crate::message::prepared::PreparedMessage;
use crate::stats::ConnectionStats;
use crate::transport::socket;
use crate::websocket::WebSocket;
use crate::websocket::command_queue::NotQueued;
use crate::websocket::guard::ConnectionGuard;
use crate::websocket::operation::{Operation, ReserveOperation, needs_lock};
use crate::websocket::permit::{Permit, TryReserveError};
use crate::websocket::shared::Shared;
use crate::websocket::sink_state::SinkState;
use crate::websocket::try_lock::QueueMode;
use crate::websocket::try_recv::TryRecvError;
use crate::websocket::try_send::{TrySendAllError, TrySendError, try_send};
use crate::websocket::wakers::SlotKey;
#[cfg(doc)]
use crate::{Outbox, Overflow};

/// Sending half of a connection that was [split](crate::WebSocket::split). Clones send on the same connection, and
/// messages are never interleaved.
///
/// Reads and deadlines are only handled while the [`Receiver`] is polled: without that, pings of the peer are not
/// answered and a lost peer is not detected. Dropping the receiver closes the connection; dropping all senders does
/// not.
///
/// Its futures are cancel-safe like those of [`WebSocket`](crate::WebSocket). It is also a
/// [`Sink`](futures_sink::Sink).
pub struct Sender {
    pub(super) shared: Arc<Shared>,
    /// The sink state of this sender; each clone has its own. `None` until the sender is first used as a sink.
    pub(super) sink: Option<Box<SinkState>>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("is_open", &self.shared.is_open())
            .finish_non_exhaustive()
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            sink: None,
        }
    }
}

/// Drops the waker of its task, so that the connection does not keep that task alive.
impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(state) = &mut self.sink {
            state.release(&self.shared);
        }
    }
}

/// Receiving half of a connection that was [split](crate::WebSocket::split).
///
/// Pings are answered and a silent peer is detected while [`recv`](Self::recv) is awaited.
///
/// Dropping it closes TCP without a closing handshake, and the peer sees 1006: without it, nothing would be read and
/// the end would not be detected. If the closing handshake has begun, a task of the current runtime finishes it in the
/// background once the last sender is dropped. Senders that are left in a registry fail from then on.
pub struct Receiver {
    shared: Arc<Shared>,
    slot: SlotKey,
    /// Whether the connection knows the runtime on which this receives.
    has_runtime: bool,
    /// Whether a [`MessageReader`] was dropped before the end of its message, and the connection does not know it yet.
    has_abandoned_stream: bool,
}

impl WebSocket {
    /// Splits the connection into a cloneable sender and a receiver, which can be used in different tasks.
    /// [`peer_certificates`](Self::peer_certificates) must be read before: the halves do not offer them.
    pub fn split(self) -> (Sender, Receiver) {
        let subprotocol = self.extras.and_then(|extras| extras.subprotocol);
        let shared = Shared::new(self.driver, subprotocol);
        let sender = Sender {
            shared: shared.clone(),
            sink: None,
        };
        let receiver = Receiver {
            shared,
            slot: SlotKey::receiver(),
            has_runtime: false,
            has_abandoned_stream: false,
        };
        (sender, receiver)
    }
}

impl Sender {
    /// Sends a message, and waits until it and everything queued before it has been written to the transport.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued message is sent completely by the next call.
    pub async fn send(&self, message: impl Into<Outbound>) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Queues a message. Waits only while the queue would exceed
    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max), or while an earlier message is being compressed:
    /// see [`WebSocket::feed`](crate::WebSocket::feed). It is written by [`flush`](Self::flush), or when
    /// [`Receiver::recv`] is next polled. [`try_send`](Self::try_send) schedules a flush instead.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued message is sent completely by the next call.
    pub fn feed(&self, message: impl Into<Outbound>) -> impl Future<Output = Result<(), Error>> {
        let message = message.into();
        let mut operation = Operation::new(&self.shared);
        poll_fn(move |cx| operation.poll_queue(cx, &message))
    }

    /// Writes everything that is queued to the transport. Messages that other senders queue meanwhile may remain
    /// queued.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn flush(&self) -> Result<(), Error> {
        let mut end = FlushTarget::default();
        let mut operation = Operation::new(&self.shared);
        poll_fn(|cx| operation.poll(cx, |driver, cx| driver.poll_flush_to(cx, &mut end))).await
    }

    /// Queues a message if there is capacity, without waiting. While a large message is being compressed, there is
    /// none. To broadcast, send a [`PreparedMessage`] to each connection; the first call may compress it.
    ///
    /// A background task on the receiver's runtime (before the first `recv`: the runtime on which the connection was
    /// split) flushes it, together with everything queued until the calling task yields. Outside a runtime, the
    /// receiver flushes. What the transport does not take is written while [`Receiver::recv`] is awaited.
    ///
    /// If another task is using the connection, the message is handed to that task. Such messages are limited by the
    /// free space when that task locked the connection, so up to twice
    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max) can be queued briefly.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] returns the message, the number of queued bytes, and since when the queue has been full.
    /// [`TrySendError::Closed`]: the connection is closed or lost. A message that was handed over is dropped if
    /// the connection closes first; the next [`flush`](Self::flush) reports that.
    pub fn try_send(&self, message: impl Into<Outbound>) -> Result<(), TrySendError> {
        self.try_queue(message.into(), |guard| guard.request_flush())
    }

    /// Queues several prepared messages if there is capacity, and writes as much of the queue as the transport takes,
    /// without waiting. The cheapest way to broadcast if all messages are available.
    ///
    /// Each call usually costs a system call, about 5 us; with thousands of receivers, yield now and then. If the
    /// messages do not all fit into the write buffer, those of other senders may be interleaved. On a runtime other
    /// than that of the [`Receiver`], or outside of one, the messages are flushed as with `try_send`.
    ///
    /// # Errors
    ///
    /// [`TrySendAllError`] has the number of queued messages, some of which may already be written, and the
    /// [`TrySendError`] of the next one: no capacity, or the connection is closed or lost.
    pub fn try_send_all(&self, messages: &[PreparedMessage]) -> Result<(), TrySendAllError> {
        let mut queued = 0;
        loop {
            let len_max = messages[queued..].iter().map(|message| message.message().len()).max();
            let Some(mut guard) = self
                .shared
                .try_lock(self.shared.queue_mode_for_len(len_max.unwrap_or(0), true))
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

    /// Waits until the queue has capacity for `bytes` bytes, and reserves it. [`Permit::send`] then queues a message of
    /// up to that length without waiting, so the message can be made from the newest state. To send while other events
    /// are awaited, put this into a `select!` instead of [`send`](Self::send): cancelling it loses no message.
    ///
    /// Tasks get their permits in the order in which they first polled this. While one waits, `send`, `feed` and
    /// `try_send` of all senders wait or find the queue full too; so poll or drop the future. Reservations count
    /// against [`Limits::write_buffer_max`](crate::Limits::write_buffer_max); more than that can be reserved while
    /// nothing is queued or reserved. While a large message is being compressed, there is no capacity. Messages of an
    /// [`Outbox`] do not wait for reservations, except with [`Overflow::Wait`].
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future reserves nothing and gives up the task's place in the wait queue.
    pub async fn reserve(&self, bytes: usize) -> Result<Permit, Error> {
        let mut reserve = ReserveOperation::new(&self.shared, bytes);
        poll_fn(|cx| reserve.poll(cx)).await?;
        Ok(Permit::new(self.shared.clone(), bytes))
    }

    /// Reserves capacity for `bytes` bytes, if there is capacity and no task waits in [`reserve`](Self::reserve).
    ///
    /// # Errors
    ///
    /// [`TryReserveError::Full`] has the number of queued bytes, and since when the queue has been full.
    /// [`TryReserveError::Closed`]: the connection is closed or lost.
    pub fn try_reserve(&self, bytes: usize) -> Result<Permit, TryReserveError> {
        self.shared.try_reserve(bytes)?;
        Ok(Permit::new(self.shared.clone(), bytes))
    }

    /// Queues a message without scheduling a flush. If another task is using the connection, that task schedules one.
    pub(super) fn try_feed(&self, message: Outbound) -> Result<(), TrySendError> {
        self.try_queue(message, |_| {})
    }

    fn try_queue(&self, message: Outbound, then: impl FnOnce(&mut ConnectionGuard<'_>)) -> Result<(), TrySendError> {
        loop {
            if let Some(mut guard) = self.shared.try_lock(self.shared.queue_mode_for(&message)) {
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

    /// Hands the messages to the task that is using the connection. Adds their number to `queued`.
    fn try_enqueue_all(&self, messages: &[PreparedMessage], queued: &mut usize) -> Result<(), NotQueued> {
        while let Some(message) = messages.get(*queued) {
            self.shared.try_enqueue(&message.into())?;
            *queued += 1;
        }
        // This also flushes what was queued before.
        self.shared.request_flush()
    }

    /// Sends a ping, waits for its pong and returns the round-trip time. If a ping is already unanswered, waits for its
    /// pong instead. The receiver's task receives the pong, so this makes progress only while [`Receiver::recv`] is
    /// awaited.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it could lock the connection, no ping is sent. Otherwise the next call sends it.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = Operation::new(&self.shared).lock(|guard| {
            // The receiver's timer is set for a later deadline than that of the pong.
            guard.wake_all();
            guard.driver.start_ping()
        });
        let number = start.await?;
        let mut operation = Operation::new(&self.shared);
        poll_fn(|cx| operation.poll(cx, |driver, cx| driver.poll_pong_without_reading(cx, number))).await
    }

    /// Sends a ping with a payload of at most 125 bytes, without waiting for its pong, which updates
    /// [`rtt`](Self::rtt).
    ///
    /// # Errors
    ///
    /// The payload is too long ([`Error::is_invalid_input`]), the connection is closed or lost, or the peer reads too
    /// slowly.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it could lock the connection, no ping is sent. Otherwise the next call sends it.
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

    /// Sends an unsolicited pong with a payload of at most 125 bytes (RFC 6455 §5.5.3): a heartbeat that needs no
    /// answer. Pings of the peer are answered automatically.
    ///
    /// # Errors
    ///
    /// The payload is too long ([`Error::is_invalid_input`]), the connection is closed or lost, or the peer reads too
    /// slowly.
    ///
    /// # Cancel safety
    ///
    /// A pong that is not queued yet is not sent. A queued pong is sent by the next call.
    pub async fn send_pong(&self, payload: &[u8]) -> Result<(), Error> {
        let mut operation = Operation::new(&self.shared);
        poll_fn(|cx| operation.poll(cx, |driver, cx| driver.poll_feed_pong(cx, payload))).await?;
        drop(operation);
        self.flush().await
    }

    /// Sends the close frame after everything queued, and flushes it. The receiver completes the closing handshake: it
    /// returns the messages that still arrive, then `None`. If both halves are dropped, a task of the current runtime
    /// completes it in the background.
    ///
    /// # Errors
    ///
    /// The connection is lost. If the code or reason must not be sent ([`Error::is_invalid_input`]), the connection is
    /// closed with the nearest valid ones: see [`CloseFrame::new_lossy`](crate::CloseFrame::new_lossy).
    ///
    /// # Cancel safety
    ///
    /// The closing handshake begins with the first poll. If the future is dropped later, the next call of any method
    /// sends the close frame, at the latest [`Receiver::recv`].
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

    /// Begins the closing handshake without waiting: the close frame is sent after everything queued. A background task
    /// flushes it as with [`try_send`](Self::try_send), and the receiver completes the closing handshake. A peer that
    /// reads slowly gets everything queued first: [`abort`](Self::abort) does not wait for it.
    ///
    /// # Errors
    ///
    /// The code or reason must not be sent ([`Error::is_invalid_input`]). The connection is closed anyway, with the
    /// nearest valid ones: see [`CloseFrame::new_lossy`].
    pub fn start_close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let checked = CloseFrame::new(code, reason);
        self.shared.start_close(code, reason);
        checked.map(drop).map_err(Error::from)
    }

    /// Closes TCP immediately, even during the closing handshake. Queued messages are lost, and the peer sees 1006.
    /// Pending operations fail, and the receiver gets an error after the messages that have arrived.
    pub fn abort(&self) {
        self.shared.abort();
    }

    /// Waits until no message can be sent any more: either side has begun to close, or the connection is lost. Returns
    /// immediately if that is already so. The end is detected while [`Receiver::recv`] is awaited.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn closed(&self) {
        let mut operation = Operation::new(&self.shared);
        poll_fn(|cx| operation.poll_closed(cx)).await;
    }

    /// The number of bytes that wait to be written: frames in the write buffer, messages handed to the task that uses
    /// the connection, and messages of outboxes that are not encoded yet. Limited by
    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max); with [`Overflow::DropOldest`] by twice as much.
    /// Does not count the uncompressed rest of a large message, reserved capacity, nor bytes that the kernel buffers.
    pub fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes()
    }

    /// Whether both senders belong to the same connection, for example to remove a client from a list of senders.
    pub fn same_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// How the connection was closed, as far as is known yet. `None` while it is open.
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.shared.close_info()
    }

    /// Whether messages can still be sent.
    pub fn is_open(&self) -> bool {
        self.shared.is_open()
    }

    /// The round-trip time of the most recently answered ping, with a resolution of one microsecond.
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.rtt()
    }

    /// Counters of messages and bytes in both directions, of all halves: see
    /// [`WebSocket::stats`](crate::WebSocket::stats). If another task is using the connection, waits for its current
    /// poll to finish.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn stats(&self) -> ConnectionStats {
        Operation::new(&self.shared).get(Driver::stats).await
    }

    /// The negotiated subprotocol.
    pub fn subprotocol(&self) -> Option<&str> {
        self.shared.subprotocol()
    }

    /// The address of the peer, or of a proxy in between: see [`WebSocket::peer_addr`](crate::WebSocket::peer_addr).
    /// If another task is using the connection, waits for its current poll to finish.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn peer_addr(&self) -> Option<SocketAddr> {
        Operation::new(&self.shared)
            .get(|driver| socket::peer_addr(driver.transport()?))
            .await
    }

    /// The local address: see [`WebSocket::local_addr`](crate::WebSocket::local_addr). Waits as
    /// [`peer_addr`](Self::peer_addr) does.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn local_addr(&self) -> Option<SocketAddr> {
        Operation::new(&self.shared)
            .get(|driver| socket::local_addr(driver.transport()?))
            .await
    }

    /// The negotiated parameters of permessage-deflate (RFC 7692). `None` if messages are not compressed. Waits as
    /// [`peer_addr`](Self::peer_addr) does.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn negotiated_deflate(&self) -> Option<NegotiatedParams> {
        Operation::new(&self.shared)
            .get(|driver| driver.connection().negotiated_deflate())
            .await
    }
}

impl Receiver {
    /// Receives the next message. Returns `None` after a [normal end](crate::WebSocket#the-end), and for every later
    /// call.
    ///
    /// # Errors
    ///
    /// The peer closed with a code other than 1000 or 1001 ([`Error::close_code`]), does not answer
    /// ([`Error::is_timeout`]) or violated the protocol ([`Error::is_protocol`]), or the connection was lost. Later
    /// calls return the same error.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        poll_fn(|cx| self.poll(cx, Driver::poll_recv))
    }

    /// Receives the next message, ping or pong. Returns `None` after a [normal end](crate::WebSocket#the-end), and for
    /// every later call. Pings are answered as with [`recv`](Self::recv), which skips control frames.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv): the peer closed with a code other than 1000 or 1001, does not answer or violated
    /// the protocol, or the connection was lost.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn recv_event(&mut self) -> impl Future<Output = Result<Option<Event>, Error>> {
        poll_fn(|cx| self.poll(cx, Driver::poll_recv_event))
    }

    /// Receives a message that has already arrived, without waiting: see
    /// [`WebSocket::try_recv`](crate::WebSocket::try_recv). Call it before awaiting [`recv`](Self::recv) to take the
    /// rest of a burst at the lowest cost. Also returns [`TryRecvError::Empty`] while a sender is using the connection.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], or the [end](crate::WebSocket#the-end) of the connection, which `recv` and later calls
    /// report too.
    pub fn try_recv(&mut self) -> Result<Message, TryRecvError> {
        match self.shared.try_lock(QueueMode::Open) {
            Some(mut guard) => {
                if std::mem::take(&mut self.has_abandoned_stream) {
                    guard.driver.abandon_stream();
                }
                guard.try_recv()
            }
            None => Err(TryRecvError::Empty),
        }
    }

    /// How the connection was closed, as far as is known yet. `None` while it is open.
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.shared.close_info()
    }

    /// Whether messages can still be sent.
    pub fn is_open(&self) -> bool {
        self.shared.is_open()
    }

    /// The round-trip time of the most recently answered ping, with a resolution of one microsecond.
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.rtt()
    }

    /// Counters of messages and bytes in both directions, of all halves: see
    /// [`WebSocket::stats`](crate::WebSocket::stats). If another task is using the connection, waits for its current
    /// poll to finish.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn stats(&self) -> ConnectionStats {
        Operation::new(&self.shared).get(Driver::stats).await
    }

    /// The negotiated subprotocol.
    pub fn subprotocol(&self) -> Option<&str> {
        self.shared.subprotocol()
    }

    /// The address of the peer, or of a proxy in between: see [`WebSocket::peer_addr`](crate::WebSocket::peer_addr).
    /// If another task is using the connection, waits for its current poll to finish.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn peer_addr(&self) -> Option<SocketAddr> {
        Operation::new(&self.shared)
            .get(|driver| socket::peer_addr(driver.transport()?))
            .await
    }

    /// The local address: see [`WebSocket::local_addr`](crate::WebSocket::local_addr). Waits as
    /// [`peer_addr`](Self::peer_addr) does.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn local_addr(&self) -> Option<SocketAddr> {
        Operation::new(&self.shared)
            .get(|driver| socket::local_addr(driver.transport()?))
            .await
    }

    /// The negotiated parameters of permessage-deflate (RFC 7692). `None` if messages are not compressed. Waits as
    /// [`peer_addr`](Self::peer_addr) does.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn negotiated_deflate(&self) -> Option<NegotiatedParams> {
        Operation::new(&self.shared)
            .get(|driver| driver.connection().negotiated_deflate())
            .await
    }

    /// Called when a [`MessageReader`] was dropped before the end of its message. The next poll tells the connection,
    /// which another task may be using now.
    pub(super) fn abandon_stream(&mut self) {
        self.has_abandoned_stream = true;
        // The next poll then does what is done at the first one.
        self.has_runtime = false;
    }

    pub(super) fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let Self {
            shared,
            slot,
            has_runtime,
            has_abandoned_stream,
        } = self;
        shared.poll(slot, cx, QueueMode::Open, needs_lock, |guard, cx| {
            if !std::mem::replace(has_runtime, true) {
                guard.set_receiver_runtime();
                if std::mem::take(has_abandoned_stream) {
                    guard.driver.abandon_stream();
                }
            }
            poll(&mut guard.driver, cx)
        })
    }
}

/// Removes its waker, so that the connection does not keep the task alive. Then closes an open connection, because its
/// end would not be detected: see [`Receiver`].
impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.release(&mut self.slot);
        self.shared.abort_if_open();
    }
}

/// Begins the closing handshake when it is dropped, unless that was done. Without it, a [`Sender::close`] future
/// dropped while another task uses the connection would have no effect.
struct StartClose<'a> {
    shared: &'a Arc<Shared>,
    /// `None` once the closing handshake has begun.
    frame: Option<(CloseCode, &'a str)>,
}

impl Drop for StartClose<'_> {
    fn drop(&mut self) {
        if let Some((code, reason)) = self.frame.take() {
            self.shared.start_close(code, reason);
        }
    }
}

/// Yields messages until the connection is closed. An error is yielded once, then `None`.
impl Stream for Receiver {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx, Driver::poll_next)
    }
}
