//! Checks the bytes that a connection receives.

use anyhow::{Result, bail, ensure};

use crate::{
    plan::Verify,
    script::{Cycle, Replies, Script},
    transport::{Received, Room, Transport},
    wire::{COMPRESSED, Inflater},
};

/// Receive state that all connections of a run share.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) room: Room,
    verify: Verify,
    /// Reads, or framed messages, since the last one that was compared.
    unseen: u32,
    inflater: Inflater,
    /// Bytes of all replies.
    pub(crate) bytes: u64,
    /// Number of replies that were compared.
    pub(crate) verified: u64,
}

/// The replies of one connection.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// The exact expected stream, and the position in it.
    Bytes { position: u64 },
    /// Frames of unknown length, and the number of messages that have ended.
    Frames { ended: u64, frames: Frames },
}

/// Splits a byte stream into frames, wherever reads cut it.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: Vec<u8>,
    /// Bytes of the payload still to come; `None` while the header is incomplete.
    remaining: Option<u64>,
    /// The first byte of the message's first frame.
    first: Option<u8>,
    payload: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(verify: Verify) -> Self {
        Self {
            room: Room::new(),
            verify,
            unseen: 0,
            inflater: Inflater::new(),
            bytes: 0,
            verified: 0,
        }
    }

    /// Whether this reply is one of those to compare.
    fn looks(&mut self) -> bool {
        match self.verify {
            Verify::All => true,
            Verify::OneIn(count) => {
                self.unseen += 1;
                let looks = self.unseen >= count;
                if looks {
                    self.unseen = 0;
                }
                looks
            }
        }
    }
}

impl Inbound {
    /// Expects the replies to all messages from `first` on.
    pub(crate) fn new(script: &Script, first: u64) -> Self {
        match &script.replies {
            Replies::Bytes(cycle) => Self::Bytes {
                position: cycle.start(first),
            },
            Replies::Compressed { .. } => Self::Frames {
                ended: first,
                frames: Frames::default(),
            },
        }
    }

    /// Number of messages that have ended, counted from the start of the script.
    pub(crate) fn ended(&self, script: &Script) -> u64 {
        match (self, &script.replies) {
            (Self::Bytes { position }, Replies::Bytes(cycle)) => cycle.ended(*position),
            (Self::Frames { ended, .. }, _) => *ended,
            (Self::Bytes { .. }, Replies::Compressed { .. }) => 0,
        }
    }

    /// Consumes everything that has arrived. Fails if it is not what was expected, or if it continues past message
    /// `end`.
    pub(crate) fn receive(
        &mut self,
        transport: &mut Transport,
        script: &Script,
        end: u64,
        reader: &mut Reader,
    ) -> Result<()> {
        match (self, &script.replies) {
            (Self::Bytes { position }, Replies::Bytes(cycle)) => receive_bytes(position, transport, cycle, end, reader),
            (Self::Frames { ended, frames }, Replies::Compressed { payloads, first }) => {
                let known = Known {
                    payloads,
                    first: *first,
                    end,
                };
                receive_frames(ended, frames, transport, &known, reader)
            }
            _ => bail!("a connection of another script"),
        }
    }
}

fn receive_bytes(
    position: &mut u64,
    transport: &mut Transport,
    cycle: &Cycle,
    end: u64,
    reader: &mut Reader,
) -> Result<()> {
    loop {
        let looks = reader.looks();
        let received = if looks {
            transport.receive(&mut reader.room)?
        } else {
            transport.discard(&mut reader.room)?
        };
        let (Received::Some(len) | Received::Last(len)) = received;
        if looks {
            let bytes = &reader.room.seen[..len];
            if let Err(wrong) = cycle.compare(*position, bytes) {
                let at = *position + wrong.start as u64;
                let found = &bytes[wrong];
                bail!(
                    "wrong bytes in reply {}: expected {:02x?}.., found {:02x?}..",
                    cycle.ended(at),
                    &cycle.at(at, 16),
                    &found[..found.len().min(16)]
                );
            }
            reader.verified += cycle.ended(*position + len as u64) - cycle.ended(*position);
        }
        reader.bytes += len as u64;
        *position += len as u64;
        ensure!(
            *position <= cycle.start(end),
            "received {} bytes more than expected (more came back than was sent)",
            *position - cycle.start(end)
        );
        if let Received::Last(_) = received {
            return Ok(());
        }
    }
}

