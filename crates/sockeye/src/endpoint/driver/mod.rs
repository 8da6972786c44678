//! Moves bytes between the transport and the protocol's state machine.
//!
//! [`receive`] and [`queue`] turn bytes into messages and messages into bytes, [`write`] writes what is queued, [`wait`] waits
//! for the transport and for deadlines, and [`end`] ends the transport.

mod end;
mod queue;
mod receive;
mod wait;
mod write;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams};
use sockeye_proto::{CloseCode, CloseFrame, CloseInfo, Connection, Role, State};

use super::CODECS;
use super::backlog::{Backlog, Stall};
use super::budget::Budget;
use super::compress_job::CompressJob;
use super::input::Input;
use super::output::Output;
use super::state::{EndReport, TransportState, WakeState};
use crate::error::{Error, Kind};
use crate::message::Message;
use crate::runtime::{Runtime, Timer};
use crate::settings::Settings;
use crate::transport::Io;

/// A connection and its transport.
pub(crate) struct Driver {
    transport: TransportState,
    connection: Connection,
    settings: Arc<Settings>,
    input: Input,
    output: Output,
    /// Everything else that waits. `None` while nothing does.
    backlog: Option<Box<Backlog>>,
    timer: Timer,
    /// The [window edge](crate::transport::socket::window_edge) when the oldest unanswered ping was written, or when it last
    /// moved.
    window_edge: Option<NonZeroU32>,
    /// The work since the task last yielded.
    budget: Budget,
    /// Whether queued output was dropped, the rest of a message that was being compressed included.
    has_dropped_output: bool,
    end: EndReport,
}

/// The result of [`Driver::write_queued`].
#[derive(Default)]
pub(crate) struct WriteOutcome {
    /// The work that was done, in bytes.
    pub(crate) work: u64,
    /// Whether there is more to compress and to write.
    pub(crate) is_unfinished: bool,
    /// Whether every pending operation must be polled again.
    pub(crate) wake_waiters: bool,
}

/// The position up to which a flush writes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum FlushEnd {
    #[default]
    Unknown,
    /// The end of the message that is being compressed, which is identified by its [`CompressJob::start`].
    AfterCompressJob(u64),
    /// This many bytes since the connection began.
    At(u64),
}

impl Driver {
    /// A connection after its opening handshake. `read_buf` has the bytes that arrived behind the handshake.
    pub(crate) fn new(io: Box<dyn Io>, role: Role, settings: Arc<Settings>, read_buf: Vec<u8>) -> Self {
        let runtime = settings.runtime;
        let now = runtime.now();
        Self {
            transport: TransportState::Open(io.into()),
            connection: Connection::new(role, settings.connection.clone(), now),
            settings,
            input: Input::of(read_buf, now),
            output: Output::default(),
            backlog: None,
            timer: runtime.timer(),
            window_edge: None,
            budget: Budget::default(),
            has_dropped_output: false,
            end: EndReport::NotReturned,
        }
    }

    /// Compresses messages from now on, with the parameters of the opening handshake.
    pub(crate) fn enable_deflate(&mut self, config: &DeflateConfig, agreement: NegotiatedParams) {
        self.connection.enable_deflate(config, agreement, CODECS);
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn runtime(&self) -> Runtime {
        self.settings.runtime
    }

    /// Whether messages can still be sent, as far as is known.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.connection.state() == State::Open && !self.transport.has_failure()
    }

    /// Whether no more messages arrive. Those that have arrived may still wait to be received.
    #[inline]
    fn has_ended(&self) -> bool {
        matches!(self.connection.state(), State::Draining | State::Closed)
    }

    /// What the other operations on the connection must know.
    #[inline]
    pub(crate) fn wake_state(&self) -> WakeState {
        let mut bits = 0;
        if self.is_open() {
            bits |= WakeState::OPEN;
        }
        if self.is_lost() {
            bits |= WakeState::LOST;
        }
        if self.transport.transport().is_some() {
            bits |= WakeState::TRANSPORT;
        }
        if self.backlog.as_ref().is_some_and(|backlog| backlog.ahead.cost() > 0) {
            bits |= WakeState::READ_AHEAD;
        }
        WakeState::from_bits(bits)
    }

    /// See [`WakeState::LOST`].
    #[inline]
    fn is_lost(&self) -> bool {
        self.transport.has_failure() || self.has_ended()
    }

