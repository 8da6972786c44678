//! The state that the halves of a split connection share.
//!
//! One task at a time uses the driver, and no thread blocks until another has finished: see
//! [`try_lock`](crate::websocket::try_lock). A task that finds the connection locked
//!
//! - puts its message into the inbox, if there is room; the other task queues it before it releases the lock,
//! - or registers its waker and is pending; the other task wakes it after it has released the lock.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_task::{ArcWake, WakerRef, waker_ref};
use sockeye_proto::{CloseCode, CloseInfo, Compress, Role};

use crate::endpoint::{Driver, PART_LEN, WakeState, WriteOutcome};
use crate::error::Error;
use crate::message::Message;
use crate::message::outbound::OutboundMessage;
use crate::message::prepared::PreparedMessage;
use crate::runtime::Spawner;
use crate::websocket::TrySendError;
use crate::websocket::flush_batch::{self, NewBatch};
use crate::websocket::try_lock::{EnqueueError, Guard, InboxMode, Release, Request, Requests, TryLock};
use crate::websocket::wakers::{SlotKey, WakerSlots};

/// A split connection.
#[derive(Debug)]
pub(crate) struct Shared {
    lock: TryLock<State, Inbox, Snapshot>,
    wakers: Arc<WakerSlots>,
    /// In two boxes, because most connections have none.
    subprotocol: Option<Box<Box<str>>>,
}

/// The part that one task at a time uses.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) driver: Driver,
    /// The runtime of the receiver's task. Before its first poll, the runtime on which the connection was split.
    spawner: Option<Spawner>,
}

/// Which task will flush the messages that `try_send` queued. While one will, more messages schedule nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum FlushedBy {
    /// No task, or there are no such messages.
    Nobody,
    /// The tasks that wait for the connection. They were woken, and none has been polled yet.
    Waiting,
    /// The task of a [batch](flush_batch).
    Batch,
}

/// The state of the connection when it was unlocked last, for tasks that find it locked. Small, because every connection has it.
#[derive(Debug)]
struct Snapshot {
    /// How many bytes may be queued, if any wait.
    room: AtomicU32,
    /// The round-trip time in microseconds, plus 1; 0 if it is not known.
    round_trip: AtomicU32,
    /// The bits of a [`WakeState`] and of [`status`].
    status: AtomicU8,
    /// A [`FlushedBy`]. Only the task that holds the connection uses it.
    flushed_by: AtomicU8,
    is_compressed: bool,
    is_server: bool,
}

impl Snapshot {
    fn new(driver: &Driver) -> Self {
        let connection = driver.connection();
        Self {
            room: AtomicU32::new(0),
            round_trip: AtomicU32::new(0),
            status: AtomicU8::new(0),
            flushed_by: AtomicU8::new(FlushedBy::Nobody as u8),
            is_compressed: connection.deflate_config().is_some(),
            is_server: matches!(connection.role(), Role::Server),
        }
    }

    /// Counts messages that are about to be queued.
    fn charge(&self, len: usize, is_compressing: bool) {
        let room = self.room.load(Relaxed).saturating_sub(saturated(len));
        self.room.store(room, Relaxed);
        let mut status = self.status.load(Relaxed) & !status::EMPTY;
        if is_compressing {
            status |= status::COMPRESSING;
        }
        self.status.store(status, Relaxed);
    }

    /// Whether a message of this size may be compressed in parts, so that nothing can be queued behind it.
    fn is_compressed_in_parts(&self, len: usize, framed: Framed) -> bool {
        let is_framed_already = framed == Framed::InAdvance && self.is_server;
        self.is_compressed && len > PART_LEN && !is_framed_already
    }
}

/// When a message is framed. A server frames a prepared message in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framed {
    OnEnqueue,
    InAdvance,
}

/// The bits of [`Snapshot::status`] beside those of [`WakeState`].
mod status {
    /// Nothing waits to be written: there is room for one message of any size.
    pub(super) const EMPTY: u8 = 1 << 4;
    /// A large message is being compressed: nothing can be queued behind it.
    pub(super) const COMPRESSING: u8 = 1 << 5;
}

/// The cost of a message in the inbox, beside its length.
const COMMAND_COST: usize = 64;

/// Boxed, because it is empty most of the time.
type Inbox = Option<Box<InboxState>>;

