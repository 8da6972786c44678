//! The responses of a server: acceptances, rejections and plain HTTP responses.

use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use sockeye_proto::handshake::{self, HandshakeBuildError, Subprotocol};

use crate::convert::{InvalidPart, wire_name};

/// The response that accepts a WebSocket, for [`Incoming::accept_with`](crate::Incoming::accept_with): its subprotocol
/// and headers.
///
/// `accept_with` reports invalid parts.
#[derive(Clone, Default)]
pub struct Acceptance {
    subprotocol: Choice,
    headers: HeaderMap,
    invalid: Option<InvalidPart>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Choice {
    /// The first of the server's subprotocols that the client offered.
    #[default]
    Server,
    None,
    Name(String),
}

impl Acceptance {
    /// Creates an acceptance with the first of the server's [subprotocols](crate::ServerBuilder::subprotocols) that the
    /// client offered, if any, and no additional headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects a subprotocol. It must be one that the client offered.
    #[must_use]
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Choice::Name(name.into());
        self
    }

    /// Selects no subprotocol, even if the client offers a supported one. Browsers then fail the connection if they
    /// offered any.
    #[must_use]
    pub fn without_subprotocol(mut self) -> Self {
        self.subprotocol = Choice::None;
        self
    }

    /// Adds a header to the response, such as `Set-Cookie`, in addition to those of the same name.
    ///
    /// The handshake itself sets `Connection`, `Upgrade` and all headers that begin with `Sec-WebSocket-`.
    #[must_use]
    pub fn header(mut self, name: impl TryInto<HeaderName> + AsRef<[u8]>, value: impl TryInto<HeaderValue>) -> Self {
        // Before the name is consumed.
        let invalid_name = InvalidPart::header_name(name.as_ref());
        let reason = match (name.try_into(), value.try_into()) {
            (Err(_), _) => invalid_name,
            (Ok(name), Ok(value)) if self.headers.try_append(&name, value.clone()).is_ok() => return self,
            (Ok(name), _) => InvalidPart::new(
                "header",
                Some(wire_name(&name)),
                HandshakeBuildError::InvalidHeaderValue,
            ),
        };
        self.invalid.get_or_insert(reason);
        self
    }

    /// Converts this into the type of `sockeye-proto`. `request` and `subprotocols` determine the default choice.
    pub(crate) fn into_proto(
        self,
        request: &handshake::Request,
        subprotocols: &[String],
    ) -> Result<handshake::Acceptance, InvalidPart> {
        if let Some(invalid) = self.invalid {
            return Err(invalid);
        }
        let mut acceptance = handshake::Acceptance::new();
        acceptance = match self.subprotocol {
            Choice::Server => acceptance.subprotocol(request.choose_subprotocol(subprotocols)),
            Choice::None => acceptance,
            Choice::Name(name) => {
                let invalid = |reason| InvalidPart::new("subprotocol", Some(name.clone()), reason);
                let subprotocol = Subprotocol::new(&name).map_err(invalid)?;
                if !request.subprotocols().any(|offered| offered == name) {
                    return Err(invalid(HandshakeBuildError::SubprotocolNotOffered));
                }
                acceptance.subprotocol(subprotocol)
            }
        };
        for (name, value) in &self.headers {
            let name = wire_name(name);
            let header = acceptance.header(&name, value.as_bytes());
            acceptance = header.map_err(|reason| InvalidPart::new("header", Some(name), reason))?;
        }
        Ok(acceptance)
    }
}

