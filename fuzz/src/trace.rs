//! Records the events of a connection, to compare runs with different splits or with the reference decoder.
//!
//! Chunks of a message are joined, because their boundaries depend on the split. The buffer is allocated before the
//! run, so that recording does not count as memory of the connection.

use std::fmt;

use sockeye_proto::{Event, MessageKind};

/// A record of events.
#[derive(Clone, Default)]
pub struct Trace {
    bytes: Vec<u8>,
    /// Start of the message whose chunks are arriving.
    started_at: Option<usize>,
    has_ended: bool,
}

impl Trace {
    /// A record with capacity for the events of `wire_len` bytes of frames.
    #[must_use]
    pub fn with_room_for(wire_len: usize) -> Self {
        Self {
            // An event corresponds to at least two bytes of frames and takes at most twelve bytes here besides its
            // payload.
            bytes: Vec::with_capacity(wire_len * 8 + 256),
            started_at: None,
            has_ended: false,
        }
    }

    /// Whether a close frame or an error was recorded, after which there are no more events.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Records an event of a connection.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Message { kind, payload } => self.message(*kind, payload),
            Event::Chunk {
                kind,
                data,
                first,
                last,
            } => {
                assert_eq!(*first, self.started_at.is_none(), "`first` of a chunk is wrong");
                self.chunk(*kind, data, *last);
            }
            Event::Ping(payload) => self.ping(payload),
            Event::Pong(payload) => self.pong(payload),
            Event::Close(frame) => self.close(frame.code.0, frame.reason.as_bytes()),
            Event::ProtocolError(error) => self.error(error.close_code().0),
        }
    }

    /// Records a complete message.
    pub fn message(&mut self, kind: MessageKind, payload: &[u8]) {
        self.chunk(kind, payload, true);
    }

    /// Records a chunk of a message.
    pub fn chunk(&mut self, kind: MessageKind, data: &[u8], last: bool) {
        if self.started_at.is_none() {
            self.started_at = Some(self.bytes.len());
            self.bytes.extend_from_slice(match kind {
                MessageKind::Text => b" text(",
                MessageKind::Binary => b" binary(",
            });
        }
        self.bytes.extend_from_slice(data);
        if last {
            self.started_at = None;
            self.bytes.push(b')');
        }
    }

    /// Records a ping. Control frames between the fragments of a message are recorded before the message.
    pub fn ping(&mut self, payload: &[u8]) {
        self.control(b" ping(", payload);
    }

    /// Records a pong.
    pub fn pong(&mut self, payload: &[u8]) {
        self.control(b" pong(", payload);
    }

    /// Records a close frame.
    pub fn close(&mut self, code: u16, reason: &[u8]) {
        self.end();
        self.bytes.extend_from_slice(b" close");
        self.bytes.extend_from_slice(&code.to_be_bytes());
        self.bytes.push(b'(');
        self.bytes.extend_from_slice(reason);
        self.bytes.push(b')');
    }

    /// Records a protocol error with its close code.
    pub fn error(&mut self, code: u16) {
        self.end();
        self.bytes.extend_from_slice(b" error");
        self.bytes.extend_from_slice(&code.to_be_bytes());
    }

    /// Number of bytes recorded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn control(&mut self, name: &[u8], payload: &[u8]) {
        let at = self.started_at.unwrap_or(self.bytes.len());
        let before = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(payload);
        self.bytes.push(b')');
        let added = self.bytes.len() - before;
        self.bytes[at..].rotate_right(added);
        if let Some(started_at) = &mut self.started_at {
            *started_at += added;
        }
    }

    /// Ends the record. Removes the chunks of an unfinished message, because they depend on the splits.
    fn end(&mut self) {
        assert!(!self.has_ended, "an event after the end: {self:?}");
        self.has_ended = true;
        if let Some(started_at) = self.started_at.take() {
            self.bytes.truncate(started_at);
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
