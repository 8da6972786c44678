//! State machine of a WebSocket connection after the opening handshake, for both roles.
//!
//! | module | contents |
//! |---|---|
//! | `lifecycle` | all state transitions from open to closed |
//! | `receive` | decodes bytes into messages |
//! | `fast_path` | decodes a message that is complete in the input |
//! | `send` | encodes messages and control frames |
//! | `framing` | messages encoded once for many connections |
//! | `keepalive` | pings, round-trip time, dead peer detection |
//! | `close_info` | how the connection was closed |

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
pub use fast_path::RawMessage;
pub use framing::FrameInfo;
pub use lifecycle::State;
pub use send::SendError;

use crate::close::{CloseFrame, InvalidClose};
use crate::close_code::CloseCode;
use crate::config::Config;
use crate::deflate::DeflateSession;
#[cfg(feature = "deflate")]
use crate::deflate::{CodecPool, CompressionStats, DeflateConfig, NegotiatedParams};
use crate::frame::{MaskRule, MaskingKey, Opcode};
use crate::message::{MessageKind, ReceiveMode};
use crate::protocol_error::ProtocolError;
use crate::time::Instant;
use keepalive::{KeepaliveAction, Liveness};
use lifecycle::{Action, Input};
use receive::{Chunk, Decoded, Decoder};

/// How long a server keeps reading after a complete closing handshake. Closing a socket with unread input resets the
/// TCP connection, which can destroy our close frame before the client has read it. After a protocol error the peer may
/// be in the middle of a large message, so the limit is [`Config::close_timeout`] instead.
const LINGER: Duration = Duration::from_secs(1);

/// How many bytes a connection that is draining reads and discards for the same purpose: four messages of the default
/// maximum size.
const DISCARDED_LEN_MAX: u32 = 64 * 1024 * 1024;

/// The role of this endpoint. Determines masking and which side closes TCP first.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Accepted the connection. Receives masked frames and sends unmasked frames.
    Server,
    /// Opened the connection. Masks each frame with a new key and receives unmasked frames.
    Client {
        /// Returns a new, unpredictable key for each frame (RFC 6455 §10.3).
        // [6455-5.3-3, 6455-5.3-4, 6455-10.3-1]
        mask: fn() -> MaskingKey,
    },
}

/// An event from the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A complete message.
    Message {
        /// Text or binary.
        kind: MessageKind,
        /// The payload. Borrowed from the input if it was complete there, owned otherwise. Valid UTF-8 if `kind` is
        /// [`MessageKind::Text`].
        payload: Cow<'a, [u8]>,
    },
    /// A part of a message. Only in [`ReceiveMode::Chunks`] and [`ReceiveMode::Stream`].
    Chunk {
        /// Text or binary.
        kind: MessageKind,
        /// The bytes. Text is validated as UTF-8, but a code point may be split between two chunks.
        data: &'a [u8],
        /// Whether this is the first chunk of the message.
        first: bool,
        /// Whether this is the last chunk of the message.
        last: bool,
    },
    /// A ping and its payload. The pong is queued automatically.
    Ping(&'a [u8]),
    /// A pong and its payload, solicited or not. Updates [`Connection::rtt`] if it answers the newest ping.
    Pong(&'a [u8]),
    /// The peer's close frame. The answering close frame is queued automatically.
    Close(CloseFrame),
    /// The peer violated the protocol and the connection failed. The close frame is queued automatically.
    ProtocolError(ProtocolError),
}

/// Result of [`Connection::handle_bytes`].
#[derive(Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Number of input bytes consumed. Pass the remaining bytes to the next call.
    pub consumed: usize,
    /// The event that the consumed bytes completed. `None` means that all input was consumed, unless a message
    /// [is being inflated](Connection::is_inflating).
    pub event: Option<Event<'a>>,
}

/// Progress of our close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseProgress {
    /// There is no close frame to send.
    None,
    /// To be appended to the caller's buffer by `poll_transmit`.
    Due,
    /// Appended to the caller's buffer.
    Queued,
    /// Written to the transport.
    Written,
}

