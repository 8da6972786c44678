//! Origin policy: which web pages may connect. Protects against cross-site WebSocket hijacking.
//!
//! Browsers allow any page to open a WebSocket to any host, with that host's cookies. The Origin header identifies the
//! page, and checking it is the server's only defense (RFC 6455 §10.2). Origins are parsed and compared as a whole:
//! comparisons by prefix, suffix or substring would accept `https://example.com.attacker.net`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use core::str::FromStr;

use super::denial::join_entries;
use super::{Authority, Denial, HandshakeError, Request};

/// Serialization of an opaque origin (RFC 6454 §6.1).
const NULL: &str = "null";

/// The origin of a web page: scheme, host and port (RFC 6454 §4).
///
/// The default ports of http, https, ws and wss are implied: `https://example.com` equals `https://example.com:443`.
/// Otherwise, origins are equal only if scheme, host and port are.
///
/// Besides web origins, browsers send `chrome-extension://ID` and similar for extensions, `file://` in some embedded
/// browsers, and `null` for pages with an opaque origin.
///
/// ```
/// use sockeye_proto::handshake::Origin;
///
/// for text in ["https://example.com", "chrome-extension://abcdefghijklmnop", "file://", "null"] {
///     assert_eq!(Origin::parse(text).unwrap().to_string(), text);
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// In lower case; empty for `null`.
    scheme: String,
    /// Without the default port of the scheme. `None` for `null` and for origins without a host, such as `file://`.
    authority: Option<Authority>,
}

impl Origin {
    /// The opaque origin `null` (RFC 6454 §6.1): sandboxed frames, `data:` URLs and most local files.
    ///
    /// Any site can make a browser send it, for example with a sandboxed frame. A policy that lists it therefore
    /// accepts pages of every site.
    pub const NULL: Self = Self {
        scheme: String::new(),
        authority: None,
    };

    /// Parses `scheme://host`, `scheme://host:port`, `null`, or `scheme://` for schemes other than http, https, ws and
    /// wss.
    ///
    /// # Errors
    ///
    /// [`OriginError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text == NULL {
            return Ok(Self::NULL);
        }
        let (scheme, authority) = text.split_once("://").ok_or(OriginError)?;
        if !is_scheme(scheme) {
            return Err(OriginError);
        }
        let scheme = scheme.to_ascii_lowercase();
        let default_port = default_port(&scheme);
        if authority.is_empty() && default_port.is_none() {
            let authority = None;
            return Ok(Self { scheme, authority });
        }
        let mut authority = Authority::parse(authority).map_err(|_| OriginError)?;
        if let Some(default) = default_port {
            authority = authority.without_default_port(default);
        }
        Ok(Self {
            scheme,
            authority: Some(authority),
        })
    }

    /// Whether this is the opaque origin `null`.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        self.scheme.is_empty()
    }

    /// The scheme, in lower case; empty for `null`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host, in lower case; an IPv6 address without brackets. Empty for `null` and `file://`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.as_ref().map_or("", Authority::host)
    }

    /// The port, or the default port of the scheme. `None` if there is neither.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let written = self.authority.as_ref().and_then(Authority::port);
        written.or_else(|| default_port(&self.scheme))
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for Origin {
    type Error = OriginError;

    fn try_from(text: &str) -> Result<Self, OriginError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        Self::parse(&text)
    }
}

/// Formats the origin as browsers do, without the default port.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.authority {
            _ if self.is_null() => f.write_str(NULL),
            Some(authority) => write!(f, "{}://{authority}", self.scheme),
            None => write!(f, "{}://", self.scheme),
        }
    }
}

/// Error for text that is not an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginError;

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an origin: use scheme://host or scheme://host:port without a path, or null")
    }
}

impl Error for OriginError {}

/// The origins that a server accepts.
///
/// A request without an Origin header is always accepted: browsers always send it, and other programs can send any
/// value, so checking them would protect nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OriginPolicy {
    /// Pages served by the requested host and port over http or https.
    ///
    /// If the Host header has no port, the default port of the origin's scheme is assumed, because the server cannot
    /// know whether a proxy terminates TLS. To accept pages over https only, use a [`List`](Self::List).
    #[default]
    SameHost,
    /// Pages of the listed origins, such as `https://app.example`, `chrome-extension://ID`, `file://` or
    /// [`Origin::NULL`].
    List(Vec<Origin>),
    /// Any page, including `null`. Only for public data that is not protected by cookies or a private network.
    Any,
}

impl OriginPolicy {
    /// Checks whether a request comes from an allowed origin.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::OriginDenied`] (status 403), which contains the origin and the allowed origins. Pass it to
    /// [`Incoming::reject_with_error`](super::Incoming::reject_with_error).
    // [6455-10.1-1, 6455-10.2-1]
    pub fn check(&self, request: &Request) -> Result<(), HandshakeError> {
        let Some(value) = request.origin() else {
            return Ok(());
        };
        let is_allowed = match self {
            Self::Any => true,
            Self::List(origins) => parse(value.as_bytes()).is_some_and(|it| origins.contains(&it)),
            Self::SameHost => parse(value.as_bytes()).is_some_and(|it| is_same_host(&it, request.authority())),
        };
        if is_allowed {
            return Ok(());
        }
        let allowed = match self {
            Self::Any => "any".into(),
            Self::List(origins) => join_entries(origins),
            Self::SameHost => "pages of the same host".into(),
        };
        Err(HandshakeError::OriginDenied(Box::new(Denial::new(
            request.origin(),
            request.authority(),
            allowed,
        ))))
    }
}

fn parse(value: &[u8]) -> Option<Origin> {
    Origin::parse(core::str::from_utf8(value).ok()?).ok()
}

fn is_same_host(origin: &Origin, authority: &Authority) -> bool {
    // The host of an extension's origin can be any name, so only web origins can match.
    if !matches!(origin.scheme(), "http" | "https") {
        return false;
    }
    let port = authority.port().or_else(|| default_port(origin.scheme()));
    origin.host() == authority.host() && origin.port() == port
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(is_allowed)
}
