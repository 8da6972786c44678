//! The error type.

pub(crate) mod connect;
pub(crate) mod invalid_url;
pub(crate) mod proxy;
pub(crate) mod redirect;
pub(crate) mod try_recv;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sockeye_proto::handshake::{Denial, HandshakeError};
use sockeye_proto::{CloseCause, CloseCode, CloseInfo, InvalidClose, SendError};

pub use connect::ConnectError;
pub use invalid_url::InvalidUrl;
pub use proxy::ProxyError;
use proxy::ProxyFailure;
use redirect::Redirect;

/// Error of a client, a server or a connection.
///
/// `{}` writes one line that names the failed operation and its cause. Because the cause is already in that line,
/// [`source`](StdError::source) starts at the cause's own source. [`io_error`](Self::io_error),
/// [`connect_error`](Self::connect_error), [`proxy_error`](Self::proxy_error) and
/// [`handshake_error`](Self::handshake_error) return the cause itself.
/// `{:?}` writes the line followed by all sources.
///
/// [`kind`](Self::kind) classifies the error, and [`is_retryable`](Self::is_retryable) says whether to try again.
/// Cloning costs one reference count: once a connection has failed, every later call on it returns the same error.
#[derive(Clone)]
pub struct Error(Arc<Kind>);

/// Class of an [`Error`], returned by [`Error::kind`]. The kinds are disjoint.
///
/// The methods of [`Error`] that begin with `is_` are not: each is true for the errors of several kinds, or for some
/// errors of a kind.
///
/// | method | true for |
/// |---|---|
/// | [`is_closed`](Error::is_closed) | `Closed`, `Io`, `Protocol`, `Resolve`, `Connect`; `Timeout` after the connection was open; `Handshake` if the transport ended early |
/// | [`is_protocol`](Error::is_protocol) | `Protocol`, and `Handshake` except a transport that ended early |
/// | [`is_io`](Error::is_io) | `Io`, and those `Resolve`, `Connect` and `Proxy` that the operating system reported |
/// | [`is_timeout`](Error::is_timeout), [`is_tls`](Error::is_tls), [`is_denied`](Error::is_denied), [`is_invalid_input`](Error::is_invalid_input) | exactly the kind of that name |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The host name could not be resolved.
    Resolve,
    /// No address of the host accepted the connection.
    Connect,
    /// The proxy could not be reached, or rejected the connection: see [`Error::proxy_error`].
    Proxy,
    /// TLS failed: for example an invalid certificate, a wrong host name or no common version.
    Tls,
    /// The peer broke a rule of the opening handshake, or closed before it was complete.
    Handshake,
    /// A server rejected a request because of its origin or host: see [`Error::denial`].
    Denied,
    /// The server answered the opening handshake with a status other than 101: see [`Error::response`].
    Rejected,
    /// A deadline passed while connecting, during the opening handshake, while writing, or while waiting for a pong or
    /// a close frame.
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
    /// The connection did not end with a normal closing handshake, or an operation was attempted after it was closed.
    Closed(CloseInfo),
    /// Reading or writing failed.
    Io(io::Error),
    /// A deadline passed while opening a connection.
    Timeout {
        /// The name of the phase.
        of: &'static str,
        /// The setting with the deadline.
        setting: &'static str,
    },
    /// The peer took less than `Limits::write_rate_min`.
    Stalled,
    /// The peer took less than `Limits::write_rate_min`, and this side could not read because `Limits::read_ahead_max`
    /// was reached.
    MutualStall,
    /// This side aborted the connection.
    Aborted,
    /// The send queue was full, so an outbox closed the connection: see `Overflow::Close`.
    Overflow,
    /// Browser only: the messages not yet received by the application exceeded `Limits::read_ahead_max`.
    #[cfg_attr(
        not(any(target_arch = "wasm32", test)),
        expect(dead_code, reason = "only a browser cannot be told to read more slowly")
    )]
    ReadTooSlowly,
    /// The caller passed something invalid, such as a close code that must not be sent.
    InvalidInput(Box<dyn StdError + Send + Sync>),
    /// The URL is invalid, or its host cannot be used as a TLS server name.
    InvalidUrl(Box<dyn StdError + Send + Sync>),
    /// No connection to the host could be established.
    Connect(ConnectError),
    /// Connecting through the proxy failed.
    Proxy(ProxyError),
    /// The TLS handshake failed.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "made by the feature"))]
    Tls(io::Error),
    /// The opening handshake broke a rule, or a policy rejected its origin or host.
    Handshake(HandshakeError),
    /// The server answered with a status other than 101.
    Rejected(Rejected),
    /// An error of the application.
    Other(Box<dyn StdError + Send + Sync>),
}