/// What the caller must do with the transport (a TCP connection, or an HTTP/2 or HTTP/3 stream).
///
/// Returned by [`Connection::transport_action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportAction {
    /// Keep the transport open.
    Open,
    /// Once all queued bytes are written, shut down the sending half. Keep reading until the peer does the same.
    HalfClose,
    /// Close the transport now.
    Close,
}

/// State machine of a WebSocket connection after the opening handshake.
///
/// Performs no I/O: the caller passes in received bytes and the time, and takes events, bytes to send and the next
/// deadline. See [driving a connection](crate#driving-a-connection) for the contract.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    role: Role,
    state: State,
    decoder: Decoder,
    liveness: Liveness,
    /// Type of the message that is being sent in fragments.
    sending: Option<MessageKind>,
    /// Payload of the newest unanswered ping. Older pings need no answer (RFC 6455 §5.5.3).
    pong_due: Option<Box<[u8]>>,
    close_frame: CloseProgress,
    /// Deadline of the closing handshake. `None` until our close frame is written.
    close_deadline: Option<Instant>,
    /// Bytes discarded in [`State::Draining`] since our close frame was written.
    discarded: u32,
    close_info: Option<Box<CloseInfo>>,
    deflate: Option<Box<DeflateSession>>,
}

impl Connection {
    /// Creates a connection whose opening handshake has just succeeded.
    ///
    /// Allocates nothing. `now` starts the keepalive interval.
    pub fn new(role: Role, config: Arc<Config>, now: Instant) -> Self {
        let mask_rule = match role {
            Role::Server => MaskRule::Required,
            Role::Client { .. } => MaskRule::Forbidden,
        };
        Self {
            config,
            role,
            state: State::Open,
            decoder: Decoder::new(mask_rule),
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

    /// Enables permessage-deflate with the parameters negotiated in the opening handshake (RFC 7692).
    ///
    /// Call this right after [`new`](Self::new), before any other method.
    // [6455-5.8-1, 7692-5-10]
    #[cfg(feature = "deflate")]
    pub fn enable_deflate(&mut self, config: &DeflateConfig, params: NegotiatedParams, codecs: CodecPool) {
        self.decoder.allow_deflate();
        self.deflate = Some(Box::new(DeflateSession::new(config, params, codecs)));
    }

    /// The compression configuration with the negotiated window size, or `None` if compression was not negotiated.
    #[cfg(feature = "deflate")]
    pub fn deflate_config(&self) -> Option<&DeflateConfig> {
        self.deflate.as_ref().map(|deflate| deflate.config())
    }

    /// Totals of the compressed messages, sent and received. All zero if compression was not negotiated. A message
    /// counts once it is appended or inflated.
    #[cfg(feature = "deflate")]
    pub fn compression_stats(&self) -> CompressionStats {
        self.deflate
            .as_ref()
            .map_or_else(Default::default, |deflate| deflate.stats())
    }

    /// The negotiated permessage-deflate parameters (RFC 7692). `None` if compression was not negotiated.
    #[cfg(feature = "deflate")]
    pub fn negotiated_deflate(&self) -> Option<NegotiatedParams> {
        self.deflate.as_ref().map(|deflate| deflate.negotiated())
    }

    /// Processes bytes from the peer, up to the first event. Unmasks payloads in place.
    ///
    /// Call it again with the remaining input until the event is `None`. All input is then consumed, and the connection
    /// has buffered the unfinished frame. If [`Config::inflate_step_max`] is set, also call it while
    /// [`is_inflating`](Self::is_inflating) returns `true`. Afterwards, the results of
    /// [`poll_transmit`](Self::poll_transmit), [`poll_timeout`](Self::poll_timeout) and
    /// [`transport_action`](Self::transport_action) may have changed.
    ///
    /// After the peer's close frame, a protocol error or the end of the transport, input is consumed and ignored
    /// (RFC 6455 §5.5.1, §7.1.7).
    // [6455-7.1.7-5]
    // Forced inlining: 162 instead of 186 instructions for a 20-byte message in a burst.
    #[inline(always)]
    pub fn handle_bytes<'a>(&'a mut self, now: Instant, input: &'a mut [u8]) -> Received<'a> {
        let Some(message) = self.recognize_message(now, input) else {
            return self.handle_any_bytes(now, input);
        };
        let (kind, key, consumed) = (message.kind(), message.key(), message.frame_len());
        let range = consumed - message.len()..consumed;
        key.apply(&mut input[range.clone()]);
        let event = match kind.is_valid_payload(&input[range.clone()]) {
            true => Event::Message {
                kind,
                payload: Cow::Borrowed(&input[range]),
            },
            false => self.fail(now, ProtocolError::InvalidUtf8),
        };
        Received {
            consumed,
            event: Some(event),
        }
    }

    /// Fast path for the common case: returns the message at the start of `input` if it is a complete, uncompressed,
    /// single-frame message of less than 64 KiB, and no earlier frame is unfinished.
    ///
    /// Optional optimization for callers that copy payloads into their own buffers: [`RawMessage`] unmasks while
    /// copying, in one pass, whereas [`handle_bytes`](Self::handle_bytes) first unmasks the input in place.
    ///
    /// After taking the payload, continue [after the frame](RawMessage::frame_len). In all other cases pass `input`
    /// to [`handle_bytes`](Self::handle_bytes), which checks every rule: if this returns `None` (which says nothing
    /// about the input), or if [`RawMessage`] rejects the payload. Returns `None` unless the receive mode is
    /// [`ReceiveMode::Whole`], and once the connection is [`State::Draining`] or [`State::Closed`].
    ///
    /// A message that is recognized counts as progress for the keepalive and changes
    /// [`poll_timeout`](Self::poll_timeout).
    // Forced inlining keeps a small message in registers.
    #[inline(always)]
    pub fn recognize_message<'a>(&mut self, now: Instant, input: &'a [u8]) -> Option<RawMessage<'a>> {
        if matches!(self.state, State::Draining | State::Closed) {
            return None;
        }
        let message = self.decoder.recognize_message(&self.config.limits, input)?;
        self.liveness.handle_progress(now);
        Some(message)
    }

