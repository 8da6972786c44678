//! Encodes messages and control frames into bytes.
//!
//! All bytes are appended to the caller's buffer in the order in which they must be sent.

use alloc::vec::Vec;
use core::fmt;

use super::{CloseProgress, Connection, Role, State};
use crate::frame::{FrameHeader, MaskingKey, Opcode, RSV1};
use crate::message::{Compress, Data, Fragment, MessageKind};

/// Error for a message or ping that cannot be sent now. Nothing was sent and the connection is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is closing or closed. No data may follow a close frame (RFC 6455 §5.5.1).
    Closed,
    /// A fragmented message is not finished. Messages must not be interleaved (RFC 6455 §5.4).
    MessageInProgress,
    /// The payload of the ping is longer than 125 bytes (RFC 6455 §5.5).
    PingTooLong {
        /// The length of the payload, in bytes.
        len: usize,
    },
    /// The payload of the pong is longer than 125 bytes (RFC 6455 §5.5).
    PongTooLong {
        /// The length of the payload, in bytes.
        len: usize,
    },
    /// A frame encoded in advance cannot be sent on this connection: see [`Connection::start_framed`].
    FrameMismatch,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection is closing or closed"),
            Self::MessageInProgress => {
                f.write_str("a fragmented message is not finished; send its last fragment first")
            }
            Self::PingTooLong { len } => write!(f, "ping payload of {len} bytes exceeds the maximum of 125 bytes"),
            Self::PongTooLong { len } => write!(f, "pong payload of {len} bytes exceeds the maximum of 125 bytes"),
            Self::FrameMismatch => {
                f.write_str("the encoded frame does not match the role or compression of this connection")
            }
        }
    }
}

impl core::error::Error for SendError {}

impl Connection {
    /// Appends a message to `out` as one frame. Compresses it according to [`Compress::Auto`].
    ///
    /// # Errors
    ///
    /// - [`SendError::Closed`] if the connection is closing or closed.
    /// - [`SendError::MessageInProgress`] if a fragmented message is not finished.
    #[inline]
    pub fn send(&mut self, data: Data<'_>, out: &mut Vec<u8>) -> Result<(), SendError> {
        self.send_with(data, Compress::Auto, out)
    }

    /// Appends a message to `out` as one frame. `compress` selects whether to compress it, if that was negotiated.
    ///
    /// # Errors
    ///
    /// - [`SendError::Closed`] if the connection is closing or closed.
    /// - [`SendError::MessageInProgress`] if a fragmented message is not finished.
    #[inline]
    pub fn send_with(&mut self, data: Data<'_>, compress: Compress, out: &mut Vec<u8>) -> Result<(), SendError> {
        let bytes = data.bytes();
        if self.would_compress(bytes.len(), compress) && self.send_compressed(data, out)? {
            return Ok(());
        }
        let mask = self.start_message(data.kind(), bytes.len() as u64, out)?;
        append(bytes, mask, out);
        Ok(())
    }

    /// Whether [`send_with`](Self::send_with) would try to compress a message of `len` bytes.
    #[inline]
    pub fn would_compress(&self, len: usize, compress: Compress) -> bool {
        match (&self.deflate, compress) {
            (None, _) | (Some(_), Compress::Never) => false,
            (Some(_), Compress::Always) => true,
            (Some(deflate), Compress::Auto) => deflate.should_compress(len),
        }
    }

    /// Appends the compressed message. Returns `false` and appends nothing if compression does not make it smaller.
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

    /// Starts a compressed message and appends its first fragment. Continue with
    /// [`send_fragment`](Self::send_fragment), which compresses the further fragments.
    ///
    /// Returns `false` and appends nothing if compression was not negotiated or does not make this fragment smaller;
    /// send the message uncompressed in that case.
    ///
    /// This bounds the time per call for a large message to that of one fragment. Until the message is finished, the
    /// connection holds a codec and our close frame is delayed (allowed by RFC 6455 §5.5.1), but not beyond the
    /// deadline of the closing handshake. A protocol error of the peer aborts the message.
    ///
    /// # Errors
    ///
    /// - [`SendError::Closed`] if the connection is closing or closed.
    /// - [`SendError::MessageInProgress`] if a fragmented message is not finished.
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

