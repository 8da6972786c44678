//! A client's request as the application sees it, and the rules it had to pass.
//!
//! The rules are those of RFC 6455 §4.2.1, and of RFC 8441 §5 where WebSocket runs over HTTP/2 or
//! HTTP/3. They start from parsed headers; HTTP/1.1 syntax is the matter of `head`.

use alloc::borrow::ToOwned as _;
use alloc::string::String;

use super::headers::Single;
use super::uri::absolute;
use super::{
    Authority, Extension, HandshakeError, HeaderValue, Headers, HttpVersion, Key, Subprotocol, extension, name,
    subprotocol,
};

/// How a WebSocket rides on HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpBinding {
    /// HTTP/1.1: a GET with Upgrade, answered by 101 (RFC 6455).
    Upgrade,
    /// HTTP/2 or HTTP/3: a CONNECT with `:protocol`, answered by 200 (RFC 8441, RFC 9220).
    ExtendedConnect,
}

/// An HTTP/1.1 request that something else has parsed, such as hyper.
#[derive(Clone, Debug)]
pub struct UpgradeParts<'a> {
    /// The method, in its case.
    pub method: &'a str,
    /// The request target as received.
    pub target: &'a str,
    /// The version of HTTP.
    pub version: HttpVersion,
    /// All headers.
    pub headers: Headers,
}

/// An extended CONNECT of HTTP/2 or HTTP/3: its pseudo-headers and headers.
#[derive(Clone, Debug)]
pub struct ConnectParts<'a> {
    /// `:protocol`.
    pub protocol: &'a str,
    /// `:scheme`.
    pub scheme: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// `:path`.
    pub path: &'a str,
    /// All other headers.
    pub headers: Headers,
}

/// A valid request to open a WebSocket.
#[derive(Clone, Debug)]
pub struct Request {
    binding: HttpBinding,
    target: String,
    /// Path and query, where they are not the target itself.
    resource: Option<String>,
    authority: Authority,
    headers: Headers,
}

impl Request {
    /// The request target as received: path and query, or an absolute URI.
    ///
    /// It may hold a token in its query; think before writing it to a log.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Path and query of the target. Begins with a slash.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.resource.as_deref().unwrap_or(&self.target)
    }

    /// The path of the target, as received: still percent-encoded.
    #[must_use]
    pub fn path(&self) -> &str {
        let resource = self.resource();
        resource.split_once('?').map_or(resource, |(path, _)| path)
    }

    /// The query of the target, without the question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.resource().split_once('?').map(|(_, query)| query)
    }

    /// The host, and the port if it was written, that the client means to talk to.
    ///
    /// From an absolute target if there is one, else from Host (RFC 9112 §3.2.2).
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// All headers.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The Origin header: present when a browser sent the request. Judged by
    /// [`OriginPolicy`](super::OriginPolicy).
    // [6455-4.2.1-9]
    #[must_use]
    pub fn origin(&self) -> Option<HeaderValue<'_>> {
        self.headers.get(name::ORIGIN)
    }

    /// The subprotocols offered, in the client's order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        subprotocol::offered(&self.headers)
    }

    /// The first of the server's subprotocols, in its order, that the client offered.
    pub fn choose_subprotocol<S: AsRef<str>>(&self, supported: impl IntoIterator<Item = S>) -> Option<Subprotocol> {
        let mut supported = supported.into_iter();
        let chosen = supported.find(|one| self.offers_subprotocol(one.as_ref()))?;
        Subprotocol::new(chosen.as_ref()).ok()
    }

    /// The extensions offered, in the client's order of preference.
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'_>> {
        extension::list(&self.headers)
    }

    /// How the request came.
    #[must_use]
    pub const fn binding(&self) -> HttpBinding {
        self.binding
    }

    pub(super) fn offers_subprotocol(&self, name: &str) -> bool {
        self.subprotocols().any(|offered| offered == name)
    }
}

