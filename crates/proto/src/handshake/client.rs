//! The client's side: a request goes out, and the response is held against it.
//!
//! A wait that has ended cannot be fed more:
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
    Subprotocol, Uri, extension, name,
};

/// A request to open a WebSocket, before it is sent.
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
    /// A request for this URI. The key is 16 bytes drawn at random, for this request only.
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
    /// [`HandshakeBuildError`] if name or value cannot be sent, or the handshake owns the header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, HandshakeBuildError> {
        let is_reserved = name::is_in(&name::RESERVED, name) || name::is_in(&name::RESERVED_IN_REQUEST, name);
        if is_reserved {
            return Err(HandshakeBuildError::ReservedHeader);
        }
        self.headers.try_append(name, value)?;
        Ok(self)
    }

    /// Offers a subprotocol, after those offered already: the first is liked best.
    ///
    /// # Errors
    /// [`HandshakeBuildError::InvalidSubprotocol`] if it is no HTTP token,
    /// [`HandshakeBuildError::RepeatedSubprotocol`] if it is offered already.
    pub fn subprotocol(mut self, name: &str) -> Result<Self, HandshakeBuildError> {
        let subprotocol = Subprotocol::new(name)?;
        // RFC 6455 §4.1 (10): the values MUST be unique. [6455-4.1-27]
        if self.subprotocols.contains(&subprotocol) {
            return Err(HandshakeBuildError::RepeatedSubprotocol);
        }
        self.subprotocols.push(subprotocol);
        Ok(self)
    }

    /// Offers an extension, as the header has it: `name; param; param=value`.
    ///
    /// Whoever offers it also has to speak it; what the server chose of it is in
    /// [`Connected::response`].
    ///
    /// # Errors
    /// [`HandshakeBuildError::InvalidExtension`] if the text is not of that form.
    pub fn extension(mut self, extension: &str) -> Result<Self, HandshakeBuildError> {
        append_extension(&mut self.extensions, extension)?;
        Ok(self)
    }

    /// Says which page the client runs for. Only browsers need to.
    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Sets what the response may cost. Default: [`HandshakeLimits::default`].
    #[must_use]
    pub const fn limits(mut self, limits: HandshakeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes the bytes to send, and what waits for the response.
    #[must_use]
    pub fn start(self) -> (Vec<u8>, AwaitingResponse) {
        // RFC 6455 §4.1, in the order it lists them; Host first, as RFC 9110 §7.2 advises.
        // [6455-4.1-15, 6455-4.1-17, 6455-4.1-18]
        let mut headers = Headers::new();
        headers.push(name::HOST, &self.uri.authority().to_string());
        // [6455-4.1-19, 6455-4.1-20, 6455-4.1-21]
        headers.push(name::UPGRADE, "websocket");
        headers.push(name::CONNECTION, "Upgrade");
        headers.push(name::KEY, &self.key.to_string());
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

    /// Makes the headers of an extended CONNECT, and what waits for the response to it.
    ///
    /// The pseudo-headers of RFC 8441 §5 are up to the HTTP/2 or HTTP/3 client: `:protocol` is
    /// `websocket`, `:scheme` `http` or `https`, `:authority` [`Uri::authority`], `:path`
    /// [`Uri::resource`].
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

    /// What both bindings send alike.
    fn push_negotiation(&self, headers: &mut Headers) {
        if let Some(origin) = &self.origin {
            // [6455-4.1-24]
            headers.push(name::ORIGIN, &origin.to_string());
        }
        // [6455-4.1-25, 6455-11.3.5-1]
        headers.push(name::VERSION, "13");
        if !self.subprotocols.is_empty() {
            let names: Vec<_> = self.subprotocols.iter().map(Subprotocol::as_str).collect();
            headers.push(name::PROTOCOL, &names.join(", "));
        }
        if let Some(extensions) = &self.extensions {
            headers.push(name::EXTENSIONS, extensions);
        }
        headers.extend(&self.headers);
    }

    fn into_offer(self) -> Offer {
        let mut offered = Headers::new();
        if let Some(extensions) = &self.extensions {
            offered.push(name::EXTENSIONS, extensions);
        }
        Offer {
            key: self.key,
            subprotocols: self.subprotocols,
            extensions: offered,
        }
    }
}

/// A client waiting for the response over HTTP/1.1.
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
    /// The final response is a refusal, and its body is arriving.
    Body(Response, BodyCollector),
}

