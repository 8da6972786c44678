//! HTTP versions (RFC 9110 §2.5). The opening handshake needs 1.1 (RFC 6455 §4.1).

use super::HandshakeError;

/// An HTTP version, such as 1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpVersion {
    major: u8,
    minor: u8,
}

impl HttpVersion {
    /// HTTP/1.0, which does not support Upgrade.
    pub const HTTP_10: Self = Self::new(1, 0);
    /// HTTP/1.1.
    pub const HTTP_11: Self = Self::new(1, 1);

    /// Creates a version.
    #[must_use]
    pub const fn new(major: u8, minor: u8) -> Self {
        Self { major, minor }
    }

    /// Parses `HTTP/x.y`, case-sensitively and with single digits (RFC 9112 §2.3).
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let [major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] = text.strip_prefix(b"HTTP/")? else {
            return None;
        };
        Some(Self::new(major - b'0', minor - b'0'))
    }

    /// RFC 6455 §4.2.1 (1): HTTP/1.1 or higher is required. Major versions above 1 do not support Upgrade.
    pub(super) fn check_upgrade(self) -> Result<(), HandshakeError> {
        match self {
            _ if self < Self::HTTP_11 => Err(HandshakeError::HttpVersionTooOld),
            _ if self.is_http_1() => Ok(()),
            _ => Err(HandshakeError::HttpVersionUnknown),
        }
    }

    pub(super) const fn is_http_1(self) -> bool {
        self.major == 1
    }

    /// Whether Transfer-Encoding is defined: in HTTP/1.1 and later (RFC 9112 §6.1).
    pub(super) fn has_transfer_encoding(self) -> bool {
        self >= Self::HTTP_11
    }
}
