//! Validated handshake requests.
//!
//! Validates parsed requests according to RFC 6455 §4.2.1 and, for HTTP/2 and HTTP/3, RFC 8441 §5. Module `head` parses
//! HTTP/1.1.

use alloc::borrow::ToOwned as _;
use alloc::string::String;

use super::headers::Single;
use super::uri::absolute;
use super::{
    Authority, Extension, HandshakeError, HeaderValue, Headers, HttpVersion, Key, Subprotocol, extension, header_name,
    subprotocol,
};

/// The HTTP mechanism that opens the WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpBinding {
    /// HTTP/1.1: a GET with Upgrade, answered by 101 (RFC 6455).
    Upgrade,
    /// HTTP/2 or HTTP/3: a CONNECT with `:protocol`, answered by 200 (RFC 8441, RFC 9220).
    ExtendedConnect,
}

/// An HTTP/1.1 request that was parsed by another library, such as hyper.
#[derive(Clone, Debug)]
pub struct UpgradeParts<'a> {
    /// The method, case-sensitive.
    pub method: &'a str,
    /// The request target as received.
    pub target: &'a str,
    /// The HTTP version.
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
    /// Path and query, if they differ from `target`.
    resource: Option<String>,
    authority: Authority,
    headers: Headers,
}

impl Request {
    /// The request target as received: path and query, or an absolute URI.
    ///
    /// The query may contain credentials, so be careful when logging it.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The path and query of the target. Starts with a slash.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.resource.as_deref().unwrap_or(&self.target)
    }

    /// The path of the target, still percent-encoded.
    #[must_use]
    pub fn path(&self) -> &str {
        let resource = self.resource();
        resource.split_once('?').map_or(resource, |(path, _)| path)
    }

    /// The query of the target without the question mark, if any.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.resource().split_once('?').map(|(_, query)| query)
    }

    /// The requested host, and the port if the request contains one.
    ///
    /// Taken from an absolute target, otherwise from the Host header (RFC 9112 §3.2.2), or from `:authority`.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// All headers.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The Origin header, which browsers always send. Check it with [`OriginPolicy`](super::OriginPolicy).
    // [6455-4.2.1-9]
    #[must_use]
    pub fn origin(&self) -> Option<HeaderValue<'_>> {
        self.headers.get(header_name::ORIGIN)
    }

    /// The offered subprotocols, in the client's order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        subprotocol::offered(&self.headers)
    }

    /// Returns the first element of `supported`, in the server's order of preference, that the client offered.
    pub fn choose_subprotocol<S: AsRef<str>>(&self, supported: impl IntoIterator<Item = S>) -> Option<Subprotocol> {
        let mut supported = supported.into_iter();
        let chosen = supported.find(|one| self.offers_subprotocol(one.as_ref()))?;
        Subprotocol::new(chosen.as_ref()).ok()
    }

    /// The offered extensions, in the client's order of preference.
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'_>> {
        self.headers.extensions()
    }

    /// The HTTP mechanism of the request.
    #[must_use]
    pub const fn binding(&self) -> HttpBinding {
        self.binding
    }

    pub(super) fn offers_subprotocol(&self, name: &str) -> bool {
        self.subprotocols().any(|offered| offered == name)
    }
}

