//! The connection as its user sees it.

pub(crate) mod batch;
mod flush_batch;
mod halves;
pub(crate) mod sender_sink;
mod shared;
pub(crate) mod split;
pub(crate) mod try_lock;
pub(crate) mod wakers;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_sink::Sink;
use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams};
use sockeye_proto::{CloseCode, CloseInfo, Compress, Role};

use crate::endpoint::Driver;
use crate::error::Error;
use crate::message::Message;
use crate::message::outbound::OutboundMessage;
use crate::message::prepared::PreparedMessage;
use crate::settings::Settings;
use crate::transport::Io;
use crate::transport::socket;
use crate::websocket::halves::{Half, Halves};
use crate::websocket::split::{Receiver, Sender};

/// An open WebSocket, client or server, whatever it runs over.
///
/// One task at a time uses it. Deadlines and pings run only inside [`recv`](Self::recv) and [`close`](Self::close); to send
/// from another task, [`split`](Self::split) it. A task that only sends should split it too, and receive in another task.
///
/// Dropping it closes TCP without a closing handshake, and the peer sees 1006. If the closing handshake has begun, a task
/// of the current runtime finishes it in the background, within the deadlines in [`Timeouts`](crate::Timeouts).
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
/// | the peer broke the protocol or vanished, or reset the connection before this side had sent a close frame | an error | an error |
///
/// It does so as soon as the peer's close frame has arrived. [`close_info`](Self::close_info) has both close frames.
///
/// # Cancel safety
///
/// Every future of this type may be dropped at any point, in `select!` or by a timeout, and the connection goes on:
///
/// | dropped | what is lost |
/// |---|---|
/// | [`recv`](Self::recv) | nothing; what has arrived of a message stays |
/// | [`send`](Self::send), [`feed`](Self::feed) | the message, if there was no room for it yet; once queued, it leaves whole |
/// | [`flush`](Self::flush) | nothing; what is queued leaves with the next call |
/// | [`ping`](Self::ping) | nothing; the ping leaves with the next call |
/// | [`close`](Self::close) | nothing; the handshake has begun and goes on with `recv` or `close`, its deadline running |
#[derive(Debug)]
pub struct WebSocket {
    driver: Driver,
    /// In a box, for most connections have none.
    extras: Option<Box<Extras>>,
}

/// What few connections have.
#[derive(Debug, Default)]
struct Extras {
    subprotocol: Option<Box<str>>,
    halves: Option<Box<Halves>>,
}

impl WebSocket {
    pub(crate) fn new(
        io: Box<dyn Io>,
        role: Role,
        settings: Arc<Settings>,
        read_buf: Vec<u8>,
        subprotocol: Option<&str>,
    ) -> Self {
        Self {
            driver: Driver::new(io, role, settings, read_buf),
            extras: subprotocol.map(|subprotocol| {
                Box::new(Extras {
                    subprotocol: Some(subprotocol.into()),
                    halves: None,
                })
            }),
        }
    }

    pub(crate) fn enable_deflate(&mut self, config: &DeflateConfig, agreement: NegotiatedParams) {
        self.driver.enable_deflate(config, agreement);
    }

