//! The server side: receives a request, lets the application decide, and builds the response.
//!
//! Each transition consumes the previous state, so a request cannot be answered twice:
//!
//! ```compile_fail,E0382
//! use sockeye_proto::handshake::{Acceptance, Incoming, Rejection, StatusCode};
//!
//! fn answer_twice(incoming: Incoming) {
//!     let accepted = incoming.accept(Acceptance::new());
//!     let rejected = incoming.reject(Rejection::new(StatusCode::FORBIDDEN).unwrap());
//! }
//! ```

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;

use super::head::{HeadCollector, HeadKind, RequestLine};
use super::request::{check_connect, check_plain, check_upgrade};
use super::{
    ConnectParts, Extension, HandshakeBuildError, HandshakeError, HandshakeLimits, Headers, HttpBinding, Key,
    PlainRequest, Rejection, Request, Response, StatusCode, Subprotocol, UpgradeParts, header_name,
};

/// A server that awaits a request over HTTP/1.1.
#[derive(Debug)]
pub struct ServerHandshake {
    head: HeadCollector,
    keeps_plain: bool,
}

/// Result of [`ServerHandshake::handle_bytes`].
#[derive(Debug)]
pub enum ServerProgress {
    /// The request head is incomplete: continue with this state.
    Incomplete(ServerHandshake),
    /// A valid request. Inspect it, then [`accept`](Incoming::accept) or [`reject`](Incoming::reject) it.
    Incoming(Incoming),
    /// An invalid request. Send [`InvalidRequest::response`] and close the connection.
    Invalid(InvalidRequest),
}

impl ServerHandshake {
    /// Creates the state before anything is received. Allocates nothing until bytes arrive.
    #[must_use]
    pub const fn new(limits: HandshakeLimits) -> Self {
        Self {
            head: HeadCollector::new(HeadKind::Request, limits),
            keeps_plain: false,
        }
    }

    /// Keeps HTTP requests that do not ask for a WebSocket, to be answered otherwise: see [`InvalidRequest::plain`].
    #[must_use]
    pub const fn keep_plain_requests(mut self) -> Self {
        self.keeps_plain = true;
        self
    }

    /// Processes bytes from the client, in pieces of any size.
    #[must_use]
    pub fn handle_bytes(mut self, input: &[u8]) -> ServerProgress {
        let outcome = match self.head.handle_bytes(input) {
            Ok(None) => return ServerProgress::Incomplete(self),
            Ok(Some(head_len)) => self.read(input.get(head_len..).unwrap_or_default()),
            Err(error) => return ServerProgress::Invalid(self.invalid_request(error)),
        };
        match outcome {
            Ok(incoming) => ServerProgress::Incoming(incoming),
            Err(error) => {
                let mut invalid = self.invalid_request(error);
                if self.keeps_plain {
                    invalid.plain = self.parts().ok().and_then(check_plain).map(Box::new);
                }
                ServerProgress::Invalid(invalid)
            }
        }
    }

    /// Handles the expiry of the handshake deadline. Returns the 408 response to send before closing the connection.
    ///
    /// Returns `None` if the client sent nothing: there is no request to answer, so just close the connection.
    #[must_use]
    pub fn handle_timeout(self) -> Option<InvalidRequest> {
        match self.head.is_empty() {
            true => None,
            false => Some(self.invalid_request(HandshakeError::TimedOut)),
        }
    }

    /// Number of bytes buffered.
    #[must_use]
    pub fn buffered_len(&self) -> usize {
        self.head.bytes().len()
    }

    /// Parses a complete head.
    fn parts(&self) -> Result<UpgradeParts<'_>, HandshakeError> {
        let (line, _) = self.head.split();
        let RequestLine {
            method,
            target,
            version,
        } = RequestLine::parse(line)?;
        Ok(UpgradeParts {
            method,
            target,
            version,
            headers: self.head.headers()?,
        })
    }

    fn read(&self, read_buf: &[u8]) -> Result<Incoming, HandshakeError> {
        let (request, key) = check_upgrade(self.parts()?)?;
        Ok(Incoming {
            request,
            key: Some(key),
            read_buf: read_buf.to_vec(),
        })
    }

    fn invalid_request(&self, error: HandshakeError) -> InvalidRequest {
        let mut invalid = InvalidRequest::new(error, HttpBinding::Upgrade);
        // RFC 9110 §9.3.2: the response to HEAD has a Content-Length but no body.
        if self.head.split().0.starts_with(b"HEAD ") {
            invalid.response.body.clear();
        }
        invalid
    }
}

