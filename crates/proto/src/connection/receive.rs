//! Decodes bytes into messages: headers, fragments, masking, limits and UTF-8. The input may be split anywhere.
//!
//! A message that is complete in the caller's buffer is unmasked in place and not copied. All others are collected in
//! one growing buffer that holds only bytes that have arrived. All input is consumed, so the caller never has to keep a
//! remainder.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use super::fast_path::RawMessage;
use crate::config::Limits;
use crate::deflate::DeflateSession;
use crate::frame::{FrameHeader, HEADER_LEN_MAX, MaskRule, MaskingKey, Opcode, RSV1};
use crate::grow::grow;
use crate::message::{Fragment, MessageKind, ReceiveMode};
use crate::protocol_error::ProtocolError;
use crate::utf8::Utf8Validator;

/// Minimum size of the buffered message and of the outstanding payload for reading directly into the message buffer, in
/// bytes.
const DIRECT_READ_MIN: usize = 32 * 1024;

/// What the decoder has decoded. Ranges refer to the caller's input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// All input was consumed and nothing was completed.
    Nothing,
    /// A message that is complete in the input.
    MessageInPlace(MessageKind, Range<usize>),
    /// A message that is complete in the message buffer; see [`Decoder::take_message`].
    Message(MessageKind),
    /// A compressed message that is complete in the input. Text is not validated yet.
    CompressedInPlace(MessageKind, Range<usize>),
    /// A compressed message that is complete in the message buffer. Text is not validated yet.
    Compressed(MessageKind),
    /// A part of a compressed message is in the message buffer; see [`Decoder::inflate_to_chunk`].
    CompressedPart,
    /// A part of a message, in the input.
    Chunk(Chunk, Range<usize>),
    /// A control frame that is complete in the input.
    ControlInPlace(Opcode, Range<usize>),
    /// A control frame that is complete in [`Decoder::control`].
    Control(Opcode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) kind: MessageKind,
    pub(super) first: bool,
    pub(super) last: bool,
}

#[derive(Debug)]
pub(super) struct Decoder {
    mask_rule: MaskRule,
    /// Whether permessage-deflate was negotiated, which allows RSV1 (RFC 7692 §6).
    is_deflate_negotiated: bool,
    receive_mode: ReceiveMode,
    /// Boxed because most messages arrive complete and most connections are idle.
    unfinished: Option<Box<Unfinished>>,
}

/// State of a frame or message that has partly arrived.
#[derive(Debug, Default)]
struct Unfinished {
    /// Start of a header that was split at the end of the last input.
    partial_header: PartialHeader,
    frame: Option<Frame>,
    message: Option<Message>,
    /// Payload received so far of a message that was not complete in one input.
    buffer: Vec<u8>,
    /// Length of the part of `buffer` that is unmasked and validated. Less than its length only during a direct read.
    processed_len: usize,
    /// Payload received so far of a control frame that was not complete in one input. Kept until the next frame starts.
    control: Vec<u8>,
    /// Type of the message that has fully arrived but is only partly inflated.
    inflating: Option<MessageKind>,
    /// Whether the part of a compressed message in `buffer`, which is not completely inflated, is the last one. Only in
    /// [`ReceiveMode::Stream`].
    compressed_part: Option<Fragment>,
}

#[derive(Debug, Default)]
struct PartialHeader {
    bytes: [u8; HEADER_LEN_MAX],
    len: u8,
}

/// A frame whose payload is arriving.
#[derive(Debug)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    /// The key, rotated for the next byte. All zero, which is a no-op, if the frame is not masked.
    key: MaskingKey,
    remaining: u64,
}

/// A message whose fragments are arriving.
#[derive(Debug)]
struct Message {
    kind: MessageKind,
    is_compressed: bool,
    /// Sum of the payload lengths declared by its frames so far. Compared with the size limit.
    size: u64,
    utf8: Utf8Validator,
    empty_fragments: u32,
    /// Whether a chunk of this message has been delivered.
    is_chunk_delivered: bool,
}

