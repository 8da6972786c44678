//! A connection as a byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sockeye_proto::{CloseCode, Compress, Data, Fragment, MessageKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::endpoint::{Driver, StreamFragment, StreamRead};
use crate::error::Error;
use crate::websocket::WebSocket;
use crate::websocket::message_reader::read_error;
use crate::websocket::stream_sink::UsedAs;

/// The maximum length of a message that one write sends.
const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// A connection that carries bytes in binary messages, as [`AsyncRead`] and [`AsyncWrite`]: see
/// [`WebSocket::into_io`](crate::WebSocket::into_io).
///
/// Reading returns the payloads of the peer's messages, whatever their size, without their boundaries. It returns 0
/// bytes after a normal end: a close frame with 1000, 1001 or no code. Any other end is an error, and so is a text
/// message, which closes the connection with 1003.
///
/// A write sends a message of up to 64 KiB. What the transport does not take at once is written by the next write,
/// flush or read. The two directions may be used by two tasks, for example with [`tokio::io::split`].
///
/// # Shutdown
///
/// Shutting down sends a close frame with 1000. A peer that follows RFC 6455 §5.5.1 answers it at once and then sends
/// nothing more; what it sent before can still be read. With [`half_close`](Self::half_close) on both sides, each
/// direction ends by itself, as in TCP.
///
/// Dropping it closes TCP without a closing handshake, unless it was shut down.
///
/// # Cancel safety
///
/// Nothing is lost if a future that reads, writes or flushes is dropped.
#[derive(Debug)]
pub struct WebSocketIo {
    ws: WebSocket,
    read: ReadState,
    is_shut_down: bool,
    /// Whether an empty message ends a direction.
    half_close: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadState {
    BetweenMessages,
    InMessage { is_empty: bool },
    Ended,
}

impl WebSocket {
    /// Converts the connection into a byte stream over binary messages, for byte protocols such as SSH: an
    /// [`AsyncRead`](tokio::io::AsyncRead) and [`AsyncWrite`](tokio::io::AsyncWrite).
    ///
    /// ```
    /// # async fn bridge(ws: sockeye::WebSocket, mut tcp: tokio::net::TcpStream) -> std::io::Result<()> {
    /// tokio::io::copy_bidirectional(&mut ws.into_io(), &mut tcp).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_io(self) -> WebSocketIo {
        WebSocketIo::new(self)
    }
}

impl WebSocketIo {
    pub(super) fn new(ws: WebSocket) -> Self {
        Self {
            ws,
            read: ReadState::BetweenMessages,
            is_shut_down: false,
            half_close: false,
        }
    }

    /// Lets each direction end by itself: shutting down sends an empty binary message instead of a close frame, and the
    /// peer's empty message ends reading. Once both directions have ended, the connection is closed with 1000.
    ///
    /// This is not part of RFC 6455. Both peers must agree on it: another peer ignores an empty message or treats it as
    /// no bytes. Protocols that half-close need it, such as a request whose end is the end of the stream.
    #[must_use]
    pub fn half_close(mut self) -> Self {
        self.half_close = true;
        self
    }

    /// Returns the connection, for example for its statistics or to close it with another code. If a message is partly
    /// read, its rest is discarded.
    pub fn into_inner(mut self) -> WebSocket {
        if let ReadState::InMessage { .. } = self.read {
            self.ws.driver.abandon_stream();
        }
        self.ws
    }

    /// The connection.
    pub fn get_ref(&self) -> &WebSocket {
        &self.ws
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn driver(&mut self) -> &mut Driver {
        &mut self.ws.driver
    }

    /// Begins the closing handshake once both directions have ended.
    fn close_if_both_ended(&mut self) {
        if self.half_close && self.is_shut_down && self.read == ReadState::Ended {
            // Always valid.
            let _ = self.ws.driver.start_close(CloseCode::NORMAL, "");
        }
    }

    /// Writes a message, and as much of the queue as the transport takes.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<(), Error>> {
        let part = StreamFragment {
            data: Data::Binary(bytes),
            fragment: Fragment::Last,
            is_first: true,
            compress: Compress::Auto,
        };
        self.ws
            .poll_as(UsedAs::Sink, cx, |driver, cx| driver.poll_feed_fragment(cx, part))
    }
}

impl AsyncRead for WebSocketIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match this.read {
                ReadState::Ended => return Poll::Ready(Ok(())),
                ReadState::BetweenMessages => {
                    match ready!(this.ws.poll_as(UsedAs::Stream, cx, Driver::poll_stream_start))? {
                        None => this.read = ReadState::Ended,
                        Some(MessageKind::Binary) => this.read = ReadState::InMessage { is_empty: true },
                        Some(MessageKind::Text) => {
                            this.ws.driver.abandon_stream();
                            // Always valid.
                            let reason = "expected binary messages";
                            let _ = this.ws.driver.start_close(CloseCode::UNSUPPORTED_DATA, reason);
                            let error = "the peer sent a text message, but only binary messages carry the byte stream";
                            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                        }
                    }
                }
                ReadState::InMessage { is_empty } => {
                    let before = buffer.filled().len();
                    let read = this
                        .ws
                        .poll_as(UsedAs::Stream, cx, |driver, cx| driver.poll_read_stream(cx, buffer));
                    let read = ready!(read).map_err(|error| read_error(&error))?;
                    let has_read = buffer.filled().len() > before;
                    this.read = match read {
                        StreamRead::Bytes => ReadState::InMessage { is_empty: false },
                        StreamRead::End if this.half_close && is_empty && !has_read => ReadState::Ended,
                        StreamRead::End => ReadState::BetweenMessages,
                    };
                    this.close_if_both_ended();
                    if has_read {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl AsyncWrite for WebSocketIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_shut_down {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let len = bytes.len().min(MESSAGE_LEN_MAX);
        ready!(self.poll_send(cx, &bytes[..len]))?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ws
            .poll_as(UsedAs::Sink, cx, Driver::poll_flush)
            .map_err(io::Error::from)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_shut_down {
            match this.half_close {
                true => ready!(this.poll_send(cx, &[]))?,
                false => this.ws.driver.start_close(CloseCode::NORMAL, "")?,
            }
            this.is_shut_down = true;
            this.close_if_both_ended();
        }
        match ready!(this.ws.poll_as(UsedAs::Sink, cx, Driver::poll_flush)) {
            // The peer has closed too.
            Err(error) if error.is_normal_close() => Poll::Ready(Ok(())),
            flushed => Poll::Ready(flushed.map_err(io::Error::from)),
        }
    }
}
