//! Compressed messages from a peer: inflated like the reference inflater and within the limits.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::codecs::POOLED;
use sockeye_fuzz::cuts::Cuts;
use sockeye_fuzz::inflate::{self, Failure};
use sockeye_fuzz::memory::Meter;
use sockeye_fuzz::reading::CLIENT;
use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
use sockeye_proto::frame::{FrameHeader, Opcode};
use sockeye_proto::{Config, Connection, Event, Instant, MessageKind, ProtocolError};

const NOW: Instant = Instant::ORIGIN;

fuzz_target!(|input: &[u8]| {
    let [choices, seed, messages @ ..] = input else { return };
    let params = NegotiatedParams {
        takeover: Takeover::Reset,
        peer_takeover: if choices & 1 == 0 {
            Takeover::Keep
        } else {
            Takeover::Reset
        },
        window_bits: WindowBits::MAX,
        peer_window_bits: WindowBits::new(8 + (choices >> 1 & 7)).expect("8 to 15"),
    };
    let mut config = Config::default();
    config.limits.message_size_max = match choices >> 4 & 3 {
        0 => 64,
        1 => 1000,
        2 => 40_000,
        _ => 1 << 20,
    };
    if choices >> 6 & 1 == 1 {
        config.inflate_step_max = 1;
    }
    let mut connection = Connection::new(CLIENT, Arc::new(config.clone()), NOW);
    connection.enable_deflate(&DeflateConfig::default(), params, POOLED);
    let mut peer = Peer {
        connection,
        size_max: config.limits.message_size_max as usize,
        cuts: Cuts::new(*seed),
        window: vec![],
        params,
    };
    // A message starts with its kind and length. The last one takes all remaining bytes.
    let mut left = messages;
    while let [head, rest @ ..] = left {
        let len = if head >> 1 == 0x7f {
            rest.len()
        } else {
            usize::from(head >> 1).min(rest.len())
        };
        let kind = if head & 1 == 0 {
            MessageKind::Binary
        } else {
            MessageKind::Text
        };
        let (payload, rest) = rest.split_at(len);
        left = rest;
        if !peer.send(kind, payload) {
            break;
        }
    }
});

struct Peer {
    connection: Connection,
    size_max: usize,
    cuts: Cuts,
    /// Data to which the next message may refer back, according to the negotiated parameters.
    window: Vec<u8>,
    params: NegotiatedParams,
}

impl Peer {
    /// Sends a message in fragments and pieces. Returns whether the connection is still open.
    fn send(&mut self, kind: MessageKind, payload: &[u8]) -> bool {
        let wire = self.frames(kind, payload);
        let received = self.feed(wire);
        let expected = inflate::message(&self.window, payload, self.size_max);
        match (received, &expected.message) {
            (Ok(message), Ok(inflated)) => {
                assert_eq!(message, *inflated);
                assert!(kind == MessageKind::Binary || std::str::from_utf8(inflated).is_ok());
                if self.params.peer_takeover == Takeover::Keep {
                    self.window.extend_from_slice(inflated);
                    let size = self.params.peer_window_bits.size();
                    self.window.drain(..self.window.len().saturating_sub(size));
                }
                return true;
            }
            (Err(ProtocolError::InvalidUtf8), Ok(inflated)) => {
                assert!(kind == MessageKind::Text && std::str::from_utf8(inflated).is_err());
            }
            (Err(ProtocolError::InvalidDeflate), Err(Failure::Invalid | Failure::Cut)) => {}
            (Err(ProtocolError::MessageTooBig), Err(Failure::TooBig)) => {}
            // A truncated block also consumes the five bytes with which our inflater ends a stream.
            (Err(ProtocolError::MessageTooBig), Err(Failure::Cut)) => {}
            // The number of final blocks is limited, because the codec must be reset after each.
            (Err(ProtocolError::TooManyFinalBlocks), _) if expected.final_blocks > 8 => {}
            // A compressed message that exceeds the limit need not be inflated.
            (Err(ProtocolError::MessageTooBig), _) if payload.len() > self.size_max => {}
            (received, expected) => panic!("{received:?}, but the reference is {expected:?}"),
        }
        false
    }

    fn frames(&mut self, kind: MessageKind, payload: &[u8]) -> Vec<u8> {
        let mut wire = vec![];
        let mut opcode = if kind == MessageKind::Text {
            Opcode::Text
        } else {
            Opcode::Binary
        };
        let mut rest = payload;
        loop {
            let len = if rest.is_empty() {
                0
            } else {
                self.cuts.next_len(rest.len())
            };
            let fragment = rest.split_off(..len).unwrap_or_default();
            // RFC 7692 §6: only the first frame has RSV1.
            let rsv = if opcode == Opcode::Continuation { 0 } else { 4 };
            let payload_len = len as u64;
            FrameHeader {
                fin: rest.is_empty(),
                rsv,
                opcode,
                mask: None,
                payload_len,
            }
            .encode(&mut wire);
            wire.extend_from_slice(fragment);
            opcode = Opcode::Continuation;
            if rest.is_empty() {
                return wire;
            }
        }
    }

    fn feed(&mut self, mut wire: Vec<u8>) -> Result<Vec<u8>, ProtocolError> {
        // The codec belongs to the pool, not to the connection.
        (POOLED.return_inflater)((POOLED.take_inflater)());
        let meter = Meter::start();
        let wire_len = wire.len();
        let mut left = &mut wire[..];
        let mut told = None;
        while !left.is_empty() {
            let mut piece = self.cuts.take(&mut left);
            loop {
                let received = self.connection.handle_bytes(NOW, piece);
                let consumed = received.consumed;
                let is_event = received.event.is_some();
                match received.event {
                    None => {}
                    Some(Event::Message { payload, .. }) => told = Some(Ok(payload.into_owned())),
                    Some(Event::ProtocolError(error)) => told = Some(Err(error)),
                    Some(event) => panic!("unexpected event: {event:?}"),
                }
                if !is_event && !self.connection.is_inflating() {
                    break;
                }
                piece = &mut piece[consumed..];
            }
        }
        let peak = meter.peak();
        let bound = self.size_max + 2 * wire_len + 64 * 1024 + 2048;
        assert!(peak <= bound, "{peak} bytes held with a limit of {}", self.size_max);
        told.expect("a complete message gave no event")
    }
}