/// The expected content of compressed replies.
struct Known<'a> {
    payloads: &'a [Vec<u8>],
    first: u8,
    /// Messages up to this one.
    end: u64,
}

fn receive_frames(
    ended: &mut u64,
    frames: &mut Frames,
    transport: &mut Transport,
    known: &Known<'_>,
    reader: &mut Reader,
) -> Result<()> {
    loop {
        let received = transport.receive(&mut reader.room)?;
        let (Received::Some(len) | Received::Last(len)) = received;
        reader.bytes += len as u64;
        let mut at = 0;
        while let Some((first, compressed)) = frames.next(&reader.room.seen[..len], &mut at)? {
            ensure!(*ended < known.end, "more came back than was sent");
            let expected = &known.payloads[(*ended % known.payloads.len() as u64) as usize];
            ensure!(
                first & !COMPRESSED == known.first,
                "a reply of another kind: its first byte is {first:#04x}"
            );
            *ended += 1;
            // Same as `looks`, which cannot be called here because `self` is partly borrowed.
            reader.unseen += 1;
            if let Verify::OneIn(count) = reader.verify
                && reader.unseen < count
            {
                continue;
            }
            reader.unseen = 0;
            let payload = if first & COMPRESSED == 0 {
                compressed
            } else {
                reader.inflater.inflate(compressed, expected.len())?
            };
            ensure!(payload == expected, "a reply is not what was sent");
            reader.verified += 1;
        }
        if let Received::Last(_) = received {
            return Ok(());
        }
    }
}

impl Frames {
    /// Returns the next whole message in `bytes` from `at` on: its first byte, and its payload as sent.
    pub(crate) fn next(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<(u8, &[u8])>> {
        loop {
            let Some(remaining) = self.remaining else {
                if !self.take_header(bytes, at)? {
                    return Ok(None);
                }
                continue;
            };
            let len = (bytes.len() - *at).min(usize::try_from(remaining)?);
            self.payload.extend(&bytes[*at..*at + len]);
            *at += len;
            self.remaining = Some(remaining - len as u64);
            if remaining > len as u64 {
                return Ok(None);
            }
            let is_final = self.header[0] & 0x80 != 0;
            self.header.clear();
            self.remaining = None;
            if is_final && let Some(first) = self.first.take() {
                return Ok(Some((first | 0x80, &self.payload)));
            }
        }
    }

    /// Whether the header is complete.
    fn take_header(&mut self, bytes: &[u8], at: &mut usize) -> Result<bool> {
        loop {
            let wanted = match self.header.get(1) {
                None => 2,
                Some(126) => 4,
                Some(127) => 10,
                Some(len) => {
                    ensure!(len & 0x80 == 0, "a server's frame is masked");
                    2
                }
            };
            if self.header.len() == wanted {
                break;
            }
            let Some(byte) = bytes.get(*at) else {
                return Ok(false);
            };
            self.header.push(*byte);
            *at += 1;
        }
        let len = match self.header[2..] {
            [] => u64::from(self.header[1]),
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            _ => self.header[2..].iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        // Far larger than any message that is sent.
        ensure!(len <= 1 << 30, "a frame of {len} bytes");
        let first = self.header[0];
        match (first & 0x0f, self.first) {
            (1 | 2, None) => {
                self.first = Some(first);
                self.payload.clear();
            }
            (0, Some(_)) => {}
            _ => bail!("unexpected frame with first byte {first:#04x}"),
        }
        self.remaining = Some(len);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;
    use crate::wire::{TEXT, server_frame};

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let mut stream = server_frame(TEXT, b"one");
        // In two fragments.
        stream.extend([0x01, 2, b't', b'w', 0x80, 1, b'o']);
        stream.extend(server_frame(TEXT, &[b'x'; 200]));
        stream.extend(server_frame(TEXT, b""));
        for step in 1..stream.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for bytes in stream.chunks(step) {
                let mut at = 0;
                while let Some((first, payload)) = frames.next(bytes, &mut at).expect("these are frames") {
                    assert_eq!(first, TEXT);
                    found.push(payload.len());
                }
            }
            assert_eq!(found, [3, 3, 200, 0], "in steps of {step}");
        }
    }

    #[test]
    fn what_no_reply_is_fails() {
        for bytes in [&[0x81, 0x85][..], &[0x89, 0], &[0x80, 0], &[0x88, 0]] {
            assert!(Frames::default().next(bytes, &mut 0).is_err(), "{bytes:02x?}");
        }
    }
}
