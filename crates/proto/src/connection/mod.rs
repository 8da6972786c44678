//! A WebSocket connection after its opening handshake, the same for both roles.
//!
//! | file | holds |
//! |---|---|
//! | `lifecycle` | every transition from open to closed |
//! | `receive` | bytes to messages |
//! | `fast_path` | the short way for a message that lies whole in the input |
//! | `send` | messages and control frames to bytes |
//! | `framing` | messages framed once for many connections |
//! | `keepalive` | pings, round-trip time, the peer that is gone |
//! | `close_info` | what is known of how it ended |

mod close_info;
mod fast_path;
mod framing;
mod keepalive;
mod lifecycle;
mod receive;
mod send;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

pub use close_info::{CloseCause, CloseInfo, Side};
pub use fast_path::MaskedMessage;
pub use framing::Framing;
pub use lifecycle::State;
pub use send::{Compress, Data, Fragment, SendError};

use crate::close::{CloseCode, CloseFrame, InvalidClose};
use crate::config::Config;
use crate::deflate::DeflateSession;
#[cfg(feature = "deflate")]
use crate::deflate::{Codecs, DeflateConfig, NegotiatedParams};
use crate::frame::{MaskingKey, Opcode};
use crate::protocol_error::ProtocolError;
use crate::time::Instant;
use crate::utf8;
use keepalive::{Liveness, Verdict};
use lifecycle::{Action, Input};
use receive::{Found, Masked, Receiver};

/// How long a server reads on after a complete closing handshake, so that the client gets our close frame: closing a
/// socket with unread input makes TCP throw away what was sent last. After a fault, when the peer may be in the middle
/// of a large message, it is [`Config::close_timeout`] instead.
const LINGER: Duration = Duration::from_secs(1);

/// How much of what comes after the last frame is read and thrown away for the same purpose: some four messages of the
/// default limit.
const DISCARDED_MAX: u32 = 64 * 1024 * 1024;

/// Which side of the connection this is. Only masking and the end of TCP depend on it.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Accepted the connection; receives masked frames and sends unmasked ones.
    Server,
    /// Opened the connection; masks each frame with a fresh key.
    Client {
        /// Gives a key that nobody can predict, a new one at each call (RFC 6455 §10.3).
        // [6455-5.3-3, 6455-5.3-4, 6455-10.3-1]
        mask: fn() -> MaskingKey,
    },
}

/// What a message is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

impl MessageKind {
    fn of(opcode: Opcode) -> Option<Self> {
        match opcode {
            Opcode::Text => Some(Self::Text),
            Opcode::Binary => Some(Self::Binary),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        }
    }

    /// RFC 6455 §5.6: text is UTF-8, other bytes are as they are.
    // [6455-5.6-1, 6455-5.6-2, 6455-8.1-1]
    #[inline]
    fn admits(self, payload: &[u8]) -> bool {
        self != Self::Text || utf8::is_utf8(payload)
    }
}

/// How messages are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ReceiveMode {
    /// Whole: [`Event::Message`].
    #[default]
    Whole,
    /// As their bytes arrive, with nothing stored: [`Event::Chunk`]. A compressed message still comes whole.
    Chunks,
}

/// Something that arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message.
    Message {
        /// Text or binary.
        kind: MessageKind,
        /// Its bytes: borrowed where they lie in the caller's input, owned if they came in parts. Valid UTF-8 if
        /// `kind` is text.
        payload: Cow<'a, [u8]>,
    },
    /// A part of a message, with [`ReceiveMode::Chunks`].
    Chunk {
        /// Text or binary.
        kind: MessageKind,
        /// The bytes. Text is checked, but a code point may go on in the next chunk.
        data: &'a [u8],
        /// Whether the message begins here.
        first: bool,
        /// Whether the message ends here.
        last: bool,
    },
    /// A ping. The pong is on its way by itself.
    Ping(&'a [u8]),
    /// A pong, answer or not. The round-trip time is measured by itself.
    Pong(&'a [u8]),
    /// The peer's close frame. The answer is on its way by itself.
    Close(CloseFrame),
    /// The peer broke a rule and the connection failed; what the peer is told is on its way.
    ProtocolError(ProtocolError),
}

/// What [`Connection::handle_bytes`] made of its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// How many bytes of the input were used. The rest is to be given again.
    pub consumed: usize,
    /// What they completed. `None` means that all input is consumed, unless a message
    /// [is being inflated](Connection::is_inflating).
    pub event: Option<Event<'a>>,
}

