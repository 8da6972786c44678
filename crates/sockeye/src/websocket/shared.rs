//! The state that the halves of a split connection share.
//!
//! The driver is used by one task at a time; no thread ever blocks until another has finished: see
//! [`try_lock`](crate::websocket::try_lock). A task that finds the connection in use
//!
//! - leaves a message in the inbox, if it has one to queue and there is room; the other task queues it before it leaves,
//! - or registers its waker and is pending; the other task wakes it after it has left.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_task::{ArcWake, WakerRef, waker_ref};
use sockeye_proto::{CloseCode, CloseInfo, Compress, Role};
use tokio::runtime::Handle;
use tokio::task::unconstrained;

use crate::endpoint::{Driver, PART_LEN, Passed};
use crate::error::Error;
use crate::message::Message;
use crate::message::outbound::Outgoing;
use crate::message::prepared::PreparedMessage;
use crate::websocket::TrySendError;
use crate::websocket::flush_batch::{self, NewBatch};
use crate::websocket::try_lock::{Deposits, Entered, Exclusive, Leave, NoDeposit, Request, Requests};
use crate::websocket::wakers::{SlotKey, WakerSlots};

/// A split connection.
#[derive(Debug)]
pub(crate) struct Shared {
    exclusive: Exclusive<State, Inbox, Published>,
    wakers: Arc<WakerSlots>,
    /// In two boxes, for most connections have none.
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
struct Published {
    /// How many bytes may be queued, if any wait.
    room: AtomicU32,
    /// The round-trip time in microseconds, plus 1; 0 if it is not known.
    round_trip: AtomicU32,
    /// A set of [`status`].
    status: AtomicU8,
    /// A [`FlushedBy`], for the task alone that uses the connection.
    flushed_by: AtomicU8,
    is_compressed: bool,
    is_server: bool,
}

impl Published {
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
    fn is_compressed_in_parts(&self, len: usize, framing: Framing) -> bool {
        let is_framed_already = framing == Framing::PreparedMessage && self.is_server;
        self.is_compressed && len > PART_LEN && !is_framed_already
    }
}

/// When a message is framed: a server's prepared message before it is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Queued,
    PreparedMessage,
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
const MAIL_COST: usize = 64;

/// In a box, for most of the time there is nothing.
type Inbox = Option<Box<Contents>>;

/// What tasks that found the connection in use have left, and how the connection was closed.
#[derive(Debug, Default)]
struct Contents {
    mail: Vec<Mail>,
    /// The length of all messages, and [`MAIL_COST`] for each.
    len: usize,
    /// Whether one of the messages may be compressed in parts, so that nothing can be queued behind it.
    is_full: bool,
    close_info: Option<CloseInfo>,
    refusal: Option<Error>,
}

/// What can be left for the task that uses the connection.
#[derive(Debug)]
pub(crate) enum Mail {
    Message(Message, Compress),
    PreparedMessage(PreparedMessage),
    Close(CloseCode, Box<str>),
}

impl Mail {
    fn framing(&self) -> Framing {
        match self {
            Self::PreparedMessage(_) => Framing::PreparedMessage,
            Self::Message(..) | Self::Close(..) => Framing::Queued,
        }
    }
}

/// Why a message was not put into the inbox.
#[derive(Debug)]
pub(crate) enum NotQueued {
    /// The connection is free.
    Free,
    /// There is no room.
    Full,
    /// The connection is closed or lost.
    Closed(Error),
}

impl Shared {
    pub(crate) fn new(driver: Driver, subprotocol: Option<Box<str>>) -> Arc<Self> {
        let published = Published::new(&driver);
        let runtime = Handle::try_current().ok();
        let shared = Arc::new(Self {
            exclusive: Exclusive::new(State { driver, runtime }, None, published),
            wakers: Arc::new(WakerSlots::new()),
            subprotocol: subprotocol.map(Box::new),
        });
        // To leave publishes.
        drop(shared.try_enter(Deposits::Accepted));
        shared
    }

    /// Enters, unless another task uses the connection.
    #[inline]
    pub(crate) fn try_enter(self: &Arc<Self>, deposits: Deposits) -> Option<Access<'_>> {
        let entered = self.exclusive.try_enter(deposits)?;
        Some(Access {
            shared: self,
            entered,
            new_batch: None,
            wakes_all: false,
        })
    }

    /// Whether others may leave messages in the inbox while one of this size is queued.
    #[inline]
    pub(crate) fn deposits_beside(&self, len: usize, framing: Framing) -> Deposits {
        match self.published().is_compressed_in_parts(len, framing) {
            true => Deposits::Refused,
            false => Deposits::Accepted,
        }
    }

