//! The client side: sends a request and validates the response.
//!
//! Each call consumes the state, so bytes cannot be passed to a handshake that is already complete:
//!
//! ```compile_fail,E0382
//! use sockeye_proto::handshake::AwaitingResponse;
//!
//! fn feed_twice(awaiting: AwaitingResponse) {
//!     let first = awaiting.handle_bytes(b"HTTP/1.1 ");
//!     let second = awaiting.handle_bytes(b"101");
//! }
//! ```

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::body::{BodyCollector, BodyEnd};
use super::head::{HeadCollector, HeadKind, StatusLine};
use super::headers::Single;
use super::server::append_extension;
use super::{
    HandshakeBuildError, HandshakeError, HandshakeLimits, HeaderValue, Headers, Key, Origin, Response, StatusCode,
    Subprotocol, Uri, extension, header_name,
};

/// Builder for a client's opening handshake request.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    uri: Uri,
    key: Key,
    origin: Option<Origin>,
    subprotocols: Vec<Subprotocol>,
    extensions: Option<String>,
    headers: Headers,
    limits: HandshakeLimits,
}

impl ClientRequest {
    /// Creates a request for `uri`. `key` must be 16 random bytes that are used for this request only.
    #[must_use]
    pub fn new(uri: &Uri, key: Key) -> Self {
        Self {
            uri: uri.clone(),
            key,
            origin: None,
            subprotocols: Vec::new(),
            extensions: None,
            headers: Headers::new(),
            limits: HandshakeLimits::default(),
        }
    }

    /// Adds a header, such as Authorization or Cookie.
    ///
    /// # Errors
    ///
    /// - [`HandshakeBuildError::InvalidHeaderName`] or [`HandshakeBuildError::InvalidHeaderValue`].
    /// - [`HandshakeBuildError::ReservedHeader`] if the handshake sets the header itself, such as Host or Upgrade.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, HandshakeBuildError> {
        let is_reserved = header_name::is_one_of(&header_name::RESERVED, name)
            || header_name::is_one_of(&header_name::RESERVED_IN_REQUEST, name);
        if is_reserved {
            return Err(HandshakeBuildError::ReservedHeader);
        }
        self.headers.try_append(name, value)?;
        Ok(self)
    }

    /// Offers a subprotocol. Offer them in order of preference, the preferred one first.
    ///
    /// # Errors
    ///
    /// - [`HandshakeBuildError::InvalidSubprotocol`] if it is not an HTTP token.
    /// - [`HandshakeBuildError::RepeatedSubprotocol`] if it was already offered.
    pub fn subprotocol(mut self, name: &str) -> Result<Self, HandshakeBuildError> {
        let subprotocol = Subprotocol::new(name)?;
        // RFC 6455 §4.1 (10): the values MUST be unique. [6455-4.1-27]
        if self.subprotocols.contains(&subprotocol) {
            return Err(HandshakeBuildError::RepeatedSubprotocol);
        }
        self.subprotocols.push(subprotocol);
        Ok(self)
    }

    /// Offers an extension in header syntax: `name; param; param=value`.
    ///
    /// The caller must implement the extension. The parameters chosen by the server are in the headers of
    /// [`Connected::response`].
    ///
    /// # Errors
    ///
    /// [`HandshakeBuildError::InvalidExtension`] if the text does not have this form.
    pub fn extension(mut self, extension: &str) -> Result<Self, HandshakeBuildError> {
        append_extension(&mut self.extensions, extension)?;
        Ok(self)
    }

    /// Sets the Origin header. Only browsers have to send it.
    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Sets the limits for the response. Default: [`HandshakeLimits::default`].
    #[must_use]
    pub const fn limits(mut self, limits: HandshakeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the encoded request and the state that awaits the response.
    #[must_use]
    pub fn start(self) -> (Vec<u8>, AwaitingResponse) {
        // Header order of RFC 6455 §4.1, with Host first as RFC 9110 §7.2 recommends.
        // [6455-4.1-15, 6455-4.1-17, 6455-4.1-18]
        let mut headers = Headers::new();
        headers.push(header_name::HOST, &self.uri.authority().to_string());
        // [6455-4.1-19, 6455-4.1-20, 6455-4.1-21]
        headers.push(header_name::UPGRADE, "websocket");
        headers.push(header_name::CONNECTION, "Upgrade");
        headers.push(header_name::KEY, &self.key.to_string());
        self.push_negotiation(&mut headers);

        // [6455-4.1-16]
        let mut bytes = format!("GET {} HTTP/1.1\r\n", self.uri.resource()).into_bytes();
        headers.write_lines(&mut bytes);
        bytes.extend_from_slice(b"\r\n");
        let head = HeadCollector::new(HeadKind::Response, self.limits);
        let awaiting = AwaitingResponse {
            offer: self.into_offer(),
            informational_count: 0,
            state: State::Head(head),
        };
        (bytes, awaiting)
    }

    /// Returns the headers for an extended CONNECT and the state that awaits the response.
    ///
    /// The HTTP/2 or HTTP/3 client must set the pseudo-headers of RFC 8441 §5: `:protocol` to `websocket`, `:scheme` to
    /// `http` or `https`, `:authority` to [`Uri::authority`], and `:path` to [`Uri::resource`].
    #[must_use]
    pub fn start_extended_connect(self) -> (Headers, AwaitingConnect) {
        let mut headers = Headers::new();
        self.push_negotiation(&mut headers);
        (
            headers,
            AwaitingConnect {
                offer: self.into_offer(),
            },
        )
    }

    /// Appends the headers that both HTTP bindings have in common.
    fn push_negotiation(&self, headers: &mut Headers) {
        if let Some(origin) = &self.origin {
            // [6455-4.1-24]
            headers.push(header_name::ORIGIN, &origin.to_string());
        }
        // [6455-4.1-25, 6455-11.3.5-1]
        headers.push(header_name::VERSION, "13");
        if !self.subprotocols.is_empty() {
            let names: Vec<_> = self.subprotocols.iter().map(Subprotocol::as_str).collect();
            headers.push(header_name::PROTOCOL, &names.join(", "));
        }
        if let Some(extensions) = &self.extensions {
            headers.push(header_name::EXTENSIONS, extensions);
        }
        headers.extend(&self.headers);
    }

    fn into_offer(self) -> Offer {
        let mut offered = Headers::new();
        if let Some(extensions) = &self.extensions {
            offered.push(header_name::EXTENSIONS, extensions);
        }
        Offer {
            key: self.key,
            subprotocols: self.subprotocols,
            extensions: offered,
        }
    }
}