/// How far our close frame has come on its way to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseProgress {
    /// There is none.
    None,
    /// To be appended to the caller's buffer.
    Due,
    /// In the caller's buffer.
    Queued,
    /// Written to the transport.
    Written,
}

/// What the transport (TCP, or a stream of HTTP/2 or HTTP/3) is to do. See [`Connection::transport_action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportAction {
    /// Go on.
    Open,
    /// When all that was to be sent is written, close the sending half; go on reading until the peer does the same.
    HalfClose,
    /// Close at once.
    Close,
}

/// A connection after its opening handshake.
///
/// See [the crate page](crate#driving-a-connection) for how it is driven.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    role: Role,
    state: State,
    receiver: Receiver,
    liveness: Liveness,
    /// The kind of the message that is being sent in fragments.
    sending: Option<MessageKind>,
    /// The payload of the newest ping that is not answered yet (RFC 6455 §5.5.3 allows to answer only that).
    pong_due: Option<Box<[u8]>>,
    close_frame: CloseProgress,
    /// How long the closing handshake may still take. `None` until our close frame is written.
    close_deadline: Option<Instant>,
    /// Bytes thrown away in [`State::Ending`], since our close frame was taken to be sent.
    discarded: u32,
    close_info: Option<Box<CloseInfo>>,
    deflate: Option<Box<DeflateSession>>,
}

impl Connection {
    /// A connection whose opening handshake has just succeeded.
    pub fn new(role: Role, config: Arc<Config>, now: Instant) -> Self {
        let masked = match role {
            Role::Server => Masked::Always,
            Role::Client { .. } => Masked::Never,
        };
        Self {
            config,
            role,
            state: State::Open,
            receiver: Receiver::new(masked),
            liveness: Liveness::new(now),
            sending: None,
            pong_due: None,
            close_frame: CloseProgress::None,
            close_deadline: None,
            discarded: 0,
            close_info: None,
            deflate: None,
        }
    }

    /// Compresses from now on, as was agreed on in the opening handshake (RFC 7692). Call it before anything else.
    // [6455-5.8-1, 7692-5-10]
    #[cfg(feature = "deflate")]
    pub fn enable_deflate(&mut self, config: &DeflateConfig, agreement: NegotiatedParams, codecs: Codecs) {
        self.receiver.allow_deflate();
        self.deflate = Some(Box::new(DeflateSession::new(config, agreement, codecs)));
    }

    /// How this connection compresses: the configuration given, with the window that was agreed on. `None` if
    /// compression was not.
    #[cfg(feature = "deflate")]
    pub fn deflate_config(&self) -> Option<&DeflateConfig> {
        self.deflate.as_ref().map(|deflate| deflate.config())
    }

    /// Takes bytes from the peer, up to the first event. Payloads are unmasked in place.
    ///
    /// Call it again with the rest of the input until the event is `None`; then everything is consumed, and what it
    /// needs of an unfinished frame is kept. Where [`Config::inflate_step_max`] is set, call it for as long as
    /// [`is_inflating`](Self::is_inflating) too. Afterwards [`poll_transmit`](Self::poll_transmit),
    /// [`poll_timeout`](Self::poll_timeout) and [`transport_action`](Self::transport_action) may have changed.
    ///
    /// After the peer's close frame, a fault or the end, input is consumed and ignored (RFC 6455 §5.5.1, §7.1.7).
    // [6455-7.1.7-5]
    // Inlined whatever the compiler thinks: a 20 B message out of a burst takes 162 instructions, not 186.
    #[inline(always)]
    pub fn handle_bytes<'a>(&'a mut self, now: Instant, input: &'a mut [u8]) -> Received<'a> {
        let Some(message) = self.find_message(now, input) else {
            return self.handle_any_bytes(now, input);
        };
        let (kind, key, consumed) = (message.kind(), message.key(), message.frame_len());
        let place = consumed - message.len()..consumed;
        key.apply(&mut input[place.clone()]);
        let event = match kind.admits(&input[place.clone()]) {
            true => Event::Message {
                kind,
                payload: Cow::Borrowed(&input[place]),
            },
            false => self.fail(now, ProtocolError::InvalidUtf8),
        };
        Received {
            consumed,
            event: Some(event),
        }
    }

