//! Sending one message as a byte stream.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sockeye_proto::{CloseCode, Compress, Data, Fragment, MessageKind};
use tokio::io::AsyncWrite;

use crate::endpoint::{Driver, StreamFragment};
use crate::error::Error;
use crate::websocket::WebSocket;
use crate::websocket::guard::ConnectionGuard;
use crate::websocket::operation::needs_lock;
use crate::websocket::shared::Shared;
use crate::websocket::split::Sender;
use crate::websocket::try_lock::QueueMode;
use crate::websocket::wakers::SlotKey;

/// The maximum payload of a fragment before compression. The same as that of a large compressed message.
const FRAGMENT_LEN_MAX: usize = crate::endpoint::PART_LEN;

/// The close code and reason after a writer was dropped before the end of its message.
const UNFINISHED: (CloseCode, &str) = (CloseCode::INTERNAL_ERROR, "message not finished");

/// A message that is sent while it is produced, as an [`AsyncWrite`]: see
/// [`WebSocket::send_stream`](crate::WebSocket::send_stream) and [`Sender::send_stream`](crate::Sender::send_stream).
///
/// What is written is sent in fragments of 64 KiB. [`flush`](tokio::io::AsyncWriteExt::flush) sends what was written so
/// far, as a smaller fragment if need be, and [`finish`](Self::finish) (or
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown)) sends the rest and ends the message. A message of less than 64 KiB
/// that was not flushed is sent as a single frame.
///
/// # Other messages
///
/// Messages of a connection are not interleaved (RFC 6455 §5.4). Until the first fragment is sent, other senders are
/// not affected. From then until the end of this message, `send`, `feed`, `reserve` and other writers wait, `try_send`
/// finds the queue full, and an [`Outbox`](crate::Outbox) keeps its messages as it does for a peer that reads slowly.
/// Pings, pongs and the close frame are sent between the fragments. Closing the connection meanwhile cuts this message
/// off.
///
/// # Compression
///
/// If compression was negotiated, the first fragment decides: if it does not get smaller, the message is not
/// compressed. See [`compress`](Self::compress).
///
/// # Errors
///
/// The connection is closed or lost, or the peer reads too slowly. For text, writing or flushing fails with
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if the bytes are not UTF-8. The source is an [`Error`].
///
/// # Cancel safety
///
/// Dropping a future that writes, flushes or finishes loses nothing: the next call continues. If this is dropped before
/// [`finish`](Self::finish) or `shutdown` has queued the end of the message, a peer must not take the part that it has
/// for the whole: if a fragment was sent, the connection is closed with 1011. If none was, nothing is sent and the
/// connection stays open.
pub struct MessageWriter<'a> {
    target: Target<'a>,
    message: FragmentedMessage,
    flush_end: Option<u64>,
}

pub(super) enum Target<'a> {
    WebSocket(&'a mut WebSocket),
    Sender { shared: Arc<Shared>, slot: SlotKey },
}

/// Fragmentation state of a streamed message, independent of the connection. Its methods queue fragments with `feed`.
pub(crate) struct FragmentedMessage {
    kind: MessageKind,
    compress: Compress,
    /// Bytes that do not fill a fragment yet.
    buffer: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is sent yet.
    New,
    /// At least one fragment is queued.
    Open,
    /// The end of the message is queued.
    Finished,
}

impl WebSocket {
    /// Sends a message as an [`AsyncWrite`](tokio::io::AsyncWrite) while it is produced, in constant memory: for files
    /// and other large messages. End it with [`MessageWriter::finish`]. Returns immediately; nothing is sent before 64
    /// KiB are written, or before `flush` or `finish`.
    ///
    /// ```
    /// # use tokio::io::AsyncRead;
    /// # async fn send(mut ws: sockeye::WebSocket, mut file: impl AsyncRead + Unpin) -> std::io::Result<()> {
    /// use sockeye::MessageKind;
    ///
    /// let mut message = ws.send_stream(MessageKind::Binary);
    /// tokio::io::copy(&mut file, &mut message).await?;
    /// message.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Dropping the writer after it has sent a fragment and before the end of the message closes the connection with
    /// 1011.
    pub fn send_stream(&mut self, kind: MessageKind) -> MessageWriter<'_> {
        MessageWriter::new(Target::WebSocket(self), kind)
    }
}