    /// Slow path of [`handle_bytes`](Self::handle_bytes).
    #[inline(never)]
    fn handle_any_bytes<'a>(&'a mut self, now: Instant, input: &'a mut [u8]) -> Received<'a> {
        if matches!(self.state, State::Draining | State::Closed) {
            let consumed = input.len();
            self.discard(consumed);
            return Received { consumed, event: None };
        }
        if let Some(kind) = self.decoder.inflating() {
            let event = self.resume_inflating(now, kind);
            return Received { consumed: 0, event };
        }
        if self.decoder.has_compressed_part() {
            return self.inflate_chunks(now, 0, input);
        }
        if !input.is_empty() {
            self.liveness.handle_progress(now);
        }
        let (consumed, decoded) = self.decoder.receive(&self.config.limits, input);
        if decoded == Ok(Decoded::CompressedPart) {
            return self.inflate_chunks(now, consumed, input);
        }
        Received {
            consumed,
            event: self.handle_decoded(now, decoded, input),
        }
    }

    /// Whether received bytes of a message are not inflated yet, because [`Config::inflate_step_max`] or the size of a
    /// chunk was reached.
    ///
    /// If so, call [`handle_bytes`](Self::handle_bytes) again, even with empty input: it consumes no input and
    /// continues with that message.
    pub fn is_inflating(&self) -> bool {
        self.decoder.inflating().is_some() || self.decoder.has_compressed_part()
    }