    /// The next message; `None` after a [normal](sockeye_proto::CloseInfo::is_normal) end. The end is returned as soon as the
    /// peer's close frame has arrived.
    #[inline]
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        loop {
            if !self.budget.is_overdrawn()
                && let Some(message) = self.next_message()
            {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.has_ended() {
                return self.poll_end(cx);
            }
            ready!(self.poll_more(cx));
        }
    }

    /// Returns the end: `None`, or the error that caused it. The rest of the closing handshake and the end of the transport
    /// continue in the background.
    #[cold]
    #[inline(never)]
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        // Our close frame leaves at once if there is room for it.
        if self.poll_finish(cx).is_pending() {
            self.finish_in_background();
        }
        if let EndReport::Returned { has_yielded, .. } = &mut self.end {
            *has_yielded = !*has_yielded;
            if *has_yielded {
                self.runtime().reschedule(cx);
                return Poll::Pending;
            }
        } else {
            self.end = EndReport::Returned {
                has_yielded: false,
                is_stream_over: false,
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

    /// Runs the rest of the closing handshake and the end of the transport, within their deadlines. Drops messages that still
    /// arrive.
    // [6455-5.5.1-8, 6455-7.1.7-1, 6455-7.1.7-2]
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            while self.has_input() && !self.budget.is_overdrawn() {
                drop(self.parse_message());
            }
            if self.is_over() {
                self.close_transport(None);
                return Poll::Ready(());
            }
            ready!(self.poll_more(cx));
        }
    }

    /// Writes what is queued, then reads. Ready when there is something new to look at, be it the end.
    #[inline(never)]
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // Read before compressing, so that a message that is compressed does not prevent a read.
            let was_spent = self.budget.is_spent();
            // Nothing stays queued while this waits for more.
            let is_drained = self.has_nothing_to_write() || self.poll_drain(cx).is_ready();
            if is_drained && self.transport.is_read_closed() {
                self.end_transport(None);
            }
            if self.is_over() {
                return Poll::Ready(());
            }
            if was_spent {
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
            if self.transport.is_write_failed() {
                if self.try_read() {
                    return Poll::Ready(());
                }
                let error = self.transport.failure().cloned();
                self.end_transport(error);
                continue;
            }
            ready!(self.poll_deadline(cx));
        }
    }

    /// [`poll_recv`](Self::poll_recv) as a stream: an error is returned once, then `None`.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if let EndReport::Returned {
            is_stream_over: true, ..
        } = self.end
        {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_recv(cx));
        if next.is_err()
            && let EndReport::Returned { is_stream_over, .. } = &mut self.end
        {
            *is_stream_over = true;
        }
        Poll::Ready(next.transpose())
    }

    /// The number of bytes that wait to be written.
    #[inline]
    pub(crate) fn waiting_len(&self) -> usize {
        self.output.len()
    }

    /// Whether a message is being compressed in parts. Nothing can be queued behind it.
    #[inline]
    pub(crate) fn is_compressing(&self) -> bool {
        self.compress_job().is_some()
    }

    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max).
    #[inline]
    pub(crate) fn write_buffer_max(&self) -> usize {
        self.settings.write_buffer_max
    }

    pub(crate) fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.check_writable()?;
        self.connection.ping(payload).map_err(|error| self.send_error(error))
    }

    /// Begins the closing handshake. If the code or reason may not be sent, it begins with the nearest ones that may, and
    /// returns the error.
    pub(crate) fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let Err(invalid) = self.connection.close(code, reason) else {
            return Ok(());
        };
        let nearest = CloseFrame::new_lossy(code, reason);
        self.connection.close(nearest.code, &nearest.reason)?;
        Err(invalid.into())
    }

    /// Runs the closing handshake until both close frames are exchanged. Drops messages that still arrive.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match ready!(self.poll_recv(cx)) {
                Ok(Some(_)) => {}
                Ok(None) => return Poll::Ready(Ok(())),
                // Whatever the peer's close code is, the connection is closed.
                Err(_) if self.connection.close_info().is_some_and(CloseInfo::is_clean) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Closes the transport at once. What is queued is lost.
    pub(crate) fn abort(&mut self) {
        drop(self.transport.close(None));
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

    /// Changes the backlog, and frees it if it is empty then.
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
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("state", &self.connection.state())
            .field("waiting", &self.output.len())
            .field("failure", &self.transport.failure())
            .finish_non_exhaustive()
    }
}
