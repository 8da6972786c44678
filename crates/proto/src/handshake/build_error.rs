use core::error::Error;
use core::fmt;

/// A mistake by the caller: what it asked the handshake to send may not be sent.
///
/// Found before a byte leaves, so nothing a caller passes can split a head or contradict it.
/// For what a peer does wrong see [`HandshakeError`](super::HandshakeError).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeBuildError {
    /// The header name is empty or not an HTTP token.
    InvalidHeaderName,
    /// The header value holds a control byte, such as CR, LF or NUL.
    InvalidHeaderValue,
    /// The handshake writes this header itself.
    ReservedHeader,
    /// The subprotocol is empty or not an HTTP token.
    InvalidSubprotocol,
    /// The subprotocol was offered already.
    RepeatedSubprotocol,
    /// The subprotocol chosen is none of those the client offered.
    SubprotocolNotOffered,
    /// The extension is not of the form `name; param; param=value`.
    InvalidExtension,
    /// The extension chosen is none of those the client offered.
    ExtensionNotOffered,
    /// A rejection's status is 3xx, 4xx or 5xx, and not 304, which cannot carry a body.
    StatusNotRejection,
}

impl fmt::Display for HandshakeBuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidHeaderName => "header name is not an HTTP token",
            Self::InvalidHeaderValue => "header value holds a control byte",
            Self::ReservedHeader => "header belongs to the handshake and is written by it",
            Self::InvalidSubprotocol => "subprotocol is not an HTTP token",
            Self::RepeatedSubprotocol => "subprotocol was offered already",
            Self::SubprotocolNotOffered => "subprotocol was not offered by the client",
            Self::InvalidExtension => "extension is not of the form name; param; param=value",
            Self::ExtensionNotOffered => "extension was not offered by the client",
            Self::StatusNotRejection => "a rejection needs a status of 300 to 599 other than 304",
        })
    }
}

impl Error for HandshakeBuildError {}
