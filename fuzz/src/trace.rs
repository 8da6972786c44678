//! What a connection told, written down so that two runs can be compared: by the same bytes cut differently, or by the
//! naive reader.
//!
//! Chunks of a message are joined, for where they are cut is not what is compared. The record has its memory before a
//! run begins, so that writing it does not count as memory of the connection.

use std::fmt;

use sockeye_proto::{Event, MessageKind};

/// A record of events.
#[derive(Clone, Default)]
pub struct Trace {
    bytes: Vec<u8>,
    /// Where the message begins whose chunks are coming.
    begun_at: Option<usize>,
    has_ended: bool,
}

impl Trace {
    /// A record with room for what `wire_len` bytes of frames can bring about.
    #[must_use]
    pub fn with_room_for(wire_len: usize) -> Self {
        Self {
            // An event takes at least two bytes of frames, and beside its payload at most twelve here.
            bytes: Vec::with_capacity(wire_len * 8 + 256),
            begun_at: None,
            has_ended: false,
        }
    }

    /// Whether a close frame or a fault was noted, after which nothing comes.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Notes an event of a connection.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Message { kind, payload } => self.message(*kind, payload),
            Event::Chunk {
                kind,
                data,
                first,
                last,
            } => {
                assert_eq!(
                    *first,
                    self.begun_at.is_none(),
                    "a chunk says wrongly whether it is the first"
                );
                self.chunk(*kind, data, *last);
            }
            Event::Ping(payload) => self.ping(payload),
            Event::Pong(payload) => self.pong(payload),
            Event::Close(frame) => self.close(frame.code.0, frame.reason.as_bytes()),
            Event::ProtocolError(error) => self.error(error.close_code().0),
        }
    }

    /// Notes a whole message.
    pub fn message(&mut self, kind: MessageKind, payload: &[u8]) {
        self.chunk(kind, payload, true);
    }

    /// Notes a part of a message.
    pub fn chunk(&mut self, kind: MessageKind, data: &[u8], last: bool) {
        if self.begun_at.is_none() {
            self.begun_at = Some(self.bytes.len());
            self.bytes.extend_from_slice(match kind {
                MessageKind::Text => b" text(",
                MessageKind::Binary => b" binary(",
            });
        }
        self.bytes.extend_from_slice(data);
        if last {
            self.begun_at = None;
            self.bytes.push(b')');
        }
    }

    /// Notes a ping. Controls may come between the fragments of a message: they are noted before it.
    pub fn ping(&mut self, payload: &[u8]) {
        self.control(b" ping(", payload);
    }

    /// Notes a pong.
    pub fn pong(&mut self, payload: &[u8]) {
        self.control(b" pong(", payload);
    }

    /// Notes a close frame.
    pub fn close(&mut self, code: u16, reason: &[u8]) {
        self.end();
        self.bytes.extend_from_slice(b" close");
        self.bytes.extend_from_slice(&code.to_be_bytes());
        self.bytes.push(b'(');
        self.bytes.extend_from_slice(reason);
        self.bytes.push(b')');
    }

    /// Notes a fault, by the close code it earns.
    pub fn error(&mut self, code: u16) {
        self.end();
        self.bytes.extend_from_slice(b" fault");
        self.bytes.extend_from_slice(&code.to_be_bytes());
    }

    /// How many bytes were noted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn control(&mut self, name: &[u8], payload: &[u8]) {
        let at = self.begun_at.unwrap_or(self.bytes.len());
        let before = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(payload);
        self.bytes.push(b')');
        let added = self.bytes.len() - before;
        self.bytes[at..].rotate_right(added);
        if let Some(begun_at) = &mut self.begun_at {
            *begun_at += added;
        }
    }

    /// How much of a message that never ended was told before the end depends on the cuts, and means nothing.
    fn end(&mut self) {
        assert!(!self.has_ended, "told more after the end: {self:?}");
        self.has_ended = true;
        if let Some(begun_at) = self.begun_at.take() {
            self.bytes.truncate(begun_at);
        }
    }
}

impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Trace {}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} ]", self.bytes.escape_ascii())
    }
}
