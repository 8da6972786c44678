//! The state that the halves of a split connection share.
//!
//! One task at a time uses the driver, and no thread blocks until another has finished: see
//! [`try_lock`](crate::websocket::try_lock). A task that finds the connection locked
//!
//! - puts its message into the inbox, if there is room; the other task queues it before it releases the lock,
//! - or registers its waker and is pending; the other task wakes it after it has released the lock.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_task::{ArcWake, WakerRef, waker_ref};
use sockeye_proto::{CloseCode, CloseInfo, Role};
use tokio::runtime::Handle;
use tokio::task::unconstrained;

use crate::endpoint::{Driver, PART_LEN, WriteOutcome};
use crate::error::Error;
use crate::message::Message;
use crate::message::outbound::Outbound;
use crate::runtime::clock;
use crate::websocket::flush_batch::{self, NewBatch};
use crate::websocket::try_lock::{EnqueueError, Guard, InboxMode, Release, Request, Requests, TryLock};
use crate::websocket::try_recv::{TryRecvError, try_recv};
use crate::websocket::try_send::TrySendError;
use crate::websocket::wakers::{SlotKey, WakerSlots};

/// A split connection.
#[derive(Debug)]
pub(crate) struct Shared {
    lock: TryLock<State, Inbox, Snapshot>,
    wakers: Arc<WakerSlots>,
    /// In two boxes, because most connections have none.
    subprotocol: Option<Box<Box<str>>>,
}

/// What one task at a time uses.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) driver: Driver,
    /// Where the receiver's task runs, or is expected to: where the connection was split.
    runtime: Option<Handle>,
}

/// Which task will flush messages queued by `try_send`. Coalesces bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum FlushedBy {
    /// None, or there are no such messages.
    Nobody,
    /// Those that wait for the connection. They were woken, and none has been polled yet.
    Waiting,
    /// That of a [batch](flush_batch).
    Batch,
}

/// What the last task that used the connection found, for those that find it in use. Small, for each connection has it.
#[derive(Debug)]
struct Snapshot {
    /// How many bytes may be queued, if any wait.
    room: AtomicU32,
    /// How many bytes wait to be written.
    queued: AtomicU32,
    /// When a message first found no room, in milliseconds of the connection's clock, modulo 2^32; 0 while there is room.
    full_since: AtomicU32,
    /// The round-trip time in microseconds, plus 1; 0 if it is not known.
    round_trip: AtomicU32,
    /// The number of the newest answered ping.
    answered_ping: AtomicU32,
    /// A set of [`status`].
    status: AtomicU8,
    /// A [`FlushedBy`], for the task alone that uses the connection.
    flushed_by: AtomicU8,
    is_compressed: bool,
    is_server: bool,
}

impl Snapshot {
    fn new(driver: &Driver) -> Self {
        let connection = driver.connection();
        Self {
            room: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            full_since: AtomicU32::new(0),
            round_trip: AtomicU32::new(0),
            answered_ping: AtomicU32::new(0),
            status: AtomicU8::new(0),
            flushed_by: AtomicU8::new(FlushedBy::Nobody as u8),
            is_compressed: connection.deflate_config().is_some(),
            is_server: matches!(connection.role(), Role::Server),
        }
    }

    /// Since when there has been no room; now if nobody has noted that yet, who notes it now.
    fn full_since(&self) -> Instant {
        let now = tokio::time::Instant::now();
        let now_millis = millis(clock::now());
        let since = self.full_since.load(Relaxed);
        if since == 0 {
            self.full_since.store(now_millis, Relaxed);
            return now.into_std();
        }
        // Modulo 2^32, so right for 49 days.
        let elapsed = Duration::from_millis(now_millis.wrapping_sub(since).into());
        now.checked_sub(elapsed).unwrap_or(now).into_std()
    }

    /// Takes messages into account that are about to be queued.
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
    fn is_compressed_in_parts(&self, len: usize, is_prepared: bool) -> bool {
        let is_framed_already = is_prepared && self.is_server;
        self.is_compressed && len > PART_LEN && !is_framed_already
    }
}

