//! Frame headers (RFC 6455 §5.2), 2 to 14 bytes long.

use alloc::vec::Vec;

use super::MaskingKey;
use crate::protocol_error::ProtocolError;

/// Maximum length of a frame header, in bytes: 2 (flags and 7-bit length) + 8 (64-bit length) + 4 (masking key).
pub const HEADER_LEN_MAX: usize = 14;

/// Maximum payload length of a control frame, in bytes (RFC 6455 §5.5).
pub(crate) const CONTROL_PAYLOAD_MAX: usize = 125;

/// Largest payload length that the 7-bit length field can hold.
pub(crate) const SHORT_MAX: u64 = 125;
/// Value of the 7-bit length field that announces a 16-bit length.
pub(crate) const LENGTH_16: u8 = 126;
/// Value of the 7-bit length field that announces a 64-bit length.
const LENGTH_64: u8 = 127;

pub(crate) const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0f;
pub(crate) const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// RSV1 in [`FrameHeader::rsv`].
pub(crate) const RSV1: u8 = 4;

/// The type of a frame (RFC 6455 §5.2, §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A continuation frame: a further fragment of the message in progress.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// A close frame.
    Close = 0x8,
    /// A ping.
    Ping = 0x9,
    /// A pong: the answer to a ping, or unsolicited.
    Pong = 0xa,
}

impl Opcode {
    /// Returns the opcode for a 4-bit value, or `None` if the value is reserved.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Returns the 4-bit value on the wire.
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// Whether this is a control frame: a close, ping or pong.
    pub const fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

/// A decoded frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The FIN bit: whether this is the last or only fragment of its message.
    pub fin: bool,
    /// The reserved bits: RSV1 is 4, RSV2 is 2, RSV3 is 1.
    pub rsv: u8,
    /// The type of the frame.
    pub opcode: Opcode,
    /// The masking key, if the frame is masked.
    pub mask: Option<MaskingKey>,
    /// The declared payload length, in bytes, 0 to 2^63 - 1. This crate never allocates memory based on it.
    // [6455-5.3-6]
    pub payload_len: u64,
}

impl FrameHeader {
    /// Decodes the header at the start of `input`.
    ///
    /// Returns the header and its encoded length in bytes, or `None` if `input` is too short.
    ///
    /// # Errors
    ///
    /// The first violation in byte order: a reserved opcode, a fragmented or oversized control frame, or an invalid
    /// length encoding. Masking and reserved bits depend on the connection and are not checked.
    #[inline]
    pub fn decode(input: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let [first, second, rest @ ..] = input else {
            return Ok(None);
        };
        // RFC 6455 §5.2: a reserved opcode fails the connection. [6455-5.2-3]
        let Some(opcode) = Opcode::from_bits(first & OPCODE) else {
            return Err(ProtocolError::ReservedOpcode(first & OPCODE));
        };
        let fin = first & FIN != 0;
        let short = second & LENGTH;
        if opcode.is_control() {
            // RFC 6455 §5.5: control frames have at most 125 bytes of payload and are not fragmented.
            // [6455-5.4-4, 6455-5.5-1, 6455-5.5-2]
            if !fin {
                return Err(ProtocolError::FragmentedControl);
            }
            if short > CONTROL_PAYLOAD_MAX as u8 {
                return Err(ProtocolError::OversizedControl);
            }
        }

        // [6455-5.2-6, 6455-6.2-1]
        let (payload_len, rest, mut len) = match short {
            LENGTH_16 => {
                let Some((bytes, rest)) = rest.split_first_chunk::<2>() else {
                    return Ok(None);
                };
                (u64::from(u16::from_be_bytes(*bytes)), rest, 4)
            }
            LENGTH_64 => {
                let Some((bytes, rest)) = rest.split_first_chunk::<8>() else {
                    return Ok(None);
                };
                (u64::from_be_bytes(*bytes), rest, 10)
            }
            short => (u64::from(short), rest, 2),
        };
        // RFC 6455 §5.2: the most significant bit of a 64-bit length must be zero. [6455-5.2-4]
        if payload_len >> 63 != 0 {
            return Err(ProtocolError::LengthOverflow);
        }
        // RFC 6455 §5.2: the length must use the shortest encoding. [6455-5.2-5]
        if payload_len < shortest_length_of(short) {
            return Err(ProtocolError::NonMinimalLength);
        }

        // [6455-5.2-7]
        let mask = if second & MASKED != 0 {
            let Some(key) = rest.first_chunk::<4>() else {
                return Ok(None);
            };
            len += 4;
            Some(MaskingKey(*key))
        } else {
            None
        };
        let header = Self {
            fin,
            rsv: (first & RSV) >> 4,
            opcode,
            mask,
            payload_len,
        };
        Ok(Some((header, len)))
    }