/// Checks an HTTP/1.1 request (RFC 6455 §4.2.1) and takes its key out.
///
/// The order of the checks decides which of several faults is answered: first what is no HTTP, then
/// what is no WebSocket, then the version, because older versions have other keys.
// [6455-4.2.1-1, 6455-4.2.1-12, 6455-10.7-1]
pub(super) fn check_upgrade(parts: UpgradeParts<'_>) -> Result<(Request, Key), HandshakeError> {
    let UpgradeParts {
        method,
        target,
        version,
        headers,
    } = parts;
    // RFC 6455 §4.2.1 (1). [6455-4.2.1-2]
    version.check_upgrade()?;
    if method != "GET" {
        return Err(HandshakeError::MethodNotGet);
    }
    let target_parts = TargetParts::parse(target)?;
    // RFC 6455 §4.2.1 (2). [6455-4.2.1-4]
    let host = parse_host(&headers)?;
    check_no_body(&headers)?;
    // RFC 6455 §4.2.1 (3). [6455-4.2.1-5]
    if !headers.contains_token(name::UPGRADE, "websocket") {
        return Err(HandshakeError::UpgradeMissing);
    }
    // RFC 6455 §4.2.1 (4). [6455-4.2.1-6]
    if !headers.contains_token(name::CONNECTION, "upgrade") {
        return Err(HandshakeError::ConnectionMissing);
    }
    check_version(&headers)?;
    // RFC 6455 §4.2.1 (5), §11.3.1: once, and 16 bytes. [6455-4.2.1-7, 6455-11.3.1-1]
    let key = match headers.single(name::KEY) {
        Single::Absent => return Err(HandshakeError::KeyMissing),
        Single::Repeated => return Err(HandshakeError::KeyRepeated),
        Single::One(value) => Key::parse(value).ok_or(HandshakeError::KeyInvalid)?,
    };
    check_negotiation(&headers)?;
    let request = Request {
        binding: HttpBinding::Upgrade,
        target: target.to_owned(),
        resource: target_parts.resource,
        // RFC 9112 §3.2.2: the host of an absolute target replaces the Host header.
        authority: target_parts.authority.unwrap_or(host),
        headers,
    };
    Ok((request, key))
}

/// Checks an extended CONNECT (RFC 8441 §4 and §5).
pub(super) fn check_connect(parts: ConnectParts<'_>) -> Result<Request, HandshakeError> {
    if parts.protocol != "websocket" {
        return Err(HandshakeError::ProtocolUnknown);
    }
    // RFC 8441 §5: the scheme is http for ws and https for wss.
    if !matches!(parts.scheme, "http" | "https") {
        return Err(HandshakeError::InvalidTarget);
    }
    let TargetParts::ORIGIN_FORM = TargetParts::parse(parts.path)? else {
        return Err(HandshakeError::InvalidTarget);
    };
    let authority = Authority::parse(parts.authority).map_err(|_| HandshakeError::HostInvalid)?;
    let headers = parts.headers;
    // RFC 8441 §5: these are not used; RFC 9113 §8.2.2: Connection and Upgrade are malformed.
    let unused = [name::CONNECTION, name::UPGRADE, name::KEY, name::ACCEPT];
    if unused.iter().any(|name| headers.contains(name)) {
        return Err(HandshakeError::HopByHopHeader);
    }
    check_version(&headers)?;
    check_negotiation(&headers)?;
    Ok(Request {
        binding: HttpBinding::ExtendedConnect,
        target: parts.path.to_owned(),
        resource: None,
        authority,
        headers,
    })
}

/// An HTTP request that does not ask for a WebSocket, such as a health check.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlainRequest {
    /// The method, in its case.
    pub method: String,
    /// The request target as received.
    pub target: String,
    /// The version of HTTP: 1.0 or 1.1.
    pub version: HttpVersion,
    /// All headers. Whatever body they announce has not been read.
    pub headers: Headers,
}

