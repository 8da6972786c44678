//! Receiving: from the transport to messages.
//!
//! [`poll_read`](Driver::poll_read) reads bytes, and [`next_message`](Driver::next_message) parses messages. The rest
//! of the driver does not depend on which buffer the bytes are in.

use std::borrow::Cow;
use std::task::{Context, Poll, ready};

use sockeye_proto::{Connection, Event as ProtoEvent, MessageKind, ReceiveMode, State};

use super::Driver;
use super::control::control_event;
use crate::endpoint::budget::Budget;
use crate::endpoint::busy_state::BusyState;
use crate::endpoint::input::Input;
use crate::endpoint::state::TransportState;
use crate::endpoint::{buffer_pool, fast_path, message_pool};
use crate::error::Error;
use crate::message::Message;
use crate::message::event::Event;
use crate::message::payload::Payload;

/// Read size while output is queued. Small, because the received messages may have to wait too.
const UNDRAINED_READ_LEN: usize = 8 * 1024;

impl Driver {
    /// Takes the next received message. `None` if more bytes must be read, or if a message is only partly inflated.
    #[inline(always)]
    pub(super) fn next_message(&mut self) -> Option<Message> {
        // Returned from here, the message stays in registers on its way to the caller.
        if self.busy.is_none()
            && let Some(message) =
                fast_path::take_whole_message(&mut self.connection, &mut self.input, &mut self.budget)
        {
            return Some(message);
        }
        if self.busy.is_none() && !self.has_input() {
            return None;
        }
        // A separate variable: otherwise the compiler would use one stack slot for this and for the message above.
        let mut next = None;
        self.next_message_into(&mut next);
        next
    }

    /// Takes messages that were read ahead first: they arrived before those in the input.
    #[inline(never)]
    fn next_message_into(&mut self, next: &mut Option<Message>) {
        self.observes_control = false;
        *next = match self.busy.is_some() {
            true => self.next_message_ahead(),
            false => None,
        };
        if next.is_none() {
            *next = match self.connection.receive_mode() {
                ReceiveMode::Whole => self.parse_message(),
                _ => self.next_after_streams().and_then(Event::into_message),
            };
        }
    }

    /// Takes the next message that was received ahead. Drops the control frames before it.
    fn next_message_ahead(&mut self) -> Option<Message> {
        let next = |busy: &mut BusyState| std::iter::from_fn(|| busy.ahead.pop_event()).find_map(Event::into_message);
        self.with_busy_state(next)
    }

    /// Takes the next message from the input, and handles the control frames before it.
    pub(super) fn parse_message(&mut self) -> Option<Message> {
        fast_path::take_whole_message(&mut self.connection, &mut self.input, &mut self.budget)
            .or_else(|| self.parse_frames())
    }

