//! Messages: their types, their payloads, and how they are delivered, fragmented and compressed (RFC 6455 §5.4, §5.6).

use crate::frame::Opcode;
use crate::utf8;

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8 text.
    Text,
    /// Arbitrary bytes.
    Binary,
}

impl MessageKind {
    pub(crate) fn of(opcode: Opcode) -> Option<Self> {
        match opcode {
            Opcode::Text => Some(Self::Text),
            Opcode::Binary => Some(Self::Binary),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        }
    }

    /// Whether the payload is valid for this type: text must be UTF-8 (RFC 6455 §5.6).
    // [6455-5.6-1, 6455-5.6-2, 6455-8.1-1]
    #[inline]
    pub(crate) fn is_valid_payload(self, payload: &[u8]) -> bool {
        self != Self::Text || utf8::is_utf8(payload)
    }
}

/// How received messages are delivered.
///
/// Take [`Stream`](Self::Stream) for messages of any size. Take [`Chunks`](Self::Chunks) to process messages as they
/// arrive, but to reject those of more than [`Limits::message_size_max`](crate::Limits::message_size_max).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ReceiveMode {
    /// As complete messages: [`Event::Message`](crate::Event::Message).
    #[default]
    Whole,
    /// As chunks while the bytes arrive, without buffering: [`Event::Chunk`](crate::Event::Chunk). A compressed message
    /// is still delivered complete. [`Limits::message_size_max`](crate::Limits::message_size_max) limits the sum of the
    /// chunks.
    Chunks,
    /// As chunks of any message: a compressed message is inflated while it arrives. The size of a message is not
    /// limited, because nothing is stored: it may have as many fragments and as many bytes as the peer sends.
    ///
    /// A compressed message holds a codec and 32 KiB until its end. Compressed input is buffered until
    /// [`Connection::handle_bytes`](crate::Connection::handle_bytes) has inflated it, in chunks of at most 16 KiB.
    Stream,
}

/// The payload of a message or of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// UTF-8 text.
    Text(&'a str),
    /// Arbitrary bytes.
    Binary(&'a [u8]),
}

impl<'a> Data<'a> {
    /// The type of the message: text or binary.
    pub fn kind(self) -> MessageKind {
        match self {
            Self::Text(_) => MessageKind::Text,
            Self::Binary(_) => MessageKind::Binary,
        }
    }

    /// The payload as bytes.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// Whether a fragment is the last one of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// More fragments follow.
    More,
    /// This is the last fragment.
    Last,
}

/// Whether to compress a message. Has no effect on connections that did not negotiate permessage-deflate.
// [7692-6.1-2, 7692-8-1]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Compress {
    /// Compress the message if it has at least `DeflateConfig::size_min` bytes (default 128).
    #[default]
    Auto,
    /// Compress regardless of size, if that makes the message smaller. For messages over 64 KiB, the first 64 KiB
    /// decide.
    Always,
    /// Do not compress.
    ///
    /// Use this for secrets on connections that also carry data chosen by an attacker: the compressed length reveals
    /// whether the two have text in common (RFC 7692 §8, as in the CRIME and BREACH attacks).
    Never,
}
