//! `ws:` and `wss:` URIs (RFC 6455 §3), parsed strictly.
//!
//! Where parsers differ about a URI, one of them connects to a host the other did not check. So
//! what is not clearly a WebSocket URI is an error that says how to write it.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use core::error::Error;
use core::fmt;
use core::str::FromStr;

use super::Authority;

/// Where a client connects to: `ws://host[:port][/path][?query]`, or `wss://` for TLS.
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
    /// Without the port if that is the scheme's default.
    authority: Authority,
    /// IPv6 zone identifier.
    zone: Option<String>,
    resource: String,
}

/// With TLS or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `ws`, plain TCP, port 80 by default.
    Ws,
    /// `wss`, TLS, port 443 by default.
    Wss,
}

impl Scheme {
    /// The scheme as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The port that need not be written.
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
    /// Each [`UriError`] says what stands in the way and how to write it instead.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        // RFC 6455 §4.1: what is no valid WebSocket URI goes no further. [6455-4.1-2]
        let (scheme, rest) = text.split_once("://").ok_or(UriError::MissingScheme)?;
        // RFC 6455 §3: the scheme, in any case of letters, says whether there is TLS. [6455-3-2]
        let scheme = match scheme {
            _ if scheme.eq_ignore_ascii_case("ws") => Scheme::Ws,
            _ if scheme.eq_ignore_ascii_case("wss") => Scheme::Wss,
            _ => return Err(UriError::UnsupportedScheme),
        };
        // RFC 6455 §3: fragment identifiers are meaningless here and MUST NOT be used. [6455-3-4, 6455-3-5]
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

    /// Whether the connection runs over TLS.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        matches!(self.scheme, Scheme::Wss)
    }

    /// The host to connect to, in lower case; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The zone of an IPv6 address (RFC 6874): the name or number of the network interface to connect through, `eth0` in
    /// `ws://[fe80::1%25eth0]/`. It means something on this machine only, so it is no part of the
    /// [`authority`](Self::authority) that the server is sent.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        let default = self.scheme.default_port();
        self.authority.port().unwrap_or(default)
    }

    /// Host and port as the Host header has them: without the default port.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The resource name (RFC 6455 §3): path, `/` if empty, and query.
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

/// Why a text is no WebSocket URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UriError {
    /// There is no `://`.
    MissingScheme,
    /// The scheme is neither `ws` nor `wss`.
    UnsupportedScheme,
    /// There is a `#`.
    Fragment,
    /// There is a user name or password before the host.
    Userinfo,
    /// There is no host.
    MissingHost,
    /// The host has letters beyond ASCII.
    NonAsciiHost,
    /// The host is neither a DNS name nor an IP address.
    InvalidHost,
    /// The zone of an IPv6 address is empty, too long, or not letters, digits, `-`, `.`, `_` and `~`.
    InvalidZone,
    /// A user name or password that cannot be sent as `Authorization: Basic`.
    InvalidUserinfo,
    /// The port is not a number from 1 to 65535.
    InvalidPort,
    /// A character that has to be percent-encoded.
    InvalidCharacter(char),
    /// A `%` without two hexadecimal digits after it.
    InvalidPercentEncoding,
    /// The text has 4 GiB or more.
    TooLong,
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingScheme => "no scheme: write ws:// or wss:// in front",
            Self::UnsupportedScheme => "scheme is not ws or wss: write ws:// for http://, wss:// for https://",
            Self::Fragment => "a websocket URI has no fragment: leave out # or write it as %23",
            Self::Userinfo => "user name or password in the URI: send them in an Authorization header instead",
            Self::MissingHost => "no host",
            Self::NonAsciiHost => "host is not ASCII: write it in its punycode form, which begins with xn--",
            Self::InvalidHost => "host is not a DNS name or an IP address (IPv6 goes in brackets)",
            Self::InvalidZone => "zone of an IPv6 address is not letters and digits: write [fe80::1%25eth0]",
            Self::InvalidUserinfo => {
                "user name or password cannot be sent: write @ as %40 and / as %2F, and leave out control characters and \
                 colons in the name"
            }
            Self::InvalidPort => "port is not a number from 1 to 65535",
            Self::TooLong => "the URI is longer than 4 GiB",
            Self::InvalidPercentEncoding => "% without two hexadecimal digits: write it as %25",
            Self::InvalidCharacter(character) => {
                write!(f, "character {character:?} is not allowed: write it as ")?;
                let mut utf8 = [0; 4];
                let bytes = character.encode_utf8(&mut utf8).bytes();
                return bytes.into_iter().try_for_each(|byte| write!(f, "%{byte:02X}"));
            }
        })
    }
}

impl Error for UriError {}

/// The longest name of a network interface that is believed: systems allow 16 to 256 bytes.
const ZONE_LEN_MAX: usize = 64;

/// RFC 6874 §2: `[address%25zone]`, taken apart into what the authority is without the zone, and the zone.
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
    // RFC 6455 §11.1: other characters come percent-encoded or not at all. [6455-11.1.1-2, 6455-11.1.2-2]
    if let Some(character) = resource.chars().find(|c| !is_in_resource(*c)) {
        return Err(UriError::InvalidCharacter(character));
    }
    // RFC 3986 §2.1: what follows each percent sign is two hexadecimal digits.
    let is_encoded = |text: &str| {
        let digits = text.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    match resource.split('%').skip(1).all(is_encoded) {
        true => Ok(()),
        false => Err(UriError::InvalidPercentEncoding),
    }
}

/// RFC 3986 §3.3 and §3.4, and the brackets, which the letter of it keeps for hosts but which
/// every form writes unencoded into its queries.
const fn is_in_resource(character: char) -> bool {
    character.is_ascii_graphic() && !matches!(character, '"' | '#' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')
}

/// Controls, spaces and the backslash, which some parsers take for a slash.
const fn is_never_in_uri(character: char) -> bool {
    character.is_ascii_control() || matches!(character, ' ' | '\\')
}

/// RFC 6455 §3: the resource name begins with a slash, even where the URI has no path.
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
