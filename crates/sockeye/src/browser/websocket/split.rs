//! Split connections: several tasks share one connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_sink::Sink;
use sockeye_proto::{CloseCode, CloseInfo};

use crate::browser::connection::{Connection, Owner};
use crate::browser::drain::{Drain, Until};
use crate::browser::websocket::sink::{self, CapacityWait};
use crate::browser::websocket::try_send::{self, TrySendError};
use crate::browser::websocket::{WebSocket, feed, is_open};
use crate::error::Error;
use crate::error::try_recv::TryRecvError;
use crate::message::Message;
use crate::message::outbound::Outbound;

/// Sending half of a connection that was [split](crate::WebSocket::split). Clones send on the same connection.
///
/// Dropping the [`Receiver`] closes the connection; dropping all senders does not. Its futures are cancel-safe like
/// those of [`WebSocket`](crate::WebSocket). It is also a [`Sink`].
#[derive(Debug)]
pub struct Sender {
    connection: Rc<Connection>,
    room: CapacityWait,
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self {
            connection: self.connection.clone(),
            room: CapacityWait::default(),
        }
    }
}

/// Receiving half of a connection that was [split](crate::WebSocket::split).
///
/// Dropping it closes the connection as dropping a [`WebSocket`](crate::WebSocket) does. Senders that are left fail
/// from then on.
#[derive(Debug)]
pub struct Receiver {
    owner: Owner,
}

impl WebSocket {
    /// Splits the connection into a cloneable sender and a receiver, which can be used in different tasks.
    pub fn split(self) -> (Sender, Receiver) {
        let sender = Sender {
            connection: self.owner.connection().clone(),
            room: CapacityWait::default(),
        };
        (sender, Receiver { owner: self.owner })
    }
}

impl Sender {
    /// Sends a message: gives it to the browser. Waits only while more than
    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max) would then wait in the browser.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the browser sends too slowly: see
    /// [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// If there is no room yet, the message is not sent.
    pub async fn send(&self, message: impl Into<Outbound>) -> Result<(), Error> {
        self.feed(message).await
    }

    /// Does the same as [`send`](Self::send): the browser batches messages by itself.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the browser sends too slowly: see
    /// [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// If there is no room yet, the message is not sent.
    pub async fn feed(&self, message: impl Into<Outbound>) -> Result<(), Error> {
        feed(&self.connection, &message.into()).await
    }

    /// Waits until the browser has passed everything to the network: see
    /// [`WebSocket::flush`](crate::WebSocket::flush).
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the browser sends too slowly: see
    /// [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn flush(&self) -> Result<(), Error> {
        Drain::new(self.connection.clone(), Until::Empty).await
    }

    /// Sends a message if there is room, without waiting.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] returns the message and the number of bytes that wait in the browser.
    /// [`TrySendError::Closed`]: the connection is closed or lost.
    pub fn try_send(&self, message: impl Into<Outbound>) -> Result<(), TrySendError> {
        try_send::try_send(&self.connection, message.into())
    }

    /// Begins the closing handshake. The receiver returns the messages that have arrived, then `None` when the peer has
    /// answered.
    ///
    /// # Errors
    ///
    /// The browser does not send the code, or the reason is too long. The connection is closed anyway: see
    /// [`WebSocket::close`](crate::WebSocket::close).
    ///
    /// # Cancel safety
    ///
    /// The closing handshake begins with the first poll, which completes.
    pub async fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.start_close(code, reason)
    }

    /// Begins the closing handshake without waiting: see [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// The browser does not send the code, or the reason is too long. The connection is closed anyway.
    pub fn start_close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.connection.start_close(code, reason)
    }

    /// Waits until no message can be sent any more: either side has begun to close, or the connection is lost. Returns
    /// immediately if that is already so.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn closed(&self) {
        let mut watch = Watch {
            connection: &self.connection,
            id: None,
        };
        poll_fn(|cx| watch.connection.state().poll_closed(cx, &mut watch.id)).await;
    }

    /// The number of bytes that wait in the browser: its `bufferedAmount`.
    pub fn queued_bytes(&self) -> usize {
        self.connection.queued_bytes()
    }

    /// How the connection was closed, as far as is known yet. `None` while it is open.
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.connection.state().close_info().cloned()
    }

    /// Whether messages can still be sent.
    pub fn is_open(&self) -> bool {
        is_open(&self.connection)
    }

    /// The negotiated subprotocol.
    pub fn subprotocol(&self) -> Option<&str> {
        self.connection.subprotocol()
    }
}

impl Receiver {
    /// Receives the next message. Returns `None` after a [normal end](crate::WebSocket#the-end), and for every later
    /// call.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::recv`](crate::WebSocket::recv): the peer closed with a code other than 1000 or 1001, the
    /// connection was lost, or a limit was exceeded. Later calls return the same error.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        poll_fn(|cx| self.owner.connection().state().poll_recv(cx))
    }

    /// Receives a message that has already arrived, without waiting.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], or the [end](crate::WebSocket#the-end) of the connection, which `recv` and later calls
    /// report too.
    pub fn try_recv(&mut self) -> Result<Message, TryRecvError> {
        self.owner.connection().state().try_recv()
    }

    /// How the connection was closed, as far as is known yet. `None` while it is open.
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.owner.connection().state().close_info().cloned()
    }

    /// The negotiated subprotocol.
    pub fn subprotocol(&self) -> Option<&str> {
        self.owner.connection().subprotocol()
    }
}

/// A task that waits in [`Sender::closed`].
struct Watch<'a> {
    connection: &'a Connection,
    id: Option<u64>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.connection.state().forget(id);
        }
    }
}

/// Yields messages until the connection is closed. An error is yielded once, then `None`.
impl Stream for Receiver {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.owner.connection().state().poll_next(cx)
    }
}

/// See the [`Sink`] of [`WebSocket`](crate::WebSocket). Each clone is a sink of its own.
impl<T: Into<Outbound>> Sink<T> for Sender {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { connection, room } = &mut *self;
        room.poll(connection, cx)
    }

    fn start_send(self: Pin<&mut Self>, message: T) -> Result<(), Error> {
        self.connection.give(&message.into())
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        sink::poll_flush(&self.connection)
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        sink::poll_close(&self.connection)
    }
}