/// The commands of tasks that found the connection locked, and how the connection was closed.
#[derive(Debug, Default)]
struct InboxState {
    commands: Vec<QueuedCommand>,
    /// The length of all messages, and [`COMMAND_COST`] for each.
    len: usize,
    /// Whether one of the messages may be compressed in parts, so that nothing can be queued behind it.
    is_full: bool,
    close_info: Option<CloseInfo>,
    refusal: Option<Error>,
}

/// A command in the inbox, for the task that holds the connection.
#[derive(Debug)]
pub(crate) enum QueuedCommand {
    Message(Message, Compress),
    PreparedMessage(PreparedMessage),
    Close(CloseCode, Box<str>),
}

impl QueuedCommand {
    fn framed(&self) -> Framed {
        match self {
            Self::PreparedMessage(_) => Framed::InAdvance,
            Self::Message(..) | Self::Close(..) => Framed::OnEnqueue,
        }
    }
}

/// Why a message was not put into the inbox.
#[derive(Debug)]
pub(crate) enum NotQueued {
    /// The connection is not locked any more: lock it.
    Unlocked,
    /// There is no room.
    Full,
    /// The connection is closed or lost.
    Closed(Error),
}

impl Shared {
    pub(crate) fn new(driver: Driver, subprotocol: Option<Box<str>>) -> Arc<Self> {
        let snapshot = Snapshot::new(&driver);
        let spawner = driver.runtime().spawner();
        let shared = Arc::new(Self {
            lock: TryLock::new(State { driver, spawner }, None, snapshot),
            wakers: Arc::new(WakerSlots::new()),
            subprotocol: subprotocol.map(Box::new),
        });
        // Dropping the guard updates the snapshot.
        drop(shared.try_lock(InboxMode::Open));
        shared
    }

