//! Where a connection waits: for a full transport, for its turn, for a deadline.

use std::pin::pin;
use std::task::{Context, Poll, ready};

use sockeye_proto::Instant;

use super::{Driver, earlier};
use crate::endpoint::backlog::Backlog;
use crate::error::{Error, Kind};
use crate::message::event::Event as MessageEvent;
use crate::runtime::clock;
use crate::transport::Transport;

impl Driver {
    /// Waits where [`poll_drain`](Self::poll_drain) is pending: reads ahead, so that a peer which waits for us to read can
    /// go on and read too, and watches the deadlines. Ready when it is worth trying to write again.
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

    /// Receives once, into the backlog. Pending also where the backlog is full, or other tasks are to have their turn first.
    pub(super) fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.receive_into_backlog() {
            return Poll::Pending;
        }
        ready!(self.poll_read(cx));
        self.receive_into_backlog();
        Poll::Ready(())
    }

    /// Moves messages from what was received to the backlog, for later. Returns whether that was all: it stops where the
    /// backlog is full and where other tasks are to have their turn.
    #[cold]
    pub(super) fn receive_into_backlog(&mut self) -> bool {
        while self.has_input() {
            let cost = self.backlog.as_ref().map_or(0, |backlog| backlog.ahead.cost());
            if cost >= self.settings.read_ahead_max || self.budget.is_spent() {
                return false;
            }
            // None also where a message is inflated in part, which ends the turn.
            if let Some(message) = self.next_whole_message().or_else(|| self.next_assembled_message()) {
                self.change_backlog(|backlog| backlog.ahead.push(MessageEvent::Message(message)));
            }
        }
        true
    }

    /// Where writing has failed: receives what had arrived before. If a close frame is among it, that says more of the end
    /// than a broken pipe does, and `recv` will say the same.
    #[inline]
    pub(super) fn find_close_after_write_failure(&mut self, cx: &mut Context<'_>) {
        if self.has_only_write_failed {
            self.read_after_write_failure(cx);
        }
    }

    #[cold]
    pub(super) fn read_after_write_failure(&mut self, cx: &mut Context<'_>) {
        while self.has_only_write_failed && !self.has_ended() && !self.budget.is_spent() && self.receive_into_backlog()
        {
            if self.poll_read(cx).is_pending() && !self.try_read_after_write_failure() {
                return;
            }
        }
        self.receive_into_backlog();
    }

    /// Reads once from a transport that cannot be written to, whether or not the runtime knows that there is something: it
    /// may not have looked since the write failed. Returns whether there was.
    #[cold]
    pub(super) fn try_read_after_write_failure(&mut self) -> bool {
        let Some(io) = &mut self.io else { return false };
        self.input.try_fill(io)
    }

    /// Ends the turn: looks at the deadlines, and lets other tasks have theirs unless one has passed that ends all.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_yield(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.budget.reset();
        self.handle_deadlines(clock::now());
        if self.is_over() {
            return Poll::Ready(());
        }
        // Not `wake_by_ref`: the runtime would poll this task again before it looks at any other socket.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }

    /// Ready when a deadline passed and was dealt with.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = earlier(self.connection.poll_timeout(), self.write_deadline()) else {
            return Poll::Pending;
        };
        ready!(self.timer.poll(cx, deadline));
        self.handle_deadlines(clock::now());
        Poll::Ready(())
    }

    /// Does what is due, if any deadline has passed.
    pub(super) fn handle_deadlines(&mut self, now: Instant) {
        if self.write_deadline().is_some_and(|deadline| now >= deadline) {
            self.check_write_rate(now);
        }
        if self.backlog.is_some() {
            self.change_backlog(|backlog| {
                backlog.drained_at.take_if(|drained_at| *drained_at <= now);
            });
        }
        // While a message is being inflated nothing is read, and the peer's silence is our own doing.
        if !self.connection.is_inflating() {
            let is_due = self.connection.poll_timeout().is_some_and(|deadline| now >= deadline);
            if is_due && self.connection.is_awaiting_pong() && self.has_peer_read() {
                self.connection.handle_write_progress(now);
            }
            self.connection.handle_timeout(now);
        }
    }

    /// Whether the peer has read anything since this was last asked, or since its ping was written, as far as TCP knows.
    ///
    /// What a slow peer reads may all be in the buffers of the two kernels, with the ping at its end. Then our transport is
    /// never full, and nothing else shows that the peer reads.
    #[cold]
    fn has_peer_read(&mut self) -> bool {
        let edge = self.io.as_ref().and_then(Transport::window_edge);
        let before = std::mem::replace(&mut self.window_edge, edge);
        edge.is_some() && edge != before
    }

    pub(super) fn write_deadline(&self) -> Option<Instant> {
        self.stall().map(|stall| stall.deadline(self.settings.write_timeout))
    }

    /// Gives up a peer that takes less than the least rate.
    #[cold]
    pub(super) fn check_write_rate(&mut self, now: Instant) {
        if let Some(io) = &self.io
            && self.output.try_write(io) > 0
        {
            self.connection.handle_write_progress(now);
        }
        let (written, taken_min) = (self.output.written_total(), self.settings.write_taken_min);
        let is_fast_enough = self.change_backlog(|backlog| match &mut backlog.stall {
            Some(stall) => stall.renew(now, written, taken_min),
            None => true,
        });
        if !is_fast_enough {
            let is_full = |backlog: &Backlog| backlog.ahead.cost() >= self.settings.read_ahead_max.max(1);
            let kind = match self.backlog.as_deref().is_some_and(is_full) {
                true => Kind::StalledBoth,
                false => Kind::Stalled,
            };
            self.fail(Error::new(kind));
        }
    }
}