    /// Whether a message started with [`start_compressed`](Self::start_compressed) is unfinished and may be continued.
    pub fn is_compressing(&self) -> bool {
        self.deflate.as_ref().is_some_and(|deflate| deflate.is_compressing())
    }

    /// Appends only the frame header of a message with `len` payload bytes.
    ///
    /// The caller must then write the payload to the transport itself, before any other bytes, masked with the returned
    /// key if there is one. This avoids copying a large payload: use a vectored write of header and payload.
    ///
    /// # Errors
    ///
    /// - [`SendError::Closed`] if the connection is closing or closed.
    /// - [`SendError::MessageInProgress`] if a fragmented message is not finished.
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

    /// Appends a fragment of a message to `out`.
    ///
    /// Starts a new, uncompressed message if none is in progress. Fragments of a message started with
    /// [`start_compressed`](Self::start_compressed) are compressed. Pings and pongs may be sent between fragments, and
    /// the close frame between uncompressed ones.
    ///
    /// # Errors
    ///
    /// - [`SendError::Closed`] if the connection is closing or closed. A compressed message may still be finished while
    ///   the connection is closing, unless because of a protocol error. Also returned if the codec fails, which ends
    ///   the connection.
    /// - [`SendError::MessageInProgress`] if the message in progress is of the other type.
    pub fn send_fragment(&mut self, data: Data<'_>, fragment: Fragment, out: &mut Vec<u8>) -> Result<(), SendError> {
        let is_compressing = self.is_compressing();
        if !is_compressing {
            self.check_open()?;
        }
        // RFC 6455 §5.4: the first fragment has the opcode of the message, the others are continuations.
        // [6455-5.4-1, 6455-6.1-4]
        let opcode = match (self.sending, data.kind()) {
            (None, kind) => opcode_of(kind),
            (Some(in_progress), kind) if in_progress == kind => Opcode::Continuation,
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

    /// Whether a fragmented message is in progress. Until it is finished, no other message can be sent.
    pub fn is_sending_fragments(&self) -> bool {
        self.sending.is_some()
    }

    /// Gives up the message that is being sent in fragments. After this, only a close frame can be sent, so that the
    /// peer does not mistake the fragments for a complete message. Our close frame does not wait for the end of the
    /// message, even if it is compressed. Does nothing if no message is being sent in fragments.
    pub fn abandon_message(&mut self) {
        if let Some(deflate) = &mut self.deflate {
            deflate.stop_compressing();
        }
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
            // The codec failed (never observed). The message cannot be finished, and no other message may be sent
            // before it is, so end the connection.
            self.handle_transport_end();
        }
        sent.ok_or(SendError::Closed)
    }

    /// Appends an unsolicited pong to `out`, with a payload of at most 125 bytes (RFC 6455 §5.5.3). It asks for no
    /// answer. Pings of the peer are answered by [`poll_transmit`](Self::poll_transmit).
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

    /// Appends pending control frames to `out`: the pong for the newest ping, a due ping, and the close frame (after a
    /// message that is [being compressed](Self::is_compressing)). Returns whether anything was appended.
    ///
    /// At most one of each is pending, however many pings arrive. Do not call this while `out` is full; a flood of
    /// pings then cannot make it grow. Once the bytes are written to the transport, call
    /// [`handle_transmitted`](Self::handle_transmitted).
    // [6455-5.5.3-2]
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        // RFC 6455 §5.5.2: answer a ping that arrived before we started to close, even if we are closing now.
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

    /// RFC 6455 §5.5.1: the close frame may be delayed until the current message is sent.
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

    /// RFC 6455 §5.5.1, §6.1: a closing connection sends no more messages.
    // [6455-5.5.1-4, 6455-6.1-1, 6455-6.1-2]
    pub(super) fn check_open(&self) -> Result<(), SendError> {
        match self.state {
            State::Open => Ok(()),
            State::CloseSent | State::Draining | State::Closed => Err(SendError::Closed),
        }
    }

    /// RFC 6455 §5.1, §5.3: a client masks every frame with a new key; a server masks none.
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

/// Appends the header of a compressed message or of its first fragment.
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
