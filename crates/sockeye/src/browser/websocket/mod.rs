//! The connection as an application uses it.

mod sink;
pub(crate) mod split;
pub(crate) mod try_send;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_sink::Sink;
use sockeye_proto::{CloseCode, CloseInfo};

use crate::browser::connection::{Connection, Owner};
use crate::browser::drain::{Drain, Until};
use crate::browser::websocket::sink::CapacityWait;
use crate::browser::websocket::try_send::TrySendError;
use crate::error::Error;
use crate::error::try_recv::TryRecvError;
use crate::message::Message;
use crate::message::outbound::Outbound;

/// An open WebSocket of the browser.
///
/// The browser answers pings, and receives while no method is awaited: messages wait here for [`recv`](Self::recv), up
/// to [`Limits::read_ahead_max`](crate::Limits::read_ahead_max). To send and receive in different tasks,
/// [`split`](Self::split) it. It is not `Send`: spawn tasks with `wasm_bindgen_futures::spawn_local`.
///
/// Dropping it sends what was queued and then a close frame without a code (the peer sees 1005), without waiting. Its
/// event handlers are removed.
///
/// # The end
///
/// [`recv`](Self::recv) reports the end of the connection, after every message that arrived before it:
///
/// | what happened | `recv` | `send`, `feed`, `flush` |
/// |---|---|---|
/// | the peer closed with 1000, 1001 or without a code | `Ok(None)` | an error, [`is_normal_close`](Error::is_normal_close) |
/// | this side closed, and the peer answered or ended TCP | `Ok(None)` | an error, `is_normal_close` |
/// | the peer closed with any other code | an error with [`close_code`](Error::close_code) | an error with that code |
/// | the connection was lost, the peer violated the protocol, or more messages arrived than may wait | an error | an error |
///
/// The end is reported when the browser has closed the connection, which it does after the server has closed TCP.
/// [`close_info`](Self::close_info) returns both close frames. The browser does not show its answer to the peer's close
/// frame: it is taken to repeat the code (RFC 6455 §5.5.1).
///
/// # Cancel safety
///
/// Every future of this type may be dropped at any point, in `select!` or by a timeout, and the connection remains
/// usable:
///
/// | dropped future | what is lost |
/// |---|---|
/// | [`recv`](Self::recv) | nothing |
/// | [`send`](Self::send), [`feed`](Self::feed) | the message, if there was no room for it yet |
/// | [`flush`](Self::flush) | nothing; the browser continues |
/// | [`close`](Self::close) | nothing; the browser continues the closing handshake, and its timeout keeps running |
#[derive(Debug)]
pub struct WebSocket {
    owner: Owner,
    room: CapacityWait,
}

impl WebSocket {
    pub(crate) fn new(owner: Owner) -> Self {
        Self {
            owner,
            room: CapacityWait::default(),
        }
    }

    fn connection(&self) -> &Rc<Connection> {
        self.owner.connection()
    }

