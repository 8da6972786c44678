//! Room in the send queue: whether a message may be queued, reservations, and since when the queue has been full.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use sockeye_proto::{SendError, State};

use super::Driver;
use crate::endpoint::reservations::WaiterId;
use crate::error::Error;

impl Driver {
    /// Ready when a message of this length may be queued.
    #[inline]
    pub(crate) fn poll_capacity_for(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<(), Error>> {
        match self.has_capacity_for(len) {
            true => Poll::Ready(Ok(())),
            false => self.poll_until_capacity_for(cx, len),
        }
    }

    #[cold]
    fn poll_until_capacity_for(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<(), Error>> {
        while !self.has_capacity_for(len) {
            ready!(self.poll_more_capacity(cx))?;
            if self.is_flushed() && !self.has_capacity_for(len) {
                // The capacity is reserved. Releasing it wakes this task.
                self.with_busy_state(|busy| busy.reservations.record_blocked());
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is queued, once or until the transport is full. Ready when there may be more capacity.
    pub(super) fn poll_more_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // There will never be capacity again.
        if self.connection.state() != State::Open {
            return Poll::Ready(Err(self.send_error(SendError::Closed)));
        }
        self.record_queue_full();
        if self.poll_drain(cx).is_pending() {
            ready!(self.poll_blocked(cx));
        }
        self.find_close_after_write_failure(cx);
        Poll::Ready(self.check_writable())
    }

    /// Whether a message of this length may be queued with [`queue`](Self::queue).
    #[inline]
    pub(crate) fn has_capacity_for(&self, len: usize) -> bool {
        match &self.busy {
            None => self.fits(0, len),
            Some(busy) => {
                let reservations = &busy.reservations;
                !busy.is_message_open() && !reservations.has_waiters() && self.fits(reservations.len(), len)
            }
        }
    }

    /// Whether `len` bytes fit into the queue beside `reserved` bytes. A message of any length fits into an empty
    /// queue.
    #[inline]
    pub(super) fn fits(&self, reserved: usize, len: usize) -> bool {
        let used_len = self.write_queue.len().saturating_add(reserved);
        used_len == 0 || used_len.saturating_add(len) <= self.group.write_buffer_max
    }

    /// The number of bytes that are queued or reserved.
    pub(crate) fn used_len(&self) -> usize {
        let busy = self.busy.as_ref();
        let reserved = busy.map_or(0, |busy| busy.reservations.len());
        self.write_queue.len().saturating_add(reserved)
    }

    /// Whether nothing can be queued, whatever its length: behind a message that is being sent in parts, or while tasks
    /// wait for a reservation.
    pub(crate) fn is_queue_blocked(&self) -> bool {
        let busy = self.busy.as_ref();
        busy.is_some_and(|busy| busy.is_message_open() || busy.reservations.has_waiters())
    }

    /// Reserves capacity for `len` bytes. Tasks get their reservations in the order in which they first called this;
    /// `waiter` stores the place of a waiting task. Returns whether other tasks may have capacity now.
    pub(crate) fn poll_reserve(
        &mut self,
        cx: &mut Context<'_>,
        waiter: &mut Option<WaiterId>,
        len: usize,
    ) -> Poll<Result<bool, Error>> {
        loop {
            if let Err(error) = self.check_open() {
                self.cancel_reserve(waiter);
                return Poll::Ready(Err(error));
            }
            if let Some(wakes) = self.try_reserve(waiter, len) {
                return Poll::Ready(Ok(wakes));
            }
            self.with_busy_state(|busy| busy.reservations.enqueue(waiter, len));
            if let Err(error) = ready!(self.poll_more_capacity(cx)) {
                self.cancel_reserve(waiter);
                return Poll::Ready(Err(error));
            }
            if self.is_flushed() && !self.can_reserve(*waiter, len) {
                // The capacity is reserved, or another task is first.
                return Poll::Pending;
            }
        }
    }

    /// Reserves capacity for `len` bytes, if there is capacity and this waiter is first. Returns whether other tasks
    /// may have capacity now.
    pub(crate) fn try_reserve(&mut self, waiter: &mut Option<WaiterId>, len: usize) -> Option<bool> {
        if !self.can_reserve(*waiter, len) {
            return None;
        }
        self.add_reservation(len);
        Some(self.cancel_reserve(waiter))
    }

    fn can_reserve(&self, waiter: Option<WaiterId>, len: usize) -> bool {
        match &self.busy {
            None => self.fits(0, len),
            Some(busy) => {
                let reservations = &busy.reservations;
                !busy.is_message_open() && reservations.is_next(waiter) && self.fits(reservations.len(), len)
            }
        }
    }

    /// Reserves capacity for `len` bytes, regardless of the limit.
    pub(crate) fn add_reservation(&mut self, len: usize) {
        self.with_busy_state(|busy| busy.reservations.add(len));
    }

    /// Releases a reservation. Returns whether a task may wait for its capacity.
    pub(crate) fn release_reservation(&mut self, len: usize) -> bool {
        self.busy.is_some() && self.with_busy_state(|busy| busy.reservations.remove(len))
    }

    /// Removes a task from the wait queue for reservations. Returns whether other tasks may have capacity now.
    pub(crate) fn cancel_reserve(&mut self, waiter: &mut Option<WaiterId>) -> bool {
        let Some(waiter) = waiter.take() else { return false };
        let unblocks_others =
            self.busy.is_some() && self.with_busy_state(|busy| busy.reservations.remove_waiter(waiter));
        unblocks_others || self.can_next_reserve()
    }

    /// Whether the task that is first in the wait queue can get its reservation now.
    fn can_next_reserve(&self) -> bool {
        let busy = self.busy.as_deref();
        busy.is_some_and(|busy| {
            let first = busy.reservations.first_waiter_len();
            first.is_some_and(|len| !busy.is_message_open() && self.fits(busy.reservations.len(), len))
        })
    }

    /// Records that a message found no capacity. Returns the time since when this is so.
    #[cold]
    pub(crate) fn record_queue_full(&mut self) -> Instant {
        let runtime = self.runtime();
        let since = self.with_busy_state(|busy| *busy.full_since.get_or_insert_with(|| runtime.now()));
        runtime.to_std(since)
    }

    /// Records that a message was accepted, or that the queue is empty.
    #[inline]
    pub(crate) fn clear_queue_full(&mut self) {
        if self.busy.is_some() {
            self.clear_full_since();
        }
    }

    #[cold]
    fn clear_full_since(&mut self) {
        self.with_busy_state(|busy| busy.full_since = None);
    }

    /// Since when messages have found no capacity. `None` while there is capacity.
    pub(crate) fn full_since(&self) -> Option<sockeye_proto::Instant> {
        self.busy.as_ref()?.full_since
    }
}
