//! Moves bytes between the transport and the state machine.

use std::borrow::Cow;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::BufMut;
use sockeye_proto::deflate::{Agreement, DeflateConfig};
use sockeye_proto::{CloseCode, Connection, Event, Fragment, Instant, Role, SendError, State, Transport};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::alarm::Alarm;
use super::carrier::Carrier;
use super::input::Input;
use super::output::{BY_REFERENCE_MIN, Output};
use super::parts::{PART_LEN, Parts};
use super::turn::Turn;
use super::{CODECS, Io, buffers, clock, large};
use crate::error::{Error, Kind};
use crate::message::Message;
use crate::outgoing::Outgoing;
use crate::payload::Payload;
use crate::prepared::{Frame, Prepared};
use crate::settings::Settings;

/// What is queued beyond this is offered to the kernel by `feed` itself, while it is still in the cache.
const WRITE_EAGERLY_FROM: usize = 128 * 1024;

/// How much is read at once while bytes wait to be written: into a buffer of that size, for what comes may have to wait.
const UNDRAINED_READ_LEN: usize = 8 * 1024;

/// A connection and what it runs over.
pub(crate) struct Driver {
    /// `None` once the transport is closed.
    io: Option<Carrier>,
    connection: Connection,
    settings: Arc<Settings>,
    input: Input,
    output: Output,
    /// The message that is being compressed. What was queued before it is in `output`; nothing is queued behind it.
    parts: Option<Box<Parts>>,
    alarm: Alarm,
    /// Since when the peer takes none of the bytes that wait for it.
    stalled_since: Option<Instant>,
    /// What was done since other tasks last had their turn.
    turn: Turn,
    is_half_closed: bool,
    /// Whether the peer has closed its half after its close frame, while there is something left to write to it.
    has_peer_half_closed: bool,
    /// Why nothing can be written any more. What had arrived before is still received.
    write_failure: Option<Error>,
    /// Why the transport is gone, if not by the protocol's own doing.
    failure: Option<Error>,
    /// Whether a message was cut off that was being compressed: not all that was queued has left.
    is_cut: bool,
    /// Whether a stream over this connection has ended with an error.
    has_given_error: bool,
}

/// What came of waiting for more.
enum Progress {
    /// There is something new to look at.
    Received,
    /// A clean close.
    Closed,
}

/// What came of [`Driver::write_for_others`].
#[derive(Default)]
pub(crate) struct Passed {
    /// How much was done, in bytes.
    pub(crate) work: u64,
    /// Whether there is more to compress and to write.
    pub(crate) is_unfinished: bool,
    /// Whether those who wait have to look for themselves.
    pub(crate) concerns_waiters: bool,
}

/// How far a flush goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum FlushEnd {
    #[default]
    Unknown,
    /// Behind the message that was being compressed, by its [`Parts::start`].
    BehindParts(u64),
    /// To what will be written then, since the connection began.
    At(u64),
}

impl Driver {
    /// A connection after its opening handshake; `glued` came behind the head.
    pub(crate) fn new(io: Box<dyn Io>, role: Role, settings: Arc<Settings>, glued: Vec<u8>) -> Self {
        let now = clock::now();
        Self {
            io: Some(io.into()),
            connection: Connection::new(role, settings.connection.clone(), now),
            settings,
            input: Input::of(glued, now),
            output: Output::default(),
            parts: None,
            alarm: Alarm::default(),
            stalled_since: None,
            turn: Turn::default(),
            is_cut: false,
            is_half_closed: false,
            has_peer_half_closed: false,
            write_failure: None,
            failure: None,
            has_given_error: false,
        }
    }

    /// Compresses from now on, as was agreed on in the opening handshake.
    pub(crate) fn enable_deflate(&mut self, config: &DeflateConfig, agreement: Agreement) {
        self.connection.enable_deflate(config, agreement, CODECS);
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether messages can still be sent, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.state() == State::Open && self.write_failure.is_none()
    }

