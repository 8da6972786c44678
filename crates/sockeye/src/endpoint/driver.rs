//! Moves bytes between the transport and the state machine.

mod control;
mod end;
mod room;
mod try_recv;
mod wait;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut;
use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams};
use sockeye_proto::{
    CloseCode, CloseFrame, CloseInfo, Compress, Connection, Event, Fragment, Instant, Role, SendError, State,
    TransportAction,
};
use tokio::io::{AsyncReadExt, AsyncWrite};

pub(crate) use try_recv::NotReceived;

use super::backlog::{Backlog, Stall};
use super::budget::Budget;
use super::compress_job::{CompressJob, PART_LEN};
use super::input::Input;
use super::output::{BY_REFERENCE_MIN, Output};
use super::{CODECS, buffer_pool, message_pool};
use crate::error::{Error, Kind};
use crate::message::Message;
use crate::message::outbound::Outbound;
use crate::message::payload::Payload;
use crate::message::prepared::{Frame, PreparedMessage};
use crate::runtime::clock;
use crate::runtime::timer::Timer;
use crate::settings::Settings;
use crate::transport::Io;
use crate::transport::Transport;

/// What is queued beyond this is offered to the kernel by `feed` itself, while it is still in the cache.
const WRITE_EAGERLY_FROM: usize = 128 * 1024;

/// A transport that takes less than this to drain is not slow.
const SLOW_DRAIN: Duration = Duration::from_secs(1);

/// How much is read at once while bytes wait to be written: into a buffer of that size, for what comes may have to wait.
const UNDRAINED_READ_LEN: usize = 8 * 1024;

/// A connection and what it runs over.
pub(crate) struct Driver {
    /// `None` once the transport is closed.
    io: Option<Transport>,
    connection: Connection,
    settings: Arc<Settings>,
    input: Input,
    output: Output,
    /// What else waits. `None` while nothing does.
    backlog: Option<Box<Backlog>>,
    timer: Timer,
    /// The [window edge](crate::transport::socket::window_edge) when the oldest unanswered ping was written, or when it last moved.
    window_edge: Option<NonZeroU32>,
    /// What was done since other tasks last had their turn.
    budget: Budget,
    is_half_closed: bool,
    /// Whether the peer has closed its half after its close frame, while there is something left to write to it.
    has_peer_half_closed: bool,
    /// Why the transport is gone, if not by the protocol's own doing.
    failure: Option<Error>,
    /// Whether only writing has failed so far. What had arrived before is still received.
    has_only_write_failed: bool,
    /// Whether anything that was queued was dropped, or a message was cut off that was being compressed.
    has_dropped_output: bool,
    /// Whether a stream over this connection has ended with an error.
    has_returned_error: bool,
    /// Whether `recv` has given the end.
    end: EndReport,
    /// Whether this is finishing in the background.
    is_lingering: bool,
    /// Whether control frames are kept for `recv_event`. Only while nothing else receives.
    observes_control: bool,
}

/// Whether `recv` has given the end, which it gives again to a caller that overlooks it, but not without letting other
/// tasks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndReport {
    None,
    Returned,
    /// Given, and other tasks have run since.
    Yielded,
}

/// What came of [`Driver::write_queued`].
#[derive(Default)]
pub(crate) struct WriteOutcome {
    /// How much was done, in bytes.
    pub(crate) work: u64,
    /// Whether there is more to compress and to write.
    pub(crate) is_unfinished: bool,
    /// Whether those who wait have to look for themselves.
    pub(crate) wake_waiters: bool,
}

/// How far a flush goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum FlushEnd {
    #[default]
    Unknown,
    /// Behind the message that was being compressed, by its [`CompressJob::start`].
    AfterCompressJob(u64),
    /// To what will be written then, since the connection began.
    At(u64),
}

