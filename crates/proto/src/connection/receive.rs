//! From bytes to messages: headers, fragments, masks, limits and UTF-8, at any split of the input.
//!
//! A message that lies whole in the caller's buffer is unmasked there and never copied. Everything else is kept in
//! one growing buffer, and of an unfinished frame only what has arrived. Every byte given is consumed, so the caller
//! never has to keep any.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use super::fast_path::MaskedMessage;
use super::{MessageKind, ReceiveMode};
use crate::config::Limits;
use crate::frame::{FrameHeader, HEADER_LEN_MAX, MaskingKey, Opcode, RSV1};
use crate::grow::grow;
use crate::protocol_error::ProtocolError;
use crate::utf8::Utf8Validator;

/// From this size on, the rest of an unfinished frame is worth reading straight into the message's own buffer.
const DIRECT_READ_MIN: usize = 32 * 1024;

/// What the receiver found; ranges are of the caller's input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All input is consumed and nothing is complete.
    Nothing,
    /// A message that lies whole in the input.
    MessageInPlace(MessageKind, Range<usize>),
    /// A message that is whole in [`Receiver::take_message`].
    Message(MessageKind),
    /// As `MessageInPlace`, still compressed; text is not checked.
    CompressedInPlace(MessageKind, Range<usize>),
    /// As `Message`, still compressed; text is not checked.
    Compressed(MessageKind),
    /// A part of a message, in the input.
    Chunk(Chunk, Range<usize>),
    /// A control frame, in the input.
    ControlInPlace(Opcode, Range<usize>),
    /// A control frame, whole in [`Receiver::control`].
    Control(Opcode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) kind: MessageKind,
    pub(super) first: bool,
    pub(super) last: bool,
}

/// What this endpoint expects of every frame that it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Masked {
    /// RFC 6455 §5.1: a server closes on a frame that is not masked.
    Always,
    /// RFC 6455 §5.1: a client closes on a frame that is masked.
    Never,
}

#[derive(Debug)]
pub(super) struct Receiver {
    masked: Masked,
    /// Whether permessage-deflate was negotiated, which gives RSV1 its meaning (RFC 7692 §6).
    is_deflate_negotiated: bool,
    receive_mode: ReceiveMode,
    /// Boxed, for most messages arrive whole and most connections are idle.
    unfinished: Option<Box<Unfinished>>,
}

/// What has begun to arrive.
#[derive(Debug, Default)]
struct Unfinished {
    /// The beginning of a header that the last input cut.
    cut_header: CutHeader,
    frame: Option<Frame>,
    message: Option<Message>,
    /// What has arrived of a message that was not whole in one input.
    buffer: Vec<u8>,
    /// How much of `buffer` is unmasked and checked; less than its length only while the caller reads directly.
    accepted: usize,
    /// What has arrived of a control frame that was not whole in one input; kept until the next frame begins.
    control: Vec<u8>,
    /// The kind of a message that has arrived, and of which only a part is inflated.
    inflating: Option<MessageKind>,
}

#[derive(Debug, Default)]
struct CutHeader {
    bytes: [u8; HEADER_LEN_MAX],
    len: u8,
}

/// A frame whose payload is arriving.
#[derive(Debug)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    /// The key for the next byte; zeros, which change nothing, if the frame is not masked.
    key: MaskingKey,
    remaining: u64,
}

/// A message whose fragments are arriving.
#[derive(Debug)]
struct Message {
    kind: MessageKind,
    is_compressed: bool,
    /// Bytes declared by its frames so far: what the limit counts.
    size: u64,
    utf8: Utf8Validator,
    empty_fragments: u32,
    /// Whether a chunk of it was delivered.
    begun: bool,
}

