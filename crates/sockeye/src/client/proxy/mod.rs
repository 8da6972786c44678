//! Proxies: which one a connection uses, and the tunnel through it.

pub(crate) mod bypass;
pub(crate) mod choice;
pub(crate) mod environment;
pub(crate) mod socks;
pub(crate) mod tunnel;

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sockeye_proto::handshake::{Uri, UriError};

use crate::client::proxy::bypass::Bypass;
use crate::client::url::{ascii_host, percent_decode};
use crate::error::Error;

/// Port of a proxy whose URL has none, as in curl.
const DEFAULT_PORT: u16 = 1080;

/// RFC 1929 §2: the length of user name and password is one byte.
const SOCKS_CREDENTIAL_LEN_MAX: usize = 255;

/// A proxy that a client connects through, for [`ClientBuilder::proxy`](crate::ClientBuilder::proxy).
///
/// It is written as a URL, `scheme://user:password@host:port`:
///
/// | scheme | protocol |
/// |---|---|
/// | `http`, or none | HTTP CONNECT (RFC 9110 §9.3.6), for `ws://` and `wss://` |
/// | `https` | HTTP CONNECT over TLS, with the client's TLS configuration |
/// | `socks5h` | SOCKS5 (RFC 1928); the proxy resolves the host name |
/// | `socks5` | SOCKS5; the client resolves the host name and asks for its first address |
///
/// The default port is 443 for `https` and 1080 for the others, as in curl. User name and password are percent-decoded,
/// and sent as `Proxy-Authorization: Basic` (RFC 7617) or as RFC 1929 describes. A path is ignored.
///
/// For `wss://`, TLS runs through the tunnel to the server, so the proxy only learns its host and port. `Display` and
/// `Debug` omit user name and password.
///
/// ```
/// use sockeye::{Client, Proxy};
///
/// let proxy = Proxy::parse("http://user:secret@proxy.example:3128")?.bypass("localhost, .internal, 10.0.0.0/8");
/// assert_eq!(proxy.to_string(), "http://proxy.example:3128");
/// let client = Client::builder().proxy(proxy).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    scheme: ProxyScheme,
    /// Host and port. Its scheme and resource have no meaning.
    endpoint: Uri,
    credentials: Option<Credentials>,
    bypass: Bypass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyScheme {
    Http,
    Https,
    /// SOCKS5 with addresses that the client resolves.
    Socks5,
    /// SOCKS5 with host names.
    Socks5h,
}

impl ProxyScheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
        }
    }
}

/// User name and password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: Vec<u8>,
    pub(crate) password: Vec<u8>,
}