    /// Whether there is input to parse. If not, the input buffer is released.
    #[inline]
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_consumed() || self.connection.is_inflating() || self.connection.has_direct_read()
    }

    /// The general path: parses frames until a message is complete.
    fn parse_frames(&mut self) -> Option<Message> {
        while !self.input.is_consumed() || self.connection.is_inflating() {
            let event = handle_input(&mut self.connection, &mut self.input, &mut self.budget, usize::MAX);
            let Some(event) = event else {
                if self.connection.is_inflating() {
                    self.budget.exhaust();
                    self.input.release_or_retain();
                    return None;
                }
                continue;
            };
            if self.observes_control
                && let Some(control) = control_event(&event)
            {
                self.record_round_trip();
                self.with_busy_state(|busy| busy.ahead.push(control));
                self.input.release_or_retain();
                self.queue_control();
                return None;
            }
            if let ProtoEvent::Chunk {
                kind,
                data,
                first,
                last,
            } = event
            {
                let busy = self.busy.get_or_insert_default();
                busy.ahead.push_chunk(kind, data, first, last);
                self.input.release_or_retain();
                return None;
            }
            if let Some(message) = to_message(event) {
                self.input.release_or_retain();
                return Some(message);
            }
            // A control frame was handled. Queue a pong now, so that each ping of a burst gets one.
            self.handle_control();
        }
        self.input.release();
        self.take_direct_message()
    }

    /// Queues the answer to a control frame or to a protocol error.
    pub(super) fn handle_control(&mut self) {
        if self.busy.is_some() || self.observer.is_active() {
            self.record_round_trip();
        }
        if self.connection.state() != State::Open {
            // Our close frame would wait for the end of a compressed message.
            self.abandon_fragments();
        }
        self.queue_control();
    }

    /// Takes the message that was [read directly into its own buffer](fast_path::poll_direct_read).
    fn take_direct_message(&mut self) -> Option<Message> {
        let Some(event) = self.connection.handle_direct_read(self.input.received_at) else {
            if self.connection.is_inflating() {
                self.budget.exhaust();
            }
            return None;
        };
        self.input.lease.release();
        let Some(message) = to_message(event) else {
            // A protocol error.
            self.handle_control();
            return None;
        };
        self.input.messages += 1;
        self.budget.charge_assembled(message.len());
        Some(message)
    }

    /// Reads once. Ready when input has arrived or the transport has ended. `is_flushed` says whether all queued output
    /// has been written.
    // Always inlined into its two callers: saves 70 instructions for a message that arrives alone.
    #[inline(always)]
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, is_flushed: bool) -> Poll<()> {
        let io = match &mut self.transport {
            TransportState::Open(io) | TransportState::WriteClosed(io) => io,
            state => match state.poll_readable() {
                Poll::Ready(Some(io)) => io,
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            },
        };
        let read = match fast_path::poll_direct_read(&mut self.connection, &mut self.input, io, cx) {
            Some(read) => {
                let read = ready!(read);
                self.budget.charge_direct_read(*read.as_ref().unwrap_or(&0));
                read
            }
            None => {
                // Read less while output is queued: a peer that does not read can make this side keep what it sends.
                let len_max = match is_flushed {
                    true => buffer_pool::READ_BUFFER_LEN,
                    false => UNDRAINED_READ_LEN,
                };
                let read = ready!(self.input.poll_fill(io, len_max, cx));
                self.budget.charge_read();
                read
            }
        };
        match read {
            // Our answer to the peer's close frame is not written yet.
            Ok(0) if self.connection.state() == State::Draining && !is_flushed => self.transport.close_read(),
            Ok(0) => self.end_transport(None),
            Ok(len) => {
                self.input.received_at = self.group.runtime.now();
                self.input.bytes += len as u64;
                self.carry_counts();
            }
            Err(error) => self.end_transport(Some(Error::io(error))),
        }
        Poll::Ready(())
    }

    /// Reads once from a transport that cannot be written to, even if the runtime does not know that it is readable: it
    /// may not have polled the socket since the write failed. Returns whether anything was read.
    #[cold]
    pub(super) fn try_read(&mut self) -> bool {
        let Some(io) = self.transport.io() else {
            return false;
        };
        let len = self.input.try_fill(io);
        if len > 0 {
            self.input.received_at = self.group.runtime.now();
            self.input.bytes += len as u64;
        }
        len > 0
    }
}

/// Passes at most `len_max` bytes of the input to the state machine, and accounts for the work.
#[inline(always)]
pub(super) fn handle_input<'a>(
    connection: &'a mut Connection,
    input: &'a mut Input,
    budget: &mut Budget,
    len_max: usize,
) -> Option<ProtoEvent<'a>> {
    let start = input.pos as usize;
    let end = (input.end as usize).min(start.saturating_add(len_max));
    let received = connection.handle_bytes(input.received_at, &mut input.buffer[start..end]);
    input.pos += received.consumed as u32;
    budget.charge_frame();
    match &received.event {
        Some(ProtoEvent::Chunk { data, last, .. }) => {
            input.messages += u32::from(*last);
            budget.charge_assembled(data.len());
        }
        Some(ProtoEvent::Message { payload, .. }) => {
            input.messages += 1;
            budget.charge_fragments(received.consumed);
            if let Cow::Owned(assembled) = payload {
                input.lease.release();
                budget.charge_assembled(assembled.len());
            }
        }
        _ => budget.charge_fragments(received.consumed),
    }
    received.event
}

/// Returns the message of an event. The state machine has handled other events or recorded them in its close info.
#[inline]
fn to_message(event: ProtoEvent<'_>) -> Option<Message> {
    let ProtoEvent::Message { kind, payload } = event else {
        return None;
    };
    let payload = match payload {
        Cow::Borrowed(bytes) => Payload::copy_from_slice(bytes),
        Cow::Owned(bytes) => message_pool::share(bytes).into(),
    };
    Some(validated_message(kind, payload))
}

/// Returns a message from what `sockeye_proto` delivered as a complete message.
#[inline]
pub(super) fn validated_message(kind: MessageKind, payload: Payload) -> Message {
    // SAFETY: `sockeye_proto` guarantees that the payload of a text message in `Event::Message`, and all chunks of one
    // together, are UTF-8. It validates every byte as it arrives (RFC 6455 §8.1).
    #[allow(unsafe_code)]
    unsafe {
        Message::from_validated(kind, payload)
    }
}