impl Receiver {
    pub(super) fn new(masked: Masked) -> Self {
        Self {
            masked,
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

    /// Whether part of a message has arrived, so that how it is delivered is settled.
    pub(super) fn is_inside_message(&self) -> bool {
        self.message().is_some()
    }

    pub(super) fn set_receive_mode(&mut self, receive_mode: ReceiveMode) {
        self.receive_mode = receive_mode;
    }

    pub(super) fn take_message(&mut self) -> Vec<u8> {
        self.unfinished
            .take()
            .map(|unfinished| unfinished.buffer)
            .unwrap_or_default()
    }

    /// The kind of the message that is being inflated: nothing behind it is received before it is whole.
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
        let held = |unfinished: &Unfinished| unfinished.buffer.capacity() + unfinished.control.capacity();
        self.unfinished.as_deref().map_or(0, held)
    }

    /// Gives up what is held, when nothing more will be received.
    pub(super) fn release(&mut self) {
        self.unfinished = None;
    }

    /// The message at the start of `input`, if it is as nearly all are: see [`whole`](super::whole).
    #[inline(always)]
    pub(super) fn find_whole<'a>(&self, limits: &Limits, input: &'a [u8]) -> Option<MaskedMessage<'a>> {
        if self.unfinished.is_some() || self.receive_mode != ReceiveMode::Whole {
            return None;
        }
        MaskedMessage::find(self.masked, limits.message_size_max, input)
    }

    /// Goes through `input` until something is complete: how many bytes that took, and what it is.
    // [6455-5.4-3, 6455-5.4-8]
    #[inline]
    pub(super) fn receive(&mut self, limits: &Limits, input: &mut [u8]) -> (usize, Result<Found, ProtocolError>) {
        // What came in pieces has been looked at since.
        self.unfinished.take_if(|unfinished| unfinished.is_over());
        let mut pos = 0;
        let found = loop {
            match self.step(limits, input, &mut pos) {
                Ok(None) => {}
                Ok(Some(found)) => break Ok(found),
                Err(fault) => break Err(fault),
            }
        };
        (pos, found)
    }

    /// One header, or one stretch of payload.
    #[inline]
    fn step(&mut self, limits: &Limits, input: &mut [u8], pos: &mut usize) -> Result<Option<Found>, ProtocolError> {
        if let Some(unfinished) = &mut self.unfinished
            && unfinished.frame.is_some()
        {
            return unfinished.receive_payload(self.receive_mode, input, pos);
        }
        let Some(header) = self.receive_header(input, pos)? else {
            return Ok(Some(Found::Nothing));
        };
        self.check_header(limits, &header)?;
        let key = header.mask.unwrap_or_default();

        // The straight path: the frame lies whole in the input, and is a control frame or a whole message.
        let rest = input.len() - *pos;
        if header.fin && header.payload_len <= rest as u64 && header.opcode != Opcode::Continuation {
            let payload = *pos..*pos + header.payload_len as usize;
            *pos = payload.end;
            key.apply(&mut input[payload.clone()]);
            // [6455-6.2-2, 6455-6.2-3]
            let Some(kind) = MessageKind::of(header.opcode) else {
                return Ok(Some(Found::ControlInPlace(header.opcode, payload)));
            };
            // [7692-6-2]
            if header.rsv == RSV1 {
                return Ok(Some(Found::CompressedInPlace(kind, payload)));
            }
            if !kind.admits(&input[payload.clone()]) {
                return Err(ProtocolError::InvalidUtf8);
            }
            return Ok(Some(match self.receive_mode {
                ReceiveMode::Whole => Found::MessageInPlace(kind, payload),
                ReceiveMode::Chunks => {
                    let (first, last) = (true, true);
                    Found::Chunk(Chunk { kind, first, last }, payload)
                }
            }));
        }

        self.begin_frame(limits, &header, key)?;
        Ok(None)
    }

    /// Reads a header that may have begun in an earlier input; `None` if it goes on in a later one.
    #[inline]
    fn receive_header(&mut self, input: &[u8], pos: &mut usize) -> Result<Option<FrameHeader>, ProtocolError> {
        let rest = &input[*pos..];
        if let Some(unfinished) = &mut self.unfinished
            && unfinished.cut_header.len > 0
        {
            return unfinished.cut_header.complete(rest, pos);
        }
        if let Some((header, len)) = FrameHeader::decode(rest)? {
            *pos += len;
            return Ok(Some(header));
        }
        if !rest.is_empty() {
            let unfinished = self.unfinished.get_or_insert_default();
            return unfinished.cut_header.complete(rest, pos);
        }
        Ok(None)
    }

    /// What a frame may be here and now.
    #[inline]
    fn check_header(&self, limits: &Limits, header: &FrameHeader) -> Result<(), ProtocolError> {
        // RFC 6455 §5.2: reserved bits are zero unless an extension was negotiated. RFC 7692 §6: permessage-deflate
        // gives RSV1 a meaning, on the first frame of a message only. [6455-5.2-2, 7692-6.1-6]
        let is_compressed =
            header.rsv == RSV1 && self.is_deflate_negotiated && matches!(header.opcode, Opcode::Text | Opcode::Binary);
        if header.rsv != 0 && !is_compressed {
            return Err(ProtocolError::ReservedBits);
        }
        // RFC 6455 §5.1: a client masks, a server does not. [6455-5.1-2, 6455-5.1-5]
        match (self.masked, header.mask.is_some()) {
            (Masked::Always, false) => return Err(ProtocolError::UnmaskedFrame),
            (Masked::Never, true) => return Err(ProtocolError::MaskedFrame),
            (Masked::Always, true) | (Masked::Never, false) => {}
        }
        // RFC 6455 §5.4: fragments of one message are not interleaved with another's; control frames may come between.
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
        // Subtracted, not added: the declared length may be near the top of its type. [6455-10.4-1, 6455-10.4-2]
        if header.payload_len > size_max.saturating_sub(size) {
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
                // A continuation without a message was refused with its header. [6455-6.2-3]
                kind: kind.unwrap_or(MessageKind::Binary),
                is_compressed: header.rsv == RSV1,
                size: 0,
                utf8: Utf8Validator::default(),
                empty_fragments: 0,
                begun: false,
            });
            message.size += header.payload_len;
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

    /// The message's own buffer, with room, if the rest of the present frame is worth reading straight into it;
    /// and how many bytes may be appended.
    #[inline]
    pub(super) fn direct_buffer(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        match self.receive_mode {
            ReceiveMode::Whole => self.unfinished.as_mut()?.direct_buffer(),
            ReceiveMode::Chunks => None,
        }
    }

    /// Whether the caller appended anything to [`direct_buffer`](Self::direct_buffer).
    pub(super) fn has_appended(&self) -> bool {
        let has_more = |unfinished: &Unfinished| unfinished.buffer.len() > unfinished.accepted;
        self.unfinished.as_deref().is_some_and(has_more)
    }

    /// Takes what the caller appended to [`direct_buffer`](Self::direct_buffer).
    pub(super) fn receive_appended(&mut self) -> Result<Found, ProtocolError> {
        match &mut self.unfinished {
            Some(unfinished) => unfinished.receive_appended(),
            None => Ok(Found::Nothing),
        }
    }
}