impl Driver {
    /// A connection after its opening handshake; `read_buf` came behind the head.
    pub(crate) fn new(io: Box<dyn Io>, role: Role, settings: Arc<Settings>, read_buf: Vec<u8>) -> Self {
        let now = clock::now();
        Self {
            io: Some(io.into()),
            connection: Connection::new(role, settings.connection.clone(), now),
            settings,
            input: Input::of(read_buf, now),
            output: Output::default(),
            backlog: None,
            timer: Timer::default(),
            window_edge: None,
            budget: Budget::default(),
            has_dropped_output: false,
            is_half_closed: false,
            has_peer_half_closed: false,
            failure: None,
            has_only_write_failed: false,
            has_returned_error: false,
            end: EndReport::None,
            is_lingering: false,
            observes_control: false,
        }
    }

    /// Compresses from now on, as was agreed on in the opening handshake.
    pub(crate) fn enable_deflate(&mut self, config: &DeflateConfig, agreement: NegotiatedParams) {
        self.connection.enable_deflate(config, agreement, CODECS);
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether messages can still be sent, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.state() == State::Open && self.failure.is_none()
    }

    /// Whether what is waited for may never come: the peer has closed, the transport has ended, or nothing can be written
    /// to it.
    pub(crate) fn is_lost(&self) -> bool {
        self.failure.is_some() || self.has_ended()
    }

    /// Whether no more messages come, except those that were received already.
    #[inline]
    fn has_ended(&self) -> bool {
        matches!(self.connection.state(), State::Ending | State::Closed)
    }

