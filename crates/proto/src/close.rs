//! The payload of close frames (RFC 6455 §5.5.1).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::close_code::CloseCode;
use crate::frame::MaskingKey;
use crate::protocol_error::ProtocolError;
use crate::utf8;

/// Maximum length of a close reason, in bytes: the 125 bytes of a control frame payload (RFC 6455 §5.5) minus the
/// two-byte close code.
pub const CLOSE_REASON_LEN_MAX: usize = 123;

/// The code and reason of a close frame (RFC 6455 §5.5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// The code. [`CloseCode::NO_STATUS`] represents a close frame without a code.
    pub code: CloseCode,
    /// The reason, at most [`CLOSE_REASON_LEN_MAX`] bytes. Meant for debugging and logs, not for display to end users
    /// (RFC 6455 §5.5.1).
    pub reason: String,
}

impl CloseFrame {
    /// Creates a close frame to send.
    ///
    /// [`CloseCode::NO_STATUS`] with an empty reason creates a close frame without a body.
    ///
    /// # Errors
    ///
    /// - [`InvalidClose::Code`] if the code must not be sent ([`CloseCode::is_valid_on_wire`]).
    /// - [`InvalidClose::ReasonTooLong`] if the reason is longer than [`CLOSE_REASON_LEN_MAX`] bytes.
    pub fn new(code: CloseCode, reason: &str) -> Result<Self, InvalidClose> {
        if code == CloseCode::NO_STATUS && reason.is_empty() {
            return Ok(Self::without_code());
        }
        if !code.is_valid_on_wire() {
            return Err(InvalidClose::Code(code));
        }
        if reason.len() > CLOSE_REASON_LEN_MAX {
            return Err(InvalidClose::ReasonTooLong { len: reason.len() });
        }
        Ok(Self {
            code,
            reason: reason.into(),
        })
    }

    /// Creates a close frame to send and truncates a long reason with [`truncate_close_reason`].
    ///
    /// Use this for reasons of unknown length, such as the text of an error.
    ///
    /// # Errors
    ///
    /// [`InvalidClose::Code`] if the code must not be sent ([`CloseCode::is_valid_on_wire`]).
    pub fn with_truncated_reason(code: CloseCode, reason: &str) -> Result<Self, InvalidClose> {
        Self::new(code, truncate_close_reason(reason))
    }

    /// Creates a close frame to send, replacing invalid values instead of failing.
    ///
    /// Use this where the connection must be closed regardless of the arguments:
    ///
    /// - A long reason is truncated with [`truncate_close_reason`].
    /// - A code that must not be sent ([`CloseCode::is_valid_on_wire`]), such as 1006 or 1015, becomes
    ///   [`CloseCode::INTERNAL_ERROR`] (1011), because [`CloseCode::NORMAL`] (1000) would report success.
    /// - [`CloseCode::NO_STATUS`] creates a close frame without a body. With a reason it becomes [`CloseCode::NORMAL`],
    ///   because a reason cannot be sent without a code.
    ///
    /// ```
    /// use sockeye_proto::{CloseCode, CloseFrame};
    ///
    /// let frame = CloseFrame::new_lossy(CloseCode::ABNORMAL, &"é".repeat(100));
    /// assert_eq!(frame.code, CloseCode::INTERNAL_ERROR);
    /// // 61 characters of two bytes; the 62nd would end at byte 124.
    /// assert_eq!(frame.reason, "é".repeat(61));
    /// ```
    #[must_use]
    pub fn new_lossy(code: CloseCode, reason: &str) -> Self {
        let code = match code {
            CloseCode::NO_STATUS if reason.is_empty() => return Self::without_code(),
            CloseCode::NO_STATUS => CloseCode::NORMAL,
            code if code.is_valid_on_wire() => code,
            _ => CloseCode::INTERNAL_ERROR,
        };
        Self {
            code,
            reason: truncate_close_reason(reason).into(),
        }
    }

    /// Creates a close frame without a body.
    pub(crate) const fn without_code() -> Self {
        Self {
            code: CloseCode::NO_STATUS,
            reason: String::new(),
        }
    }

    /// Parses the unmasked payload of a close frame.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, ProtocolError> {
        let (code, reason) = match payload {
            [] => return Ok(Self::without_code()),
            // RFC 6455 §5.5.1: if there is a body, it begins with a two-byte code. [6455-5.5.1-1]
            [_] => return Err(ProtocolError::TruncatedCloseCode),
            [high, low, reason @ ..] => (CloseCode(u16::from_be_bytes([*high, *low])), reason),
        };
        if !code.is_valid_on_wire() {
            return Err(ProtocolError::InvalidCloseCode(code));
        }
        // [6455-8.1-1]
        if !utf8::is_utf8(reason) {
            return Err(ProtocolError::InvalidUtf8);
        }
        Ok(Self {
            code,
            reason: String::from_utf8_lossy(reason).into_owned(),
        })
    }

    /// Appends the payload to `out`, masked if `mask` is set.
    // [6455-5.5.1-1]
    pub(crate) fn append_payload(&self, mask: Option<MaskingKey>, out: &mut Vec<u8>) {
        let start = out.len();
        if self.code != CloseCode::NO_STATUS {
            out.extend_from_slice(&self.code.0.to_be_bytes());
            out.extend_from_slice(self.reason.as_bytes());
        }
        if let Some(key) = mask {
            key.apply(&mut out[start..]);
        }
    }

    /// The encoded length of the payload, in bytes.
    pub(crate) fn payload_len(&self) -> u64 {
        match self.code {
            CloseCode::NO_STATUS => 0,
            _ => 2 + self.reason.len() as u64,
        }
    }
}

