//! URLs as people and browsers write them, converted into strict WebSocket URIs.
//!
//! [`Uri`] of `sockeye-proto` rejects everything that is not clearly a WebSocket URI: where two parsers disagree about
//! a URI, one may check a different host than the other connects to. This module accepts more, and passes the result to
//! `Uri`:
//!
//! - Path and query are encoded according to the browsers' URL standard (crate `url`). Characters that this standard
//!   keeps although RFC 3986 does not allow them (`{`, `|`, a bare `%` and others) are percent-encoded too (RFC 6455
//!   §11.1).
//! - A non-ASCII host is converted by IDNA. An ASCII host is never changed: `127.1`, which the URL standard reads as
//!   `127.0.0.1`, stays an error.
//! - Backslashes before the query and control characters are errors, although browsers replace or drop them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sockeye_proto::handshake::{Uri, UriError};
use url::{Host, Position, Url};

use crate::error::invalid_url::InvalidUrl;

/// The URI that a client connects to, with optional user name and password.
///
/// [`Client::connect`](crate::Client::connect) converts its argument into this. Parse it yourself to inspect its parts,
/// or to print the URL: `Display` and `Debug` omit user name and password.
///
/// It accepts URLs as browsers do, where [`Uri`] is strict:
///
/// - `http://` means `ws://`, and `https://` means `wss://`.
/// - Characters that a URI cannot contain are percent-encoded, and dot segments of the path are removed.
/// - A non-ASCII host is converted by IDNA: `bücher.example` becomes `xn--bcher-kva.example`.
/// - `user:password@` becomes `Authorization: Basic` (RFC 7617), unless the client has an `Authorization` header of its
///   own.
/// - The zone of an IPv6 address may follow a bare `%`: `[fe80::1%eth0]`. `%25` is always read as an encoded `%` (RFC
///   6874), so a zone that begins with `25` has to be written with it: `[fe80::1%2525x]`.
/// - Whitespace around the URL is ignored.
///
/// A fragment (`#part`) is an error (RFC 6455 §3).
///
/// ```
/// use sockeye::WebSocketUrl;
///
/// let url = WebSocketUrl::parse("https://user:secret@bücher.example/a b?q={1}")?;
/// assert_eq!(url.to_string(), "wss://xn--bcher-kva.example/a%20b?q=%7B1%7D");
/// assert!(url.has_credentials());
/// assert!(!format!("{url:?}").contains("secret"));
/// # Ok::<(), sockeye::InvalidUrl>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct WebSocketUrl {
    uri: Uri,
    /// The value of the Authorization header.
    authorization: Option<String>,
}

