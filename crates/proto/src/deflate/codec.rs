//! One message through zlib, within bounds (RFC 7692 §7.2).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use zlib_rs::{Deflate, DeflateConfig as ZlibConfig, DeflateFlush, Inflate, InflateFlush, Status};

use super::window::Window;
use super::{DeflateConfig, WindowBits};
use crate::connection::Fragment;
use crate::grow::grow;
use crate::protocol_error::ProtocolError;

/// RFC 7692 §7.2.1, §7.2.2: what ends a flushed block is cut off by the sender and put back by the receiver.
// [7692-7.2.1-2, 7692-7.2.2-1]
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The tail, and behind it a final empty block: only a message that ends where a block ends comes to its end.
const TAIL_AND_END: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// How much of a message is compressed before it shows whether the rest is worth it: what does not get smaller takes
/// four times as long as text does, a millisecond for this much.
const PROBED: usize = 64 * 1024;

/// The least room that a codec is given to compress into.
const ROOM_MIN: usize = 1024;

/// The most room that a pooled codec keeps.
const OUT_KEPT_MAX: usize = 256 * 1024;

/// Inflated at once, so that the limit is looked at often enough: a bomb swells about a thousandfold.
const STEP: usize = 16 * 1024;

/// How many final blocks (BFINAL=1) a message may have, and how many more for each KiB of it: after each, a new codec has
/// to be primed.
const FINAL_BLOCKS: usize = 8;
const FINAL_BLOCKS_PER_KIB: usize = 4;

/// Where connections borrow their codecs from and give them back to: two pairs of functions over a pool of the
/// caller's, of its thread for example.
///
/// What `take_*` gives may be new or used; it is primed anew for each message.
#[derive(Clone, Copy, Debug)]
pub struct Codecs {
    /// Gives a codec that compresses as configured.
    pub take_deflater: fn(&DeflateConfig) -> Box<Deflater>,
    /// Takes one back.
    pub give_deflater: fn(Box<Deflater>),
    /// Gives a codec that inflates.
    pub take_inflater: fn() -> Box<Inflater>,
    /// Takes one back.
    pub give_inflater: fn(Box<Inflater>),
}

impl Codecs {
    /// No pool: each message gets a new codec, which is freed after it.
    pub const UNPOOLED: Self = Self {
        take_deflater: |config| Box::new(Deflater::new(config)),
        give_deflater: drop,
        take_inflater: || Box::new(Inflater::new()),
        give_inflater: drop,
    };

    /// A codec that compresses as configured. None does with the smallest window: zlib cannot keep within 256 bytes,
    /// and a message that is not compressed is always legal (RFC 7692 §6).
    pub(super) fn deflater(self, config: &DeflateConfig) -> Option<Box<Deflater>> {
        (config.window_bits > WindowBits::MIN).then(|| (self.take_deflater)(config))
    }

    pub(super) fn give_back(self, mut deflater: Box<Deflater>) {
        deflater.trim();
        (self.give_deflater)(deflater);
    }
}

/// Has `send` take the compressed payload of a message that may refer back to `dictionary`; `None` if the message is
/// better sent as it is.
pub(crate) fn compress<R>(
    config: &DeflateConfig,
    codecs: Codecs,
    dictionary: &[u8],
    message: &[u8],
    send: impl FnOnce(&[u8]) -> R,
) -> Option<R> {
    let mut deflater = codecs.deflater(config)?;
    let sent = deflater
        .compress(dictionary, message)
        .filter(|payload| payload.len() < message.len() || message.is_empty())
        .map(send);
    codecs.give_back(deflater);
    sent
}

/// Compresses messages, for any number of connections with the same level, memory level and window.
pub struct Deflater {
    zlib: Deflate,
    /// Level, memory level, window bits.
    settings: (u8, u8, u8),
    /// Where the payload is made; its length is room, not content.
    out: Vec<u8>,
}

impl Deflater {
    /// A codec for this configuration. Allocates about 270 KiB with the largest window and memory level 8.
    pub fn new(config: &DeflateConfig) -> Self {
        let settings = Self::settings(config);
        let (level, memory_level, window_bits) = settings;
        let zlib = Deflate::new_with_config(ZlibConfig {
            level: i32::from(level),
            mem_level: i32::from(memory_level),
            // Negative: raw deflate, without a header of zlib's. [7692-7.2.1-1]
            window_bits: -i32::from(window_bits),
            ..ZlibConfig::default()
        });
        Self {
            zlib,
            settings,
            out: Vec::new(),
        }
    }

    /// Whether this codec is made for such a configuration.
    pub fn fits(&self, config: &DeflateConfig) -> bool {
        self.settings == Self::settings(config)
    }