    /// The buffer of a large message in progress, for reading from the transport without a copy, and the maximum number
    /// of bytes to append.
    ///
    /// Optional optimization. Returns `Some` while at least 32 KiB of a data frame are outstanding and at least 32 KiB
    /// of the message have arrived. The vector has spare capacity. Append only bytes read from the transport, at most
    /// the returned number, and then call [`handle_direct_read`](Self::handle_direct_read) instead of
    /// [`handle_bytes`](Self::handle_bytes). The vector may be replaced by one with the same contents and more
    /// capacity.
    #[inline(always)]
    pub fn direct_read_buffer(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        match self.state {
            State::Open | State::CloseSent => self.decoder.direct_read_buffer(),
            State::Draining | State::Closed => None,
        }
    }

    /// Whether [`direct_read_buffer`](Self::direct_read_buffer) holds bytes that
    /// [`handle_direct_read`](Self::handle_direct_read) has not processed.
    #[inline]
    pub fn has_direct_read(&self) -> bool {
        self.decoder.has_direct_read()
    }

    /// Processes the bytes appended to [`direct_read_buffer`](Self::direct_read_buffer).
    ///
    /// Returns the message if these bytes complete it, or the protocol error they cause. Does nothing if no bytes were
    /// appended.
    pub fn handle_direct_read(&mut self, now: Instant) -> Option<Event<'_>> {
        if matches!(self.state, State::Draining | State::Closed) {
            return None;
        }
        if !self.has_direct_read() {
            return None;
        }
        self.liveness.handle_progress(now);
        let decoded = self.decoder.receive_direct_read();
        self.handle_decoded(now, decoded, &[])
    }

    /// Records that everything appended by [`poll_transmit`](Self::poll_transmit) so far, and all bytes before it, has
    /// been written to the transport.
    ///
    /// This starts the peer's time to answer: [`Keepalive::timeout`](crate::Keepalive::timeout) for a ping,
    /// [`Config::close_timeout`] for our close frame. Before this call neither has a deadline, so the caller needs its
    /// own timeout for a transport that accepts no bytes. Does nothing if nothing was pending.
    pub fn handle_transmitted(&mut self, now: Instant) {
        self.handle_transmitted_with_delay(now, Duration::ZERO);
    }

    /// Like [`handle_transmitted`](Self::handle_transmitted), but the peer's time to answer starts `delay` later.
    ///
    /// Use this if earlier bytes are still in the kernels' socket buffers. `delay` is the estimated time the peer needs
    /// to read them.
    pub fn handle_transmitted_with_delay(&mut self, now: Instant, delay: Duration) {
        self.liveness.handle_transmitted(now, delay);
        if self.close_frame == CloseProgress::Queued {
            self.close_frame = CloseProgress::Written;
            let wait = match self.state {
                State::Draining => self.drain_timeout(),
                _ => self.config.close_timeout,
            };
            self.close_deadline = Some(now + delay + wait);
        }
    }

    /// Records that a full transport accepted bytes again. This counts as progress for the keepalive, because it means
    /// that the peer has read data.
    ///
    /// Do not call this when the transport's buffers had free space before the write: such a write proves nothing about
    /// the peer.
    pub fn handle_write_progress(&mut self, now: Instant) {
        self.liveness.handle_progress(now);
    }

    /// Records that the peer closed its sending half, or that the transport failed.
    ///
    /// If neither side had sent a close frame, the connection ended abnormally (1006). If our close frame was written
    /// and the peer closed the transport without answering it, [`CloseInfo::received`] is `None` and the cause stays
    /// [`CloseCause::Local`].
    // [6455-7.2.1-1]
    pub fn handle_transport_end(&mut self) {
        match self.apply(Input::TransportEnd) {
            Action::RecordUnansweredClose if self.close_frame == CloseProgress::Written => {}
            Action::RecordTransportEnd | Action::RecordUnansweredClose => self.end_abnormally(CloseCause::TransportEnd),
            _ => {}
        }
    }

    /// Handles the deadline returned by [`poll_timeout`](Self::poll_timeout). Does nothing before that deadline.
    ///
    /// First pass bytes that have already arrived to [`handle_bytes`](Self::handle_bytes). Otherwise, a process that
    /// was suspended for a minute would declare every peer dead.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (has_passed, cause) = match (self.state, &self.config.keepalive) {
            (State::Open, Some(keepalive)) => {
                let action = self.liveness.handle_timeout(now, keepalive);
                (action == KeepaliveAction::TimedOut, CloseCause::KeepaliveTimeout)
            }
            _ => (
                self.close_deadline.is_some_and(|deadline| now >= deadline),
                CloseCause::CloseTimeout,
            ),
        };
        if has_passed && self.apply(Input::Deadline) == Action::RecordTimeout {
            self.end_abnormally(cause);
        }
    }

    /// The time at which [`handle_timeout`](Self::handle_timeout) must be called, if any.
    ///
    /// May change with every other call, and moves later whenever bytes arrive. Instead of resetting a timer each time,
    /// let it fire early and compare again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Open => self
                .config
                .keepalive
                .as_ref()
                .and_then(|keepalive| self.liveness.deadline(keepalive)),
            State::CloseSent | State::Draining => self.close_deadline,
            State::Closed => None,
        }
    }

    /// Queues a ping with a payload of at most 125 bytes. Its pong updates [`rtt`](Self::rtt).
    ///
    /// A newer ping replaces an unanswered one for the round-trip time, but does not extend the keepalive timeout that
    /// the older ping started.
    ///
    /// # Errors
    ///
    /// - [`SendError::PingTooLong`] if the payload has more than 125 bytes.
    /// - [`SendError::Closed`] if the connection is closing or closed.
    // [6455-5.5-1, 6455-5.5.2-4]
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        if payload.len() > crate::frame::CONTROL_PAYLOAD_MAX {
            return Err(SendError::PingTooLong { len: payload.len() });
        }
        self.check_open()?;
        self.liveness.ping(Box::from(payload));
        Ok(())
    }

    /// Queues a ping unless one is unanswered. Returns the number of the ping to wait for: see
    /// [`is_ping_answered`](Self::is_ping_answered).
    ///
    /// # Errors
    ///
    /// The connection is closing.
    pub fn start_ping(&mut self) -> Result<u32, SendError> {
        self.check_open()?;
        Ok(self.liveness.start_ping())
    }

    /// Whether this ping or a later one was answered. [`rtt`](Self::rtt) is then that of the newest.
    pub fn is_ping_answered(&self, ping: u32) -> bool {
        self.liveness.is_ping_answered(ping)
    }

    /// The number of the newest answered ping, counted from 1; 0 if there is none.
    pub fn last_answered_ping(&self) -> u32 {
        self.liveness.last_answered()
    }

    /// Starts the closing handshake (RFC 6455 §7.1.2).
    ///
    /// The close frame follows everything sent before; sending afterwards fails with [`SendError::Closed`]. Messages
    /// are still received until the peer's close frame arrives. Does nothing if the connection is already closing.
    ///
    /// # Errors
    ///
    /// [`InvalidClose`] if the code or the reason must not be sent; see [`CloseFrame::new`].
    // [6455-7.1.2-1, 6455-7.3-2]
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), InvalidClose> {
        let frame = CloseFrame::new(code, reason)?;
        if self.apply(Input::LocalClose) == Action::SendClose {
            self.close_info = Some(Box::new(CloseInfo::new(Side::Local, CloseCause::Local)));
            self.queue_close(frame);
        }
        Ok(())
    }

    /// Moves the remaining work of a closing connection into the returned connection: sending the close frame, the
    /// deadlines, and closing the transport.
    ///
    /// `self` becomes [`State::Closed`] and keeps its current [`close_info`](Self::close_info), round-trip time and
    /// compression parameters and totals. This allows the driver to report the close to the application at once and to
    /// finish the transport in the background.
    pub fn take_closing(&mut self) -> Self {
        let closed = Self {
            state: State::Closed,
            close_info: self.close_info.clone(),
            liveness: self.liveness.clone(),
            deflate: self.deflate.as_ref().map(|deflate| Box::new(deflate.without_codecs())),
            ..Self::new(self.role, self.config.clone(), Instant::ORIGIN)
        };
        core::mem::replace(self, closed)
    }

    /// Fails the connection with [`ProtocolError::MessageTooBig`], for a caller with a limit of its own that receives
    /// chunks. The close frame with 1009 is queued.
    pub fn reject_message(&mut self, now: Instant) {
        if !matches!(self.state, State::Draining | State::Closed) {
            self.fail(now, ProtocolError::MessageTooBig);
        }
    }

    /// Sets how received messages are delivered, starting with the next message. Default [`ReceiveMode::Whole`].
    ///
    /// Returns `false` and changes nothing if a message is partly received in the other mode. Frees what was kept for
    /// the last event.
    pub fn set_receive_mode(&mut self, receive_mode: ReceiveMode) -> bool {
        if self.decoder.is_inside_message() && self.decoder.receive_mode() != receive_mode {
            return false;
        }
        self.decoder.set_receive_mode(receive_mode);
        true
    }

    /// How received messages are delivered.
    #[inline]
    pub fn receive_mode(&self) -> ReceiveMode {
        self.decoder.receive_mode()
    }

    /// The state of the connection.
    pub fn state(&self) -> State {
        self.state
    }

    /// What the caller must do with the transport now. Check it after every other call.
    ///
    /// RFC 6455 §7.1.1: the server closes TCP first, so that it holds the TIME_WAIT state. A client waits for that
    /// until [`Config::close_timeout`].
    // [6455-5.5.1-8, 6455-5.5.1-9, 6455-5.5.1-10, 6455-7.1.1-2, 6455-7.1.1-3]
    pub fn transport_action(&self) -> TransportAction {
        match (self.state, self.role) {
            (State::Open | State::CloseSent, _) => TransportAction::Open,
            // Our close frame is still waiting for the end of the message in progress.
            (State::Draining, _) if self.is_compressing() => TransportAction::Open,
            (State::Draining, Role::Server) => TransportAction::HalfClose,
            (State::Draining, Role::Client { .. }) => match self.close_info().map(CloseInfo::cause) {
                Some(CloseCause::ProtocolError(_)) => TransportAction::HalfClose,
                _ => TransportAction::Open,
            },
            (State::Closed, _) => TransportAction::Close,
        }
    }

    /// How the connection was closed, as far as known yet. `None` while it is open.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        self.close_info.as_deref()
    }

    /// The round-trip time: from writing the most recently answered ping until its pong. `None` before the first pong.
    pub fn rtt(&self) -> Option<Duration> {
        self.liveness.rtt()
    }

    /// Whether a ping has been written and neither its pong nor the pong of a later ping has arrived.
    ///
    /// While this is `true` on an open connection, [`poll_timeout`](Self::poll_timeout) is the time at which the
    /// connection is closed as dead.
    pub fn is_awaiting_pong(&self) -> bool {
        self.liveness.is_awaiting_pong()
    }

    /// The role of this endpoint.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Heap memory held for payloads, in bytes: of incomplete messages and control frames, and of a message
    /// [being inflated](Self::is_inflating).
    ///
    /// Does not include about 112 bytes of state. The payload of a control frame that arrived in pieces is kept until
    /// the next input.
    pub fn buffered_len(&self) -> usize {
        let inflating = self.deflate.as_ref().map_or(0, |deflate| deflate.buffered_len());
        self.decoder.buffered_len() + inflating
    }

    /// Turns the result of the decoder into an event and performs the required protocol action.
    #[inline]
    fn handle_decoded<'a>(
        &'a mut self,
        now: Instant,
        decoded: Result<Decoded, ProtocolError>,
        input: &'a [u8],
    ) -> Option<Event<'a>> {
        let (opcode, range) = match decoded {
            Ok(Decoded::Nothing) => return None,
            Ok(Decoded::MessageInPlace(kind, range)) => {
                let payload = Cow::Borrowed(&input[range]);
                return Some(Event::Message { kind, payload });
            }
            Ok(Decoded::Message(kind)) => {
                let payload = Cow::Owned(self.decoder.take_message());
                return Some(Event::Message { kind, payload });
            }
            Ok(Decoded::CompressedInPlace(kind, range)) => {
                return self.inflate(now, kind, Cow::Borrowed(&input[range]));
            }
            // [7692-6.2-1]
            Ok(Decoded::Compressed(kind)) => {
                let compressed = self.decoder.take_message();
                return self.inflate(now, kind, Cow::Owned(compressed));
            }
            // Handled by `inflate_chunks`.
            Ok(Decoded::CompressedPart) => return None,
            Ok(Decoded::Chunk(chunk, range)) => {
                return Some(Event::Chunk {
                    kind: chunk.kind,
                    data: &input[range],
                    first: chunk.first,
                    last: chunk.last,
                });
            }
            Ok(Decoded::ControlInPlace(opcode, range)) => (opcode, Some(range)),
            Ok(Decoded::Control(opcode)) => (opcode, None),
            Err(error) => return Some(self.fail(now, error)),
        };
        if opcode == Opcode::Close {
            let frame = CloseFrame::parse(range.map_or(self.decoder.control(), |range| &input[range]));
            return Some(match frame {
                Ok(frame) => self.handle_close(now, frame),
                Err(error) => self.fail(now, error),
            });
        }
        let payload = range.map_or(self.decoder.control(), |range| &input[range]);
        if opcode == Opcode::Pong {
            self.liveness.handle_pong(now, payload);
            return Some(Event::Pong(payload));
        }
        // RFC 6455 §5.5.2: answer with a pong as soon as practical, unless a close frame was received.
        // §5.5.3: it is enough to answer the newest of several pings. [6455-5.5.2-1, 6455-5.5.3-1, 6455-5.5.3-2]
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
            // Unreachable: RSV1 is rejected unless permessage-deflate was negotiated.
            None => Err(ProtocolError::ReservedBits),
        };
        self.handle_inflated(now, kind, inflated)
    }

    #[cold]
    fn resume_inflating(&mut self, now: Instant, kind: MessageKind) -> Option<Event<'static>> {
        let step_max = self.config.inflate_step_max;
        let inflated = self.deflate.as_mut()?.resume_inflating(step_max);
        self.handle_inflated(now, kind, inflated)
    }

    /// Inflates the buffered part of a compressed message, and parts from `input` behind `consumed`, up to the next
    /// event.
    #[cold]
    fn inflate_chunks<'a>(&'a mut self, now: Instant, mut consumed: usize, input: &'a mut [u8]) -> Received<'a> {
        loop {
            let inflated = match &mut self.deflate {
                Some(deflate) => self.decoder.inflate_to_chunk(deflate),
                // Unreachable: RSV1 is rejected unless permessage-deflate was negotiated.
                None => Err(ProtocolError::ReservedBits),
            };
            match inflated {
                Err(error) => {
                    let event = Some(self.fail(now, error));
                    return Received { consumed, event };
                }
                Ok(Some(chunk)) => {
                    let event = Some(self.inflated_chunk(chunk));
                    return Received { consumed, event };
                }
                Ok(None) => {}
            }
            let rest = consumed..input.len();
            let (len, decoded) = self.decoder.receive(&self.config.limits, &mut input[rest.clone()]);
            consumed += len;
            if decoded != Ok(Decoded::CompressedPart) {
                let event = self.handle_decoded(now, decoded, &input[rest]);
                return Received { consumed, event };
            }
        }
    }

    fn inflated_chunk(&self, chunk: Chunk) -> Event<'_> {
        let Chunk { kind, first, last } = chunk;
        let data = match &self.deflate {
            Some(deflate) if !last => deflate.inflated_chunk(),
            // The codec of a complete message is back in its pool.
            _ => self.decoder.last_chunk(),
        };
        Event::Chunk {
            kind,
            data,
            first,
            last,
        }
    }

    fn handle_inflated(
        &mut self,
        now: Instant,
        kind: MessageKind,
        inflated: Result<Option<Vec<u8>>, ProtocolError>,
    ) -> Option<Event<'static>> {
        let is_paused = inflated == Ok(None);
        if is_paused || self.is_inflating() {
            self.decoder.set_inflating(is_paused.then_some(kind));
        }
        match inflated {
            Ok(None) => None,
            // [7692-6-3]
            Ok(Some(message)) if !kind.is_valid_payload(&message) => Some(self.fail(now, ProtocolError::InvalidUtf8)),
            Ok(Some(message)) => Some(Event::Message {
                kind,
                payload: Cow::Owned(message),
            }),
            Err(error) => Some(self.fail(now, error)),
        }
    }

    fn handle_close(&mut self, now: Instant, frame: CloseFrame) -> Event<'static> {
        if self.apply(Input::PeerClose) == Action::AnswerClose {
            self.close_info = Some(Box::new(CloseInfo::new(Side::Peer, CloseCause::Peer)));
            // RFC 6455 §5.5.1: the answer typically echoes the status code. [6455-5.5.1-5, 6455-5.5.1-6, 6455-5.5.1-7]
            let reason = Default::default();
            self.queue_close(CloseFrame {
                code: frame.code,
                reason,
            });
        }
        if let Some(close_info) = &mut self.close_info {
            close_info.received = Some(frame.clone());
        }
        self.start_draining(now);
        Event::Close(frame)
    }

    /// Fails the connection (RFC 6455 §7.1.7).
    // [6455-7.1.7-4, 6455-10.7-2]
    fn fail(&mut self, now: Instant, error: ProtocolError) -> Event<'static> {
        if self.apply(Input::ProtocolError) == Action::SendProtocolError {
            self.close_info = Some(Box::new(CloseInfo::new(Side::Local, CloseCause::ProtocolError(error))));
            let reason = error.reason().into();
            self.queue_close(CloseFrame {
                code: error.close_code(),
                reason,
            });
        } else if let Some(close_info) = &mut self.close_info {
            close_info.cause = CloseCause::ProtocolError(error);
        }
        self.start_draining(now);
        Event::ProtocolError(error)
    }

    fn discard(&mut self, len: usize) {
        // Until our close frame is written, the peer cannot know that it should stop sending.
        if self.close_frame != CloseProgress::Written {
            return;
        }
        self.discarded = self.discarded.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        if self.discarded > DISCARDED_LEN_MAX {
            self.apply(Input::DiscardLimit);
        }
    }

    /// Applies one state transition, frees resources that the new state does not need, and returns the action to
    /// perform.
    fn apply(&mut self, input: Input) -> Action {
        let (state, action) = lifecycle::transition(self.state, input);
        self.state = state;
        if matches!(state, State::Draining | State::Closed) {
            self.pong_due = None;
            self.decoder.release();
            if let Some(deflate) = &mut self.deflate {
                deflate.stop_inflating();
                // After a valid close frame, a compressed message in progress may still be finished.
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

    /// Sets the deadline for the peer to close the transport if our close frame is already written. Otherwise
    /// [`handle_transmitted`](Self::handle_transmitted) sets it.
    // [6455-5.5.1-11]
    fn start_draining(&mut self, now: Instant) {
        if self.close_frame == CloseProgress::Written {
            let deadline = now + self.drain_timeout();
            self.close_deadline = Some(self.close_deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        }
    }

    /// Time for the peer to close the transport after our close frame was written.
    fn drain_timeout(&self) -> Duration {
        let is_clean = self.close_info().is_some_and(CloseInfo::is_clean);
        match self.role {
            Role::Server if is_clean => LINGER.min(self.config.close_timeout),
            Role::Server | Role::Client { .. } => self.config.close_timeout,
        }
    }

    /// Records an end before the closing handshake was complete.
    fn end_abnormally(&mut self, cause: CloseCause) {
        match &mut self.close_info {
            Some(close_info) => close_info.cause = cause,
            None => self.close_info = Some(Box::new(CloseInfo::new(Side::Local, cause))),
        }
    }
}