    /// The message at the start of `input`, if it is as nearly all are (RFC 6455 §5.2): whole, in one frame, of less than
    /// 64 KiB, not compressed, and nothing before it unfinished. For a caller that copies messages anyway: taking off the
    /// mask and the copy are one pass then, where [`handle_bytes`](Self::handle_bytes) changes the input first.
    ///
    /// Whoever took the payload goes on [behind the frame](MaskedMessage::frame_len). `None` says nothing of what is there:
    /// for everything else, with [`ReceiveMode::Chunks`], after the end, and where the payload is refused, `input` is to be
    /// given to [`handle_bytes`](Self::handle_bytes), which knows every rule. Taking this way is never necessary. A
    /// message that is found is a sign of life, and moves [`poll_timeout`](Self::poll_timeout).
    // Inlined whatever the compiler thinks: a small message then stays in registers.
    #[inline(always)]
    pub fn find_message<'a>(&mut self, now: Instant, input: &'a [u8]) -> Option<MaskedMessage<'a>> {
        if matches!(self.state, State::Ending | State::Closed) {
            return None;
        }
        let message = self.receiver.find_whole(&self.config.limits, input)?;
        self.liveness.handle_progress(now);
        Some(message)
    }

    /// Handles received bytes without the fast path of [`handle_bytes`](Self::handle_bytes).
    #[inline(never)]
    fn handle_any_bytes<'a>(&'a mut self, now: Instant, input: &'a mut [u8]) -> Received<'a> {
        if matches!(self.state, State::Ending | State::Closed) {
            let consumed = input.len();
            self.discard(consumed);
            return Received { consumed, event: None };
        }
        if let Some(kind) = self.receiver.inflating() {
            let event = self.resume_inflating(now, kind);
            return Received { consumed: 0, event };
        }
        if !input.is_empty() {
            self.liveness.handle_progress(now);
        }
        let (consumed, found) = self.receiver.receive(&self.config.limits, input);
        Received {
            consumed,
            event: self.digest(now, found, input),
        }
    }

    /// Whether a message has arrived of which only a part is inflated, as [`Config::inflate_step_max`] wants it. Then
    /// [`handle_bytes`](Self::handle_bytes) is to be called again, also without any input: it consumes none, and
    /// goes on with that message.
    pub fn is_inflating(&self) -> bool {
        self.receiver.inflating().is_some()
    }

    /// A large message's own buffer, to read into directly, and how many bytes at most may be appended to it.
    ///
    /// `Some` while the rest of a large frame is outstanding: the vector has spare capacity, and bytes that the
    /// transport appends there (and nothing else) are handed over with [`handle_appended`](Self::handle_appended)
    /// instead of being copied by [`handle_bytes`](Self::handle_bytes). The vector may be exchanged for one with the same
    /// bytes and more room. Taking this way is never necessary.
    #[inline(always)]
    pub fn direct_buffer(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        match self.state {
            State::Open | State::CloseSent => self.receiver.direct_buffer(),
            State::Ending | State::Closed => None,
        }
    }

    /// Whether anything was appended to [`direct_buffer`](Self::direct_buffer) that
    /// [`handle_appended`](Self::handle_appended) has not taken.
    #[inline]
    pub fn has_appended(&self) -> bool {
        self.receiver.has_appended()
    }

    /// Takes what was appended to [`direct_buffer`](Self::direct_buffer).
    pub fn handle_appended(&mut self, now: Instant) -> Option<Event<'_>> {
        if matches!(self.state, State::Ending | State::Closed) {
            return None;
        }
        // Nothing appended is no sign of life.
        if !self.has_appended() {
            return None;
        }
        self.liveness.handle_progress(now);
        let found = self.receiver.receive_appended();
        self.digest(now, found, &[])
    }

    /// Notes that all frames which [`poll_transmit`](Self::poll_transmit) appended so far have been written to the
    /// transport, with everything that was appended before them.
    ///
    /// The peer's time to answer runs from here: [`Keepalive::timeout`](crate::Keepalive::timeout) for a ping,
    /// [`Config::close_timeout`] for our close frame. Until this call neither has a deadline, so the caller needs one
    /// of its own for a transport that takes nothing. Calling it when nothing was pending does nothing.
    pub fn handle_transmitted(&mut self, now: Instant) {
        self.handle_transmitted_behind(now, Duration::ZERO);
    }

    /// Notes that the frames of [`poll_transmit`](Self::poll_transmit) were written behind bytes that the peer has not read
    /// yet. `delay` estimates how long the peer takes to read those; its time to answer begins that much later than with
    /// [`handle_transmitted`](Self::handle_transmitted).
    pub fn handle_transmitted_behind(&mut self, now: Instant, delay: Duration) {
        self.liveness.handle_transmitted(now, delay);
        if self.close_frame == CloseProgress::Queued {
            self.close_frame = CloseProgress::Written;
            let wait = match self.state {
                State::Ending => self.ending_wait(),
                _ => self.config.close_timeout,
            };
            self.close_deadline = Some(now + delay + wait);
        }
    }

    /// Notes that the transport, which was full, has taken bytes again: a sign of life of the peer, which made the room.
    ///
    /// Not for bytes that a transport takes into its own empty buffers: they say nothing of the peer.
    pub fn handle_write_progress(&mut self, now: Instant) {
        self.liveness.handle_progress(now);
    }

    /// Notes that the peer closed its sending half, or that the transport broke.
    ///
    /// Without a close frame of either side before it, the connection ended abnormally (1006). If ours was written,
    /// the peer ended the transport instead of answering it: [`CloseInfo::received`] is `None`, and the cause stays
    /// [`CloseCause::Local`].
    // [6455-7.2.1-1]
    pub fn handle_transport_end(&mut self) {
        match self.enter(Input::TransportEnd) {
            Action::EndUnanswered if self.close_frame == CloseProgress::Written => {}
            Action::Abandon | Action::EndUnanswered => self.end_abnormally(CloseCause::TransportEnd),
            _ => {}
        }
    }

    /// Notes that the deadline of [`poll_timeout`](Self::poll_timeout) has passed.
    ///
    /// Give [`handle_bytes`](Self::handle_bytes) what has already arrived first: a process that was stopped for a
    /// minute would otherwise take every peer to be gone. Calling too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (is_over, cause) = match (self.state, &self.config.keepalive) {
            (State::Open, Some(keepalive)) => {
                let verdict = self.liveness.handle_timeout(now, keepalive);
                (verdict == Verdict::Gone, CloseCause::PeerGone)
            }
            _ => (
                self.close_deadline.is_some_and(|deadline| now >= deadline),
                CloseCause::CloseTimeout,
            ),
        };
        if is_over && self.enter(Input::Deadline) == Action::GiveUp {
            self.end_abnormally(cause);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called. May change after every other call, and moves
    /// later whenever bytes arrive: a timer that is armed early and checks again costs least.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Open => self
                .config
                .keepalive
                .as_ref()
                .and_then(|keepalive| self.liveness.deadline(keepalive)),
            State::CloseSent | State::Ending => self.close_deadline,
            State::Closed => None,
        }
    }

    /// Sends a ping with a payload of at most 125 bytes; its pong updates
    /// [`rtt`](Self::rtt). An earlier ping without an answer is no longer measured, but the
    /// wait for a sign of life goes on from it.
    ///
    /// # Errors
    ///
    /// The payload is too long, or the connection is closing.
    // [6455-5.5-1, 6455-5.5.2-4]
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        if payload.len() > crate::frame::CONTROL_PAYLOAD_MAX {
            return Err(SendError::PingTooLong { len: payload.len() });
        }
        self.check_open()?;
        self.liveness.ping(Box::from(payload));
        Ok(())
    }

    /// Sends a ping unless one is unanswered already, and returns the number of the ping whose pong to wait for: see
    /// [`is_answered`](Self::is_answered).
    ///
    /// # Errors
    ///
    /// The connection is closing.
    pub fn probe(&mut self) -> Result<u32, SendError> {
        self.check_open()?;
        Ok(self.liveness.probe())
    }

    /// Whether the ping of this number or a later one was answered. Then [`rtt`](Self::rtt) is of the newest.
    pub fn is_answered(&self, ping: u32) -> bool {
        self.liveness.is_answered(ping)
    }

    /// The number of the newest answered ping, counted from 1; 0 if there is none.
    pub fn answered_ping(&self) -> u32 {
        self.liveness.answered()
    }

    /// Starts the closing handshake (RFC 6455 §7.1.2): the close frame goes out after what was sent before, and then
    /// nothing more is sent. Messages that the peer still sends are received until its close frame comes.
    ///
    /// Does nothing if the connection is already closing.
    ///
    /// # Errors
    ///
    /// The code or the reason may not be sent.
    // [6455-7.1.2-1, 6455-7.3-2]
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), InvalidClose> {
        let frame = CloseFrame::new(code, reason)?;
        if self.enter(Input::LocalClose) == Action::SendClose {
            self.close_info = Some(Box::new(CloseInfo::new(Side::Local, CloseCause::Local)));
            self.queue_close(frame);
        }
        Ok(())
    }

    /// Takes what remains to be done of a connection that is closing: its close frame, its deadlines, the end of the
    /// transport. A closed connection stays in its place, which keeps [`close_info`](Self::close_info) as it is now. So an
    /// application can be told of the end while something else waits for the end of the transport.
    pub fn take_ending(&mut self) -> Self {
        let closed = Self {
            state: State::Closed,
            close_info: self.close_info.clone(),
            liveness: self.liveness.clone(),
            ..Self::new(self.role, self.config.clone(), Instant::ORIGIN)
        };
        core::mem::replace(self, closed)
    }

    /// Chooses how messages are received from now on. The choice for a message is made when its first byte arrives:
    /// in the middle of one, this does nothing and returns `false`.
    pub fn set_receive_mode(&mut self, receive_mode: ReceiveMode) -> bool {
        if self.receiver.is_inside_message() && self.receiver.receive_mode() != receive_mode {
            return false;
        }
        self.receiver.set_receive_mode(receive_mode);
        true
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// What the transport is to do now. Look after every other call.
    ///
    /// RFC 6455 §7.1.1: the server closes TCP first, so that the waiting is on its side; a client waits for that, and
    /// gives up at its deadline.
    // [6455-5.5.1-8, 6455-5.5.1-9, 6455-5.5.1-10, 6455-7.1.1-2, 6455-7.1.1-3]
    pub fn transport_action(&self) -> TransportAction {
        match (self.state, self.role) {
            (State::Open | State::CloseSent, _) => TransportAction::Open,
            // Not before our close frame has left, which waits for the end of the message.
            (State::Ending, _) if self.is_compressing() => TransportAction::Open,
            (State::Ending, Role::Server) => TransportAction::HalfClose,
            (State::Ending, Role::Client { .. }) => match self.close_info().map(CloseInfo::cause) {
                Some(CloseCause::ProtocolError(_)) => TransportAction::HalfClose,
                _ => TransportAction::Open,
            },
            (State::Closed, _) => TransportAction::Close,
        }
    }

    /// How the connection was closed, as far as it is known; `None` while it is open.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        self.close_info.as_deref()
    }

    /// The time between the newest answered ping and its pong.
    pub fn rtt(&self) -> Option<Duration> {
        self.liveness.round_trip()
    }

    /// Whether a ping has been written and neither its pong nor one to a later ping has come. If so, and the connection is
    /// open, [`poll_timeout`](Self::poll_timeout) is the moment at which the peer is taken for gone.
    pub fn is_awaiting_pong(&self) -> bool {
        self.liveness.is_awaiting_pong()
    }

    /// Which side this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Bytes of heap memory held for the payload of a message or control frame that has not arrived whole, or is not
    /// [inflated](Self::is_inflating) whole; there are some 112 bytes of state besides. Of a control frame that came in
    /// pieces, the payload stays until the next input.
    pub fn buffered_len(&self) -> usize {
        let inflating = self.deflate.as_ref().map_or(0, |deflate| deflate.held_len());
        self.receiver.buffered_len() + inflating
    }

    /// Turns what the receiver found into an event, and does what the protocol asks for.
    #[inline]
    fn digest<'a>(
        &'a mut self,
        now: Instant,
        found: Result<Found, ProtocolError>,
        input: &'a [u8],
    ) -> Option<Event<'a>> {
        let (opcode, place) = match found {
            Ok(Found::Nothing) => return None,
            Ok(Found::MessageInPlace(kind, range)) => {
                let payload = Cow::Borrowed(&input[range]);
                return Some(Event::Message { kind, payload });
            }
            Ok(Found::Message(kind)) => {
                let payload = Cow::Owned(self.receiver.take_message());
                return Some(Event::Message { kind, payload });
            }
            Ok(Found::CompressedInPlace(kind, range)) => return self.inflate(now, kind, Cow::Borrowed(&input[range])),
            // [7692-6.2-1]
            Ok(Found::Compressed(kind)) => {
                let compressed = self.receiver.take_message();
                return self.inflate(now, kind, Cow::Owned(compressed));
            }
            Ok(Found::Chunk(chunk, range)) => {
                return Some(Event::Chunk {
                    kind: chunk.kind,
                    data: &input[range],
                    first: chunk.first,
                    last: chunk.last,
                });
            }
            Ok(Found::ControlInPlace(opcode, range)) => (opcode, Some(range)),
            Ok(Found::Control(opcode)) => (opcode, None),
            Err(fault) => return Some(self.fail(now, fault)),
        };
        if opcode == Opcode::Close {
            let frame = CloseFrame::parse(place.map_or(self.receiver.control(), |range| &input[range]));
            return Some(match frame {
                Ok(frame) => self.handle_close(now, frame),
                Err(fault) => self.fail(now, fault),
            });
        }
        let payload = place.map_or(self.receiver.control(), |range| &input[range]);
        if opcode == Opcode::Pong {
            self.liveness.handle_pong(now, payload);
            return Some(Event::Pong(payload));
        }
        // RFC 6455 §5.5.2: a pong as soon as is practical, unless the connection is closing.
        // §5.5.3: of several pings, the newest may be answered alone. [6455-5.5.2-1, 6455-5.5.3-1, 6455-5.5.3-2]
        if self.state == State::Open {
            self.pong_due = Some(Box::from(payload));
        }
        Some(Event::Ping(payload))
    }

    #[cold]
    fn inflate(&mut self, now: Instant, kind: MessageKind, compressed: Cow<'_, [u8]>) -> Option<Event<'static>> {
        let Config {
            limits,
            inflate_step_max,
            ..
        } = &*self.config;
        let inflated = match &mut self.deflate {
            Some(deflate) => deflate.inflate(compressed, limits.message_size_max, *inflate_step_max),
            // RSV1 is refused unless this was negotiated.
            None => Err(ProtocolError::ReservedBits),
        };
        self.digest_inflated(now, kind, inflated)
    }

    #[cold]
    fn resume_inflating(&mut self, now: Instant, kind: MessageKind) -> Option<Event<'static>> {
        let at_once = self.config.inflate_step_max;
        let inflated = self.deflate.as_mut()?.resume_inflating(at_once);
        self.digest_inflated(now, kind, inflated)
    }

    fn digest_inflated(
        &mut self,
        now: Instant,
        kind: MessageKind,
        inflated: Result<Option<Vec<u8>>, ProtocolError>,
    ) -> Option<Event<'static>> {
        let is_paused = inflated == Ok(None);
        if is_paused || self.is_inflating() {
            self.receiver.set_inflating(is_paused.then_some(kind));
        }
        match inflated {
            Ok(None) => None,
            // [7692-6-3]
            Ok(Some(message)) if !kind.admits(&message) => Some(self.fail(now, ProtocolError::InvalidUtf8)),
            Ok(Some(message)) => Some(Event::Message {
                kind,
                payload: Cow::Owned(message),
            }),
            Err(fault) => Some(self.fail(now, fault)),
        }
    }

    fn handle_close(&mut self, now: Instant, frame: CloseFrame) -> Event<'static> {
        let answers = self.enter(Input::PeerClose) == Action::AnswerClose;
        if answers {
            self.close_info = Some(Box::new(CloseInfo::new(Side::Peer, CloseCause::Peer)));
            // RFC 6455 §5.5.1: the answer typically echoes the code. [6455-5.5.1-5, 6455-5.5.1-6, 6455-5.5.1-7]
            let reason = Default::default();
            self.queue_close(CloseFrame {
                code: frame.code,
                reason,
            });
        }
        if let Some(close_info) = &mut self.close_info {
            close_info.received = Some(frame.clone());
        }
        self.begin_ending(now);
        Event::Close(frame)
    }

    /// Fails the connection (RFC 6455 §7.1.7).
    // [6455-7.1.7-4, 6455-10.7-2]
    fn fail(&mut self, now: Instant, fault: ProtocolError) -> Event<'static> {
        if self.enter(Input::ProtocolError) == Action::SendProtocolError {
            self.close_info = Some(Box::new(CloseInfo::new(Side::Local, CloseCause::ProtocolError(fault))));
            let reason = fault.reason().into();
            self.queue_close(CloseFrame {
                code: fault.close_code(),
                reason,
            });
        } else if let Some(close_info) = &mut self.close_info {
            close_info.cause = CloseCause::ProtocolError(fault);
        }
        self.begin_ending(now);
        Event::ProtocolError(fault)
    }

    fn discard(&mut self, len: usize) {
        // Until our close frame is written, the peer cannot know that nothing more is wanted.
        if self.close_frame != CloseProgress::Written {
            return;
        }
        self.discarded = self.discarded.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        if self.discarded > DISCARDED_MAX {
            self.enter(Input::Flood);
        }
    }

    /// Makes one transition, drops what the new state has no use for, and says what remains to be done.
    fn enter(&mut self, input: Input) -> Action {
        let (state, action) = lifecycle::transition(self.state, input);
        self.state = state;
        if matches!(state, State::Ending | State::Closed) {
            self.pong_due = None;
            self.receiver.release();
            if let Some(deflate) = &mut self.deflate {
                deflate.stop_inflating();
                // After the peer's close frame, what has begun may still be finished.
                if state == State::Closed || matches!(action, Action::SendProtocolError | Action::RecordProtocolError) {
                    deflate.stop_compressing();
                }
            }
        }
        if state == State::Closed {
            self.close_deadline = None;
            if self.close_frame == CloseProgress::Due {
                self.close_frame = CloseProgress::None;
            }
        }
        action
    }

    fn queue_close(&mut self, frame: CloseFrame) {
        if let Some(close_info) = &mut self.close_info {
            close_info.sent = Some(frame);
        }
        self.close_frame = CloseProgress::Due;
    }

    /// Arms the deadline for the peer to end the transport, if our close frame is written already; if not,
    /// [`handle_transmitted`](Self::handle_transmitted) does.
    // [6455-5.5.1-11]
    fn begin_ending(&mut self, now: Instant) {
        if self.close_frame == CloseProgress::Written {
            let deadline = now + self.ending_wait();
            self.close_deadline = Some(self.close_deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        }
    }

    /// How long the peer may take to end the transport, once it has our close frame.
    fn ending_wait(&self) -> Duration {
        let is_clean = self.close_info().is_some_and(CloseInfo::is_clean);
        match self.role {
            Role::Server if is_clean => LINGER.min(self.config.close_timeout),
            Role::Server | Role::Client { .. } => self.config.close_timeout,
        }
    }

    /// Notes that the connection ended before its closing handshake did.
    fn end_abnormally(&mut self, cause: CloseCause) {
        match &mut self.close_info {
            Some(close_info) => close_info.cause = cause,
            None => self.close_info = Some(Box::new(CloseInfo::new(Side::Local, cause))),
        }
    }
}