    fn settings(config: &DeflateConfig) -> (u8, u8, u8) {
        // zlib knows no window of 8 bits: it would make one of 9 without a word.
        (
            config.level.clamp(1, 9),
            config.memory_level.clamp(1, 9),
            config.window_bits.bits().max(9),
        )
    }

    /// Compresses a message that may refer back to `dictionary`: the payload to send, without the tail. `None` if the
    /// codec failed, or a large message did not get smaller where it begins, which leaves it to be sent as it is.
    pub(super) fn compress(&mut self, dictionary: &[u8], message: &[u8]) -> Option<&[u8]> {
        self.begin(dictionary)?;
        let (probed, rest) = message.split_at(message.len().min(PROBED));
        let mut end = self.append(probed, 0)?;
        if !rest.is_empty() {
            if end >= probed.len() {
                return None;
            }
            end = self.append(rest, end)?;
        }
        // §7.2.3.6: of an empty message one byte remains, the header of the empty block. [7692-7.2.3.6-1]
        self.out[..end].strip_suffix(&TAIL)
    }

    /// Begins with a message that may refer back to `dictionary`, to be compressed in parts.
    pub(super) fn begin(&mut self, dictionary: &[u8]) -> Option<()> {
        self.zlib.reset();
        if !dictionary.is_empty() {
            self.zlib.set_dictionary(dictionary).ok()?;
        }
        Some(())
    }

    /// Compresses the next part of a message: the payload of a fragment. `None` if the codec failed.
    pub(super) fn compress_part(&mut self, part: &[u8], fragment: Fragment) -> Option<&[u8]> {
        let end = self.append(part, 0)?;
        let payload = &self.out[..end];
        match fragment {
            // [7692-7.2.1-7]
            Fragment::More => Some(payload),
            // Behind a flush, the codec has nothing to say of nothing: an empty block, as of an empty message.
            Fragment::Last if payload.is_empty() => Some(&[0x00]),
            Fragment::Last => payload.strip_suffix(&TAIL),
        }
    }

    /// Compresses some bytes to behind the first `end` of `out`, and flushes; says where they end there.
    fn append(&mut self, mut bytes: &[u8], mut end: usize) -> Option<usize> {
        loop {
            if self.out.len() - end < ROOM_MIN {
                self.out.resize(end + ROOM_MIN + bytes.len() / 2, 0);
            }
            let (total_in, total_out) = (self.zlib.total_in(), self.zlib.total_out());
            // A flush ends at a byte boundary, with an empty stored block (§7.2.1). [7692-7.2.1-2, 7692-7.2.1-5]
            let status = self.zlib.compress(bytes, &mut self.out[end..], DeflateFlush::SyncFlush);
            status.ok()?;
            bytes = &bytes[(self.zlib.total_in() - total_in) as usize..];
            end += (self.zlib.total_out() - total_out) as usize;
            // Room that is left means that the flush is complete.
            if end < self.out.len() {
                return Some(end);
            }
        }
    }