/// A valid request that the application has to accept or reject.
#[derive(Debug)]
pub struct Incoming {
    request: Request,
    /// `None` for HTTP/2 and HTTP/3, which do not use it.
    key: Option<Key>,
    read_buf: Vec<u8>,
}

impl Incoming {
    /// Validates an HTTP/1.1 request that was parsed by another library, such as hyper.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`] with the response to send if the request is not a valid opening handshake.
    pub fn from_upgrade(parts: UpgradeParts<'_>) -> Result<Self, InvalidRequest> {
        match check_upgrade(parts) {
            Ok((request, key)) => Ok(Self {
                request,
                key: Some(key),
                read_buf: Vec::new(),
            }),
            Err(error) => Err(InvalidRequest::new(error, HttpBinding::Upgrade)),
        }
    }

    /// Validates an extended CONNECT of HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220).
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`] with the response to send. If its error is [`HandshakeError::HopByHopHeader`], the request is
    /// malformed and should be answered with a stream error instead of a response.
    pub fn from_extended_connect(parts: ConnectParts<'_>) -> Result<Self, InvalidRequest> {
        match check_connect(parts) {
            Ok(request) => Ok(Self {
                request,
                key: None,
                read_buf: Vec::new(),
            }),
            Err(error) => Err(InvalidRequest::new(error, HttpBinding::ExtendedConnect)),
        }
    }

    /// Returns the request.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Accepts the request. Builds the 101 response, or the 200 response for HTTP/2 and HTTP/3.
    ///
    /// # Errors
    ///
    /// [`AcceptError`] if `acceptance` contains a subprotocol or an extension that the client did not offer. The error
    /// holds a 500 response to send.
    pub fn accept(self, acceptance: Acceptance) -> Result<Accepted, AcceptError> {
        if let Err(error) = acceptance.check(&self.request) {
            let response = Rejection::internal_error().into_response(self.request.binding());
            return Err(AcceptError { error, response });
        }
        let mut response = match self.key {
            Some(_) => Response::new(StatusCode::SWITCHING_PROTOCOLS),
            None => Response::new(StatusCode::OK),
        };
        let headers = &mut response.headers;
        // RFC 6455 §4.2.2 (5). [6455-4.2.2-12, 6455-4.2.2-13, 6455-4.2.2-14]
        if let Some(key) = self.key {
            headers.push(header_name::UPGRADE, "websocket");
            headers.push(header_name::CONNECTION, "Upgrade");
            headers.push(header_name::ACCEPT, key.accept().as_str());
        }
        // RFC 6455 §4.2.2 (4), §11.3: at most one header each, and none if nothing was negotiated.
        // [6455-4.2.2-8, 6455-11.3.2-1, 6455-11.3.4-1]
        if let Some(subprotocol) = &acceptance.subprotocol {
            headers.push(header_name::PROTOCOL, subprotocol.as_str());
        }
        if let Some(extensions) = &acceptance.extensions {
            headers.push(header_name::EXTENSIONS, extensions);
        }
        headers.extend(&acceptance.headers);
        Ok(Accepted {
            response,
            request: self.request,
            subprotocol: acceptance.subprotocol,
            read_buf: self.read_buf,
        })
    }

    /// Rejects the request. Returns the response to send before closing the connection.
    // [6455-4.2.2-3, 6455-4.2.2-6]
    #[must_use]
    pub fn reject(self, rejection: Rejection) -> Response {
        rejection.into_response(self.request.binding())
    }

    /// Rejects the request because of an error found later, such as one from
    /// [`OriginPolicy::check`](super::OriginPolicy::check).
    #[must_use]
    pub fn reject_with_error(self, error: HandshakeError) -> InvalidRequest {
        InvalidRequest::new(error, self.request.binding())
    }
}

/// Options for accepting a request: subprotocol, extensions and headers of the response.
#[derive(Clone, Debug, Default)]
pub struct Acceptance {
    subprotocol: Option<Subprotocol>,
    extensions: Option<String>,
    headers: Headers,
}

impl Acceptance {
    /// Accepts without subprotocol, extensions or additional headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the subprotocol. It must be one of those offered; [`Request::choose_subprotocol`] finds one. Default
    /// `None`.
    #[must_use]
    pub fn subprotocol(mut self, subprotocol: impl Into<Option<Subprotocol>>) -> Self {
        self.subprotocol = subprotocol.into();
        self
    }

    /// Adds an extension in header syntax: `name; param; param=value`.
    ///
    /// The client must have offered it, and the caller must implement it: this only adds it to the response.
    ///
    /// # Errors
    ///
    /// [`HandshakeBuildError::InvalidExtension`] if the text does not have this form.
    pub fn extension(mut self, extension: &str) -> Result<Self, HandshakeBuildError> {
        append_extension(&mut self.extensions, extension)?;
        Ok(self)
    }

    /// Accepts permessage-deflate (RFC 7692) if the request contains an offer that is compatible with `config`.
    ///
    /// Pass the returned parameters to [`Connection::enable_deflate`](crate::Connection::enable_deflate). `None` means
    /// that messages are not compressed.
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(
        mut self,
        config: &crate::deflate::DeflateConfig,
        request: &Request,
    ) -> (Self, Option<crate::deflate::NegotiatedParams>) {
        let Some((extension, params)) = config.answer(request.extensions()) else {
            return (self, None);
        };
        let appended = append_extension(&mut self.extensions, &extension);
        (self, appended.is_ok().then_some(params))
    }

    /// Adds a header to the response, such as Set-Cookie.
    ///
    /// # Errors
    ///
    /// - [`HandshakeBuildError::InvalidHeaderName`] or [`HandshakeBuildError::InvalidHeaderValue`].
    /// - [`HandshakeBuildError::ReservedHeader`] if the handshake sets the header itself.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, HandshakeBuildError> {
        if header_name::is_one_of(&header_name::RESERVED, name) {
            return Err(HandshakeBuildError::ReservedHeader);
        }
        self.headers.try_append(name, value)?;
        Ok(self)
    }

    fn check(&self, request: &Request) -> Result<(), HandshakeBuildError> {
        // RFC 6455 §4.2.2 (5): the server may only choose what was offered.
        // [6455-4.2.2-7, 6455-4.2.2-9, 6455-4.2.2-10, 6455-9-1]
        if let Some(subprotocol) = &self.subprotocol
            && !request.offers_subprotocol(subprotocol.as_str())
        {
            return Err(HandshakeBuildError::SubprotocolNotOffered);
        }
        let extensions = self.extensions.as_deref().unwrap_or_default();
        for chosen in extensions.split(", ").filter_map(Extension::parse) {
            if !request.extensions().any(|offer| offer.name() == chosen.name()) {
                return Err(HandshakeBuildError::ExtensionNotOffered);
            }
        }
        Ok(())
    }
}

/// Validates an extension and appends it to a list.
// [6455-4.2.2-11]
pub(super) fn append_extension(list: &mut Option<String>, extension: &str) -> Result<(), HandshakeBuildError> {
    Extension::parse(extension).ok_or(HandshakeBuildError::InvalidExtension)?;
    match list {
        Some(list) => {
            list.push_str(", ");
            list.push_str(extension);
        }
        None => *list = Some(extension.to_string()),
    }
    Ok(())
}

/// Result of accepting a request. The WebSocket is open once the response is sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// The response to send: [`to_bytes`](Response::to_bytes) for HTTP/1.1, status and headers for HTTP/2 and HTTP/3.
    pub response: Response,
    /// The accepted request.
    pub request: Request,
    /// The chosen subprotocol, if any.
    pub subprotocol: Option<Subprotocol>,
    /// Bytes received after the request head: the start of the first frames. Pass them to
    /// [`Connection::handle_bytes`](crate::Connection::handle_bytes) first.
    pub read_buf: Vec<u8>,
}

/// A request that is not a valid opening handshake, and the response to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InvalidRequest {
    /// The rule that the request violates.
    pub error: HandshakeError,
    /// The response to send before closing the connection.
    ///
    /// Discard bytes received after the head. Parsing them as another request would allow request smuggling.
    pub response: Response,
    /// The request, if it is valid HTTP/1.x, does not ask for a WebSocket, and is
    /// [to be kept](ServerHandshake::keep_plain_requests).
    pub plain: Option<Box<PlainRequest>>,
}

impl InvalidRequest {
    fn new(error: HandshakeError, binding: HttpBinding) -> Self {
        let response = Response::from_error(&error, binding);
        let plain = None;
        Self { error, response, plain }
    }
}

/// Error of the application: the [`Acceptance`] does not match the request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AcceptError {
    /// What does not match.
    pub error: HandshakeBuildError,
    /// A 500 response for the client, which does not reveal the cause.
    pub response: Response,
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl Error for AcceptError {}
