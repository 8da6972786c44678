//! The error type.

pub(crate) mod connect;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sockeye_proto::handshake::{Denial, HandshakeError};
use sockeye_proto::{CloseCause, CloseCode, CloseInfo, InvalidClose, SendError};

pub use connect::ConnectError;

/// Error of a client, a server or a connection.
///
/// `{}` writes one line that names the failed operation and its cause, which is enough to act on. The cause is a part of that
/// line, so [`source`](StdError::source) begins behind it; [`io_error`](Self::io_error),
/// [`connect_error`](Self::connect_error) and [`handshake_error`](Self::handshake_error) return the cause itself. `{:?}`
/// writes the line and its sources.
///
/// [`kind`](Self::kind) classifies the error, and [`is_retryable`](Self::is_retryable) says whether to try again. Cheap to
/// clone: after a connection has failed, each later call on it returns the same error.
#[derive(Clone)]
pub struct Error(Arc<Kind>);

/// Classes of [`Error`]: see [`Error::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The host name could not be resolved.
    Resolve,
    /// No address of the host accepted the connection.
    Connect,
    /// TLS failed: the certificate, the host name, the version.
    Tls,
    /// The peer broke a rule of the opening handshake, or closed before it was complete.
    Handshake,
    /// A server refused a request because of its origin or host: see [`Error::denial`].
    Denied,
    /// The server answered the opening handshake with another status than 101: see [`Error::response`].
    Rejected,
    /// A deadline passed: connecting, the opening handshake, writing, the answer to a ping or to a close frame.
    Timeout,
    /// Reading or writing an open transport failed.
    Io,
    /// The peer broke the protocol after the opening handshake.
    Protocol,
    /// The connection is closed, or the transport ended without a close frame: see [`Error::close_info`].
    Closed,
    /// The caller passed something invalid: a URL, a header, a close code.
    InvalidInput,
    /// An error of the application: see [`Error::other`].
    Other,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// The connection ended otherwise than by a clean close handshake, or is closed and was to be written to.
    Closed(CloseInfo),
    /// Reading or writing failed.
    Io(io::Error),
    /// A deadline passed while connecting; the name of what it was for.
    Timeout(&'static str),
    /// The peer did not take what was written to it in time.
    Stalled,
    /// The same, while messages received ahead waited for the application.
    StalledBoth,
    /// What was to be sent may not be sent.
    Misuse(Box<dyn StdError + Send + Sync>),
    /// The address is not a WebSocket URI, or nothing can be connected to by it.
    Address(Box<dyn StdError + Send + Sync>),
    /// The host could not be connected to.
    Connect(ConnectError),
    /// TLS did not come about.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "made by the feature"))]
    Tls(io::Error),
    /// The opening handshake broke a rule, or a rule of ours on who may connect.
    Handshake(HandshakeError),
    /// The server answered with another status than 101.
    Rejected(Rejected),
    /// Made by the application.
    Other(Box<dyn StdError + Send + Sync>),
}

/// The response of a server that did not accept.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) response: http::Response<Bytes>,
    pub(crate) is_body_truncated: bool,
}

