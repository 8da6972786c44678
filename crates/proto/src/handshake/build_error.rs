//! Errors of the caller that builds a request or response.

use core::error::Error;
use core::fmt;

/// Error of the caller: a request or response cannot be built from the given values.
///
/// Detected before anything is sent, so arguments cannot inject headers or contradict the handshake. Errors of the peer
/// are [`HandshakeError`](super::HandshakeError).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeBuildError {
    /// The header name is empty or not an HTTP token.
    InvalidHeaderName,
    /// The header value contains a control byte, such as CR, LF or NUL.
    InvalidHeaderValue,
    /// The handshake sets this header itself.
    ReservedHeader,
    /// The subprotocol is empty or not an HTTP token.
    InvalidSubprotocol,
    /// The subprotocol was already offered.
    RepeatedSubprotocol,
    /// The client did not offer the chosen subprotocol.
    SubprotocolNotOffered,
    /// The extension does not have the form `name; param; param=value`.
    InvalidExtension,
    /// The client did not offer the chosen extension.
    ExtensionNotOffered,
    /// The status of a rejection is not 3xx, 4xx or 5xx, or is 304, which cannot have a body.
    InvalidRejectionStatus,
}

impl fmt::Display for HandshakeBuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidHeaderName => "header name is not an HTTP token",
            Self::InvalidHeaderValue => "header value contains a control byte",
            Self::ReservedHeader => "header is set by the handshake and cannot be added",
            Self::InvalidSubprotocol => "subprotocol is not an HTTP token",
            Self::RepeatedSubprotocol => "subprotocol was already offered",
            Self::SubprotocolNotOffered => "the client did not offer this subprotocol",
            Self::InvalidExtension => "extension does not have the form name; param; param=value",
            Self::ExtensionNotOffered => "the client did not offer this extension",
            Self::InvalidRejectionStatus => "status of a rejection must be 300 to 599 and not 304",
        })
    }
}

impl Error for HandshakeBuildError {}
