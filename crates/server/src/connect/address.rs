//! What people write when they mean a WebSocket URI.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sockeye::handshake::Uri;

use super::escape::escape;
use crate::cli::Failure;

/// Where to connect, and who connects.
pub(super) struct Address {
    /// Never has a user name or password.
    pub(super) uri: Uri,
    /// The value of an `Authorization` header, from the user name and password before the host.
    pub(super) authorization: Option<String>,
}

/// Does not show the credentials.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

/// Reads `ws://` and `wss://` URIs; also `http://` and `https://`, addresses without a scheme, and `:9001` for this
/// machine. Credentials are taken out before anything else sees the URI.
pub(super) fn parse(text: &str) -> Result<Address, Failure> {
    if let Some(reason) = misses_slashes(text) {
        return Err(bad(text, reason));
    }
    let (scheme, rest) = split_scheme(text);
    let authority_len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (credentials, rest) = match rest[..authority_len].rsplit_once('@') {
        Some((credentials, host)) => (Some(credentials), &rest[authority_len - host.len()..]),
        None => (None, rest),
    };
    let local = if scheme.is_empty() && rest.starts_with(':') {
        "localhost"
    } else {
        ""
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "" | "http" => "ws",
        "https" => "wss",
        _ => scheme,
    };
    match Uri::parse(&format!("{scheme}://{local}{rest}")) {
        Ok(uri) => Ok(Address {
            uri,
            authorization: credentials.map(basic),
        }),
        Err(error) => Err(bad(text, error.to_string())),
    }
}

fn bad(text: &str, reason: String) -> Failure {
    Failure::BadUrl {
        url: escape(&redact_url(text)),
        reason,
    }
}

/// What is wrong with `wss:/host` and `wss:host`, whose scheme would else be taken for a host. `ws:9001` is one.
fn misses_slashes(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = ["ws", "wss", "http", "https"]
        .iter()
        .any(|other| scheme.eq_ignore_ascii_case(other));
    let is_wrong = is_scheme && !rest.starts_with("//") && !rest.starts_with(|c: char| c.is_ascii_digit());
    is_wrong.then(|| format!("two slashes are missing: write {scheme}://"))
}

/// Replaces the user name and password in what may be a URL. In one that is wrong, where they end is not certain, so
/// everything up to the last `@` counts.
pub(crate) fn redact_url(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://***@{after}"),
        None => format!("***@{after}"),
    }
}

fn split_scheme(text: &str) -> (&str, &str) {
    // The `://` in `bob:a://b@host` is no end of a scheme.
    let is_scheme = |scheme: &str| {
        scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
        _ => ("", text),
    }
}

/// Basic authentication (RFC 7617 §2) with percent-encoded credentials, as `user:password` or only `user`.
fn basic(credentials: &str) -> String {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let decoded = [percent_decode(user), vec![b':'], percent_decode(password)].concat();
    format!("Basic {}", BASE64.encode(decoded))
}

/// Decodes `%40` and the like; a `%` that begins no such triplet stays.
fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |idx: usize| after.get(idx).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                rest = &after[2..];
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, uri: &str) {
        assert_eq!(parse(text).unwrap().uri.to_string(), uri);
    }

    #[test]
    fn a_uri_is_taken_as_it_is() {
        check("ws://example.com/x?y=1", "ws://example.com/x?y=1");
        check("WSS://example.com", "wss://example.com/");
        check("ws://example.com/@b", "ws://example.com/@b");
    }

    #[test]
    fn what_people_write_becomes_a_uri() {
        check("localhost:9001/x", "ws://localhost:9001/x");
        check("example.com", "ws://example.com/");
        check(":9001", "ws://localhost:9001/");
        check("ws:9001", "ws://ws:9001/");
        check(":9001/chat", "ws://localhost:9001/chat");
        check("[::1]:9001", "ws://[::1]:9001/");
        check("http://example.com:8080/x", "ws://example.com:8080/x");
        check("HTTPS://example.com/x", "wss://example.com/x");
        check("example.com/?to=http://x", "ws://example.com/?to=http://x");
    }

    #[test]
    fn credentials_become_basic_authentication() {
        for (text, uri, user_and_password) in [
            ("ws://bob:secret@a.example/x", "ws://a.example/x", "bob:secret"),
            ("bob:secret@a.example:1", "ws://a.example:1/", "bob:secret"),
            ("https://bob@a.example", "wss://a.example/", "bob:"),
            ("ws://b%40b:p%3A%2F%zz@a.example", "ws://a.example/", "b@b:p:/%zz"),
            ("ws://bob:a@b@a.example", "ws://a.example/", "bob:a@b"),
            ("ws://:x@a.example", "ws://a.example/", ":x"),
            ("bob:secret@:9001", "ws://localhost:9001/", "bob:secret"),
        ] {
            let address = parse(text).unwrap();
            assert_eq!(address.uri.to_string(), uri);
            let expected = format!("Basic {}", BASE64.encode(user_and_password));
            assert_eq!(address.authorization, Some(expected), "{text}");
            assert!(!format!("{address:?}").contains("secret"));
        }
        assert_eq!(parse("ws://a.example/").unwrap().authorization, None);
    }

    #[test]
    fn what_is_no_address_is_refused_without_its_password() {
        for text in [
            "",
            "ftp://example.com",
            "ftp://bob:secret@example.com",
            "ws://",
            "wss:/bob:secret@example.com",
            "https:example.com",
            "ws://bob:secret@",
            "ws://bob:sec/ret@example.com",
            "ws://bob:secret@a:port/",
        ] {
            let message = parse(text).unwrap_err().message().unwrap();
            for part in ["bob", "sec", "ret@"] {
                assert!(!message.contains(part), "{text}: {message}");
            }
        }
    }
}
