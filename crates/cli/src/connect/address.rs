//! Parsing of addresses on the command line: URLs as [`sockeye::WebSocketUrl`] parses them, and abbreviations.

use std::borrow::Cow;
use std::fmt;

use sockeye::WebSocketUrl;
use sockeye::handshake::Uri;

use crate::cli::Failure;
use crate::escape::escape;

/// The address of a server.
pub(super) struct Target {
    /// The URL for the library. May contain a user name and password.
    pub(super) url: String,
    address: WebSocketUrl,
}

impl Target {
    /// The URI, without user name and password.
    pub(super) const fn uri(&self) -> &Uri {
        self.address.uri()
    }
}

/// Hides the user name and password.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.address).finish()
    }
}

/// Parses a URL, an address without a scheme, or a port of this machine such as `:9001`.
pub(super) fn parse(text: &str) -> Result<Target, Failure> {
    let bad = |reason: String| Failure::BadUrl {
        url: escape(&redact_url(text)),
        reason,
    };
    // The library trims too, but the scheme must be found before.
    let trimmed = text.trim_matches(|c| c <= ' ');
    if let Some(reason) = missing_slashes(trimmed) {
        return Err(bad(reason));
    }
    let url = complete(trimmed);
    match WebSocketUrl::parse(&url) {
        Ok(address) => Ok(Target {
            url: url.into_owned(),
            address,
        }),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Returns an error message for `wss:/host` and `wss:host`, whose scheme would otherwise be parsed as a host. `ws:9001`
/// is a host and a port.
fn missing_slashes(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = ["ws", "wss", "http", "https"]
        .iter()
        .any(|other| scheme.eq_ignore_ascii_case(other));
    let is_wrong = is_scheme && !rest.starts_with("//") && !rest.starts_with(|c: char| c.is_ascii_digit());
    is_wrong.then(|| format!("two slashes are missing; write {scheme}://"))
}

/// Adds the scheme `ws` if there is none, and the host `localhost` if there is only a port.
fn complete(text: &str) -> Cow<'_, str> {
    if split_scheme(text).is_some() {
        return text.into();
    }
    let authority = &text[..text.find(['/', '?', '#']).unwrap_or(text.len())];
    let host_at = authority.rfind('@').map_or(0, |at| at + 1);
    let (userinfo, rest) = text.split_at(host_at);
    let host = if rest.starts_with(':') { "localhost" } else { "" };
    format!("ws://{userinfo}{host}{rest}").into()
}

/// Splits at the first `://` if it follows a scheme. In `bob:a://b@host` and `host/?to=http://x` it does not.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.split_once("://")
        .filter(|(scheme, _)| scheme.bytes().all(is_allowed))
}

/// Replaces the user name and password in a possible URL. It may be invalid, so everything between the scheme and the
/// last `@` is replaced.
pub(crate) fn redact_url(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match split_scheme(before) {
        Some((scheme, _)) => format!("{scheme}://***@{after}"),
        None => format!("***@{after}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, uri: &str) {
        assert_eq!(parse(text).unwrap().uri().to_string(), uri);
    }

    #[test]
    fn urls_are_parsed_by_the_library() {
        check("ws://example.com/x?y=1", "ws://example.com/x?y=1");
        check("WSS://example.com", "wss://example.com/");
        check("http://example.com:8080/x", "ws://example.com:8080/x");
        check("HTTPS://example.com/x", "wss://example.com/x");
        check("ws://example.com/@b", "ws://example.com/@b");
        check("ws://h/?filter={\"x\": 1}", "ws://h/?filter=%7B%22x%22:%201%7D");
        check("ws://b\u{fc}cher.example/", "ws://xn--bcher-kva.example/");
        check("ws://[fe80::1%eth0]:1/", "ws://[fe80::1%25eth0]:1/");
    }

    #[test]
    fn an_address_without_a_scheme_is_completed() {
        check("localhost:9001/x", "ws://localhost:9001/x");
        check("example.com", "ws://example.com/");
        check(" example.com\n", "ws://example.com/");
        check(":9001", "ws://localhost:9001/");
        check("ws:9001", "ws://ws:9001/");
        check(":9001/chat", "ws://localhost:9001/chat");
        check(":9001?x=:@", "ws://localhost:9001/?x=:@");
        check("[::1]:9001", "ws://[::1]:9001/");
        check("[fe80::1%eth0]:1", "ws://[fe80::1%25eth0]:1/");
        check("b\u{fc}cher.example/a b", "ws://xn--bcher-kva.example/a%20b");
        check("example.com/?to=http://x", "ws://example.com/?to=http://x");
    }

    #[test]
    fn credentials_are_only_in_the_url() {
        for (text, url, uri) in [
            (
                "ws://bob:secret@a.example/x",
                "ws://bob:secret@a.example/x",
                "ws://a.example/x",
            ),
            (
                "bob:secret@a.example:1",
                "ws://bob:secret@a.example:1",
                "ws://a.example:1/",
            ),
            (
                "bob:secret@:9001",
                "ws://bob:secret@localhost:9001",
                "ws://localhost:9001/",
            ),
            (
                "https://b%40b:secret@a.example",
                "https://b%40b:secret@a.example",
                "wss://a.example/",
            ),
        ] {
            let target = parse(text).unwrap();
            assert_eq!((target.url.as_str(), target.uri().to_string().as_str()), (url, uri));
            assert!(target.address.has_credentials());
            assert!(!format!("{target:?}").contains("secret"), "{target:?}");
        }
        assert!(!parse("ws://a.example/").unwrap().address.has_credentials());
    }

    #[test]
    fn errors_about_invalid_addresses_contain_no_credentials() {
        for text in [
            "",
            "ftp://example.com",
            "ftp://bob:secret@example.com",
            "ws://",
            "wss:/bob:secret@example.com",
            "https:example.com",
            "ws://bob:secret@",
            "ws://bob:sec/ret@example.com",
            "ws://bob:sec@ret@example.com",
            "bob:s://ecret@example.com",
            "ws://bob:secret@a:port/",
        ] {
            let message = parse(text).unwrap_err().message().unwrap();
            for part in ["bob", "sec", "ret@"] {
                assert!(!message.contains(part), "{text}: {message}");
            }
        }
    }
}
