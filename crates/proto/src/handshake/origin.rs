//! Who may connect from a browser: the Origin header against a policy.
//!
//! A browser lets any page open a WebSocket to any host, with that host's cookies. The Origin
//! header says which page it is, and checking it is the server's only defence (RFC 6455 §10.2).
//! Origins are parsed and compared as a whole. Comparing their text by prefix, suffix or substring
//! is how `https://example.com.attacker.net` gets in.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use core::str::FromStr;

use super::denial::listed;
use super::{Authority, Denial, HandshakeError, Request};

/// How RFC 6454 §6.1 writes an opaque origin.
const NULL: &str = "null";

/// Where a page comes from: scheme, host and port (RFC 6454 §4).
///
/// The default ports of http, https, ws and wss need not be written: `https://example.com` equals
/// `https://example.com:443`. Nothing else is equal that is not the same.
///
/// Apart from pages of the web there are `chrome-extension://ID` and the like, `file://` of some embedded browsers, and
/// `null`, which browsers send for every page without an origin of its own.
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
    /// Without the port if that is the scheme's default; none for `null`, and after a scheme that needs no host.
    authority: Option<Authority>,
}

impl Origin {
    /// The `null` of an opaque origin (RFC 6454 §6.1): a page in a sandboxed frame, a `data:` URL, most local files.
    ///
    /// Any site can make a browser send it, so a policy that lists it lets pages of every site in.
    pub const NULL: Self = Self {
        scheme: String::new(),
        authority: None,
    };

    /// Parses `scheme://host`, `scheme://host:port`, `scheme://` for schemes other than those of the web, or `null`.
    ///
    /// # Errors
    /// [`OriginError`] for anything else.
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

    /// Whether this is `null`, the origin of pages without one.
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

    /// The port, written or by default; `None` for schemes without a default.
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

/// Writes it as browsers do: without the default port.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.authority {
            _ if self.is_null() => f.write_str(NULL),
            Some(authority) => write!(f, "{}://{authority}", self.scheme),
            None => write!(f, "{}://", self.scheme),
        }
    }
}

/// A text that is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginError;

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an origin: write scheme://host or scheme://host:port without a path, or null")
    }
}

impl Error for OriginError {}

/// Which origins a server accepts.
///
/// A request without an Origin header always passes: no browser sent it, so there is no page to be
/// protected from, and a program can write into the header whatever it likes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OriginPolicy {
    /// Pages of the host that the request is for, by http or https, at the same port.
    ///
    /// A Host without a port means the default port of the origin's scheme. This server does not
    /// know whether TLS is in front of it, so where pages come over https only and the difference
    /// to http matters, give a [`List`](Self::List).
    #[default]
    SameHost,
    /// Pages of these origins: `https://app.example`, `chrome-extension://ID`, `file://`, and [`Origin::NULL`] if it is
    /// listed.
    List(Vec<Origin>),
    /// Any page, `null` included. For public data that no cookie or private network guards.
    Any,
}

impl OriginPolicy {
    /// Judges a request.
    ///
    /// # Errors
    /// [`HandshakeError::OriginDenied`], which names the origin and what is allowed; answer it with
    /// [`Incoming::refuse`](super::Incoming::refuse).
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
            Self::List(origins) => listed(origins),
            Self::SameHost => "pages of the same host".into(),
        };
        Err(HandshakeError::OriginDenied(Box::new(Denial::new(request, allowed))))
    }
}

fn parse(value: &[u8]) -> Option<Origin> {
    Origin::parse(core::str::from_utf8(value).ok()?).ok()
}

fn is_same_host(origin: &Origin, authority: &Authority) -> bool {
    // An extension's page may carry any name as its host, so only pages of the web can match.
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