impl Decoder {
    pub(super) fn new(mask_rule: MaskRule) -> Self {
        Self {
            mask_rule,
            is_deflate_negotiated: false,
            receive_mode: ReceiveMode::Whole,
            unfinished: None,
        }
    }

    #[cfg(feature = "deflate")]
    pub(super) fn allow_deflate(&mut self) {
        self.is_deflate_negotiated = true;
    }

    pub(super) fn receive_mode(&self) -> ReceiveMode {
        self.receive_mode
    }

    /// Whether a message has partly arrived.
    pub(super) fn is_inside_message(&self) -> bool {
        self.message().is_some()
    }

    pub(super) fn set_receive_mode(&mut self, receive_mode: ReceiveMode) {
        self.receive_mode = receive_mode;
        self.unfinished.take_if(|unfinished| unfinished.is_done());
    }

    /// Whether a part of a compressed message waits for [`inflate_to_chunk`](Self::inflate_to_chunk).
    #[inline]
    pub(super) fn has_compressed_part(&self) -> bool {
        self.unfinished
            .as_deref()
            .is_some_and(|unfinished| unfinished.compressed_part.is_some())
    }

    /// Inflates until the next chunk is complete or the buffered part of the message is used up. The bytes of the chunk
    /// are in the session, or in [`last_chunk`](Self::last_chunk) if it is the last of its message.
    pub(super) fn inflate_to_chunk(&mut self, deflate: &mut DeflateSession) -> Result<Option<Chunk>, ProtocolError> {
        let Some(unfinished) = &mut self.unfinished else {
            return Ok(None);
        };
        let (Some(fragment), Some(message)) = (unfinished.compressed_part, &mut unfinished.message) else {
            return Ok(None);
        };
        let is_used_up = deflate.inflate_to_chunk(&unfinished.buffer, fragment)?;
        let (data, last) = (deflate.inflated_chunk(), is_used_up && fragment == Fragment::Last);
        message.check_text(data, last)?;
        let chunk = Chunk {
            kind: message.kind,
            first: !message.is_chunk_delivered,
            last,
        };
        let is_empty = data.is_empty();
        message.is_chunk_delivered = true;
        if is_used_up {
            unfinished.compressed_part = None;
            unfinished.buffer.clear();
        }
        if last {
            unfinished.buffer.extend_from_slice(data);
            unfinished.message = None;
            deflate.stop_inflating();
        }
        Ok((!is_empty || chunk.first || chunk.last).then_some(chunk))
    }

    /// The last chunk of a compressed message, until the next input.
    pub(super) fn last_chunk(&self) -> &[u8] {
        self.unfinished.as_deref().map_or(&[], |unfinished| &unfinished.buffer)
    }

    pub(super) fn take_message(&mut self) -> Vec<u8> {
        self.unfinished
            .take()
            .map(|unfinished| unfinished.buffer)
            .unwrap_or_default()
    }

    /// The type of the message being inflated. No further input is processed until it is complete.
    pub(super) fn inflating(&self) -> Option<MessageKind> {
        self.unfinished.as_ref()?.inflating
    }

    pub(super) fn set_inflating(&mut self, inflating: Option<MessageKind>) {
        self.unfinished.get_or_insert_default().inflating = inflating;
    }

    fn message(&self) -> Option<&Message> {
        self.unfinished.as_ref()?.message.as_ref()
    }

    pub(super) fn control(&self) -> &[u8] {
        self.unfinished.as_ref().map_or(&[], |unfinished| &unfinished.control)
    }

    pub(super) fn buffered_len(&self) -> usize {
        let memory_of = |unfinished: &Unfinished| unfinished.buffer.capacity() + unfinished.control.capacity();
        self.unfinished.as_deref().map_or(0, memory_of)
    }

    /// Frees all buffers. Called when nothing more will be received.
    pub(super) fn release(&mut self) {
        self.unfinished = None;
    }

