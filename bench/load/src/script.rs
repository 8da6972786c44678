//! The messages that every connection sends, and the expected replies: an endless stream that repeats a few messages.

use std::ops::Range;

use anyhow::Result;

use crate::{
    payload::{Noise, payload},
    plan::{Kind, Plan, Protocol},
    wire::{self, BINARY, COMPRESSED, TEXT},
};

/// Size limit for the repeated messages, unless two of them take more.
const CYCLE_LEN: usize = 256 * 1024;

/// Maximum number of different messages.
const VARIANTS_MAX: usize = 64;

/// The bytes of both directions.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) requests: Cycle,
    pub(crate) replies: Replies,
}

/// The expected replies.
#[derive(Debug)]
pub(crate) enum Replies {
    /// Exactly these bytes.
    Bytes(Cycle),
    /// Compressed messages, whose bytes are the server's choice, and which inflate to these payloads.
    Compressed {
        payloads: Vec<Vec<u8>>,
        /// The first byte of their frames, without the compression bit.
        first: u8,
    },
}

/// An endless stream that repeats a number of messages.
#[derive(Debug)]
pub(crate) struct Cycle {
    /// One round, and the beginning of the next as far as one piece can contain it.
    bytes: Vec<u8>,
    /// Start of each message of a round; the last entry is the length of the round.
    starts: Vec<u64>,
}

impl Script {
    /// Encodes and masks everything to send. Each message of a round has its own masking key.
    pub(crate) fn new(plan: &Plan) -> Result<Self> {
        let variants = (CYCLE_LEN / plan.size).clamp(2, VARIANTS_MAX);
        let payloads: Vec<_> = (0..variants).map(|idx| payload(plan.kind, plan.size, idx)).collect();
        let first = if plan.kind == Kind::Binary { BINARY } else { TEXT };
        let mut noise = Noise::new(usize::MAX / 2);
        let mut key = || (noise.next() as u32 | 1).to_ne_bytes();
        let burst = plan.burst_max();
        let cycle = |frames: Vec<Vec<u8>>| Cycle::new(&frames, burst);
        Ok(match plan.target.protocol {
            Protocol::Raw => Self {
                requests: cycle(payloads.clone()),
                replies: Replies::Bytes(cycle(payloads)),
            },
            Protocol::WebSocket | Protocol::Fragments => {
                let frame = |payload: &Vec<u8>| wire::client_frame(first, payload, key());
                let reply = |payload: &Vec<u8>| match plan.target.protocol {
                    Protocol::Fragments => wire::server_fragments(first, payload),
                    _ => wire::server_frame(first, payload),
                };
                Self {
                    requests: cycle(payloads.iter().map(frame).collect()),
                    replies: Replies::Bytes(cycle(payloads.iter().map(reply).collect())),
                }
            }
            Protocol::Deflate => {
                let mut frames = Vec::new();
                for payload in &payloads {
                    frames.push(wire::client_frame(first | COMPRESSED, &wire::deflate(payload)?, key()));
                }
                Self {
                    requests: cycle(frames),
                    replies: Replies::Compressed { payloads, first },
                }
            }
        })
    }
}

impl Cycle {
    fn new(frames: &[Vec<u8>], burst: usize) -> Self {
        let mut starts = vec![0];
        let mut len = 0;
        for frame in frames {
            len += frame.len() as u64;
            starts.push(len);
        }
        // A burst may start at the last message of the round.
        let pieces = frames.iter().cycle().take(frames.len() + burst - 1);
        Self {
            bytes: pieces.flatten().copied().collect(),
            starts,
        }
    }

    /// Number of messages in a round.
    pub(crate) fn variants(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    /// Position in the stream where a message starts.
    pub(crate) fn start(&self, message: u64) -> u64 {
        message / self.variants() * self.len() + self.starts[(message % self.variants()) as usize]
    }

    /// Number of messages that have ended at a position of the stream.
    pub(crate) fn ended(&self, position: u64) -> u64 {
        let within = position % self.len();
        let ended = match self.starts.get(1) {
            // The common case: all messages have the same length.
            Some(len) if self.len() == len * self.variants() => within / len,
            _ => self.starts.partition_point(|start| *start <= within) as u64 - 1,
        };
        position / self.len() * self.variants() + ended
    }

    /// The bytes at a position of the stream, at most `len`.
    pub(crate) fn at(&self, position: u64, len: u64) -> &[u8] {
        let within = (position % self.len()) as usize;
        let end = self
            .bytes
            .len()
            .min(within.saturating_add(usize::try_from(len).unwrap_or(usize::MAX)));
        &self.bytes[within..end]
    }

    /// Average length of a message in bytes.
    pub(crate) fn message_len(&self) -> f64 {
        self.len() as f64 / self.variants() as f64
    }

    /// Compares `bytes` with the stream at a position. Returns the position of the first difference, if any.
    pub(crate) fn compare(&self, position: u64, bytes: &[u8]) -> Result<(), Range<usize>> {
        let mut done = 0;
        while done < bytes.len() {
            let expected = self.at(position + done as u64, (bytes.len() - done) as u64);
            let found = &bytes[done..done + expected.len()];
            if expected != found {
                let wrong = expected
                    .iter()
                    .zip(found)
                    .take_while(|(one, other)| one == other)
                    .count();
                return Err(done + wrong..bytes.len());
            }
            done += expected.len();
        }
        Ok(())
    }

    /// The length of a round.
    fn len(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::Cycle;

    fn cycle(burst: usize) -> Cycle {
        Cycle::new(&[b"abc".to_vec(), b"d".to_vec(), b"ef".to_vec()], burst)
    }

    #[test]
    fn a_burst_leaves_in_one_piece_wherever_it_begins() {
        let cycle = cycle(3);
        for message in 0..9 {
            let (start, end) = (cycle.start(message), cycle.start(message + 3));
            assert_eq!(cycle.at(start, end - start).len() as u64, end - start);
        }
        assert_eq!(cycle.at(cycle.start(5), 6), b"efabcd");
    }

    #[test]
    fn positions_and_messages_agree() {
        let cycle = cycle(1);
        assert_eq!(
            (0..8).map(|idx| cycle.start(idx)).collect::<Vec<_>>(),
            [0, 3, 4, 6, 9, 10, 12, 15]
        );
        assert_eq!(
            (0..8).map(|at| cycle.ended(at)).collect::<Vec<_>>(),
            [0, 0, 0, 1, 2, 2, 3, 3]
        );
    }

    #[test]
    fn a_wrong_byte_is_found_across_rounds() {
        let cycle = cycle(1);
        assert_eq!(cycle.compare(2, b"cdefabcdefa"), Ok(()));
        assert_eq!(cycle.compare(2, b"cdefabXdefa"), Err(6..11));
    }
}
