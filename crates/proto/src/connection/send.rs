//! From messages and control frames to bytes.
//!
//! Everything is appended to a buffer of the caller's, in the order in which it is to leave.

use alloc::vec::Vec;
use core::fmt;

use super::{CloseProgress, Connection, MessageKind, Role, State};
use crate::frame::{FrameHeader, MaskingKey, Opcode, RSV1};

/// The data of a message, or of a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// Text.
    Text(&'a str),
    /// Any bytes.
    Binary(&'a [u8]),
}

impl<'a> Data<'a> {
    /// Text or binary.
    pub fn kind(self) -> MessageKind {
        match self {
            Self::Text(_) => MessageKind::Text,
            Self::Binary(_) => MessageKind::Binary,
        }
    }

    /// The bytes.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// Whether a fragment ends its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// More fragments follow.
    More,
    /// The message ends here.
    Last,
}

/// Whether a message is compressed, on a connection that negotiated it; elsewhere it says nothing.
// [7692-6.1-2, 7692-8-1]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Compress {
    /// If it is large enough (`DeflateConfig::size_min`).
    #[default]
    Auto,
    /// Whatever its size, if that makes it smaller; of more than 64 KiB, if it does so with the first 64 KiB.
    Always,
    /// Not. For secrets in a connection that others can make carry their own text beside: the length of what is
    /// compressed together tells whether the two are alike (RFC 7692 §8).
    Never,
}

/// The caller asked to send what may not be sent now. Nothing was sent and nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is closing or closed (RFC 6455 §5.5.1: no data after a close frame).
    Closed,
    /// A fragmented message is not finished (RFC 6455 §5.4: messages are not interleaved).
    MessageInProgress,
    /// A ping's payload has at most 125 bytes (RFC 6455 §5.5).
    PingTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A pong's payload has at most 125 bytes (RFC 6455 §5.5).
    PongTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The frame was made for connections of another kind: see [`Connection::start_framed`].
    FrameMismatch,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection is closed"),
            Self::MessageInProgress => f.write_str("a fragmented message is not finished"),
            Self::PingTooLong { len } => write!(f, "ping payload of {len} bytes is longer than 125"),
            Self::PongTooLong { len } => write!(f, "pong payload of {len} bytes is longer than 125"),
            Self::FrameMismatch => f.write_str("the frame was made for connections of another kind"),
        }
    }
}

impl core::error::Error for SendError {}

impl Connection {
    /// Appends a message, in one frame, to `out`; compressed if that was negotiated and is worth it.
    ///
    /// # Errors
    ///
    /// The connection is closing, or a fragmented message is not finished.
    #[inline]
    pub fn send(&mut self, data: Data<'_>, out: &mut Vec<u8>) -> Result<(), SendError> {
        self.send_with(data, Compress::Auto, out)
    }

    /// Appends a message, in one frame, to `out`; `compress` says whether to compress it if that was negotiated.
    ///
    /// # Errors
    ///
    /// The connection is closing, or a fragmented message is not finished.
    #[inline]
    pub fn send_with(&mut self, data: Data<'_>, compress: Compress, out: &mut Vec<u8>) -> Result<(), SendError> {
        let bytes = data.bytes();
        if self.compresses(bytes.len(), compress) && self.send_compressed(data, out)? {
            return Ok(());
        }
        let mask = self.start_message(data.kind(), bytes.len() as u64, out)?;
        append(bytes, mask, out);
        Ok(())
    }

    /// Whether [`send_with`](Self::send_with) would try to compress a message of this length.
    #[inline]
    pub fn compresses(&self, len: usize, compress: Compress) -> bool {
        match (&self.deflate, compress) {
            (None, _) | (Some(_), Compress::Never) => false,
            (Some(_), Compress::Always) => true,
            (Some(deflate), Compress::Auto) => deflate.is_worth(len),
        }
    }

    /// Whether the message was appended; if not, it is better sent as it is.
    #[cold]
    fn send_compressed(&mut self, data: Data<'_>, out: &mut Vec<u8>) -> Result<bool, SendError> {
        self.check_message_may_begin()?;
        let mask = self.next_mask();
        let Some(deflate) = &mut self.deflate else {
            return Ok(false);
        };
        let sent = deflate.compress(data.bytes(), |payload| {
            append_compressed_header(Fragment::Last, data.kind(), payload.len() as u64, mask, out);
            append(payload, mask, out);
        });
        Ok(sent.is_some())
    }

