//! `host` or `host:port`, as it stands in a URI, in a Host header and in an origin.

use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::UriError;

/// A host and perhaps a port, in the one spelling that compares equal: names in lower case,
/// IPv6 addresses in their canonical form and without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    host: String,
    port: Option<u16>,
}

/// What a DNS name can be at most (RFC 1035 §2.3.4), and one of its labels.
const NAME_LEN_MAX: usize = 253;
const LABEL_LEN_MAX: usize = 63;

impl Authority {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    /// Says which part cannot be understood; user information (`user@`) is an error too.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if text.contains('@') {
            return Err(UriError::Userinfo);
        }
        let (host, port) = split_port(text)?;
        let host = match host.strip_prefix('[') {
            Some(v6) => parse_v6(v6.strip_suffix(']').ok_or(UriError::InvalidHost)?)?,
            None => parse_name(host)?,
        };
        Ok(Self {
            host,
            port: parse_port(port)?,
        })
    }

    /// The host, without brackets around an IPv6 address: what a resolver or TLS wants.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, if one is written.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The same host without the port, if that is `default`.
    pub(super) fn without_default_port(mut self, default: u16) -> Self {
        self.port = self.port.filter(|port| *port != default);
        self
    }
}

/// Writes it as a URI and a Host header have it: brackets around an IPv6 address.
impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// RFC 3986 §3.2: the port follows the last colon, except for those inside brackets.
fn split_port(text: &str) -> Result<(&str, &str), UriError> {
    let host_end = match text.strip_prefix('[') {
        Some(rest) => 2 + rest.find(']').ok_or(UriError::InvalidHost)?,
        // More than one colon is an IPv6 address without its brackets.
        None if text.matches(':').count() > 1 => return Err(UriError::InvalidHost),
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_end);
    if rest.is_empty() {
        return Ok((host, ""));
    }
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, port)),
        None => Err(UriError::InvalidHost),
    }
}

/// RFC 3986 §3.2.3: digits, or nothing, which means the default.
fn parse_port(text: &str) -> Result<Option<u16>, UriError> {
    if text.is_empty() {
        return Ok(None);
    }
    // `parse` alone would take a sign too.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UriError::InvalidPort);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(UriError::InvalidPort),
        Ok(port) => Ok(Some(port)),
    }
}

/// RFC 3986 §3.2.2. A zone (`%eth0`) means something on one machine only; [`Uri`](super::Uri) takes it off first.
fn parse_v6(text: &str) -> Result<String, UriError> {
    text.parse::<Ipv6Addr>()
        .map(|address| address.to_string())
        .map_err(|_| UriError::InvalidHost)
}

/// A DNS name or an IPv4 address: the part of RFC 3986's `reg-name` that a resolver can know.
fn parse_name(text: &str) -> Result<String, UriError> {
    if text.is_empty() {
        return Err(UriError::MissingHost);
    }
    // RFC 6455 §11.1: a name beyond ASCII comes in its converted form or not at all. [6455-11.1.1-1, 6455-11.1.2-1]
    if !text.is_ascii() {
        return Err(UriError::NonAsciiHost);
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > NAME_LEN_MAX || !name.split('.').all(is_label) {
        return Err(UriError::InvalidHost);
    }
    // `127.1` and `0x7f000001` are addresses to some resolvers and names to others.
    let last = name.rsplit('.').next().unwrap_or(name);
    if is_number(last) && text.parse::<Ipv4Addr>().is_err() {
        return Err(UriError::InvalidHost);
    }
    Ok(text.to_owned().to_ascii_lowercase())
}

fn is_label(label: &str) -> bool {
    // The underscore is in no host name by the book and in many by custom.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
    (1..=LABEL_LEN_MAX).contains(&label.len()) && label.bytes().all(is_allowed)
}

fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x").or_else(|| label.strip_prefix("0X")) {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<(&str, Option<u16>), UriError>) {
        let found = Authority::parse(text);
        let found = found.as_ref().map(|found| (found.host(), found.port()));
        assert_eq!(found, expect.as_ref().map(|expect| *expect), "{text}");
    }

    #[test]
    fn host_and_port_are_read() {
        check("Example.COM", Ok(("example.com", None)));
        check("example.com:", Ok(("example.com", None)));
        check("example.com.:1", Ok(("example.com.", Some(1))));
        check("my_service:65535", Ok(("my_service", Some(65535))));
        check("127.0.0.1:9001", Ok(("127.0.0.1", Some(9001))));
        check("[0:0::1]:80", Ok(("::1", Some(80))));
    }

    #[test]
    fn nonsense_is_refused() {
        check("", Err(UriError::MissingHost));
        check(":80", Err(UriError::MissingHost));
        check("user@h", Err(UriError::Userinfo));
        for text in [
            "h:1:2",
            "a..b",
            ".",
            ".a",
            "::1",
            "[::1",
            "[::1]x",
            "[::1%25eth0]",
            "[v1.x]",
            "127.1",
            "0x7f.1",
            "1.2.3.256",
            "01.2.3.4",
            "1.2.3.4.",
            "0x7f000001",
            "a b",
            "a,b",
            "a%41",
            "a/b",
        ] {
            let found = Authority::parse(text);
            let is_expected = matches!(found, Err(UriError::InvalidHost | UriError::InvalidPort));
            assert!(is_expected, "{text}: {found:?}");
        }
        for text in ["h:0", "h:65536", "h:+1", "h:-1", "h:a", "h: 1"] {
            check(text, Err(UriError::InvalidPort));
        }
    }

    #[test]
    fn names_are_as_long_as_dns_allows() {
        let label = "a".repeat(63);
        assert!(Authority::parse(&label).is_ok());
        assert!(Authority::parse(&(label.clone() + "a")).is_err());
        // Four labels of 63 and three dots are two more than 253.
        let name = [label.as_str(); 4].join(".");
        assert!(Authority::parse(&name).is_err());
        assert!(Authority::parse(&name[1..]).is_err());
        assert!(Authority::parse(&name[2..]).is_ok());
    }
}
