//! `ws:` and `wss:` URIs (RFC 6455 §3), parsed strictly.
//!
//! If two parsers interpret a URI differently, one may connect to a host that the other did not check. Ambiguous URIs
//! are therefore rejected, with an error that explains how to write them.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use super::{Authority, UriError};

/// A WebSocket URI: `ws://host[:port][/path][?query]`, or `wss://` for TLS.
///
/// ```
/// use sockeye_proto::handshake::Uri;
///
/// let uri: Uri = "wss://Example.com:443/feed?symbol=btc".parse().unwrap();
/// assert!(uri.is_secure());
/// assert_eq!((uri.host(), uri.port()), ("example.com", 443));
/// assert_eq!(uri.resource(), "/feed?symbol=btc");
/// assert_eq!(uri.to_string(), "wss://example.com/feed?symbol=btc");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri {
    scheme: Scheme,
    /// Without the default port of the scheme.
    authority: Authority,
    /// IPv6 zone identifier.
    zone: Option<String>,
    resource: String,
}

/// The scheme of a WebSocket URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `ws`: TCP without TLS, default port 80.
    Ws,
    /// `wss`: TLS, default port 443.
    Wss,
}

impl Scheme {
    /// Returns the scheme as text, without `://`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Returns the default port.
    // [6455-3-1]
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

impl Uri {
    /// Parses a URI.
    ///
    /// # Errors
    ///
    /// [`UriError`], whose `Display` explains the problem and how to fix it.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        // RFC 6455 §4.1: an invalid WebSocket URI must fail the connection. [6455-4.1-2]
        let (scheme, rest) = text.split_once("://").ok_or(UriError::MissingScheme)?;
        // RFC 6455 §3: the scheme, compared case-insensitively, determines whether TLS is used. [6455-3-2]
        let scheme = match scheme {
            _ if scheme.eq_ignore_ascii_case("ws") => Scheme::Ws,
            _ if scheme.eq_ignore_ascii_case("wss") => Scheme::Wss,
            _ => return Err(UriError::UnsupportedScheme),
        };
        // RFC 6455 §3: fragment identifiers have no meaning and MUST NOT be used. [6455-3-4, 6455-3-5]
        if rest.contains('#') {
            return Err(UriError::Fragment);
        }
        let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, resource) = rest.split_at(authority_len);
        if let Some(character) = authority.chars().find(|c| is_never_in_uri(*c)) {
            return Err(UriError::InvalidCharacter(character));
        }
        check_resource(resource)?;
        let (authority, zone) = match split_zone(authority) {
            Some((authority, zone)) => (Authority::parse(&authority)?, Some(check_zone(zone)?)),
            None => (Authority::parse(authority)?, None),
        };
        Ok(Self {
            scheme,
            authority: authority.without_default_port(scheme.default_port()),
            zone,
            resource: absolute(resource),
        })
    }

    /// The scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether the connection uses TLS.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        matches!(self.scheme, Scheme::Wss)
    }

    /// The host, in lower case. IPv6 addresses have no brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The zone identifier of an IPv6 address (RFC 6874): the name or index of the network interface, such as `eth0` in
    /// `ws://[fe80::1%25eth0]/`. It is meaningful only on this machine, so it is not part of the
    /// [`authority`](Self::authority) that is sent to the server.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The port, or the default port of the scheme.
    #[must_use]
    pub fn port(&self) -> u16 {
        let default = self.scheme.default_port();
        self.authority.port().unwrap_or(default)
    }

    /// The host and port for the Host header, without the default port.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The resource name (RFC 6455 §3): the path (`/` if empty) and the query.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, resource) = (self.scheme.as_str(), &self.resource);
        let Some(zone) = &self.zone else {
            return write!(f, "{scheme}://{}{resource}", self.authority);
        };
        write!(f, "{scheme}://[{}%25{zone}]", self.host())?;
        match self.authority.port() {
            Some(port) => write!(f, ":{port}{resource}"),
            None => f.write_str(resource),
        }
    }
}

/// Maximum length of a zone identifier, in bytes. Operating systems limit interface names to 16 to 256 bytes.
const ZONE_LEN_MAX: usize = 64;

/// Splits `[address%25zone]` (RFC 6874 §2) into the authority without the zone, and the zone.
fn split_zone(authority: &str) -> Option<(String, &str)> {
    let (inside, after) = authority.strip_prefix('[')?.split_once(']')?;
    let (address, zone) = inside.split_once("%25")?;
    let mut without = String::with_capacity(authority.len());
    for piece in ["[", address, "]", after] {
        without.push_str(piece);
    }
    Some((without, zone))
}

fn check_zone(zone: &str) -> Result<String, UriError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    match (1..=ZONE_LEN_MAX).contains(&zone.len()) && zone.bytes().all(is_allowed) {
        true => Ok(zone.to_owned()),
        false => Err(UriError::InvalidZone),
    }
}

fn check_resource(resource: &str) -> Result<(), UriError> {
    // RFC 6455 §11.1: other characters must be percent-encoded. [6455-11.1.1-2, 6455-11.1.2-2]
    if let Some(character) = resource.chars().find(|c| !is_in_resource(*c)) {
        return Err(UriError::InvalidCharacter(character));
    }
    // RFC 3986 §2.1: each percent sign must be followed by two hexadecimal digits.
    let is_encoded = |text: &str| {
        let digits = text.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    match resource.split('%').skip(1).all(is_encoded) {
        true => Ok(()),
        false => Err(UriError::InvalidPercentEncoding),
    }
}

/// Whether a character is allowed in path and query (RFC 3986 §3.3 and §3.4). Brackets are allowed as well: the RFC
/// reserves them for hosts, but they are commonly used unencoded in queries.
const fn is_in_resource(character: char) -> bool {
    character.is_ascii_graphic() && !matches!(character, '"' | '#' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')
}

/// Whether a character is never valid in a URI: control characters, space, and backslash, which some parsers treat as a
/// slash.
const fn is_never_in_uri(character: char) -> bool {
    character.is_ascii_control() || matches!(character, ' ' | '\\')
}

/// RFC 6455 §3: the resource name starts with a slash, even if the URI has no path.
// [6455-3-3]
pub(super) fn absolute(resource: &str) -> String {
    if resource.starts_with('/') {
        return resource.to_owned();
    }
    let mut absolute = String::with_capacity(1 + resource.len());
    absolute.push('/');
    absolute.push_str(resource);
    absolute
}
