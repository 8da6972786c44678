//! Exclusive access to a split connection.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use sockeye_proto::CloseCode;

use crate::endpoint::{LimitCheck, WaiterId, WriteOutcome};
use crate::error::{Error, Kind};
use crate::message::Message;
use crate::websocket::command_queue::{Command, CommandQueue};
use crate::websocket::flush_batch::{self, NewBatch};
use crate::websocket::shared::{Shared, State};
use crate::websocket::snapshot::{FlushedBy, Snapshot};
use crate::websocket::try_lock::{Guard, Release, Requests};
use crate::websocket::try_recv::{TryRecvError, try_recv};
use crate::websocket::wakers::SlotKey;

/// Exclusive access to the connection. Dropping it serves the requests of other tasks, then unlocks the connection.
#[derive(Debug)]
pub(crate) struct ConnectionGuard<'a> {
    shared: &'a Arc<Shared>,
    guard: Guard<'a, State, CommandQueue, Snapshot>,
    /// A batch whose task must be spawned after unlocking.
    new_batch: Option<NewBatch>,
    wakes_all: bool,
}

impl<'a> ConnectionGuard<'a> {
    #[inline]
    pub(super) fn new(shared: &'a Arc<Shared>, guard: Guard<'a, State, CommandQueue, Snapshot>) -> Self {
        Self {
            shared,
            guard,
            new_batch: None,
            wakes_all: false,
        }
    }

    /// Records the current runtime as that of the receiver's task, which is about to flush. Called at its first poll
    /// there.
    #[cold]
    pub(crate) fn set_receiver_runtime(&mut self) {
        self.spawner = self.driver.runtime().spawner();
        // The connection may be in a batch of a runtime that is no longer driven.
        self.set_flushed_by(FlushedBy::None);
    }

    #[inline]
    fn is_flushed_by(&self, flushed_by: FlushedBy) -> bool {
        self.shared.snapshot().flushed_by.load(Relaxed) == flushed_by as u8
    }

    #[inline]
    pub(super) fn set_flushed_by(&self, flushed_by: FlushedBy) {
        self.shared.snapshot().flushed_by.store(flushed_by as u8, Relaxed);
    }

    /// Wakes all pending operations after unlocking.
    pub(crate) fn wake_all(&mut self) {
        self.wakes_all = true;
    }

