//! Messages and the control frames between them.

use bytes::Bytes;

use crate::message::Message;

/// What [`recv_event`](crate::WebSocket::recv_event) gives: a message or a control frame, in the order in which they arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A whole message.
    Message(Message),
    /// A ping of the peer, with its payload. It is answered already.
    Ping(Bytes),
    /// A pong of the peer, with its payload: an answer, or unsolicited (RFC 6455 §5.5.3).
    Pong(Bytes),
}

impl Event {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Message(message) => message.len(),
            Self::Ping(payload) | Self::Pong(payload) => payload.len(),
        }
    }

    pub(crate) fn into_message(self) -> Option<Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Ping(_) | Self::Pong(_) => None,
        }
    }
}
