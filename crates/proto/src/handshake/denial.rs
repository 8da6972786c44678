//! Details of a request that was rejected by a policy, for the server log and the response.

use alloc::string::{String, ToString as _};
use core::fmt::{self, Write as _};

use super::{Authority, HeaderValue};

/// Details of a request that was rejected by [`OriginPolicy`](super::OriginPolicy) or
/// [`HostPolicy`](super::HostPolicy).
///
/// Text from the client is escaped and truncated to about 256 bytes, so it is safe in logs, terminals and HTML: bytes
/// other than printable ASCII, quotes, backslashes, `<`, `>` and `&` are written as `\x3c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    origin: Option<String>,
    host: String,
    allowed: String,
}

/// Maximum length of an escaped origin or host, in bytes. Longer than any legitimate value.
const TEXT_LEN_MAX: usize = 256;

/// Maximum number of entries of a policy list in [`Denial::allowed`].
const JOINED_ENTRIES_MAX: usize = 20;

impl Denial {
    /// The Origin header, escaped; `None` if the request has none.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// The requested host, and the port if the request contains one, escaped.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the policy allows, as a description or a list. Do not send this to the client: it reveals the
    /// configuration.
    #[must_use]
    pub fn allowed(&self) -> &str {
        &self.allowed
    }

    pub(super) fn new(origin: Option<HeaderValue<'_>>, host: &Authority, allowed: String) -> Self {
        Self {
            origin: origin.map(|origin| escaped(origin.as_bytes())),
            host: escaped(host.to_string().as_bytes()),
            allowed,
        }
    }
}

/// Joins the entries of a policy list with commas. Names at most [`JOINED_ENTRIES_MAX`].
pub(super) fn join_entries<T: fmt::Display>(entries: &[T]) -> String {
    let mut text = String::new();
    for entry in entries.iter().take(JOINED_ENTRIES_MAX) {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{entry}");
    }
    match entries.len().checked_sub(JOINED_ENTRIES_MAX) {
        None | Some(0) if entries.is_empty() => "none".into(),
        None | Some(0) => text,
        Some(more) => {
            let _ = write!(text, " and {more} more");
            text
        }
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if text.len() >= TEXT_LEN_MAX {
            text.push_str("...");
            break;
        }
        match byte {
            b'"' | b'\'' | b'\\' | b'<' | b'>' | b'&' | b'`' => {
                let _ = write!(text, "\\x{byte:02x}");
            }
            b' ' | b'!'..=b'~' => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_text_is_escaped_for_logs_and_html() {
        assert_eq!(escaped(b"https://example.com:1/a b"), "https://example.com:1/a b");
        assert_eq!(escaped(b"<b>\"&'`\\"), "\\x3cb\\x3e\\x22\\x26\\x27\\x60\\x5c");
        assert_eq!(escaped(b"\x1b[31m\t\xc3\xbc"), "\\x1b[31m\\x09\\xc3\\xbc");
        let long = escaped(&[b'\x80'; 10_000]);
        assert!(long.len() <= TEXT_LEN_MAX + 7 && long.ends_with("..."), "{long}");
    }

    #[test]
    fn list_is_truncated_after_twenty_entries() {
        assert_eq!(join_entries::<u32>(&[]), "none");
        assert_eq!(join_entries(&["a", "b"]), "a, b");
        let many: alloc::vec::Vec<_> = (0..21).collect();
        assert!(join_entries(&many[..20]).ends_with(", 18, 19"));
        assert!(join_entries(&many).ends_with(", 19 and 1 more"));
    }
}
