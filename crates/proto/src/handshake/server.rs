//! The server's side: a head comes in, the application decides, a response goes out.
//!
//! Each state is consumed by what leads to the next, so a response cannot be made before the
//! request was seen, nor twice:
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
    PlainRequest, Rejection, Request, Response, StatusCode, Subprotocol, UpgradeParts, name,
};

/// A server waiting for a request over HTTP/1.1.
#[derive(Debug)]
pub struct ServerHandshake {
    head: HeadCollector,
    keeps_plain: bool,
}

/// What came of the bytes a server received.
#[derive(Debug)]
pub enum ServerStep {
    /// The head is not whole yet: go on with this.
    Incomplete(ServerHandshake),
    /// A valid request: look at it, then [`accept`](Incoming::accept) or
    /// [`reject`](Incoming::reject) it.
    Requested(Incoming),
    /// No valid request: send the response and close.
    Refused(InvalidRequest),
}

impl ServerHandshake {
    /// Starts with nothing received. Allocates nothing until bytes come.
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

    /// Takes bytes from the client, in pieces of any size.
    #[must_use]
    pub fn handle_bytes(mut self, input: &[u8]) -> ServerStep {
        let outcome = match self.head.handle_bytes(input) {
            Ok(None) => return ServerStep::Incomplete(self),
            Ok(Some(head_len)) => self.read(input.get(head_len..).unwrap_or_default()),
            Err(fault) => return ServerStep::Refused(self.refuse(fault)),
        };
        match outcome {
            Ok(incoming) => ServerStep::Requested(incoming),
            Err(fault) => {
                let mut refusal = self.refuse(fault);
                if self.keeps_plain {
                    refusal.plain = self.parts().ok().and_then(check_plain).map(Box::new);
                }
                ServerStep::Refused(refusal)
            }
        }
    }

    /// Ends the wait because the time for the whole handshake is over.
    ///
    /// `None` if the client sent nothing at all: then there is no request to answer, and the
    /// connection is only to be closed.
    #[must_use]
    pub fn handle_timeout(self) -> Option<InvalidRequest> {
        match self.head.is_empty() {
            true => None,
            false => Some(self.refuse(HandshakeError::TimedOut)),
        }
    }

    /// Bytes of memory held for what has arrived.
    #[must_use]
    pub fn buffered_len(&self) -> usize {
        self.head.bytes().len()
    }

    /// The parts of a head that is whole.
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

    fn refuse(&self, fault: HandshakeError) -> InvalidRequest {
        let mut refusal = InvalidRequest::new(fault, HttpBinding::Upgrade);
        // RFC 9110 §9.3.2: the answer to HEAD has the length of a body and no body.
        if self.head.split().0.starts_with(b"HEAD ") {
            refusal.response.body.clear();
        }
        refusal
    }
}

/// A valid request that waits for the application's word.
#[derive(Debug)]
pub struct Incoming {
    request: Request,
    /// None where HTTP/2 or HTTP/3 has no need of it.
    key: Option<Key>,
    read_buf: Vec<u8>,
}

impl Incoming {
    /// Checks an HTTP/1.1 request that something else has parsed, such as hyper.
    ///
    /// # Errors
    /// The refusal to send.
    pub fn from_upgrade(parts: UpgradeParts<'_>) -> Result<Self, InvalidRequest> {
        match check_upgrade(parts) {
            Ok((request, key)) => Ok(Self {
                request,
                key: Some(key),
                read_buf: Vec::new(),
            }),
            Err(fault) => Err(InvalidRequest::new(fault, HttpBinding::Upgrade)),
        }
    }

    /// Checks an extended CONNECT of HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220).
    ///
    /// # Errors
    /// The refusal to send. [`HandshakeError::HopByHopHeader`] makes the request malformed, which
    /// HTTP/2 and HTTP/3 rather answer with a stream error.
    pub fn from_extended_connect(parts: ConnectParts<'_>) -> Result<Self, InvalidRequest> {
        match check_connect(parts) {
            Ok(request) => Ok(Self {
                request,
                key: None,
                read_buf: Vec::new(),
            }),
            Err(fault) => Err(InvalidRequest::new(fault, HttpBinding::ExtendedConnect)),
        }
    }

    /// The request.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Opens the WebSocket: makes the 101, or the 200 of HTTP/2 and HTTP/3.
    ///
    /// # Errors
    /// If the acceptance chooses what the client did not offer. The error holds a 500 to send.
    pub fn accept(self, acceptance: Acceptance) -> Result<Accepted, AcceptError> {
        if let Err(misuse) = acceptance.check(&self.request) {
            let response = Rejection::internal_error().into_response(self.request.binding());
            return Err(AcceptError { misuse, response });
        }
        let mut response = match self.key {
            Some(_) => Response::new(StatusCode::SWITCHING_PROTOCOLS),
            None => Response::new(StatusCode::OK),
        };
        let headers = &mut response.headers;
        // RFC 6455 §4.2.2 (5). [6455-4.2.2-12, 6455-4.2.2-13, 6455-4.2.2-14]
        if let Some(key) = self.key {
            headers.push(name::UPGRADE, "websocket");
            headers.push(name::CONNECTION, "Upgrade");
            headers.push(name::ACCEPT, key.accept().as_str());
        }
        // RFC 6455 §4.2.2 (4), §11.3: nothing agreed on, no header; else one.
        // [6455-4.2.2-8, 6455-11.3.2-1, 6455-11.3.4-1]
        if let Some(subprotocol) = &acceptance.subprotocol {
            headers.push(name::PROTOCOL, subprotocol.as_str());
        }
        if let Some(extensions) = &acceptance.extensions {
            headers.push(name::EXTENSIONS, extensions);
        }
        headers.extend(&acceptance.headers);
        Ok(Accepted {
            response,
            request: self.request,
            subprotocol: acceptance.subprotocol,
            read_buf: self.read_buf,
        })
    }