    /// Fast path: see [`Connection::recognize_message`](super::Connection::recognize_message).
    #[inline(always)]
    pub(super) fn recognize_message<'a>(&self, limits: &Limits, input: &'a [u8]) -> Option<RawMessage<'a>> {
        if self.unfinished.is_some() || self.receive_mode != ReceiveMode::Whole {
            return None;
        }
        RawMessage::recognize(self.mask_rule, limits.message_size_max, input)
    }

    /// Processes `input` until something is complete. Returns the number of bytes consumed and what was completed.
    // [6455-5.4-3, 6455-5.4-8]
    #[inline]
    pub(super) fn receive(&mut self, limits: &Limits, input: &mut [u8]) -> (usize, Result<Decoded, ProtocolError>) {
        // The caller has taken the completed message or control frame since the last call.
        self.unfinished.take_if(|unfinished| unfinished.is_done());
        let mut pos = 0;
        let decoded = loop {
            match self.step(limits, input, &mut pos) {
                Ok(None) => {}
                Ok(Some(decoded)) => break Ok(decoded),
                Err(error) => break Err(error),
            }
        };
        (pos, decoded)
    }

    /// Processes one header or one run of payload bytes.
    #[inline]
    fn step(&mut self, limits: &Limits, input: &mut [u8], pos: &mut usize) -> Result<Option<Decoded>, ProtocolError> {
        if let Some(unfinished) = &mut self.unfinished
            && unfinished.frame.is_some()
        {
            return unfinished.receive_payload(self.receive_mode, input, pos);
        }
        let Some(header) = self.receive_header(input, pos)? else {
            return Ok(Some(Decoded::Nothing));
        };
        self.check_header(limits, &header)?;
        let key = header.mask.unwrap_or_default();

        // Common case: the frame is complete in the input and is a control frame or an unfragmented message.
        let rest = input.len() - *pos;
        if header.fin && header.payload_len <= rest as u64 && header.opcode != Opcode::Continuation {
            let payload = *pos..*pos + header.payload_len as usize;
            *pos = payload.end;
            key.apply(&mut input[payload.clone()]);
            // [6455-6.2-2, 6455-6.2-3]
            let Some(kind) = MessageKind::of(header.opcode) else {
                return Ok(Some(Decoded::ControlInPlace(header.opcode, payload)));
            };
            // [7692-6-2]
            if header.rsv == RSV1 {
                if self.receive_mode == ReceiveMode::Stream {
                    // The payload is already unmasked.
                    *pos = payload.start;
                    self.begin_frame(limits, &header, MaskingKey::default())?;
                    return Ok(None);
                }
                return Ok(Some(Decoded::CompressedInPlace(kind, payload)));
            }
            if !kind.is_valid_payload(&input[payload.clone()]) {
                return Err(ProtocolError::InvalidUtf8);
            }
            return Ok(Some(match self.receive_mode {
                ReceiveMode::Whole => Decoded::MessageInPlace(kind, payload),
                ReceiveMode::Chunks | ReceiveMode::Stream => {
                    let (first, last) = (true, true);
                    Decoded::Chunk(Chunk { kind, first, last }, payload)
                }
            }));
        }

        self.begin_frame(limits, &header, key)?;
        Ok(None)
    }

    /// Decodes a header that may have started in an earlier input. Returns `None` if it is still incomplete.
    #[inline]
    fn receive_header(&mut self, input: &[u8], pos: &mut usize) -> Result<Option<FrameHeader>, ProtocolError> {
        let rest = &input[*pos..];
        if let Some(unfinished) = &mut self.unfinished
            && unfinished.partial_header.len > 0
        {
            return unfinished.partial_header.complete(rest, pos);
        }
        if let Some((header, len)) = FrameHeader::decode(rest)? {
            *pos += len;
            return Ok(Some(header));
        }
        if !rest.is_empty() {
            let unfinished = self.unfinished.get_or_insert_default();
            return unfinished.partial_header.complete(rest, pos);
        }
        Ok(None)
    }

    /// Checks the rules that depend on the role, on negotiation and on earlier frames.
    #[inline]
    fn check_header(&self, limits: &Limits, header: &FrameHeader) -> Result<(), ProtocolError> {
        // RFC 6455 §5.2: reserved bits are zero unless an extension was negotiated. RFC 7692 §6: permessage-deflate
        // gives RSV1 a meaning, on the first frame of a message only. [6455-5.2-2, 7692-6.1-6]
        let is_compressed =
            header.rsv == RSV1 && self.is_deflate_negotiated && matches!(header.opcode, Opcode::Text | Opcode::Binary);
        if header.rsv != 0 && !is_compressed {
            return Err(ProtocolError::ReservedBits);
        }
        // RFC 6455 §5.1: a client masks all frames, a server masks none. [6455-5.1-2, 6455-5.1-5]
        match (self.mask_rule, header.mask.is_some()) {
            (MaskRule::Required, false) => return Err(ProtocolError::UnmaskedFrame),
            (MaskRule::Forbidden, true) => return Err(ProtocolError::MaskedFrame),
            (MaskRule::Required, true) | (MaskRule::Forbidden, false) => {}
        }
        // RFC 6455 §5.4: fragments of different messages must not be interleaved; control frames may come in between.
        // [6455-5.4-6, 6455-5.4-7, 6455-5.4-13, 6455-6.2-4]
        let (size, is_compressed) = match (self.message(), header.opcode) {
            (_, Opcode::Close | Opcode::Ping | Opcode::Pong) => return Ok(()),
            (None, Opcode::Continuation) => return Err(ProtocolError::UnexpectedContinuation),
            (Some(_), Opcode::Text | Opcode::Binary) => return Err(ProtocolError::ExpectedContinuation),
            (Some(message), Opcode::Continuation) => (message.size, message.is_compressed),
            (None, Opcode::Text | Opcode::Binary) => (0, is_compressed),
        };
        let size_max = match is_compressed {
            true => compressed_size_max(limits.message_size_max),
            false => limits.message_size_max,
        };
        // Subtraction cannot overflow; adding a declared length of nearly 2^63 could. [6455-10.4-1, 6455-10.4-2]
        if header.payload_len > size_max.saturating_sub(size) && self.receive_mode != ReceiveMode::Stream {
            return Err(ProtocolError::MessageTooBig);
        }
        Ok(())
    }

    fn begin_frame(&mut self, limits: &Limits, header: &FrameHeader, key: MaskingKey) -> Result<(), ProtocolError> {
        let unfinished = self.unfinished.get_or_insert_default();
        unfinished.control = Vec::new();
        if !header.opcode.is_control() {
            let kind = MessageKind::of(header.opcode);
            let message = unfinished.message.get_or_insert_with(|| Message {
                // `check_header` rejected a continuation without a message, so this is never the fallback. [6455-6.2-3]
                kind: kind.unwrap_or(MessageKind::Binary),
                is_compressed: header.rsv == RSV1,
                size: 0,
                utf8: Utf8Validator::default(),
                empty_fragments: 0,
                is_chunk_delivered: false,
            });
            message.size = message.size.saturating_add(header.payload_len);
            message.empty_fragments = match header.payload_len {
                0 if !header.fin => message.empty_fragments.saturating_add(1),
                _ => 0,
            };
            if message.empty_fragments > limits.empty_fragments_max {
                return Err(ProtocolError::TooManyEmptyFragments);
            }
        }
        unfinished.frame = Some(Frame {
            fin: header.fin,
            opcode: header.opcode,
            key,
            remaining: header.payload_len,
        });
        Ok(())
    }

    /// See [`Connection::direct_read_buffer`](super::Connection::direct_read_buffer).
    #[inline]
    pub(super) fn direct_read_buffer(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        match self.receive_mode {
            ReceiveMode::Whole => self.unfinished.as_mut()?.direct_read_buffer(),
            ReceiveMode::Chunks | ReceiveMode::Stream => None,
        }
    }

    /// Whether the caller appended bytes to [`direct_read_buffer`](Self::direct_read_buffer).
    pub(super) fn has_direct_read(&self) -> bool {
        let has_more = |unfinished: &Unfinished| unfinished.buffer.len() > unfinished.processed_len;
        self.unfinished.as_deref().is_some_and(has_more)
    }

    /// Processes the bytes that the caller appended to [`direct_read_buffer`](Self::direct_read_buffer).
    pub(super) fn receive_direct_read(&mut self) -> Result<Decoded, ProtocolError> {
        match &mut self.unfinished {
            Some(unfinished) => unfinished.receive_direct_read(),
            None => Ok(Decoded::Nothing),
        }
    }
}