/// Validates an HTTP/1.1 request (RFC 6455 §4.2.1) and returns its key.
///
/// The order of the checks determines which of several errors is reported: first errors in HTTP, then missing WebSocket
/// headers, then the version, because older versions use different keys.
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
    if !headers.contains_token(header_name::UPGRADE, "websocket") {
        return Err(HandshakeError::UpgradeMissing);
    }
    // RFC 6455 §4.2.1 (4). [6455-4.2.1-6]
    if !headers.contains_token(header_name::CONNECTION, "upgrade") {
        return Err(HandshakeError::ConnectionMissing);
    }
    check_version(&headers)?;
    // RFC 6455 §4.2.1 (5), §11.3.1: exactly once, and 16 bytes. [6455-4.2.1-7, 6455-11.3.1-1]
    let key = match headers.single(header_name::KEY) {
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

/// Validates an extended CONNECT (RFC 8441 §4 and §5).
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
    // RFC 8441 §5: these headers are not used; RFC 9113 §8.2.2: Connection and Upgrade make the request malformed.
    let unused = [
        header_name::CONNECTION,
        header_name::UPGRADE,
        header_name::KEY,
        header_name::ACCEPT,
    ];
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
    let has_host =
        version == HttpVersion::HTTP_10 && !headers.contains(header_name::HOST) || parse_host(&headers).is_ok();
    let is_http_1 = matches!(version, HttpVersion::HTTP_10 | HttpVersion::HTTP_11);
    if !is_http_1 || !has_host || headers.contains_token(header_name::UPGRADE, "websocket") {
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

/// RFC 6455 §4.2.1 (6), §4.4: exactly one Sec-WebSocket-Version header, with the value 13. Draft versions are not
/// supported.
// [6455-4.2.1-8, 6455-4.3-2, 6455-11.3.5-1]
fn check_version(headers: &Headers) -> Result<(), HandshakeError> {
    match headers.single(header_name::VERSION) {
        Single::One(b"13") => Ok(()),
        _ => Err(HandshakeError::VersionUnsupported),
    }
}

/// Checks the headers that both HTTP bindings have in common: subprotocols, extensions and Origin.
fn check_negotiation(headers: &Headers) -> Result<(), HandshakeError> {
    subprotocol::check_offer(headers)?;
    extension::check(headers)?;
    // With two Origin headers, one was added by an intermediary, and it is ambiguous which one to check.
    match headers.single(header_name::ORIGIN) {
        Single::Repeated => Err(HandshakeError::OriginRepeated),
        Single::Absent | Single::One(_) => Ok(()),
    }
}

/// RFC 9112 §3.2: exactly one valid Host header is required, even with an absolute target.
fn parse_host(headers: &Headers) -> Result<Authority, HandshakeError> {
    let value = match headers.single(header_name::HOST) {
        Single::Absent => return Err(HandshakeError::HostMissing),
        Single::Repeated => return Err(HandshakeError::HostRepeated),
        Single::One(value) => value,
    };
    let text = core::str::from_utf8(value).map_err(|_| HandshakeError::HostInvalid)?;
    Authority::parse(text).map_err(|_| HandshakeError::HostInvalid)
}

/// Rejects requests with a body. A body would precede the first frame, and intermediaries might disagree about its
/// length (request smuggling, RFC 9112 §11.2). A single `Content-Length: 0` is allowed.
fn check_no_body(headers: &Headers) -> Result<(), HandshakeError> {
    if headers.contains(header_name::TRANSFER_ENCODING) {
        return Err(HandshakeError::RequestHasBody);
    }
    match headers.single(header_name::CONTENT_LENGTH) {
        Single::Absent | Single::One(b"0") => Ok(()),
        _ => Err(HandshakeError::RequestHasBody),
    }
}

/// A parsed request target.
#[derive(PartialEq, Eq)]
struct TargetParts {
    /// The authority of an absolute URI.
    authority: Option<Authority>,
    /// Path and query, if they differ from the target.
    resource: Option<String>,
}

impl TargetParts {
    /// A target in origin-form: only path and query.
    const ORIGIN_FORM: Self = Self {
        authority: None,
        resource: None,
    };

    /// Parses origin-form and absolute-form, which a server must accept (RFC 9112 §3.2).
    ///
    /// Accepts all visible ASCII characters except `#`: browsers do not encode some characters that RFC 3986 excludes,
    /// and only the application interprets them.
    // [6455-4.2.1-3]
    fn parse(target: &str) -> Result<Self, HandshakeError> {
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(HandshakeError::InvalidTarget);
        }
        if target.starts_with('/') {
            return Ok(Self::ORIGIN_FORM);
        }
        let (scheme, rest) = target.split_once("://").ok_or(HandshakeError::InvalidTarget)?;
        if !header_name::is_one_of(&["ws", "wss", "http", "https"], scheme) {
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