impl Proxy {
    /// Parses the URL of a proxy.
    ///
    /// # Errors
    ///
    /// The scheme is unknown, the host or port is invalid, or user name or password cannot be sent. The error shows
    /// neither of them.
    pub fn parse(url: &str) -> Result<Self, InvalidProxy> {
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => ProxyScheme::Http,
            "https" => ProxyScheme::Https,
            "socks5" => ProxyScheme::Socks5,
            "socks5h" => ProxyScheme::Socks5h,
            _ => return Err(InvalidProxy::new(Reason::Scheme)),
        };
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        let proxy = Self {
            scheme,
            endpoint: endpoint(scheme, host)?,
            credentials: None,
            bypass: Bypass::default(),
        };
        match userinfo.map(|userinfo| userinfo.split_once(':').unwrap_or((userinfo, ""))) {
            None | Some(("", "")) => Ok(proxy),
            Some((user, password)) => proxy.with_credentials(percent_decode(user), percent_decode(password)),
        }
    }

    /// Sets user name and password, which replace those of the URL.
    ///
    /// # Errors
    ///
    /// They cannot be sent: for HTTP (RFC 7617 §2) a user name with a colon, or control characters; for SOCKS5 (RFC
    /// 1929 §2) an empty user name, or more than 255 bytes.
    pub fn credentials(self, user: &str, password: &str) -> Result<Self, InvalidProxy> {
        self.with_credentials(user.into(), password.into())
    }

    /// Sets the hosts that are connected to directly, in the syntax of `NO_PROXY`: a list that is separated by commas
    /// or white space, with these entries:
    ///
    /// | entry | matches |
    /// |---|---|
    /// | `example.com`, `.example.com` | this host and its subdomains |
    /// | `192.0.2.1`, `2001:db8::1` | this address, if the URL contains it |
    /// | `10.0.0.0/8`, `fd00::/8` | the addresses of this network (CIDR) |
    /// | `example.com:8080`, `[::1]:80` | only this port of the host |
    /// | `*` | every host |
    ///
    /// Host names are not resolved for the comparison. Other entries match nothing.
    #[must_use]
    pub fn bypass(mut self, hosts: &str) -> Self {
        self.bypass = Bypass::parse(hosts);
        self
    }

    fn with_credentials(mut self, user: Vec<u8>, password: Vec<u8>) -> Result<Self, InvalidProxy> {
        let parts = [&user, &password];
        let is_valid = match self.scheme {
            ProxyScheme::Http | ProxyScheme::Https => {
                !user.contains(&b':') && !parts.iter().any(|part| part.iter().any(u8::is_ascii_control))
            }
            ProxyScheme::Socks5 | ProxyScheme::Socks5h => {
                !user.is_empty() && parts.iter().all(|part| part.len() <= SOCKS_CREDENTIAL_LEN_MAX)
            }
        };
        if !is_valid {
            return Err(InvalidProxy::new(Reason::Credentials));
        }
        self.credentials = Some(Credentials { user, password });
        Ok(self)
    }

    /// Whether connections to this URI do not use the proxy: see [`bypass`](Self::bypass).
    #[must_use]
    pub fn is_bypassed(&self, uri: &Uri) -> bool {
        self.bypass.matches(uri)
    }
}

/// Parses host and port. Adds the default port.
fn endpoint(scheme: ProxyScheme, host: &str) -> Result<Uri, InvalidProxy> {
    let bad = |error: UriError| InvalidProxy::new(Reason::Host(error));
    let host = ascii_host(host).map_err(bad)?;
    let host = host.strip_suffix(':').unwrap_or(&host);
    let has_port = host.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let default = match scheme {
        ProxyScheme::Https => 443,
        _ => DEFAULT_PORT,
    };
    let uri = match has_port {
        true => format!("ws://{host}/"),
        false => format!("ws://{host}:{default}/"),
    };
    Uri::parse(&uri).map_err(bad)
}

impl FromStr for Proxy {
    type Err = InvalidProxy;

    fn from_str(url: &str) -> Result<Self, InvalidProxy> {
        Self::parse(url)
    }
}

impl TryFrom<&str> for Proxy {
    type Error = InvalidProxy;

    fn try_from(url: &str) -> Result<Self, InvalidProxy> {
        Self::parse(url)
    }
}

impl TryFrom<String> for Proxy {
    type Error = InvalidProxy;

    fn try_from(url: String) -> Result<Self, InvalidProxy> {
        Self::parse(&url)
    }
}

/// Writes the URL without user name and password, with the port.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            self.scheme.as_str(),
            crate::client::dial::target(&self.endpoint)
        )
    }
}

/// Omits user name and password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("url", &format_args!("{self}"))
            .field("has_credentials", &self.credentials.is_some())
            .field("bypass", &self.bypass)
            .finish()
    }
}

impl Credentials {
    /// The value of the Proxy-Authorization header (RFC 7617 §2).
    fn basic(&self) -> String {
        format!(
            "Basic {}",
            STANDARD.encode([&self.user[..], b":", &self.password].concat())
        )
    }
}

impl From<InvalidProxy> for Error {
    fn from(invalid: InvalidProxy) -> Self {
        Self::invalid_input(invalid)
    }
}