    /// Locks the connection, unless another task uses it.
    #[inline]
    pub(crate) fn try_lock(self: &Arc<Self>, inbox_mode: InboxMode) -> Option<ConnectionGuard<'_>> {
        let guard = self.lock.try_lock(inbox_mode)?;
        Some(ConnectionGuard {
            shared: self,
            guard,
            new_batch: None,
            wakes_all: false,
        })
    }

    /// Whether other tasks may add to the inbox while a message of this size is queued.
    #[inline]
    pub(crate) fn inbox_mode_for(&self, len: usize, framed: Framed) -> InboxMode {
        match self.snapshot().is_compressed_in_parts(len, framed) {
            true => InboxMode::Closed,
            false => InboxMode::Open,
        }
    }

    /// Puts a command into the inbox. The task that holds the connection queues the message and schedules a flush.
    ///
    /// # Errors
    ///
    /// No task holds the connection, the inbox has no room, or the connection is closed.
    pub(crate) fn try_enqueue(&self, len: usize, command: impl FnOnce() -> QueuedCommand) -> Result<(), NotQueued> {
        let enqueued = self.lock.try_enqueue(|inbox| {
            let state = inbox.get_or_insert_default();
            self.check_room(state, len)?;
            let command = command();
            state.is_full |= self.snapshot().is_compressed_in_parts(len, command.framed());
            state.len += len + COMMAND_COST;
            state.commands.push(command);
            Ok(())
        });
        match enqueued {
            Ok(result) => result,
            Err(EnqueueError::Unlocked) => Err(NotQueued::Unlocked),
            Err(EnqueueError::Closed) => Err(NotQueued::Full),
        }
    }

    /// Whether the inbox has room, by the snapshot from before the connection was locked. What the holder has written or
    /// queued since is not counted.
    fn check_room(&self, state: &InboxState, len: usize) -> Result<(), NotQueued> {
        let snapshot = self.snapshot();
        let status = snapshot.status.load(Relaxed);
        if status & WakeState::OPEN == 0 {
            return Err(state.refusal.clone().map_or(NotQueued::Full, NotQueued::Closed));
        }
        let is_alone = status & status::EMPTY != 0 && state.commands.is_empty();
        let fits = saturated(state.len.saturating_add(len + COMMAND_COST)) <= snapshot.room.load(Relaxed);
        let is_full = state.is_full || status & status::COMPRESSING != 0;
        match (is_alone || fits) && !is_full {
            true => Ok(()),
            false => Err(NotQueued::Full),
        }
    }

    /// Asks the task that holds the connection to schedule a flush.
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

    /// Begins the closing handshake, now or when the task that holds the connection releases it.
    pub(crate) fn start_close(self: &Arc<Self>, code: CloseCode, reason: &str) {
        loop {
            if let Some(mut guard) = self.try_lock(InboxMode::Closed) {
                // The future that would return this error was dropped.
                let _ = guard.start_close(code, reason);
                return;
            }
            let enqueued = self.lock.enqueue_always(|inbox| {
                let state = inbox.get_or_insert_default();
                state.commands.push(QueuedCommand::Close(code, reason.into()));
            });
            if enqueued.is_ok() {
                return;
            }
        }
    }

    /// Writes what is queued, on behalf of the task of a batch, which calls this again if there is more to compress.
    pub(crate) fn flush_queued(self: &Arc<Self>) -> WriteOutcome {
        loop {
            if let Some(mut guard) = self.try_lock(InboxMode::Open) {
                let outcome = guard.write();
                guard.set_flushed_by(match outcome.is_unfinished {
                    true => FlushedBy::Batch,
                    false => FlushedBy::Nobody,
                });
                return outcome;
            }
            // The other task adds the connection to a batch again.
            if self.lock.request(Request::Flush) {
                return WriteOutcome::default();
            }
        }
    }

    /// Leaves the flush to the tasks that wait for the connection, because the task of the batch has ended early.
    pub(crate) fn delegate_flush(self: &Arc<Self>) {
        loop {
            if let Some(mut guard) = self.try_lock(InboxMode::Open) {
                guard.delegate_flush();
                return;
            }
            if self.lock.request(Request::DelegateFlush) {
                return;
            }
        }
    }

    /// Polls for one task, and registers the task if that is pending.
    ///
    /// If another task holds the connection, this calls `if_locked`, which may complete the operation through the inbox. If it
    /// returns an error, the task waits until the connection is unlocked.
    #[inline]
    pub(crate) fn poll<R>(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        inbox_mode: InboxMode,
        if_locked: impl Fn() -> Result<R, NotQueued>,
        poll: impl FnOnce(&mut ConnectionGuard<'_>, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        loop {
            if let Some(guard) = self.try_lock(inbox_mode) {
                return guard.poll(slot, cx, poll);
            }
            match if_locked() {
                Ok(result) => {
                    self.release(slot);
                    return Poll::Ready(result);
                }
                Err(NotQueued::Unlocked) => {}
                Err(NotQueued::Full | NotQueued::Closed(_)) => {
                    if self.wait_for_lock(slot, cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Registers the task until the connection is unlocked. Returns `false` if it is unlocked already.
    #[cold]
    fn wait_for_lock(&self, slot: &mut SlotKey, cx: &Context<'_>) -> bool {
        self.wakers.register_for_lock(slot, cx.waker());
        self.lock.request(Request::Wake)
    }

    /// Drops the waker of an operation that is complete or dropped.
    pub(crate) fn release(&self, slot: &mut SlotKey) {
        self.wakers.release(slot);
    }

    pub(crate) fn close_info(&self) -> Option<CloseInfo> {
        let inbox = self.lock.inbox();
        inbox.as_ref().and_then(|state| state.close_info.clone())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.snapshot().status.load(Relaxed) & WakeState::OPEN != 0
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        let micros = self.snapshot().round_trip.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_micros(micros.into()))
    }

    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref().map(|subprotocol| &**subprotocol)
    }

    #[inline]
    fn snapshot(&self) -> &Snapshot {
        self.lock.snapshot()
    }

    /// A waker for the transport and the timer, which wakes every pending operation. Borrowed: that saves counting a
    /// reference at each poll.
    #[inline]
    fn waker(&self) -> WakerRef<'_> {
        waker_ref(&self.wakers)
    }

    /// Updates what tasks see that cannot lock the connection. Returns whether every pending operation must be polled again.
    #[inline]
    fn update_snapshot(&self, driver: &Driver) -> bool {
        let waiting = driver.waiting_len();
        let wake_state = driver.wake_state();
        let mut status = wake_state.bits();
        if status & WakeState::OPEN == 0 {
            self.record_end(driver);
        }
        if waiting == 0 {
            status |= status::EMPTY;
        }
        if driver.is_compressing() {
            status |= status::COMPRESSING;
        }
        let round_trip = driver.connection().rtt().map_or(0, |time| {
            u32::try_from(time.as_micros()).unwrap_or(u32::MAX).saturating_add(1)
        });
        let room = saturated(driver.write_buffer_max().saturating_sub(waiting));
        let snapshot = self.snapshot();
        let before = WakeState::from_bits(snapshot.status.load(Relaxed));
        snapshot.room.store(room, Relaxed);
        snapshot.round_trip.store(round_trip, Relaxed);
        snapshot.status.store(status, Relaxed);
        wake_state.must_wake_since(before)
    }

    #[cold]
    fn record_end(&self, driver: &Driver) {
        let mut inbox = self.lock.inbox();
        let state = inbox.get_or_insert_default();
        let close_info = driver.connection().close_info();
        if state.close_info.as_ref() != close_info || state.refusal.is_none() {
            state.close_info = close_info.cloned();
            state.refusal = driver.refusal();
        }
    }
}

/// Exclusive access to the connection. Dropping it serves the requests of other tasks, then unlocks the connection.
#[derive(Debug)]
pub(crate) struct ConnectionGuard<'a> {
    shared: &'a Arc<Shared>,
    guard: Guard<'a, State, Inbox, Snapshot>,
    /// A batch whose task must be spawned once the connection is unlocked.
    new_batch: Option<NewBatch>,
    wakes_all: bool,
}