    /// Frees what a large message left behind, before the codec is kept for others.
    fn trim(&mut self) {
        if self.out.len() > OUT_KEPT_MAX {
            self.out = Vec::new();
        }
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Inflates messages of any connection, whatever window they were compressed with.
// [7692-7.2.2-3]
pub struct Inflater {
    zlib: Inflate,
    step: Box<[u8]>,
}

/// How far the inflating of a message has come.
#[derive(Debug)]
pub(super) struct Inflation {
    message: Vec<u8>,
    /// How many bytes of the payload, and of the tail behind it, are used.
    used: usize,
    size_max: u64,
    final_blocks_left: usize,
}

impl Inflater {
    /// A codec. Allocates about 64 KiB.
    pub fn new() -> Self {
        Self {
            zlib: Inflate::new(false, 15),
            step: alloc::vec![0; STEP].into_boxed_slice(),
        }
    }

    /// Begins with a message that may refer back to `dictionary` and inflates to at most `size_max` bytes.
    pub(super) fn begin(
        &mut self,
        dictionary: &[u8],
        payload_len: usize,
        size_max: u64,
    ) -> Result<Inflation, ProtocolError> {
        self.prime(dictionary)?;
        Ok(Inflation {
            message: Vec::new(),
            used: 0,
            size_max,
            final_blocks_left: FINAL_BLOCKS + payload_len * FINAL_BLOCKS_PER_KIB / 1024,
        })
    }

    /// Goes on with a message, until it is whole or so much is done; `true` if it is whole.
    pub(super) fn advance(
        &mut self,
        inflation: &mut Inflation,
        dictionary: &[u8],
        payload: &[u8],
        at_once: usize,
    ) -> Result<bool, ProtocolError> {
        let mut left = at_once;
        loop {
            let rest = match payload.get(inflation.used..) {
                Some(rest @ [_, ..]) => rest,
                // [7692-7.2.2-1]
                _ => &TAIL_AND_END[inflation.used - payload.len()..],
            };
            let (total_in, total_out) = (self.zlib.total_in(), self.zlib.total_out());
            let status = self.zlib.decompress(rest, &mut self.step, InflateFlush::NoFlush);
            let taken = (self.zlib.total_in() - total_in) as usize;
            let given = &self.step[..(self.zlib.total_out() - total_out) as usize];
            inflation.used += taken;
            inflation.append(given)?;
            let mut cost = taken.max(given.len());
            match status {
                Ok(Status::StreamEnd) if inflation.used == payload.len() + TAIL_AND_END.len() => return Ok(true),
                // §7.2.3.4: a final block ends a stream of zlib's, not the message. [7692-7.2.1-6]
                Ok(Status::StreamEnd) if inflation.used <= payload.len() => {
                    inflation.count_final_block()?;
                    self.prime_after(dictionary, &inflation.message)?;
                    cost += WindowBits::MAX.size();
                }
                // Within the tail, the payload did not end where a block does; and what neither takes nor gives would
                // go on for ever.
                Err(_) | Ok(Status::StreamEnd) => return Err(ProtocolError::InvalidDeflate),
                Ok(_) if cost == 0 => return Err(ProtocolError::InvalidDeflate),
                Ok(_) => {}
            }
            left = left.saturating_sub(cost);
            if left == 0 {
                return Ok(false);
            }
        }
    }

    fn prime(&mut self, dictionary: &[u8]) -> Result<(), ProtocolError> {
        self.zlib.reset(false);
        if dictionary.is_empty() {
            return Ok(());
        }
        self.zlib
            .set_dictionary(dictionary)
            .map(drop)
            .map_err(|_| ProtocolError::InvalidDeflate)
    }

    /// Primes for the rest of a message, which may refer back to its beginning.
    fn prime_after(&mut self, dictionary: &[u8], message: &[u8]) -> Result<(), ProtocolError> {
        let mut window = Window::default();
        window.push(dictionary, WindowBits::MAX);
        window.push(message, WindowBits::MAX);
        self.prime(window.as_slice())
    }
}

impl Inflation {
    /// The message, when it is whole.
    pub(super) fn into_message(mut self) -> Vec<u8> {
        if self.message.capacity() / 2 > self.message.len() {
            self.message.shrink_to_fit();
        }
        self.message
    }

    /// How many bytes of memory it holds.
    pub(super) fn held_len(&self) -> usize {
        self.message.capacity()
    }

    fn count_final_block(&mut self) -> Result<(), ProtocolError> {
        self.final_blocks_left = self
            .final_blocks_left
            .checked_sub(1)
            .ok_or(ProtocolError::TooManyFinalBlocks)?;
        Ok(())
    }

    /// Appends inflated bytes, unless that goes beyond the limit; never reserves beyond it either.
    // [6455-10.4-1]
    fn append(&mut self, given: &[u8]) -> Result<(), ProtocolError> {
        let Self { message, size_max, .. } = self;
        let left = usize::try_from(*size_max)
            .unwrap_or(usize::MAX)
            .saturating_sub(message.len());
        if given.len() > left {
            return Err(ProtocolError::MessageTooBig);
        }
        if message.capacity() - message.len() < given.len() {
            grow(message, given.len(), left);
        }
        message.extend_from_slice(given);
        Ok(())
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const LIMIT: u64 = 1 << 20;

    /// Inflates a message whole, so much at a time.
    fn inflate(
        inflater: &mut Inflater,
        dictionary: &[u8],
        payload: &[u8],
        at_once: usize,
    ) -> Result<Vec<u8>, ProtocolError> {
        let mut inflation = inflater.begin(dictionary, payload.len(), LIMIT)?;
        while !inflater.advance(&mut inflation, dictionary, payload, at_once)? {}
        Ok(inflation.into_message())
    }

    #[track_caller]
    fn check_inflate(dictionary: &[u8], payload: &[u8], expected: Result<&[u8], ProtocolError>) {
        let mut inflater = Inflater::new();
        // One after the other, for a codec is used again whatever became of the message before.
        for at_once in [usize::MAX, 1] {
            let inflated = inflate(&mut inflater, dictionary, payload, at_once);
            assert_eq!(inflated.as_deref().map_err(|fault| *fault), expected);
        }
    }

    #[test]
    fn the_examples_of_rfc_7692_section_7_2_3_are_inflated() {
        // checks [7692-7.2.1-5, 7692-7.2.1-6, 7692-7.2.2-1, 7692-7.2.3.6-1]
        let hello = Ok(b"Hello".as_slice());
        check_inflate(b"", &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], hello); // one block
        check_inflate(b"Hello", &[0xf2, 0x00, 0x11, 0x00, 0x00], hello); // with the window of the message before
        check_inflate(
            b"",
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            hello,
        ); // stored
        check_inflate(b"", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], hello); // a final block
        check_inflate(
            b"",
            &[
                0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
            ],
            hello,
        ); // two blocks
        check_inflate(b"", &[0x00], Ok(b"")); // empty
        let final_twice = [&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..]; 2].concat();
        check_inflate(b"", &[&final_twice[..], &[0x00]].concat(), Ok(b"HelloHello")); // two final blocks
    }

