//! Protocol violations by the peer after the handshake, and the close code for each.

use core::fmt;

use crate::close_code::CloseCode;

/// A protocol rule that the peer violated.
///
/// The connection fails (RFC 6455 §7.1.7) and stays failed: the first violation is final. Section numbers below refer
/// to RFC 6455 unless stated otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// An opcode that no specification defines (§5.2).
    ReservedOpcode(u8),
    /// A reserved bit is set and no negotiated extension defines it (§5.2).
    ReservedBits,
    /// A client sent an unmasked frame (§5.1).
    UnmaskedFrame,
    /// A server sent a masked frame (§5.1).
    MaskedFrame,
    /// A payload length that is not encoded in its shortest form (§5.2).
    NonMinimalLength,
    /// A 64-bit payload length with the top bit set (§5.2).
    LengthOverflow,
    /// A fragmented control frame, that is, one without FIN (§5.5).
    FragmentedControl,
    /// A control frame with a payload of more than 125 bytes (§5.5).
    OversizedControl,
    /// A continuation frame without a message in progress (§5.4).
    UnexpectedContinuation,
    /// A new data message before the fragmented one in progress was finished (§5.4).
    ExpectedContinuation,
    /// A close frame with a body of one byte (§5.5.1).
    TruncatedCloseCode,
    /// A close code that must not appear in a close frame (§7.4).
    InvalidCloseCode(CloseCode),
    /// A text message or a close reason that is not valid UTF-8 (§5.6, §8.1).
    InvalidUtf8,
    /// A compressed message that cannot be inflated (RFC 7692 §7.2.2).
    InvalidDeflate,
    /// A message larger than [`Limits::message_size_max`](crate::Limits::message_size_max) (§10.4).
    MessageTooBig,
    /// More empty fragments in a row than [`Limits::empty_fragments_max`](crate::Limits::empty_fragments_max).
    TooManyEmptyFragments,
    /// A compressed message with more final DEFLATE blocks than 8 plus 4 per KiB of payload.
    ///
    /// Final blocks are legal (RFC 7692 §7.2.3.4), but each one makes the inflater reset and reload its dictionary, and
    /// no known sender produces many.
    TooManyFinalBlocks,
}

impl ProtocolError {
    /// The close code that is sent for this violation (RFC 6455 §7.4.1).
    // [6455-5.1-3, 6455-5.1-6, 6455-7.4.1-5]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::ReservedOpcode(_)
            | Self::ReservedBits
            | Self::UnmaskedFrame
            | Self::MaskedFrame
            | Self::NonMinimalLength
            | Self::LengthOverflow
            | Self::FragmentedControl
            | Self::OversizedControl
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::TruncatedCloseCode
            | Self::InvalidCloseCode(_) => CloseCode::PROTOCOL_ERROR,
            Self::InvalidUtf8 | Self::InvalidDeflate => CloseCode::INVALID_DATA,
            Self::TooManyEmptyFragments | Self::TooManyFinalBlocks => CloseCode::POLICY_VIOLATION,
            Self::MessageTooBig => CloseCode::MESSAGE_TOO_BIG,
        }
    }

    /// The reason text of the close frame. Names the rule and reveals nothing about this endpoint.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReservedOpcode(_) => "reserved opcode",
            Self::ReservedBits => "reserved bits set",
            Self::UnmaskedFrame => "client frame not masked",
            Self::MaskedFrame => "server frame masked",
            Self::NonMinimalLength => "payload length not minimal",
            Self::LengthOverflow => "payload length out of range",
            Self::FragmentedControl => "control frame fragmented",
            Self::OversizedControl => "control frame too long",
            Self::UnexpectedContinuation => "no message to continue",
            Self::ExpectedContinuation => "previous message not finished",
            Self::TruncatedCloseCode => "close code truncated",
            Self::InvalidCloseCode(_) => "invalid close code",
            Self::InvalidUtf8 => "text not UTF-8",
            Self::InvalidDeflate => "compressed data invalid",
            Self::MessageTooBig => "message too big",
            Self::TooManyEmptyFragments => "too many empty fragments",
            Self::TooManyFinalBlocks => "too many final blocks",
        }
    }

    /// Whether the peer exceeded a limit of this endpoint, rather than violating the RFC.
    pub(crate) fn is_limit(self) -> bool {
        matches!(
            self,
            Self::MessageTooBig | Self::TooManyEmptyFragments | Self::TooManyFinalBlocks
        )
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        match self {
            Self::MessageTooBig => f.write_str(" (message_size_max)"),
            Self::TooManyEmptyFragments => f.write_str(" (empty_fragments_max)"),
            Self::ReservedOpcode(bits) => write!(f, " {bits:#x}"),
            Self::InvalidCloseCode(code) => write!(f, " {}", code.0),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn exceeded_limits_are_named() {
        for (error, text) in [
            (ProtocolError::MessageTooBig, "message too big (message_size_max)"),
            (
                ProtocolError::TooManyEmptyFragments,
                "too many empty fragments (empty_fragments_max)",
            ),
        ] {
            assert!(error.is_limit());
            assert_eq!(error.to_string(), text);
        }
        assert!(!ProtocolError::UnmaskedFrame.is_limit());
    }
}