impl PartialHeader {
    /// Appends input. Returns the header once it is complete.
    #[cold]
    fn complete(&mut self, rest: &[u8], pos: &mut usize) -> Result<Option<FrameHeader>, ProtocolError> {
        let old_len = usize::from(self.len);
        let added = rest.len().min(HEADER_LEN_MAX - old_len);
        self.bytes[old_len..old_len + added].copy_from_slice(&rest[..added]);
        if let Some((header, header_len)) = FrameHeader::decode(&self.bytes[..old_len + added])? {
            self.len = 0;
            *pos += header_len - old_len;
            return Ok(Some(header));
        }
        // Fourteen bytes always decode to a header or an error, so all of `rest` was appended.
        self.len += added as u8;
        *pos += added;
        Ok(None)
    }
}

impl Unfinished {
    /// Whether nothing is in progress.
    fn is_done(&self) -> bool {
        // While there is a `compressed_part`, there is a `message`.
        let Self {
            frame,
            message,
            inflating,
            ..
        } = self;
        self.partial_header.len == 0 && frame.is_none() && message.is_none() && inflating.is_none()
    }

    /// Consumes payload bytes of the current frame.
    // [6455-5.4-2, 6455-5.4-5]
    fn receive_payload(
        &mut self,
        receive_mode: ReceiveMode,
        input: &mut [u8],
        pos: &mut usize,
    ) -> Result<Option<Decoded>, ProtocolError> {
        let Some(frame) = &mut self.frame else {
            return Ok(None);
        };
        let len =
            usize::try_from(frame.remaining).map_or(input.len() - *pos, |remaining| remaining.min(input.len() - *pos));
        let range = *pos..*pos + len;
        if range.is_empty() && frame.remaining > 0 {
            return Ok(Some(Decoded::Nothing));
        }
        *pos = range.end;
        let bytes = &mut input[range.clone()];
        frame.take(bytes);

        let Some(message) = self.message.as_mut().filter(|_| !frame.opcode.is_control()) else {
            self.control.extend_from_slice(bytes);
            return Ok(self.end_control_frame());
        };
        message.check(bytes, frame.ends_message())?;
        if receive_mode == ReceiveMode::Stream && message.is_compressed {
            self.buffer.extend_from_slice(bytes);
            self.compressed_part = Some(match frame.ends_message() {
                true => Fragment::Last,
                false => Fragment::More,
            });
            self.frame.take_if(|frame| frame.remaining == 0);
            return Ok(Some(Decoded::CompressedPart));
        }
        if receive_mode == ReceiveMode::Whole || message.is_compressed {
            append(&mut self.buffer, bytes, frame.remaining);
            self.processed_len = self.buffer.len();
            return Ok(self.end_data_frame());
        }
        let chunk = Chunk {
            kind: message.kind,
            first: !message.is_chunk_delivered,
            last: frame.ends_message(),
        };
        // Deliver an empty chunk only if it is the first or last of the message.
        let should_deliver = !range.is_empty() || chunk.first || chunk.last;
        message.is_chunk_delivered = true;
        self.end_data_frame();
        Ok(should_deliver.then_some(Decoded::Chunk(chunk, range)))
    }

