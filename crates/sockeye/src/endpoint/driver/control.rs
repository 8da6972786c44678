//! Pings, pongs, and events for control frames.

use std::fmt;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use sockeye_proto::ReceiveMode;

use super::Driver;
use crate::error::Error;
use crate::message::event::Event;

impl Driver {
    /// Queues a ping with this payload.
    pub(crate) fn send_ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.check_writable()?;
        self.connection.ping(payload).map_err(|error| self.send_error(error))
    }

    /// Queues an unsolicited pong. Waits only while the queue is full.
    pub(crate) fn poll_feed_pong(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Poll<Result<(), Error>> {
        ready!(self.poll_capacity_for(cx, payload.len()))?;
        self.check_writable()?;
        let out = self.write_queue.buffer_for(payload.len(), self.group.write_buffer_max);
        let sent = self.connection.send_pong(payload, out);
        Poll::Ready(sent.map_err(|error| self.send_error(error)))
    }

    /// Queues a ping, unless one is unanswered. Returns the number of the ping to wait for.
    pub(crate) fn start_ping(&mut self) -> Result<u32, Error> {
        self.check_writable()?;
        self.connection.start_ping().map_err(|error| self.send_error(error))
    }

    /// Waits until this ping or a later one is answered. Writes, and receives ahead.
    pub(crate) fn poll_pong(&mut self, cx: &mut Context<'_>, ping: u32) -> Poll<Result<Duration, Error>> {
        loop {
            if let Some(ended) = self.pong(ping) {
                return Poll::Ready(ended);
            }
            let is_flushed = self.poll_drain(cx).is_ready();
            self.find_close_after_write_failure(cx);
            if is_flushed && self.has_input() && !self.budget.is_spent() && !self.read_buffered_ahead() {
                let is_budget_spent = self.budget.is_spent();
                if !is_budget_spent && self.pong(ping).is_none() {
                    return Poll::Ready(Err(Error::invalid_input(ReadAheadFull)));
                }
            }
            if let Some(ended) = self.pong(ping) {
                return Poll::Ready(ended);
            }
            ready!(self.poll_blocked(cx));
        }
    }

    /// Waits until this ping or a later one is answered. Writes, and waits for the pong that another task will receive.
    pub(crate) fn poll_pong_without_reading(
        &mut self,
        cx: &mut Context<'_>,
        ping: u32,
    ) -> Poll<Result<Duration, Error>> {
        let _ = self.poll_drain(cx);
        self.pong(ping).map_or(Poll::Pending, Poll::Ready)
    }

    /// The round-trip time once the ping is answered, or an error if it never will be.
    fn pong(&self, ping: u32) -> Option<Result<Duration, Error>> {
        if self.connection.is_ping_answered(ping) {
            return self.connection.rtt().map(Ok);
        }
        self.check_open().err().map(Err)
    }

    /// The next message or control frame; `None` after a normal end.
    pub(crate) fn poll_recv_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Event>, Error>> {
        self.observes_control = true;
        loop {
            if !self.budget.is_overdrawn() {
                if self.has_read_ahead()
                    && let Some(event) = self.with_busy_state(|busy| busy.ahead.pop_event())
                {
                    return Poll::Ready(Ok(Some(event)));
                }
                if self.connection.receive_mode() != ReceiveMode::Whole
                    && let Some(event) = self.next_after_streams()
                {
                    return Poll::Ready(Ok(Some(event)));
                }
                if self.connection.receive_mode() == ReceiveMode::Whole && self.has_input() {
                    let message = self.parse_message();
                    if let Some(message) = message {
                        return Poll::Ready(Ok(Some(Event::Message(message))));
                    }
                    if self.has_read_ahead() {
                        continue;
                    }
                }
            }
            if self.is_receive_closed() {
                return self.poll_end(cx).map_ok(|end| end.map(Event::Message));
            }
            ready!(self.poll_io(cx));
        }
    }
}

/// Converts a control frame into an event for the application.
pub(super) fn control_event(event: &sockeye_proto::Event<'_>) -> Option<Event> {
    match event {
        sockeye_proto::Event::Ping(payload) => Some(Event::Ping(Bytes::copy_from_slice(payload))),
        sockeye_proto::Event::Pong(payload) => Some(Event::Pong(Bytes::copy_from_slice(payload))),
        _ => None,
    }
}

/// Error of a ping whose pong is behind more messages than may be received ahead.
#[derive(Debug)]
struct ReadAheadFull;

impl fmt::Display for ReadAheadFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the pong waits behind more messages than Limits::read_ahead_max: receive them, or split the connection",
        )
    }
}

impl std::error::Error for ReadAheadFull {}
