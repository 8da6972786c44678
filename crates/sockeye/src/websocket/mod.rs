//! The connection as an application uses it. `split`, streams and `into_io` are in their own modules.

pub(crate) mod batch;
mod command_queue;
mod flush_batch;
#[cfg(feature = "futures-io")]
mod futures_io;
mod guard;
pub(crate) mod io;
mod lock_or_queue;
pub(crate) mod message_reader;
pub(crate) mod message_writer;
mod operation;
pub(crate) mod outbox;
pub(crate) mod permit;
mod sender_sink;
mod shared;
mod sink_state;
mod snapshot;
pub(crate) mod split;
mod stream_sink;
pub(crate) mod try_lock;
pub(crate) mod try_recv;
pub(crate) mod try_send;
pub(crate) mod wakers;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use futures_sink::Sink;
use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams};
use sockeye_proto::{CloseCode, CloseInfo, Role};

use crate::endpoint::Driver;
use crate::error::Error;
use crate::message::Message;
use crate::message::event::Event;
use crate::message::outbound::Outbound;
use crate::observe::{self, Observer, RequestPath};
use crate::settings::ConnectionGroup;
use crate::stats::ConnectionStats;
use crate::transport::Io;
use crate::transport::socket;
use crate::websocket::stream_sink::{StreamSinkWakers, UsedAs};
use crate::websocket::try_recv::TryRecvError;
use crate::websocket::try_send::TrySendError;

/// An open WebSocket connection of a client or server, over any transport.
///
/// Only one task at a time can use it. Deadlines and pings are only handled while [`recv`](Self::recv) or
/// [`close`](Self::close) is awaited. To send and receive in different tasks, [`split`](Self::split) it. Split it also
/// if a task only sends, and receive in another task.
///
/// Dropping it closes TCP without a closing handshake, and the peer sees 1006. If the closing handshake has begun, a
/// task of the current runtime finishes it in the background, for at most 60 s. Outside a runtime, or while 1,024
/// connections of the process are finishing, TCP is closed immediately.
///
/// # The end
///
/// [`recv`](Self::recv) reports the end of the connection, after every message that arrived before it:
///
/// | what happened | `recv` | `send`, `feed`, `flush`, `ping` |
/// |---|---|---|
/// | the peer closed with 1000, 1001 or without a code | `Ok(None)` | an error, [`is_normal_close`](Error::is_normal_close) |
/// | this side closed, and the peer answered or ended TCP | `Ok(None)` | an error, `is_normal_close` |
/// | the peer closed with any other code | an error with [`close_code`](Error::close_code) | an error with that code |
/// | the peer violated the protocol or stopped answering, or reset the connection before this side sent a close frame | an error | an error |
///
/// The end is reported as soon as the peer's close frame has arrived. [`close_info`](Self::close_info) returns both
/// close frames.
///
/// # Cancel safety
///
/// Every future of this type may be dropped at any point, in `select!` or by a timeout, and the connection remains
/// usable:
///
/// | dropped future | what is lost |
/// |---|---|
/// | [`recv`](Self::recv), [`recv_event`](Self::recv_event) | nothing; a partly received message is kept |
/// | [`send`](Self::send), [`feed`](Self::feed) | the message, if it was not queued yet because there was no capacity; a queued message is sent completely |
/// | [`flush`](Self::flush) | nothing; the next call continues |
/// | [`ping`](Self::ping), [`send_ping`](Self::send_ping) | nothing; the next call sends the ping |
/// | [`close`](Self::close) | nothing; the next `recv` or `close` continues the closing handshake, and its timeout keeps running |
#[derive(Debug)]
pub struct WebSocket {
    driver: Driver,
    /// Boxed, because most connections have none.
    extras: Option<Box<Extras>>,
}

/// State that few connections have.
#[derive(Debug, Default)]
struct Extras {
    subprotocol: Option<Box<str>>,
    wakers: Option<Box<StreamSinkWakers>>,
}

impl WebSocket {
    pub(crate) fn new(
        io: Box<dyn Io>,
        role: Role,
        group: Arc<ConnectionGroup>,
        read_buf: Vec<u8>,
        subprotocol: Option<&str>,
    ) -> Self {
        Self {
            driver: Driver::new(io, role, group, read_buf),
            extras: subprotocol.map(|subprotocol| {
                Box::new(Extras {
                    subprotocol: Some(subprotocol.into()),
                    wakers: None,
                })
            }),
        }
    }

    /// Reports this connection to the features `tracing` and `metrics`.
    pub(crate) fn observe(&mut self, role: observe::Role, path: &RequestPath) {
        let observer = Observer::open(role, path, || self.peer_addr());
        self.driver.set_observer(observer);
    }