    #[test]
    fn the_example_is_what_is_sent() {
        // checks [7692-7.2.1-1, 7692-7.2.1-2, 7692-7.2.3.6-1]
        let mut deflater = Deflater::new(&DeflateConfig::default());
        assert_eq!(
            deflater.compress(b"", b"Hello"),
            Some(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..])
        );
        assert_eq!(deflater.compress(b"", b""), Some(&[0x00][..]));
    }

    #[test]
    fn broken_streams_are_faults_and_end() {
        let invalid = Err(ProtocolError::InvalidDeflate);
        check_inflate(b"", b"", invalid); // not even the header of a block
        check_inflate(b"", &[0xff], invalid); // reserved block type
        check_inflate(b"", &[0xf2, 0x48, 0xcd], invalid); // cut within a block
        check_inflate(b"", &[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48], invalid); // stored length and its complement differ
        check_inflate(b"", &[0xf2, 0x00, 0x11, 0x00, 0x00], invalid); // refers to a window that is not there
        check_inflate(b"", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xff], invalid); // rubbish after a final block
    }

    #[test]
    fn final_blocks_without_end_are_refused() {
        // 03 00 is a final block with nothing in it, each one costs a new codec; and the 00 that a valid message ends with.
        let mut payload = [0x03, 0x00].repeat(100_000);
        payload.push(0x00);
        check_inflate(b"", &payload, Err(ProtocolError::TooManyFinalBlocks));
    }

    #[test]
    fn a_bomb_costs_the_limit_and_no_more() {
        // checks [6455-10.4-1]
        let zeros = vec![0; 8 << 20];
        let mut deflater = Deflater::new(&DeflateConfig {
            level: 9,
            ..DeflateConfig::default()
        });
        let bomb = deflater.compress(b"", &zeros).map(<[u8]>::to_vec).expect("compresses");
        assert!(bomb.len() < zeros.len() / 1000);
        let inflated = inflate(&mut Inflater::new(), b"", &bomb, usize::MAX);
        assert_eq!(inflated, Err(ProtocolError::MessageTooBig));

        for len in [LIMIT - 1, LIMIT, LIMIT + 1] {
            let payload = deflater
                .compress(b"", &zeros[..len as usize])
                .map(<[u8]>::to_vec)
                .expect("compresses");
            let inflated = inflate(&mut Inflater::new(), b"", &payload, usize::MAX);
            match inflated {
                Ok(message) => assert!(len <= LIMIT && message.capacity() as u64 <= LIMIT),
                Err(fault) => assert!(len > LIMIT && fault == ProtocolError::MessageTooBig),
            }
        }
    }

    #[test]
    fn what_is_compressed_is_inflated_at_every_size_and_level() {
        let noise: Vec<u8> = (0_u32..100_000)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let text = b"{\"price\":1024.5,\"symbol\":\"SOCK\"}".repeat(3000);
        let both = [&text[..PROBED], &noise].concat();
        let mut inflater = Inflater::new();
        for level in [1, 4, 6, 9] {
            for bits in [9, 12, 15] {
                let config = DeflateConfig {
                    level,
                    window_bits: WindowBits::new(bits).expect("8 to 15"),
                    ..DeflateConfig::default()
                };
                let mut deflater = Deflater::new(&config);
                for data in [&noise, &text, &both] {
                    for len in [0, 1, 127, 1024, 16 * 1024, 70_000, data.len()] {
                        let message = &data[..len];
                        let Some(payload) = deflater.compress(b"", message) else {
                            assert!(len > PROBED && data == &noise, "{len} bytes at level {level}");
                            continue;
                        };
                        let inflated = inflate(&mut inflater, b"", payload, 20_000);
                        assert_eq!(inflated.as_deref(), Ok(message));
                    }
                }
            }
        }
    }
}
