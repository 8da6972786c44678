use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

use super::{HandshakeBuildError, HandshakeError, Headers, HttpBinding, StatusCode, name};

/// An HTTP response to an opening handshake: one a server is to send, or one a client received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
    pub(super) is_body_truncated: bool,
}

impl Response {
    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// All headers, in order.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The body; empty where there is none.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the body received goes on: past the limit, past the end of the connection, or in a
    /// framing that could not be understood.
    #[must_use]
    pub const fn is_body_truncated(&self) -> bool {
        self.is_body_truncated
    }

    /// The response as HTTP/1.1 has it on the wire.
    ///
    /// Everything in it was checked when it was put in, so this cannot fail.
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

    /// The response to a faulty request: its status, what the status demands, and a line of text.
    pub(super) fn to_fault(fault: &HandshakeError, binding: HttpBinding) -> Self {
        let mut response = Self::new(fault.status());
        response.body = format!("{}\n", fault.text_for_client()).into_bytes();
        response.frame_refusal(binding);
        let headers = &mut response.headers;
        headers.push(name::CONTENT_TYPE, "text/plain; charset=utf-8");
        // RFC 9110 §10.2.1: a 405 says what is allowed.
        if response.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.push(name::ALLOW, "GET");
        }
        response
    }

    /// Adds the headers of a final response that opens nothing: its length, and for HTTP/1.1 that
    /// nothing follows, for what the client sent after its head was never meant to be a request.
    fn frame_refusal(&mut self, binding: HttpBinding) {
        let is_upgrade_required = self.status == StatusCode::UPGRADE_REQUIRED;
        match (binding, is_upgrade_required) {
            (HttpBinding::Upgrade, false) => self.headers.push(name::CONNECTION, "close"),
            // RFC 9110 §15.5.22: a 426 has an Upgrade header; §7.8: who sends that header lists
            // it in Connection.
            (HttpBinding::Upgrade, true) => {
                self.headers.push(name::CONNECTION, "close, Upgrade");
                self.headers.push(name::UPGRADE, "websocket");
            }
            (HttpBinding::ExtendedConnect, _) => {}
        }
        // RFC 6455 §4.4: tell the client which version would do. [6455-4.2.2-5, 6455-4.4-1]
        if is_upgrade_required && !self.headers.contains(name::VERSION) {
            self.headers.push(name::VERSION, "13");
        }
        let body_len = self.body.len().to_string();
        self.headers.push(name::CONTENT_LENGTH, &body_len);
    }
}

/// How an application turns a request down: a status, headers and a body.
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
    /// A rejection with this status and no body.
    ///
    /// # Errors
    /// [`HandshakeBuildError::StatusNotRejection`] unless the status is 300 to 599 and not 304: a 2xx
    /// would open the connection over HTTP/2, a 1xx is no answer, and a 304 has no body by rule.
    pub fn new(status: StatusCode) -> Result<Self, HandshakeBuildError> {
        match status.as_u16() {
            304 => Err(HandshakeBuildError::StatusNotRejection),
            300..=599 => Ok(Self {
                response: Response::new(status),
            }),
            _ => Err(HandshakeBuildError::StatusNotRejection),
        }
    }

    /// What a client gets when the application made a mistake: no word of it.
    pub(super) fn internal_error() -> Self {
        let response = Response::new(StatusCode::INTERNAL_SERVER_ERROR);
        Self { response }.body("internal server error\n")
    }

    /// Adds a header. Content-Length, Connection and the like are written for you.
    ///
    /// # Errors
    /// [`HandshakeBuildError`] if name or value cannot be sent, or the handshake owns the header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, HandshakeBuildError> {
        if name::is_in(&name::RESERVED, name) {
            return Err(HandshakeBuildError::ReservedHeader);
        }
        self.response.headers.try_append(name, value)?;
        Ok(self)
    }

    /// Sets the body. Without a Content-Type of its own it is sent as plain text.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.response.body = body.into();
        self
    }

    /// The response to send, for example to a connection that is turned away unheard (503).
    #[must_use]
    pub fn into_response(self, binding: HttpBinding) -> Response {
        let mut response = self.response;
        if !response.body.is_empty() && !response.headers.contains(name::CONTENT_TYPE) {
            let headers = &mut response.headers;
            headers.push(name::CONTENT_TYPE, "text/plain; charset=utf-8");
        }
        response.frame_refusal(binding);
        response
    }
}
