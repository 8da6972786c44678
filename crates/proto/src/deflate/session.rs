//! Compression of one connection, both directions.

use alloc::vec::Vec;

use super::codec::{Codecs, compress};
use super::window::Window;
use super::{Agreement, DeflateConfig, Takeover};
use crate::fault::Fault;

/// What a connection needs for permessage-deflate beyond the codecs that it borrows.
#[derive(Debug)]
pub(crate) struct DeflateSession {
    /// With the window that was agreed on.
    config: DeflateConfig,
    agreement: Agreement,
    codecs: Codecs,
    sent: Window,
    received: Window,
}

impl DeflateSession {
    pub(crate) fn new(config: &DeflateConfig, agreement: Agreement, codecs: Codecs) -> Self {
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
        }
    }

    /// Whether a message of this length is worth compressing, if nobody said otherwise.
    pub(crate) fn is_worth(&self, len: usize) -> bool {
        len >= self.config.size_min
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

    /// Takes note of a message that was sent compressed: the next one may refer back to it.
    pub(crate) fn remember_sent(&mut self, message: &[u8]) {
        // RFC 7692 §7.2.1: without takeover nothing is remembered of a message.
        // [7692-7.1.1.1-4, 7692-7.1.1.2-3, 7692-7.2.1-3]
        if self.agreement.takeover == Takeover::Keep {
            self.sent.push(message, self.agreement.window_bits);
        }
    }

    /// Inflates a message of at most `size_max` bytes.
    pub(crate) fn inflate(&mut self, payload: &[u8], size_max: u64) -> Result<Vec<u8>, Fault> {
        let mut inflater = (self.codecs.take_inflater)();
        let message = inflater.inflate(self.received.as_slice(), payload, size_max);
        (self.codecs.give_inflater)(inflater);
        // RFC 7692 §7.2.2: with takeover, the next message may refer back to this one. [7692-7.2.2-2]
        if self.agreement.peer_takeover == Takeover::Keep
            && let Ok(message) = &message
        {
            self.received.push(message, self.agreement.peer_window_bits);
        }
        message
    }
}
