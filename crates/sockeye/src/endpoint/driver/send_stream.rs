//! Sending a message in fragments while it is produced.

use std::task::{Context, Poll, ready};

use sockeye_proto::{Compress, Data, Fragment};

use super::Driver;
use crate::error::Error;

/// A fragment of a message that is sent as a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamFragment<'a> {
    pub(crate) data: Data<'a>,
    pub(crate) fragment: Fragment,
    /// Whether this is the first fragment.
    pub(crate) is_first: bool,
    pub(crate) compress: Compress,
}

impl Driver {
    /// Queues the next fragment of a message, and writes what the transport takes. Waits while the queue is full;
    /// before the first fragment, also while another message is being sent in parts.
    pub(crate) fn poll_feed_fragment(
        &mut self,
        cx: &mut Context<'_>,
        part: StreamFragment<'_>,
    ) -> Poll<Result<(), Error>> {
        if self.budget.is_spent() {
            ready!(self.poll_yield(cx));
        }
        let len = part.data.bytes().len();
        match part.is_first {
            true => ready!(self.poll_capacity_for(cx, len))?,
            false => ready!(self.poll_capacity_for_fragment(cx, len))?,
        }
        self.check_open()?;
        self.queue_fragment(part)?;
        self.carry_counts();
        // If this is pending or fails, the next call continues or reports the failure.
        let _ = self.poll_drain(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_capacity_for_fragment(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<(), Error>> {
        let reserved = |driver: &Self| driver.busy.as_ref().map_or(0, |busy| busy.reservations.len());
        while !self.fits(reserved(self), len) {
            ready!(self.poll_more_capacity(cx))?;
            if self.write_queue.is_flushed() && !self.fits(reserved(self), len) {
                // The capacity is reserved. Releasing it wakes this task.
                self.with_busy_state(|busy| busy.reservations.record_blocked());
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn queue_fragment(&mut self, part: StreamFragment<'_>) -> Result<(), Error> {
        let StreamFragment {
            data,
            fragment,
            is_first,
            compress,
        } = part;
        let len = data.bytes().len();
        let would_compress = is_first && self.connection.would_compress(len, compress);
        let out = self.write_queue.buffer_for(len, self.group.write_buffer_max);
        let sent = match (is_first, fragment) {
            // The whole message.
            (true, Fragment::Last) => self.connection.send_with(data, compress, out),
            (true, Fragment::More) if would_compress => match self.connection.start_compressed(data, out) {
                Ok(false) => self.connection.send_fragment(data, fragment, out),
                started => started.map(drop),
            },
            _ => self.connection.send_fragment(data, fragment, out),
        };
        sent.map_err(|error| self.send_error(error))?;
        if would_compress || self.connection.is_compressing() {
            self.budget.charge_compressed(len);
        }
        if self.is_streaming() != (fragment == Fragment::More) {
            self.with_busy_state(|busy| busy.reservations.is_streaming = fragment == Fragment::More);
        }
        if fragment == Fragment::Last {
            self.write_queue.messages += 1;
            self.clear_queue_full();
        }
        Ok(())
    }

    /// Writes everything that was encoded at the first call with this `end`. Does not wait for messages behind a
    /// streamed one.
    pub(crate) fn poll_flush_fragments(
        &mut self,
        cx: &mut Context<'_>,
        end: &mut Option<u64>,
    ) -> Poll<Result<(), Error>> {
        let end = *end.get_or_insert(self.write_queue.end());
        while self.write_queue.written_total() < end && self.poll_drain(cx).is_pending() {
            if self.write_queue.written_total() >= end {
                break;
            }
            ready!(self.poll_blocked(cx));
        }
        self.find_close_after_write_failure(cx);
        self.check_writable()?;
        match self.write_queue.written_total() < end {
            true => Poll::Ready(self.check_flushed()),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Whether the beginning of a streamed message is queued, and its end is not.
    #[inline]
    pub(super) fn is_streaming(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.reservations.is_streaming)
    }

    /// Gives up a streamed message: the connection is closing. The peer cannot take the part that it has received for a
    /// complete message, because the close frame follows.
    pub(crate) fn abandon_fragments(&mut self) {
        if self.is_streaming() {
            self.connection.abandon_message();
            self.has_dropped_output = true;
            self.with_busy_state(|busy| busy.reservations.is_streaming = false);
        }
    }
}