impl Sender {
    /// Sends a message as an [`AsyncWrite`](tokio::io::AsyncWrite) while it is produced, in constant memory: see
    /// [`WebSocket::send_stream`](crate::WebSocket::send_stream). Until it is finished, other senders of this connection
    /// wait: see [`MessageWriter`]. Dropping the writer after it has sent a fragment and before the end of the message
    /// closes the connection with 1011.
    pub fn send_stream(&self, kind: MessageKind) -> MessageWriter<'static> {
        let target = Target::Sender {
            shared: self.shared.clone(),
            slot: SlotKey::operation(),
        };
        MessageWriter::new(target, kind)
    }
}

impl<'a> MessageWriter<'a> {
    pub(super) fn new(target: Target<'a>, kind: MessageKind) -> Self {
        Self {
            target,
            message: FragmentedMessage::new(kind),
            flush_end: None,
        }
    }

    /// Sets whether to compress the message, on a connection that negotiated compression. Default
    /// [`Compress::Auto`]: if the first fragment has at least
    /// [`DeflateConfig::size_min`](crate::DeflateConfig::size_min) bytes. Has no effect once a fragment was sent.
    #[must_use]
    pub fn compress(mut self, compress: Compress) -> Self {
        self.message.compress = compress;
        self
    }

    /// Ends the message, and waits until it has been written to the transport.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly. A text message that does not end with a complete
    /// code point is not finished ([`Error::is_invalid_input`]), and the connection is closed with 1011.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the end of the message is queued, the message is not finished: see
    /// [the type](Self#cancel-safety). Use `shutdown` of `AsyncWriteExt` to be able to continue.
    pub async fn finish(mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self {
            target,
            message,
            flush_end,
        } = self;
        ready!(message.poll_finish(|part| target.poll_feed(cx, part, flush_end)))?;
        self.poll_flush_queued(cx)
    }

    fn poll_flush_queued(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let end = &mut self.flush_end;
        match &mut self.target {
            Target::WebSocket(ws) => ws.driver.poll_flush_fragments(cx, end),
            Target::Sender { shared, slot } => shared.poll(slot, cx, QueueMode::Open, needs_lock, |guard, cx| {
                guard.driver.poll_flush_fragments(cx, end)
            }),
        }
    }
}

impl Target<'_> {
    /// Queues a fragment. Clears the flush target, so that the next flush includes it.
    fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        part: StreamFragment<'_>,
        flush_end: &mut Option<u64>,
    ) -> Poll<Result<(), Error>> {
        let queued = match self {
            Self::WebSocket(ws) => ws.driver.poll_feed_fragment(cx, part),
            Self::Sender { shared, slot } => {
                // Messages in the command queue would be queued between the fragments.
                shared.poll(slot, cx, QueueMode::Closed, needs_lock, |guard, cx| {
                    let queued = guard.driver.poll_feed_fragment(cx, part);
                    if queued.is_ready() && part.fragment == Fragment::Last {
                        // They wait for the end of this message.
                        guard.wake_all();
                    }
                    queued
                })
            }
        };
        ready!(queued)?;
        *flush_end = None;
        Poll::Ready(Ok(()))
    }
}

impl FragmentedMessage {
    pub(crate) fn new(kind: MessageKind) -> Self {
        Self {
            kind,
            compress: Compress::Auto,
            buffer: Vec::new(),
            state: State::New,
        }
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn set_compress(&mut self, compress: Compress) {
        self.compress = compress;
    }

    /// Whether a fragment was queued, but not the end.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.state == State::Open
    }