    /// Whether what is waited for may never come: the transport has ended, or nothing can be written to it.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_over() || self.write_failure.is_some()
    }

    /// The next message; `None` after a clean close.
    #[inline]
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        loop {
            if !self.turn.is_overdue() {
                // Made here, it stays in registers on its way to the caller.
                if let Some(message) = self.deliver_whole() {
                    return Poll::Ready(Ok(Some(message)));
                }
                if self.has_input() {
                    // A place of its own: a result would share one in memory with the message above.
                    let mut delivered = None;
                    self.deliver_into(&mut delivered);
                    if let Some(message) = delivered {
                        return Poll::Ready(Ok(Some(message)));
                    }
                }
            }
            match ready!(self.poll_more(cx)) {
                Ok(Progress::Received) => {}
                Ok(Progress::Closed) => return Poll::Ready(Ok(None)),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Receives, when nothing of what was received before is left or the turn is over.
    #[inline(never)]
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<Progress, Error>> {
        loop {
            // What is compressed now makes nobody read less: a part and a read are a turn.
            let is_turn_over = self.turn.is_over();
            // Nothing waits unsent while we wait for more.
            let is_drained = self.has_nothing_to_write() || self.poll_drain(cx).is_ready();
            if is_drained && self.has_peer_half_closed {
                self.end_transport(None);
            }
            if self.is_over() {
                return Poll::Ready(self.end());
            }
            if is_turn_over {
                ready!(self.poll_turn(cx));
                continue;
            }
            // What has arrived counts before any deadline does: the process may have been stopped.
            if self.poll_read(cx).is_ready() {
                return Poll::Ready(Ok(Progress::Received));
            }
            if self.turn.is_over() {
                ready!(self.poll_turn(cx));
                continue;
            }
            self.turn.begin();
            if let Some(error) = self.write_failure.clone() {
                self.end_transport(Some(error));
                continue;
            }
            ready!(self.poll_deadline(cx));
        }
    }

    /// [`poll_recv`](Self::poll_recv) as a stream: an error is given once, then the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if self.has_given_error {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_recv(cx));
        self.has_given_error = next.is_err();
        Poll::Ready(next.transpose())
    }

    /// Queues a message, once; waits only while too much is queued already.
    #[inline]
    pub(crate) fn poll_feed(&mut self, cx: &mut Context<'_>, message: &Outgoing) -> Poll<Result<(), Error>> {
        ready!(self.poll_room_for(cx, message.len()))?;
        self.queue(message)?;
        self.write_if_much(cx);
        Poll::Ready(Ok(()))
    }

    /// As [`poll_feed`](Self::poll_feed).
    pub(crate) fn poll_feed_prepared(&mut self, cx: &mut Context<'_>, prepared: &Prepared) -> Poll<Result<(), Error>> {
        ready!(self.poll_room_for(cx, prepared.message().len()))?;
        self.queue_prepared(prepared)?;
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
            if self.poll_drain(cx).is_pending() {
                ready!(self.poll_turn_or_deadline(cx));
            }
            self.check_writable()?;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether [`queue`](Self::queue) may be called.
    #[inline]
    pub(crate) fn has_room_for(&self, len: usize) -> bool {
        let waiting = self.output.len();
        (waiting == 0 || waiting.saturating_add(len) <= self.settings.write_buffer_max) && self.parts.is_none()
    }

    /// Queues a message, whatever is queued already.
    // [6455-10.3-2]
    #[inline]
    pub(crate) fn queue(&mut self, message: &Outgoing) -> Result<(), Error> {
        self.check_writable()?;
        let len = message.len();
        if self.connection.compresses(len, message.compress()) {
            return self.queue_compressed(message);
        }
        self.queue_as_it_is(message, len)
    }

    #[inline(always)]
    fn queue_as_it_is(&mut self, message: &Outgoing, len: usize) -> Result<(), Error> {
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
    fn queue_compressed(&mut self, outgoing: &Outgoing) -> Result<(), Error> {
        let (message, len) = (outgoing.to_message(), outgoing.len());
        self.turn.charge_compressed(len.min(PART_LEN));
        let is_begun = if len > PART_LEN {
            self.queue_first_part(message)
        } else {
            let out = self.output.buffer_for(len, self.settings.write_buffer_max);
            let sent = self.connection.send_with(message.data(), outgoing.compress(), out);
            sent.map(|()| true)
        };
        match is_begun {
            Ok(true) => Ok(()),
            Ok(false) => self.queue_as_it_is(outgoing, len),
            Err(error) => Err(self.send_error(error)),
        }
    }

    /// Queues the first part of a message, compressed, and keeps the others for [`poll_drain`](Self::poll_drain);
    /// `false` if that does not make it smaller.
    fn queue_first_part(&mut self, message: Message) -> Result<bool, SendError> {
        let mut parts = Parts::of(message, self.output.end());
        let (first, _) = parts.next();
        let out = self.output.buffer_for(0, self.settings.write_buffer_max);
        let is_begun = self.connection.start_compressed(first, out)?;
        if is_begun {
            self.parts = Some(Box::new(parts));
        }
        Ok(is_begun)
    }

    /// Queues the next part of the message that is being compressed.
    #[cold]
    #[inline(never)]
    fn queue_part(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        let (part, fragment) = parts.next();
        let len = part.bytes().len();
        let out = self.output.buffer_for(0, self.settings.write_buffer_max);
        let sent = self.connection.send_fragment(part, fragment, out);
        if sent.is_err() {
            // After a fault or the end, nothing of it is wanted any more.
            self.cut();
        } else if fragment == Fragment::Last {
            self.parts = None;
        }
        self.turn.charge_compressed(len);
    }

    /// Gives up what is left of a message that is being compressed.
    fn cut(&mut self) {
        self.is_cut |= self.parts.take().is_some();
    }

    /// Queues a message that others get too, whatever is queued already.
    pub(crate) fn queue_prepared(&mut self, prepared: &Prepared) -> Result<(), Error> {
        if matches!(self.connection.role(), Role::Client { .. }) {
            let message = Outgoing::new(prepared.message().clone(), prepared.compress());
            return self.queue(&message);
        }
        self.check_writable()?;
        let Frame { framing, bytes } = prepared.frame_for(&self.connection);
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
            ready!(self.poll_turn_or_deadline(cx));
        }
        Poll::Ready(self.check_flushed())
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
            ready!(self.poll_turn_or_deadline(cx));
        }
        Poll::Ready(self.check_flushed())
    }

    /// Writes what waits, in the place of tasks that wait for the connection; of a message that is being compressed, one
    /// part.
    pub(crate) fn write_for_others(&mut self, cx: &mut Context<'_>) -> Passed {
        let (was_lost, was_stalled) = (self.is_lost(), self.stalled_since.is_some());
        let was_compressing = self.parts.is_some();
        let written_before = self.output.written_total();
        self.turn.begin();
        let drained = self.poll_drain(cx);
        let written = self.output.written_total().saturating_sub(written_before);
        let work = written.max(self.turn.work());
        let is_stalled = self.stalled_since.is_some();
        let is_unfinished = drained.is_pending() && self.turn.is_over() && !is_stalled;
        // It was the turn of the task that calls.
        self.turn.begin();
        // Who waits while the peer stalls waits for the first byte that it takes; else it is a deadline that is new.
        let is_stall_news = is_stalled != was_stalled || (was_stalled && written > 0);
        let has_room_again = was_compressing && self.parts.is_none();
        Passed {
            work,
            is_unfinished,
            concerns_waiters: is_stall_news
                || has_room_again
                || self.is_lost() != was_lost
                || self.connection.state() != State::Open,
        }
    }

    fn find_flush_end(&self, end: &mut FlushEnd) {
        *end = match (*end, self.parts.as_deref().map(Parts::start)) {
            (FlushEnd::At(_), _) => return,
            (FlushEnd::BehindParts(start), Some(present)) if start == present => return,
            _ if self.connection.wants_transmit() => return,
            (FlushEnd::Unknown, Some(start)) => FlushEnd::BehindParts(start),
            (FlushEnd::Unknown | FlushEnd::BehindParts(_), _) => FlushEnd::At(self.output.end()),
        };
    }

    pub(crate) fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.check_writable()?;
        self.connection.ping(payload).map_err(|error| self.send_error(error))
    }

    /// Begins the closing handshake.
    pub(crate) fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        Ok(self.connection.close(code, reason)?)
    }

    /// Goes through the closing handshake to its end; messages that still arrive are dropped.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while ready!(self.poll_recv(cx))?.is_some() {}
        Poll::Ready(Ok(()))
    }

    /// The next message in what was received, if it is as nearly all are. Everything else is left to
    /// [`deliver`](Self::deliver).
    #[inline(always)]
    fn deliver_whole(&mut self) -> Option<Message> {
        let found = self.connection.find_message(self.input.at, self.input.unread())?;
        let message = Message::unmasked(&found)?;
        self.input.pos += found.frame_len() as u32;
        self.input.settle();
        self.turn.charge_frame();
        Some(message)
    }

    /// Whether [`deliver`](Self::deliver) has anything to look at. Where it has not, it has released the buffer before.
    #[inline]
    fn has_input(&self) -> bool {
        !self.input.is_delivered() || self.connection.is_inflating() || self.connection.has_appended()
    }

    #[inline(never)]
    fn deliver_into(&mut self, delivered: &mut Option<Message>) {
        *delivered = self.deliver();
    }

    /// Takes the next message out of what was received, and does what else has come.
    fn deliver(&mut self) -> Option<Message> {
        while !self.input.is_delivered() || self.connection.is_inflating() {
            let unread = &mut self.input.buffer[self.input.pos as usize..self.input.end as usize];
            let received = self.connection.handle_bytes(self.input.at, unread);
            self.input.pos += received.consumed as u32;
            self.turn.charge_frame();
            self.turn.charge_fragments(received.consumed);
            let Some(event) = received.event else {
                if self.connection.is_inflating() {
                    self.turn.end();
                    self.input.settle();
                    return None;
                }
                continue;
            };
            if let Event::Message {
                payload: Cow::Owned(assembled),
                ..
            } = &event
            {
                self.turn.charge_assembled(assembled.len());
                self.input.loan.end();
            }
            if let Some(message) = to_message(event) {
                self.input.settle();
                return Some(message);
            }
            // A control frame came: each ping of a burst gets its pong.
            self.queue_control();
        }
        self.input.release();
        self.deliver_appended()
    }

    /// As [`deliver`](Self::deliver), of what was read straight into its message.
    fn deliver_appended(&mut self) -> Option<Message> {
        let Some(event) = self.connection.handle_appended(self.input.at) else {
            if self.connection.is_inflating() {
                self.turn.end();
            }
            return None;
        };
        self.input.loan.end();
        let message = to_message(event)?;
        self.turn.charge_assembled(message.len());
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
        let now = clock::now();
        self.output.append_control(self.settings.write_buffer_max, |out| {
            self.connection.poll_transmit(out);
        });
    }

    /// Reads once; ready if there is anything new, be it the end.
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
                self.input.loan.take_for(buffer, buffer.len().saturating_add(len_max));
                let read = ready!(pin!(io.read_buf(&mut buffer.limit(len_max))).poll(cx));
                self.input.at = clock::now();
                self.turn.charge_direct_read(*read.as_ref().unwrap_or(&0));
                read
            }
            None => {
                // What a peer sends that does not take what it is sent may have to wait here.
                let len_max = match is_drained {
                    true => buffers::READ_BUFFER_LEN,
                    false => UNDRAINED_READ_LEN,
                };
                let read = ready!(self.input.poll_fill(io, len_max, cx));
                self.turn.charge_read();
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
                break;
            }
            let Some(io) = self.io.as_mut().filter(|_| self.write_failure.is_none()) else {
                self.drop_output();
                break;
            };
            if self.output.is_drained() {
                if self.turn.is_over() {
                    return Poll::Pending;
                }
                self.queue_part();
                continue;
            }
            let mut wrote = false;
            let drained = self.output.poll_write(io, cx, &mut wrote);
            if wrote || drained.is_ready() {
                self.stalled_since = None;
            }
            match drained {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.write_failure = Some(error.into()),
                Poll::Pending => {
                    self.stalled_since.get_or_insert_with(clock::now);
                    return Poll::Pending;
                }
            }
        }
        if self.connection.transport() == Transport::HalfClose
            && !self.is_half_closed
            && let Some(io) = &mut self.io
        {
            // If it fails, the transport has ended already, and reading will tell.
            let _ = ready!(Pin::new(io).poll_shutdown(cx));
            self.is_half_closed = true;
        }
        Poll::Ready(())
    }

    /// Whether [`poll_drain`](Self::poll_drain) would do nothing.
    #[inline]
    fn has_nothing_to_write(&self) -> bool {
        self.is_drained() && !self.connection.wants_transmit() && self.connection.state() == State::Open
    }

    /// Whether all that was queued has left.
    #[inline]
    fn is_drained(&self) -> bool {
        self.output.is_drained() && self.parts.is_none()
    }

    fn drop_output(&mut self) {
        self.output.clear();
        self.cut();
    }

    fn poll_flush_transport(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(io) = &mut self.io
            && let Err(error) = ready!(Pin::new(io).poll_flush(cx))
        {
            self.write_failure = Some(error.into());
        }
        Poll::Ready(())
    }

    /// Where [`poll_drain`](Self::poll_drain) is pending: as [`poll_deadline`](Self::poll_deadline), after other tasks
    /// had their turn if it is theirs.
    fn poll_turn_or_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.turn.is_over() {
            true => self.poll_turn(cx),
            false => self.poll_deadline(cx),
        }
    }

    /// Ends the turn: looks at the deadlines, and lets other tasks have theirs unless one has passed that ends all.
    #[cold]
    #[inline(never)]
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.turn.begin();
        self.handle_deadlines(clock::now());
        if self.is_over() {
            return Poll::Ready(());
        }
        // Not `wake_by_ref`: the runtime would poll this task again before it looks at any other socket.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }

    /// Ready when a deadline passed and was dealt with.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = earlier(self.connection.poll_timeout(), self.write_deadline()) else {
            return Poll::Pending;
        };
        ready!(self.alarm.poll(cx, deadline));
        self.handle_deadlines(clock::now());
        Poll::Ready(())
    }

    /// Does what is due, if any deadline has passed.
    fn handle_deadlines(&mut self, now: Instant) {
        if self.write_deadline().is_some_and(|deadline| now >= deadline) {
            self.fail(Error::new(Kind::Stalled));
        }
        // While a message is being inflated nothing is read, and the peer's silence is our own doing.
        if !self.connection.is_inflating() {
            self.connection.handle_timeout(now);
        }
    }

    fn write_deadline(&self) -> Option<Instant> {
        self.stalled_since.map(|since| since + self.settings.write_timeout)
    }

    /// Whether nothing more will come.
    fn is_over(&self) -> bool {
        self.failure.is_some() || self.connection.transport() == Transport::Close
    }

    /// Closes the transport and says how it ended.
    // [6455-5.5.1-8, 6455-7.1.7-1, 6455-7.1.7-2]
    fn end(&mut self) -> Result<Progress, Error> {
        self.close_transport();
        if let Some(closure) = self.connection.closure().filter(|closure| !closure.is_clean()) {
            self.failure
                .get_or_insert_with(|| Error::new(Kind::Closed(closure.clone())));
        }
        self.check_failure().map(|()| Progress::Closed)
    }

    /// Takes note that the transport ended. An error matters only if the close handshake was not done: after it, a
    /// reset is as good as an end.
    // [6455-7.2.1-1]
    fn end_transport(&mut self, error: Option<Error>) {
        self.connection.handle_transport_end();
        let is_clean = self.connection.closure().is_some_and(|closure| closure.is_clean());
        match error {
            Some(error) if !is_clean => self.fail(error),
            _ => self.close_transport(),
        }
    }

    /// Fails for good. The first failure stays.
    fn fail(&mut self, error: Error) {
        self.connection.handle_transport_end();
        self.failure.get_or_insert(error);
        self.close_transport();
    }

    fn close_transport(&mut self) {
        if let Some(mut io) = self.io.take().filter(|_| !self.is_half_closed) {
            // RFC 6455 §7.1.1: TLS has an end of its own. What cannot leave at once is not waited for. [6455-7.1.1-1]
            let _ = Pin::new(&mut io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
        self.input.loan.end();
        self.alarm = Alarm::default();
        self.stalled_since = None;
        self.drop_output();
    }

    fn check_failure(&self) -> Result<(), Error> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn check_writable(&self) -> Result<(), Error> {
        self.check_failure()?;
        self.write_failure.clone().map_or(Ok(()), Err)
    }

    /// As [`check_writable`](Self::check_writable), where all that was queued should have left.
    fn check_flushed(&self) -> Result<(), Error> {
        self.check_writable()?;
        match self.is_cut {
            true => Err(self.send_error(SendError::Closed)),
            false => Ok(()),
        }
    }

    fn send_error(&self, error: SendError) -> Error {
        match (error, self.connection.closure()) {
            (SendError::Closed, Some(closure)) => Error::new(Kind::Closed(closure.clone())),
            (error, _) => error.into(),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.input.release();
        self.output.clear();
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

/// The message in an event. The others are dealt with by the state machine, or seen in its closure.
#[inline]
fn to_message(event: Event<'_>) -> Option<Message> {
    let Event::Message { kind, payload } = event else {
        return None;
    };
    let payload = match payload {
        Cow::Borrowed(bytes) => Payload::copy_from_slice(bytes),
        Cow::Owned(bytes) => large::share(bytes).into(),
    };
    Some(Message::of_checked(kind, payload))
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
