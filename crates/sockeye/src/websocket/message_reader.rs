//! Receiving one message as a byte stream.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sockeye_proto::MessageKind;
use tokio::io::{AsyncRead, ReadBuf};

use crate::endpoint::{Driver, StreamRead};
use crate::error::Error;
use crate::websocket::WebSocket;
use crate::websocket::split::Receiver;

/// A message that is received while it arrives, as an [`AsyncRead`]: see
/// [`WebSocket::recv_stream`](crate::WebSocket::recv_stream).
///
/// Reading returns the payload, decompressed if it was compressed, and 0 bytes at the end of the message. The
/// boundaries of fragments are not visible. The payload of a text message is validated as UTF-8 while it arrives; a
/// code point may be split between two reads.
///
/// Nothing is received faster than it is read: a slow reader slows down the peer through TCP.
///
/// # Errors
///
/// If the connection fails or is closed before the end of the message, reading fails with
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) or the [kind of the error](Error#impl-From<Error>-for-Error):
/// a truncated message never looks complete. The source is an [`Error`]. Invalid UTF-8 fails the connection with 1007.
///
/// # Cancel safety
///
/// Dropping a future that reads loses nothing. If this is dropped before the end of the message, the rest of the
/// message is discarded as it arrives, and the next `recv` or `recv_stream` returns the message behind it.
pub struct MessageReader<'a> {
    source: Source<'a>,
    kind: MessageKind,
    state: State,
}

pub(super) enum Source<'a> {
    WebSocket(&'a mut WebSocket),
    Receiver(&'a mut Receiver),
}

#[derive(Debug)]
enum State {
    Reading,
    Finished,
    Failed(Error),
}

impl WebSocket {
    /// Receives the next message as an [`AsyncRead`](tokio::io::AsyncRead) while it arrives, in constant memory: for
    /// files and other large messages. Returns once the first byte of the message, or its end, has arrived. Returns
    /// `None` after a normal [end](Self#the-end), and for every later call.
    ///
    /// [`Limits::message_size_max`](crate::Limits::message_size_max) does not apply: limit what you read with
    /// [`take`](tokio::io::AsyncReadExt::take) if you store it. A compressed message is decompressed while it arrives.
    /// The connection holds one read buffer of 128 KiB. A compressed message holds a codec of 62 KiB and a window of 32
    /// KiB in addition.
    ///
    /// ```
    /// # use tokio::io::AsyncWrite;
    /// # async fn receive(mut ws: sockeye::WebSocket, mut file: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    /// while let Some(mut message) = ws.recv_stream().await? {
    ///     tokio::io::copy(&mut message, &mut file).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// If a cancelled [`recv`](Self::recv) has received the beginning of the message, all of it is buffered, and its
    /// size is limited. Messages that a waiting `send` receives ahead are buffered, up to
    /// [`Limits::read_ahead_max`](crate::Limits::read_ahead_max).
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv): the peer closed with a code other than 1000 or 1001, does not answer or violated
    /// the protocol, or the connection was lost.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost. Dropping the [`MessageReader`] before the end of the message discards the rest of the message.
    pub async fn recv_stream(&mut self) -> Result<Option<MessageReader<'_>>, Error> {
        let kind = poll_fn(|cx| self.driver.poll_stream_start(cx)).await?;
        Ok(kind.map(|kind| MessageReader::new(Source::WebSocket(self), kind)))
    }
}

impl Receiver {
    /// Receives the next message as an [`AsyncRead`](tokio::io::AsyncRead) while it arrives, in constant memory: see
    /// [`WebSocket::recv_stream`](crate::WebSocket::recv_stream). Returns `None` after a
    /// [normal end](crate::WebSocket#the-end), and for every later call.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv): the peer closed with a code other than 1000 or 1001, does not answer or violated
    /// the protocol, or the connection was lost.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost. Dropping the [`MessageReader`] before the end of the message discards the rest of the message.
    pub async fn recv_stream(&mut self) -> Result<Option<MessageReader<'_>>, Error> {
        let kind = poll_fn(|cx| self.poll(cx, Driver::poll_stream_start)).await?;
        Ok(kind.map(|kind| MessageReader::new(Source::Receiver(self), kind)))
    }
}

impl<'a> MessageReader<'a> {
    pub(super) fn new(source: Source<'a>, kind: MessageKind) -> Self {
        Self {
            source,
            kind,
            state: State::Reading,
        }
    }

    /// Text or binary.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// Whether this is a text message.
    pub fn is_text(&self) -> bool {
        self.kind == MessageKind::Text
    }

    /// Whether the message was read to its end. It is, once a read has returned 0 bytes; often earlier.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }
}

impl AsyncRead for MessageReader<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match &this.state {
            State::Finished => return Poll::Ready(Ok(())),
            State::Failed(error) => return Poll::Ready(Err(read_error(error))),
            State::Reading if buffer.remaining() == 0 => return Poll::Ready(Ok(())),
            State::Reading => {}
        }
        let read = match &mut this.source {
            Source::WebSocket(ws) => ws.driver.poll_read_stream(cx, buffer),
            Source::Receiver(receiver) => receiver.poll(cx, |driver, cx| driver.poll_read_stream(cx, buffer)),
        };
        match ready!(read) {
            Ok(StreamRead::Bytes) => {}
            Ok(StreamRead::End) => this.state = State::Finished,
            Err(error) => {
                let read = read_error(&error);
                this.state = State::Failed(error);
                return Poll::Ready(Err(read));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The error of a message that ends too early.
pub(crate) fn read_error(error: &Error) -> io::Error {
    match error.is_normal_close() {
        true => io::Error::new(io::ErrorKind::UnexpectedEof, error.clone()),
        false => error.clone().into(),
    }
}

impl Drop for MessageReader<'_> {
    fn drop(&mut self) {
        if let State::Reading = self.state {
            match &mut self.source {
                Source::WebSocket(ws) => ws.driver.abandon_stream(),
                Source::Receiver(receiver) => receiver.abandon_stream(),
            }
        }
    }
}

impl fmt::Debug for MessageReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageReader")
            .field("kind", &self.kind)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