    /// Adds bytes. Queues a fragment once 64 KiB have gathered.
    pub(crate) fn poll_write(
        &mut self,
        bytes: &[u8],
        mut feed: impl FnMut(StreamFragment<'_>) -> Poll<Result<(), Error>>,
    ) -> Poll<Result<usize, Error>> {
        if self.state == State::Finished {
            return Poll::Ready(Err(Error::invalid_input(AlreadyFinished)));
        }
        if self.buffer.len() >= FRAGMENT_LEN_MAX {
            ready!(self.poll_send_buffer(Fragment::More, &mut feed))?;
        }
        if self.buffer.is_empty() && bytes.len() >= FRAGMENT_LEN_MAX {
            let len = complete_len(self.kind, &bytes[..FRAGMENT_LEN_MAX])?;
            ready!(self.poll_fragment(&bytes[..len], Fragment::More, feed))?;
            return Poll::Ready(Ok(len));
        }
        let len = bytes.len().min(FRAGMENT_LEN_MAX - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    /// Queues what was written so far.
    pub(crate) fn poll_flush(
        &mut self,
        feed: impl FnMut(StreamFragment<'_>) -> Poll<Result<(), Error>>,
    ) -> Poll<Result<(), Error>> {
        match self.state != State::Finished && complete_len(self.kind, &self.buffer)? > 0 {
            true => self.poll_send_buffer(Fragment::More, feed),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Queues the end of the message.
    pub(crate) fn poll_finish(
        &mut self,
        feed: impl FnMut(StreamFragment<'_>) -> Poll<Result<(), Error>>,
    ) -> Poll<Result<(), Error>> {
        match self.state {
            State::Finished => Poll::Ready(Ok(())),
            _ => self.poll_send_buffer(Fragment::Last, feed),
        }
    }

    /// Sends the buffer as a fragment. For text, a code point at its end that is not complete stays in the buffer.
    fn poll_send_buffer(
        &mut self,
        fragment: Fragment,
        feed: impl FnMut(StreamFragment<'_>) -> Poll<Result<(), Error>>,
    ) -> Poll<Result<(), Error>> {
        let len = complete_len(self.kind, &self.buffer)?;
        if fragment == Fragment::Last && len < self.buffer.len() {
            return Poll::Ready(Err(Error::invalid_input(InvalidText)));
        }
        let buffer = std::mem::take(&mut self.buffer);
        let sent = self.poll_fragment(&buffer[..len], fragment, feed);
        self.buffer = buffer;
        ready!(sent)?;
        self.buffer.drain(..len);
        Poll::Ready(Ok(()))
    }

    fn poll_fragment(
        &mut self,
        bytes: &[u8],
        fragment: Fragment,
        mut feed: impl FnMut(StreamFragment<'_>) -> Poll<Result<(), Error>>,
    ) -> Poll<Result<(), Error>> {
        let data = match self.kind {
            MessageKind::Text => Data::Text(std::str::from_utf8(bytes).map_err(|_| Error::invalid_input(InvalidText))?),
            MessageKind::Binary => Data::Binary(bytes),
        };
        ready!(feed(StreamFragment {
            data,
            fragment,
            is_first: self.state == State::New,
            compress: self.compress,
        }))?;
        self.state = match fragment {
            Fragment::More => State::Open,
            Fragment::Last => State::Finished,
        };
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MessageWriter<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self {
            target,
            message,
            flush_end,
        } = &mut *self;
        let written = message.poll_write(bytes, |part| target.poll_feed(cx, part, flush_end));
        written.map_err(io::Error::from)
    }

    /// Sends what was written so far, and waits until it has been written to the transport. A flush after each small
    /// write sends a fragment for each.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            target,
            message,
            flush_end,
        } = &mut *self;
        ready!(message.poll_flush(|part| target.poll_feed(cx, part, flush_end)))?;
        self.poll_flush_queued(cx).map_err(io::Error::from)
    }

    /// Does the same as [`finish`](MessageWriter::finish).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(cx).map_err(io::Error::from)
    }
}

impl Drop for MessageWriter<'_> {
    fn drop(&mut self) {
        let is_unfinished = self.message.is_unfinished();
        match &mut self.target {
            Target::WebSocket(ws) if is_unfinished => close_unfinished(&mut ws.driver),
            Target::WebSocket(_) => {}
            Target::Sender { shared, slot } => {
                shared.release(slot);
                if is_unfinished {
                    shared.close_unfinished_message();
                }
            }
        }
    }
}

/// Closes the connection, because the message that is being streamed will not be finished.
pub(crate) fn close_unfinished(driver: &mut Driver) {
    let (code, reason) = UNFINISHED;
    // Always valid.
    let _ = driver.start_close(code, reason);
}

impl ConnectionGuard<'_> {
    pub(super) fn close_unfinished_message(&mut self) {
        let (code, reason) = UNFINISHED;
        // Always valid.
        let _ = self.start_close(code, reason);
    }
}

/// The length of the bytes without a code point at their end that is not complete.
fn complete_len(kind: MessageKind, bytes: &[u8]) -> Result<usize, Error> {
    if kind == MessageKind::Binary {
        return Ok(bytes.len());
    }
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(Error::invalid_input(InvalidText)),
    }
}

impl fmt::Debug for MessageWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageWriter")
            .field("kind", &self.message.kind)
            .field("state", &self.message.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct InvalidText;

impl fmt::Display for InvalidText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a text message are not UTF-8")
    }
}

impl std::error::Error for InvalidText {}

#[derive(Debug)]
struct AlreadyFinished;

impl fmt::Display for AlreadyFinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message is already finished")
    }
}

impl std::error::Error for AlreadyFinished {}
