//! Fast path for the common case: an uncompressed single-frame message that is complete in the input.
//!
//! Recognizes only valid frames of this kind. Everything else, including every protocol violation, is left to
//! `receive`.
//!
//! In `cargo xtask count`, recognizing and copying a 20-byte message takes 71 instructions (`find-20B`). Through
//! `Connection::handle_bytes`, which unmasks in place, it takes 162 (`decode-20B`).

use alloc::vec::Vec;
use core::fmt;

use crate::frame::{FIN, LENGTH_16, MASKED, MaskRule, MaskingKey, Opcode, SHORT_MAX};
use crate::message::MessageKind;

/// A complete message in the input, still masked (if sent by a client) and not yet validated.
///
/// Returned by [`Connection::recognize_message`](super::Connection::recognize_message). Cheap to copy: it borrows the
/// input.
#[derive(Clone, Copy)]
pub struct RawMessage<'a> {
    kind: MessageKind,
    /// All zero, which is a no-op, if the frame is not masked.
    key: MaskingKey,
    /// The payload, followed by the rest of the input.
    rest: &'a [u8],
    len: usize,
    frame_len: usize,
}

impl<'a> RawMessage<'a> {
    // [6455-5.1-2, 6455-5.1-5, 6455-10.4-1]
    #[inline(always)]
    pub(super) fn recognize(mask_rule: MaskRule, size_max: u64, input: &'a [u8]) -> Option<Self> {
        const TEXT: u8 = FIN | Opcode::Text.bits();
        const BINARY: u8 = FIN | Opcode::Binary.bits();
        const LEN_SHORT_MAX: u8 = SHORT_MAX as u8;
        const LEN_SHORT_MAX_16: u16 = SHORT_MAX as u16;
        let kind = match *input.first()? {
            TEXT => MessageKind::Text,
            BINARY => MessageKind::Binary,
            _ => return None,
        };
        let masked_bit = match mask_rule {
            MaskRule::Required => MASKED,
            MaskRule::Forbidden => 0,
        };
        // XOR clears an expected mask bit. An unexpected one stays set, so the length matches no arm below.
        let (len, behind) = match *input.get(1)? ^ masked_bit {
            len @ ..=LEN_SHORT_MAX => (usize::from(len), input.get(2..)?),
            LENGTH_16 => match u16::from_be_bytes(*input.get(2..)?.first_chunk()?) {
                // Not the shortest encoding, which is a protocol error.
                ..=LEN_SHORT_MAX_16 => return None,
                len => (usize::from(len), input.get(4..)?),
            },
            _ => return None,
        };
        let (key, rest) = match mask_rule {
            MaskRule::Required => {
                let (key, rest) = behind.split_first_chunk()?;
                (MaskingKey(*key), rest)
            }
            MaskRule::Forbidden => (MaskingKey::default(), behind),
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

    /// The type of the message: text or binary.
    #[inline]
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The length of the payload, in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the payload is empty. Empty messages are legal.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The length of the whole frame (header and payload), in bytes. The next frame starts there.
    #[inline]
    pub fn frame_len(&self) -> usize {
        self.frame_len
    }

    pub(super) fn key(&self) -> MaskingKey {
        self.key
    }

    /// Copies and unmasks the payload in one pass, into a vector without spare capacity.
    ///
    /// Returns `None` if this is a text message and the payload is not valid UTF-8.
    // [6455-5.3-5]
    #[inline]
    pub fn to_vec(&self) -> Option<Vec<u8>> {
        let mut payload = Vec::with_capacity(self.len);
        self.key.append(&self.rest[..self.len], &mut payload);
        self.kind.is_valid_payload(&payload).then_some(payload)
    }

    /// Copies and unmasks the payload to the start of an array.
    ///
    /// Returns `None` if the payload is longer than `N` bytes, or if this is a text message and the payload is not
    /// valid UTF-8.
    ///
    /// Only the first [`len`](Self::len) bytes are meaningful. The rest is derived from the following frames and must
    /// not be exposed. The constant length lets the compiler keep small messages in registers.
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
        // Validate a copy: borrowing `payload` itself would force it out of registers.
        let copy = payload;
        self.kind.is_valid_payload(&copy[..self.len]).then_some(payload)
    }
}

/// Omits the bytes: they are masked and include the frames that follow.
impl fmt::Debug for RawMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMessage")
            .field("kind", &self.kind)
            .field("len", &self.len)
            .field("frame_len", &self.frame_len)
            .finish_non_exhaustive()
    }
}
