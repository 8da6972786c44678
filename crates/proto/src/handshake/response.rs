//! HTTP responses to the opening handshake (RFC 6455 §4.2.2).

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

use super::{HandshakeBuildError, HandshakeError, Headers, HttpBinding, StatusCode, header_name};

/// An HTTP response to an opening handshake, to be sent by a server or received by a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
    pub(super) is_body_truncated: bool,
}

impl Response {
    /// The status code.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// All headers, in order.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The body; empty if there is none.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the received body is incomplete: it exceeded the limit, the connection ended early, or its framing is
    /// invalid.
    #[must_use]
    pub const fn is_body_truncated(&self) -> bool {
        self.is_body_truncated
    }

    /// Encodes the response as HTTP/1.1. All parts were validated when they were added, so this cannot fail.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let status = self.status;
        let mut bytes = format!("HTTP/1.1 {status} {}\r\n", status.reason()).into_bytes();
        self.headers.write_lines(&mut bytes);
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    pub(super) const fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: Headers::new(),
            body: Vec::new(),
            is_body_truncated: false,
        }
    }

    /// Creates the response to an invalid request: status, required headers and a one-line message.
    pub(super) fn from_error(error: &HandshakeError, binding: HttpBinding) -> Self {
        let mut response = Self::new(error.status());
        response.body = format!("{}\n", error.client_message()).into_bytes();
        response.push_framing_headers(binding);
        let headers = &mut response.headers;
        headers.push(header_name::CONTENT_TYPE, "text/plain; charset=utf-8");
        // RFC 9110 §15.5.6: a 405 response must list the allowed methods.
        if response.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.push(header_name::ALLOW, "GET");
        }
        response
    }

    /// Adds the headers of a response that rejects the request: the length of the body and, for HTTP/1.1,
    /// `Connection: close`. The connection must be closed because bytes after the request head are not another request.
    fn push_framing_headers(&mut self, binding: HttpBinding) {
        let is_upgrade_required = self.status == StatusCode::UPGRADE_REQUIRED;
        match (binding, is_upgrade_required) {
            (HttpBinding::Upgrade, false) => self.headers.push(header_name::CONNECTION, "close"),
            // RFC 9110 §15.5.22: a 426 response must have an Upgrade header; §7.8: which must be listed in Connection.
            (HttpBinding::Upgrade, true) => {
                self.headers.push(header_name::CONNECTION, "close, Upgrade");
                self.headers.push(header_name::UPGRADE, "websocket");
            }
            (HttpBinding::ExtendedConnect, _) => {}
        }
        // RFC 6455 §4.4: tell the client which version is supported. [6455-4.2.2-5, 6455-4.4-1]
        if is_upgrade_required && !self.headers.contains(header_name::VERSION) {
            self.headers.push(header_name::VERSION, "13");
        }
        let body_len = self.body.len().to_string();
        self.headers.push(header_name::CONTENT_LENGTH, &body_len);
    }
}

/// Builder for the response with which an application rejects a request: status, headers and body.
///
/// ```
/// use sockeye_proto::handshake::{HttpBinding, Rejection, StatusCode};
///
/// let rejection = Rejection::new(StatusCode::UNAUTHORIZED)?
///     .header("WWW-Authenticate", "Bearer")?
///     .body("log in first\n");
/// let response = rejection.into_response(HttpBinding::Upgrade).to_bytes();
/// assert!(response.starts_with(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n"));
/// # Ok::<(), sockeye_proto::handshake::HandshakeBuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rejection {
    response: Response,
}

impl Rejection {
    /// Creates a rejection with this status and no body.
    ///
    /// # Errors
    ///
    /// [`HandshakeBuildError::InvalidRejectionStatus`] if the status is not 300 to 599 or is 304. A 2xx status would
    /// open the WebSocket over HTTP/2, 1xx is not a final response, and 304 cannot have a body.
    pub fn new(status: StatusCode) -> Result<Self, HandshakeBuildError> {
        match status.as_u16() {
            304 => Err(HandshakeBuildError::InvalidRejectionStatus),
            300..=599 => Ok(Self {
                response: Response::new(status),
            }),
            _ => Err(HandshakeBuildError::InvalidRejectionStatus),
        }
    }

    /// The response for an error of the application. Does not reveal the cause.
    pub(super) fn internal_error() -> Self {
        let response = Response::new(StatusCode::INTERNAL_SERVER_ERROR);
        Self { response }.body("internal server error\n")
    }

    /// Adds a header. Headers such as Content-Length and Connection are set automatically.
    ///
    /// # Errors
    ///
    /// - [`HandshakeBuildError::InvalidHeaderName`] or [`HandshakeBuildError::InvalidHeaderValue`].
    /// - [`HandshakeBuildError::ReservedHeader`] if the handshake sets the header itself.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, HandshakeBuildError> {
        if header_name::is_one_of(&header_name::RESERVED, name) {
            return Err(HandshakeBuildError::ReservedHeader);
        }
        self.response.headers.try_append(name, value)?;
        Ok(self)
    }

    /// Sets the body. The default Content-Type is `text/plain; charset=utf-8`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.response.body = body.into();
        self
    }

    /// Builds the response. [`Incoming::reject`](super::Incoming::reject) does this; call it directly to reject a
    /// connection without reading its request, for example with 503.
    #[must_use]
    pub fn into_response(self, binding: HttpBinding) -> Response {
        let mut response = self.response;
        if !response.body.is_empty() && !response.headers.contains(header_name::CONTENT_TYPE) {
            let headers = &mut response.headers;
            headers.push(header_name::CONTENT_TYPE, "text/plain; charset=utf-8");
        }
        response.push_framing_headers(binding);
        response
    }
}
