//! What was received before the application asked for it, in order.
//!
//! A sender that waits for the peer reads ahead: this prevents a deadlock between two peers that both send more than
//! the network buffers before they receive.

use std::collections::VecDeque;

use sockeye_proto::MessageKind;

use crate::message::event::Event;

/// Memory per entry, in addition to its payload: an entry in the queue and an allocation.
const OVERHEAD: usize = 64;

/// Messages and control frames that were received ahead, and parts of messages that are received as streams.
#[derive(Default)]
pub(super) struct ReadAhead {
    entries: VecDeque<Entry>,
    cost: usize,
}

pub(super) enum Entry {
    Event(Event),
    /// A message that is delivered in chunks and not completely read yet. Only the last entry of this kind can be
    /// incomplete.
    Partial(PartialMessage),
}

/// A message that arrives in chunks.
#[derive(Debug)]
pub(super) struct PartialMessage {
    pub(super) kind: MessageKind,
    bytes: Vec<u8>,
    /// The number of bytes that a reader has taken from `bytes`.
    pos: usize,
    pub(super) reader: ReaderState,
    /// Whether the message has arrived completely.
    pub(super) is_complete: bool,
}

/// The reader of a [`PartialMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderState {
    /// No reader yet: `bytes` starts at the beginning of the message.
    None,
    /// A stream reader that took the beginning.
    Attached,
    /// The reader was dropped: the rest of the message is discarded.
    Gone,
}