/// The response of a server that rejected the opening handshake.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) response: http::Response<Bytes>,
    pub(crate) is_body_truncated: bool,
    /// Why the redirect, if it is one, was not followed.
    pub(crate) redirect: Option<Redirect>,
}

impl Error {
    /// Wraps an error of the application, for a [`Server::serve`](crate::Server::serve) handler that fails for its own
    /// reasons. [`kind`](Self::kind) is [`ErrorKind::Other`], and the text is that of `error`.
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

    /// Wraps an error of a transport that the application opened itself, for example for
    /// [`connect_over`](crate::RequestBuilder::connect_over). [`kind`](Self::kind) is [`ErrorKind::Io`], and
    /// [`is_retryable`](Self::is_retryable) is true.
    ///
    /// There is no `From<io::Error>`, because an application's other I/O errors, for example of a file, would become
    /// lost connections. Wrap those with [`other`](Self::other).
    pub fn io(error: io::Error) -> Self {
        Self::new(Kind::Io(error))
    }

    /// Returns the error that this one wraps: that of the application ([`other`](Self::other)), or that of the transport
    /// or of TLS, which is an [`io::Error`]. [`source`](StdError::source) does not return it, because its text is the
    /// text of this error.
    ///
    /// ```
    /// let error = "x".parse::<u32>().map_err(sockeye::Error::other).unwrap_err();
    /// let inner = error.get_ref().unwrap();
    /// assert!(inner.is::<std::num::ParseIntError>());
    /// ```
    pub fn get_ref(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        match &*self.0 {
            Kind::Other(error) => Some(&**error),
            Kind::Io(error) | Kind::Tls(error) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn new(kind: Kind) -> Self {
        Self(Arc::new(kind))
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn aborted() -> Self {
        Self::new(Kind::Aborted)
    }

    /// A phase took longer than `Timeouts::handshake`.
    pub(crate) fn timeout(of: &'static str) -> Self {
        Self::timeout_of(of, "Timeouts::handshake")
    }

    /// A phase took longer than a setting allows.
    pub(crate) fn timeout_of(of: &'static str, setting: &'static str) -> Self {
        Self::new(Kind::Timeout { of, setting })
    }

    /// Replaces the reason why the redirect of a rejection was not followed.
    pub(crate) fn with_redirect(self, redirect: Redirect) -> Self {
        match &*self.0 {
            Kind::Rejected(rejected) => Self::new(Kind::Rejected(Rejected {
                response: rejected.response.clone(),
                is_body_truncated: rejected.is_body_truncated,
                redirect: Some(redirect),
            })),
            _ => self,
        }
    }

    pub(crate) fn invalid_input(error: impl StdError + Send + Sync + 'static) -> Self {
        Self::new(Kind::InvalidInput(Box::new(error)))
    }

    pub(crate) fn invalid_url(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::InvalidUrl(error.into()))
    }

    /// Returns the class of the error. New kinds may be added in minor releases.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Kind::Io(_) => ErrorKind::Io,
            Kind::Timeout { .. } | Kind::Stalled | Kind::MutualStall => ErrorKind::Timeout,
            Kind::InvalidInput(_) | Kind::InvalidUrl(_) => ErrorKind::InvalidInput,
            Kind::Connect(error) if error.is_timeout() => ErrorKind::Timeout,
            Kind::Connect(error) if error.is_unresolved() => ErrorKind::Resolve,
            Kind::Connect(error) if error.is_invalid_input() => ErrorKind::InvalidInput,
            Kind::Connect(_) => ErrorKind::Connect,
            Kind::Proxy(error) if error.is_timeout() => ErrorKind::Timeout,
            Kind::Proxy(error) if error.is_invalid_input() => ErrorKind::InvalidInput,
            Kind::Proxy(_) => ErrorKind::Proxy,
            Kind::Tls(_) => ErrorKind::Tls,
            Kind::Handshake(HandshakeError::TimedOut) => ErrorKind::Timeout,
            Kind::Handshake(error) if error.denial().is_some() => ErrorKind::Denied,
            Kind::Handshake(_) => ErrorKind::Handshake,
            Kind::Rejected(_) => ErrorKind::Rejected,
            Kind::Closed(close_info) => match close_info.cause() {
                CloseCause::ProtocolError(_) => ErrorKind::Protocol,
                CloseCause::KeepaliveTimeout | CloseCause::CloseTimeout => ErrorKind::Timeout,
                _ => ErrorKind::Closed,
            },
            Kind::Aborted | Kind::Overflow | Kind::ReadTooSlowly => ErrorKind::Closed,
            Kind::Other(_) => ErrorKind::Other,
        }
    }

