//! The state shared by the halves of a split connection.
//!
//! Only one task at a time uses the driver, and no thread ever blocks for another: see
//! [`try_lock`](crate::websocket::try_lock). A task that finds the connection locked either
//!
//! - puts its message into the command queue, if there is capacity; the lock holder queues it before it unlocks,
//! - or registers its waker and is pending; the lock holder wakes it after unlocking.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;
use std::time::Duration;

use futures_task::{ArcWake, WakerRef, waker_ref};
use sockeye_proto::CloseInfo;

use crate::endpoint::{DeferredMessage, Driver, WakeFlags};
use crate::message::outbound::Outbound;
use crate::num::saturating_u32;
use crate::runtime::{Runtime, Spawner};
use crate::websocket::command_queue::{COMMAND_OVERHEAD, Command, CommandQueue, CommandQueueState, NotQueued};
use crate::websocket::snapshot::{Snapshot, status};
use crate::websocket::try_lock::{QueueMode, Request, TryLock};
use crate::websocket::try_send::TrySendError;
use crate::websocket::wakers::{SlotKey, WakerSlots};

/// A split connection.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) lock: TryLock<State, CommandQueue, Snapshot>,
    pub(super) wakers: Arc<WakerSlots>,
    /// Boxed twice, because most connections have none.
    subprotocol: Option<Box<Box<str>>>,
    pub(super) runtime: Runtime,
}

/// The part that only the lock holder uses.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) driver: Driver,
    /// The runtime of the receiver's task. Before its first poll, the runtime on which the connection was split.
    pub(super) spawner: Option<Spawner>,
}

impl Shared {
    pub(crate) fn new(driver: Driver, subprotocol: Option<Box<str>>) -> Arc<Self> {
        let snapshot = Snapshot::new(&driver);
        let runtime = driver.runtime();
        let spawner = runtime.spawner();
        let shared = Arc::new(Self {
            lock: TryLock::new(State { driver, spawner }, None, snapshot),
            wakers: Arc::new(WakerSlots::new()),
            subprotocol: subprotocol.map(Box::new),
            runtime,
        });
        // Dropping the guard updates the snapshot.
        drop(shared.try_lock(QueueMode::Open));
        shared
    }

    /// Whether other tasks may add to the command queue while this message is being queued.
    #[inline]
    pub(crate) fn queue_mode_for(&self, message: &Outbound) -> QueueMode {
        self.queue_mode_for_len(message.len(), message.prepared().is_some())
    }

    /// Like [`queue_mode_for`](Self::queue_mode_for), from the properties of the message.
    #[inline]
    pub(crate) fn queue_mode_for_len(&self, len: usize, is_prepared: bool) -> QueueMode {
        match self.snapshot().is_compressed_in_parts(len, is_prepared) {
            true => QueueMode::Closed,
            false => QueueMode::Open,
        }
    }

    /// Puts a message into the command queue. The lock holder queues it and schedules a flush.
    ///
    /// # Errors
    ///
    /// The connection is not locked, the command queue has no capacity, or the connection is closed.
    pub(crate) fn try_enqueue(&self, message: &Outbound) -> Result<(), NotQueued> {
        let len = message.len();
        let enqueued = self.lock.try_enqueue(|command_queue| {
            let state = command_queue.get_or_insert_default();
            self.check_capacity(state, len)?;
            let is_prepared = message.prepared().is_some();
            state.is_blocked |= self.snapshot().is_compressed_in_parts(len, is_prepared);
            state.len += len + COMMAND_OVERHEAD;
            state.commands.push(Command::Message(message.clone()));
            Ok(())
        });
        enqueued?
    }

    /// Reserves capacity through the command queue.
    ///
    /// # Errors
    ///
    /// Those of [`try_enqueue`](Self::try_enqueue).
    pub(super) fn try_enqueue_reservation(&self, len: usize) -> Result<(), NotQueued> {
        let enqueued = self.lock.try_enqueue(|command_queue| {
            let state = command_queue.get_or_insert_default();
            self.check_capacity(state, len)?;
            state.len = state.len.saturating_add(len.saturating_add(COMMAND_OVERHEAD));
            state.commands.push(Command::AddReservation(len));
            Ok(())
        });
        enqueued?
    }

    /// Puts a message into the command queue for which `reserved` bytes were reserved. Only a longer one needs
    /// capacity.
    pub(super) fn try_enqueue_with_permit(&self, message: &Outbound, reserved: usize) -> Result<(), NotQueued> {
        let len = message.len();
        let enqueued = self.lock.force_enqueue(|command_queue| {
            let state = command_queue.get_or_insert_default();
            self.check_open(state)?;
            if let Some(more @ 1..) = len.checked_sub(reserved) {
                self.check_capacity(state, more)?;
                state.len += more;
            }
            state.reserved_len += len.min(reserved);
            let is_prepared = message.prepared().is_some();
            state.is_blocked |= self.snapshot().is_compressed_in_parts(len, is_prepared);
            state.commands.push(Command::PermitMessage(message.clone(), reserved));
            Ok(())
        });
        enqueued.unwrap_or(Err(NotQueued::Unlocked))
    }

