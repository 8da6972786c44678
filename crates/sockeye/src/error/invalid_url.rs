//! The error of parsing a URL.

use std::fmt;

use sockeye_proto::handshake::UriError;

/// Error for text that is not a WebSocket URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidUrl {
    /// The URL is not a valid URI, even after what browsers correct.
    Uri(UriError),
    /// The user name or password cannot be sent as `Authorization: Basic`.
    Userinfo,
    /// The URL is 4 GiB or longer.
    TooLong,
}

impl From<UriError> for InvalidUrl {
    fn from(error: UriError) -> Self {
        Self::Uri(error)
    }
}

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(error) => fmt::Display::fmt(error, f),
            Self::Userinfo => f.write_str(
                "user name or password cannot be sent: write @ as %40 and / as %2F, without control characters and \
                 without a colon in the name",
            ),
            Self::TooLong => f.write_str("the URL is 4 GiB or longer"),
        }
    }
}

impl std::error::Error for InvalidUrl {}