/// What came of the bytes a client received.
#[derive(Debug)]
pub enum ClientStep {
    /// The response is not whole yet: go on with this.
    Incomplete(AwaitingResponse),
    /// The WebSocket is open.
    Connected(Connected),
    /// The server answered with another status than 101. Its headers say more (Location,
    /// WWW-Authenticate, Retry-After); nothing is followed by itself, and the connection is to be
    /// closed.
    Refused(Response),
    /// The response breaks a rule: close the connection.
    Failed(HandshakeError),
}

/// An open WebSocket.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected {
    /// The response, with all its headers.
    pub response: Response,
    /// The subprotocol chosen: one of those offered.
    pub subprotocol: Option<Subprotocol>,
    /// Bytes that came right after the response's head: the first of the frames.
    pub read_buf: Vec<u8>,
}

impl AwaitingResponse {
    /// Takes bytes from the server, in pieces of any size.
    #[must_use]
    pub fn handle_bytes(mut self, mut input: &[u8]) -> ClientStep {
        loop {
            match self.state {
                State::Head(mut head) => {
                    let head_len = match head.handle_bytes(input) {
                        Ok(Some(head_len)) => head_len,
                        Ok(None) => {
                            self.state = State::Head(head);
                            return ClientStep::Incomplete(self);
                        }
                        Err(fault) => return ClientStep::Failed(fault),
                    };
                    input = input.get(head_len..).unwrap_or_default();
                    match self.offer.read(head, &mut self.informational_count) {
                        Ok(AfterHead::Connected(response, subprotocol)) => {
                            return ClientStep::Connected(Connected {
                                response,
                                subprotocol,
                                read_buf: input.to_vec(),
                            });
                        }
                        Ok(AfterHead::Next(state)) => self.state = state,
                        Err(fault) => return ClientStep::Failed(fault),
                    }
                }
                State::Body(response, mut body) => match body.handle_bytes(input) {
                    Some(end) => return ClientStep::Refused(finish(response, body, end)),
                    None => {
                        self.state = State::Body(response, body);
                        return ClientStep::Incomplete(self);
                    }
                },
            }
        }
    }

    /// Whether the final response is known to be a refusal, and only its body is still arriving.
    ///
    /// A body without a length ends with the connection, which a server may keep open for ever. So
    /// from here on wait only briefly (one second is a good figure), and then call
    /// [`handle_timeout`](Self::handle_timeout), which gives the refusal with the body so far.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        matches!(self.state, State::Body(..))
    }

    /// Takes the end of the connection: the end of a body too, where nothing else marks it.
    ///
    /// # Errors
    /// [`HandshakeError::ClosedEarly`] if there was no whole head.
    pub fn handle_eof(self) -> Result<Response, HandshakeError> {
        match self.state {
            State::Head(_) => Err(HandshakeError::ClosedEarly),
            State::Body(response, body) => {
                let end = body.handle_eof();
                Ok(finish(response, body, end))
            }
        }
    }

    /// Takes the end of the time there was: a refusal whose body is still arriving is given as it
    /// is, cut short.
    ///
    /// # Errors
    /// [`HandshakeError::TimedOut`] if there was no whole head.
    pub fn handle_timeout(self) -> Result<Response, HandshakeError> {
        match self.state {
            State::Head(_) => Err(HandshakeError::TimedOut),
            State::Body(response, body) => Ok(finish(response, body, BodyEnd::Truncated)),
        }
    }
}

/// A client waiting for the response to an extended CONNECT.
#[derive(Debug)]
pub struct AwaitingConnect {
    offer: Offer,
}