impl PartialMessage {
    pub(super) fn new(kind: MessageKind, bytes: Vec<u8>, reader: ReaderState, is_complete: bool) -> Self {
        Self {
            kind,
            bytes,
            pos: 0,
            reader,
            is_complete,
        }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.pos..]
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl ReadAhead {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory used by the entries, in bytes.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(super) fn push(&mut self, event: Event) {
        self.cost += event.len() + OVERHEAD;
        self.entries.push_back(Entry::Event(event));
    }

    /// Adds a chunk to its message.
    pub(super) fn push_chunk(&mut self, kind: MessageKind, data: &[u8], first: bool, last: bool) {
        let incomplete = self.entries.iter_mut().rev().find_map(|entry| match entry {
            Entry::Partial(part) if !part.is_complete => Some(part),
            _ => None,
        });
        let Some(part) = incomplete else {
            // If this is not the first chunk, the reader took those before it as they arrived.
            let reader = match first {
                true => ReaderState::None,
                false => ReaderState::Attached,
            };
            self.push_partial(PartialMessage::new(kind, data.to_vec(), reader, last));
            return;
        };
        part.is_complete = last;
        if part.reader != ReaderState::Gone {
            part.bytes.extend_from_slice(data);
            self.cost += data.len();
        }
    }

    pub(super) fn push_partial(&mut self, part: PartialMessage) {
        self.cost += part.bytes.len() + OVERHEAD;
        self.entries.push_back(Entry::Partial(part));
    }

    pub(super) fn push_partial_front(&mut self, part: PartialMessage) {
        self.cost += part.bytes.len() + OVERHEAD;
        self.entries.push_front(Entry::Partial(part));
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.cost -= OVERHEAD
            + match &entry {
                Entry::Event(event) => event.len(),
                Entry::Partial(part) => part.bytes.len(),
            };
        Some(entry)
    }

    /// Takes the next message or control frame. `None` if the next entry is a [`PartialMessage`].
    pub(super) fn pop_event(&mut self) -> Option<Event> {
        match self.front()? {
            Entry::Partial(_) => None,
            Entry::Event(_) => match self.pop()? {
                Entry::Event(event) => Some(event),
                Entry::Partial(_) => None,
            },
        }
    }

    /// Sets the reader of the part at the front. Frees its bytes if there is no reader any more.
    pub(super) fn set_front_reader(&mut self, reader: ReaderState) {
        if let Some(Entry::Partial(part)) = self.entries.front_mut() {
            part.reader = reader;
            if reader == ReaderState::Gone {
                self.cost -= part.bytes.len();
                (part.bytes, part.pos) = (Vec::new(), 0);
            }
        }
    }

    /// Takes up to `len_max` bytes of the part at the front for its reader.
    pub(super) fn read_front(&mut self, len_max: usize, take: impl FnOnce(&[u8])) {
        if let Some(Entry::Partial(part)) = self.entries.front_mut() {
            let len = part.unread().len().min(len_max);
            take(&part.bytes[part.pos..part.pos + len]);
            part.pos += len;
            if part.pos == part.bytes.len() {
                self.cost -= part.bytes.len();
                part.bytes.clear();
                part.pos = 0;
            }
        }
    }

    /// Drops all parts: the messages that arrive are not received any more.
    pub(super) fn drop_partial(&mut self) {
        let is_incomplete = |entry: &Entry| matches!(entry, Entry::Partial(part) if !part.is_complete);
        let rest = self.entries.iter().any(is_incomplete);
        self.entries.retain(|entry| matches!(entry, Entry::Event(_)));
        self.cost = self.entries.iter().map(|entry| OVERHEAD + entry.event_len()).sum();
        if rest {
            self.push_partial(PartialMessage::new(
                MessageKind::Binary,
                Vec::new(),
                ReaderState::Gone,
                false,
            ));
        }
    }
}

impl Entry {
    fn event_len(&self) -> usize {
        match self {
            Self::Event(event) => event.len(),
            Self::Partial(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(ahead: &ReadAhead) -> (&[u8], ReaderState, bool) {
        match ahead.front() {
            Some(Entry::Partial(part)) => (part.unread(), part.reader, part.is_complete),
            _ => panic!("a part"),
        }
    }

    #[test]
    fn messages_are_returned_in_order_and_reduce_cost() {
        let mut ahead = ReadAhead::default();
        for len in [0, 1, 1000] {
            ahead.push(Event::Message(vec![7; len].into()));
        }
        assert_eq!(ahead.cost(), 1001 + 3 * OVERHEAD);
        let lens: Vec<_> = std::iter::from_fn(|| ahead.pop_event())
            .map(|event| event.len())
            .collect();
        assert_eq!(lens, [0, 1, 1000]);
        assert_eq!(ahead.cost(), 0);
    }

    #[test]
    fn chunks_are_joined_and_read_in_pieces() {
        let mut ahead = ReadAhead::default();
        ahead.push_chunk(MessageKind::Text, b"ab", true, false);
        ahead.push_chunk(MessageKind::Text, b"cd", false, true);
        ahead.push_chunk(MessageKind::Binary, b"next", true, false);
        assert_eq!(ahead.cost(), 8 + 2 * OVERHEAD);
        assert_eq!(part(&ahead), (&b"abcd"[..], ReaderState::None, true));
        ahead.set_front_reader(ReaderState::Attached);
        let mut taken = vec![];
        ahead.read_front(3, |bytes| taken.extend_from_slice(bytes));
        assert_eq!(part(&ahead), (&b"d"[..], ReaderState::Attached, true));
        ahead.read_front(9, |bytes| taken.extend_from_slice(bytes));
        assert_eq!(taken, b"abcd");
        ahead.pop();
        // The rest of a message whose reader is gone is discarded.
        ahead.set_front_reader(ReaderState::Gone);
        ahead.push_chunk(MessageKind::Binary, b"discarded", false, true);
        assert_eq!(part(&ahead), (&b""[..], ReaderState::Gone, true));
        ahead.pop();
        assert_eq!(ahead.cost(), 0);
        // What follows chunks that were taken as they arrived.
        ahead.push_chunk(MessageKind::Binary, b"rest", false, false);
        assert_eq!(part(&ahead), (&b"rest"[..], ReaderState::Attached, false));
        ahead.drop_partial();
        assert_eq!(
            (part(&ahead), ahead.cost()),
            ((&b""[..], ReaderState::Gone, false), OVERHEAD)
        );
    }
}
