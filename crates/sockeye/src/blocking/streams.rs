//! Messages and connections as byte streams, with the traits of `std::io`.

use std::fmt;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sockeye_proto::{Compress, MessageKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Socket, WebSocket, drive};
use crate::endpoint::{Driver, StreamRead};
use crate::error::Error;
use crate::websocket::io::WebSocketIo as AsyncIo;
use crate::websocket::message_reader::read_error;
use crate::websocket::message_writer::{FragmentedMessage, close_unfinished};

impl WebSocket {
    /// Receives the next message as a [`Read`], in constant memory and without a limit on its size. Returns `None`
    /// after a normal [end](crate::WebSocket#the-end).
    ///
    /// ```no_run
    /// # fn receive(mut ws: sockeye::blocking::WebSocket, mut file: std::fs::File) -> std::io::Result<()> {
    /// if let Some(mut message) = ws.recv_stream()? {
    ///     std::io::copy(&mut message, &mut file)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    pub fn recv_stream(&mut self) -> Result<Option<MessageReader<'_>>, Error> {
        let kind = self.wait_for(Driver::poll_stream_start)?;
        Ok(kind.map(|kind| MessageReader {
            ws: self,
            kind,
            state: ReadState::Reading,
        }))
    }

    /// Sends a message as a [`Write`] while it is produced, in constant memory. End it with [`MessageWriter::finish`].
    /// Nothing is sent before 64 KiB are written, or before `flush` or `finish`.
    ///
    /// ```no_run
    /// # fn send(mut ws: sockeye::blocking::WebSocket, mut file: std::fs::File) -> std::io::Result<()> {
    /// let mut message = ws.send_stream(sockeye::MessageKind::Binary);
    /// std::io::copy(&mut file, &mut message)?;
    /// message.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_stream(&mut self, kind: MessageKind) -> MessageWriter<'_> {
        MessageWriter {
            ws: self,
            message: FragmentedMessage::new(kind),
        }
    }

    /// Converts the connection into a byte stream over binary messages, for byte protocols.
    pub fn into_io(self) -> WebSocketIo {
        WebSocketIo {
            io: self.ws.into_io(),
            socket: self.socket,
        }
    }
}

/// A message that is being received, as a [`Read`]: see [`WebSocket::recv_stream`].
///
/// Reading returns the payload, decompressed if it was compressed, and 0 bytes at the end of the message. The payload
/// of a text message is validated as UTF-8 while it arrives; a code point may be split between two reads.
///
/// If the connection ends before the message, reading fails: a truncated message never looks complete. The source is an
/// [`Error`]. Dropping the reader early discards the rest of the message as it arrives; the next `recv` or
/// `recv_stream` returns the following message.
pub struct MessageReader<'a> {
    ws: &'a mut WebSocket,
    kind: MessageKind,
    state: ReadState,
}

#[derive(Debug)]
enum ReadState {
    Reading,
    Finished,
    Failed(Error),
}

impl MessageReader<'_> {
    /// Text or binary.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// Whether this is a text message.
    pub fn is_text(&self) -> bool {
        self.kind == MessageKind::Text
    }
}

impl Read for MessageReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.state {
            ReadState::Finished => return Ok(0),
            ReadState::Failed(error) => return Err(read_error(error)),
            ReadState::Reading if buffer.is_empty() => return Ok(0),
            ReadState::Reading => {}
        }
        let mut read = ReadBuf::new(buffer);
        let polled = self.ws.wait_for(|driver, cx| driver.poll_read_stream(cx, &mut read));
        match polled {
            Ok(StreamRead::Bytes) => {}
            Ok(StreamRead::End) => self.state = ReadState::Finished,
            Err(error) => {
                let failed = read_error(&error);
                self.state = ReadState::Failed(error);
                return Err(failed);
            }
        }
        Ok(read.filled().len())
    }
}