    pub(crate) fn enable_deflate(&mut self, config: &DeflateConfig, negotiated: NegotiatedParams) {
        self.driver.enable_deflate(config, negotiated);
    }

    /// Receives the next message. Returns `None` after a normal [end](Self#the-end), and for every later call.
    ///
    /// Queued messages are written before this waits, so a loop of `recv` and [`feed`](Self::feed) makes one write for
    /// each burst. Calls after the end let other tasks run.
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
    // Not `async`: that would move the message once more, which costs 7 ns per small message in bursts.
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        poll_fn(|cx| self.driver.poll_recv(cx))
    }

    /// Receives the next message, ping or pong. Returns `None` after a normal [end](Self#the-end), and for every later
    /// call. Pings are answered and the round-trip time is measured as with [`recv`](Self::recv), which skips control
    /// frames.
    ///
    /// While `send` or another method reads ahead, control frames are kept only if the last receiving call was
    /// `recv_event`.
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
        poll_fn(|cx| self.driver.poll_recv_event(cx))
    }

    /// Receives a message that has already arrived, without waiting. Reads the socket if no input is buffered.
    ///
    /// Call it before awaiting [`recv`](Self::recv) to take the rest of a burst at the lowest cost. In the loop below,
    /// `select!`, which costs as much as a small message, runs only once for each burst:
    ///
    /// ```
    /// # use sockeye::{CloseCode, Error, WebSocket};
    /// # async fn serve(mut ws: WebSocket, mut shutdown: impl Future<Output = ()> + Unpin) -> Result<(), Error> {
    /// loop {
    ///     let message = match ws.try_recv() {
    ///         Ok(message) => Some(message),
    ///         Err(_) => tokio::select! {
    ///             message = ws.recv() => message?,
    ///             () = &mut shutdown => return ws.close(CloseCode::GOING_AWAY, "").await,
    ///         },
    ///     };
    ///     let Some(message) = message else { return Ok(()) };
    ///     ws.feed(message).await?;
    /// }
    /// # }
    /// ```
    ///
    /// If no message has arrived, it does what `recv` does before it waits: writes what is queued, answers pings and
    /// checks the deadlines. A program that calls it regularly, such as a game loop, does not need `recv`. It also
    /// returns [`TryRecvError::Empty`] when other tasks should run, so that a loop over it cannot starve them.
    ///
    /// It replaces the waker of a pending [`recv`](Self::recv) future: poll that future again afterwards.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], or the [end](Self#the-end) of the connection, which `recv` and later calls report too.
    pub fn try_recv(&mut self) -> Result<Message, TryRecvError> {
        match self.extras.as_ref().and_then(|extras| extras.wakers.as_ref()) {
            None => try_recv::try_recv(&mut self.driver, Waker::noop()),
            // Keeps waking the tasks that wait for the stream or the sink.
            Some(wakers) => try_recv::try_recv(&mut self.driver, wakers.waker()),
        }
    }

    /// Sends a message, and waits until it and everything queued before it has been written to the transport.
    ///
    /// While it waits for the peer, it receives messages ahead of [`recv`](Self::recv), up to
    /// [`Limits::read_ahead_max`](crate::Limits::read_ahead_max), so that two peers that both send much before they
    /// receive do not deadlock.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer took less than
    /// [`Limits::write_rate_min`](crate::Limits::write_rate_min) for [`Timeouts::write`](crate::Timeouts::write).
    ///
    /// # Cancel safety
    ///
    /// If the queue is full and the message is not queued yet, it is not sent. A queued message is sent completely by
    /// the next call.
    pub async fn send(&mut self, message: impl Into<Outbound>) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Queues a message. Waits only while the queue would exceed
    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max), or while an earlier message is being compressed.
    ///
    /// Queued messages are written by [`flush`](Self::flush), by [`recv`](Self::recv) before it waits, and earlier if
    /// much is queued. For several messages this is cheaper than [`send`](Self::send).
    ///
    /// If compression was negotiated, a message of more than 64 KiB is compressed in parts of that size, and other
    /// tasks run in between. If its first part does not get smaller, the whole message is sent uncompressed.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued message is sent completely by the next call.
    // Not `async`: each layer would store a copy of the message in the future, and so in every task that calls this.
    pub fn feed(&mut self, message: impl Into<Outbound>) -> impl Future<Output = Result<(), Error>> {
        let message = message.into();
        poll_fn(move |cx| self.driver.poll_feed(cx, &message))
    }

    /// Writes everything that is queued to the transport.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.driver.poll_flush(cx)).await
    }

    /// Queues a message if there is capacity, without waiting. It is written as with [`feed`](Self::feed). While a
    /// large message is being compressed, there is none.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] returns the message, the number of queued bytes, and since when the queue has been full.
    /// [`TrySendError::Closed`]: the connection is closed or lost.
    pub fn try_send(&mut self, message: impl Into<Outbound>) -> Result<(), TrySendError> {
        try_send::try_send(&mut self.driver, message.into())
    }

    /// Sends a ping, waits for its pong and returns the round-trip time. If a ping is already unanswered, waits for its
    /// pong instead.
    ///
    /// While it waits, it receives messages ahead of [`recv`](Self::recv), up to
    /// [`Limits::read_ahead_max`](crate::Limits::read_ahead_max). [`Keepalive`](crate::Keepalive) pings silent peers
    /// anyway, and also limits how long this waits.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly. If more messages than may be received ahead
    /// arrive before the pong ([`Error::is_invalid_input`]), receive them and try again: the connection stays open.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost. The next call sends the ping, and its pong updates [`rtt`](Self::rtt).
    pub async fn ping(&mut self) -> Result<Duration, Error> {
        let number = self.driver.start_ping()?;
        poll_fn(|cx| self.driver.poll_pong(cx, number)).await
    }

    /// Sends a ping with a payload of at most 125 bytes (RFC 6455 §5.5.2), without waiting for its pong.
    /// [`recv`](Self::recv) receives the pong, which updates [`rtt`](Self::rtt).
    ///
    /// # Errors
    ///
    /// The payload is too long ([`Error::is_invalid_input`]), the connection is closed or lost, or the peer reads too
    /// slowly.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost; the next call sends the ping.
    pub async fn send_ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.driver.send_ping(payload)?;
        self.flush().await
    }

    /// Queues a ping, which is written with the next messages or by `recv` before it waits.
    pub(crate) fn queue_ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.driver.send_ping(payload)
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
    pub async fn send_pong(&mut self, payload: &[u8]) -> Result<(), Error> {
        poll_fn(|cx| self.driver.poll_feed_pong(cx, payload)).await?;
        self.flush().await
    }

    /// Closes the connection: sends the close frame after everything queued, and waits for the peer's close frame.
    /// Messages that arrive meanwhile are dropped; to receive them, call [`start_close`](Self::start_close) and keep
    /// receiving.
    ///
    /// The peer has [`Timeouts::close`](crate::Timeouts::close) to answer, counted from when the close frame was
    /// written. A peer that closes TCP instead counts as having answered. Returns immediately if the connection is
    /// already closed.
    ///
    /// # Errors
    ///
    /// The peer did not answer in time or violated the protocol, or the connection was lost. If the code or reason must
    /// not be sent ([`Error::is_invalid_input`]; a reason has at most 123 bytes, see
    /// [`truncate_close_reason`](crate::truncate_close_reason)), the connection is closed with the nearest valid ones:
    /// see [`CloseFrame::new_lossy`](crate::CloseFrame::new_lossy). The connection is closed in every case.
    ///
    /// # Cancel safety
    ///
    /// The next call of this or of [`recv`](Self::recv) continues the closing handshake. If the connection is dropped,
    /// a background task does.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let started = self.start_close(code, reason);
        let closed = poll_fn(|cx| self.driver.poll_close(cx)).await;
        // The caller's own mistake first: it would be hidden by a peer that does not answer.
        started.and(closed)
    }

    /// Begins the closing handshake without waiting: the close frame is sent after everything queued, when
    /// [`recv`](Self::recv) is next awaited, or in the background when the connection is dropped. Messages of the peer
    /// are received until its close frame arrives.
    ///
    /// # Errors
    ///
    /// The code or reason must not be sent. The connection is closed anyway, with the nearest valid ones: see
    /// [`CloseFrame::new_lossy`](crate::CloseFrame::new_lossy).
    pub fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.driver.start_close(code, reason)
    }

    /// Closes TCP immediately, even during the closing handshake. Queued messages are lost, and the peer sees 1006.
    pub fn abort(mut self) {
        self.driver.abort();
    }

    /// How the connection was closed, as far as is known yet. `None` while it is open.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        self.driver.connection().close_info()
    }

    /// Whether messages can still be sent: neither side has begun to close, and the connection is not known to be lost.
    pub fn is_open(&self) -> bool {
        self.driver.is_open()
    }

    /// Counters of messages and bytes in both directions. Costs a few loads; the connection keeps the counters anyway.
    /// Bytes that a background task writes after the end was reported are not counted.
    pub fn stats(&self) -> ConnectionStats {
        self.driver.stats()
    }

    /// The round-trip time of the most recently answered ping.
    pub fn rtt(&self) -> Option<Duration> {
        self.driver.connection().rtt()
    }

    /// The negotiated subprotocol.
    pub fn subprotocol(&self) -> Option<&str> {
        self.extras.as_ref()?.subprotocol.as_deref()
    }

    /// The negotiated parameters of permessage-deflate (RFC 7692). `None` if messages are not compressed.
    pub fn negotiated_deflate(&self) -> Option<NegotiatedParams> {
        self.driver.connection().negotiated_deflate()
    }

    /// The address of the peer, or of a proxy in between. `None` once the transport is closed, and for transports other
    /// than a `TcpStream` or a TLS stream of tokio-rustls over one. Costs a system call.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        socket::peer_addr(self.driver.transport()?)
    }

    /// The local address. `None` whenever [`peer_addr`](Self::peer_addr) is. Costs a system call.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        socket::local_addr(self.driver.transport()?)
    }

    /// The certificate chain that the peer presented, beginning with its own. A client presents one only if the
    /// server's TLS configuration requests it. `None` without TLS, once the transport is closed, and if TLS does not
    /// run over a `TcpStream`.
    #[cfg(feature = "tls")]
    pub fn peer_certificates(&self) -> Option<&[rustls::pki_types::CertificateDer<'static>]> {
        socket::peer_certificates(self.driver.transport()?)
    }

    /// The span of this connection: `connection` with the fields `id`, `role`, `peer`, `path`, and at the end
    /// `close_cause` and `close_code`. A disabled span after the end of the connection.
    ///
    /// Instrument the task of the connection with it, so that its own events show the fields:
    ///
    /// ```
    /// use tracing::Instrument as _;
    ///
    /// # async fn handle(mut ws: sockeye::WebSocket) -> Result<(), sockeye::Error> { Ok(()) }
    /// # async fn example(ws: sockeye::WebSocket) -> Result<(), sockeye::Error> {
    /// let span = ws.span();
    /// handle(ws).instrument(span).await
    /// # }
    /// ```
    #[cfg(feature = "tracing")]
    pub fn span(&self) -> tracing::Span {
        self.driver.observer().span()
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn driver(&mut self) -> &mut Driver {
        &mut self.driver
    }

    /// Polls as a [`Stream`] or a [`Sink`], which two tasks may use concurrently.
    fn poll_as<R>(
        &mut self,
        used_as: UsedAs,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        if self.extras.as_ref().is_none_or(|extras| extras.wakers.is_none()) {
            let polled = poll(&mut self.driver, cx);
            if polled.is_ready() {
                return polled;
            }
        }
        let wakers = &mut self.extras.get_or_insert_default().wakers;
        wakers
            .get_or_insert_with(|| Box::new(StreamSinkWakers::new()))
            .poll(used_as, &mut self.driver, cx, poll)
    }
}