impl CutHeader {
    /// Adds what comes next, and takes the header out when it is whole.
    #[cold]
    fn complete(&mut self, rest: &[u8], pos: &mut usize) -> Result<Option<FrameHeader>, ProtocolError> {
        let had = usize::from(self.len);
        let added = rest.len().min(HEADER_LEN_MAX - had);
        self.bytes[had..had + added].copy_from_slice(&rest[..added]);
        if let Some((header, header_len)) = FrameHeader::decode(&self.bytes[..had + added])? {
            self.len = 0;
            *pos += header_len - had;
            return Ok(Some(header));
        }
        // Fourteen bytes are a header or a fault, so what was added is all there was.
        self.len += added as u8;
        *pos += added;
        Ok(None)
    }
}

impl Unfinished {
    /// Whether nothing more of it is to come.
    fn is_over(&self) -> bool {
        let Self {
            frame,
            message,
            inflating,
            ..
        } = self;
        self.cut_header.len == 0 && frame.is_none() && message.is_none() && inflating.is_none()
    }

    /// Takes what the input has of the frame's payload.
    // [6455-5.4-2, 6455-5.4-5]
    fn receive_payload(
        &mut self,
        receive_mode: ReceiveMode,
        input: &mut [u8],
        pos: &mut usize,
    ) -> Result<Option<Found>, ProtocolError> {
        let Some(frame) = &mut self.frame else {
            return Ok(None);
        };
        let len =
            usize::try_from(frame.remaining).map_or(input.len() - *pos, |remaining| remaining.min(input.len() - *pos));
        let stretch = *pos..*pos + len;
        if stretch.is_empty() && frame.remaining > 0 {
            return Ok(Some(Found::Nothing));
        }
        *pos = stretch.end;
        let bytes = &mut input[stretch.clone()];
        frame.take(bytes);

        let Some(message) = self.message.as_mut().filter(|_| !frame.opcode.is_control()) else {
            self.control.extend_from_slice(bytes);
            return Ok(self.end_control_frame());
        };
        message.check(bytes, frame.ends_message())?;
        if receive_mode == ReceiveMode::Whole || message.is_compressed {
            append(&mut self.buffer, bytes, frame.remaining);
            self.accepted = self.buffer.len();
            return Ok(self.end_data_frame());
        }
        let chunk = Chunk {
            kind: message.kind,
            first: !message.begun,
            last: frame.ends_message(),
        };
        // An empty stretch is news only if it begins or ends the message.
        let is_news = !stretch.is_empty() || chunk.first || chunk.last;
        message.begun = true;
        self.end_data_frame();
        Ok(is_news.then_some(Found::Chunk(chunk, stretch)))
    }