    /// The next message; `None` after a [normal](sockeye_proto::CloseInfo::is_normal) end. The end is given as soon as the
    /// close frame of the peer has arrived.
    #[inline]
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        loop {
            if !self.budget.is_overdrawn() {
                // Made here, it stays in registers on its way to the caller. What is in the backlog came before.
                if self.backlog.is_none()
                    && let Some(message) = self.next_whole_message()
                {
                    return Poll::Ready(Ok(Some(message)));
                }
                if self.backlog.is_some() || self.has_input() {
                    // A place of its own: a result would share one in memory with the message above.
                    let mut delivered = None;
                    self.next_message_into(&mut delivered);
                    if let Some(message) = delivered {
                        return Poll::Ready(Ok(Some(message)));
                    }
                }
            }
            if self.has_ended() {
                return self.poll_end(cx);
            }
            ready!(self.poll_more(cx));
        }
    }

    /// Gives the end: `None`, or the error that says how it came about. What remains to be done for the closing handshake
    /// and the end of the transport goes on in the background.
    #[cold]
    #[inline(never)]
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        // Our close frame leaves at once where there is room for it.
        if self.poll_finish(cx).is_pending() {
            self.finish_in_background();
        }
        if self.end == EndReport::Returned {
            self.end = EndReport::Yielded;
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        self.end = EndReport::Returned;
        Poll::Ready(self.close_result().map(|()| None))
    }

    /// How the connection ended.
    fn close_result(&self) -> Result<(), Error> {
        match (self.connection.close_info(), &self.failure) {
            (Some(close_info), _) if close_info.is_normal() => Ok(()),
            (Some(close_info), None) => Err(Error::new(Kind::Closed(close_info.clone()))),
            (Some(close_info), Some(_)) if close_info.received().is_some() => {
                Err(Error::new(Kind::Closed(close_info.clone())))
            }
            (_, Some(error)) => Err(error.clone()),
            (None, None) => Ok(()),
        }
    }

    /// Goes through what remains of the closing handshake and the end of the transport, within their deadlines. Messages
    /// that still arrive are dropped.
    // [6455-5.5.1-8, 6455-7.1.7-1, 6455-7.1.7-2]
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            while self.has_input() && !self.budget.is_overdrawn() {
                drop(self.next_assembled_message());
            }
            if self.is_over() {
                self.close_transport();
                return Poll::Ready(());
            }
            ready!(self.poll_more(cx));
        }
    }

    /// Writes what waits, then receives. Ready when there is something new to look at, be it the end.
    #[inline(never)]
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // What is compressed now makes nobody read less: a part and a read are a turn.
            let is_turn_over = self.budget.is_spent();
            // Nothing waits unsent while we wait for more.
            let is_drained = self.has_nothing_to_write() || self.poll_drain(cx).is_ready();
            if is_drained && self.has_peer_half_closed {
                self.end_transport(None);
            }
            if self.is_over() {
                return Poll::Ready(());
            }
            if is_turn_over {
                ready!(self.poll_yield(cx));
                continue;
            }
            // What has arrived counts before any deadline does: the process may have been stopped.
            if self.poll_read(cx).is_ready() {
                return Poll::Ready(());
            }
            if self.budget.is_spent() {
                ready!(self.poll_yield(cx));
                continue;
            }
            self.budget.reset();
            if self.has_only_write_failed {
                if self.try_read_after_write_failure() {
                    return Poll::Ready(());
                }
                self.end_transport(self.failure.clone());
                continue;
            }
            ready!(self.poll_deadline(cx));
        }
    }

    /// [`poll_recv`](Self::poll_recv) as a stream: an error is given once, then the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if self.has_returned_error {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_recv(cx));
        self.has_returned_error = next.is_err();
        Poll::Ready(next.transpose())
    }

    /// Queues a message, once; waits only while too much is queued already.
    #[inline]
    pub(crate) fn poll_feed(&mut self, cx: &mut Context<'_>, message: &Outbound) -> Poll<Result<(), Error>> {
        if message.prepared().is_some() || self.backlog.is_some() {
            return self.poll_feed_any(cx, message);
        }
        ready!(self.poll_room_for(cx, message.plain_len()))?;
        if let Err(error) = self.queue_plain(message) {
            return Self::poll_error(cx, error);
        }
        self.write_if_much(cx);
        Poll::Ready(Ok(()))
    }

    /// Gives an error to a caller that may overlook it in a loop: other tasks have their turn now and then.
    #[cold]
    #[inline(never)]
    fn poll_error(cx: &mut Context<'_>, error: Error) -> Poll<Result<(), Error>> {
        ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
        Poll::Ready(Err(error))
    }

    /// [`poll_feed`](Self::poll_feed) of a prepared message, or while something waits.
    #[inline(never)]
    fn poll_feed_any(&mut self, cx: &mut Context<'_>, message: &Outbound) -> Poll<Result<(), Error>> {
        ready!(self.poll_room_for(cx, message.len()))?;
        if let Err(error) = self.queue(message) {
            return Self::poll_error(cx, error);
        }
        self.clear_full();
        self.write_if_much(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    pub(crate) fn write_if_much(&mut self, cx: &mut Context<'_>) {
        if self.output.len() >= WRITE_EAGERLY_FROM {
            // What could not be written now, and any failure, is the business of the next call.
            let _ = self.poll_drain(cx);
        }
    }

    /// Waits until a message of so many bytes may be queued.
    #[inline]
    pub(crate) fn poll_room_for(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<(), Error>> {
        match self.has_room_for(len) {
            true => Poll::Ready(Ok(())),
            false => self.poll_until_room_for(cx, len),
        }
    }

    #[cold]
    fn poll_until_room_for(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<(), Error>> {
        while !self.has_room_for(len) {
            // Nothing more may be queued, so nobody waits for room.
            if self.connection.state() != State::Open {
                return Poll::Ready(Err(self.send_error(SendError::Closed)));
            }
            self.record_full();
            if self.poll_drain(cx).is_pending() {
                ready!(self.poll_blocked(cx));
            }
            self.find_close_after_write_failure(cx);
            self.check_writable()?;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether [`queue`](Self::queue) may be called.
    #[inline]
    pub(crate) fn has_room_for(&self, len: usize) -> bool {
        let waiting = self.output.len();
        (waiting == 0 || waiting.saturating_add(len) <= self.settings.write_buffer_max) && self.compress_job().is_none()
    }

    /// The message that is being compressed.
    #[inline]
    fn compress_job(&self) -> Option<&CompressJob> {
        self.backlog.as_ref()?.compress_job.as_ref()
    }

    #[inline]
    fn stall(&self) -> Option<&Stall> {
        self.backlog.as_ref()?.stall.as_ref()
    }

    /// Changes what waits; the box goes when nothing does.
    #[cold]
    #[inline(never)]
    fn change_backlog<R>(&mut self, change: impl FnOnce(&mut Backlog) -> R) -> R {
        let backlog = self.backlog.get_or_insert_default();
        let result = change(backlog);
        if backlog.is_empty() {
            self.backlog = None;
        }
        result
    }

    /// The number of bytes that wait to be written.
    #[inline]
    pub(crate) fn waiting_len(&self) -> usize {
        self.output.len()
    }

    /// Whether a message is being compressed in parts: nothing can be queued behind it.
    #[inline]
    pub(crate) fn is_compressing(&self) -> bool {
        self.compress_job().is_some()
    }

    /// Whether there is a transport: it is neither closed nor left to the background.
    #[inline]
    pub(crate) fn has_transport(&self) -> bool {
        self.io.is_some()
    }

    /// Whether messages were received while a send waited, which nobody has taken yet.
    #[inline]
    pub(crate) fn has_read_ahead(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.ahead.cost() > 0)
    }

    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max).
    #[inline]
    pub(crate) fn write_buffer_max(&self) -> usize {
        self.settings.write_buffer_max
    }

    /// Notes that a message which its sender takes for queued was not: the next flush fails.
    pub(crate) fn record_dropped_message(&mut self) {
        self.has_dropped_output = true;
    }

    /// Why [`queue`](Self::queue) would fail, if it would.
    pub(crate) fn refusal(&self) -> Option<Error> {
        match self.check_writable() {
            Ok(()) if self.connection.state() == State::Open => None,
            Ok(()) => Some(self.send_error(SendError::Closed)),
            Err(error) => Some(error),
        }
    }

    /// Queues a message, whatever is queued already.
    #[inline]
    pub(crate) fn queue(&mut self, message: &Outbound) -> Result<(), Error> {
        match message.prepared() {
            None => self.queue_plain(message),
            Some(prepared) => self.queue_prepared(prepared, message.compress_choice()),
        }
    }

    /// Queues a message that is not prepared, whatever is queued already.
    // [6455-10.3-2]
    #[inline]
    fn queue_plain(&mut self, message: &Outbound) -> Result<(), Error> {
        self.check_writable()?;
        let len = message.plain_len();
        if self.connection.compresses(len, message.compress_choice()) {
            return self.queue_compressed(message);
        }
        self.queue_uncompressed(message, len)
    }

    #[inline(always)]
    fn queue_uncompressed(&mut self, message: &Outbound, len: usize) -> Result<(), Error> {
        let is_by_reference = len >= BY_REFERENCE_MIN && matches!(self.connection.role(), Role::Server);
        let copied_len = if is_by_reference { 0 } else { len };
        let out = self.output.buffer_for(copied_len, self.settings.write_buffer_max);
        match self.connection.start_message(message.kind(), len as u64, out) {
            Ok(Some(key)) => key.append(message.as_slice(), out),
            // What is large is written from where it is.
            Ok(None) if is_by_reference => self.output.push_payload(message.payload()),
            Ok(None) => message.append_to(out),
            Err(error) => return Err(self.send_error(error)),
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn queue_compressed(&mut self, outgoing: &Outbound) -> Result<(), Error> {
        let (message, len) = (outgoing.to_message(), outgoing.plain_len());
        self.budget.charge_compressed(len.min(PART_LEN));
        let is_begun = if len > PART_LEN {
            self.queue_first_part(message)
        } else {
            let out = self.output.buffer_for(len, self.settings.write_buffer_max);
            let sent = self
                .connection
                .send_with(message.data(), outgoing.compress_choice(), out);
            sent.map(|()| true)
        };
        match is_begun {
            Ok(true) => Ok(()),
            Ok(false) => self.queue_uncompressed(outgoing, len),
            Err(error) => Err(self.send_error(error)),
        }
    }

    /// Queues the first part of a message, compressed, and keeps the others for [`poll_drain`](Self::poll_drain);
    /// `false` if that does not make it smaller.
    fn queue_first_part(&mut self, message: Message) -> Result<bool, SendError> {
        let mut job = CompressJob::new(message, self.output.end());
        let (first, _) = job.next_part();
        let out = self.output.buffer_for(0, self.settings.write_buffer_max);
        let is_begun = self.connection.start_compressed(first, out)?;
        if is_begun {
            self.change_backlog(|backlog| backlog.compress_job = Some(job));
        }
        Ok(is_begun)
    }

    /// Queues the next part of the message that is being compressed.
    #[cold]
    #[inline(never)]
    fn queue_part(&mut self) {
        let job = self.backlog.as_mut().and_then(|backlog| backlog.compress_job.as_mut());
        let Some(job) = job else { return };
        let (part, fragment) = job.next_part();
        let len = part.bytes().len();
        let out = self.output.buffer_for(0, self.settings.write_buffer_max);
        let sent = self.connection.send_fragment(part, fragment, out);
        if sent.is_err() {
            // After a fault or the end, nothing of it is wanted any more.
            self.cancel_compress_job();
        } else if fragment == Fragment::Last {
            self.change_backlog(|backlog| backlog.compress_job = None);
        }
        self.budget.charge_compressed(len);
    }

    /// Gives up what is left of a message that is being compressed.
    fn cancel_compress_job(&mut self) {
        if self.compress_job().is_some() {
            self.change_backlog(|backlog| backlog.compress_job = None);
            self.has_dropped_output = true;
        }
    }

    /// Queues a message that others get too, whatever is queued already.
    pub(crate) fn queue_prepared(&mut self, prepared: &PreparedMessage, compress: Compress) -> Result<(), Error> {
        if matches!(self.connection.role(), Role::Client { .. }) {
            let message = Outbound::new(prepared.message().clone(), compress);
            return self.queue_plain(&message);
        }
        self.check_writable()?;
        let Frame { framing, bytes } = prepared.frame_for(&self.connection, compress);
        let sent = self.connection.start_framed(prepared.message().data(), *framing);
        sent.map_err(|error| self.send_error(error))?;
        if bytes.len() >= BY_REFERENCE_MIN {
            self.output.push_payload(bytes.clone());
        } else {
            let out = self.output.buffer_for(bytes.len(), self.settings.write_buffer_max);
            out.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Hands everything to the kernel.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.poll_drain(cx).is_pending() {
            ready!(self.poll_blocked(cx));
        }
        self.find_close_after_write_failure(cx);
        match self.check_flushed() {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Self::poll_error(cx, error),
        }
    }

    /// Hands to the kernel all that was queued when it was first called with this `end`.
    pub(crate) fn poll_flush_to(&mut self, cx: &mut Context<'_>, end: &mut FlushEnd) -> Poll<Result<(), Error>> {
        while self.poll_drain(cx).is_pending() {
            self.find_flush_end(end);
            if let FlushEnd::At(end) = *end
                && self.output.written_total() >= end
                && self.poll_flush_transport(cx).is_ready()
            {
                break;
            }
            ready!(self.poll_blocked(cx));
        }
        self.find_close_after_write_failure(cx);
        match self.check_flushed() {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Self::poll_error(cx, error),
        }
    }

    /// Writes what waits, in the place of tasks that wait for the connection; of a message that is being compressed, one
    /// part.
    pub(crate) fn write_queued(&mut self, cx: &mut Context<'_>) -> WriteOutcome {
        let (was_lost, was_stalled) = (self.is_lost(), self.stall().is_some());
        let was_compressing = self.compress_job().is_some();
        let written_before = self.output.written_total();
        self.budget.reset();
        let drained = self.poll_drain(cx);
        let written = self.output.written_total().saturating_sub(written_before);
        let work = written.max(self.budget.spent());
        let is_stalled = self.stall().is_some();
        let is_unfinished = drained.is_pending() && self.budget.is_spent() && !is_stalled;
        // It was the turn of the task that calls.
        self.budget.reset();
        // Who waits while the peer stalls waits for the first byte that it takes; else it is a deadline that is new.
        let is_stall_news = is_stalled != was_stalled || (was_stalled && written > 0);
        let has_room_again = was_compressing && self.compress_job().is_none();
        WriteOutcome {
            work,
            is_unfinished,
            wake_waiters: is_stall_news
                || has_room_again
                || self.is_lost() != was_lost
                || self.connection.state() != State::Open,
        }
    }

    fn find_flush_end(&self, end: &mut FlushEnd) {
        *end = match (*end, self.compress_job().map(CompressJob::start)) {
            (FlushEnd::At(_), _) => return,
            (FlushEnd::AfterCompressJob(start), Some(present)) if start == present => return,
            _ if self.connection.wants_transmit() => return,
            (FlushEnd::Unknown, Some(start)) => FlushEnd::AfterCompressJob(start),
            (FlushEnd::Unknown | FlushEnd::AfterCompressJob(_), _) => FlushEnd::At(self.output.end()),
        };
    }

    /// Begins the closing handshake. If the code or reason may not be sent, which is the error, it begins with the nearest
    /// ones that may.
    pub(crate) fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let Err(invalid) = self.connection.close(code, reason) else {
            return Ok(());
        };
        let nearest = CloseFrame::new_lossy(code, reason);
        self.connection.close(nearest.code, &nearest.reason)?;
        Err(invalid.into())
    }

    /// Goes through the closing handshake until both close frames are exchanged; messages that still arrive are dropped.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match ready!(self.poll_recv(cx)) {
                Ok(Some(_)) => {}
                Ok(None) => return Poll::Ready(Ok(())),
                // Whatever code the peer closed with, the connection is closed.
                Err(_) if self.connection.close_info().is_some_and(CloseInfo::is_clean) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Closes the transport at once, whatever waits.
    pub(crate) fn abort(&mut self) {
        self.io = None;
    }

    /// Closes the transport at once, whatever waits. From then on every operation fails with this error, unless the
    /// connection has ended before.
    pub(crate) fn abort_with(&mut self, error: Error) {
        self.io = None;
        self.end_transport(Some(error));
    }

    /// The next message in what was received, if it is as nearly all are. Everything else is left to
    /// [`next_assembled_message`](Self::next_assembled_message).
    #[inline(always)]
    fn next_whole_message(&mut self) -> Option<Message> {
        let found = self.connection.find_message(self.input.at, self.input.unread())?;
        let message = Message::unmasked(&found)?;
        self.input.pos += found.frame_len() as u32;
        self.input.release_or_retain();
        self.budget.charge_frame();
        Some(message)
    }

    /// Whether [`next_assembled_message`](Self::next_assembled_message) has anything to look at. Where it has not, it has released the buffer before.
    #[inline]
    fn has_input(&self) -> bool {
        !self.input.is_consumed() || self.connection.is_inflating() || self.connection.has_appended()
    }

    #[inline(never)]
    fn next_message_into(&mut self, delivered: &mut Option<Message>) {
        self.observes_control = false;
        *delivered = match self.backlog.is_some() {
            true => self.change_backlog(|backlog| backlog.ahead.pop_message()),
            false => None,
        };
        if delivered.is_none() {
            *delivered = self.next_whole_message().or_else(|| self.next_assembled_message());
        }
    }

    /// Takes the next message out of what was received, and does what else has come.
    fn next_assembled_message(&mut self) -> Option<Message> {
        while !self.input.is_consumed() || self.connection.is_inflating() {
            let unread = &mut self.input.buffer[self.input.pos as usize..self.input.end as usize];
            let received = self.connection.handle_bytes(self.input.at, unread);
            self.input.pos += received.consumed as u32;
            self.budget.charge_frame();
            self.budget.charge_fragments(received.consumed);
            let Some(event) = received.event else {
                if self.connection.is_inflating() {
                    self.budget.exhaust();
                    self.input.release_or_retain();
                    return None;
                }
                continue;
            };
            if let Event::Message {
                payload: Cow::Owned(assembled),
                ..
            } = &event
            {
                self.budget.charge_assembled(assembled.len());
                self.input.lease.release();
            }
            if self.observes_control
                && let Some(control) = control::control_event(&event)
            {
                self.change_backlog(|backlog| backlog.ahead.push(control));
                self.input.release_or_retain();
                self.queue_control();
                return None;
            }
            if let Some(message) = to_message(event) {
                self.input.release_or_retain();
                return Some(message);
            }
            // A control frame came: each ping of a burst gets its pong.
            self.queue_control();
        }
        self.input.release();
        self.next_appended_message()
    }

    /// Takes a message that was read straight into its own buffer.
    fn next_appended_message(&mut self) -> Option<Message> {
        let Some(event) = self.connection.handle_appended(self.input.at) else {
            if self.connection.is_inflating() {
                self.budget.exhaust();
            }
            return None;
        };
        self.input.lease.release();
        let message = to_message(event)?;
        self.budget.charge_assembled(message.len());
        Some(message)
    }

    /// Queues what the protocol itself has to say: pongs, pings, the close frame.
    #[inline]
    fn queue_control(&mut self) {
        if self.connection.wants_transmit() {
            self.append_control();
        }
    }

    #[cold]
    #[inline(never)]
    fn append_control(&mut self) {
        self.output.append_control(self.settings.write_buffer_max, |out| {
            self.connection.poll_transmit(out);
        });
    }

    /// Reads once; ready if there is anything new, be it the end.
    // Inlined whatever the compiler thinks, into the two that call it: 70 instructions of a message that comes alone.
    #[inline(always)]
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_peer_half_closed {
            return Poll::Pending;
        }
        let is_drained = self.is_drained();
        let Some(io) = &mut self.io else {
            return Poll::Ready(());
        };
        let read = match self.connection.direct_buffer() {
            Some((buffer, len_max)) => {
                // Before it grows: the pages of an earlier message's buffer are there already.
                self.input
                    .lease
                    .acquire_for(buffer, buffer.len().saturating_add(len_max));
                let read = ready!(pin!(io.read_buf(&mut buffer.limit(len_max))).poll(cx));
                self.input.at = clock::now();
                self.budget.charge_direct_read(*read.as_ref().unwrap_or(&0));
                read
            }
            None => {
                // What a peer sends that does not take what it is sent may have to wait here.
                let len_max = match is_drained {
                    true => buffer_pool::READ_BUFFER_LEN,
                    false => UNDRAINED_READ_LEN,
                };
                let read = ready!(self.input.poll_fill(io, len_max, cx));
                self.budget.charge_read();
                read
            }
        };
        match read {
            // Our answer to the peer's close frame is still to leave.
            Ok(0) if self.connection.state() == State::Ending && !is_drained => {
                self.has_peer_half_closed = true;
            }
            Ok(0) => self.end_transport(None),
            Ok(_) => {}
            Err(error) => self.end_transport(Some(error.into())),
        }
        Poll::Ready(())
    }

    /// Writes all that waits, and what the protocol itself has to say; then half-closes if it is time. A failure to
    /// write is kept, like any other. Pending also where there is more to compress and the turn is over.
    // [6455-6.1-7, 6455-7.1.1-1]
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.queue_control();
            if self.is_drained() {
                self.output.release();
                self.clear_full();
                break;
            }
            let Some(io) = self.io.as_mut().filter(|_| self.failure.is_none()) else {
                self.drop_output();
                break;
            };
            if self.output.is_drained() {
                if self.budget.is_spent() {
                    return Poll::Pending;
                }
                self.queue_part();
                continue;
            }
            let (mut wrote, written_before) = (false, self.output.written_total());
            let drained = self.output.poll_write(io, cx, &mut wrote);
            if self.stall().is_some() {
                self.record_write_progress(wrote, drained.is_ready());
            }
            if self.output.take_control_written() {
                self.record_control_written();
            }
            match drained {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.fail_writing(error.into()),
                Poll::Pending => {
                    if self.stall().is_none() {
                        let written_total = self.output.written_total();
                        let stall = Stall::new(clock::now(), written_total, written_total - written_before);
                        self.change_backlog(|backlog| backlog.stall = Some(stall));
                    }
                    return Poll::Pending;
                }
            }
        }
        if self.connection.transport_action() == TransportAction::HalfClose
            && !self.is_half_closed
            && let Some(io) = &mut self.io
        {
            // If it fails, the transport has ended already, and reading will tell.
            let _ = ready!(Pin::new(io).poll_shutdown(cx));
            self.is_half_closed = true;
        }
        Poll::Ready(())
    }

    /// After an attempt to write to a transport that was full.
    #[cold]
    fn record_write_progress(&mut self, wrote: bool, is_drained: bool) {
        if wrote {
            self.connection.handle_write_progress(clock::now());
        }
        if is_drained {
            let (now, written_total) = (clock::now(), self.output.written_total());
            self.change_backlog(|backlog| {
                let drain_time = backlog.stall.take().map(|stall| stall.drain_time(now, written_total));
                backlog.drained_at = drain_time.filter(|time| *time >= SLOW_DRAIN).map(|time| now + time);
            });
        }
    }

    /// The peer's time to answer begins when it has read what is before the control frame.
    #[cold]
    fn record_control_written(&mut self) {
        let (now, written_total) = (clock::now(), self.output.written_total());
        let drain_time = |backlog: &Backlog| match (&backlog.stall, backlog.drained_at) {
            (Some(stall), _) => stall.drain_time(now, written_total),
            (None, Some(drained_at)) => drained_at - now,
            (None, None) => Duration::ZERO,
        };
        let delay = self.backlog.as_deref().map_or(Duration::ZERO, drain_time);
        if !self.connection.is_awaiting_pong() {
            self.window_edge = self.io.as_ref().and_then(Transport::window_edge);
        }
        self.connection.handle_transmitted_behind(now, delay);
    }

    /// Whether [`poll_drain`](Self::poll_drain) would do nothing.
    #[inline]
    fn has_nothing_to_write(&self) -> bool {
        self.is_drained() && !self.connection.wants_transmit() && self.connection.state() == State::Open
    }

    /// Whether all that was queued has left.
    #[inline]
    fn is_drained(&self) -> bool {
        self.output.is_drained() && self.compress_job().is_none()
    }

    fn drop_output(&mut self) {
        self.has_dropped_output |= !self.output.is_drained();
        self.output.clear();
        self.cancel_compress_job();
    }

    fn poll_flush_transport(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(io) = &mut self.io
            && let Err(error) = ready!(Pin::new(io).poll_flush(cx))
        {
            self.fail_writing(error.into());
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("state", &self.connection.state())
            .field("waiting", &self.output.len())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

/// The message in an event. The others are dealt with by the state machine, or recorded in its close info.
#[inline]
fn to_message(event: Event<'_>) -> Option<Message> {
    let Event::Message { kind, payload } = event else {
        return None;
    };
    let payload = match payload {
        Cow::Borrowed(bytes) => Payload::copy_from_slice(bytes),
        Cow::Owned(bytes) => message_pool::share(bytes).into(),
    };
    // SAFETY: `sockeye_proto` promises of `Event::Message` that the payload of a text message is UTF-8. It checks every byte
    // as it arrives (RFC 6455 §8.1).
    #[allow(unsafe_code)]
    Some(unsafe { Message::of_checked(kind, payload) })
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
