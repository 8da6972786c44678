//! What is known of how a connection was closed.

use core::fmt;

use crate::close::{CloseCode, CloseFrame};
use crate::protocol_error::ProtocolError;

/// One of the two endpoints, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This endpoint.
    Local,
    /// The other one.
    Peer,
}

/// Why a connection is closing or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseCause {
    /// The application closed it.
    Local,
    /// The peer closed it.
    Peer,
    /// The peer broke a rule.
    ProtocolError(ProtocolError),
    /// The transport ended or broke before both close frames were exchanged.
    TransportEnd,
    /// The peer did not answer a ping, nor send anything else, in time.
    PeerGone,
    /// The peer did not answer our close frame in time.
    CloseTimeout,
}

/// How a connection was closed: the close frames of both sides, which came first, and why.
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

    /// The close frame that this endpoint sent, or is about to send.
    pub fn sent(&self) -> Option<&CloseFrame> {
        self.sent.as_ref()
    }

    /// The peer's close frame.
    pub fn received(&self) -> Option<&CloseFrame> {
        self.received.as_ref()
    }

    /// Who began: whose close frame came first, or, without any, who noticed the end.
    pub fn first(&self) -> Side {
        self.first
    }

    /// Why.
    pub fn cause(&self) -> CloseCause {
        self.cause
    }

    /// Whether both close frames were exchanged and no rule was broken (RFC 6455 §7.1.4, "cleanly").
    // [6455-7.1.4-1]
    pub fn is_clean(&self) -> bool {
        self.sent.is_some() && self.received.is_some() && matches!(self.cause, CloseCause::Local | CloseCause::Peer)
    }

    /// Whether the connection ended as one side asked for: this endpoint closed it, or the peer did with 1000, 1001 or
    /// without a code (RFC 6455 §7.4.1). Any other code of the peer's tells of an error, and so does an end without a
    /// close frame.
    ///
    /// Where this endpoint closed the connection, the peer may have ended the transport instead of answering: then
    /// [`received`](Self::received) is `None`.
    pub fn is_normal(&self) -> bool {
        match self.cause {
            CloseCause::Local => true,
            CloseCause::Peer => matches!(
                self.code(),
                CloseCode::NORMAL | CloseCode::GOING_AWAY | CloseCode::NO_STATUS
            ),
            CloseCause::ProtocolError(_)
            | CloseCause::TransportEnd
            | CloseCause::PeerGone
            | CloseCause::CloseTimeout => false,
        }
    }

    /// The connection close code (RFC 6455 §7.1.5): that of the peer's close frame, [`CloseCode::NO_STATUS`] if it
    /// had none, and [`CloseCode::ABNORMAL`] if no close frame was received.
    // [6455-7.1.5-1, 6455-7.1.5-2, 6455-7.1.5-3]
    pub fn code(&self) -> CloseCode {
        self.received.as_ref().map_or(CloseCode::ABNORMAL, |frame| frame.code)
    }

    /// The connection close reason (RFC 6455 §7.1.6): that of the peer's close frame, else empty.
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
            (CloseCause::ProtocolError(fault), ..) => write!(f, "the peer broke the protocol: {fault}"),
            (CloseCause::TransportEnd, ..) => f.write_str("connection lost without a close frame"),
            (CloseCause::PeerGone, ..) => f.write_str("the peer does not answer"),
            (CloseCause::CloseTimeout, ..) => f.write_str("the peer did not answer the close frame"),
            (CloseCause::Local | CloseCause::Peer, ..) => f.write_str("closed"),
        }
    }
}
