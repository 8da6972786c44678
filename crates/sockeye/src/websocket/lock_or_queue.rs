//! Operations on a split connection. Each locks it or, if another task holds the lock, queues a command for that task.

use std::sync::Arc;
use std::task::{Context, Poll};

use sockeye_proto::CloseCode;

use crate::endpoint::{DeferredMessage, LimitCheck, WaiterId, WriteOutcome};
use crate::error::Error;
use crate::message::outbound::Outbound;
use crate::websocket::command_queue::{Command, NotQueued};
use crate::websocket::guard::ConnectionGuard;
use crate::websocket::permit::TryReserveError;
use crate::websocket::shared::Shared;
use crate::websocket::snapshot::FlushedBy;
use crate::websocket::try_lock::{QueueMode, Request};
use crate::websocket::try_send::{TrySendError, try_send};
use crate::websocket::wakers::SlotKey;

impl Shared {
    /// Locks the connection, unless another task holds it.
    #[inline]
    pub(crate) fn try_lock(self: &Arc<Self>, queue_mode: QueueMode) -> Option<ConnectionGuard<'_>> {
        let guard = self.lock.try_lock(queue_mode)?;
        Some(ConnectionGuard::new(self, guard))
    }

    /// Polls for one task, and registers the task if the result is pending.
    ///
    /// If the connection is locked, calls `if_locked`, which may complete the operation through the command queue. If
    /// that fails, the task waits until the connection is unlocked.
    #[inline]
    pub(crate) fn poll<R>(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        queue_mode: QueueMode,
        if_locked: impl Fn() -> Result<R, NotQueued>,
        poll: impl FnOnce(&mut ConnectionGuard<'_>, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        loop {
            if let Some(guard) = self.try_lock(queue_mode) {
                return guard.poll(slot, cx, poll);
            }
            match if_locked() {
                Ok(result) => {
                    self.release(slot);
                    return Poll::Ready(result);
                }
                Err(NotQueued::Unlocked) => {}
                Err(NotQueued::NeedsLock | NotQueued::Full | NotQueued::Closed(_)) => {
                    if self.wait_for_lock(slot, cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Polls until a message is queued or added to the command queue.
    #[inline]
    pub(crate) fn poll_queue(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        message: &Outbound,
    ) -> Poll<Result<(), Error>> {
        let enqueue = || self.try_enqueue(message).map(Ok);
        let queue_mode = self.queue_mode_for(message);
        self.poll(slot, cx, queue_mode, enqueue, |guard, cx| {
            guard.driver.poll_feed(cx, message)
        })
    }

    /// Reserves capacity without waiting.
    pub(super) fn try_reserve(self: &Arc<Self>, len: usize) -> Result<(), TryReserveError> {
        loop {
            if let Some(mut guard) = self.try_lock(QueueMode::Open) {
                let driver = &mut guard.driver;
                driver.check_open().map_err(TryReserveError::Closed)?;
                return match driver.try_reserve(&mut None, len) {
                    Some(_) => Ok(()),
                    None => Err(TryReserveError::Full {
                        queued_bytes: driver.queued_len(),
                        since: driver.record_queue_full(),
                    }),
                };
            }
            match self.try_enqueue_reservation(len) {
                Ok(()) => return Ok(()),
                Err(NotQueued::Unlocked) => {}
                Err(NotQueued::Closed(error)) => return Err(TryReserveError::Closed(error)),
                Err(NotQueued::NeedsLock | NotQueued::Full) => {
                    return Err(TryReserveError::Full {
                        queued_bytes: self.queued_bytes(),
                        since: self.snapshot().record_queue_full(self.runtime),
                    });
                }
            }
        }
    }

    /// Queues a message for which `reserved` bytes were reserved, and schedules a flush. Uses up the reservation.
    pub(super) fn send_with_permit(self: &Arc<Self>, message: Outbound, reserved: usize) -> Result<(), TrySendError> {
        loop {
            if let Some(mut guard) = self.try_lock(self.queue_mode_for(&message)) {
                guard.release_reservation(reserved);
                if message.len() <= reserved {
                    guard.driver.queue_accepted(message).map_err(TrySendError::Closed)?;
                    guard.driver.clear_queue_full();
                } else {
                    try_send(&mut guard.driver, message)?;
                }
                guard.request_flush();
                return Ok(());
            }
            match self.try_enqueue_with_permit(&message, reserved) {
                Ok(()) => return Ok(()),
                Err(NotQueued::Unlocked) => {}
                Err(not_queued) => {
                    self.release_reservation(reserved);
                    return Err(self.try_send_error(not_queued, message));
                }
            }
        }
    }

    /// Releases a reservation.
    pub(super) fn release_reservation(self: &Arc<Self>, len: usize) {
        loop {
            if let Some(mut guard) = self.try_lock(QueueMode::Open) {
                guard.release_reservation(len);
                return;
            }
            if self.force_enqueue(|| Command::ReleaseReservation(len)) {
                return;
            }
        }
    }

    /// Removes a task from the wait queue for reservations.
    pub(super) fn cancel_reserve(self: &Arc<Self>, waiter: WaiterId) {
        loop {
            if let Some(mut guard) = self.try_lock(QueueMode::Open) {
                guard.cancel_reserve(waiter);
                return;
            }
            if self.force_enqueue(|| Command::CancelReserve(waiter)) {
                return;
            }
        }
    }

    /// Queues or defers a message of an outbox, and schedules a flush. Returns `false` if it needs capacity and there
    /// is none.
    pub(super) fn queue_or_defer(self: &Arc<Self>, deferred: DeferredMessage) -> Result<bool, Error> {
        loop {
            // The command queue is closed while a large message is being queued: see `queue_mode_for`.
            if let Some(mut guard) = self.try_lock(self.queue_mode_for(&deferred.message)) {
                let is_accepted = guard.driver.queue_or_defer(deferred, LimitCheck::Enforce)?;
                if is_accepted {
                    guard.request_flush();
                }
                return Ok(is_accepted);
            }
            match self.try_enqueue_deferred(&deferred) {
                Ok(()) => return Ok(true),
                Err(NotQueued::Unlocked) => {}
                Err(NotQueued::NeedsLock | NotQueued::Full) => return Ok(false),
                Err(NotQueued::Closed(error)) => return Err(error),
            }
        }
    }

    /// Begins the closing handshake, now or when the lock holder unlocks the connection.
    pub(crate) fn start_close(self: &Arc<Self>, code: CloseCode, reason: &str) {
        loop {
            if let Some(mut guard) = self.try_lock(QueueMode::Closed) {
                // The caller has already checked code and reason, or was dropped.
                let _ = guard.start_close(code, reason);
                guard.request_flush();
                return;
            }
            if self.force_enqueue(|| Command::Close(code, reason.into())) {
                return;
            }
        }
    }

    /// Closes the transport immediately, or has the lock holder do it.
    pub(crate) fn abort(self: &Arc<Self>) {
        self.execute(|guard| guard.abort(), || Command::Abort);
    }

    /// Aborts the connection, unless the closing handshake has begun.
    pub(crate) fn abort_if_open(self: &Arc<Self>) {
        self.execute(|guard| guard.abort_if_open(), || Command::AbortIfOpen);
    }

    /// Closes the connection, because a streamed message will not be finished.
    pub(super) fn close_unfinished_message(self: &Arc<Self>) {
        loop {
            if let Some(mut guard) = self.try_lock(QueueMode::Closed) {
                guard.close_unfinished_message();
                guard.request_flush();
                return;
            }
            if self.force_enqueue(|| Command::CloseUnfinishedMessage) {
                return;
            }
        }
    }

    /// Calls `if_free`, or has the lock holder execute `command`.
    fn execute(self: &Arc<Self>, if_free: fn(&mut ConnectionGuard<'_>), command: fn() -> Command) {
        loop {
            if let Some(mut guard) = self.try_lock(QueueMode::Closed) {
                if_free(&mut guard);
                return;
            }
            if self.force_enqueue(command) {
                return;
            }
        }
    }

    /// Writes what is queued. Called by the batch task, again if more must be compressed.
    pub(crate) fn flush_queued(self: &Arc<Self>) -> WriteOutcome {
        loop {
            if let Some(mut guard) = self.try_lock(QueueMode::Open) {
                let outcome = guard.write();
                guard.set_flushed_by(match outcome.is_unfinished {
                    true => FlushedBy::Batch,
                    false => FlushedBy::None,
                });
                return outcome;
            }
            // The lock holder will add the connection to a batch again.
            if self.lock.request(Request::Flush) {
                return WriteOutcome::default();
            }
        }
    }

    /// Leaves the flush to the tasks that wait for the connection, because the task of the batch has ended early.
    pub(crate) fn delegate_flush(self: &Arc<Self>) {
        loop {
            if let Some(mut guard) = self.try_lock(QueueMode::Open) {
                guard.delegate_flush();
                return;
            }
            if self.lock.request(Request::DelegateFlush) {
                return;
            }
        }
    }
}