impl Error {
    /// An error of the application, for a handler of [`Server::serve`](crate::Server::serve) that fails for a reason of its
    /// own. [`kind`](Self::kind) is [`ErrorKind::Other`], and the text is that of `error`.
    ///
    /// ```
    /// # fn parse(text: &str) -> Result<u32, sockeye::Error> {
    /// text.parse().map_err(sockeye::Error::other)
    /// # }
    /// # assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
    /// ```
    pub fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Other(error.into()))
    }

    pub(crate) fn new(kind: Kind) -> Self {
        Self(Arc::new(kind))
    }

    pub(crate) fn timeout(of: &'static str) -> Self {
        Self::new(Kind::Timeout(of))
    }

    pub(crate) fn misuse(error: impl StdError + Send + Sync + 'static) -> Self {
        Self::new(Kind::Misuse(Box::new(error)))
    }

    pub(crate) fn address(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Address(error.into()))
    }

    /// The class of the error. New kinds may be added.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Kind::Io(_) => ErrorKind::Io,
            Kind::Timeout(_) | Kind::Stalled | Kind::StalledBoth => ErrorKind::Timeout,
            Kind::Misuse(_) | Kind::Address(_) => ErrorKind::InvalidInput,
            Kind::Connect(error) if error.is_timeout() => ErrorKind::Timeout,
            Kind::Connect(error) if error.is_unresolved() => ErrorKind::Resolve,
            Kind::Connect(error) if error.is_invalid_input() => ErrorKind::InvalidInput,
            Kind::Connect(_) => ErrorKind::Connect,
            Kind::Tls(_) => ErrorKind::Tls,
            Kind::Handshake(HandshakeError::TimedOut) => ErrorKind::Timeout,
            Kind::Handshake(fault) if fault.denial().is_some() => ErrorKind::Denied,
            Kind::Handshake(_) => ErrorKind::Handshake,
            Kind::Rejected(_) => ErrorKind::Rejected,
            Kind::Closed(close_info) => match close_info.cause() {
                CloseCause::ProtocolError(_) => ErrorKind::Protocol,
                CloseCause::KeepaliveTimeout | CloseCause::CloseTimeout => ErrorKind::Timeout,
                _ => ErrorKind::Closed,
            },
            Kind::Other(_) => ErrorKind::Other,
        }
    }

    /// Whether a new connection may succeed without any change: the network or the peer failed, the peer is overloaded or
    /// restarts. Wait before you try again, longer each time.
    ///
    /// True for: timeouts; errors of name resolution, connecting, reading and writing; a transport that ended without a close
    /// frame; the close codes 1001, 1011, 1012, 1013 and 1014 of the peer; the statuses 408, 425, 429, 500, 502, 503 and 504
    /// of a server. False for everything else, such as an invalid certificate, a 401, a close code of the application, or a
    /// connection that this side closed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match &*self.0 {
            Kind::Io(_) | Kind::Timeout(_) | Kind::Stalled | Kind::StalledBoth => true,
            Kind::Connect(error) => !error.is_invalid_input(),
            // rustls reports what is wrong with the peer's bytes or certificate as invalid data.
            Kind::Tls(error) => !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other),
            Kind::Handshake(fault) => matches!(fault, HandshakeError::ClosedEarly | HandshakeError::TimedOut),
            Kind::Rejected(Rejected { response, .. }) => {
                matches!(response.status().as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
            }
            Kind::Closed(close_info) => match (close_info.cause(), close_info.received()) {
                (CloseCause::Local | CloseCause::ProtocolError(_), _) => false,
                (CloseCause::KeepaliveTimeout | CloseCause::CloseTimeout, _) | (_, None) => true,
                (_, Some(frame)) => matches!(u16::from(frame.code), 1001 | 1011..=1014),
            },
            Kind::Misuse(_) | Kind::Address(_) | Kind::Other(_) => false,
        }
    }

    /// Whether a deadline passed: connecting, the handshake, writing, the answer to a ping or to a close frame.
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
    }

    /// Whether the connection is over, or could not be opened: it was closed, it was lost, the peer is gone, or the host
    /// cannot be reached.
    pub fn is_closed(&self) -> bool {
        match &*self.0 {
            Kind::Closed(_)
            | Kind::Io(_)
            | Kind::Stalled
            | Kind::StalledBoth
            | Kind::Handshake(HandshakeError::ClosedEarly) => true,
            Kind::Connect(error) => !error.is_timeout() && !error.is_invalid_input(),
            _ => false,
        }
    }

    /// Whether the peer broke the protocol, in the opening handshake or after.
    pub fn is_protocol(&self) -> bool {
        match &*self.0 {
            Kind::Handshake(_) => !self.is_denied() && !self.is_closed(),
            Kind::Closed(close_info) => matches!(close_info.cause(), CloseCause::ProtocolError(_)),
            _ => false,
        }
    }

    /// Whether the origin or host policy rejected the client.
    pub fn is_denied(&self) -> bool {
        self.denial().is_some()
    }

    /// What a policy refused, if [`is_denied`](Self::is_denied): the origin and host of the request, escaped for a log,
    /// and what [`OriginPolicy`](crate::OriginPolicy) or [`HostPolicy`](crate::HostPolicy) allows.
    pub fn denial(&self) -> Option<&Denial> {
        self.handshake_error()?.denial()
    }

    /// The rule of the opening handshake that the peer broke, or that did not let it in.
    pub fn handshake_error(&self) -> Option<&HandshakeError> {
        match &*self.0 {
            Kind::Handshake(fault) => Some(fault),
            _ => None,
        }
    }

    /// Whether the operating system, or a [resolver](crate::ClientBuilder::resolver), reported an error: an unknown host, no
    /// route, connection refused, connection reset.
    pub fn is_io(&self) -> bool {
        match &*self.0 {
            Kind::Io(_) => true,
            Kind::Connect(error) => error.is_io(),
            _ => false,
        }
    }

    /// The error of the transport or of TLS. In one of TLS, [`get_ref`](io::Error::get_ref) is a `rustls::Error`, unless the
    /// transport failed during the TLS handshake.
    pub fn io_error(&self) -> Option<&io::Error> {
        match &*self.0 {
            Kind::Io(error) | Kind::Tls(error) => Some(error),
            _ => None,
        }
    }

    /// Why a client could not connect to its host, if that is what happened: the error of the resolver, or of each address
    /// that was tried.
    pub fn connect_error(&self) -> Option<&ConnectError> {
        match &*self.0 {
            Kind::Connect(error) => Some(error),
            _ => None,
        }
    }

    /// Whether TLS failed: a certificate, a name, a version.
    pub fn is_tls(&self) -> bool {
        self.kind() == ErrorKind::Tls
    }

    /// Whether the caller passed something invalid: a URL, a header, a message, a close code, or a
    /// [local address](crate::ClientBuilder::local_address) of another family than the addresses of the host. An open
    /// connection goes on. For `close`, the connection is closing with the nearest valid frame.
    pub fn is_invalid_input(&self) -> bool {
        self.kind() == ErrorKind::InvalidInput
    }

    /// Whether the connection ended by a normal close: by this side, or by the peer with 1000, 1001 or no code.
    /// [`send`](crate::WebSocket::send) and its kind fail with such an error where
    /// [`recv`](crate::WebSocket::recv) gives `Ok(None)`.
    pub fn is_normal_close(&self) -> bool {
        self.close_info().is_some_and(CloseInfo::is_normal)
    }

    /// The code of the peer's close frame (RFC 6455 §7.4), if it sent one: [`CloseCode::NO_STATUS`] for one without a
    /// code.
    pub fn close_code(&self) -> Option<CloseCode> {
        Some(self.close_info()?.received()?.code)
    }

    /// How the connection was closed, if that is what happened.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        match &*self.0 {
            Kind::Closed(close_info) => Some(close_info),
            _ => None,
        }
    }

    /// The server's response to the opening handshake, if its status was another than 101. The body is cut off at
    /// [`Limits::refusal_body_size_max`](crate::Limits::refusal_body_size_max), and after one second.
    ///
    /// ```no_run
    /// # async fn example(client: sockeye::Client) {
    /// use sockeye::http::StatusCode;
    ///
    /// if let Err(error) = client.connect("wss://feed.example/").await
    ///     && error.response().is_some_and(|response| response.status() == StatusCode::UNAUTHORIZED)
    /// {
    ///     eprintln!("the token has expired");
    /// }
    /// # }
    /// ```
    pub fn response(&self) -> Option<&http::Response<Bytes>> {
        match &*self.0 {
            Kind::Rejected(rejected) => Some(&rejected.response),
            _ => None,
        }
    }

    /// Whether the body of [`response`](Self::response) is incomplete: it went past the limit, past the end of the
    /// connection, did not arrive within a second, or its framing could not be understood.
    pub fn is_response_truncated(&self) -> bool {
        matches!(&*self.0, Kind::Rejected(rejected) if rejected.is_body_truncated)
    }
}