/// A request that is valid HTTP/1.x and does not ask for a WebSocket.
pub(super) fn check_plain(parts: UpgradeParts<'_>) -> Option<PlainRequest> {
    let UpgradeParts {
        method,
        target,
        version,
        headers,
    } = parts;
    let has_host = version == HttpVersion::HTTP_10 && !headers.contains(name::HOST) || parse_host(&headers).is_ok();
    let is_http_1 = matches!(version, HttpVersion::HTTP_10 | HttpVersion::HTTP_11);
    if !is_http_1 || !has_host || headers.contains_token(name::UPGRADE, "websocket") {
        return None;
    }
    TargetParts::parse(target).ok()?;
    Some(PlainRequest {
        method: method.to_owned(),
        target: target.to_owned(),
        version,
        headers,
    })
}

/// RFC 6455 §4.2.1 (6), §4.4: exactly one version, and 13 it is. No drafts.
// [6455-4.2.1-8, 6455-4.3-2, 6455-11.3.5-1]
fn check_version(headers: &Headers) -> Result<(), HandshakeError> {
    match headers.single(name::VERSION) {
        Single::One(b"13") => Ok(()),
        _ => Err(HandshakeError::VersionUnsupported),
    }
}

/// What both bindings negotiate: subprotocols, extensions, and the origin's being one.
fn check_negotiation(headers: &Headers) -> Result<(), HandshakeError> {
    subprotocol::check_offer(headers)?;
    extension::check(headers)?;
    // Two origins mean that someone on the way added one; which one a check sees would be chance.
    match headers.single(name::ORIGIN) {
        Single::Repeated => Err(HandshakeError::OriginRepeated),
        Single::Absent | Single::One(_) => Ok(()),
    }
}

/// RFC 9112 §3.2: exactly one Host, and a valid one, even beside an absolute target.
fn parse_host(headers: &Headers) -> Result<Authority, HandshakeError> {
    let value = match headers.single(name::HOST) {
        Single::Absent => return Err(HandshakeError::HostMissing),
        Single::Repeated => return Err(HandshakeError::HostRepeated),
        Single::One(value) => value,
    };
    let text = core::str::from_utf8(value).map_err(|_| HandshakeError::HostInvalid)?;
    Authority::parse(text).map_err(|_| HandshakeError::HostInvalid)
}

/// A body would lie where the frames begin, and proxies would disagree about where it ends
/// (RFC 9112 §11.2). So none is allowed but the one announced, once, to be empty.
fn check_no_body(headers: &Headers) -> Result<(), HandshakeError> {
    if headers.contains(name::TRANSFER_ENCODING) {
        return Err(HandshakeError::RequestHasBody);
    }
    match headers.single(name::CONTENT_LENGTH) {
        Single::Absent | Single::One(b"0") => Ok(()),
        _ => Err(HandshakeError::RequestHasBody),
    }
}

/// What a target says.
#[derive(PartialEq, Eq)]
struct TargetParts {
    /// Of an absolute URI.
    authority: Option<Authority>,
    /// Path and query, if they are not the whole target.
    resource: Option<String>,
}

impl TargetParts {
    /// A target that is path and query and nothing else.
    const ORIGIN_FORM: Self = Self {
        authority: None,
        resource: None,
    };

    /// RFC 9112 §3.2: origin-form, or absolute-form, which a server MUST accept.
    ///
    /// Any visible ASCII is taken but the `#`: browsers leave some characters unencoded that
    /// RFC 3986 would not, and it is the application that gives them a meaning.
    // [6455-4.2.1-3]
    fn parse(target: &str) -> Result<Self, HandshakeError> {
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(HandshakeError::InvalidTarget);
        }
        if target.starts_with('/') {
            return Ok(Self::ORIGIN_FORM);
        }
        let (scheme, rest) = target.split_once("://").ok_or(HandshakeError::InvalidTarget)?;
        if !name::is_in(&["ws", "wss", "http", "https"], scheme) {
            return Err(HandshakeError::InvalidTarget);
        }
        let (authority, resource) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let authority = Authority::parse(authority).map_err(|_| HandshakeError::InvalidTarget)?;
        Ok(Self {
            authority: Some(authority),
            resource: Some(absolute(resource)),
        })
    }
}
