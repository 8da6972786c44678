//! `host` or `host:port`, as used in URIs, Host headers and origins.

use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::UriError;

/// A host and an optional port, normalized for comparison: names are in lower case, IPv6 addresses in canonical form
/// and without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    host: String,
    port: Option<u16>,
}

/// Maximum length of a DNS name and of one of its labels, in bytes (RFC 1035 §2.3.4).
const NAME_LEN_MAX: usize = 253;
const LABEL_LEN_MAX: usize = 63;

impl Authority {
    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    ///
    /// [`UriError`] names the invalid part. User information (`user@`) is also an error.
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

    /// The host. IPv6 addresses have no brackets, as resolvers and TLS libraries expect.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The explicit port, if any.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Removes the port if it is `default`.
    pub(super) fn without_default_port(mut self, default: u16) -> Self {
        self.port = self.port.filter(|port| *port != default);
        self
    }
}

/// Formats the authority for a URI or Host header, with brackets around IPv6 addresses.
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
        // More than one colon: an IPv6 address without brackets.
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

/// RFC 3986 §3.2.3: digits, or empty for the default port.
fn parse_port(text: &str) -> Result<Option<u16>, UriError> {
    if text.is_empty() {
        return Ok(None);
    }
    // `parse` would also accept a sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UriError::InvalidPort);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(UriError::InvalidPort),
        Ok(port) => Ok(Some(port)),
    }
}

/// Parses an IPv6 address (RFC 3986 §3.2.2). Zones (`%eth0`) are not accepted; [`Uri`](super::Uri) removes them first.
fn parse_v6(text: &str) -> Result<String, UriError> {
    text.parse::<Ipv6Addr>()
        .map(|address| address.to_string())
        .map_err(|_| UriError::InvalidHost)
}

/// Parses a DNS name or an IPv4 address, which is the resolvable subset of `reg-name` in RFC 3986.
fn parse_name(text: &str) -> Result<String, UriError> {
    if text.is_empty() {
        return Err(UriError::MissingHost);
    }
    // RFC 6455 §11.1: non-ASCII names must be converted to punycode. [6455-11.1.1-1, 6455-11.1.2-1]
    if !text.is_ascii() {
        return Err(UriError::NonAsciiHost);
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > NAME_LEN_MAX || !name.split('.').all(is_label) {
        return Err(UriError::InvalidHost);
    }
    // Some resolvers treat `127.1` and `0x7f000001` as addresses, others as names.
    let last = name.rsplit('.').next().unwrap_or(name);
    if is_number(last) && text.parse::<Ipv4Addr>().is_err() {
        return Err(UriError::InvalidHost);
    }
    Ok(text.to_owned().to_ascii_lowercase())
}

fn is_label(label: &str) -> bool {
    // Underscores are not allowed in host names by the RFCs but are common in practice.
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
    fn host_and_port_are_parsed() {
        check("Example.COM", Ok(("example.com", None)));
        check("example.com:", Ok(("example.com", None)));
        check("example.com.:1", Ok(("example.com.", Some(1))));
        check("my_service:65535", Ok(("my_service", Some(65535))));
        check("127.0.0.1:9001", Ok(("127.0.0.1", Some(9001))));
        check("[0:0::1]:80", Ok(("::1", Some(80))));
    }

    #[test]
    fn invalid_authority_is_rejected() {
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
    fn name_length_is_limited_as_in_dns() {
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
