//! What can go wrong, as questions.

pub(crate) mod connect;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use sockeye_proto::handshake::{Denial, HandshakeError, Response};
use sockeye_proto::{CloseCause, CloseCode, CloseInfo, InvalidClose, SendError};

pub use connect::ConnectError;

/// Why something did not work.
///
/// Cheap to clone: once a connection has failed, each later call on it gives the same error. What happened is asked
/// with the `is_…` methods; the underlying error, where there is one, is the [`source`](StdError::source), and `{:?}`
/// writes the whole chain.
#[derive(Clone)]
pub struct Error(Arc<Kind>);

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
    Refused(Response),
}

impl Error {
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

    /// Whether a deadline passed: connecting, the handshake, writing, the answer to a ping or to a close frame.
    pub fn is_timeout(&self) -> bool {
        match &*self.0 {
            Kind::Timeout(_) | Kind::Stalled | Kind::StalledBoth => true,
            Kind::Connect(error) => error.is_timeout(),
            Kind::Closed(close_info) => matches!(
                close_info.cause(),
                CloseCause::KeepaliveTimeout | CloseCause::CloseTimeout
            ),
            _ => false,
        }
    }

    /// Whether the connection is over, or could not be opened: it was closed, it was lost, the peer is gone, or the host
    /// cannot be reached. A new one may work.
    pub fn is_closed(&self) -> bool {
        match &*self.0 {
            Kind::Closed(_)
            | Kind::Io(_)
            | Kind::Stalled
            | Kind::StalledBoth
            | Kind::Handshake(HandshakeError::ClosedEarly) => true,
            Kind::Connect(error) => !error.is_timeout() && !error.is_misuse(),
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
    /// and what [`OriginPolicy`](crate::OriginPolicy) or [`HostPolicy`](crate::handshake::HostPolicy) allows.
    pub fn denial(&self) -> Option<&Denial> {
        match &*self.0 {
            Kind::Handshake(fault) => fault.denial(),
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
        matches!(&*self.0, Kind::Tls(_))
    }

    /// Whether the caller passed something invalid: a URL, a message, a close code, or a
    /// [local address](crate::ClientBuilder::local_address) of another family than the addresses of the host. An open
    /// connection goes on. For `close`, the connection is closing with the nearest valid frame.
    pub fn is_misuse(&self) -> bool {
        match &*self.0 {
            Kind::Misuse(_) | Kind::Address(_) => true,
            Kind::Connect(error) => error.is_misuse(),
            _ => false,
        }
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

    /// The server's answer, if it was another status than 101: with its headers, and with its body up to
    /// [`Limits::refusal_body_size_max`](crate::Limits::refusal_body_size_max).
    pub fn refusal(&self) -> Option<&Response> {
        match &*self.0 {
            Kind::Refused(response) => Some(response),
            _ => None,
        }
    }
}

/// The message and those of its causes, so that a `main` which returns an error tells all that is known.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Closed(close_info) => fmt::Display::fmt(close_info, f),
            Kind::Io(_) => f.write_str("the network connection failed"),
            Kind::Timeout(of) => write!(f, "{of} took too long"),
            Kind::Connect(error) if error.is_timeout() => write!(f, "connecting to {} took too long", error.target()),
            Kind::Connect(error) => write!(f, "cannot connect to {}", error.target()),
            Kind::Stalled => f.write_str("the peer takes too little of what is written to it"),
            Kind::StalledBoth => f.write_str(
                "both sides wait to send: the peer takes too little, and the messages received ahead fill \
                 Limits::read_ahead_max",
            ),
            Kind::Misuse(_) => f.write_str("what was asked for cannot be sent"),
            Kind::Address(_) => f.write_str("cannot connect to this address"),
            Kind::Tls(_) => f.write_str("TLS failed"),
            Kind::Handshake(_) => f.write_str("opening handshake failed"),
            Kind::Refused(response) => {
                let status = response.status();
                write!(f, "the server answered with status {status} {}", status.reason())
            }
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            Kind::Io(error) | Kind::Tls(error) => Some(error),
            Kind::Misuse(error) | Kind::Address(error) => Some(error.as_ref()),
            Kind::Handshake(fault) => Some(fault),
            Kind::Connect(error) => Some(error),
            Kind::Closed(_) | Kind::Timeout(_) | Kind::Stalled | Kind::StalledBoth | Kind::Refused(_) => None,
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