/// A client that awaits the response over HTTP/1.1.
// [6455-4.1-28]
#[derive(Debug)]
pub struct AwaitingResponse {
    offer: Offer,
    informational_count: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A head is arriving.
    Head(HeadCollector),
    /// The final response rejects the request, and its body is arriving.
    Body(Response, BodyCollector),
}

/// Result of [`AwaitingResponse::handle_bytes`].
#[derive(Debug)]
pub enum ClientProgress {
    /// The response is incomplete: continue with this state.
    Incomplete(AwaitingResponse),
    /// The handshake succeeded and the WebSocket is open.
    Connected(Connected),
    /// The server answered with a status other than 101. Redirects and authentication challenges are not followed; see
    /// the response headers (Location, WWW-Authenticate, Retry-After). Close the connection.
    Rejected(Response),
    /// The response is invalid. Close the connection.
    Failed(HandshakeError),
}

/// Result of a successful client handshake.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected {
    /// The response with all its headers. The body is empty.
    pub response: Response,
    /// The subprotocol that the server chose from those offered, if any.
    pub subprotocol: Option<Subprotocol>,
    /// Bytes received after the response head: the start of the first frames. Pass them to
    /// [`Connection::handle_bytes`](crate::Connection::handle_bytes) first.
    pub read_buf: Vec<u8>,
}

