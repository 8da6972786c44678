//! Compression state of one connection, both directions.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;

use super::codec::{CodecPool, Deflater, Inflater, Inflation, StreamInflation, compress};
use super::window::Window;
use super::{DeflateConfig, NegotiatedParams, Takeover};
use crate::message::Fragment;
use crate::protocol_error::ProtocolError;

/// Messages of one direction of a connection that were compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressionTotals {
    /// The number of messages.
    pub messages: u64,
    /// Their payload bytes before compression.
    pub payload_before: u64,
    /// Their payload bytes after compression, without frame headers.
    pub payload_after: u64,
}

impl CompressionTotals {
    fn add(&mut self, messages: u64, before: usize, after: usize) {
        self.messages += messages;
        self.payload_before += before as u64;
        self.payload_after += after as u64;
    }
}

/// Totals of the compressed messages of a connection: see
/// [`Connection::compression_stats`](crate::Connection::compression_stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompressionStats {
    /// The sent messages.
    pub sent: CompressionTotals,
    /// The received messages.
    pub received: CompressionTotals,
}

/// Compression state of a connection, apart from the codecs, which are borrowed per message.
#[derive(Debug)]
pub(crate) struct DeflateSession {
    /// The configuration, with the negotiated window size.
    config: DeflateConfig,
    params: NegotiatedParams,
    codecs: CodecPool,
    sent: Window,
    received: Window,
    paused: Option<Box<Paused>>,
    /// A message that is inflated while it arrives.
    streamed: Option<Box<StreamedMessage>>,
    /// The codec of a message that is being sent in compressed fragments.
    deflater: Option<Box<Deflater>>,
    /// Totals of sent and of received messages.
    stats: CompressionStats,
}

/// A partly inflated message and its codec.
#[derive(Debug)]
struct Paused {
    inflater: Box<Inflater>,
    inflation: Inflation,
    payload: Vec<u8>,
}

/// A message that is inflated while it arrives, and its codec.
#[derive(Debug)]
struct StreamedMessage {
    inflater: Box<Inflater>,
    inflation: StreamInflation,
}

impl DeflateSession {
    pub(crate) fn new(config: &DeflateConfig, params: NegotiatedParams, codecs: CodecPool) -> Self {
        Self {
            config: DeflateConfig {
                // [7692-7.1.2.1-3, 7692-7.1.2.2-4, 7692-7.2.1-4]
                window_bits: params.window_bits,
                ..config.clone()
            },
            params,
            codecs,
            sent: Window::default(),
            received: Window::default(),
            paused: None,
            streamed: None,
            deflater: None,
            stats: CompressionStats::default(),
        }
    }

    /// A session without windows and codecs, for a connection that neither sends nor receives any more.
    pub(crate) fn without_codecs(&self) -> Self {
        Self {
            config: self.config.clone(),
            params: self.params,
            codecs: self.codecs,
            sent: Window::default(),
            received: Window::default(),
            paused: None,
            streamed: None,
            deflater: None,
            stats: self.stats,
        }
    }

    /// Totals of sent and of received messages.
    pub(crate) fn stats(&self) -> CompressionStats {
        self.stats
    }

    /// Counts a message that was compressed for many connections.
    pub(crate) fn count_framed(&mut self, before: usize, after: usize) {
        self.stats.sent.add(1, before, after);
    }

    /// Whether [`Compress::Auto`](crate::Compress::Auto) compresses a message of this length.
    pub(crate) fn should_compress(&self, len: usize) -> bool {
        len >= self.config.size_min
    }

    pub(crate) const fn negotiated(&self) -> NegotiatedParams {
        self.params
    }

    /// The compression configuration, with the negotiated window size.
    pub(crate) fn config(&self) -> &DeflateConfig {
        &self.config
    }

    /// Compresses a message and passes the payload to `send`. Returns `None` if compression does not make it smaller.
    pub(crate) fn compress<R>(&mut self, message: &[u8], send: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let totals = &mut self.stats.sent;
        let sent = compress(&self.config, self.codecs, self.sent.as_slice(), message, |payload| {
            totals.add(1, message.len(), payload.len());
            send(payload)
        })?;
        self.remember_sent(message);
        Some(sent)
    }

    /// Compresses the first part of a message and passes it to `send`. Continue with
    /// [`compress_part`](Self::compress_part). Returns `None` if compression does not make the part smaller.
    pub(crate) fn start_compressing<R>(&mut self, part: &[u8], send: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut deflater = self.codecs.deflater(&self.config)?;
        let started = deflater.begin(self.sent.as_slice());
        let sent = started
            .and_then(|()| deflater.compress_part(part, Fragment::More))
            .filter(|payload| payload.len() < part.len())
            .map(|payload| {
                self.stats.sent.add(1, part.len(), payload.len());
                send(payload)
            });
        if sent.is_none() {
            self.codecs.recycle_deflater(deflater);
            return None;
        }
        self.deflater = Some(deflater);
        self.remember_sent(part);
        sent
    }

    /// Compresses the next part of the message in progress and passes it to `send`. Returns `None` if no message is in
    /// progress or the codec failed.
    pub(crate) fn compress_part<R>(
        &mut self,
        part: &[u8],
        fragment: Fragment,
        send: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let totals = &mut self.stats.sent;
        let sent = self.deflater.as_mut()?.compress_part(part, fragment).map(|payload| {
            totals.add(0, part.len(), payload.len());
            send(payload)
        });
        if sent.is_none() || fragment == Fragment::Last {
            self.stop_compressing();
        }
        self.remember_sent(part);
        sent
    }

