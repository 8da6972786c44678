//! What a request brought that a policy refused, for the log of the server and for the client.

use alloc::string::{String, ToString as _};
use core::fmt::{self, Write as _};

use super::Request;

/// A request that [`OriginPolicy`](super::OriginPolicy) or [`HostPolicy`](super::HostPolicy) refused: its origin and
/// host, and what the policy allows.
///
/// What the client sent is escaped and cut, so it can be written to a log or a terminal: ASCII letters, digits and
/// punctuation stay, all else (and quotes, backslashes, `<`, `>` and `&`) is written as `\x3c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    origin: Option<String>,
    host: String,
    allowed: String,
}

/// No origin or host in use is longer. What is goes to nobody's log in full.
const TEXT_LEN_MAX: usize = 256;

/// Entries of a list that [`Denial::allowed`] names.
const LISTED_MAX: usize = 20;

impl Denial {
    /// The Origin header, escaped; `None` if the request has none.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// The host, and the port if it was written, that the request is for, escaped.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the policy that refused the request allows, in words or as a list. Not for the client: it is configuration.
    #[must_use]
    pub fn allowed(&self) -> &str {
        &self.allowed
    }

    pub(super) fn new(request: &Request, allowed: String) -> Self {
        Self {
            origin: request.origin().map(|origin| escaped(origin.as_bytes())),
            host: escaped(request.authority().to_string().as_bytes()),
            allowed,
        }
    }
}

/// The entries of a policy's list, of a long one only the first.
pub(super) fn listed<T: fmt::Display>(entries: &[T]) -> String {
    let mut text = String::new();
    for entry in entries.iter().take(LISTED_MAX) {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{entry}");
    }
    match entries.len().checked_sub(LISTED_MAX) {
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
    fn what_a_client_sent_is_harmless_in_a_log_and_in_a_page() {
        assert_eq!(escaped(b"https://example.com:1/a b"), "https://example.com:1/a b");
        assert_eq!(escaped(b"<b>\"&'`\\"), "\\x3cb\\x3e\\x22\\x26\\x27\\x60\\x5c");
        assert_eq!(escaped(b"\x1b[31m\t\xc3\xbc"), "\\x1b[31m\\x09\\xc3\\xbc");
        let long = escaped(&[b'\x80'; 10_000]);
        assert!(long.len() <= TEXT_LEN_MAX + 7 && long.ends_with("..."), "{long}");
    }

    #[test]
    fn a_list_is_named_up_to_its_twentieth_entry() {
        assert_eq!(listed::<u32>(&[]), "none");
        assert_eq!(listed(&["a", "b"]), "a, b");
        let many: alloc::vec::Vec<_> = (0..21).collect();
        assert!(listed(&many[..20]).ends_with(", 18, 19"));
        assert!(listed(&many).ends_with(", 19 and 1 more"));
    }
}