mod status {
    /// Messages can be sent.
    pub(super) const OPEN: u8 = 1;
    /// What is waited for may never come: the transport has ended, or nothing can be written to it.
    pub(super) const LOST: u8 = 1 << 3;
    /// Nothing waits to be written: there is room for one message of any size.
    pub(super) const EMPTY: u8 = 1 << 1;
    /// A large message is being compressed: nothing can be queued behind it.
    pub(super) const COMPRESSING: u8 = 1 << 2;
    /// A sender that waited has received messages ahead of the receiver.
    pub(super) const READ_AHEAD: u8 = 1 << 4;
    /// The transport is neither closed nor left to the background.
    pub(super) const TRANSPORT: u8 = 1 << 5;
}

/// What a message in the inbox counts beside its length.
const COMMAND_COST: usize = 64;

/// Boxed, because it is empty most of the time.
type Inbox = Option<Box<InboxState>>;

/// What tasks that found the connection in use have left, and how the connection was closed.
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

/// What can be left for the task that uses the connection.
#[derive(Debug)]
pub(crate) enum QueuedCommand {
    Message(Outbound),
    Close(CloseCode, Box<str>),
    Abort,
}

/// Why a message was not put into the inbox.
#[derive(Debug)]
pub(crate) enum NotQueued {
    /// The connection is free.
    Unlocked,
    /// There is no room.
    Full,
    /// The connection is closed or lost.
    Closed(Error),
}