    /// Leaves a message for the task that uses the connection, which queues it and has it flushed.
    ///
    /// # Errors
    ///
    /// No task uses the connection, there is no room, or it is closed.
    pub(crate) fn deposit(&self, len: usize, mail: impl FnOnce() -> Mail) -> Result<(), NotQueued> {
        let deposited = self.exclusive.deposit(|inbox| {
            let contents = inbox.get_or_insert_default();
            self.check_room(contents, len)?;
            let mail = mail();
            contents.is_full |= self.published().is_compressed_in_parts(len, mail.framing());
            contents.len += len + MAIL_COST;
            contents.mail.push(mail);
            Ok(())
        });
        match deposited {
            Ok(result) => result,
            Err(NoDeposit::Free) => Err(NotQueued::Free),
            Err(NoDeposit::Refused) => Err(NotQueued::Full),
        }
    }

    /// Whether the inbox has room, by what was published before the connection was entered: what the task that uses it has
    /// written or queued since is not counted.
    fn check_room(&self, contents: &Contents, len: usize) -> Result<(), NotQueued> {
        let published = self.published();
        let status = published.status.load(Relaxed);
        if status & status::OPEN == 0 {
            return Err(contents.refusal.clone().map_or(NotQueued::Full, NotQueued::Closed));
        }
        let is_alone = status & status::EMPTY != 0 && contents.mail.is_empty();
        let fits = saturated(contents.len.saturating_add(len + MAIL_COST)) <= published.room.load(Relaxed);
        let is_full = contents.is_full || status & status::COMPRESSING != 0;
        match (is_alone || fits) && !is_full {
            true => Ok(()),
            false => Err(NotQueued::Full),
        }
    }

    /// Has the task that uses the connection schedule a flush.
    ///
    /// # Errors
    ///
    /// [`NotQueued::Free`].
    pub(crate) fn request_flush(&self) -> Result<(), NotQueued> {
        match self.exclusive.request(Request::Flush) {
            true => Ok(()),
            false => Err(NotQueued::Free),
        }
    }

    /// Begins the closing handshake, now or when the task that uses the connection has left.
    pub(crate) fn start_close(self: &Arc<Self>, code: CloseCode, reason: &str) {
        loop {
            if let Some(mut access) = self.try_enter(Deposits::Refused) {
                // Nobody is there any more to be told that it failed.
                let _ = access.start_close(code, reason);
                return;
            }
            let deposited = self.exclusive.deposit_always(|inbox| {
                let contents = inbox.get_or_insert_default();
                contents.mail.push(Mail::Close(code, reason.into()));
            });
            if deposited.is_ok() {
                return;
            }
        }
    }

    /// Writes what is queued, for the task of a batch, which comes again if there is more to compress.
    pub(crate) fn flush_queued(self: &Arc<Self>) -> Passed {
        loop {
            if let Some(mut access) = self.try_enter(Deposits::Accepted) {
                let passed = access.write();
                access.set_flushed_by(match passed.is_unfinished {
                    true => FlushedBy::Batch,
                    false => FlushedBy::Nobody,
                });
                return passed;
            }
            // The other task puts the connection into a batch again.
            if self.exclusive.request(Request::Flush) {
                return Passed::default();
            }
        }
    }

