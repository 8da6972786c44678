//! Waits for a full transport, for other tasks, and for deadlines.

use std::task::{Context, Poll, ready};

use sockeye_proto::Instant;

use super::Driver;
use crate::endpoint::busy_state::BusyState;
use crate::error::{Error, Kind};
use crate::message::event::Event;
use crate::transport::Transport;

impl Driver {
    /// Called when [`poll_drain`](Self::poll_drain) is pending. Reads ahead, so that a peer that waits for this side to
    /// read can continue, and checks the deadlines. Ready when writing should be tried again.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.budget.is_spent() && self.poll_read_ahead(cx).is_ready() {
            return Poll::Ready(());
        }
        match self.budget.is_spent() {
            true => self.poll_yield(cx),
            false => self.poll_deadline(cx),
        }
    }

    /// Reads once and parses the messages ahead. Also pending if no more may be read ahead or the budget is spent.
    pub(super) fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.read_buffered_ahead() {
            return Poll::Pending;
        }
        let is_flushed = self.is_flushed();
        ready!(self.poll_read(cx, is_flushed));
        self.read_buffered_ahead();
        Poll::Ready(())
    }

    /// Parses the messages in the input ahead. Returns whether all input was consumed; stops early if no more may be
    /// read ahead or the budget is spent.
    #[cold]
    pub(super) fn read_buffered_ahead(&mut self) -> bool {
        while self.has_input() {
            let cost = self.busy.as_ref().map_or(0, |busy| busy.ahead.cost());
            if cost >= self.group.read_ahead_max || self.budget.is_spent() {
                return false;
            }
            // Also `None` if a message is partly inflated, which spends the budget.
            if let Some(message) = self.parse_message() {
                self.with_busy_state(|busy| busy.ahead.push(Event::Message(message)));
            }
        }
        true
    }

    /// If writing has failed, receives what arrived before. It may include a close frame, which explains the end better
    /// than a broken pipe, and which `recv` reports.
    #[inline]
    pub(super) fn find_close_after_write_failure(&mut self, cx: &mut Context<'_>) {
        if self.transport.is_write_failed() {
            self.read_after_write_failure(cx);
        }
    }

    #[cold]
    pub(super) fn read_after_write_failure(&mut self, cx: &mut Context<'_>) {
        while self.transport.is_write_failed()
            && !self.is_receive_closed()
            && !self.budget.is_spent()
            && self.read_buffered_ahead()
        {
            let is_flushed = self.is_flushed();
            if self.poll_read(cx, is_flushed).is_pending() && !self.try_read() {
                return;
            }
        }
        self.read_buffered_ahead();
    }

    /// Called when the budget is spent. Checks the deadlines, then lets other tasks run unless the connection is over.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_yield(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.budget.reset();
        self.handle_deadlines(self.runtime().now());
        if self.is_transport_ended() {
            return Poll::Ready(());
        }
        self.runtime().reschedule(cx);
        Poll::Pending
    }

    /// Ready once a deadline has passed and was handled.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.next_deadline() else {
            return Poll::Pending;
        };
        ready!(self.timer.poll(self.group.runtime, cx, deadline));
        self.handle_deadlines(self.runtime().now());
        Poll::Ready(())
    }

    /// When the connection has to be polled again, if nothing happens before.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        earlier_of(self.connection.poll_timeout(), self.write_deadline())
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_deadlines(&mut self, now: Instant) {
        if self.write_deadline().is_some_and(|deadline| now >= deadline) {
            self.check_write_rate(now);
        }
        if self.busy.is_some() {
            self.with_busy_state(|busy| {
                busy.drain_estimate.take_if(|drain_estimate| *drain_estimate <= now);
            });
        }
        // Nothing is read while a message is being inflated, so the peer may not be silent.
        if !self.connection.is_inflating() {
            let is_due = self.connection.poll_timeout().is_some_and(|deadline| now >= deadline);
            if is_due && self.connection.is_awaiting_pong() && self.has_peer_read() {
                self.connection.handle_write_progress(now);
            }
            self.connection.handle_timeout(now);
        }
    }

    /// Whether the peer has read anything since the last call or since the ping was written, according to TCP.
    ///
    /// Everything before the ping may be in the buffers of the two kernels. The local transport is then never full, and
    /// only the TCP window shows that a slow peer reads.
    #[cold]
    fn has_peer_read(&mut self) -> bool {
        let edge = self.transport.io().and_then(Transport::window_edge);
        let before = std::mem::replace(&mut self.window_edge, edge);
        edge.is_some() && edge != before
    }

    pub(super) fn write_deadline(&self) -> Option<Instant> {
        self.stall().map(|stall| stall.deadline(self.group.write_timeout))
    }

    /// Fails the connection if the peer takes less than [`Limits::write_rate_min`](crate::Limits::write_rate_min).
    #[cold]
    pub(super) fn check_write_rate(&mut self, now: Instant) {
        if let Some(io) = self.transport.io()
            && self.write_queue.try_write(io) > 0
        {
            self.connection.handle_write_progress(now);
        }
        let (written, taken_min) = (self.write_queue.written_total(), u64::from(self.group.write_taken_min));
        let is_fast_enough = self.with_busy_state(|busy| match &mut busy.stall {
            Some(stall) => stall.end_period(now, written, taken_min),
            None => true,
        });
        if !is_fast_enough {
            let is_full = |busy: &BusyState| busy.ahead.cost() >= self.group.read_ahead_max.max(1);
            let kind = match self.busy.as_deref().is_some_and(is_full) {
                true => Kind::MutualStall,
                false => Kind::Stalled,
            };
            self.fail(Error::new(kind));
        }
    }
}

fn earlier_of(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
