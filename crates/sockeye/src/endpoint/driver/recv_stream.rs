//! Receiving messages as streams, in constant memory.
//!
//! After [`poll_stream_start`](Driver::poll_stream_start), the state machine delivers chunks instead of messages. A
//! reader takes them straight from the input. What is parsed without a reader, for example by a sender that reads
//! ahead, is stored as a [`PartialMessage`]. The next `recv` switches back once no message is in progress.

use std::task::{Context, Poll, ready};

use bytes::BufMut;
use sockeye_proto::{Event as ProtoEvent, MessageKind, ReceiveMode, SendError};

use super::Driver;
use super::receive::{handle_input, validated_message};
use crate::endpoint::read_ahead::{Entry, PartialMessage, ReaderState};
use crate::error::Error;
use crate::message::event::Event;

/// How much input is parsed at once to find the start of a message. Its first chunk is copied, so this is small.
const START_LEN_MAX: usize = 1024;

/// What [`Driver::poll_read_stream`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamRead {
    /// Bytes were added to the buffer.
    Bytes,
    /// The message has ended. Bytes may have been added.
    End,
}

impl Driver {
    /// Waits for the next message, and returns its type once its first byte or its end has arrived. `None` after a
    /// normal end.
    pub(crate) fn poll_stream_start(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<MessageKind>, Error>> {
        loop {
            if !self.budget.is_overdrawn()
                && let Some(kind) = self.next_stream()
            {
                return Poll::Ready(Ok(Some(kind)));
            }
            if self.is_receive_closed() {
                return self.poll_end(cx).map_ok(|_| None);
            }
            ready!(self.poll_io(cx));
        }
    }

    /// Begins to read the next message, if its start has arrived.
    fn next_stream(&mut self) -> Option<MessageKind> {
        self.observes_control = false;
        // If this fails, a message is partly received, because a `recv` was cancelled. It is delivered whole.
        self.connection.set_receive_mode(ReceiveMode::Stream);
        loop {
            match self.front_partial() {
                Some((kind, ReaderState::None, _)) => {
                    self.with_busy_state(|busy| busy.ahead.set_front_reader(ReaderState::Attached));
                    return Some(kind);
                }
                Some((_, _, true)) => drop(self.with_busy_state(|busy| busy.ahead.pop())),
                Some((_, _, false)) => {
                    self.with_busy_state(|busy| busy.ahead.set_front_reader(ReaderState::Gone));
                    if !self.parse_to_chunk(START_LEN_MAX) {
                        return None;
                    }
                }
                None => {
                    // A message that was received whole becomes a part; control frames are dropped.
                    let event = match self.busy.is_some() {
                        true => self.with_busy_state(|busy| busy.ahead.pop_event()),
                        false => None,
                    };
                    match event {
                        Some(Event::Message(message)) => {
                            let kind = message.kind();
                            let bytes = message.into_payload().into();
                            let part = PartialMessage::new(kind, bytes, ReaderState::None, true);
                            self.with_busy_state(|busy| busy.ahead.push_partial_front(part));
                        }
                        Some(_) => {}
                        None if !self.parse_to_chunk(START_LEN_MAX) => return None,
                        None => {}
                    }
                }
            }
        }
    }

    /// The part at the front of what was received ahead: its type, its reader, and whether it is complete.
    fn front_partial(&self) -> Option<(MessageKind, ReaderState, bool)> {
        match self.busy.as_ref()?.ahead.front()? {
            Entry::Partial(part) => Some((part.kind, part.reader, part.is_complete)),
            Entry::Event(_) => None,
        }
    }

    /// Parses at most `len_max` bytes of input, and stores what it finds. Returns whether there was any input.
    fn parse_to_chunk(&mut self, len_max: usize) -> bool {
        if !self.has_input() || self.budget.is_overdrawn() {
            return false;
        }
        if self.connection.has_direct_read() {
            // The rest of a message that is received whole.
            if let Some(message) = self.parse_message() {
                self.with_busy_state(|busy| busy.ahead.push(Event::Message(message)));
            }
            return true;
        }
        let event = handle_input(&mut self.connection, &mut self.input, &mut self.budget, len_max);
        match event {
            Some(ProtoEvent::Chunk {
                kind,
                data,
                first,
                last,
            }) => {
                let busy = self.busy.get_or_insert_default();
                busy.ahead.push_chunk(kind, data, first, last);
            }
            Some(ProtoEvent::Message { kind, payload }) => {
                let message = validated_message(kind, payload.into_owned().into());
                self.with_busy_state(|busy| busy.ahead.push(Event::Message(message)));
            }
            Some(_) => self.handle_control(),
            None => {}
        }
        self.input.release_or_retain();
        true
    }

    /// Reads the next bytes of the message that [`poll_stream_start`](Self::poll_stream_start) has returned. `buffer`
    /// has room. Fails if the connection ends before the message.
    pub(crate) fn poll_read_stream(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut impl BufMut,
    ) -> Poll<Result<StreamRead, Error>> {
        loop {
            if !self.budget.is_overdrawn()
                && let Some(read) = self.read_stream(buffer)
            {
                return Poll::Ready(Ok(read));
            }
            if self.is_receive_closed() {
                // A normal close is an error here: the message is incomplete.
                let ended = ready!(self.poll_end(cx));
                return Poll::Ready(Err(ended.err().unwrap_or_else(|| self.send_error(SendError::Closed))));
            }
            ready!(self.poll_io(cx));
        }
    }

    /// Reads bytes that have arrived. `None` if there are none.
    fn read_stream(&mut self, buffer: &mut impl BufMut) -> Option<StreamRead> {
        loop {
            if let Some((.., is_complete)) = self.front_partial() {
                let mut len = 0;
                self.with_busy_state(|busy| {
                    busy.ahead.read_front(buffer.remaining_mut(), |bytes| {
                        buffer.put_slice(bytes);
                        len = bytes.len();
                    });
                });
                let is_used_up = self.front_partial_len() == 0;
                if is_used_up {
                    self.with_busy_state(|busy| busy.ahead.pop());
                }
                match (is_used_up && is_complete, len) {
                    (true, _) => return Some(self.end_stream()),
                    (false, 0) => {}
                    (false, _) => return Some(StreamRead::Bytes),
                }
                continue;
            }
            if !self.has_input() || self.budget.is_overdrawn() {
                return None;
            }
            // A chunk is at most as long as its input, unless it is compressed: then it fits into the buffer.
            let room = buffer.remaining_mut();
            let event = handle_input(&mut self.connection, &mut self.input, &mut self.budget, room.max(1));
            let read = match event {
                Some(ProtoEvent::Chunk { kind, data, last, .. }) => {
                    let (fitting, rest) = data.split_at(data.len().min(room));
                    buffer.put_slice(fitting);
                    let fitting_len = fitting.len();
                    if !rest.is_empty() {
                        let rest = PartialMessage::new(kind, rest.to_vec(), ReaderState::Attached, last);
                        self.busy.get_or_insert_default().ahead.push_partial(rest);
                        Some(StreamRead::Bytes)
                    } else if last {
                        Some(self.end_stream())
                    } else {
                        (fitting_len > 0).then_some(StreamRead::Bytes)
                    }
                }
                Some(_) => {
                    self.handle_control();
                    None
                }
                None => None,
            };
            self.input.release_or_retain();
            if read.is_some() {
                return read;
            }
        }
    }

    fn front_partial_len(&self) -> usize {
        match self.busy.as_ref().and_then(|busy| busy.ahead.front()) {
            Some(Entry::Partial(part)) => part.unread().len(),
            _ => 0,
        }
    }

    /// Frees what the state machine keeps for the last chunk.
    fn end_stream(&mut self) -> StreamRead {
        self.connection.set_receive_mode(ReceiveMode::Stream);
        StreamRead::End
    }

    /// Called when the reader of a message was dropped before its end. The rest of the message is discarded as it
    /// arrives.
    pub(crate) fn abandon_stream(&mut self) {
        match self.front_partial() {
            Some((_, ReaderState::None, _)) | None => {
                let rest = PartialMessage::new(MessageKind::Binary, Vec::new(), ReaderState::Gone, false);
                self.with_busy_state(|busy| busy.ahead.push_partial_front(rest));
            }
            Some((_, _, true)) => drop(self.with_busy_state(|busy| busy.ahead.pop())),
            Some((_, _, false)) => self.with_busy_state(|busy| busy.ahead.set_front_reader(ReaderState::Gone)),
        }
    }

    /// The next message or control frame after messages were received as streams. Switches back to whole messages as
    /// soon as no message is in progress. `None` if more bytes must be read, or if the budget is spent.
    #[cold]
    pub(super) fn next_after_streams(&mut self) -> Option<Event> {
        let size_max = self.group.connection.limits.message_size_max;
        loop {
            match self.front_partial() {
                None => {
                    if self.busy.is_some()
                        && let Some(event) = self.with_busy_state(|busy| busy.ahead.pop_event())
                    {
                        return Some(event);
                    }
                    if self.connection.set_receive_mode(ReceiveMode::Whole) {
                        return self.parse_message().map(Event::Message);
                    }
                    // A `MessageReader` was leaked (`mem::forget`).
                    self.abandon_stream();
                }
                Some((_, ReaderState::None, _)) if self.front_partial_len() as u64 > size_max => {
                    drop(self.with_busy_state(|busy| busy.ahead.pop()));
                    self.connection.reject_message(self.input.received_at);
                    self.handle_control();
                    return None;
                }
                Some((kind, ReaderState::None, true)) => {
                    if let Some(Entry::Partial(part)) = self.with_busy_state(|busy| busy.ahead.pop()) {
                        return Some(Event::Message(validated_message(kind, part.into_bytes().into())));
                    }
                }
                Some((_, _, true)) => drop(self.with_busy_state(|busy| busy.ahead.pop())),
                Some((_, reader, false)) => {
                    if reader == ReaderState::Attached {
                        self.with_busy_state(|busy| busy.ahead.set_front_reader(ReaderState::Gone));
                    }
                    if !self.parse_to_chunk(usize::MAX) {
                        return None;
                    }
                }
            }
        }
    }

    /// Drops the messages that arrive in chunks: the connection is closing.
    pub(super) fn drop_partial(&mut self) {
        if self.busy.is_some() && self.connection.receive_mode() != ReceiveMode::Whole {
            self.with_busy_state(|busy| busy.ahead.drop_partial());
        }
    }
}
