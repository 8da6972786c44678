//! Moves bytes between the transport and the protocol's state machine.
//!
//! [`receive`] parses bytes into messages, [`queue`] encodes messages, [`write`] writes the queued bytes, [`wait`]
//! waits for the transport and deadlines, and [`end`] ends the transport.

mod capacity;
mod control;
mod deferred;
mod end;
mod latency;
mod queue;
mod receive;
mod recv_stream;
mod send_stream;
mod stats;
mod try_recv;
mod wait;
mod write;

pub(crate) use deferred::LimitCheck;
pub(crate) use recv_stream::StreamRead;
pub(crate) use send_stream::StreamFragment;
pub(crate) use try_recv::NotReceived;

use std::any::Any;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams};
use sockeye_proto::{CloseCode, CloseFrame, CloseInfo, Connection, Role, State};

use super::budget::Budget;
use super::busy_state::{BusyState, Stall};
use super::codec_pool::THREAD_CODECS;
use super::compress_job::CompressJob;
use super::high_counts::HighCounts;
use super::input::Input;
use super::state::{EndStatus, TransportState};
use super::wake_flags::WakeFlags;
use super::write_queue::WriteQueue;
use crate::error::{Error, Kind};
use crate::message::Message;
use crate::observe::Observer;
use crate::runtime::{Runtime, Timer};
use crate::settings::ConnectionGroup;
use crate::transport::{self, Io};

/// A connection and its transport.
pub(crate) struct Driver {
    transport: TransportState,
    connection: Connection,
    group: Arc<ConnectionGroup>,
    input: Input,
    write_queue: WriteQueue,
    /// State that exists only while the connection is busy.
    busy: Option<Box<BusyState>>,
    timer: Timer,
    /// The [window edge](crate::transport::socket::window_edge) when the oldest unanswered ping was written, or at its
    /// last change.
    window_edge: Option<NonZeroU32>,
    /// The work done since the task last yielded.
    budget: Budget,
    /// Whether queued output was dropped, including the rest of a message that was being compressed.
    has_dropped_output: bool,
    /// Whether control frames are kept for `recv_event`. Reset when another method receives.
    observes_control: bool,
    end: EndStatus,
    high_counts: HighCounts,
    observer: Observer,
}

/// The result of [`Driver::write_queued`].
#[derive(Default)]
pub(crate) struct WriteOutcome {
    /// The work done, in bytes.
    pub(crate) work: u64,
    /// Whether more has to be compressed and written.
    pub(crate) is_unfinished: bool,
    /// Whether every pending operation must be polled again.
    pub(crate) wake_waiters: bool,
}

/// The position up to which a flush writes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum FlushTarget {
    /// Not determined yet.
    #[default]
    Unknown,
    /// The end of the message that is being compressed, identified by its [`CompressJob::start`].
    AfterCompressJob(u64),
    /// This many bytes since the connection began.
    At(u64),
}

impl Driver {
    /// Creates the driver after the opening handshake. `read_buf` contains the bytes that arrived behind the handshake.
    pub(crate) fn new(io: Box<dyn Io>, role: Role, group: Arc<ConnectionGroup>, read_buf: Vec<u8>) -> Self {
        let runtime = group.runtime;
        let now = runtime.now();
        let busy = group.measures_latency.then(|| Box::new(BusyState::with_latency()));
        Self {
            transport: TransportState::Open(io.into()),
            connection: Connection::new(role, group.connection.clone(), now),
            group,
            input: Input::new(read_buf, now),
            write_queue: WriteQueue::default(),
            busy,
            timer: Timer::default(),
            window_edge: None,
            budget: Budget::default(),
            has_dropped_output: false,
            observes_control: false,
            end: EndStatus::NotReported,
            high_counts: HighCounts::default(),
            observer: Observer::default(),
        }
    }

    /// Enables compression with the negotiated parameters.
    pub(crate) fn enable_deflate(&mut self, config: &DeflateConfig, negotiated: NegotiatedParams) {
        self.connection.enable_deflate(config, negotiated, THREAD_CODECS);
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn runtime(&self) -> Runtime {
        self.group.runtime
    }

    /// The transport, if it is open and its type is known: see
    /// [`Transport::as_any`](crate::transport::Transport::as_any).
    pub(crate) fn transport(&self) -> Option<&dyn Any> {
        self.transport.io()?.as_any()
    }

    /// Whether messages can still be sent, as far as is known.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.connection.state() == State::Open && !self.transport.has_failure()
    }