    pub(crate) fn inner_kind(&self) -> &Kind {
        &self.0
    }

    /// Whether a new connection may succeed without any change, because the network failed or the peer failed, is
    /// overloaded or restarts. Use an increasing delay between attempts.
    ///
    /// True for timeouts; failed name resolution, connecting, reading and writing; a transport that ended without a
    /// close frame; the peer's close codes 1001, 1011, 1012, 1013 and 1014; the HTTP statuses 408, 425, 429, 500, 502,
    /// 503 and 504, also of a proxy; and SOCKS5 replies about the network. False for everything else, such as an
    /// invalid certificate, a 401, an application's close code, or a connection that this side closed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match &*self.0 {
            Kind::Io(_) | Kind::Timeout { .. } | Kind::Stalled | Kind::MutualStall => true,
            Kind::Connect(error) => !error.is_invalid_input(),
            Kind::Proxy(error) => error.is_retryable(),
            // rustls reports an invalid certificate or invalid bytes of the peer as `InvalidData`.
            Kind::Tls(error) => !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other),
            Kind::Handshake(error) => matches!(error, HandshakeError::ClosedEarly | HandshakeError::TimedOut),
            Kind::Rejected(Rejected { response, .. }) => is_status_retryable(response.status()),
            Kind::Closed(close_info) => close_info.is_retryable(),
            Kind::Aborted
            | Kind::Overflow
            | Kind::ReadTooSlowly
            | Kind::InvalidInput(_)
            | Kind::InvalidUrl(_)
            | Kind::Other(_) => false,
        }
    }

    /// Whether a deadline passed while connecting, in a handshake, while writing, or while waiting for a pong or a
    /// close frame.
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
    }

    /// Whether the connection has ended or could not be opened: it was closed or lost, or the host is unreachable.
    pub fn is_closed(&self) -> bool {
        match &*self.0 {
            Kind::Closed(_)
            | Kind::Io(_)
            | Kind::Stalled
            | Kind::MutualStall
            | Kind::Aborted
            | Kind::Overflow
            | Kind::ReadTooSlowly
            | Kind::Handshake(HandshakeError::ClosedEarly) => true,
            Kind::Connect(error) => !error.is_timeout() && !error.is_invalid_input(),
            Kind::Proxy(error) => error.inner().is_some_and(Self::is_closed),
            _ => false,
        }
    }

    /// Whether the peer violated the protocol, in the opening handshake or later.
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

    /// The request that the origin or host policy rejected, if [`is_denied`](Self::is_denied): its origin and host,
    /// escaped for logs, and what the [`OriginPolicy`](crate::OriginPolicy) or [`HostPolicy`](crate::HostPolicy)
    /// allows.
    pub fn denial(&self) -> Option<&Denial> {
        self.handshake_error()?.denial()
    }

    /// Why the opening handshake failed: the rule that the peer broke, or the policy that rejected it.
    pub fn handshake_error(&self) -> Option<&HandshakeError> {
        match &*self.0 {
            Kind::Handshake(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the operating system or a [resolver](crate::ClientBuilder::resolver) reported the error: for example an
    /// unknown host, no route, connection refused or connection reset.
    pub fn is_io(&self) -> bool {
        match &*self.0 {
            Kind::Io(_) => true,
            Kind::Connect(error) => error.is_io(),
            Kind::Proxy(error) => error.inner().is_some_and(Self::is_io),
            _ => false,
        }
    }

    /// The error of the transport or of TLS. For a TLS error, [`get_ref`](io::Error::get_ref) is a `rustls::Error`,
    /// unless the transport failed during the TLS handshake.
    pub fn io_error(&self) -> Option<&io::Error> {
        match &*self.0 {
            Kind::Io(error) | Kind::Tls(error) => Some(error),
            Kind::Proxy(error) => error.inner()?.io_error(),
            _ => None,
        }
    }

    /// Why a client could not connect to its host or to its proxy: the error of the resolver, or of each address that
    /// was tried.
    pub fn connect_error(&self) -> Option<&ConnectError> {
        match &*self.0 {
            Kind::Connect(error) => Some(error),
            Kind::Proxy(error) => error.inner()?.connect_error(),
            _ => None,
        }
    }

    /// The error of a failed connection through a [`Proxy`](crate::Proxy).
    pub fn proxy_error(&self) -> Option<&ProxyError> {
        match &*self.0 {
            Kind::Proxy(error) => Some(error),
            _ => None,
        }
    }

    /// Whether TLS failed: for example because of a certificate, a host name or a version.
    pub fn is_tls(&self) -> bool {
        self.kind() == ErrorKind::Tls
    }

    /// Whether the caller passed something invalid: a URL, a header, a message, a close code, or a [local
    /// address](crate::ClientBuilder::local_address) of a different family than every address of the host. An open
    /// connection stays open, except after `close` and `start_close`: they then close it with the nearest valid frame.
    pub fn is_invalid_input(&self) -> bool {
        self.kind() == ErrorKind::InvalidInput
    }

    /// Whether the connection was closed normally: by this side, or by the peer with code 1000, 1001 or none.
    /// [`send`](crate::WebSocket::send) and the other sending methods return such an error after a normal close, where
    /// [`recv`](crate::WebSocket::recv) returns `Ok(None)`.
    pub fn is_normal_close(&self) -> bool {
        self.close_info().is_some_and(CloseInfo::is_normal)
    }

    /// The code of the peer's close frame (RFC 6455 §7.4): [`CloseCode::NO_STATUS`] if the frame has no code, `None` if
    /// the peer sent no close frame.
    pub fn close_code(&self) -> Option<CloseCode> {
        Some(self.close_info()?.received()?.code)
    }

    /// How the connection was closed. `None` for errors of other kinds.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        match &*self.0 {
            Kind::Closed(close_info) => Some(close_info),
            _ => None,
        }
    }

    /// The server's response to the opening handshake, if its status was not 101. The body is truncated to
    /// [`Limits::rejection_body_size_max`](crate::Limits::rejection_body_size_max) bytes, and to what arrives within
    /// one second.
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

    /// Whether the body of [`response`](Self::response) is incomplete: it exceeded the limit, did not arrive within a
    /// second, the connection ended first, or its framing is invalid.
    pub fn is_response_truncated(&self) -> bool {
        matches!(&*self.0, Kind::Rejected(rejected) if rejected.is_body_truncated)
    }
}

