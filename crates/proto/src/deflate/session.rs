//! Compression of one connection, both directions.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;

use super::codec::{Codecs, Deflater, Inflater, Inflation, compress};
use super::window::Window;
use super::{DeflateConfig, NegotiatedParams, Takeover};
use crate::connection::Fragment;
use crate::protocol_error::ProtocolError;

/// What a connection needs for permessage-deflate beyond the codecs that it borrows.
#[derive(Debug)]
pub(crate) struct DeflateSession {
    /// With the window that was agreed on.
    config: DeflateConfig,
    agreement: NegotiatedParams,
    codecs: Codecs,
    sent: Window,
    received: Window,
    paused: Option<Box<Paused>>,
    /// The codec that is in the middle of a message that is sent in parts.
    deflater: Option<Box<Deflater>>,
}

/// A message of which a part is inflated, and the codec that is in the middle of it.
#[derive(Debug)]
struct Paused {
    inflater: Box<Inflater>,
    inflation: Inflation,
    payload: Vec<u8>,
}

impl DeflateSession {
    pub(crate) fn new(config: &DeflateConfig, agreement: NegotiatedParams, codecs: Codecs) -> Self {
        Self {
            config: DeflateConfig {
                // [7692-7.1.2.1-3, 7692-7.1.2.2-4, 7692-7.2.1-4]
                window_bits: agreement.window_bits,
                ..config.clone()
            },
            agreement,
            codecs,
            sent: Window::default(),
            received: Window::default(),
            paused: None,
            deflater: None,
        }
    }

    /// Whether a message of this length is worth compressing, if nobody said otherwise.
    pub(crate) fn is_worth(&self, len: usize) -> bool {
        len >= self.config.size_min
    }

    pub(crate) const fn negotiated(&self) -> NegotiatedParams {
        self.agreement
    }

    /// How messages are compressed: with the window that was agreed on.
    pub(crate) fn config(&self) -> &DeflateConfig {
        &self.config
    }

    /// Has `send` take the compressed payload of a message; `None` if the message is better sent as it is.
    pub(crate) fn compress<R>(&mut self, message: &[u8], send: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let sent = compress(&self.config, self.codecs, self.sent.as_slice(), message, send)?;
        self.remember_sent(message);
        Some(sent)
    }

    /// Has `send` take the first part of a message, compressed; [`compress_part`](Self::compress_part) goes on with
    /// the others. `None` if the message is better sent as it is.
    pub(crate) fn start_compressing<R>(&mut self, part: &[u8], send: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut deflater = self.codecs.deflater(&self.config)?;
        let begun = deflater.begin(self.sent.as_slice());
        let sent = begun
            .and_then(|()| deflater.compress_part(part, Fragment::More))
            .filter(|payload| payload.len() < part.len())
            .map(send);
        if sent.is_none() {
            self.codecs.give_back(deflater);
            return None;
        }
        self.deflater = Some(deflater);
        self.remember_sent(part);
        sent
    }

    /// Has `send` take the next part of the message that is being compressed; `None` if there is none, or the codec
    /// failed.
    pub(crate) fn compress_part<R>(
        &mut self,
        part: &[u8],
        fragment: Fragment,
        send: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let sent = self.deflater.as_mut()?.compress_part(part, fragment).map(send);
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

    /// Lets go of the codec that is in the middle of a message, if there is one.
    pub(crate) fn stop_compressing(&mut self) {
        if let Some(deflater) = self.deflater.take() {
            self.codecs.give_back(deflater);
        }
    }

    /// Takes note of a message, or of a part of one, that was sent compressed: the next one may refer back to it.
    pub(crate) fn remember_sent(&mut self, message: &[u8]) {
        // RFC 7692 §7.2.1: without takeover nothing is remembered of a message.
        // [7692-7.1.1.1-4, 7692-7.1.1.2-3, 7692-7.2.1-3]
        if self.agreement.takeover == Takeover::Keep {
            self.sent.push(message, self.agreement.window_bits);
        }
    }

    /// Inflates a message of at most `size_max` bytes, or about `at_once` bytes of it: then `None`, and
    /// [`resume_inflating`](Self::resume_inflating) goes on with it.
    pub(crate) fn inflate(
        &mut self,
        payload: Cow<'_, [u8]>,
        size_max: u64,
        at_once: usize,
    ) -> Result<Option<Vec<u8>>, ProtocolError> {
        let mut inflater = (self.codecs.take_inflater)();
        match inflater.begin(self.received.as_slice(), payload.len(), size_max) {
            Ok(inflation) => self.advance(inflater, inflation, payload, at_once),
            Err(fault) => {
                (self.codecs.give_inflater)(inflater);
                Err(fault)
            }
        }
    }

    /// Goes on with the message of which a part is inflated; as [`inflate`](Self::inflate).
    pub(crate) fn resume_inflating(&mut self, at_once: usize) -> Result<Option<Vec<u8>>, ProtocolError> {
        let Some(paused) = self.paused.take() else {
            debug_assert!(false, "there is a message to go on with");
            return Err(ProtocolError::InvalidDeflate);
        };
        let Paused {
            inflater,
            inflation,
            payload,
        } = *paused;
        self.advance(inflater, inflation, Cow::Owned(payload), at_once)
    }

    fn advance(
        &mut self,
        mut inflater: Box<Inflater>,
        mut inflation: Inflation,
        payload: Cow<'_, [u8]>,
        at_once: usize,
    ) -> Result<Option<Vec<u8>>, ProtocolError> {
        let advanced = inflater.advance(&mut inflation, self.received.as_slice(), &payload, at_once);
        if advanced == Ok(false) {
            self.paused = Some(Box::new(Paused {
                inflater,
                inflation,
                payload: payload.into_owned(),
            }));
            return Ok(None);
        }
        (self.codecs.give_inflater)(inflater);
        advanced?;
        let message = inflation.into_message();
        // RFC 7692 §7.2.2: with takeover, the next message may refer back to this one. [7692-7.2.2-2]
        if self.agreement.peer_takeover == Takeover::Keep {
            self.received.push(&message, self.agreement.peer_window_bits);
        }
        Ok(Some(message))
    }

    /// How many bytes are held of a message of which a part is inflated.
    pub(crate) fn held_len(&self) -> usize {
        let held = |paused: &Paused| paused.inflation.held_len() + paused.payload.capacity();
        self.paused.as_deref().map_or(0, held)
    }

    /// Gives up a message of which a part is inflated.
    pub(crate) fn stop_inflating(&mut self) {
        if let Some(paused) = self.paused.take() {
            (self.codecs.give_inflater)(paused.inflater);
        }
    }
}
