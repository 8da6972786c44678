//! The same bytes for two implementations: `sockeye-proto` and tungstenite, which was written by others.
//!
//! A session is what one peer sends after the opening handshake, made from a seed: frames, mostly valid, some of them
//! spoiled. Both get it over memory, in the same pieces, and give a [`Verdict`]. Where the verdicts differ, a rule of
//! `rules` must explain why, and check that the explanation holds: `docs/differences.md` has the rules in words.
//! A difference without an explanation is a bug in one of the two, or a rule to be written.

mod frames;
mod ours;
mod random;
mod rules;
mod sessions;
mod theirs;

use std::fmt;

pub use rules::{Class, Explained, judge};
pub use sessions::Session;

/// The largest message that both take. Small, so that sessions reach it.
const MESSAGE_SIZE_MAX: usize = 1000;

/// How many empty fragments we take in a row; tungstenite counts none.
const EMPTY_FRAGMENTS_MAX: u32 = 3;

/// Who receives the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// A server, from a client, whose frames are masked.
    Server,
    /// A client, from a server, whose frames are not.
    Client,
}

/// Something that an application or its library learns from the bytes.
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
    /// A close frame: its code, 1005 if it had none, and its reason. Nothing comes after it.
    Close(u16, String),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// More bytes are awaited.
    Waiting,
    /// By a close frame.
    Closed,
    /// The connection failed: the close code for it, and what the implementation calls it.
    Refused {
        /// 1002, 1007, 1008 or 1009.
        code: u16,
        /// The name of the fault.
        fault: String,
    },
}

/// What an implementation makes of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// In the order in which it came.
    pub heard: Vec<Heard>,
    /// How it ended.
    pub end: End,
}

impl Verdict {
    fn code(&self) -> Option<u16> {
        match self.end {
            End::Refused { code, .. } => Some(code),
            End::Waiting | End::Closed => None,
        }
    }

    /// Whether two implementations agree: the same was heard, and it ended in the same way, whatever they call it.
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