    /// Receives the next message. Returns `None` after a normal [end](Self#the-end), and for every later call.
    ///
    /// # Errors
    ///
    /// The peer closed with a code other than 1000 or 1001 ([`Error::close_code`]), the connection was lost, or
    /// messages exceeded [`Limits::read_ahead_max`](crate::Limits::read_ahead_max) or
    /// [`Limits::message_size_max`](crate::Limits::message_size_max). Later calls return the same error.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        poll_fn(|cx| self.connection().state().poll_recv(cx))
    }

    /// Receives a message that has already arrived, without waiting.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], or the [end](Self#the-end) of the connection, which `recv` and later calls report too.
    pub fn try_recv(&mut self) -> Result<Message, TryRecvError> {
        self.connection().state().try_recv()
    }

    /// Sends a message: gives it to the browser. Waits only while more than
    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max) would then wait in the browser. To wait until it is
    /// sent, use [`flush`](Self::flush) after it.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the browser sent less than
    /// [`Limits::write_rate_min`](crate::Limits::write_rate_min) for [`Timeouts::write`](crate::Timeouts::write).
    ///
    /// # Cancel safety
    ///
    /// If there is no room yet, the message is not sent.
    pub async fn send(&mut self, message: impl Into<Outbound>) -> Result<(), Error> {
        self.feed(message).await
    }

    /// Does the same as [`send`](Self::send): the browser batches messages by itself.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send): the connection is closed or lost, or the browser sends too slowly.
    ///
    /// # Cancel safety
    ///
    /// If there is no room yet, the message is not sent.
    pub async fn feed(&mut self, message: impl Into<Outbound>) -> Result<(), Error> {
        feed(self.connection(), &message.into()).await
    }

    /// Waits until the browser has passed everything to the network. It has no event for that, so this looks every 4 to
    /// 32 ms.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send): the connection is closed or lost, or the browser sends too slowly.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn flush(&mut self) -> Result<(), Error> {
        Drain::new(self.connection().clone(), Until::Empty).await
    }

    /// Sends a message if there is room, without waiting.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] returns the message and the number of bytes that wait in the browser.
    /// [`TrySendError::Closed`]: the connection is closed or lost.
    pub fn try_send(&mut self, message: impl Into<Outbound>) -> Result<(), TrySendError> {
        try_send::try_send(self.connection(), message.into())
    }

    /// Closes the connection: sends the close frame after everything queued, and waits for the end of the connection.
    /// The browser discards messages that arrive meanwhile.
    ///
    /// The peer has [`Timeouts::close`](crate::Timeouts::close) to answer. The time begins again while the browser
    /// sends what was queued at [`Limits::write_rate_min`](crate::Limits::write_rate_min) or faster. A peer that closes
    /// TCP instead counts as having answered. Returns immediately if the connection has ended.
    ///
    /// # Errors
    ///
    /// The connection was lost before, or the peer does not answer ([`Error::is_timeout`]). If the browser does not
    /// send the code (it sends 1000 and 3000 to 4999) or the reason is longer than 123 bytes
    /// ([`Error::is_invalid_input`]), the connection is closed with the nearest valid ones: a code of the protocol,
    /// such as 1011, becomes 4011.
    ///
    /// # Cancel safety
    ///
    /// The browser continues the closing handshake.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let started = self.start_close(code, reason);
        let closed = poll_fn(|cx| self.connection().state().poll_end(cx)).await;
        // The caller's own mistake first: it would be hidden by a peer that does not answer.
        started.and(closed)
    }

    /// Begins the closing handshake without waiting: the close frame is sent after everything queued. Messages that
    /// arrived before can still be received; the browser discards later ones.
    ///
    /// # Errors
    ///
    /// The browser does not send the code, or the reason is too long. The connection is closed anyway: see
    /// [`close`](Self::close).
    pub fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.connection().start_close(code, reason)
    }

    /// How the connection was closed, as far as is known yet. `None` while it is open.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        self.connection().state().close_info()
    }

    /// Whether messages can still be sent: neither side has begun to close, and the connection is not known to be lost.
    pub fn is_open(&self) -> bool {
        is_open(self.connection())
    }

    /// The negotiated subprotocol.
    pub fn subprotocol(&self) -> Option<&str> {
        self.connection().subprotocol()
    }
}

/// Waits for room, and gives a message to the browser.
async fn feed(connection: &Rc<Connection>, message: &Outbound) -> Result<(), Error> {
    Drain::new(connection.clone(), Until::Capacity(message.len())).await?;
    connection.give(message)
}

fn is_open(connection: &Connection) -> bool {
    connection.takes_messages() && connection.state().send_error().is_none()
}

/// Yields messages until the connection is closed. An error is yielded once, then `None`.
///
/// `Stream` and [`Sink`] may be used in two tasks, for example with `futures`' `StreamExt::split`.
/// [`split`](WebSocket::split) does the same, and supports any number of senders.
impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connection().state().poll_next(cx)
    }
}

/// `feed` of `futures::SinkExt` behaves like the method of the same name. Flushing does not wait, because the browser
/// sends what it was given by itself. `close` sends a close frame with 1000, and does not wait for the peer's.
///
/// Items are all types that convert into an [`Outbound`]. `SinkExt::close` and `SinkExt::flush` take no item, so the
/// type has to be named: `SinkExt::<Message>::close(&mut ws)`.
impl<T: Into<Outbound>> Sink<T> for WebSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { owner, room } = &mut *self;
        room.poll(owner.connection(), cx)
    }

    fn start_send(self: Pin<&mut Self>, message: T) -> Result<(), Error> {
        self.connection().give(&message.into())
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        sink::poll_flush(self.connection())
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        sink::poll_close(self.connection())
    }
}