/// Yields messages until the connection is closed. An error is yielded once, then `None`.
///
/// `Stream` and [`Sink`] may be used in two tasks, for example with `futures`' `StreamExt::split`: each keeps its own
/// waker. [`split`](WebSocket::split) does the same at a lower cost, and supports any number of senders.
impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_as(UsedAs::Stream, cx, Driver::poll_next)
    }
}

/// `send` and `feed` of `futures::SinkExt` behave like the methods of the same name. `close` sends a close frame with
/// 1000 after everything queued and flushes it, but does not wait for the peer's; the [`Stream`] yields the messages
/// that still arrive and then ends.
///
/// Items are all types that convert into an [`Outbound`]. `SinkExt::close` and `SinkExt::flush` take no item, so the
/// type has to be named: `SinkExt::<Message>::close(&mut ws)`.
///
/// [`try_send`](WebSocket::try_send) may use up the capacity that `poll_ready` reported.
impl<T: Into<Outbound>> Sink<T> for WebSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_as(UsedAs::Sink, cx, |driver, cx| driver.poll_capacity_for(cx, 0))
    }

    fn start_send(mut self: Pin<&mut Self>, message: T) -> Result<(), Error> {
        self.driver.queue(&message.into())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_as(UsedAs::Sink, cx, Driver::poll_flush)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_as(UsedAs::Sink, cx, |driver, cx| {
            driver.start_close(CloseCode::NORMAL, "")?;
            driver.poll_flush(cx)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn websocket_and_halves_are_send_and_sync() {
        fn check<T: Send + Sync + 'static>() {}
        check::<WebSocket>();
        check::<crate::Sender>();
        check::<crate::Receiver>();
        check::<crate::Permit>();
        check::<crate::Outbox>();
        check::<Error>();
        check::<crate::Client>();
        check::<crate::Server>();
    }
}
