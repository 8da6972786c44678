//! Compares `sockeye-proto` with tungstenite, an independent implementation, on the same bytes.
//!
//! A session is what one peer sends after the opening handshake, generated from a seed: frames, mostly valid, some of
//! them corrupted. Both implementations read it from memory in the same pieces and return a [`Verdict`]. If the
//! verdicts differ, a rule of `rules` must explain why and check that the explanation holds; `docs/differences.md`
//! describes the rules. A difference without an explanation is a bug in one implementation, or needs a new rule.

mod frames;
mod random;
mod rules;
mod sessions;
mod sockeye;
mod tungstenite;

use std::fmt;

pub use rules::{Class, Explained, judge};
pub use sessions::Session;

/// The message limit of both implementations. Small, so that sessions reach it.
const MESSAGE_SIZE_MAX: usize = 1000;

/// Sockeye's limit on consecutive empty fragments; tungstenite has none.
const EMPTY_FRAGMENTS_MAX: u32 = 3;

/// The role of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// A server; the client's frames are masked.
    Server,
    /// A client; the server's frames are not masked.
    Client,
}

/// An event that the application or the library sees.
#[derive(Clone, PartialEq, Eq)]
pub enum Heard {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close frame with its code (1005 if it has none) and reason. No event follows it.
    Close(u16, String),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Open: more bytes are expected.
    Waiting,
    /// Closed by a close frame.
    Closed,
    /// Failed: the close code, and the implementation's name of the error.
    Refused {
        /// 1002, 1007, 1008 or 1009.
        code: u16,
        /// The name of the error.
        fault: String,
    },
}

/// The result of one implementation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Events in order.
    pub heard: Vec<Heard>,
    /// The end of the session.
    pub end: End,
}

impl Verdict {
    fn code(&self) -> Option<u16> {
        match self.end {
            End::Refused { code, .. } => Some(code),
            End::Waiting | End::Closed => None,
        }
    }

    /// Whether two verdicts agree: same events, and same end apart from the name of the error.
    fn agrees_with(&self, other: &Self) -> bool {
        self.heard == other.heard
            && self.code() == other.code()
            && (self.end == End::Waiting) == (other.end == End::Waiting)
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) = match self {
            Self::Text(text) => ("Text", text.as_bytes()),
            Self::Binary(bytes) => ("Binary", &bytes[..]),
            Self::Ping(bytes) => ("Ping", &bytes[..]),
            Self::Pong(bytes) => ("Pong", &bytes[..]),
            Self::Close(code, reason) => return write!(f, "Close({code}, {reason:?})"),
        };
        write!(
            f,
            "{name}({} bytes: {:02x?})",
            bytes.len(),
            &bytes[..bytes.len().min(8)]
        )
    }
}