/// Whether a later request may get another status (RFC 9110 §15.5 and §15.6, RFC 6585 §4, RFC 8470 §5.2).
pub(crate) fn is_status_retryable(status: http::StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Writes the message and those of all [sources](StdError::source).
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
            Kind::Closed(close_info) => {
                fmt::Display::fmt(close_info, f)?;
                match close_info.cause() {
                    CloseCause::KeepaliveTimeout => {
                        f.write_str("; the limit is ClientBuilder::keepalive or ServerBuilder::keepalive")
                    }
                    CloseCause::CloseTimeout => f.write_str("; the limit is Timeouts::close"),
                    _ => Ok(()),
                }
            }
            Kind::Io(error) => write!(f, "connection lost: {error}"),
            Kind::Timeout { of, setting } => write!(f, "{of} timed out; the limit is {setting}"),
            Kind::Connect(error) => {
                write!(f, "cannot connect to {}: {error}", error.target())?;
                match error.timeout_setting() {
                    Some(setting) => write!(f, "; the limit is {setting}"),
                    None => Ok(()),
                }
            }
            Kind::Proxy(error) => {
                fmt::Display::fmt(error, f)?;
                match error.failure {
                    ProxyFailure::TimedOut(limit) => write!(f, "; the limit is {}", limit.setting),
                    _ => Ok(()),
                }
            }
            Kind::Stalled => f.write_str(
                "the peer reads too slowly: it took less than Limits::write_rate_min during Timeouts::write",
            ),
            Kind::MutualStall => f.write_str(
                "both sides are blocked sending: the peer reads too slowly, and received messages fill \
                 Limits::read_ahead_max; receive more often or raise the limit",
            ),
            Kind::Aborted => f.write_str("this side aborted the connection"),
            Kind::Overflow => {
                f.write_str("the send queue was full, so the outbox closed the connection with 1013 (try again later)")
            }
            Kind::ReadTooSlowly => f.write_str(
                "the application receives too slowly: the messages that waited exceeded Limits::read_ahead_max, so the \
                 connection was closed with 4013",
            ),
            Kind::InvalidInput(error) => write!(f, "invalid input: {error}"),
            Kind::InvalidUrl(error) => write!(f, "invalid URL: {error}"),
            Kind::Tls(error) => write!(f, "TLS failed: {error}"),
            Kind::Handshake(error) => write!(f, "opening handshake failed: {error}"),
            Kind::Rejected(Rejected { response, redirect, .. }) => {
                let status = response.status();
                write!(f, "the server answered with status {}", status.as_u16())?;
                if let Some(reason) = status.canonical_reason() {
                    write!(f, " {reason}")?;
                }
                redirect
                    .as_ref()
                    .map_or(Ok(()), |redirect| fmt::Display::fmt(redirect, f))
            }
            Kind::Other(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The cause's own text is already in this error's text.
        match &*self.0 {
            Kind::Io(error) | Kind::Tls(error) => error.source(),
            Kind::InvalidInput(error) | Kind::InvalidUrl(error) | Kind::Other(error) => error.source(),
            Kind::Connect(error) => error.source(),
            Kind::Proxy(error) => error.source(),
            Kind::Handshake(error) => error.source(),
            Kind::Closed(_)
            | Kind::Timeout { .. }
            | Kind::Stalled
            | Kind::MutualStall
            | Kind::Aborted
            | Kind::Overflow
            | Kind::ReadTooSlowly
            | Kind::Rejected(_) => None,
        }
    }
}

/// For APIs that use [`io::Error`]. The error is kept as the source; an error of the transport keeps its kind. A
/// timeout becomes [`TimedOut`](io::ErrorKind::TimedOut), a violation of the protocol
/// [`InvalidData`](io::ErrorKind::InvalidData), and a closed connection
/// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted).
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Protocol | ErrorKind::Handshake | ErrorKind::Tls => io::ErrorKind::InvalidData,
            ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
            ErrorKind::Closed => io::ErrorKind::ConnectionAborted,
            ErrorKind::Denied | ErrorKind::Rejected => io::ErrorKind::PermissionDenied,
            _ => error.io_error().map_or(io::ErrorKind::Other, Self::kind),
        };
        Self::new(kind, error)
    }
}

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Self {
        Self::new(Kind::Handshake(error))
    }
}

impl From<InvalidClose> for Error {
    fn from(error: InvalidClose) -> Self {
        Self::invalid_input(error)
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        Self::invalid_input(error)
    }
}