    /// Turns the request down for a reason of the application: the response to send before closing.
    // [6455-4.2.2-3, 6455-4.2.2-6]
    #[must_use]
    pub fn reject(self, rejection: Rejection) -> Response {
        rejection.into_response(self.request.binding())
    }

    /// Turns the request down for a fault found in it later, such as its origin.
    #[must_use]
    pub fn refuse(self, fault: HandshakeError) -> InvalidRequest {
        InvalidRequest::new(fault, self.request.binding())
    }
}

/// What the server says yes to.
#[derive(Clone, Debug, Default)]
pub struct Acceptance {
    subprotocol: Option<Subprotocol>,
    extensions: Option<String>,
    headers: Headers,
}

impl Acceptance {
    /// Plain yes: no subprotocol, no extension, no further headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses a subprotocol, which must be among those offered; `None` chooses none.
    ///
    /// [`Request::choose_subprotocol`] finds one.
    #[must_use]
    pub fn subprotocol(mut self, subprotocol: impl Into<Option<Subprotocol>>) -> Self {
        self.subprotocol = subprotocol.into();
        self
    }

    /// Adds an extension, as the header has it: `name; param; param=value`.
    ///
    /// Its name must be among those offered. Whoever adds it also has to speak it: this says so to
    /// the client and does no more.
    ///
    /// # Errors
    /// [`HandshakeBuildError::InvalidExtension`] if the text is not of that form.
    pub fn extension(mut self, extension: &str) -> Result<Self, HandshakeBuildError> {
        append_extension(&mut self.extensions, extension)?;
        Ok(self)
    }

    /// Agrees to permessage-deflate (RFC 7692) if the request offers it in a form that `config` can take. What is agreed
    /// on is for [`Connection::enable_deflate`](crate::Connection::enable_deflate).
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(
        mut self,
        config: &crate::deflate::DeflateConfig,
        request: &Request,
    ) -> (Self, Option<crate::deflate::NegotiatedParams>) {
        let Some((extension, agreement)) = config.answer(request.extensions()) else {
            return (self, None);
        };
        let appended = append_extension(&mut self.extensions, &extension);
        (self, appended.is_ok().then_some(agreement))
    }

    /// Adds a header to the response, such as Set-Cookie.
    ///
    /// # Errors
    /// [`HandshakeBuildError`] if name or value cannot be sent, or the handshake owns the header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, HandshakeBuildError> {
        if name::is_in(&name::RESERVED, name) {
            return Err(HandshakeBuildError::ReservedHeader);
        }
        self.headers.try_append(name, value)?;
        Ok(self)
    }

    fn check(&self, request: &Request) -> Result<(), HandshakeBuildError> {
        // RFC 6455 §4.2.2 (5): only what was offered. [6455-4.2.2-7, 6455-4.2.2-9, 6455-4.2.2-10, 6455-9-1]
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

/// Adds an element to a list of extensions, once it is known to be one.
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

/// A WebSocket that is open once the response is sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// What to send: [`to_bytes`](Response::to_bytes) for HTTP/1.1, status and headers elsewhere.
    pub response: Response,
    /// The request accepted.
    pub request: Request,
    /// The subprotocol chosen.
    pub subprotocol: Option<Subprotocol>,
    /// Bytes that came right after the request's head: the first of the frames.
    pub read_buf: Vec<u8>,
}

/// A request that was no valid opening handshake, and what to answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InvalidRequest {
    /// What was wrong.
    pub fault: HandshakeError,
    /// What to send before closing. Bytes received after the head are to be thrown away: they were
    /// never frames, and reading them as another request is how requests get smuggled.
    pub response: Response,
    /// The request, if it is valid HTTP/1.x, does not ask for a WebSocket, and is
    /// [to be kept](ServerHandshake::keep_plain_requests).
    pub plain: Option<Box<PlainRequest>>,
}

impl InvalidRequest {
    fn new(fault: HandshakeError, binding: HttpBinding) -> Self {
        let response = Response::to_fault(&fault, binding);
        let plain = None;
        Self { fault, response, plain }
    }
}

/// An acceptance that does not fit its request: the application's mistake.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AcceptError {
    /// The mistake.
    pub misuse: HandshakeBuildError,
    /// A 500 for the client, which says nothing about it.
    pub response: Response,
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.misuse, f)
    }
}

impl Error for AcceptError {}