    /// Appends the encoded header to `out`, with the length in its shortest form.
    ///
    /// # Panics
    ///
    /// In debug builds, if `rsv` exceeds 7 or `payload_len` exceeds 2^63 - 1.
    // [6455-5.2-5, 6455-5.2-6]
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.rsv < 8 && self.payload_len >> 63 == 0);
        let first = if self.fin { FIN } else { 0 } | self.rsv << 4 | self.opcode.bits();
        if self.payload_len <= SHORT_MAX && self.mask.is_none() {
            out.extend_from_slice(&[first, self.payload_len as u8]);
            return;
        }
        let mut bytes = [0; HEADER_LEN_MAX];
        bytes[0] = first;
        let mut len = if self.payload_len <= SHORT_MAX {
            bytes[1] = self.payload_len as u8;
            2
        } else if let Ok(short) = u16::try_from(self.payload_len) {
            bytes[1] = LENGTH_16;
            bytes[2..4].copy_from_slice(&short.to_be_bytes());
            4
        } else {
            bytes[1] = LENGTH_64;
            bytes[2..10].copy_from_slice(&self.payload_len.to_be_bytes());
            10
        };
        // [6455-5.2-7, 6455-5.3-1]
        if let Some(MaskingKey(key)) = self.mask {
            bytes[1] |= MASKED;
            bytes[len..len + 4].copy_from_slice(&key);
            len += 4;
        }
        out.extend_from_slice(&bytes[..len]);
    }
}

/// Returns the smallest payload length that may use the encoding announced by the 7-bit length field `short`.
const fn shortest_length_of(short: u8) -> u64 {
    match short {
        LENGTH_16 => SHORT_MAX + 1,
        LENGTH_64 => u16::MAX as u64 + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[track_caller]
    fn check_decode(input: &[u8], expected: Result<Option<(FrameHeader, usize)>, ProtocolError>) {
        assert_eq!(FrameHeader::decode(input), expected);
        if let Ok(Some((header, len))) = expected {
            for cut in 0..len {
                assert_eq!(FrameHeader::decode(&input[..cut]), Ok(None), "split at {cut}");
            }
            let mut out = vec![];
            header.encode(&mut out);
            assert_eq!(out, &input[..len]);
        }
    }

    fn binary(payload_len: u64, mask: Option<[u8; 4]>) -> FrameHeader {
        FrameHeader {
            fin: true,
            rsv: 0,
            opcode: Opcode::Binary,
            mask: mask.map(MaskingKey),
            payload_len,
        }
    }

    #[test]
    fn all_length_encodings_are_decoded_at_their_boundaries() {
        check_decode(&[0x82, 0], Ok(Some((binary(0, None), 2))));
        check_decode(&[0x82, 125], Ok(Some((binary(125, None), 2))));
        check_decode(&[0x82, 126, 0, 126], Ok(Some((binary(126, None), 4))));
        check_decode(&[0x82, 126, 0xff, 0xff], Ok(Some((binary(65535, None), 4))));
        check_decode(
            &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0],
            Ok(Some((binary(65536, None), 10))),
        );
        check_decode(
            &[0x82, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255],
            Ok(Some((binary(u64::MAX >> 1, None), 10))),
        );
        check_decode(&[0x82, 0x85, 1, 2, 3, 4], Ok(Some((binary(5, Some([1, 2, 3, 4])), 6))));
        check_decode(
            &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 9, 8, 7, 6],
            Ok(Some((binary(65536, Some([9, 8, 7, 6])), 14))),
        );
    }

    #[test]
    fn non_minimal_length_is_rejected() {
        check_decode(&[0x82, 126, 0, 125], Err(ProtocolError::NonMinimalLength));
        check_decode(
            &[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255],
            Err(ProtocolError::NonMinimalLength),
        );
    }

    #[test]
    fn length_with_the_top_bit_set_is_rejected() {
        check_decode(
            &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
            Err(ProtocolError::LengthOverflow),
        );
        check_decode(
            &[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255],
            Err(ProtocolError::LengthOverflow),
        );
    }

    #[test]
    fn reserved_opcode_is_rejected_after_two_bytes() {
        for bits in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
            check_decode(&[0x80 | bits, 0x80], Err(ProtocolError::ReservedOpcode(bits)));
        }
    }

    #[test]
    fn fragmented_or_oversized_control_frame_is_rejected() {
        for bits in [8, 9, 0xa] {
            check_decode(&[bits, 0], Err(ProtocolError::FragmentedControl));
            check_decode(&[0x80 | bits, 126], Err(ProtocolError::OversizedControl));
            check_decode(&[0x80 | bits, 127], Err(ProtocolError::OversizedControl));
            assert!(matches!(FrameHeader::decode(&[0x80 | bits, 125]), Ok(Some(_))));
        }
    }
}