    /// Begins the closing handshake.
    pub(crate) fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let started = self.driver.start_close(code, reason);
        // The receiver's timer is set for a later deadline than that of the closing handshake.
        self.wake_all();
        started
    }

    /// Receives a message that has arrived. Keeps waking the tasks that wait for the connection.
    pub(crate) fn try_recv(&mut self) -> Result<Message, TryRecvError> {
        let shared = self.shared;
        try_recv(&mut self.guard.driver, &shared.waker())
    }

    /// Closes the transport at once.
    pub(crate) fn abort(&mut self) {
        self.driver.abort_with(Error::new(Kind::Aborted));
        self.wake_all();
    }

    /// Closes the transport at once, unless the closing handshake has begun.
    pub(crate) fn abort_if_open(&mut self) {
        if self.driver.is_open() {
            self.abort();
        }
    }

    /// Schedules a flush: in the current batch, or by waking the waiting tasks if no runtime is known.
    #[inline]
    pub(crate) fn request_flush(&mut self) {
        if self.is_flushed_by(FlushedBy::Batch) {
            return;
        }
        if let Some(spawner) = &self.guard.spawner {
            // At most two new batches: the task of an earlier one may have run in between.
            if let Some(batch) = flush_batch::schedule(self.shared, self.guard.driver.runtime(), spawner)
                && let Some(earlier) = self.new_batch.replace(batch)
            {
                earlier.spawn();
            }
            self.set_flushed_by(FlushedBy::Batch);
        } else if self.is_flushed_by(FlushedBy::None) {
            self.delegate_flush();
        }
    }

    pub(super) fn delegate_flush(&mut self) {
        self.set_flushed_by(FlushedBy::WaitingTasks);
        self.wake_all();
    }

    /// Writes what is queued if this is the receiver's runtime, and schedules a flush otherwise. Returns whether that
    /// made room.
    pub(crate) fn flush_or_request(mut self) -> bool {
        let is_same_runtime = match (&self.spawner, self.driver.runtime().spawner()) {
            (Some(spawner), Some(current)) => spawner.id() == current.id(),
            _ => false,
        };
        if !is_same_runtime {
            self.request_flush();
            return false;
        }
        let outcome = self.write();
        if outcome.is_unfinished {
            self.request_flush();
        }
        outcome.work > 0 && !outcome.is_unfinished
    }

    /// Writes what is queued, on behalf of the waiting tasks. Wakes them only if something changed for them: a
    /// deadline, capacity, the end.
    pub(super) fn write(&mut self) -> WriteOutcome {
        let (shared, driver) = (self.shared, &mut self.guard.driver);
        let runtime = driver.runtime();
        let mut outcome = WriteOutcome::default();
        let write = poll_fn(|cx| {
            outcome = driver.write_queued(cx);
            Poll::Ready(())
        });
        // With an exhausted cooperative budget, the transport would appear full.
        let _ = runtime.poll_unconstrained(&mut Context::from_waker(&shared.waker()), write);
        self.wakes_all |= outcome.wake_waiters;
        outcome
    }

    /// Polls for one task, and registers it if the result is pending.
    #[inline]
    pub(super) fn poll<R>(
        mut self,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let shared = self.shared;
        if self.is_flushed_by(FlushedBy::WaitingTasks) {
            self.set_flushed_by(FlushedBy::None);
        }
        let wake_count = shared.wakers.wake_count();
        let polled = poll(&mut self, &mut Context::from_waker(&shared.waker()));
        let has_missed = polled.is_pending() && !shared.wakers.register(slot, cx.waker(), wake_count);
        drop(self);
        if polled.is_ready() {
            shared.wakers.release(slot);
        }
        if has_missed {
            cx.waker().wake_by_ref();
        }
        polled
    }

    /// Serves the requests that other tasks made while the connection was locked.
    #[cold]
    fn serve(&mut self, requests: Requests) {
        if requests.delegate_flush {
            self.delegate_flush();
        }
        if requests.flush {
            // The task of the batch found the connection locked, and did not wait.
            self.set_flushed_by(FlushedBy::None);
        }
        let has_executed = requests.commands && self.execute_commands();
        if has_executed || (requests.flush && self.driver.has_queued_output()) {
            self.request_flush();
        }
        self.wakes_all |= self.shared.update_snapshot(&self.guard.driver);
    }

    /// Accepts the deferred messages, then executes the commands in order. Returns whether there were any.
    fn execute_commands(&mut self) -> bool {
        let mut command_queue = self.shared.lock.command_queue();
        let Some(state) = &mut *command_queue else {
            return false;
        };
        let commands = std::mem::take(&mut state.commands);
        let mut deferred = std::mem::take(&mut state.deferred);
        let len = std::mem::take(&mut state.len);
        let is_blocked = std::mem::take(&mut state.is_blocked);
        state.reserved_len = 0;
        let emptied = command_queue.take_if(|state| state.send_error.is_none());
        if !commands.is_empty() {
            self.shared.snapshot().reduce_capacity(len, is_blocked);
        }
        drop(command_queue);
        drop(emptied);
        let has_commands = !commands.is_empty() || !deferred.is_empty();
        while let Some(message) = deferred.pop() {
            if self.driver.queue_or_defer(message, LimitCheck::Skip).is_err() {
                self.driver.record_dropped_message();
            }
        }
        for command in commands {
            if self.execute(command).is_err() {
                // The connection has closed since. The message is dropped although its sender was told that it is
                // queued; the next flush fails.
                self.driver.record_dropped_message();
            }
        }
        has_commands
    }

    /// Executes a command. Fails if its message cannot be queued.
    fn execute(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Message(message) => return self.driver.queue_accepted(message),
            Command::PermitMessage(message, reserved) => {
                self.release_reservation(reserved);
                return self.driver.queue_accepted(message);
            }
            Command::AddReservation(len) => self.driver.add_reservation(len),
            Command::ReleaseReservation(len) => self.release_reservation(len),
            Command::CancelReserve(waiter) => self.cancel_reserve(waiter),
            Command::Close(code, reason) => {
                // The future that would return this error was dropped.
                let _ = self.start_close(code, &reason);
            }
            Command::CloseUnfinishedMessage => self.close_unfinished_message(),
            Command::Abort => self.abort(),
            Command::AbortIfOpen => self.abort_if_open(),
        }
        Ok(())
    }

    /// Releases a reservation, and wakes the tasks that may wait for its capacity.
    pub(super) fn release_reservation(&mut self, len: usize) {
        if self.driver.release_reservation(len) {
            self.wake_all();
        }
    }

    /// Removes a task from the wait queue for reservations, and wakes those that waited for that.
    pub(super) fn cancel_reserve(&mut self, waiter: WaiterId) {
        if self.driver.cancel_reserve(&mut Some(waiter)) {
            self.wake_all();
        }
    }
}

impl Drop for ConnectionGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.wakes_all |= self.shared.update_snapshot(&self.guard.driver);
        let has_waiting = loop {
            match self.guard.release() {
                Release::Released { has_waiting } => break has_waiting,
                Release::Requested(requests) => self.serve(requests),
            }
        };
        if let Some(batch) = self.new_batch.take() {
            batch.spawn();
        }
        if self.wakes_all {
            self.shared.wakers.wake_all();
        } else if has_waiting {
            self.shared.wakers.wake_for_lock();
        }
    }
}

impl Deref for ConnectionGuard<'_> {
    type Target = State;

    #[inline]
    fn deref(&self) -> &State {
        &self.guard
    }
}

impl DerefMut for ConnectionGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut State {
        &mut self.guard
    }
}