impl AwaitingConnect {
    /// Holds the final response against the request, and gives the subprotocol chosen.
    ///
    /// Any status of 2xx opens the WebSocket (RFC 8441 §5); do not call this with another.
    ///
    /// # Errors
    /// The rule that the response breaks: [`HandshakeError::HopByHopHeader`], or a choice of what
    /// was not offered.
    pub fn handle_headers(self, headers: &Headers) -> Result<Option<Subprotocol>, HandshakeError> {
        let unused = [name::CONNECTION, name::UPGRADE, name::ACCEPT];
        if unused.iter().any(|name| headers.contains(name)) {
            return Err(HandshakeError::HopByHopHeader);
        }
        self.offer.check_negotiation(headers)
    }
}

/// What was asked for, which the response must not go beyond.
#[derive(Debug)]
struct Offer {
    key: Key,
    subprotocols: Vec<Subprotocol>,
    /// The extensions header as sent, if it was.
    extensions: Headers,
}

/// What a head leads to.
enum AfterHead {
    Connected(Response, Option<Subprotocol>),
    Next(State),
}

impl Offer {
    fn read(&self, head: HeadCollector, informational_count: &mut usize) -> Result<AfterHead, HandshakeError> {
        let line = StatusLine::parse(head.split().0)?;
        let mut response = Response::new(line.status);
        response.headers = head.headers()?;
        // RFC 6455 §4.1 (1): nothing but 101 opens a WebSocket, whatever else a response says. [6455-4.1-29]
        if line.status == StatusCode::SWITCHING_PROTOCOLS {
            line.version.check_upgrade()?;
            let subprotocol = self.check_switch(&response.headers)?;
            return Ok(AfterHead::Connected(response, subprotocol));
        }
        if line.status.is_informational() {
            // RFC 9110 §15.2: any number may come, and a client must be able to skip them.
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

    /// RFC 6455 §4.1, what a client must verify in the server's response, (2) to (6).
    // [6455-4.1-36]
    fn check_switch(&self, headers: &Headers) -> Result<Option<Subprotocol>, HandshakeError> {
        // [6455-4.1-30]
        let mut upgrade = headers.list(name::UPGRADE);
        match (upgrade.next(), upgrade.next()) {
            (Some(protocol), None) if protocol.eq_ignore_ascii_case(b"websocket") => {}
            _ => return Err(HandshakeError::UpgradeInvalid),
        }
        // [6455-4.1-31]
        if !headers.contains_token(name::CONNECTION, "upgrade") {
            return Err(HandshakeError::ConnectionMissing);
        }
        // RFC 6455 §11.3.3: once, and the answer to the key. [6455-4.1-32, 6455-11.3.3-1]
        match headers.single(name::ACCEPT) {
            Single::Absent => return Err(HandshakeError::AcceptMissing),
            Single::Repeated => return Err(HandshakeError::AcceptRepeated),
            Single::One(value) if value == self.key.accept().as_str().as_bytes() => {}
            Single::One(_) => return Err(HandshakeError::AcceptMismatch),
        }
        // RFC 9110 §6.4.1 and §8.6, RFC 9112 §6.1: a 1xx response has no body, and Transfer-Encoding
        // and Content-Length in it mean nothing, although some servers send them. What follows the
        // head is WebSocket frames, whatever these headers say.
        self.check_negotiation(headers)
    }

    /// What both bindings check alike.
    fn check_negotiation(&self, headers: &Headers) -> Result<Option<Subprotocol>, HandshakeError> {
        extension::check(headers)?;
        for chosen in extension::list(headers) {
            let mut offered = extension::list(&self.extensions);
            // RFC 6455 §4.1 (5): only what was offered is in use. [6455-4.1-34, 6455-9.1-5]
            if !offered.any(|offered| offered.name() == chosen.name()) {
                return Err(HandshakeError::ExtensionNotOffered);
            }
        }
        // RFC 6455 §11.3.4: one subprotocol at most; §4.1 (6): one of those offered. [6455-4.1-35, 6455-11.3.4-1]
        // A header without an element counts as absent: some servers send it empty when they choose none.
        let has_element = |value: &HeaderValue<'_>| value.as_bytes().iter().any(|byte| !b", \t".contains(byte));
        let mut values = headers.get_all(name::PROTOCOL).filter(has_element);
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
