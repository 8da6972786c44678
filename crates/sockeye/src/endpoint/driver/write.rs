//! Writes what is queued.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use sockeye_proto::{State, TransportAction};

use super::{Driver, FlushTarget, WriteOutcome};
use crate::endpoint::busy_state::{BusyState, Stall};
use crate::endpoint::compress_job::CompressJob;
use crate::error::Error;
use crate::transport::Transport;

/// A peer that empties its transport faster than this is not considered slow.
const SLOW_DRAIN: Duration = Duration::from_secs(1);

impl Driver {
    /// Writes everything that is queued.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.poll_drain(cx).is_pending() {
            ready!(self.poll_blocked(cx));
        }
        self.find_close_after_write_failure(cx);
        self.carry_counts();
        self.report_counts();
        match self.check_flushed() {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.poll_error(cx, error),
        }
    }

    /// Writes everything that was queued at the first call with this `end`.
    pub(crate) fn poll_flush_to(&mut self, cx: &mut Context<'_>, end: &mut FlushTarget) -> Poll<Result<(), Error>> {
        while self.poll_drain(cx).is_pending() {
            self.find_flush_target(end);
            if let FlushTarget::At(end) = *end
                && self.write_queue.written_total() >= end
                && self.poll_flush_transport(cx).is_ready()
            {
                break;
            }
            ready!(self.poll_blocked(cx));
        }
        self.find_close_after_write_failure(cx);
        self.carry_counts();
        self.report_counts();
        match self.check_flushed() {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.poll_error(cx, error),
        }
    }

    /// Writes what is queued, on behalf of the tasks that wait for the connection. Compresses at most one part of a
    /// large message.
    pub(crate) fn write_queued(&mut self, cx: &mut Context<'_>) -> WriteOutcome {
        let (was_terminated, was_stalled) = (self.is_terminated(), self.stall().is_some());
        let was_compressing = self.compress_job().is_some();
        let written_before = self.write_queue.written_total();
        self.budget.reset();
        self.carry_counts();
        let drained = self.poll_drain(cx);
        let written = self.write_queue.written_total().saturating_sub(written_before);
        let work = written.max(self.budget.spent());
        let is_stalled = self.stall().is_some();
        let is_unfinished = drained.is_pending() && self.budget.is_spent() && !is_stalled;
        self.report_counts();
        // This used the caller's budget, not that of the connection's tasks.
        self.budget.reset();
        // A new stall has a deadline that the waiting tasks do not know yet. During a stall they wait for the peer to
        // take the first byte.
        let has_stall_changed = is_stalled != was_stalled || (was_stalled && written > 0);
        let has_capacity_again = was_compressing && self.compress_job().is_none();
        WriteOutcome {
            work,
            is_unfinished,
            wake_waiters: has_stall_changed
                || has_capacity_again
                || self.is_terminated() != was_terminated
                || self.connection.state() != State::Open,
        }
    }

    fn find_flush_target(&self, end: &mut FlushTarget) {
        *end = match (*end, self.compress_job().map(CompressJob::start)) {
            (FlushTarget::At(_), _) => return,
            (FlushTarget::AfterCompressJob(start), Some(present)) if start == present => return,
            _ if self.connection.wants_transmit() || self.has_undroppable_deferred() => return,
            (FlushTarget::Unknown, Some(start)) => FlushTarget::AfterCompressJob(start),
            (FlushTarget::Unknown | FlushTarget::AfterCompressJob(_), _) => FlushTarget::At(self.write_queue.end()),
        };
    }

    /// Queues the control frames that the protocol has to send: pongs, pings, the close frame.
    #[inline]
    pub(super) fn queue_control(&mut self) {
        if self.connection.wants_transmit() {
            self.append_control();
        }
    }

    #[cold]
    #[inline(never)]
    fn append_control(&mut self) {
        self.write_queue.append_control(self.group.write_buffer_max, |out| {
            self.connection.poll_transmit(out);
        });
    }

    /// Writes everything that is queued and the control frames, then shuts down the writing direction if the protocol
    /// requests it. Stores a failure. Also pending if there is more to compress and the budget is spent.
    // [6455-6.1-7, 6455-7.1.1-1]
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.queue_control();
            if self.is_flushed() {
                self.write_queue.release();
                self.clear_queue_full();
                break;
            }
            let Some(io) = self.transport.writable() else {
                self.drop_output();
                break;
            };
            if self.write_queue.is_flushed() {
                // Deferred messages wait for the end of a streamed message, whose writer then wakes everyone.
                if self.budget.is_spent() || self.is_streaming() {
                    return Poll::Pending;
                }
                self.encode_next();
                continue;
            }
            let written_before = self.write_queue.written_total();
            let drained = self.write_queue.poll_write(io, cx);
            if self.stall().is_some() {
                let has_written = self.write_queue.written_total() > written_before;
                self.record_write_progress(has_written, drained.is_ready());
            }
            if self.write_queue.take_control_written() {
                self.record_control_written();
            }
            match drained {
                // Common case: done. Saves 25 instructions over another iteration.
                Poll::Ready(Ok(())) if self.busy.is_none() && !self.has_more_to_write() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => self.finish_sample(),
                Poll::Ready(Err(error)) => self.transport.fail_write(Error::io(error)),
                Poll::Pending => {
                    self.finish_sample();
                    if self.stall().is_none() {
                        let written_total = self.write_queue.written_total();
                        let stall = Stall::new(self.runtime().now(), written_total, written_total - written_before);
                        self.with_busy_state(|busy| busy.stall = Some(stall));
                    }
                    return Poll::Pending;
                }
            }
        }
        if self.connection.transport_action() == TransportAction::HalfClose
            && let Some(io) = self.transport.write_open()
        {
            // If this fails, the transport has already ended, which the next read reports.
            let _ = ready!(io.poll_shutdown(cx));
            self.transport.close_write();
        }
        Poll::Ready(())
    }

    /// Updates the stall after an attempt to write to a full transport.
    #[cold]
    fn record_write_progress(&mut self, has_written: bool, is_flushed: bool) {
        if has_written {
            self.connection.handle_write_progress(self.runtime().now());
        }
        if is_flushed {
            let (now, written_total) = (self.runtime().now(), self.write_queue.written_total());
            self.with_busy_state(|busy| {
                let drain_time = busy.stall.take().map(|stall| stall.drain_time(now, written_total));
                busy.drain_estimate = drain_time.filter(|time| *time >= SLOW_DRAIN).map(|time| now + time);
            });
        }
    }

    /// Called when a ping or a close frame was written. The peer's time to answer starts once it has read everything
    /// before that frame.
    #[cold]
    fn record_control_written(&mut self) {
        let (now, written_total) = (self.runtime().now(), self.write_queue.written_total());
        let drain_time = |busy: &BusyState| match (&busy.stall, busy.drain_estimate) {
            (Some(stall), _) => stall.drain_time(now, written_total),
            (None, Some(drain_estimate)) => drain_estimate - now,
            (None, None) => Duration::ZERO,
        };
        let delay = self.busy.as_deref().map_or(Duration::ZERO, drain_time);
        if !self.connection.is_awaiting_pong() {
            self.window_edge = self.transport.io().and_then(Transport::window_edge);
        }
        self.connection.handle_transmitted_with_delay(now, delay);
    }

    /// Whether [`poll_drain`](Self::poll_drain) would do nothing.
    #[inline]
    pub(super) fn has_nothing_to_write(&self) -> bool {
        self.is_flushed() && !self.has_more_to_write()
    }

    /// Whether more must be written after the queue is drained: pending protocol output, or a closing handshake.
    #[inline]
    fn has_more_to_write(&self) -> bool {
        self.connection.wants_transmit() || self.connection.state() != State::Open
    }

    /// Whether everything that was queued has been written.
    #[inline]
    pub(super) fn is_flushed(&self) -> bool {
        self.write_queue.is_flushed() && !self.has_unencoded()
    }

    pub(super) fn drop_output(&mut self) {
        self.has_dropped_output |= !self.write_queue.is_flushed();
        self.write_queue.clear();
        self.cancel_compress_job();
        self.drop_deferred();
        self.cancel_sample();
    }

    fn poll_flush_transport(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(io) = self.transport.writable()
            && let Err(error) = ready!(io.poll_flush(cx))
        {
            self.transport.fail_write(Error::io(error));
        }
        Poll::Ready(())
    }
}