impl fmt::Display for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.reason.is_empty() {
            write!(f, " {:?}", self.reason)?;
        }
        Ok(())
    }
}

/// Truncates a close reason to at most [`CLOSE_REASON_LEN_MAX`] bytes.
///
/// Cuts at a character boundary, because a close reason must be valid UTF-8 (RFC 6455 §5.5.1).
///
/// ```
/// let reason = sockeye_proto::truncate_close_reason("bye");
/// assert_eq!(reason, "bye");
/// ```
#[must_use]
pub fn truncate_close_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(CLOSE_REASON_LEN_MAX)]
}

/// Error for a close frame that must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidClose {
    /// The code is reserved or not assigned (RFC 6455 §7.4).
    Code(CloseCode),
    /// The reason is longer than [`CLOSE_REASON_LEN_MAX`] bytes.
    ReasonTooLong {
        /// The length of the reason, in bytes.
        len: usize,
    },
}

impl fmt::Display for InvalidClose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "close code {code} must not be sent; use 1000, 1001 or 3000 to 4999"),
            Self::ReasonTooLong { len } => {
                write!(
                    f,
                    "close reason of {len} bytes is longer than {CLOSE_REASON_LEN_MAX}; truncate_close_reason cuts it"
                )
            }
        }
    }
}

impl core::error::Error for InvalidClose {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn valid_codes_are_those_of_rfc_6455_section_7_4() {
        // checks [6455-7.4.1-1, 6455-7.4.1-2, 6455-7.4.1-3, 6455-7.4.1-4, 6455-7.4.2-1, 6455-7.4.2-2, 6455-7.4.2-3]
        for code in 0..=u16::MAX {
            let expected = match code {
                1004..=1006 | 1015 => false,
                1000..=1014 | 3000..=4999 => true,
                _ => false,
            };
            assert_eq!(CloseCode(code).is_valid_on_wire(), expected, "{code}");
            let parsed = CloseFrame::parse(&code.to_be_bytes());
            assert_eq!(parsed.is_ok(), expected, "{code}");
        }
    }

    #[test]
    fn parse_accepts_empty_body_or_code_with_utf8_reason() {
        assert_eq!(CloseFrame::parse(&[]), Ok(CloseFrame::without_code()));
        assert_eq!(CloseFrame::parse(&[3]), Err(ProtocolError::TruncatedCloseCode));
        assert_eq!(
            CloseFrame::parse(b"\x03\xe8bye"),
            CloseFrame::new(CloseCode::NORMAL, "bye").map_err(|_| ProtocolError::InvalidUtf8)
        );
        assert_eq!(CloseFrame::parse(b"\x03\xe8\xff"), Err(ProtocolError::InvalidUtf8));
    }

    #[test]
    fn new_rejects_reason_over_123_bytes() {
        let reason = "r".repeat(124);
        assert!(CloseFrame::new(CloseCode::NORMAL, &reason[..123]).is_ok());
        assert_eq!(
            CloseFrame::new(CloseCode::NORMAL, &reason),
            Err(InvalidClose::ReasonTooLong { len: 124 })
        );
        assert_eq!(
            CloseFrame::new(CloseCode::ABNORMAL, ""),
            Err(InvalidClose::Code(CloseCode::ABNORMAL))
        );
    }

    #[test]
    fn long_reason_is_truncated_at_a_character_boundary() {
        for (reason, len) in [
            ("r".repeat(122), 122),
            ("r".repeat(123), 123),
            ("r".repeat(124), 123),
            ("\u{e9}".repeat(62), 122),
            ("\u{20ac}".repeat(42), 123),
            ("\u{1f41f}".repeat(31), 120),
            // A two-byte character that crosses the limit, and one that starts at it.
            ("r".repeat(122) + "\u{e9}", 122),
            ("r".repeat(123) + "\u{e9}", 123),
            ("r".repeat(1 << 20), 123),
        ] {
            let cut = truncate_close_reason(&reason);
            assert_eq!(cut.len(), len);
            assert!(reason.starts_with(cut));
            let frame = CloseFrame::with_truncated_reason(CloseCode(4000), &reason);
            assert_eq!(frame, CloseFrame::new(CloseCode(4000), cut));
            assert_eq!(frame, Ok(CloseFrame::new_lossy(CloseCode(4000), &reason)));
        }
        let code = CloseCode::ABNORMAL;
        let rejected = CloseFrame::with_truncated_reason(code, &"r".repeat(124));
        assert_eq!(rejected, Err(InvalidClose::Code(code)));
    }

    #[test]
    fn new_lossy_is_valid_for_every_code() {
        for code in (0..=u16::MAX).map(CloseCode) {
            for reason in ["", "why"] {
                let frame = CloseFrame::new_lossy(code, reason);
                assert_eq!(CloseFrame::new(frame.code, &frame.reason).as_ref(), Ok(&frame));
                assert_eq!(frame.reason, reason);
                match CloseFrame::new(code, reason) {
                    Ok(unchanged) => assert_eq!(frame, unchanged),
                    Err(_) if code == CloseCode::NO_STATUS => assert_eq!(frame.code, CloseCode::NORMAL),
                    Err(_) => assert_eq!(frame.code, CloseCode::INTERNAL_ERROR),
                }
            }
        }
    }

    #[test]
    fn encoded_close_frame_parses_back() {
        for frame in [
            CloseFrame::without_code(),
            CloseFrame::new(CloseCode(4001), "später").unwrap(),
        ] {
            let mut out = vec![];
            frame.append_payload(None, &mut out);
            assert_eq!(out.len() as u64, frame.payload_len());
            assert_eq!(CloseFrame::parse(&out), Ok(frame));
        }
    }
}