/// Hides the values of headers, which may be credentials.
impl fmt::Debug for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptance")
            .field("subprotocol", &self.subprotocol)
            .field(
                "headers",
                &self.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

/// The response that rejects a WebSocket, created from a [`StatusCode`], or from a [`Response`] with headers and a
/// body.
///
/// `Content-Length` and `Connection: close` are added; headers that contradict them, such as `Transfer-Encoding`, are
/// removed. A status that does not reject (below 300, 304, or above 599) is replaced by 500.
///
/// ```
/// use sockeye::Rejection;
/// use sockeye::http::{Response, StatusCode};
///
/// let rejection = Rejection::from(StatusCode::NOT_FOUND);
/// let response = Response::builder().status(401).header("www-authenticate", "Bearer").body("log in first\n");
/// let rejection = Rejection::from(response?);
/// # Ok::<(), sockeye::http::Error>(())
/// ```
#[derive(Debug)]
pub struct Rejection {
    response: Response<Bytes>,
}

impl From<StatusCode> for Rejection {
    fn from(status: StatusCode) -> Self {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        Self { response }
    }
}

impl<B: Into<Bytes>> From<Response<B>> for Rejection {
    fn from(response: Response<B>) -> Self {
        let response = response.map(Into::into);
        Self { response }
    }
}

impl Rejection {
    pub(crate) fn into_proto(self) -> handshake::Rejection {
        let status = handshake::StatusCode::new(self.response.status().as_u16());
        let Some(mut rejection) = status.and_then(|status| handshake::Rejection::new(status).ok()) else {
            return internal_error();
        };
        for (name, value) in self.response.headers() {
            if is_reserved(name) {
                continue;
            }
            match rejection.header(&wire_name(name), value.as_bytes()) {
                Ok(added) => rejection = added,
                Err(_) => return internal_error(),
            }
        }
        rejection.body(self.response.into_body())
    }
}

/// The response for an invalid acceptance. It does not reveal the mistake to the client.
pub(crate) fn internal_error() -> handshake::Rejection {
    let rejection = handshake::Rejection::new(handshake::StatusCode::INTERNAL_SERVER_ERROR);
    rejection.expect("500 is a rejection").body("internal server error\n")
}

/// The response of a server that cannot accept a connection now. Clients may try again after `retry_after` seconds.
#[cfg(feature = "hyper")]
pub(crate) fn unavailable(reason: &str, retry_after: Option<u64>) -> handshake::Rejection {
    let rejection = handshake::Rejection::new(handshake::StatusCode::SERVICE_UNAVAILABLE);
    let rejection = rejection.expect("503 is a rejection").body(format!("{reason}\n"));
    match retry_after {
        None => rejection,
        Some(seconds) => rejection
            .header("Retry-After", seconds.to_string())
            .expect("the name and the number are valid"),
    }
}

/// Headers that frame the response or belong to the handshake.
fn is_reserved(name: &HeaderName) -> bool {
    let framing = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    framing.contains(name) || name.as_str() == "keep-alive" || name.as_str().starts_with("sec-websocket-")
}

/// Encodes the response to a plain HTTP request. The connection is closed after it.
pub(crate) fn plain_bytes(method: &Method, response: &Response<Bytes>) -> Vec<u8> {
    let status = match response.status() {
        // The client would wait for a final response after an interim one.
        status if status.is_informational() => StatusCode::INTERNAL_SERVER_ERROR,
        status => status,
    };
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers().iter().filter(|(name, _)| !is_reserved(name)) {
        bytes.extend_from_slice(wire_name(name).as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    // RFC 9110 §8.6, §15.3.5, §15.4.5: these have no body.
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if has_body {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", response.body().len()).as_bytes());
    }
    bytes.extend_from_slice(b"Connection: close\r\n\r\n");
    // RFC 9110 §9.3.2: a response to HEAD has the Content-Length of the body, but no body.
    if has_body && *method != Method::HEAD {
        bytes.extend_from_slice(response.body());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(method: Method, response: http::Result<Response<&'static str>>) -> String {
        String::from_utf8(plain_bytes(&method, &response.unwrap().map(Bytes::from))).unwrap()
    }

    #[test]
    fn plain_response_has_content_length_as_its_only_framing() {
        let response = || {
            Response::builder()
                .header("content-length", "7")
                .header("transfer-encoding", "chunked")
                .header("connection", "keep-alive")
                .header("x-id", "1")
                .body("ok\n")
        };
        let head = "HTTP/1.1 200 OK\r\nX-Id: 1\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
        assert_eq!(bytes_of(Method::GET, response()), format!("{head}ok\n"));
        assert_eq!(bytes_of(Method::HEAD, response()), head);
        let no_content = Response::builder().status(204).body("ignored");
        assert_eq!(
            bytes_of(Method::GET, no_content),
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
        );
        let interim = Response::builder().status(101).body("");
        assert!(bytes_of(Method::GET, interim).starts_with("HTTP/1.1 500 Internal Server Error\r\n"));
        let unknown = Response::builder().status(599).body("");
        assert!(bytes_of(Method::GET, unknown).starts_with("HTTP/1.1 599 \r\n"));
    }

    fn rejected(rejection: impl Into<Rejection>) -> String {
        let response = rejection
            .into()
            .into_proto()
            .into_response(handshake::HttpBinding::Upgrade);
        String::from_utf8(response.to_bytes()).unwrap()
    }

    #[test]
    fn rejection_with_non_rejecting_status_becomes_500() {
        for status in [100, 101, 200, 204, 304, 600, 999] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(rejected(status).starts_with("HTTP/1.1 500 "), "{status}");
        }
        for status in [300, 302, 401, 503, 599] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(
                rejected(status).starts_with(&format!("HTTP/1.1 {}", status.as_u16())),
                "{status}"
            );
        }
        let response = Response::builder()
            .status(403)
            .header("Transfer-Encoding", "chunked")
            .header("Sec-WebSocket-Accept", "x")
            .header("X-Id", "1")
            .body(String::from("no"))
            .unwrap();
        let response = rejected(response);
        assert!(
            !response.contains("chunked") && !response.contains("Sec-"),
            "{response}"
        );
        assert!(
            response.contains("X-Id: 1\r\n") && response.ends_with("\r\n\r\nno"),
            "{response}"
        );
    }
}