    /// Receives the next message. `None` after a normal [end](Self#the-end), from then on.
    ///
    /// What [`feed`](Self::feed) queued is written before this waits, so a loop of `recv` and `feed` makes one write
    /// for each burst of messages. After the end, each call lets other tasks run.
    ///
    /// # Errors
    ///
    /// The peer closed with another code than 1000 and 1001 ([`Error::close_code`]), is gone ([`Error::is_timeout`]) or
    /// broke the protocol ([`Error::is_protocol`]), or the connection was lost. The same error from then on.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    // Not `async`, as `feed` is not: the message would be moved once more, 7 ns in bursts of small ones.
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        poll_fn(|cx| self.driver.poll_recv(cx))
    }

    /// Sends a message; returns when its bytes, and those of all before it, are with the kernel.
    ///
    /// While it waits for the peer, messages of the peer are received ahead of [`recv`](Self::recv), up to
    /// [`Limits::read_ahead_max`](crate::Limits::read_ahead_max): two peers that both send much before they receive do not
    /// wait for each other.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer took less than
    /// [`Limits::write_rate_min`](crate::Limits::write_rate_min) for [`Timeouts::write`](crate::Timeouts::write).
    ///
    /// # Cancel safety
    ///
    /// A message that was not queued yet, because too much was waiting already, is not sent. Otherwise it leaves
    /// whole, with the next call.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Queues a message; waits only while it would go beyond [`Limits::write_buffer_max`](crate::Limits::write_buffer_max),
    /// or while an earlier one is being compressed.
    ///
    /// One of more than 64 KiB is compressed part by part, where that was negotiated, as its parts leave: other tasks have
    /// their turns between. If its first 64 KiB do not get smaller, all of it leaves as it is.
    ///
    /// It leaves with [`flush`](Self::flush), at the latest when [`recv`](Self::recv) waits for more, and earlier if
    /// much is queued. Cheaper than [`send`](Self::send) for several messages at once.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued one leaves whole, with the next call.
    // Not `async`: each layer of it would keep a copy of the message in the future, and so in every task that feeds.
    pub fn feed(&mut self, message: impl Into<Message>) -> impl Future<Output = Result<(), Error>> {
        self.feed_with(message, Compress::Auto)
    }

    /// Queues a message, and says whether to compress it where compression was negotiated. Waits only for room: see
    /// [`feed`](Self::feed).
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued one leaves whole, with the next call.
    pub fn feed_with(
        &mut self,
        message: impl Into<Message>,
        compress: Compress,
    ) -> impl Future<Output = Result<(), Error>> {
        let message = OutboundMessage::new(message.into(), compress);
        poll_fn(move |cx| self.driver.poll_feed(cx, &message))
    }

    /// Sends a prepared message, which other connections are sent too; returns when its bytes are with the kernel: see
    /// [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued one leaves whole, with the next call.
    pub async fn send_prepared(&mut self, prepared: &PreparedMessage) -> Result<(), Error> {
        self.feed_prepared(prepared).await?;
        self.flush().await
    }

    /// Queues a prepared message, which other connections are sent too. Waits only for room: see [`feed`](Self::feed).
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued one leaves whole, with the next call.
    pub async fn feed_prepared(&mut self, prepared: &PreparedMessage) -> Result<(), Error> {
        poll_fn(|cx| self.driver.poll_feed_prepared(cx, prepared)).await
    }

    /// Hands everything that is queued to the kernel.
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

    /// Queues a message if there is room for it now, and never waits. It leaves as with [`feed`](Self::feed). There is no
    /// room while a large message is being compressed.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] gives the message back. [`TrySendError::Closed`]: the connection is closed or lost.
    pub fn try_send(&mut self, message: impl Into<Message>) -> Result<(), TrySendError> {
        try_send(&mut self.driver, message.into())
    }

    /// Queues a prepared message, which other connections are sent too, if there is room for it now, and never waits. The
    /// call may compress it: see [`PreparedMessage`].
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] gives the message back. [`TrySendError::Closed`]: the connection is closed or lost.
    pub fn try_send_prepared(&mut self, prepared: &PreparedMessage) -> Result<(), TrySendError> {
        try_send_prepared(&mut self.driver, prepared)
    }

    /// Sends a ping with a payload of at most 125 bytes (RFC 6455 §5.5.2). Its pong is received within
    /// [`recv`](Self::recv), and updates [`rtt`](Self::rtt).
    ///
    /// Silent peers are pinged anyway: see [`Keepalive`](crate::Keepalive).
    ///
    /// # Errors
    ///
    /// The payload is too long ([`Error::is_invalid_input`]), the connection is closed or lost, or the peer reads too slowly.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.driver.ping(payload)?;
        self.flush().await
    }

    /// Closes the connection: sends the close frame after everything queued, and waits for the peer's. Messages that arrive
    /// meanwhile are dropped; to have them, call [`start_close`](Self::start_close) and go on receiving.
    ///
    /// The peer has [`Timeouts::close`](crate::Timeouts::close) to answer, counted from when the close frame was written.
    /// A peer that ends TCP instead of answering has closed too. Returns at once if the connection is closed already.
    ///
    /// # Errors
    ///
    /// The peer did not answer in time, or broke the protocol, or the connection was lost. If the code or reason may not be
    /// sent ([`Error::is_invalid_input`]; a reason has at most 123 bytes, see [`truncate_close_reason`](crate::truncate_close_reason)),
    /// the connection is closed with the nearest ones that may: see [`CloseFrame::new_lossy`](crate::CloseFrame::new_lossy).
    /// In every case the connection is closed afterwards.
    ///
    /// # Cancel safety
    ///
    /// The closing handshake has begun and goes on with the next call of this or [`recv`](Self::recv), or in the background
    /// when the connection is dropped.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let started = self.start_close(code, reason);
        poll_fn(|cx| self.driver.poll_close(cx)).await?;
        started
    }

    /// Begins to close, without waiting: the close frame leaves after everything queued, when [`recv`](Self::recv) is
    /// next awaited, or in the background when the connection is dropped. Messages of the peer are received until its
    /// close frame comes.
    ///
    /// # Errors
    ///
    /// The code or reason may not be sent. The connection is closing all the same, with the nearest ones that may:
    /// see [`CloseFrame::new_lossy`](crate::CloseFrame::new_lossy).
    pub fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.driver.start_close(code, reason)
    }

    /// Closes TCP at once, also where the closing handshake has begun. What is queued is lost and the peer sees 1006.
    pub fn abort(mut self) {
        self.driver.abort();
    }

    /// How the connection was closed, as far as it is known; `None` while it is open.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        self.driver.connection().close_info()
    }

    /// Whether messages can still be sent: neither side has begun to close, and the connection is not known to be lost.
    pub fn is_open(&self) -> bool {
        self.driver.is_open()
    }

    /// The round-trip time of the newest answered ping.
    pub fn rtt(&self) -> Option<Duration> {
        self.driver.connection().rtt()
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.extras.as_ref()?.subprotocol.as_deref()
    }

    /// What was agreed on for permessage-deflate (RFC 7692); `None` if messages are not compressed.
    pub fn negotiated_deflate(&self) -> Option<NegotiatedParams> {
        self.driver.connection().negotiated_deflate()
    }

    /// The address of the peer, or of the proxy in between. `None` once the transport is closed, and where it is neither a
    /// `TcpStream` nor a TLS stream of tokio-rustls over one. A system call.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        socket::peer_addr(self.driver.transport()?)
    }

    /// The local address: `None` where [`peer_addr`](Self::peer_addr) is. A system call.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        socket::local_addr(self.driver.transport()?)
    }

    /// The certificates that the peer presented, its own first: those of the server, or those of a client that the server's
    /// TLS configuration asked for one. `None` without TLS, once the transport is closed, and where TLS is not over a
    /// `TcpStream`.
    #[cfg(feature = "tls")]
    pub fn peer_certificates(&self) -> Option<&[rustls::pki_types::CertificateDer<'static>]> {
        socket::peer_certificates(self.driver.transport()?)
    }

    /// Splits into a sender, which can be cloned, and a receiver, for different tasks.
    pub fn split(self) -> (Sender, Receiver) {
        let subprotocol = self.extras.and_then(|extras| extras.subprotocol);
        crate::websocket::split::split(self.driver, subprotocol)
    }

    /// Polls as a [`Stream`] or a [`Sink`], which two tasks may use at the same time.
    fn poll_half<R>(
        &mut self,
        half: Half,
        cx: &mut Context<'_>,
        poll: impl Fn(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        if self.extras.as_ref().is_none_or(|extras| extras.halves.is_none()) {
            let polled = poll(&mut self.driver, cx);
            if polled.is_ready() {
                return polled;
            }
        }
        let halves = &mut self.extras.get_or_insert_default().halves;
        halves
            .get_or_insert_with(|| Box::new(Halves::new()))
            .poll(half, &mut self.driver, cx, poll)
    }
}

