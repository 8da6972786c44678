//! Why a URI, a host or a port is invalid.

use core::error::Error;
use core::fmt;

/// Error for text that is not a valid WebSocket URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UriError {
    /// The scheme is missing.
    MissingScheme,
    /// The scheme is neither `ws` nor `wss`.
    UnsupportedScheme,
    /// The URI contains a fragment (`#`).
    Fragment,
    /// The URI contains a user name or password.
    Userinfo,
    /// The host is missing.
    MissingHost,
    /// The host contains non-ASCII characters.
    NonAsciiHost,
    /// The host is neither a DNS name nor an IP address.
    InvalidHost,
    /// The zone of an IPv6 address is empty, longer than 64 bytes, or contains characters other than letters, digits,
    /// `-`, `.`, `_` and `~`.
    InvalidZone,
    /// The port is not a number from 1 to 65535.
    InvalidPort,
    /// The URI contains a character that must be percent-encoded.
    InvalidCharacter(char),
    /// A `%` is not followed by two hexadecimal digits.
    InvalidPercentEncoding,
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingScheme => "missing scheme: write ws:// or wss:// before the host",
            Self::UnsupportedScheme => "scheme is not ws or wss: use ws:// for http:// and wss:// for https://",
            Self::Fragment => "a WebSocket URI cannot have a fragment: remove # or write it as %23",
            Self::Userinfo => "user name or password in the URI: send them in an Authorization header instead",
            Self::MissingHost => "missing host",
            Self::NonAsciiHost => "host is not ASCII: write it in punycode, which starts with xn--",
            Self::InvalidHost => "host is not a DNS name or an IP address (write IPv6 addresses in brackets)",
            Self::InvalidZone => "invalid zone of an IPv6 address: write it as in [fe80::1%25eth0]",
            Self::InvalidPort => "port is not a number from 1 to 65535",
            Self::InvalidPercentEncoding => "% is not followed by two hexadecimal digits: write it as %25",
            Self::InvalidCharacter(character) => {
                write!(f, "character {character:?} is not allowed: write it as ")?;
                let mut utf8 = [0; 4];
                let bytes = character.encode_utf8(&mut utf8).bytes();
                return bytes.into_iter().try_for_each(|byte| write!(f, "%{byte:02X}"));
            }
        })
    }
}

impl Error for UriError {}