impl AwaitingResponse {
    /// Processes bytes from the server, in pieces of any size.
    #[must_use]
    pub fn handle_bytes(mut self, mut input: &[u8]) -> ClientProgress {
        loop {
            match self.state {
                State::Head(mut head) => {
                    let head_len = match head.handle_bytes(input) {
                        Ok(Some(head_len)) => head_len,
                        Ok(None) => {
                            self.state = State::Head(head);
                            return ClientProgress::Incomplete(self);
                        }
                        Err(error) => return ClientProgress::Failed(error),
                    };
                    input = input.get(head_len..).unwrap_or_default();
                    match self.offer.read(head, &mut self.informational_count) {
                        Ok(AfterHead::Connected(response, subprotocol)) => {
                            return ClientProgress::Connected(Connected {
                                response,
                                subprotocol,
                                read_buf: input.to_vec(),
                            });
                        }
                        Ok(AfterHead::Next(state)) => self.state = state,
                        Err(error) => return ClientProgress::Failed(error),
                    }
                }
                State::Body(response, mut body) => match body.handle_bytes(input) {
                    Some(end) => return ClientProgress::Rejected(finish(response, body, end)),
                    None => {
                        self.state = State::Body(response, body);
                        return ClientProgress::Incomplete(self);
                    }
                },
            }
        }
    }

    /// Whether the server rejected the request and only the response body is still arriving.
    ///
    /// A body without a declared length ends when the server closes the connection, which it may never do. Once this
    /// returns `true`, wait only briefly, for example 1 s, and then call [`handle_timeout`](Self::handle_timeout),
    /// which returns the response with the body received so far.
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        matches!(self.state, State::Body(..))
    }

    /// Handles the end of the connection, which also ends a body without a declared length. Returns the rejecting
    /// response.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::ClosedEarly`] if the response head was incomplete.
    pub fn handle_eof(self) -> Result<Response, HandshakeError> {
        match self.state {
            State::Head(_) => Err(HandshakeError::ClosedEarly),
            State::Body(response, body) => {
                let end = body.handle_eof();
                Ok(finish(response, body, end))
            }
        }
    }

    /// Handles the expiry of the handshake deadline. Returns the rejecting response with the body received so far,
    /// marked as [truncated](Response::is_body_truncated).
    ///
    /// # Errors
    ///
    /// [`HandshakeError::TimedOut`] if the response head was incomplete.
    pub fn handle_timeout(self) -> Result<Response, HandshakeError> {
        match self.state {
            State::Head(_) => Err(HandshakeError::TimedOut),
            State::Body(response, body) => Ok(finish(response, body, BodyEnd::Truncated)),
        }
    }
}

/// A client that awaits the response to an extended CONNECT.
#[derive(Debug)]
pub struct AwaitingConnect {
    offer: Offer,
}

impl AwaitingConnect {
    /// Validates the headers of the final response. Returns the subprotocol that the server chose, if any.
    ///
    /// Call this only for a 2xx status, which opens the WebSocket (RFC 8441 §5).
    ///
    /// # Errors
    ///
    /// - [`HandshakeError::HopByHopHeader`] if the response contains headers of the HTTP/1.1 handshake.
    /// - [`HandshakeError::SubprotocolNotOffered`], [`HandshakeError::SubprotocolRepeated`],
    ///   [`HandshakeError::ExtensionNotOffered`] or [`HandshakeError::ExtensionsInvalid`] if the negotiation is
    ///   invalid.
    pub fn handle_headers(self, headers: &Headers) -> Result<Option<Subprotocol>, HandshakeError> {
        let unused = [header_name::CONNECTION, header_name::UPGRADE, header_name::ACCEPT];
        if unused.iter().any(|name| headers.contains(name)) {
            return Err(HandshakeError::HopByHopHeader);
        }
        self.offer.check_negotiation(headers)
    }
}

/// What the request offered. The response is validated against it.
#[derive(Debug)]
struct Offer {
    key: Key,
    subprotocols: Vec<Subprotocol>,
    /// The Sec-WebSocket-Extensions header as sent, if any.
    extensions: Headers,
}

/// Result of parsing a response head.
enum AfterHead {
    Connected(Response, Option<Subprotocol>),
    Next(State),
}