    /// Begins a message that is compressed in fragments, with the first of them; the others follow by
    /// [`send_fragment`](Self::send_fragment), which compresses them too. `false`, with nothing appended, if compression
    /// was not negotiated or does not make this fragment smaller: then the message is better sent as it is.
    ///
    /// So a large message costs no more at once than its fragments do. While it is not finished, a codec stays with the
    /// connection, and our close frame waits (RFC 6455 §5.5.1 allows that), for as long as the closing handshake may
    /// take. A fault of the peer ends it.
    ///
    /// # Errors
    ///
    /// The connection is closing, or a fragmented message is not finished.
    pub fn start_compressed(&mut self, data: Data<'_>, out: &mut Vec<u8>) -> Result<bool, SendError> {
        self.check_message_may_begin()?;
        let mask = self.next_mask();
        let Some(deflate) = &mut self.deflate else {
            return Ok(false);
        };
        let sent = deflate.start_compressing(data.bytes(), |payload| {
            append_compressed_header(Fragment::More, data.kind(), payload.len() as u64, mask, out);
            append(payload, mask, out);
        });
        if sent.is_some() {
            self.sending = Some(data.kind());
        }
        Ok(sent.is_some())
    }

    /// Whether a message that began with [`start_compressed`](Self::start_compressed) may go on.
    pub fn is_compressing(&self) -> bool {
        self.deflate.as_ref().is_some_and(|deflate| deflate.is_compressing())
    }