    /// Puts a message of an outbox into the command queue. One that must not be dropped later needs capacity.
    pub(super) fn try_enqueue_deferred(&self, deferred: &DeferredMessage) -> Result<(), NotQueued> {
        let snapshot = self.snapshot();
        let enqueued = self.lock.force_enqueue(|command_queue| {
            let state = command_queue.get_or_insert_default();
            self.check_open(state)?;
            let queued = snapshot.queued.load(Relaxed) as usize;
            // About `Limits::write_buffer_max`. The lock holder drops what exceeds it.
            let cost_max = queued.saturating_add(snapshot.capacity.load(Relaxed) as usize);
            if deferred.drop_count.is_some() {
                state.deferred.push_and_drop_oldest(deferred.clone(), cost_max);
                return Ok(());
            }
            let used_len = state.len.saturating_add(queued);
            if !state
                .deferred
                .has_capacity_for(deferred.message.len(), used_len, cost_max)
            {
                return Err(NotQueued::Full);
            }
            state.deferred.push(deferred.clone());
            Ok(())
        });
        enqueued.unwrap_or(Err(NotQueued::Unlocked))
    }

    /// Fails if the connection was closed or lost before it was locked.
    fn check_open(&self, state: &CommandQueueState) -> Result<(), NotQueued> {
        match self.snapshot().status.load(Relaxed) & WakeFlags::OPEN {
            0 => Err(state.send_error.clone().map_or(NotQueued::Full, NotQueued::Closed)),
            _ => Ok(()),
        }
    }

    /// Fails if the command queue has no capacity, according to the snapshot taken before the connection was locked.
    /// Does not include what the lock holder has written or queued since.
    fn check_capacity(&self, state: &CommandQueueState, len: usize) -> Result<(), NotQueued> {
        self.check_open(state)?;
        let snapshot = self.snapshot();
        let status = snapshot.status.load(Relaxed);
        let is_queue_empty = status & status::EMPTY != 0 && state.commands.is_empty();
        let fits = saturating_u32(state.len.saturating_add(len.saturating_add(COMMAND_OVERHEAD)))
            <= snapshot.capacity.load(Relaxed);
        let is_blocked = state.is_blocked || status & status::BLOCKED != 0;
        match (is_queue_empty || fits) && !is_blocked {
            true => Ok(()),
            false => Err(NotQueued::Full),
        }
    }

    /// The `try_send` error for a message that was not put into the command queue.
    pub(crate) fn try_send_error(&self, not_queued: NotQueued, message: Outbound) -> TrySendError {
        match not_queued {
            NotQueued::Unlocked | NotQueued::NeedsLock | NotQueued::Full => TrySendError::Full {
                message,
                queued_bytes: self.queued_bytes(),
                since: self.snapshot().record_queue_full(self.runtime),
            },
            NotQueued::Closed(error) => TrySendError::Closed(error),
        }
    }

    /// The number of bytes in the send queue and in the command queue.
    pub(crate) fn queued_bytes(&self) -> usize {
        let command_queue = self.lock.command_queue();
        let command_queue_len = command_queue
            .as_ref()
            .map_or(0, |state| state.len + state.reserved_len + state.deferred.cost());
        drop(command_queue);
        command_queue_len + self.snapshot().queued.load(Relaxed) as usize
    }

    /// Asks the lock holder to schedule a flush.
    ///
    /// # Errors
    ///
    /// [`NotQueued::Unlocked`].
    pub(crate) fn request_flush(&self) -> Result<(), NotQueued> {
        match self.lock.request(Request::Flush) {
            true => Ok(()),
            false => Err(NotQueued::Unlocked),
        }
    }

    /// Adds a command to the command queue regardless of its limit. Returns `false` if the connection is not locked.
    pub(super) fn force_enqueue(&self, command: impl FnOnce() -> Command) -> bool {
        let enqueued = self.lock.force_enqueue(|command_queue| {
            command_queue.get_or_insert_default().commands.push(command());
        });
        enqueued.is_some()
    }

    /// Registers the task to be woken on unlock. Returns `false` if the connection is already unlocked.
    #[cold]
    pub(super) fn wait_for_lock(&self, slot: &mut SlotKey, cx: &Context<'_>) -> bool {
        self.wakers.register_for_lock(slot, cx.waker());
        self.lock.request(Request::Wake)
    }

    /// Drops the waker of an operation that was completed or dropped.
    pub(crate) fn release(&self, slot: &mut SlotKey) {
        self.wakers.release(slot);
    }

    pub(crate) fn close_info(&self) -> Option<CloseInfo> {
        let command_queue = self.lock.command_queue();
        command_queue.as_ref().and_then(|state| state.close_info.clone())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.snapshot().status.load(Relaxed) & WakeFlags::OPEN != 0
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        let micros = self.snapshot().rtt.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_micros(micros.into()))
    }

    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref().map(|subprotocol| &**subprotocol)
    }

    #[inline]
    pub(super) fn snapshot(&self) -> &Snapshot {
        self.lock.snapshot()
    }

    /// The waker for the transport and the timer, which wakes every pending operation. Borrowed, to avoid counting a
    /// reference for each poll.
    #[inline]
    pub(super) fn waker(&self) -> WakerRef<'_> {
        waker_ref(&self.wakers)
    }

    /// Updates the snapshot. Returns whether every pending operation must be polled again.
    #[inline]
    pub(super) fn update_snapshot(&self, driver: &Driver) -> bool {
        if !driver.is_open() {
            self.record_end(driver);
        }
        self.snapshot().update(driver)
    }

    #[cold]
    fn record_end(&self, driver: &Driver) {
        let mut command_queue = self.lock.command_queue();
        let state = command_queue.get_or_insert_default();
        let close_info = driver.connection().close_info();
        if state.close_info.as_ref() != close_info || state.send_error.is_none() {
            state.close_info = close_info.cloned();
            state.send_error = driver.check_open().err();
        }
    }
}

/// The waker of the transport and the timer.
impl ArcWake for WakerSlots {
    fn wake_by_ref(slots: &Arc<Self>) {
        slots.wake_for_progress();
    }
}