impl Offer {
    fn read(&self, head: HeadCollector, informational_count: &mut usize) -> Result<AfterHead, HandshakeError> {
        let line = StatusLine::parse(head.split().0)?;
        let mut response = Response::new(line.status);
        response.headers = head.headers()?;
        // RFC 6455 §4.1 (1): only 101 opens a WebSocket. [6455-4.1-29]
        if line.status == StatusCode::SWITCHING_PROTOCOLS {
            line.version.check_upgrade()?;
            let subprotocol = self.check_switching_protocols(&response.headers)?;
            return Ok(AfterHead::Connected(response, subprotocol));
        }
        if line.status.is_informational() {
            // RFC 9110 §15.2: a client must accept any number of informational responses before the final one.
            let count_max = head.limits().informational_count_max;
            if *informational_count == count_max {
                return Err(HandshakeError::TooManyInformational { count_max });
            }
            *informational_count += 1;
            return Ok(AfterHead::Next(State::Head(head.next())));
        }
        let body = BodyCollector::new(line, &response.headers, head.limits().body_size_max);
        Ok(AfterHead::Next(State::Body(response, body)))
    }

    /// Performs the checks (2) to (6) on the server's response in RFC 6455 §4.1.
    // [6455-4.1-36]
    fn check_switching_protocols(&self, headers: &Headers) -> Result<Option<Subprotocol>, HandshakeError> {
        // [6455-4.1-30]
        let mut upgrade = headers.list(header_name::UPGRADE);
        match (upgrade.next(), upgrade.next()) {
            (Some(protocol), None) if protocol.eq_ignore_ascii_case(b"websocket") => {}
            _ => return Err(HandshakeError::UpgradeInvalid),
        }
        // [6455-4.1-31]
        if !headers.contains_token(header_name::CONNECTION, "upgrade") {
            return Err(HandshakeError::ConnectionMissing);
        }
        // RFC 6455 §11.3.3: exactly once, and derived from the key. [6455-4.1-32, 6455-11.3.3-1]
        match headers.single(header_name::ACCEPT) {
            Single::Absent => return Err(HandshakeError::AcceptMissing),
            Single::Repeated => return Err(HandshakeError::AcceptRepeated),
            Single::One(value) if value == self.key.accept().as_str().as_bytes() => {}
            Single::One(_) => return Err(HandshakeError::AcceptMismatch),
        }
        // RFC 9110 §6.4.1 and §8.6, RFC 9112 §6.1: a 1xx response has no body. Some servers send Transfer-Encoding or
        // Content-Length anyway; ignore them, because the bytes after the head are WebSocket frames.
        self.check_negotiation(headers)
    }

    /// Checks the headers that both HTTP bindings have in common.
    fn check_negotiation(&self, headers: &Headers) -> Result<Option<Subprotocol>, HandshakeError> {
        extension::check(headers)?;
        for chosen in headers.extensions() {
            let mut offered = self.extensions.extensions();
            // RFC 6455 §4.1 (5): the server may only choose offered extensions. [6455-4.1-34, 6455-9.1-5]
            if !offered.any(|offered| offered.name() == chosen.name()) {
                return Err(HandshakeError::ExtensionNotOffered);
            }
        }
        // RFC 6455 §11.3.4: at most one subprotocol; §4.1 (6): one of those offered. [6455-4.1-35, 6455-11.3.4-1]
        // Treat an empty header as absent: some servers send it when they choose no subprotocol.
        let has_element = |value: &HeaderValue<'_>| value.as_bytes().iter().any(|byte| !b", \t".contains(byte));
        let mut values = headers.get_all(header_name::PROTOCOL).filter(has_element);
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(None),
            (Some(_), Some(_)) => return Err(HandshakeError::SubprotocolRepeated),
            (Some(value), None) => value.as_bytes(),
        };
        if value.contains(&b',') {
            return Err(HandshakeError::SubprotocolRepeated);
        }
        let mut offered = self.subprotocols.iter();
        match offered.find(|offered| offered.as_str().as_bytes() == value) {
            Some(chosen) => Ok(Some(chosen.clone())),
            None => Err(HandshakeError::SubprotocolNotOffered),
        }
    }
}

fn finish(mut response: Response, body: BodyCollector, end: BodyEnd) -> Response {
    response.body = body.into_bytes();
    response.is_body_truncated = end == BodyEnd::Truncated;
    response
}