impl WebSocketUrl {
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// The error names the problem and the fix, and shows at most one character of the URL.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        // The URL standard strips these at both ends.
        let text = text.trim_matches(|c| c <= ' ');
        // RFC 6455 §4.1: the client MUST fail for an invalid WebSocket URI. [6455-4.1-2]
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(UriError::InvalidCharacter(control).into());
        }
        let (scheme, rest) = text.split_once("://").ok_or(UriError::MissingScheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => "ws",
            "wss" | "https" => "wss",
            _ => return Err(UriError::UnsupportedScheme.into()),
        };
        // RFC 6455 §3: browsers drop a fragment, but it MUST NOT be used. [6455-3-4, 6455-3-5]
        if rest.contains('#') {
            return Err(UriError::Fragment.into());
        }
        let (authority, resource) = rest.split_at(rest.find(['/', '?', '\\']).unwrap_or(rest.len()));
        // Browsers treat a backslash as a slash, other clients do not, so they would see different hosts in `a\@b`.
        if resource.split('?').next().is_some_and(|path| path.contains('\\')) {
            return Err(UriError::InvalidCharacter('\\').into());
        }
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        let authorization = userinfo.map(basic_authorization).transpose()?.flatten();
        let (host, resource) = (ascii_host(host)?, encode_resource(resource)?);
        let uri = Uri::parse(&format!("{scheme}://{host}{resource}"))?;
        Ok(Self { uri, authorization })
    }

    /// The URI, without user name and password.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether the URL has a user name or a password.
    #[must_use]
    pub const fn has_credentials(&self) -> bool {
        self.authorization.is_some()
    }

    /// The URL that a Location header of this URL leads to (RFC 9110 §10.2.2). A relative reference is resolved,
    /// and a fragment is dropped. The user name and password are those of this URL if the origin is the same;
    /// otherwise there are none.
    pub(crate) fn redirected(&self, location: &str) -> Result<Self, InvalidUrl> {
        let location = location.split('#').next().unwrap_or_default();
        let absolute = match location.split_once("://") {
            Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => location.to_owned(),
            _ => {
                // As in `parse`: browsers read a backslash as a slash.
                if location.contains('\\') {
                    return Err(UriError::InvalidCharacter('\\').into());
                }
                let base = Url::parse(&self.uri.to_string()).map_err(|_| UriError::InvalidHost)?;
                let joined = base.join(location).map_err(|_| UriError::InvalidHost)?;
                joined.to_string()
            }
        };
        let mut url = Self::parse(&absolute)?;
        url.authorization = match url.is_same_origin(self) {
            true => self.authorization.clone(),
            false => None,
        };
        Ok(url)
    }

    /// Whether scheme, host and port are the same.
    pub(crate) fn is_same_origin(&self, other: &Self) -> bool {
        let origin = |uri: &Uri| (uri.is_secure(), uri.host().to_owned(), uri.port());
        origin(&self.uri) == origin(&other.uri)
    }

    /// The value of the Authorization header for the user name and password.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }
}

impl FromStr for WebSocketUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        Self::parse(text)
    }
}

/// Writes the URI, without user name and password.
impl fmt::Display for WebSocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.uri, f)
    }
}

/// Omits user name and password.
impl fmt::Debug for WebSocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketUrl")
            .field("uri", &format_args!("{}", self.uri))
            .field("has_credentials", &self.has_credentials())
            .finish()
    }
}

/// Converts the text before the `@` into the value of an Authorization header (RFC 7617 §2). `None` if it is empty.
fn basic_authorization(userinfo: &str) -> Result<Option<String>, InvalidUrl> {
    // Parsers disagree about where a password with a bare `@` or `/` ends.
    if userinfo.contains('@') {
        return Err(InvalidUrl::Userinfo);
    }
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let (user, password) = (percent_decode(user), percent_decode(password));
    if user.is_empty() && password.is_empty() {
        return Ok(None);
    }
    // RFC 7617 §2: the user name must not contain a colon, and neither part may contain control characters.
    if user.contains(&b':')
        || [&user, &password]
            .iter()
            .any(|part| part.iter().any(u8::is_ascii_control))
    {
        return Err(InvalidUrl::Userinfo);
    }
    let credentials = [&user[..], b":", &password].concat();
    Ok(Some(format!("Basic {}", STANDARD.encode(credentials))))
}

/// Decodes `%41`; keeps a `%` that is not followed by two digits.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        match after.split_at_checked(2) {
            Some((digits, after)) if *byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit) => {
                let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
                decoded.push(value(digits[0]) << 4 | value(digits[1]));
                rest = after;
            }
            _ => {
                decoded.push(*byte);
                rest = after;
            }
        }
    }
    decoded
}