impl Drop for MessageReader<'_> {
    fn drop(&mut self) {
        if let ReadState::Reading = self.state {
            self.ws.ws.driver().abandon_stream();
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

/// A message that is sent while it is produced, as a [`Write`]: see [`WebSocket::send_stream`].
///
/// Data is sent in fragments of 64 KiB. `flush` sends what is buffered as a smaller fragment, and
/// [`finish`](Self::finish) sends the rest and ends the message. A message of less than 64 KiB that was not flushed is
/// sent as a single frame. For text, writing or flushing fails with [`InvalidInput`](io::ErrorKind::InvalidInput) if
/// the bytes are not UTF-8.
///
/// Dropping it after a fragment was sent, and before the end of the message, closes the connection with 1011.
pub struct MessageWriter<'a> {
    ws: &'a mut WebSocket,
    message: FragmentedMessage,
}

impl MessageWriter<'_> {
    /// Sets whether to compress the message: see [`MessageWriter::compress`](crate::MessageWriter::compress).
    #[must_use]
    pub fn compress(mut self, compress: Compress) -> Self {
        self.message.set_compress(compress);
        self
    }

    /// Ends the message, and waits until it has been passed to the kernel.
    ///
    /// # Errors
    ///
    /// Those of [`MessageWriter::finish`](crate::MessageWriter::finish).
    pub fn finish(mut self) -> Result<(), Error> {
        let Self { ws, message } = &mut self;
        ws.wait_for(|driver, cx| message.poll_finish(|part| driver.poll_feed_fragment(cx, part)))?;
        self.flush_queued()
    }

    fn flush_queued(&mut self) -> Result<(), Error> {
        let mut end = None;
        self.ws.wait_for(|driver, cx| driver.poll_flush_fragments(cx, &mut end))
    }
}

impl Write for MessageWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { ws, message } = self;
        Ok(ws.wait_for(|driver, cx| message.poll_write(bytes, |part| driver.poll_feed_fragment(cx, part)))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self { ws, message } = self;
        ws.wait_for(|driver, cx| message.poll_flush(|part| driver.poll_feed_fragment(cx, part)))?;
        Ok(self.flush_queued()?)
    }
}

impl Drop for MessageWriter<'_> {
    fn drop(&mut self) {
        if self.message.is_unfinished() {
            close_unfinished(self.ws.ws.driver());
        }
    }
}

impl fmt::Debug for MessageWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageWriter").finish_non_exhaustive()
    }
}

/// A connection that carries bytes in binary messages, as [`Read`] and [`Write`]: see [`WebSocket::into_io`].
///
/// Reading returns the payloads of the peer's messages, whatever their size, without their boundaries. It returns 0
/// bytes after a normal end: a close frame with 1000, 1001 or no code. Any other end is an error, and so is a text
/// message, which closes the connection with 1003.
///
/// A write sends a message of up to 64 KiB. What the kernel does not accept immediately is written by the next write,
/// flush or read. Only one thread can use it: for a protocol that sends and receives at the same time,
/// [`split`](WebSocket::split) the connection and use messages.
#[derive(Debug)]
pub struct WebSocketIo {
    io: AsyncIo,
    socket: Arc<Socket>,
}

impl WebSocketIo {
    /// Allows each direction to end separately: see [`WebSocketIo::half_close`](crate::WebSocketIo::half_close).
    #[must_use]
    pub fn half_close(mut self) -> Self {
        self.io = self.io.half_close();
        self
    }

    /// Ends the sending direction: sends a close frame with 1000, or an empty message with
    /// [`half_close`](Self::half_close). What the peer sent before it answers can still be read.
    ///
    /// # Errors
    ///
    /// The connection is lost, or the peer reads too slowly.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.wait_for(|io, cx| io.poll_shutdown(cx))
    }

    /// Returns the connection. If a message is partly read, its rest is discarded.
    pub fn into_inner(self) -> WebSocket {
        WebSocket::new(self.io.into_inner(), self.socket)
    }

    fn wait_for<R>(
        &mut self,
        mut poll: impl FnMut(Pin<&mut AsyncIo>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> io::Result<R> {
        loop {
            if let Some(result) = drive(&mut self.io, &self.socket, None, |io, cx| poll(Pin::new(io), cx)) {
                return result;
            }
        }
    }
}

impl Read for WebSocketIo {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = ReadBuf::new(buffer);
        self.wait_for(|io, cx| io.poll_read(cx, &mut read))?;
        Ok(read.filled().len())
    }
}

impl Write for WebSocketIo {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait_for(|io, cx| io.poll_write(cx, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait_for(|io, cx| io.poll_flush(cx))
    }
}