/// The URL of a proxy is invalid. `Display` says why, and shows neither user name nor password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidProxy {
    /// The environment variable with the URL.
    variable: Option<&'static str>,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    Scheme,
    Host(UriError),
    Credentials,
}

impl InvalidProxy {
    const fn new(reason: Reason) -> Self {
        Self { variable: None, reason }
    }

    const fn in_variable(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }
}

impl fmt::Display for InvalidProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the URL of the proxy")?;
        if let Some(variable) = self.variable {
            write!(f, " in the environment variable {variable}")?;
        }
        match &self.reason {
            Reason::Scheme => f.write_str(" has an unsupported scheme; use http, https, socks5 or socks5h"),
            Reason::Host(error) => write!(f, " is invalid: {error}"),
            Reason::Credentials => f.write_str(" has a user name or password that cannot be sent to it"),
        }
    }
}

impl std::error::Error for InvalidProxy {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_as_curl_does() {
        for (url, shown) in [
            ("http://p.example:3128", "http://p.example:3128"),
            ("http://p.example:80/", "http://p.example:80"),
            ("p.example:3128", "http://p.example:3128"),
            (" p.example \n", "http://p.example:1080"),
            ("p.example:", "http://p.example:1080"),
            ("HTTPS://P.example", "https://p.example:443"),
            ("socks5://127.0.0.1", "socks5://127.0.0.1:1080"),
            ("socks5h://[::1]:9050/x?y#z", "socks5h://[::1]:9050"),
            ("http://[::1]", "http://[::1]:1080"),
            ("http://[fe80::1%eth0]:1", "http://[fe80::1%eth0]:1"),
            ("http://b\u{fc}cher.example", "http://xn--bcher-kva.example:1080"),
            ("http://@p.example", "http://p.example:1080"),
        ] {
            let proxy = Proxy::parse(url).unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert!(proxy.credentials.is_none(), "{url}");
        }
    }

    #[test]
    fn invalid_urls_are_named_without_their_credentials() {
        for (url, shown) in [
            (
                "socks4://bob:secret@p",
                "has an unsupported scheme; use http, https, socks5 or socks5h",
            ),
            ("socks://p", "has an unsupported scheme"),
            ("", "is invalid: "),
            ("http://", "is invalid: "),
            ("http://bob:sec/ret@p", "is invalid: "),
            ("http://bob:secret@p:port", "is invalid: "),
            (
                "http://bo%3Ab:secret@p",
                "has a user name or password that cannot be sent",
            ),
            (
                "http://bob:sec%0Dret@p",
                "has a user name or password that cannot be sent",
            ),
            ("socks5://:secret@p", "has a user name or password that cannot be sent"),
        ] {
            let error = Proxy::parse(url).unwrap_err().to_string();
            assert!(error.contains(shown), "{url}: {error}");
            assert!(!error.contains("bob") && !error.contains("sec"), "{url}: {error}");
        }
        let long = "x".repeat(256);
        assert!(Proxy::parse(&format!("socks5://u:{long}@p")).is_err());
        assert!(Proxy::parse(&format!("http://u:{long}@p")).is_ok());
    }

    #[test]
    fn credentials_are_decoded_and_not_shown() {
        let proxy = Proxy::parse("http://bob:sec%40ret@p").unwrap();
        let credentials = proxy.credentials.as_ref().unwrap();
        assert_eq!(
            (&credentials.user[..], &credentials.password[..]),
            (&b"bob"[..], &b"sec@ret"[..])
        );
        assert_eq!(credentials.basic(), "Basic Ym9iOnNlY0ByZXQ=");
        let shown = format!("{proxy} {proxy:?} {:?}", choice::ProxyChoice::Fixed(proxy.clone()));
        assert!(!shown.contains("bob") && !shown.contains("sec"), "{shown}");
        let other = proxy.credentials("eve", "").unwrap();
        assert_eq!(other.credentials.unwrap().basic(), "Basic ZXZlOg==");
    }
}