impl ConnectionGuard<'_> {
    /// Called when the receiver's task, which is about to flush, runs on the present runtime for the first time.
    #[cold]
    pub(crate) fn set_receiver_runtime(&mut self) {
        self.spawner = self.driver.runtime().spawner();
        // The connection may be in a batch of a runtime that is not driven any more.
        self.set_flushed_by(FlushedBy::Nobody);
    }

    #[inline]
    fn is_flushed_by(&self, flushed_by: FlushedBy) -> bool {
        self.shared.snapshot().flushed_by.load(Relaxed) == flushed_by as u8
    }

    #[inline]
    fn set_flushed_by(&self, flushed_by: FlushedBy) {
        self.shared.snapshot().flushed_by.store(flushed_by as u8, Relaxed);
    }

    /// Wakes all pending operations, once the connection is unlocked.
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

    /// Schedules a flush: in the current batch, or by waking the waiters if no runtime is known.
    #[inline]
    pub(crate) fn request_flush(&mut self) {
        if self.is_flushed_by(FlushedBy::Batch) {
            return;
        }
        if let Some(spawner) = &self.guard.spawner {
            // At most two new batches: an earlier one may have run meanwhile.
            if let Some(batch) = flush_batch::schedule(self.shared, self.guard.driver.runtime(), spawner)
                && let Some(earlier) = self.new_batch.replace(batch)
            {
                earlier.spawn();
            }
            self.set_flushed_by(FlushedBy::Batch);
        } else if self.is_flushed_by(FlushedBy::Nobody) {
            self.delegate_flush();
        }
    }

    fn delegate_flush(&mut self) {
        self.set_flushed_by(FlushedBy::Waiting);
        self.wake_all();
    }

    /// Writes what is queued if this is the runtime of the receiver, and schedules a flush otherwise. Returns whether that made
    /// room.
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

    /// Writes what is queued, on behalf of the tasks that wait for the connection. They are woken only if something has changed
    /// for them: a deadline, room, the end.
    fn write(&mut self) -> WriteOutcome {
        let (shared, driver) = (self.shared, &mut self.guard.driver);
        let runtime = driver.runtime();
        let mut outcome = WriteOutcome::default();
        let write = poll_fn(|cx| {
            outcome = driver.write_queued(cx);
            Poll::Ready(())
        });
        // An exhausted cooperative budget would look like a full transport.
        let _ = runtime.poll_unconstrained(&mut Context::from_waker(&shared.waker()), write);
        self.wakes_all |= outcome.wake_waiters;
        outcome
    }

    /// Polls for one task, and registers it if the result is pending.
    #[inline]
    fn poll<R>(
        mut self,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let shared = self.shared;
        if self.is_flushed_by(FlushedBy::Waiting) {
            self.set_flushed_by(FlushedBy::Nobody);
        }
        let seen = shared.wakers.seen();
        let polled = poll(&mut self, &mut Context::from_waker(&shared.waker()));
        let has_missed = polled.is_pending() && !shared.wakers.register(slot, cx.waker(), seen);
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
            self.set_flushed_by(FlushedBy::Nobody);
        }
        let has_queued = requests.commands && self.queue_commands();
        if has_queued || (requests.flush && (self.driver.waiting_len() > 0 || self.driver.is_compressing())) {
            self.request_flush();
        }
        self.wakes_all |= self.shared.update_snapshot(&self.guard.driver);
    }

    /// Executes the commands in the inbox, in order.
    fn queue_commands(&mut self) -> bool {
        let mut inbox = self.shared.lock.inbox();
        let Some(state) = &mut *inbox else {
            return false;
        };
        let commands = std::mem::take(&mut state.commands);
        let len = std::mem::take(&mut state.len);
        let is_full = std::mem::take(&mut state.is_full);
        let emptied = inbox.take_if(|state| state.refusal.is_none());
        if !commands.is_empty() {
            self.shared.snapshot().charge(len, is_full);
        }
        drop(inbox);
        drop(emptied);
        let has_commands = !commands.is_empty();
        for command in commands {
            let queued = match command {
                QueuedCommand::Message(message, compress) => {
                    self.driver.queue(&OutboundMessage::new(message, compress))
                }
                QueuedCommand::PreparedMessage(prepared) => self.driver.queue_prepared(&prepared),
                QueuedCommand::Close(code, reason) => {
                    // The future that would return this error was dropped.
                    let _ = self.start_close(code, &reason);
                    Ok(())
                }
            };
            if queued.is_err() {
                // The connection has closed meanwhile. The message is dropped, although its sender was told that it is queued;
                // the next flush fails.
                self.driver.record_dropped_message();
            }
        }
        has_commands
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

/// An operation of a sender, with the slot of its waker.
#[derive(Debug)]
pub(crate) struct Operation<'a> {
    shared: &'a Arc<Shared>,
    slot: SlotKey,
}