    fn end_control_frame(&mut self) -> Option<Decoded> {
        let frame = self.frame.take_if(|frame| frame.remaining == 0)?;
        Some(Decoded::Control(frame.opcode))
    }

    fn end_data_frame(&mut self) -> Option<Decoded> {
        let frame = self.frame.take_if(|frame| frame.remaining == 0)?;
        if !frame.fin {
            return None;
        }
        self.message.take().map(|message| match message.is_compressed {
            true => Decoded::Compressed(message.kind),
            false => Decoded::Message(message.kind),
        })
    }

    fn direct_read_buffer(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let frame = self.frame.as_ref().filter(|frame| !frame.opcode.is_control())?;
        if frame.remaining < DIRECT_READ_MIN as u64 || self.buffer.len() < DIRECT_READ_MIN {
            return None;
        }
        let remaining = usize::try_from(frame.remaining).unwrap_or(usize::MAX);
        if self.buffer.capacity() == self.buffer.len() {
            // Grow with the bytes that have arrived, not with the declared length.
            grow(&mut self.buffer, 0, remaining);
        }
        Some((&mut self.buffer, remaining))
    }

    fn receive_direct_read(&mut self) -> Result<Decoded, ProtocolError> {
        let (Some(frame), Some(message)) = (&mut self.frame, &mut self.message) else {
            return Ok(Decoded::Nothing);
        };
        // If the caller appended more than the frame has left, ignore the excess.
        let end = usize::try_from(frame.remaining).map_or(self.buffer.len(), |remaining| {
            self.buffer.len().min(self.processed_len + remaining)
        });
        debug_assert_eq!(
            end,
            self.buffer.len(),
            "appended more bytes than `direct_read_buffer` allowed"
        );
        self.buffer.truncate(end);
        let bytes = &mut self.buffer[self.processed_len..];
        frame.take(bytes);
        message.check(bytes, frame.ends_message())?;
        self.processed_len = end;
        Ok(self.end_data_frame().unwrap_or(Decoded::Nothing))
    }
}

