//! The short way for a message as nearly all are: one frame that lies whole in the input, not compressed.
//!
//! Everything else, and all that is wrong, is left as it is to `receive`, which knows the rules; this knows only what
//! obeys them.

use alloc::vec::Vec;
use core::fmt;

use super::MessageKind;
use super::receive::Masked;
use crate::frame::{FIN, LENGTH_16, MASKED, MaskingKey, Opcode, SHORT_MAX};

/// A message that lies whole in the input, as it came: masked, if it is a client's, and not checked.
///
/// See [`Connection::find_message`](super::Connection::find_message).
#[derive(Clone, Copy)]
pub struct MaskedMessage<'a> {
    kind: MessageKind,
    /// Zeros, which change nothing, if the frame is not masked.
    key: MaskingKey,
    /// The payload, and behind it the rest of the input.
    rest: &'a [u8],
    len: usize,
    frame_len: usize,
}

impl<'a> MaskedMessage<'a> {
    // [6455-5.1-2, 6455-5.1-5, 6455-10.4-1]
    #[inline(always)]
    pub(super) fn find(masked: Masked, size_max: u64, input: &'a [u8]) -> Option<Self> {
        const TEXT: u8 = FIN | Opcode::Text.bits();
        const BINARY: u8 = FIN | Opcode::Binary.bits();
        const LEN_SHORT_MAX: u8 = SHORT_MAX as u8;
        const LEN_SHORT_MAX_16: u16 = SHORT_MAX as u16;
        let kind = match *input.first()? {
            TEXT => MessageKind::Text,
            BINARY => MessageKind::Binary,
            _ => return None,
        };
        let masked_bit = match masked {
            Masked::Always => MASKED,
            Masked::Never => 0,
        };
        // A bit that is not as it should be makes the length larger than any here.
        let (len, behind) = match *input.get(1)? ^ masked_bit {
            len @ ..=LEN_SHORT_MAX => (usize::from(len), input.get(2..)?),
            LENGTH_16 => match u16::from_be_bytes(*input.get(2..)?.first_chunk()?) {
                // The shortest form is the only legal one.
                ..=LEN_SHORT_MAX_16 => return None,
                len => (usize::from(len), input.get(4..)?),
            },
            _ => return None,
        };
        let (key, rest) = match masked {
            Masked::Always => {
                let (key, rest) = behind.split_first_chunk()?;
                (MaskingKey(*key), rest)
            }
            Masked::Never => (MaskingKey::default(), behind),
        };
        if len as u64 > size_max || len > rest.len() {
            return None;
        }
        Some(Self {
            kind,
            key,
            rest,
            len,
            frame_len: input.len() - rest.len() + len,
        })
    }

    /// Text or binary.
    #[inline]
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// How many bytes the payload has.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the payload has no bytes; such messages are legal.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes of the input are this message and its header.
    #[inline]
    pub fn frame_len(&self) -> usize {
        self.frame_len
    }

    pub(super) fn key(&self) -> MaskingKey {
        self.key
    }

    /// The payload, unmasked while it is copied, in a vector without spare capacity; `None` if it should be text and is
    /// not UTF-8.
    // [6455-5.3-5]
    #[inline]
    pub fn to_vec(&self) -> Option<Vec<u8>> {
        let mut payload = Vec::with_capacity(self.len);
        self.key.append(&self.rest[..self.len], &mut payload);
        self.kind.admits(&payload).then_some(payload)
    }

    /// The payload, unmasked, at the start of an array; `None` if it is longer than that, or should be text and is not
    /// UTF-8.
    ///
    /// What lies behind the payload's [`len`](Self::len) bytes means nothing and is not to be handed on: it is made of the
    /// frames that follow. A copy of a fixed length stays in registers, and most messages are small.
    #[inline(always)]
    pub fn to_array<const N: usize>(&self) -> Option<[u8; N]> {
        if self.len > N {
            return None;
        }
        let mut payload = match self.rest.first_chunk::<N>() {
            Some(bytes) => *bytes,
            None => {
                let mut bytes = [0; N];
                bytes[..self.len].copy_from_slice(&self.rest[..self.len]);
                bytes
            }
        };
        self.key.apply_to_array(&mut payload);
        // Of a copy, so that looking at it does not force it out of its registers.
        let copy = payload;
        self.kind.admits(&copy[..self.len]).then_some(payload)
    }
}

/// Without the bytes, which are masked and not all this message's.
impl fmt::Debug for MaskedMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskedMessage")
            .field("kind", &self.kind)
            .field("len", &self.len)
            .field("frame_len", &self.frame_len)
            .finish_non_exhaustive()
    }
}