    fn end_control_frame(&mut self) -> Option<Found> {
        let frame = self.frame.take_if(|frame| frame.remaining == 0)?;
        Some(Found::Control(frame.opcode))
    }

    fn end_data_frame(&mut self) -> Option<Found> {
        let frame = self.frame.take_if(|frame| frame.remaining == 0)?;
        if !frame.fin {
            return None;
        }
        self.message.take().map(|message| match message.is_compressed {
            true => Found::Compressed(message.kind),
            false => Found::Message(message.kind),
        })
    }

    fn direct_buffer(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let frame = self.frame.as_ref().filter(|frame| !frame.opcode.is_control())?;
        if frame.remaining < DIRECT_READ_MIN as u64 || self.buffer.len() < DIRECT_READ_MIN {
            return None;
        }
        let remaining = usize::try_from(frame.remaining).unwrap_or(usize::MAX);
        if self.buffer.capacity() == self.buffer.len() {
            // Memory follows what arrived, whatever the header declared.
            grow(&mut self.buffer, 0, remaining);
        }
        Some((&mut self.buffer, remaining))
    }

    fn receive_appended(&mut self) -> Result<Found, ProtocolError> {
        let (Some(frame), Some(message)) = (&mut self.frame, &mut self.message) else {
            return Ok(Found::Nothing);
        };
        // More than the frame still has cannot be told from its payload: refuse to guess.
        let end = usize::try_from(frame.remaining).map_or(self.buffer.len(), |remaining| {
            self.buffer.len().min(self.accepted + remaining)
        });
        debug_assert_eq!(end, self.buffer.len(), "appended more than allowed");
        self.buffer.truncate(end);
        let bytes = &mut self.buffer[self.accepted..];
        frame.take(bytes);
        message.check(bytes, frame.ends_message())?;
        self.accepted = end;
        Ok(self.end_data_frame().unwrap_or(Found::Nothing))
    }
}

impl Frame {
    /// Unmasks the next bytes of the payload.
    // [6455-6.2-5]
    fn take(&mut self, bytes: &mut [u8]) {
        self.key.apply(bytes);
        self.key = self.key.advanced(bytes.len());
        self.remaining -= bytes.len() as u64;
    }

    /// Whether nothing of the message comes after what has been taken.
    fn ends_message(&self) -> bool {
        self.fin && self.remaining == 0
    }
}

impl Message {
    /// RFC 6455 §8.1: text that is not UTF-8 fails the connection, here as soon as it shows.
    // [6455-5.6-1, 6455-8.1-1]
    fn check(&mut self, bytes: &[u8], ends: bool) -> Result<(), ProtocolError> {
        if self.kind != MessageKind::Text || self.is_compressed {
            return Ok(());
        }
        self.utf8.push(bytes).map_err(|_| ProtocolError::InvalidUtf8)?;
        if ends {
            self.utf8.finish().map_err(|_| ProtocolError::InvalidUtf8)?;
        }
        Ok(())
    }
}

/// Appends to the message; grows exactly where the rest of the frame is small, else by doubling what arrived.
fn append(buffer: &mut Vec<u8>, bytes: &[u8], remaining: u64) {
    let room = usize::try_from(remaining).map_or(bytes.len(), |remaining| remaining.min(bytes.len()));
    if buffer.is_empty() {
        buffer.reserve_exact(bytes.len() + room);
    }
    buffer.extend_from_slice(bytes);
}

/// How large a message within the limit can be when compressed: what does not compress grows by five bytes for each
/// stored block, and no encoder makes these shorter than some 640 bytes: 5 / 640 is 1 / 128.
const fn compressed_size_max(size_max: u64) -> u64 {
    size_max.saturating_add(size_max / 128 + 64)
}
