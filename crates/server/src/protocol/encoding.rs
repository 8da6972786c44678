//! The encodings of the protocol.

use sockeye::{Message, PreparedMessage};

use super::command::Command;
use super::frame::{self, Malformed};
use super::protobuf;
use super::reply::{Push, PushTarget, Reply, to_json};

/// The encoding that a client uses in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Json,
    Protobuf,
}

impl Encoding {
    /// Whether a frame contains no command.
    pub(crate) fn is_blank(self, frame: &[u8]) -> bool {
        match self {
            Self::Json => frame.trim_ascii().is_empty(),
            Self::Protobuf => frame.is_empty(),
        }
    }

    /// Parses the first command of the rest of a frame. Also returns the size of its encoding with the separators
    /// around it. `None` if there is no further command.
    pub(crate) fn next_command(self, rest: &[u8]) -> Option<(Result<Command<'_>, Malformed>, usize)> {
        match self {
            Self::Json => frame::next_command(rest),
            Self::Protobuf => protobuf::next_command(rest),
        }
    }

    /// Encodes a reply as a message of one command.
    pub(crate) fn reply(self, reply: &Reply<'_>) -> Message {
        match self {
            Self::Json => Message::text(to_json(reply)),
            Self::Protobuf => Message::binary(protobuf::reply(reply)),
        }
    }

    /// Encodes a push.
    pub(crate) fn push(self, target: PushTarget<'_>, push: &Push<'_>) -> Message {
        match self {
            Self::Json => Message::text(push.to_json(target)),
            Self::Protobuf => Message::binary(protobuf::push(target, push)),
        }
    }

    /// The server's ping, which the client sends back: an empty reply.
    pub(crate) fn ping(self) -> Message {
        match self {
            Self::Json => Message::text("{}"),
            Self::Protobuf => Message::binary(&[0]),
        }
    }

    /// Appends a message to another one, so that both are sent in one frame.
    pub(crate) fn join(frame: &mut Vec<u8>, next: &Message) {
        if next.as_text().is_some() {
            frame.push(b'\n');
        }
        frame.extend_from_slice(bytes(next));
    }

    /// Makes a frame of joined messages.
    pub(crate) fn frame(self, joined: Vec<u8>) -> Message {
        match self {
            Self::Json => match String::from_utf8(joined) {
                Ok(text) => Message::text(text),
                // Cannot happen: all parts are text.
                Err(error) => Message::binary(error.into_bytes()),
            },
            Self::Protobuf => Message::binary(joined),
        }
    }
}

/// The payload of a message.
pub(crate) fn bytes(message: &Message) -> &[u8] {
    match message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) => bytes,
    }
}

/// The form in which a subscriber receives a publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Plain,
    /// Complete data in a subscription with deltas.
    Complete,
    /// The difference to the previous publication.
    Delta,
}

/// A push to many clients, encoded at most once per encoding and shape.
#[derive(Debug, Default)]
pub(crate) struct PushCache {
    prepared: [Option<PreparedMessage>; 12],
}

impl PushCache {
    /// Returns the encoded push; `encode` is called for the first one of its kind.
    pub(crate) fn get(
        &mut self,
        encoding: Encoding,
        shape: Shape,
        is_by_id: bool,
        encode: impl FnOnce() -> Message,
    ) -> &PreparedMessage {
        let index = encoding as usize * 6 + shape as usize * 2 + usize::from(is_by_id);
        self.prepared[index].get_or_insert_with(|| PreparedMessage::new(encode()))
    }
}