/// Converts a non-ASCII host; keeps an ASCII host as it is. `authority` is host and port.
// RFC 6455 §11.1: a non-ASCII host name is sent in its converted form. [6455-11.1.1-1, 6455-11.1.2-1]
pub(crate) fn ascii_host(authority: &str) -> Result<Cow<'_, str>, UriError> {
    if let Some(zoned) = authority.strip_prefix('[')
        && let Some((address, zone)) = zoned.split_once('%')
        && !zone.starts_with("25")
    {
        return Ok(format!("[{address}%25{zone}").into());
    }
    if authority.is_ascii() {
        return Ok(authority.into());
    }
    let (host, port) = authority.find(':').map_or((authority, ""), |at| authority.split_at(at));
    // The URL standard would decode it first: `%2e` would become a dot.
    if host.contains('%') {
        return Err(UriError::InvalidHost);
    }
    match Host::parse(host) {
        Ok(Host::Domain(domain)) => Ok((domain + port).into()),
        // Non-ASCII digits can form an address that does not look like one.
        _ => Err(UriError::InvalidHost),
    }
}

/// Encodes everything in path and query that RFC 3986 does not allow there.
// [6455-11.1.1-2, 6455-11.1.2-2]
fn encode_resource(resource: &str) -> Result<String, InvalidUrl> {
    // The host does not matter.
    let url = Url::parse(&format!("ws://h{resource}")).map_err(|_| InvalidUrl::TooLong)?;
    let resource = &url[Position::BeforePath..Position::AfterQuery];
    let mut encoded = String::with_capacity(resource.len());
    for (at, character) in resource.char_indices() {
        let is_escape = || {
            let digits = resource.as_bytes().get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        match character {
            '%' if !is_escape() => encoded.push_str("%25"),
            '\\' | '^' | '`' | '{' | '|' | '}' => encoded.push_str(&format!("%{:02X}", u32::from(character))),
            _ => encoded.push(character),
        }
    }
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, UriError>) {
        let found = WebSocketUrl::parse(text).map(|url| url.to_string());
        assert_eq!(
            found.as_deref(),
            expected.map_err(InvalidUrl::Uri).as_ref().map(|uri| *uri),
            "{text}"
        );
    }

    #[test]
    fn http_schemes_are_converted_to_websocket_schemes() {
        check("http://h/p", Ok("ws://h/p"));
        check("HTTPS://h:443", Ok("wss://h/"));
        check("http://h:443", Ok("ws://h:443/"));
        check("ws://h", Ok("ws://h/"));
        check(" \twss://h/p\n", Ok("wss://h/p"));
        check("ftp://h/", Err(UriError::UnsupportedScheme));
        check("h:80", Err(UriError::MissingScheme));
    }

    #[test]
    fn path_and_query_are_encoded() {
        // checks [6455-11.1.1-2, 6455-11.1.2-2]
        for (resource, encoded) in [
            ("/?filter={\"x\":1}", "/?filter=%7B%22x%22:1%7D"),
            ("/?t=Bearer x", "/?t=Bearer%20x"),
            ("/?s=a|b", "/?s=a%7Cb"),
            ("/?s=100%", "/?s=100%25"),
            ("/?s=%4", "/?s=%254"),
            ("/%zz%41%%41", "/%25zz%41%25%41"),
            ("/\u{fc}?\u{20ac}", "/%C3%BC?%E2%82%AC"),
            ("/a b/<c>`{}|^", "/a%20b/%3Cc%3E%60%7B%7D%7C%5E"),
            ("/a[1]?b[]=2", "/a[1]?b[]=2"),
            ("/?a\\b^`", "/?a%5Cb%5E%60"),
            ("?x", "/?x"),
            ("/a/../b/./c", "/b/c"),
            ("//a://b?c?d", "//a://b?c?d"),
            ("/?%7B%22", "/?%7B%22"),
        ] {
            check(&format!("ws://h{resource}"), Ok(&format!("ws://h{encoded}")));
            // Encoding is idempotent.
            check(&format!("ws://h{encoded}"), Ok(&format!("ws://h{encoded}")));
        }
    }

    #[test]
    fn non_ascii_hosts_are_converted() {
        // checks [6455-11.1.1-1, 6455-11.1.2-1]
        check("ws://b\u{fc}cher.example:81/", Ok("ws://xn--bcher-kva.example:81/"));
        check("ws://B\u{dc}CHER.example", Ok("ws://xn--bcher-kva.example/"));
        check("ws://\u{4f8b}\u{3048}\u{3002}jp/", Ok("ws://xn--r8jz45g.jp/"));
        check("ws://xn--bcher-kva.example/", Ok("ws://xn--bcher-kva.example/"));
        for text in [
            // An address written with full-width digits, and names that are invalid in IDNA.
            "ws://\u{ff11}27.0.0.1/",
            "ws://\u{ff10}x7f/",
            "ws://\u{fc}%2e\u{fc}/",
            "ws://\u{fc}\u{ff0f}x/",
            "ws://\u{fc}:x/",
            "ws://[\u{fc}]/",
            "ws://\u{fc}..b/",
            "ws://xn--\u{fc}/",
        ] {
            assert!(WebSocketUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ambiguous_urls_are_errors() {
        for (text, error) in [
            ("ws://h/#part", UriError::Fragment),
            ("ws://h/p#", UriError::Fragment),
            ("ws:///p", UriError::MissingHost),
            ("ws://", UriError::MissingHost),
            ("ws://good\\@evil/", UriError::InvalidCharacter('\\')),
            ("ws://h/a\\b", UriError::InvalidCharacter('\\')),
            ("ws://h/\r\nX: y", UriError::InvalidCharacter('\r')),
            ("ws://h/a\tb", UriError::InvalidCharacter('\t')),
            ("ws://h/\0x", UriError::InvalidCharacter('\0')),
            ("ws://a b/", UriError::InvalidCharacter(' ')),
            ("ws://h%41/", UriError::InvalidHost),
            ("ws://127.1/", UriError::InvalidHost),
            ("ws://0x7f000001/", UriError::InvalidHost),
            ("ws://::1/", UriError::InvalidHost),
            ("ws://h:99999/", UriError::InvalidPort),
        ] {
            check(text, Err(error));
        }
    }

    #[test]
    fn zone_follows_a_bare_or_encoded_percent_sign() {
        check("ws://[fe80::1%25eth0]:1/", Ok("ws://[fe80::1%25eth0]:1/"));
        check("ws://[fe80::1%eth0]/", Ok("ws://[fe80::1%25eth0]/"));
        // `[fe80::1%25x]` is read as an encoded `%` and the zone `x`.
        check("ws://[fe80::1%25x]/", Ok("ws://[fe80::1%25x]/"));
        check("ws://[fe80::1%2525x]/", Ok("ws://[fe80::1%2525x]/"));
        check("ws://[fe80::1%]/", Err(UriError::InvalidZone));
        check("ws://[fe80::1%e/", Err(UriError::InvalidHost));
    }

    #[track_caller]
    fn check_credentials(userinfo: &str, expected: Result<Option<&str>, InvalidUrl>) {
        let found = WebSocketUrl::parse(&format!("ws://{userinfo}@h/"));
        let found = found.as_ref().map(|url| {
            assert_eq!(url.uri().to_string(), "ws://h/");
            assert_eq!(url.has_credentials(), url.authorization().is_some());
            url.authorization()
        });
        assert_eq!(found.map_err(|error| *error), expected, "{userinfo}");
    }

    #[test]
    fn user_and_password_become_basic_authorization() {
        // RFC 7617 §2 and §2.1.
        check_credentials("Aladdin:open%20sesame", Ok(Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")));
        check_credentials("test:123\u{a3}", Ok(Some("Basic dGVzdDoxMjPCow==")));
        check_credentials("test:123%C2%A3", Ok(Some("Basic dGVzdDoxMjPCow==")));
        check_credentials("token", Ok(Some("Basic dG9rZW46")));
        check_credentials(":pw", Ok(Some("Basic OnB3")));
        check_credentials("u:a:b%40%2F", Ok(Some("Basic dTphOmJALw==")));
        check_credentials("u:100%", Ok(Some("Basic dToxMDAl")));
        check_credentials("", Ok(None));
        check_credentials(":", Ok(None));
        for userinfo in ["a@b:c", "u:p@ss", "u%3Ab:c", "u:%0d%0aX-Injected: y", "u%00:p", "u:%7f"] {
            check_credentials(userinfo, Err(InvalidUrl::Userinfo));
        }
    }

    /// Whatever is accepted is a strict URI, parses to itself, and cannot end a line of the request.
    #[test]
    fn accepted_urls_parse_to_themselves() {
        use rand::SeedableRng;
        use rand::rngs::StdRng;
        use rand::seq::IndexedRandom;

        const PIECES: [&str; 56] = [
            "ws://",
            "wss://",
            "HTTP://",
            "https:",
            "//",
            "/",
            "?",
            "#",
            "@",
            ":",
            "::",
            "[",
            "]",
            "[::1]",
            "[fe80::1%",
            "%25",
            "%",
            "%2",
            "%2e",
            "%00",
            "%0d%0a",
            "..",
            ".",
            "\\",
            " ",
            "\t",
            "\r\n",
            "\0",
            "\u{7f}",
            "\u{85}",
            "\u{ad}",
            "\u{fc}",
            "\u{df}",
            "\u{3002}",
            "\u{ff0f}",
            "\u{ff11}",
            "\u{202e}",
            "\u{1f41f}",
            "xn--",
            "a",
            "h",
            "example",
            "com",
            "eth0",
            "1",
            "127.0.0.1",
            "0x7f",
            "99999",
            "{",
            "|",
            "\"",
            "'",
            "<",
            "^",
            "`",
            "&",
        ];
        let mut rng = StdRng::seed_from_u64(7);
        let mut accepted = 0;
        for _ in 0..100_000 {
            let mut text = String::from(if accepted % 2 == 0 { "ws://h" } else { "ws://" });
            for _ in 0..6 {
                text += PIECES.choose(&mut rng).unwrap();
            }
            let Ok(url) = WebSocketUrl::parse(&text) else {
                continue;
            };
            accepted += 1;
            let written = url.to_string();
            assert!(
                written.bytes().all(|byte| byte.is_ascii_graphic()),
                "{text:?}: {written}"
            );
            assert_eq!(Uri::parse(&written).as_ref(), Ok(url.uri()), "{text:?}");
            let again = WebSocketUrl::parse(&written).unwrap();
            assert_eq!(again.uri(), url.uri(), "{text:?}");
            assert!(!again.has_credentials(), "{text:?}: {written}");
            if let Some(authorization) = url.authorization() {
                let base64 = authorization.strip_prefix("Basic ").unwrap();
                let credentials = STANDARD.decode(base64).unwrap();
                assert!(
                    credentials.contains(&b':') && !credentials.iter().any(u8::is_ascii_control),
                    "{text:?}"
                );
            }
        }
        assert!(accepted > 5_000, "{accepted}");
    }

    #[test]
    fn password_is_never_displayed() {
        let url = WebSocketUrl::parse("ws://alice:hunter2@h/").unwrap();
        for text in [format!("{url:?}"), url.to_string(), format!("{:?}", url.uri())] {
            assert!(
                !text.contains("hunter2") && !text.contains("alice") && !text.contains("YWxpY2U"),
                "{text}"
            );
        }
        for text in [
            "ws://alice:hunter2@[h/",
            "ws://alice:hunter2@h:x/",
            "ws://alice:hunter2@h@i/",
            "ws://alice:hunter2/@h/",
            "alice:hunter2@h",
            "ws://alice:hunter2@/",
            "ws://alice:hunter2@h/#x",
        ] {
            let error = WebSocketUrl::parse(text).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2") && !shown.contains("alice"), "{shown}");
        }
    }
}
