//! What a peer can do wrong after the handshake, and the close code that each fault earns.

use core::fmt;

use crate::close::CloseCode;

/// A rule that the peer broke. The connection fails (RFC 6455 §7.1.7) and stays failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// An opcode that no specification defines (§5.2).
    ReservedOpcode(u8),
    /// A reserved bit that no negotiated extension gives a meaning (§5.2).
    ReservedBits,
    /// A client's frame without a mask (§5.1).
    UnmaskedFrame,
    /// A server's frame with a mask (§5.1).
    MaskedFrame,
    /// A payload length in a longer form than it needs (§5.2).
    NonMinimalLength,
    /// A 64-bit payload length with the top bit set (§5.2).
    LengthOverflow,
    /// A control frame without FIN (§5.5).
    FragmentedControl,
    /// A control frame with more than 125 bytes (§5.5).
    OversizedControl,
    /// A continuation with no message to continue (§5.4).
    UnexpectedContinuation,
    /// A new message inside a fragmented one (§5.4).
    ExpectedContinuation,
    /// A close frame with a body of one byte (§5.5.1).
    TruncatedCloseCode,
    /// A close code that may not be sent (§7.4).
    InvalidCloseCode(CloseCode),
    /// Text or a close reason that is not UTF-8 (§5.6, §8.1).
    InvalidUtf8,
    /// A compressed message that cannot be inflated (RFC 7692 §7.2.2).
    InvalidDeflate,
    /// A message larger than [`Limits::message_size_max`](crate::Limits::message_size_max) (§10.4).
    MessageTooBig,
    /// More empty fragments in a row than
    /// [`Limits::empty_fragments_max`](crate::Limits::empty_fragments_max).
    TooManyEmptyFragments,
    /// A compressed message with more final blocks than eight and four for each KiB of it: legal (RFC 7692 §7.2.3.4), but
    /// each costs a new codec, and no sender makes many.
    TooManyFinalBlocks,
}

impl ProtocolError {
    /// The ladder from fault to close code (RFC 6455 §7.4.1).
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

    /// What the close frame says: the rule, never anything about this endpoint.
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
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        match self {
            Self::ReservedOpcode(bits) => write!(f, " {bits:#x}"),
            Self::InvalidCloseCode(code) => write!(f, " {}", code.0),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for ProtocolError {}