    /// Appends only the header of a message in one frame of `len` payload bytes. The caller then sends the payload
    /// itself, masked with the key that is returned, if any, before anything else.
    ///
    /// This spares a large payload the copy: a vectored write takes it from where it lies.
    ///
    /// # Errors
    ///
    /// The connection is closing, or a fragmented message is not finished.
    // [6455-6.1-3]
    #[inline]
    pub fn start_message(
        &mut self,
        kind: MessageKind,
        len: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<MaskingKey>, SendError> {
        self.check_message_may_begin()?;
        Ok(self.append_header(Fragment::Last, opcode_of(kind), len, out))
    }

    /// Appends the next fragment of a message to `out`, compressed if the message began with
    /// [`start_compressed`](Self::start_compressed); else the first one begins the message. Pings, pongs and, where
    /// nothing is compressed, the close frame may go between.
    ///
    /// # Errors
    ///
    /// The connection is closing, or the message in progress is of the other kind. One that is compressed may be finished
    /// while the connection closes, unless by a fault; a codec that fails ends the connection.
    pub fn send_fragment(&mut self, data: Data<'_>, fragment: Fragment, out: &mut Vec<u8>) -> Result<(), SendError> {
        let is_compressing = self.is_compressing();
        if !is_compressing {
            self.check_open()?;
        }
        // RFC 6455 §5.4: the first fragment has the opcode of the message, the others are continuations.
        // [6455-5.4-1, 6455-6.1-4]
        let opcode = match (self.sending, data.kind()) {
            (None, kind) => opcode_of(kind),
            (Some(begun), kind) if begun == kind => Opcode::Continuation,
            (Some(_), _) => return Err(SendError::MessageInProgress),
        };
        self.sending = match fragment {
            Fragment::More => Some(data.kind()),
            Fragment::Last => None,
        };
        if is_compressing {
            return self.send_compressed_part(data.bytes(), fragment, out);
        }
        let bytes = data.bytes();
        let mask = self.append_header(fragment, opcode, bytes.len() as u64, out);
        append(bytes, mask, out);
        Ok(())
    }

    #[cold]
    fn send_compressed_part(&mut self, part: &[u8], fragment: Fragment, out: &mut Vec<u8>) -> Result<(), SendError> {
        let mask = self.next_mask();
        let sent = self.deflate.as_mut().and_then(|deflate| {
            deflate.compress_part(part, fragment, |payload| {
                append_header(fragment, Opcode::Continuation, payload.len() as u64, mask, out);
                append(payload, mask, out);
            })
        });
        if sent.is_none() {
            // The codec failed, which none of ours does. What was begun cannot be finished, and nothing come behind it.
            self.handle_transport_end();
        }
        sent.ok_or(SendError::Closed)
    }

    /// Appends an unsolicited pong to `out`, with a payload of at most 125 bytes (RFC 6455 §5.5.3). It asks for no answer.
    /// Pings of the peer are answered by [`poll_transmit`](Self::poll_transmit).
    ///
    /// # Errors
    ///
    /// The payload is too long, or the connection is closing.
    pub fn send_pong(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), SendError> {
        if payload.len() > crate::frame::CONTROL_PAYLOAD_MAX {
            return Err(SendError::PongTooLong { len: payload.len() });
        }
        self.check_open()?;
        let mask = self.append_header(Fragment::Last, Opcode::Pong, payload.len() as u64, out);
        append(payload, mask, out);
        Ok(())
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has anything to append.
    #[inline]
    pub fn wants_transmit(&self) -> bool {
        self.is_close_due() || self.pong_due.is_some() || self.state == State::Open && self.liveness.is_ping_due()
    }

    /// Appends what the protocol itself has to send: the answer to the newest ping, a ping that is due, the close
    /// frame (behind a message that is [being compressed](Self::is_compressing)). Returns whether there was anything.
    ///
    /// There is at most one of each, however many pings arrive: a caller whose `out` is not drained waits with
    /// calling this, and a flood of pings costs it nothing. When the bytes are written to the transport, call
    /// [`handle_transmitted`](Self::handle_transmitted).
    // [6455-5.5.3-2]
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        // RFC 6455 §5.5.2: a ping is answered, even if we have begun to close since; it is due only if it came before.
        // [6455-5.5.2-1, 6455-5.5.2-3]
        if let Some(payload) = self.pong_due.take() {
            let mask = self.append_header(Fragment::Last, Opcode::Pong, payload.len() as u64, out);
            append(&payload, mask, out);
        }
        if self.state == State::Open && self.liveness.is_ping_due() {
            let mask = self.next_mask();
            if let Some(payload) = self.liveness.poll_ping() {
                append_header(Fragment::Last, Opcode::Ping, payload.len() as u64, mask, out);
                append(payload, mask, out);
            }
        }
        if self.is_close_due() {
            self.close_frame = CloseProgress::Queued;
            let mask = self.next_mask();
            if let Some(frame) = self.close_info.as_ref().and_then(|close_info| close_info.sent()) {
                append_header(Fragment::Last, Opcode::Close, frame.payload_len(), mask, out);
                frame.append_payload(mask, out);
            }
        }
        out.len() > before
    }

    /// RFC 6455 §5.5.1: the close frame may wait until the message that is being sent is whole.
    fn is_close_due(&self) -> bool {
        self.close_frame == CloseProgress::Due && !self.is_compressing()
    }

    pub(super) fn check_message_may_begin(&self) -> Result<(), SendError> {
        self.check_open()?;
        match self.sending {
            Some(_) => Err(SendError::MessageInProgress),
            None => Ok(()),
        }
    }

    /// RFC 6455 §5.5.1, §6.1: nothing but the protocol's own answers leaves a connection that is closing.
    // [6455-5.5.1-4, 6455-6.1-1, 6455-6.1-2]
    pub(super) fn check_open(&self) -> Result<(), SendError> {
        match self.state {
            State::Open => Ok(()),
            State::CloseSent | State::Ending | State::Closed => Err(SendError::Closed),
        }
    }

    /// RFC 6455 §5.1, §5.3: a client masks every frame, each with a fresh key; a server masks none.
    // [6455-5.1-1, 6455-5.1-4, 6455-5.3-2, 6455-5.5.1-3, 6455-6.1-6, 6455-10.3-1]
    fn next_mask(&self) -> Option<MaskingKey> {
        match self.role {
            Role::Server => None,
            Role::Client { mask } => Some(mask()),
        }
    }

    #[inline]
    fn append_header(&self, fragment: Fragment, opcode: Opcode, len: u64, out: &mut Vec<u8>) -> Option<MaskingKey> {
        let mask = self.next_mask();
        append_header(fragment, opcode, len, mask, out);
        mask
    }
}

pub(super) fn opcode_of(kind: MessageKind) -> Opcode {
    match kind {
        MessageKind::Text => Opcode::Text,
        MessageKind::Binary => Opcode::Binary,
    }
}

#[inline]
pub(super) fn append_header(
    fragment: Fragment,
    opcode: Opcode,
    payload_len: u64,
    mask: Option<MaskingKey>,
    out: &mut Vec<u8>,
) {
    let header = FrameHeader {
        // [6455-6.1-5]
        fin: fragment == Fragment::Last,
        // [6455-5.2-1, 7692-6.1-4, 7692-6.1-5, 7692-6.1-3]
        rsv: 0,
        opcode,
        mask,
        payload_len,
    };
    header.encode(out);
}

/// The header of a compressed message, or of its first fragment.
pub(super) fn append_compressed_header(
    fragment: Fragment,
    kind: MessageKind,
    payload_len: u64,
    mask: Option<MaskingKey>,
    out: &mut Vec<u8>,
) {
    let header = FrameHeader {
        fin: fragment == Fragment::Last,
        // [7692-6.1-1]
        rsv: RSV1,
        // [7692-6-1]
        opcode: opcode_of(kind),
        mask,
        payload_len,
    };
    header.encode(out);
}

#[inline]
fn append(bytes: &[u8], mask: Option<MaskingKey>, out: &mut Vec<u8>) {
    match mask {
        Some(key) => key.append(bytes, out),
        None => out.extend_from_slice(bytes),
    }
}