impl<'a> Operation<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self {
            shared,
            slot: SlotKey::operation(),
        }
    }

    /// Calls `work` once no other task holds the connection. The inbox is closed meanwhile: a message in it would come behind a
    /// close frame.
    pub(crate) async fn lock<R>(mut self, work: impl FnOnce(&mut ConnectionGuard<'_>) -> R) -> R {
        let mut work = Some(work);
        poll_fn(|cx| {
            let Self { shared, slot } = &mut self;
            shared.poll(slot, cx, InboxMode::Closed, wait_for_lock, |guard, _| {
                match work.take() {
                    Some(work) => Poll::Ready(work(guard)),
                    None => Poll::Pending,
                }
            })
        })
        .await
    }

    /// See [`Shared::poll`]. Waits for the connection while another task holds it.
    pub(crate) fn poll<R>(
        &mut self,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        self.shared
            .poll(&mut self.slot, cx, InboxMode::Open, wait_for_lock, |guard, cx| {
                poll(&mut guard.driver, cx)
            })
    }

    /// Polls until a message is queued, by `poll` or as a command in the inbox.
    pub(crate) fn poll_queue(
        &mut self,
        cx: &Context<'_>,
        (len, framed): (usize, Framed),
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<Result<(), Error>>,
        command: impl Fn() -> QueuedCommand,
    ) -> Poll<Result<(), Error>> {
        let shared = self.shared;
        let enqueue = || shared.try_enqueue(len, &command).map(Ok);
        let inbox_mode = shared.inbox_mode_for(len, framed);
        shared.poll(&mut self.slot, cx, inbox_mode, enqueue, |guard, cx| {
            poll(&mut guard.driver, cx)
        })
    }
}

/// For operations that can do nothing while another task holds the connection: see [`Shared::poll`].
pub(crate) fn wait_for_lock<R>() -> Result<R, NotQueued> {
    Err(NotQueued::Full)
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.shared.release(&mut self.slot);
    }
}

/// The waker that the transport and the timer keep.
impl ArcWake for WakerSlots {
    fn wake_by_ref(slots: &Arc<Self>) {
        slots.wake_all();
    }
}

impl NotQueued {
    /// The error of `try_send`, which gives the message back.
    pub(crate) fn into_error(self, message: &Message) -> TrySendError {
        match self {
            Self::Unlocked | Self::Full => TrySendError::Full(message.clone()),
            Self::Closed(error) => TrySendError::Closed(error),
        }
    }
}

fn saturated(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