impl Shared {
    pub(crate) fn new(driver: Driver, subprotocol: Option<Box<str>>) -> Arc<Self> {
        let snapshot = Snapshot::new(&driver);
        let runtime = Handle::try_current().ok();
        let shared = Arc::new(Self {
            lock: TryLock::new(State { driver, runtime }, None, snapshot),
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

    /// Whether others may leave messages in the inbox while one of this size is queued.
    #[inline]
    pub(crate) fn inbox_mode_for(&self, message: &Outbound) -> InboxMode {
        self.inbox_mode_for_len(message.len(), message.prepared().is_some())
    }

    /// [`inbox_mode_for`](Self::inbox_mode_for) by the properties of the message.
    #[inline]
    pub(crate) fn inbox_mode_for_len(&self, len: usize, is_prepared: bool) -> InboxMode {
        match self.snapshot().is_compressed_in_parts(len, is_prepared) {
            true => InboxMode::Closed,
            false => InboxMode::Open,
        }
    }

    /// Leaves a message for the task that uses the connection, which queues it and has it flushed.
    ///
    /// # Errors
    ///
    /// No task uses the connection, there is no room, or it is closed.
    pub(crate) fn try_enqueue(&self, message: &Outbound) -> Result<(), NotQueued> {
        let len = message.len();
        let enqueued = self.lock.try_enqueue(|inbox| {
            let state = inbox.get_or_insert_default();
            self.check_room(state, len)?;
            let is_prepared = message.prepared().is_some();
            state.is_full |= self.snapshot().is_compressed_in_parts(len, is_prepared);
            state.len += len + COMMAND_COST;
            state.commands.push(QueuedCommand::Message(message.clone()));
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
        if status & status::OPEN == 0 {
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

    /// The error of `try_send` for a message that was not put into the inbox.
    pub(crate) fn try_send_error(&self, not_queued: NotQueued, message: Outbound) -> TrySendError {
        match not_queued {
            NotQueued::Unlocked | NotQueued::Full => TrySendError::Full {
                message,
                queued_bytes: self.queued_bytes(),
                since: self.snapshot().full_since(),
            },
            NotQueued::Closed(error) => TrySendError::Closed(error),
        }
    }

    /// How many bytes wait to be written, and in the inbox.
    pub(crate) fn queued_bytes(&self) -> usize {
        let inbox_len = self.lock.inbox().as_ref().map_or(0, |state| state.len);
        inbox_len + self.snapshot().queued.load(Relaxed) as usize
    }

    /// Has the task that uses the connection schedule a flush.
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

    /// Begins the closing handshake, now or when the task that uses the connection has left.
    pub(crate) fn start_close(self: &Arc<Self>, code: CloseCode, reason: &str) {
        loop {
            if let Some(mut guard) = self.try_lock(InboxMode::Closed) {
                // The caller has checked the code and the reason, or is gone.
                let _ = guard.start_close(code, reason);
                guard.request_flush();
                return;
            }
            if self.enqueue_always(|| QueuedCommand::Close(code, reason.into())) {
                return;
            }
        }
    }

    /// Closes the transport at once, now or when the task that uses the connection has left.
    pub(crate) fn abort(self: &Arc<Self>) {
        loop {
            if let Some(mut guard) = self.try_lock(InboxMode::Closed) {
                guard.abort();
                return;
            }
            if self.enqueue_always(|| QueuedCommand::Abort) {
                return;
            }
        }
    }

    /// Leaves a command for the task that uses the connection, whether or not there is room; `false` if no task does.
    fn enqueue_always(&self, command: impl FnOnce() -> QueuedCommand) -> bool {
        let enqueued = self.lock.enqueue_always(|inbox| {
            inbox.get_or_insert_default().commands.push(command());
        });
        enqueued.is_ok()
    }

    /// Writes what is queued, for the task of a batch, which comes again if there is more to compress.
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
            // The other task puts the connection into a batch again.
            if self.lock.request(Request::Flush) {
                return WriteOutcome::default();
            }
        }
    }

    /// The task of the batch has ended early: the tasks that wait for the connection flush.
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

    /// Lets the receiver make progress, or registers it until it can. Its runtime is noted at its first poll.
    #[inline]
    pub(crate) fn poll_receiver<R>(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        has_runtime: &mut bool,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let mut guard = ready!(self.poll_lock(slot, cx, InboxMode::Open));
        if !std::mem::replace(has_runtime, true) {
            guard.set_runtime();
        }
        guard.poll(slot, cx, poll)
    }

    /// Lets an operation of a sender make progress, or registers it until it can.
    pub(crate) fn poll<R>(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let guard = ready!(self.poll_lock(slot, cx, InboxMode::Open));
        guard.poll(slot, cx, poll)
    }

    /// Polls the connection for an operation that begins the closing handshake. The inbox is closed meanwhile, because a
    /// message in it would come after the close frame. Otherwise like [`poll`](Self::poll).
    pub(crate) fn poll_closing<R>(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let guard = ready!(self.poll_lock(slot, cx, InboxMode::Closed));
        guard.poll(slot, cx, poll)
    }

    /// Polls until a message is queued; leaves it in the inbox if another task uses the connection and there
    /// is room.
    #[inline]
    pub(crate) fn poll_queueing(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        message: &Outbound,
    ) -> Poll<Result<(), Error>> {
        loop {
            if let Some(guard) = self.try_lock(self.inbox_mode_for(message)) {
                return guard.poll(slot, cx, |driver, cx| driver.poll_feed(cx, message));
            }
            match self.try_enqueue(message) {
                Ok(()) => {
                    self.release(slot);
                    return Poll::Ready(Ok(()));
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

    /// Enters, or registers the task until another has left.
    #[inline]
    fn poll_lock(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        inbox_mode: InboxMode,
    ) -> Poll<ConnectionGuard<'_>> {
        loop {
            if let Some(guard) = self.try_lock(inbox_mode) {
                return Poll::Ready(guard);
            }
            if self.wait_for_lock(slot, cx) {
                return Poll::Pending;
            }
        }
    }

    /// Registers the task until another has left; returns false if it has.
    #[cold]
    fn wait_for_lock(&self, slot: &mut SlotKey, cx: &Context<'_>) -> bool {
        self.wakers.register_for_lock(slot, cx.waker());
        self.lock.request(Request::Wake)
    }

    /// Drops the waker of an operation that has ended.
    pub(crate) fn release(&self, slot: &mut SlotKey) {
        self.wakers.release(slot);
    }

    pub(crate) fn close_info(&self) -> Option<CloseInfo> {
        let inbox = self.lock.inbox();
        inbox.as_ref().and_then(|state| state.close_info.clone())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.snapshot().status.load(Relaxed) & status::OPEN != 0
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

    /// Returns whether the other operations have to look for themselves: they wait with an earlier state's deadline, for a
    /// transport and a timer that may be gone, for messages that were received ahead, or for a pong.
    #[inline]
    fn update_snapshot(&self, driver: &Driver) -> bool {
        let waiting = driver.waiting_len();
        let mut status = 0;
        if driver.is_open() {
            status |= status::OPEN;
        } else {
            self.record_end(driver);
        }
        if driver.is_lost() {
            status |= status::LOST;
        }
        if waiting == 0 {
            status |= status::EMPTY;
        }
        if driver.is_compressing() {
            status |= status::COMPRESSING;
        }
        if driver.has_read_ahead() {
            status |= status::READ_AHEAD;
        }
        if driver.has_transport() {
            status |= status::TRANSPORT;
        }
        let round_trip = driver.connection().rtt().map_or(0, |time| {
            u32::try_from(time.as_micros()).unwrap_or(u32::MAX).saturating_add(1)
        });
        let room = saturated(driver.write_buffer_max().saturating_sub(waiting));
        let snapshot = self.snapshot();
        let status_before = snapshot.status.load(Relaxed);
        snapshot.room.store(room, Relaxed);
        snapshot.queued.store(saturated(waiting), Relaxed);
        snapshot
            .full_since
            .store(driver.full_since().map_or(0, millis), Relaxed);
        snapshot.round_trip.store(round_trip, Relaxed);
        snapshot.status.store(status, Relaxed);
        let answered = driver.connection().answered_ping();
        let is_new_pong = snapshot.answered_ping.load(Relaxed) != answered;
        snapshot.answered_ping.store(answered, Relaxed);
        let is_new_end = (status ^ status_before) & (status::OPEN | status::LOST | status::TRANSPORT) != 0;
        let is_new_read_ahead = status & !status_before & status::READ_AHEAD != 0;
        is_new_end || is_new_read_ahead || is_new_pong
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

/// The right to use the connection. What is due when the task leaves is done when this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGuard<'a> {
    shared: &'a Arc<Shared>,
    guard: Guard<'a, State, Inbox, Snapshot>,
    /// To be spawned.
    new_batch: Option<NewBatch>,
    wakes_all: bool,
}

impl ConnectionGuard<'_> {
    /// From now on the receiver's task runs on this runtime, and it is about to flush.
    #[cold]
    fn set_runtime(&mut self) {
        self.runtime = Handle::try_current().ok();
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

    /// Wakes all pending operations, once the connection is free.
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

    /// Receives what has arrived. Tasks that wait for the connection are woken as before.
    pub(crate) fn try_recv(&mut self) -> Result<Message, TryRecvError> {
        let shared = self.shared;
        try_recv(&mut self.guard.driver, &shared.waker())
    }

    /// Closes the transport at once.
    pub(crate) fn abort(&mut self) {
        self.driver.abort_with(aborted());
        self.wake_all();
    }

    /// Schedules a flush: in the current batch, or by waking the waiters if no runtime is known.
    #[inline]
    pub(crate) fn request_flush(&mut self) {
        if self.is_flushed_by(FlushedBy::Batch) {
            return;
        }
        if let Some(runtime) = &self.guard.runtime {
            // At most two new batches: an earlier one may have run meanwhile.
            if let Some(batch) = flush_batch::schedule(self.shared, runtime)
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

    /// Writes what is queued here and now if this is the runtime on which that is done, else has it written. Returns
    /// whether that made room.
    pub(crate) fn flush_or_request(mut self) -> bool {
        let is_same_runtime = match (&self.runtime, Handle::try_current()) {
            (Some(runtime), Ok(current)) => runtime.id() == current.id(),
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

    /// Writes what is queued, in place of the tasks that wait for the connection. These go on waiting unless something has
    /// changed for them: a deadline, room, the end.
    fn write(&mut self) -> WriteOutcome {
        let (shared, driver) = (self.shared, &mut self.guard.driver);
        let mut outcome = WriteOutcome::default();
        let write = poll_fn(|cx| {
            outcome = driver.write_queued(cx);
            Poll::Ready(())
        });
        // Unconstrained: an exhausted coop budget would look like a full transport.
        let _ = pin!(unconstrained(write)).poll(&mut Context::from_waker(&shared.waker()));
        self.wakes_all |= outcome.wake_waiters;
        outcome
    }

    /// Polls for one task, and registers it if it has to wait.
    #[inline]
    fn poll<R>(
        mut self,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let shared = self.shared;
        if self.is_flushed_by(FlushedBy::Waiting) {
            self.set_flushed_by(FlushedBy::Nobody);
        }
        let driver = &mut self.guard.driver;
        let seen = shared.wakers.seen();
        let polled = poll(driver, &mut Context::from_waker(&shared.waker()));
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

    /// Does what others have asked for while the connection was in use.
    #[cold]
    fn serve(&mut self, requests: Requests) {
        if requests.delegate_flush {
            self.delegate_flush();
        }
        if requests.flush {
            // The task of the batch was here, and did not wait.
            self.set_flushed_by(FlushedBy::Nobody);
        }
        let has_queued = requests.commands && self.queue_commands();
        if has_queued || (requests.flush && (self.driver.waiting_len() > 0 || self.driver.is_compressing())) {
            self.request_flush();
        }
        self.wakes_all |= self.shared.update_snapshot(&self.guard.driver);
    }

    /// Queues what is in the inbox, in order.
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
                QueuedCommand::Message(message) => self.driver.queue(&message),
                QueuedCommand::Close(code, reason) => {
                    // The future that closes was dropped: nobody hears that its code may not be sent.
                    let _ = self.start_close(code, &reason);
                    Ok(())
                }
                QueuedCommand::Abort => {
                    self.abort();
                    Ok(())
                }
            };
            if queued.is_err() {
                // The connection has closed meanwhile: a message that was taken from its sender will not leave, which the
                // next flush says.
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

    /// Does something with the connection once no other task uses it.
    pub(crate) async fn enter<R>(mut self, work: impl FnOnce(&mut ConnectionGuard<'_>) -> R) -> R {
        // A message that was left meanwhile would come behind a close frame.
        let mut guard = poll_fn(|cx| self.shared.poll_lock(&mut self.slot, cx, InboxMode::Closed)).await;
        work(&mut guard)
    }

    pub(crate) fn poll<R>(
        &mut self,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        self.shared.poll(&mut self.slot, cx, poll)
    }

    /// Waits until no message can be sent any more. Not woken by anything else.
    pub(crate) fn poll_closed(&mut self, cx: &Context<'_>) -> Poll<()> {
        let shared = self.shared;
        let guard = ready!(shared.poll_lock(&mut self.slot, cx, InboxMode::Open));
        if guard.driver.is_open() {
            // Under the lock: whoever ends the connection sees the waker.
            shared.wakers.register_for_end(&mut self.slot, cx.waker());
            return Poll::Pending;
        }
        drop(guard);
        shared.release(&mut self.slot);
        Poll::Ready(())
    }

    /// Queues a message, or leaves it in the inbox if the connection is in use: see [`Shared::poll_queueing`].
    pub(crate) fn poll_queueing(&mut self, cx: &Context<'_>, message: &Outbound) -> Poll<Result<(), Error>> {
        self.shared.poll_queueing(&mut self.slot, cx, message)
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.shared.release(&mut self.slot);
    }
}

/// What the transport and the timer remember.
impl ArcWake for WakerSlots {
    fn wake_by_ref(slots: &Arc<Self>) {
        slots.wake_for_progress();
    }
}

#[cold]
fn aborted() -> Error {
    let message = "this side aborted the connection";
    std::io::Error::new(std::io::ErrorKind::ConnectionAborted, message).into()
}

/// Never 0.
fn millis(instant: sockeye_proto::Instant) -> u32 {
    (instant.since_origin().as_millis() as u32).max(1)
}

fn saturated(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