impl Frame {
    /// Unmasks the next bytes of the payload.
    // [6455-6.2-5]
    fn take(&mut self, bytes: &mut [u8]) {
        self.key.apply(bytes);
        self.key = self.key.rotated(bytes.len());
        self.remaining -= bytes.len() as u64;
    }

    /// Whether the bytes taken so far complete the message.
    fn ends_message(&self) -> bool {
        self.fin && self.remaining == 0
    }
}

impl Message {
    /// Validates text incrementally. Invalid UTF-8 fails the connection at the first invalid byte (RFC 6455 §8.1).
    // [6455-5.6-1, 6455-8.1-1]
    fn check(&mut self, bytes: &[u8], ends: bool) -> Result<(), ProtocolError> {
        match self.is_compressed {
            true => Ok(()),
            false => self.check_text(bytes, ends),
        }
    }

    /// Validates the next bytes of text, after inflating.
    fn check_text(&mut self, bytes: &[u8], ends: bool) -> Result<(), ProtocolError> {
        if self.kind != MessageKind::Text {
            return Ok(());
        }
        self.utf8.push(bytes).map_err(|_| ProtocolError::InvalidUtf8)?;
        if ends {
            self.utf8.finish().map_err(|_| ProtocolError::InvalidUtf8)?;
        }
        Ok(())
    }
}

/// Appends to the message buffer. Reserves exactly the outstanding bytes if they are few, otherwise as much as has
/// arrived.
fn append(buffer: &mut Vec<u8>, bytes: &[u8], remaining: u64) {
    let room = usize::try_from(remaining).map_or(bytes.len(), |remaining| remaining.min(bytes.len()));
    if buffer.is_empty() {
        buffer.reserve_exact(bytes.len() + room);
    }
    buffer.extend_from_slice(bytes);
}

/// Maximum compressed size of a message that inflates to at most `size_max` bytes.
///
/// Incompressible data grows by five bytes per stored block, and encoders use stored blocks of at least about 640
/// bytes: 5 / 640 = 1 / 128.
const fn compressed_size_max(size_max: u64) -> u64 {
    size_max.saturating_add(size_max / 128 + 64)
}