    /// The task of the batch has ended early: the tasks that wait for the connection flush.
    pub(crate) fn leave_flush_to_tasks(self: &Arc<Self>) {
        loop {
            if let Some(mut access) = self.try_enter(Deposits::Accepted) {
                access.leave_flush_to_tasks();
                return;
            }
            if self.exclusive.request(Request::HandOver) {
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
        let mut access = ready!(self.poll_enter(slot, cx, Deposits::Accepted));
        if !std::mem::replace(has_runtime, true) {
            access.set_runtime();
        }
        access.poll(slot, cx, poll)
    }

    /// Lets an operation of a sender make progress, or registers it until it can.
    pub(crate) fn poll<R>(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let access = ready!(self.poll_enter(slot, cx, Deposits::Accepted));
        access.poll(slot, cx, poll)
    }

    /// Polls the connection for an operation that begins the closing handshake. The inbox is closed meanwhile, because a
    /// message in it would come after the close frame. Otherwise like [`poll`](Self::poll).
    pub(crate) fn poll_closing<R>(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let access = ready!(self.poll_enter(slot, cx, Deposits::Refused));
        access.poll(slot, cx, poll)
    }

    /// Polls until a message of this length is queued; leaves it in the inbox if another task uses the connection and there
    /// is room.
    #[inline]
    pub(crate) fn poll_queueing(
        self: &Arc<Self>,
        slot: &mut SlotKey,
        cx: &Context<'_>,
        (len, framing): (usize, Framing),
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<Result<(), Error>>,
        mail: impl Fn() -> Mail,
    ) -> Poll<Result<(), Error>> {
        loop {
            if let Some(access) = self.try_enter(self.deposits_beside(len, framing)) {
                return access.poll(slot, cx, poll);
            }
            match self.deposit(len, &mail) {
                Ok(()) => {
                    self.release(slot);
                    return Poll::Ready(Ok(()));
                }
                Err(NotQueued::Free) => {}
                Err(NotQueued::Full | NotQueued::Closed(_)) => {
                    if self.wait_for_access(slot, cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Enters, or registers the task until another has left.
    #[inline]
    fn poll_enter(self: &Arc<Self>, slot: &mut SlotKey, cx: &Context<'_>, deposits: Deposits) -> Poll<Access<'_>> {
        loop {
            if let Some(access) = self.try_enter(deposits) {
                return Poll::Ready(access);
            }
            if self.wait_for_access(slot, cx) {
                return Poll::Pending;
            }
        }
    }

    /// Registers the task until another has left; returns false if it has.
    #[cold]
    fn wait_for_access(&self, slot: &mut SlotKey, cx: &Context<'_>) -> bool {
        self.wakers.register_for_access(slot, cx.waker());
        self.exclusive.request(Request::Wake)
    }

    /// Drops the waker of an operation that has ended.
    pub(crate) fn release(&self, slot: &mut SlotKey) {
        self.wakers.release(slot);
    }

    pub(crate) fn close_info(&self) -> Option<CloseInfo> {
        let inbox = self.exclusive.inbox();
        inbox.as_ref().and_then(|contents| contents.close_info.clone())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.published().status.load(Relaxed) & status::OPEN != 0
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        let micros = self.published().round_trip.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_micros(micros.into()))
    }

    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref().map(|subprotocol| &**subprotocol)
    }

    #[inline]
    fn published(&self) -> &Published {
        self.exclusive.published()
    }

    /// A waker for the transport and the timer, which wakes every pending operation. Borrowed: that saves counting a
    /// reference at each poll.
    #[inline]
    fn waker(&self) -> WakerRef<'_> {
        waker_ref(&self.wakers)
    }

    /// Returns whether the other operations have to look for themselves: they wait with an earlier state's deadline, for a
    /// transport and a timer that may be gone, or for messages that were received ahead.
    #[inline]
    fn publish(&self, driver: &Driver) -> bool {
        let waiting = driver.waiting_len();
        let mut status = 0;
        if driver.is_open() {
            status |= status::OPEN;
        } else {
            self.publish_end(driver);
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
        let published = self.published();
        let status_before = published.status.load(Relaxed);
        published.room.store(room, Relaxed);
        published.round_trip.store(round_trip, Relaxed);
        published.status.store(status, Relaxed);
        let is_new_end = (status ^ status_before) & (status::OPEN | status::LOST | status::TRANSPORT) != 0;
        let is_new_read_ahead = status & !status_before & status::READ_AHEAD != 0;
        is_new_end || is_new_read_ahead
    }

    #[cold]
    fn publish_end(&self, driver: &Driver) {
        let mut inbox = self.exclusive.inbox();
        let contents = inbox.get_or_insert_default();
        let close_info = driver.connection().close_info();
        if contents.close_info.as_ref() != close_info || contents.refusal.is_none() {
            contents.close_info = close_info.cloned();
            contents.refusal = driver.refusal();
        }
    }
}

/// The right to use the connection. What is due when the task leaves is done when this is dropped.
#[derive(Debug)]
pub(crate) struct Access<'a> {
    shared: &'a Arc<Shared>,
    entered: Entered<'a, State, Inbox, Published>,
    /// To be spawned.
    new_batch: Option<NewBatch>,
    wakes_all: bool,
}

impl Access<'_> {
    /// From now on the receiver's task runs on this runtime, and it is about to flush.
    #[cold]
    fn set_runtime(&mut self) {
        self.runtime = Handle::try_current().ok();
        // The connection may be in a batch of a runtime that is not driven any more.
        self.set_flushed_by(FlushedBy::Nobody);
    }

    #[inline]
    fn is_flushed_by(&self, flushed_by: FlushedBy) -> bool {
        self.shared.published().flushed_by.load(Relaxed) == flushed_by as u8
    }

    #[inline]
    fn set_flushed_by(&self, flushed_by: FlushedBy) {
        self.shared.published().flushed_by.store(flushed_by as u8, Relaxed);
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

    /// Schedules a flush: in the current batch, or by waking the waiters if no runtime is known.
    #[inline]
    pub(crate) fn request_flush(&mut self) {
        if self.is_flushed_by(FlushedBy::Batch) {
            return;
        }
        if let Some(runtime) = &self.entered.runtime {
            // At most two new batches: an earlier one may have run meanwhile.
            if let Some(batch) = flush_batch::schedule(self.shared, runtime)
                && let Some(earlier) = self.new_batch.replace(batch)
            {
                earlier.spawn();
            }
            self.set_flushed_by(FlushedBy::Batch);
        } else if self.is_flushed_by(FlushedBy::Nobody) {
            self.leave_flush_to_tasks();
        }
    }

    fn leave_flush_to_tasks(&mut self) {
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
        let passed = self.write();
        if passed.is_unfinished {
            self.request_flush();
        }
        passed.work > 0 && !passed.is_unfinished
    }

    /// Writes what is queued, in place of the tasks that wait for the connection. These go on waiting unless something has
    /// changed for them: a deadline, room, the end.
    fn write(&mut self) -> Passed {
        let (shared, driver) = (self.shared, &mut self.entered.driver);
        let mut passed = Passed::default();
        let write = poll_fn(|cx| {
            passed = driver.write_for_others(cx);
            Poll::Ready(())
        });
        // Unconstrained: an exhausted coop budget would look like a full transport.
        let _ = pin!(unconstrained(write)).poll(&mut Context::from_waker(&shared.waker()));
        self.wakes_all |= passed.concerns_waiters;
        passed
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
        let driver = &mut self.entered.driver;
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
        if requests.hand_over {
            self.leave_flush_to_tasks();
        }
        if requests.flush {
            // The task of the batch was here, and did not wait.
            self.set_flushed_by(FlushedBy::Nobody);
        }
        let has_queued = requests.mail && self.queue_mail();
        if has_queued || (requests.flush && (self.driver.waiting_len() > 0 || self.driver.is_compressing())) {
            self.request_flush();
        }
        self.wakes_all |= self.shared.publish(&self.entered.driver);
    }

    /// Queues what is in the inbox, in order.
    fn queue_mail(&mut self) -> bool {
        let mut inbox = self.shared.exclusive.inbox();
        let Some(contents) = &mut *inbox else {
            return false;
        };
        let mail = std::mem::take(&mut contents.mail);
        let len = std::mem::take(&mut contents.len);
        let is_full = std::mem::take(&mut contents.is_full);
        let emptied = inbox.take_if(|contents| contents.refusal.is_none());
        if !mail.is_empty() {
            self.shared.published().charge(len, is_full);
        }
        drop(inbox);
        drop(emptied);
        let has_mail = !mail.is_empty();
        for mail in mail {
            let queued = match mail {
                Mail::Message(message, compress) => self.driver.queue(&Outgoing::new(message, compress)),
                Mail::PreparedMessage(prepared) => self.driver.queue_prepared(&prepared),
                Mail::Close(code, reason) => {
                    // The future that closes was dropped: nobody hears that its code may not be sent.
                    let _ = self.start_close(code, &reason);
                    Ok(())
                }
            };
            if queued.is_err() {
                // The connection has closed meanwhile: a message that was taken from its sender will not leave, which the
                // next flush says.
                self.driver.note_dropped_message();
            }
        }
        has_mail
    }
}

impl Drop for Access<'_> {
    #[inline]
    fn drop(&mut self) {
        self.wakes_all |= self.shared.publish(&self.entered.driver);
        let has_waiting = loop {
            match self.entered.leave() {
                Leave::Left { has_waiting } => break has_waiting,
                Leave::Requested(requests) => self.serve(requests),
            }
        };
        if let Some(batch) = self.new_batch.take() {
            batch.spawn();
        }
        if self.wakes_all {
            self.shared.wakers.wake_all();
        } else if has_waiting {
            self.shared.wakers.wake_for_access();
        }
    }
}

impl Deref for Access<'_> {
    type Target = State;

    #[inline]
    fn deref(&self) -> &State {
        &self.entered
    }
}

impl DerefMut for Access<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut State {
        &mut self.entered
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
    pub(crate) async fn enter<R>(mut self, work: impl FnOnce(&mut Access<'_>) -> R) -> R {
        // A message that was left meanwhile would come behind a close frame.
        let mut access = poll_fn(|cx| self.shared.poll_enter(&mut self.slot, cx, Deposits::Refused)).await;
        work(&mut access)
    }

    pub(crate) fn poll<R>(
        &mut self,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        self.shared.poll(&mut self.slot, cx, poll)
    }

    /// Queues a message, or leaves it in the inbox if the connection is in use: see [`Shared::poll_queueing`].
    pub(crate) fn poll_queueing(
        &mut self,
        cx: &Context<'_>,
        message: (usize, Framing),
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<Result<(), Error>>,
        mail: impl Fn() -> Mail,
    ) -> Poll<Result<(), Error>> {
        self.shared.poll_queueing(&mut self.slot, cx, message, poll, mail)
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
        slots.wake_all();
    }
}

impl NotQueued {
    /// The error of `try_send`, which gives the message back.
    pub(crate) fn into_error(self, message: &Message) -> TrySendError {
        match self {
            Self::Free | Self::Full => TrySendError::Full(message.clone()),
            Self::Closed(error) => TrySendError::Closed(error),
        }
    }
}

fn saturated(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
