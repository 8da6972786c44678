//! Redirects that a client did not follow.

use std::fmt;

use http::{HeaderMap, StatusCode, header};

use crate::error::invalid_url::InvalidUrl;

/// Maximum number of characters of a Location header in an error message.
const SHOWN_MAX: usize = 200;

/// Why a redirect was not followed.
#[derive(Clone, Debug)]
pub(crate) enum Redirect {
    /// Redirects are not followed. Holds the Location header.
    Off(String),
    /// The response has no Location header, or several.
    NoLocation,
    /// The Location header is no valid URL.
    Invalid(InvalidUrl),
    /// Too many redirects. Holds their number, and the next URL.
    TooMany(usize, String),
    /// A redirect from `wss` to `ws`. Holds the URL.
    Downgrade(String),
}

/// Whether a status redirects a GET request to its Location header (RFC 9110 §15.4).
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The Location header, unless it is missing, repeated or no text.
pub(crate) fn location(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::LOCATION).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => std::str::from_utf8(value.as_bytes()).ok(),
        _ => None,
    }
}

impl Redirect {
    /// Describes the redirect of a response that is not followed. `None` if the response is no redirect.
    pub(crate) fn not_followed<B>(response: &http::Response<B>) -> Option<Self> {
        is_redirect(response.status()).then(|| match location(response.headers()) {
            Some(location) => Self::Off(shown(location)),
            None => Self::NoLocation,
        })
    }
}

/// The start of a Location header, without user name, password and control characters.
fn shown(location: &str) -> String {
    let (start, authority_and_rest) = location.split_once("//").unwrap_or(("", location));
    let authority_len = authority_and_rest
        .find(['/', '?', '#'])
        .unwrap_or(authority_and_rest.len());
    let without_userinfo = match authority_and_rest[..authority_len].rfind('@') {
        Some(at) if location.contains("//") => format!("{start}//{}", &authority_and_rest[at + 1..]),
        _ => location.to_owned(),
    };
    let shown: String = without_userinfo
        .chars()
        .take(SHOWN_MAX)
        .flat_map(char::escape_debug)
        .collect();
    match without_userinfo.chars().count() > SHOWN_MAX {
        true => shown + "...",
        false => shown,
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off(location) => write!(
                f,
                ": it redirects to {location}, and redirects are not followed (ClientBuilder::redirects)"
            ),
            Self::NoLocation => f.write_str(" without a valid Location header"),
            Self::Invalid(error) => write!(f, " with an invalid Location header: {error}"),
            Self::TooMany(max, next) => write!(
                f,
                ": it redirects to {next} after {max} redirects, the maximum (ClientBuilder::redirects)"
            ),
            Self::Downgrade(next) => write!(f, ": it redirects from wss to {next}, which is not followed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_shown_without_credentials_and_shortened() {
        for (location, expected) in [
            ("ws://a.example/x?y", "ws://a.example/x?y"),
            ("ws://bob:secret@a.example/x@y", "ws://a.example/x@y"),
            ("//bob@a.example/", "//a.example/"),
            ("/x?mail=a@b", "/x?mail=a@b"),
            ("/\u{1b}[2J", "/\\u{1b}[2J"),
        ] {
            assert_eq!(shown(location), expected);
        }
        assert_eq!(
            shown(&format!("/{}", "x".repeat(500))),
            format!("/{}...", "x".repeat(199))
        );
    }
}
