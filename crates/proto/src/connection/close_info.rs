//! How a connection was closed.

use core::fmt;

use crate::close::CloseFrame;
use crate::close_code::CloseCode;
use crate::protocol_error::ProtocolError;

/// One of the two endpoints of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This endpoint.
    Local,
    /// The other endpoint.
    Peer,
}

/// Why a connection is closing or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseCause {
    /// The local application closed it.
    Local,
    /// The peer sent a close frame first.
    Peer,
    /// The peer violated the protocol.
    ProtocolError(ProtocolError),
    /// The transport was closed or failed before both close frames were exchanged.
    TransportEnd,
    /// The peer neither answered a ping nor made other progress within
    /// [`Keepalive::timeout`](crate::Keepalive::timeout).
    KeepaliveTimeout,
    /// The peer did not answer our close frame within [`Config::close_timeout`](crate::Config::close_timeout).
    CloseTimeout,
}

/// How a connection was closed: the close frames of both sides, which side closed first, and the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseInfo {
    pub(super) sent: Option<CloseFrame>,
    pub(super) received: Option<CloseFrame>,
    first: Side,
    pub(super) cause: CloseCause,
}

impl CloseInfo {
    pub(super) fn new(first: Side, cause: CloseCause) -> Self {
        Self {
            sent: None,
            received: None,
            first,
            cause,
        }
    }

    /// Describes the end of a connection whose frames another implementation handles, such as the WebSocket of a
    /// browser: the side whose close frame came first, the cause, and the close frames of this endpoint and of the
    /// peer.
    #[must_use]
    pub fn from_parts(
        initiator: Side,
        cause: CloseCause,
        sent: Option<CloseFrame>,
        received: Option<CloseFrame>,
    ) -> Self {
        Self {
            sent,
            received,
            first: initiator,
            cause,
        }
    }

    /// The close frame that this endpoint sent or is about to send, if any.
    pub fn sent(&self) -> Option<&CloseFrame> {
        self.sent.as_ref()
    }

    /// The peer's close frame, if one was received.
    pub fn received(&self) -> Option<&CloseFrame> {
        self.received.as_ref()
    }

    /// The side whose close frame came first, or [`Side::Local`] if there was none.
    pub fn initiator(&self) -> Side {
        self.first
    }

    /// Why the connection was closed.
    pub fn cause(&self) -> CloseCause {
        self.cause
    }

    /// Whether both close frames were exchanged without a protocol error ("cleanly" in RFC 6455 §7.1.4).
    // [6455-7.1.4-1]
    pub fn is_clean(&self) -> bool {
        self.sent.is_some() && self.received.is_some() && matches!(self.cause, CloseCause::Local | CloseCause::Peer)
    }

    /// Whether the connection ended without an error: this endpoint closed it, or the peer closed it with 1000, 1001 or
    /// no code (RFC 6455 §7.4.1). Any other code from the peer, or an end without a close frame, is an error.
    ///
    /// If this endpoint closed the connection, the peer may have closed the transport without answering the close
    /// frame; [`received`](Self::received) is then `None`.
    pub fn is_normal(&self) -> bool {
        match self.cause {
            CloseCause::Local => true,
            CloseCause::Peer => matches!(
                self.code(),
                CloseCode::NORMAL | CloseCode::GOING_AWAY | CloseCode::NO_STATUS
            ),
            CloseCause::ProtocolError(_)
            | CloseCause::TransportEnd
            | CloseCause::KeepaliveTimeout
            | CloseCause::CloseTimeout => false,
        }
    }

    /// Whether a new connection may succeed without any change: the transport or the keepalive failed, or the peer's
    /// close code says that it leaves (1001), failed (1011), restarts (1012), is overloaded (1013) or that a gateway
    /// failed (1014). False if this endpoint closed the connection, or the peer violated the protocol.
    ///
    /// Independent of [`is_normal`](Self::is_normal): 1001 is both, because a server that shuts down closes with it.
    pub fn is_retryable(&self) -> bool {
        match (self.cause, &self.received) {
            (CloseCause::Local | CloseCause::ProtocolError(_), _) => false,
            (CloseCause::KeepaliveTimeout | CloseCause::CloseTimeout, _) | (_, None) => true,
            (_, Some(frame)) => matches!(u16::from(frame.code), 1001 | 1011..=1014),
        }
    }

    /// The connection close code (RFC 6455 §7.1.5): the code of the peer's close frame, [`CloseCode::NO_STATUS`] (1005)
    /// if it had none, or [`CloseCode::ABNORMAL`] (1006) if no close frame was received.
    // [6455-7.1.5-1, 6455-7.1.5-2, 6455-7.1.5-3]
    pub fn code(&self) -> CloseCode {
        self.received.as_ref().map_or(CloseCode::ABNORMAL, |frame| frame.code)
    }

    /// The connection close reason (RFC 6455 §7.1.6): the reason of the peer's close frame, or an empty string.
    // [6455-7.1.6-1]
    pub fn reason(&self) -> &str {
        self.received.as_ref().map_or("", |frame| &frame.reason)
    }
}

impl fmt::Display for CloseInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.cause, &self.received, &self.sent) {
            (CloseCause::Local, _, Some(sent)) => write!(f, "closed by this endpoint: {sent}"),
            (CloseCause::Peer, Some(received), _) => write!(f, "closed by the peer: {received}"),
            (CloseCause::ProtocolError(error), ..) if error.is_limit() => {
                write!(f, "the peer exceeded a limit: {error}")
            }
            (CloseCause::ProtocolError(error), ..) => write!(f, "the peer broke the protocol: {error}"),
            (CloseCause::TransportEnd, ..) => f.write_str("connection lost without a close frame"),
            (CloseCause::KeepaliveTimeout, ..) => f.write_str("the peer does not answer"),
            (CloseCause::CloseTimeout, ..) => f.write_str("the peer did not answer the close frame"),
            (CloseCause::Local | CloseCause::Peer, ..) => f.write_str("closed"),
        }
    }
}