    /// Whether both directions of the transport are usable and neither side has begun to close.
    #[inline]
    fn is_fully_open(&self) -> bool {
        matches!(self.transport, TransportState::Open(_)) && self.connection.state() == State::Open
    }

    /// Whether no more messages can arrive. Messages that have arrived may still wait to be received.
    #[inline]
    fn is_receive_closed(&self) -> bool {
        matches!(self.connection.state(), State::Draining | State::Closed)
    }

    /// The state that other pending operations depend on.
    #[inline]
    pub(crate) fn wake_flags(&self) -> WakeFlags {
        let mut bits = 0;
        if self.is_open() {
            bits |= WakeFlags::OPEN;
        }
        if self.is_terminated() {
            bits |= WakeFlags::TERMINATED;
        }
        if self.transport.io().is_some() {
            bits |= WakeFlags::TRANSPORT;
        }
        if self.has_read_ahead() {
            bits |= WakeFlags::READ_AHEAD;
        }
        WakeFlags::from_bits(bits)
    }

    /// Whether messages received while a send waited have not been taken yet.
    #[inline]
    pub(super) fn has_read_ahead(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.ahead.cost() > 0)
    }

    /// See [`WakeFlags::TERMINATED`].
    #[inline]
    fn is_terminated(&self) -> bool {
        self.transport.has_failure() || self.is_receive_closed()
    }

    /// The next message; `None` after a [normal](sockeye_proto::CloseInfo::is_normal) end. The end is returned as soon
    /// as the peer's close frame has arrived.
    #[inline]
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        loop {
            if !self.budget.is_overdrawn()
                && let Some(message) = self.next_message()
            {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.is_receive_closed() {
                return self.poll_end(cx);
            }
            ready!(self.poll_io(cx));
        }
    }

    /// Returns the end: `None`, or the error that caused it. The remaining closing handshake and the end of the
    /// transport continue in the background.
    #[cold]
    #[inline(never)]
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        // Report the close without blocking until the peer closes TCP.
        transport::stop_blocking_reads();
        // This writes our close frame immediately if the transport has room.
        if self.poll_finish(cx).is_pending() {
            self.finish_in_background();
        }
        if let EndStatus::Reported { has_yielded, .. } = &mut self.end {
            *has_yielded = !*has_yielded;
            if *has_yielded {
                self.runtime().reschedule(cx);
                return Poll::Pending;
            }
        } else {
            self.end = EndStatus::Reported {
                has_yielded: false,
                is_stream_terminated: false,
            };
        }
        Poll::Ready(self.close_result().map(|()| None))
    }

    /// How the connection ended.
    fn close_result(&self) -> Result<(), Error> {
        match (self.connection.close_info(), self.transport.failure()) {
            (Some(close_info), _) if close_info.is_normal() => Ok(()),
            (Some(close_info), None) => Err(Error::new(Kind::Closed(close_info.clone()))),
            (Some(close_info), Some(_)) if close_info.received().is_some() => {
                Err(Error::new(Kind::Closed(close_info.clone())))
            }
            (_, Some(error)) => Err(error.clone()),
            (None, None) => Ok(()),
        }
    }

    /// Performs the remaining closing handshake and ends the transport, within their deadlines. Drops messages that
    /// still arrive.
    // [6455-5.5.1-8, 6455-7.1.7-1, 6455-7.1.7-2]
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            while self.has_input() && !self.budget.is_overdrawn() {
                drop(self.parse_message());
                self.drop_partial();
            }
            if self.is_transport_ended() {
                self.close_transport(None);
                return Poll::Ready(());
            }
            ready!(self.poll_io(cx));
        }
    }

    /// Writes what is queued, then reads. Ready when the caller has to check again: input has arrived, or the
    /// connection has ended.
    #[inline(never)]
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.group.is_shutting_down() && self.is_open() {
            // 1001 without a reason is always valid. A connection that is not open is closing already.
            let _ = self.start_close(CloseCode::GOING_AWAY, "");
        }
        loop {
            // Read before compressing, so that a long compression does not delay reading.
            let was_spent = self.budget.is_spent();
            // Write everything that is queued before waiting for input.
            let is_flushed = self.has_nothing_to_write() || self.poll_drain(cx).is_ready();
            if !self.is_fully_open() {
                if is_flushed && self.transport.is_read_closed() {
                    self.end_transport(None);
                }
                if self.is_transport_ended() {
                    return Poll::Ready(());
                }
            }
            if was_spent {
                ready!(self.poll_yield(cx));
                continue;
            }
            // `poll_drain` is also pending while the writing direction is being shut down.
            let is_flushed = is_flushed || self.is_flushed();
            // Handle input before deadlines: the process may have been suspended.
            if self.poll_read(cx, is_flushed).is_ready() {
                return Poll::Ready(());
            }
            if self.budget.is_spent() {
                ready!(self.poll_yield(cx));
                continue;
            }
            self.budget.reset();
            if self.transport.is_write_failed() {
                if self.try_read() {
                    return Poll::Ready(());
                }
                let error = self.transport.failure().cloned();
                self.end_transport(error);
                continue;
            }
            self.report_counts();
            ready!(self.poll_deadline(cx));
        }
    }

    /// [`poll_recv`](Self::poll_recv) for a stream: an error is returned once, then `None`.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if let EndStatus::Reported {
            is_stream_terminated: true,
            ..
        } = self.end
        {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_recv(cx));
        if next.is_err()
            && let EndStatus::Reported {
                is_stream_terminated, ..
            } = &mut self.end
        {
            *is_stream_terminated = true;
        }
        Poll::Ready(next.transpose())
    }

    /// The number of bytes that wait to be written, including messages that are not encoded yet.
    #[inline]
    pub(crate) fn queued_len(&self) -> usize {
        self.write_queue.len().saturating_add(self.deferred_cost())
    }

    /// Whether anything waits to be encoded or written.
    pub(crate) fn has_queued_output(&self) -> bool {
        !self.write_queue.is_empty() || self.has_unencoded()
    }

    /// Whether a message is being compressed in parts, or messages are deferred.
    #[inline]
    pub(crate) fn has_unencoded(&self) -> bool {
        let busy = self.busy.as_ref();
        busy.is_some_and(|busy| busy.compress_job.is_some() || !busy.deferred.is_empty())
    }

    /// Whether a message is being compressed in parts.
    #[inline]
    pub(super) fn is_compressing(&self) -> bool {
        self.compress_job().is_some()
    }

    /// Whether a message is being sent in parts: compressed, or as a stream. Nothing can be queued behind it.
    #[inline]
    pub(super) fn is_message_open(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.is_message_open())
    }

    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max).
    #[inline]
    pub(crate) fn write_buffer_max(&self) -> usize {
        self.group.write_buffer_max
    }

    /// Begins the closing handshake. If the code or reason must not be sent, uses the nearest valid ones and returns
    /// the error.
    pub(crate) fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.abandon_fragments();
        self.encode_deferred();
        let Err(invalid) = self.connection.close(code, reason) else {
            return Ok(());
        };
        let nearest = CloseFrame::new_lossy(code, reason);
        self.connection.close(nearest.code, &nearest.reason)?;
        Err(invalid.into())
    }

    /// Performs the closing handshake until both close frames are exchanged. Drops messages that still arrive.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match ready!(self.poll_recv(cx)) {
                Ok(Some(_)) => {}
                Ok(None) => return Poll::Ready(Ok(())),
                // The connection is closed, whatever the peer's close code is.
                Err(_) if self.connection.close_info().is_some_and(CloseInfo::is_clean) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Closes the transport immediately. Queued output is lost.
    pub(crate) fn abort(&mut self) {
        drop(self.transport.close(None));
    }

    /// Closes the transport immediately. Queued output is lost. Later operations fail with `error`, unless the
    /// connection had already ended.
    pub(crate) fn abort_with(&mut self, error: Error) {
        self.end_transport(Some(error));
    }

    /// The message that is being compressed in parts.
    #[inline]
    fn compress_job(&self) -> Option<&CompressJob> {
        self.busy.as_ref()?.compress_job.as_ref()
    }

    #[inline]
    fn stall(&self) -> Option<&Stall> {
        self.busy.as_ref()?.stall.as_ref()
    }

    /// Modifies the [`BusyState`], and frees it if it is then empty.
    #[cold]
    #[inline(never)]
    fn with_busy_state<R>(&mut self, change: impl FnOnce(&mut BusyState) -> R) -> R {
        let busy = self.busy.get_or_insert_default();
        let result = change(busy);
        if busy.is_empty() {
            self.busy = None;
        }
        result
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("state", &self.connection.state())
            .field("queued", &self.write_queue.len())
            .field("failure", &self.transport.failure())
            .finish_non_exhaustive()
    }
}