/// A message could not be queued.
#[derive(Clone, Debug)]
pub enum TrySendError {
    /// Too much waits to be written already, or a large message is being compressed. The message is given back.
    Full(Message),
    /// The connection is closed or lost.
    Closed(Error),
}

impl std::fmt::Display for TrySendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(_) => f.write_str("too much waits to be written"),
            Self::Closed(error) => std::fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for TrySendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full(_) => None,
            Self::Closed(error) => error.source(),
        }
    }
}

/// Not all of several messages could be queued.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrySendAllError {
    /// How many were.
    pub queued: usize,
    /// Why the next one was not.
    pub cause: TrySendError,
}

impl std::fmt::Display for TrySendAllError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} messages were queued, then: {}", self.queued, self.cause)
    }
}

impl std::error::Error for TrySendAllError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

pub(crate) fn try_send(driver: &mut Driver, message: Message) -> Result<(), TrySendError> {
    if !driver.has_room_for(message.len()) {
        return Err(TrySendError::Full(message));
    }
    driver
        .queue(&OutboundMessage::new(message, Compress::Auto))
        .map_err(TrySendError::Closed)
}

pub(crate) fn try_send_prepared(driver: &mut Driver, prepared: &PreparedMessage) -> Result<(), TrySendError> {
    if !driver.has_room_for(prepared.message().len()) {
        return Err(TrySendError::Full(prepared.message().clone()));
    }
    driver.queue_prepared(prepared).map_err(TrySendError::Closed)
}

/// The messages until the connection is closed. After an error comes the end.
///
/// `Stream` and [`Sink`] may be used from two tasks, as with `StreamExt::split` of futures: each has a waker of its own.
/// [`split`](WebSocket::split) does the same at less cost, and for any number of senders.
impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_half(Half::Stream, cx, Driver::poll_next)
    }
}

/// `send` and `feed` of `futures::SinkExt` do as the methods of the same name. `close` sends the close frame with 1000
/// after everything queued, and flushes it; it does not wait for the peer's, and takes no messages from the [`Stream`], which
/// gives those that still arrive and then ends.
///
/// [`try_send`](WebSocket::try_send) may use up the capacity that `poll_ready` reported.
impl Sink<Message> for WebSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_half(Half::Sink, cx, |driver, cx| driver.poll_room_for(cx, 0))
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.driver.queue(&OutboundMessage::new(message, Compress::Auto))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_half(Half::Sink, cx, Driver::poll_flush)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_half(Half::Sink, cx, |driver, cx| {
            driver.start_close(CloseCode::NORMAL, "")?;
            driver.poll_flush(cx)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn websockets_and_their_halves_are_send_and_sync() {
        fn check<T: Send + Sync + 'static>() {}
        check::<WebSocket>();
        check::<Sender>();
        check::<Receiver>();
        check::<Error>();
        check::<crate::Client>();
        check::<crate::Server>();
    }
}