/// The message and those of its [sources](StdError::source).
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Closed(close_info) => fmt::Display::fmt(close_info, f),
            Kind::Io(error) => write!(f, "connection lost: {error}"),
            Kind::Timeout(of) => write!(f, "{of} timed out"),
            Kind::Connect(error) => write!(f, "cannot connect to {}: {error}", error.target()),
            Kind::Stalled => f.write_str("the peer reads too slowly: it took less than Limits::write_rate_min"),
            Kind::StalledBoth => f.write_str(
                "both sides wait to send: the peer takes too little, and the messages received ahead fill \
                 Limits::read_ahead_max",
            ),
            Kind::Misuse(error) => write!(f, "invalid input: {error}"),
            Kind::Address(error) => write!(f, "invalid URL: {error}"),
            Kind::Tls(error) => write!(f, "TLS failed: {error}"),
            Kind::Handshake(fault) => write!(f, "opening handshake failed: {fault}"),
            Kind::Rejected(Rejected { response, .. }) => {
                let status = response.status();
                write!(f, "the server answered with status {}", status.as_u16())?;
                status
                    .canonical_reason()
                    .map_or(Ok(()), |reason| write!(f, " {reason}"))
            }
            Kind::Other(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The text of the cause itself is a part of this error's.
        match &*self.0 {
            Kind::Io(error) | Kind::Tls(error) => error.source(),
            Kind::Misuse(error) | Kind::Address(error) | Kind::Other(error) => error.source(),
            Kind::Connect(error) => error.source(),
            Kind::Handshake(fault) => fault.source(),
            Kind::Closed(_) | Kind::Timeout(_) | Kind::Stalled | Kind::StalledBoth | Kind::Rejected(_) => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::new(Kind::Io(error))
    }
}

impl From<HandshakeError> for Error {
    fn from(fault: HandshakeError) -> Self {
        Self::new(Kind::Handshake(fault))
    }
}

impl From<InvalidClose> for Error {
    fn from(error: InvalidClose) -> Self {
        Self::misuse(error)
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        Self::misuse(error)
    }
}
