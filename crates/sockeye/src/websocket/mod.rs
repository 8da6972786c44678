//! The connection as its user sees it.

pub(crate) mod batch;
mod flush_batch;
mod halves;
mod sender_sink;
mod shared;
pub(crate) mod split;
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
use crate::settings::Settings;
use crate::transport::Io;
use crate::transport::socket;
use crate::websocket::halves::{Half, Halves};
use crate::websocket::split::{Receiver, Sender};
use crate::websocket::try_recv::TryRecvError;
use crate::websocket::try_send::TrySendError;

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
/// | [`ping`](Self::ping), [`send_ping`](Self::send_ping) | nothing; the ping leaves with the next call |
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

    /// Receives the next message, ping or pong. `None` after a normal [end](Self#the-end), from then on. Pings are answered and
    /// the round-trip time is measured as with [`recv`](Self::recv), which leaves control frames out.
    ///
    /// Control frames that arrive while another method receives ahead are kept if this was the last method that received.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv): the peer closed with another code than 1000 and 1001, is gone or broke the protocol, or the
    /// connection was lost.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn recv_event(&mut self) -> impl Future<Output = Result<Option<Event>, Error>> {
        poll_fn(|cx| self.driver.poll_recv_event(cx))
    }

    /// Receives a message that has already arrived, and never waits. Reads the socket if nothing is left of the last read.
    ///
    /// Before an awaited [`recv`](Self::recv), this drains the rest of a burst at the least cost, as in this loop beside a
    /// shutdown signal. `select!` costs as much as a small message, and here it runs once for each burst:
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
    /// Where it finds nothing, it does what `recv` does before it waits: it writes what is queued, answers pings and looks at
    /// the deadlines. A program that looks in regularly, such as a game loop, needs no `recv`. It also gives
    /// [`TryRecvError::Empty`] when this connection has had its turn, so a loop over it cannot starve other tasks.
    ///
    /// It takes the place of a pending [`recv`](Self::recv) that is still held: poll that again afterwards.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], or the [end](Self#the-end) of the connection. `recv` and later calls give the end too.
    pub fn try_recv(&mut self) -> Result<Message, TryRecvError> {
        match self.extras.as_ref().and_then(|extras| extras.halves.as_ref()) {
            None => try_recv::try_recv(&mut self.driver, Waker::noop()),
            // Tasks that wait for the stream or the sink are woken as before.
            Some(halves) => try_recv::try_recv(&mut self.driver, halves.waker()),
        }
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
    pub async fn send(&mut self, message: impl Into<Outbound>) -> Result<(), Error> {
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
    pub fn feed(&mut self, message: impl Into<Outbound>) -> impl Future<Output = Result<(), Error>> {
        let message = message.into();
        poll_fn(move |cx| self.driver.poll_feed(cx, &message))
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
    /// [`TrySendError::Full`] gives the message back, and says how much is queued and since when there has been no room.
    /// [`TrySendError::Closed`]: the connection is closed or lost.
    pub fn try_send(&mut self, message: impl Into<Outbound>) -> Result<(), TrySendError> {
        try_send::try_send(&mut self.driver, message.into())
    }

    /// Sends a ping and waits for its pong: the round-trip time. If a ping is unanswered already, this waits for its pong.
    ///
    /// While it waits, messages are received ahead of [`recv`](Self::recv), up to
    /// [`Limits::read_ahead_max`](crate::Limits::read_ahead_max). Silent peers are pinged anyway: see
    /// [`Keepalive`](crate::Keepalive), which also limits how long this waits.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly. If the pong waits behind more messages than may be
    /// received ahead ([`Error::is_invalid_input`]), receive them: the connection goes on.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost. The ping leaves with the next call, and its pong updates [`rtt`](Self::rtt).
    pub async fn ping(&mut self) -> Result<Duration, Error> {
        let number = self.driver.start_ping()?;
        poll_fn(|cx| self.driver.poll_pong(cx, number)).await
    }

    /// Sends a ping with a payload of at most 125 bytes (RFC 6455 §5.5.2), and does not wait for its pong. The pong is
    /// received within [`recv`](Self::recv), and updates [`rtt`](Self::rtt).
    ///
    /// # Errors
    ///
    /// The payload is too long ([`Error::is_invalid_input`]), the connection is closed or lost, or the peer reads too slowly.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost; the ping leaves with the next call.
    pub async fn send_ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.driver.send_ping(payload)?;
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
    pub async fn send_pong(&mut self, payload: &[u8]) -> Result<(), Error> {
        poll_fn(|cx| self.driver.poll_feed_pong(cx, payload)).await?;
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
/// The items are everything that converts into an [`Outbound`]. `SinkExt::close` and `SinkExt::flush` take no item, so their
/// type has to be named: `SinkExt::<Message>::close(&mut ws)`.
///
/// [`try_send`](WebSocket::try_send) may use up the capacity that `poll_ready` reported.
impl<T: Into<Outbound>> Sink<T> for WebSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_half(Half::Sink, cx, |driver, cx| driver.poll_room_for(cx, 0))
    }

    fn start_send(mut self: Pin<&mut Self>, message: T) -> Result<(), Error> {
        self.driver.queue(&message.into())
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