    /// Whether a message is being compressed in parts.
    pub(crate) fn is_compressing(&self) -> bool {
        self.deflater.is_some()
    }

    /// Aborts the message being compressed, if any, and returns its codec to the pool.
    pub(crate) fn stop_compressing(&mut self) {
        if let Some(deflater) = self.deflater.take() {
            self.codecs.recycle_deflater(deflater);
        }
    }

    /// Adds a compressed message, or a part of one, to the window that later messages may refer to.
    pub(crate) fn remember_sent(&mut self, message: &[u8]) {
        // RFC 7692 §7.2.1: without context takeover, messages do not refer to earlier ones.
        // [7692-7.1.1.1-4, 7692-7.1.1.2-3, 7692-7.2.1-3]
        if self.params.takeover == Takeover::Keep {
            self.sent.push(message, self.params.window_bits);
        }
    }

    /// Inflates a message to at most `size_max` bytes. Returns `None` after about `step_max` bytes if it is not
    /// complete; continue with [`resume_inflating`](Self::resume_inflating).
    pub(crate) fn inflate(
        &mut self,
        payload: Cow<'_, [u8]>,
        size_max: u64,
        step_max: usize,
    ) -> Result<Option<Vec<u8>>, ProtocolError> {
        let mut inflater = (self.codecs.take_inflater)();
        match inflater.begin(self.received.as_slice(), payload.len(), size_max) {
            Ok(inflation) => self.advance(inflater, inflation, payload, step_max),
            Err(error) => {
                (self.codecs.return_inflater)(inflater);
                Err(error)
            }
        }
    }

    /// Continues with a partly inflated message. Returns `None` if it is still not complete.
    pub(crate) fn resume_inflating(&mut self, step_max: usize) -> Result<Option<Vec<u8>>, ProtocolError> {
        let Some(paused) = self.paused.take() else {
            debug_assert!(false, "called without a partly inflated message");
            return Err(ProtocolError::InvalidDeflate);
        };
        let Paused {
            inflater,
            inflation,
            payload,
        } = *paused;
        self.advance(inflater, inflation, Cow::Owned(payload), step_max)
    }

    fn advance(
        &mut self,
        mut inflater: Box<Inflater>,
        mut inflation: Inflation,
        payload: Cow<'_, [u8]>,
        step_max: usize,
    ) -> Result<Option<Vec<u8>>, ProtocolError> {
        let advanced = inflater.advance(&mut inflation, self.received.as_slice(), &payload, step_max);
        if advanced == Ok(false) {
            self.paused = Some(Box::new(Paused {
                inflater,
                inflation,
                payload: payload.into_owned(),
            }));
            return Ok(None);
        }
        (self.codecs.return_inflater)(inflater);
        advanced?;
        let message = inflation.into_message();
        self.stats.received.add(1, message.len(), payload.len());
        // RFC 7692 §7.2.2: with context takeover, the next message may refer back to this one. [7692-7.2.2-2]
        if self.params.peer_takeover == Takeover::Keep {
            self.received.push(&message, self.params.peer_window_bits);
        }
        Ok(Some(message))
    }

    /// Inflates `input`, the next compressed bytes of a message, into a chunk, which
    /// [`inflated_chunk`](Self::inflated_chunk) returns. Returns whether `input` is used up. If not, the chunk is full:
    /// call this again with the same input.
    pub(crate) fn inflate_to_chunk(&mut self, input: &[u8], fragment: Fragment) -> Result<bool, ProtocolError> {
        if self.streamed.is_none() {
            let mut inflater = (self.codecs.take_inflater)();
            let begun = inflater.begin_stream(core::mem::take(&mut self.received));
            self.streamed = Some(Box::new(StreamedMessage {
                inflater,
                inflation: begun?,
            }));
        }
        let Some(streamed) = &mut self.streamed else {
            return Err(ProtocolError::InvalidDeflate);
        };
        let StreamedMessage { inflater, inflation } = &mut **streamed;
        let is_used_up = inflater.inflate_to_chunk(inflation, input, fragment)?;
        let (received, output) = (&mut self.stats.received, inflation.output_len());
        received.add(0, output, 0);
        if is_used_up {
            received.add(u64::from(fragment == Fragment::Last), 0, input.len());
        }
        if is_used_up && fragment == Fragment::Last && self.params.peer_takeover == Takeover::Keep {
            // A copy of its exact size: the window of the codec may be larger.
            self.received.push(inflation.window(), self.params.peer_window_bits);
        }
        Ok(is_used_up)
    }

    /// The chunk that [`inflate_to_chunk`](Self::inflate_to_chunk) has inflated.
    pub(crate) fn inflated_chunk(&self) -> &[u8] {
        self.streamed
            .as_deref()
            .map_or(&[], |streamed| streamed.inflater.chunk(&streamed.inflation))
    }

    /// Heap memory held by a partly inflated message, in bytes.
    pub(crate) fn buffered_len(&self) -> usize {
        let memory_of = |paused: &Paused| paused.inflation.buffered_len() + paused.payload.capacity();
        let window_of = |streamed: &StreamedMessage| streamed.inflation.window().len();
        self.paused.as_deref().map_or(0, memory_of) + self.streamed.as_deref().map_or(0, window_of)
    }

    /// Aborts a partly inflated message, if any, and returns its codec to the pool.
    pub(crate) fn stop_inflating(&mut self) {
        if let Some(paused) = self.paused.take() {
            (self.codecs.return_inflater)(paused.inflater);
        }
        if let Some(streamed) = self.streamed.take() {
            (self.codecs.return_inflater)(streamed.inflater);
        }
    }
}
