//! Compresses and inflates single messages with zlib, within limits (RFC 7692 §7.2).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use zlib_rs::{Deflate, DeflateConfig as ZlibConfig, DeflateFlush, Inflate, InflateFlush, Status};

use super::window::Window;
use super::{DeflateConfig, WindowBits};
use crate::grow::grow;
use crate::message::Fragment;
use crate::protocol_error::ProtocolError;

/// The end of a flushed block, which the sender removes and the receiver appends (RFC 7692 §7.2.1, §7.2.2).
// [7692-7.2.1-2, 7692-7.2.2-1]
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The tail followed by an empty final block. zlib reports the end of the stream only if the message ended at a block
/// boundary, so this detects truncated messages.
const TAIL_AND_END: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// Length of the prefix of a message, in bytes, that decides whether the message is compressed. Compressing
/// incompressible data takes four times as long as text: 1 ms for this length.
const PROBE_LEN: usize = 64 * 1024;

/// Minimum free space in the output buffer for one zlib call, in bytes.
const OUT_SPACE_MIN: usize = 1024;

/// Maximum size of the output buffer of a pooled codec, in bytes. A larger one is freed.
const OUT_RETAINED_MAX: usize = 256 * 1024;

/// Bytes inflated between two checks of the size limit. A decompression bomb expands about 1000 times, so this must be
/// small.
const STEP: usize = 16 * 1024;

/// Number of final blocks (BFINAL=1) allowed per message, plus the number allowed per KiB of payload. The codec must be
/// reset and its dictionary reloaded after each.
const FINAL_BLOCKS: usize = 8;
const FINAL_BLOCKS_PER_KIB: usize = 4;

/// Functions with which connections borrow and return codecs.
///
/// Typically backed by a thread-local pool of the caller. Codecs may be new or used: a connection resets a codec before
/// each message.
#[derive(Clone, Copy, Debug)]
pub struct CodecPool {
    /// Returns a codec that compresses with the given configuration (see [`Deflater::fits`]).
    pub take_deflater: fn(&DeflateConfig) -> Box<Deflater>,
    /// Takes back a codec from `take_deflater`.
    pub return_deflater: fn(Box<Deflater>),
    /// Returns a codec that inflates.
    pub take_inflater: fn() -> Box<Inflater>,
    /// Takes back a codec from `take_inflater`.
    pub return_inflater: fn(Box<Inflater>),
}

impl CodecPool {
    /// Allocates a new codec for each message and frees it afterwards.
    pub const UNPOOLED: Self = Self {
        take_deflater: |config| Box::new(Deflater::new(config)),
        return_deflater: drop,
        take_inflater: || Box::new(Inflater::new()),
        return_inflater: drop,
    };

    /// Returns a codec for the configuration, or `None` for a window of 256 bytes, which zlib does not support. Sending
    /// messages uncompressed is always legal (RFC 7692 §6).
    pub(super) fn deflater(self, config: &DeflateConfig) -> Option<Box<Deflater>> {
        (config.window_bits > WindowBits::MIN).then(|| (self.take_deflater)(config))
    }

    pub(super) fn recycle_deflater(self, mut deflater: Box<Deflater>) {
        deflater.trim();
        (self.return_deflater)(deflater);
    }
}

/// Compresses a message that may refer back to `dictionary` and passes the payload to `send`. Returns `None` if
/// compression does not make the message smaller.
pub(crate) fn compress<R>(
    config: &DeflateConfig,
    codecs: CodecPool,
    dictionary: &[u8],
    message: &[u8],
    send: impl FnOnce(&[u8]) -> R,
) -> Option<R> {
    let mut deflater = codecs.deflater(config)?;
    let sent = deflater
        .compress(dictionary, message)
        .filter(|payload| payload.len() < message.len() || message.is_empty())
        .map(send);
    codecs.recycle_deflater(deflater);
    sent
}

/// A compressor. Can be shared, one message at a time, by connections with the same level, memory level and window.
pub struct Deflater {
    zlib: Deflate,
    /// Level, memory level, window bits.
    settings: (u8, u8, u8),
    /// Output buffer. Its length is available space, not content.
    out: Vec<u8>,
}

impl Deflater {
    /// Creates a compressor for this configuration. Allocates 371 KiB with the largest window and memory level 8.
    pub fn new(config: &DeflateConfig) -> Self {
        let settings = Self::settings(config);
        let (level, memory_level, window_bits) = settings;
        let zlib = Deflate::new_with_config(ZlibConfig {
            level: i32::from(level),
            mem_level: i32::from(memory_level),
            // Negative selects raw DEFLATE without a zlib header. [7692-7.2.1-1]
            window_bits: -i32::from(window_bits),
            ..ZlibConfig::default()
        });
        Self {
            zlib,
            settings,
            out: Vec::new(),
        }
    }

    /// Whether this compressor can be used with `config`: level, memory level and window size are the same.
    pub fn fits(&self, config: &DeflateConfig) -> bool {
        self.settings == Self::settings(config)
    }

    fn settings(config: &DeflateConfig) -> (u8, u8, u8) {
        // zlib silently replaces a window of 8 bits by 9 bits; make that explicit.
        (
            config.level.clamp(1, 9),
            config.memory_level.clamp(1, 9),
            config.window_bits.bits().max(9),
        )
    }

    /// Compresses a message that may refer back to `dictionary`. Returns the payload without the tail, or `None` if the
    /// codec failed or the first [`PROBE_LEN`] bytes of a longer message did not get smaller.
    pub(super) fn compress(&mut self, dictionary: &[u8], message: &[u8]) -> Option<&[u8]> {
        self.begin(dictionary)?;
        let (probe, rest) = message.split_at(message.len().min(PROBE_LEN));
        let mut end = self.append(probe, 0)?;
        if !rest.is_empty() {
            if end >= probe.len() {
                return None;
            }
            end = self.append(rest, end)?;
        }
        // §7.2.3.6: an empty message becomes one byte, the header of an empty block. [7692-7.2.3.6-1]
        self.out[..end].strip_suffix(&TAIL)
    }

    /// Starts a message that may refer back to `dictionary`.
    pub(super) fn begin(&mut self, dictionary: &[u8]) -> Option<()> {
        self.zlib.reset();
        if !dictionary.is_empty() {
            self.zlib.set_dictionary(dictionary).ok()?;
        }
        Some(())
    }

    /// Compresses the next part of a message. Returns the payload of the fragment, or `None` if the codec failed.
    pub(super) fn compress_part(&mut self, part: &[u8], fragment: Fragment) -> Option<&[u8]> {
        let end = self.append(part, 0)?;
        let payload = &self.out[..end];
        match fragment {
            // [7692-7.2.1-7]
            Fragment::More => Some(payload),
            // zlib writes nothing for an empty part after a flush. Send an empty block, as for an empty message.
            Fragment::Last if payload.is_empty() => Some(&[0x00]),
            Fragment::Last => payload.strip_suffix(&TAIL),
        }
    }

    /// Compresses `bytes` into `out[end..]` and flushes. Returns the new end.
    fn append(&mut self, mut bytes: &[u8], mut end: usize) -> Option<usize> {
        loop {
            if self.out.len() - end < OUT_SPACE_MIN {
                self.out.resize(end + OUT_SPACE_MIN + bytes.len() / 2, 0);
            }
            let (total_in, total_out) = (self.zlib.total_in(), self.zlib.total_out());
            // A flush ends at a byte boundary, with an empty stored block (§7.2.1). [7692-7.2.1-2, 7692-7.2.1-5]
            let status = self.zlib.compress(bytes, &mut self.out[end..], DeflateFlush::SyncFlush);
            status.ok()?;
            bytes = &bytes[(self.zlib.total_in() - total_in) as usize..];
            end += (self.zlib.total_out() - total_out) as usize;
            // The flush is complete if output space is left.
            if end < self.out.len() {
                return Some(end);
            }
        }
    }

    /// Frees an output buffer that grew for a large message, before the codec goes back to the pool.
    fn trim(&mut self) {
        if self.out.len() > OUT_RETAINED_MAX {
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

/// A decompressor for messages of any connection and any window size.
// [7692-7.2.2-3]
pub struct Inflater {
    zlib: Inflate,
    step: Box<[u8]>,
}

/// State of a message being inflated.
#[derive(Debug)]
pub(super) struct Inflation {
    message: Vec<u8>,
    /// Bytes consumed of the payload and of the appended tail.
    used: usize,
    size_max: u64,
    final_blocks_left: usize,
}

/// State of a message that is inflated while it arrives.
#[derive(Debug)]
pub(super) struct StreamInflation {
    /// What the rest of the message may refer back to, also after a final block.
    window: Window,
    /// Bytes consumed of the current input, and of the tail behind the last one.
    used: usize,
    /// The length of the chunk in the codec's buffer.
    output_len: usize,
    /// Payload bytes of the inputs before the current one.
    payload_len: u64,
    final_blocks: u64,
}

impl StreamInflation {
    pub(super) fn window(&self) -> &[u8] {
        self.window.as_slice()
    }

    pub(super) fn output_len(&self) -> usize {
        self.output_len
    }

    fn count_final_block(&mut self, input_len: usize) -> Result<(), ProtocolError> {
        self.final_blocks += 1;
        let payload_len = self.payload_len + input_len as u64;
        match self.final_blocks > FINAL_BLOCKS as u64 + payload_len * FINAL_BLOCKS_PER_KIB as u64 / 1024 {
            true => Err(ProtocolError::TooManyFinalBlocks),
            false => Ok(()),
        }
    }
}

impl Inflater {
    /// Creates a decompressor. Allocates 62 KiB, of which 16 KiB are the buffer of one step.
    pub fn new() -> Self {
        Self {
            zlib: Inflate::new(false, 15),
            step: alloc::vec![0; STEP].into_boxed_slice(),
        }
    }

    /// Starts a message that may refer back to `dictionary` and inflates to at most `size_max` bytes.
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

    /// Continues with a message until it is complete or about `step_max` bytes were processed. Returns whether it is
    /// complete.
    pub(super) fn advance(
        &mut self,
        inflation: &mut Inflation,
        dictionary: &[u8],
        payload: &[u8],
        step_max: usize,
    ) -> Result<bool, ProtocolError> {
        let mut budget = step_max;
        loop {
            let rest = match payload.get(inflation.used..) {
                Some(rest @ [_, ..]) => rest,
                // [7692-7.2.2-1]
                _ => &TAIL_AND_END[inflation.used - payload.len()..],
            };
            let (total_in, total_out) = (self.zlib.total_in(), self.zlib.total_out());
            let status = self.zlib.decompress(rest, &mut self.step, InflateFlush::NoFlush);
            let taken = (self.zlib.total_in() - total_in) as usize;
            let output = &self.step[..(self.zlib.total_out() - total_out) as usize];
            inflation.used += taken;
            inflation.append(output)?;
            let mut cost = taken.max(output.len());
            match status {
                Ok(Status::StreamEnd) if inflation.used == payload.len() + TAIL_AND_END.len() => return Ok(true),
                // §7.2.3.4: a final block ends the zlib stream, not the message. [7692-7.2.1-6]
                Ok(Status::StreamEnd) if inflation.used <= payload.len() => {
                    inflation.count_final_block()?;
                    self.prime_after(dictionary, &inflation.message)?;
                    cost += WindowBits::MAX.size();
                }
                // If the stream ends within the tail, the payload did not end at a block boundary. If zlib neither
                // consumes nor produces bytes, the loop would not terminate.
                Err(_) | Ok(Status::StreamEnd) => return Err(ProtocolError::InvalidDeflate),
                Ok(_) if cost == 0 => return Err(ProtocolError::InvalidDeflate),
                Ok(_) => {}
            }
            budget = budget.saturating_sub(cost);
            if budget == 0 {
                return Ok(false);
            }
        }
    }

    /// Starts a message that is inflated while it arrives, and that may refer back to `window`.
    pub(super) fn begin_stream(&mut self, window: Window) -> Result<StreamInflation, ProtocolError> {
        self.prime(window.as_slice())?;
        Ok(StreamInflation {
            window,
            used: 0,
            output_len: 0,
            payload_len: 0,
            final_blocks: 0,
        })
    }

    /// Inflates `input`, the next compressed bytes of a message, until the chunk is full or the input is used up.
    /// Returns whether it is used up: the next call then takes the next input.
    pub(super) fn inflate_to_chunk(
        &mut self,
        inflation: &mut StreamInflation,
        input: &[u8],
        fragment: Fragment,
    ) -> Result<bool, ProtocolError> {
        let mut filled = 0;
        let is_used_up = loop {
            let is_last = fragment == Fragment::Last;
            let rest = match input.get(inflation.used..) {
                Some(rest @ [_, ..]) => rest,
                _ if is_last => TAIL_AND_END.get(inflation.used - input.len()..).unwrap_or_default(),
                _ => &[],
            };
            let (total_in, total_out) = (self.zlib.total_in(), self.zlib.total_out());
            let status = self
                .zlib
                .decompress(rest, &mut self.step[filled..], InflateFlush::NoFlush);
            let taken = (self.zlib.total_in() - total_in) as usize;
            let output_len = (self.zlib.total_out() - total_out) as usize;
            inflation
                .window
                .push(&self.step[filled..filled + output_len], WindowBits::MAX);
            inflation.used += taken;
            filled += output_len;
            match status {
                Ok(Status::StreamEnd) if is_last && inflation.used == input.len() + TAIL_AND_END.len() => break true,
                // §7.2.3.4: a final block ends the zlib stream, not the message. [7692-7.2.1-6]
                Ok(Status::StreamEnd) if inflation.used <= input.len() => {
                    inflation.count_final_block(input.len())?;
                    self.prime(inflation.window.as_slice())?;
                }
                Ok(Status::StreamEnd) => return Err(ProtocolError::InvalidDeflate),
                // The chunk is full.
                _ if filled == self.step.len() => break false,
                // zlib has output for everything that it has consumed. It reports an empty input as an error.
                _ if !is_last && inflation.used == input.len() => break true,
                Err(_) => return Err(ProtocolError::InvalidDeflate),
                Ok(_) if taken == 0 && output_len == 0 => return Err(ProtocolError::InvalidDeflate),
                Ok(_) => {}
            }
        };
        inflation.output_len = filled;
        if is_used_up {
            inflation.payload_len += input.len() as u64;
            inflation.used = 0;
        }
        Ok(is_used_up)
    }

    /// The chunk that [`inflate_to_chunk`](Self::inflate_to_chunk) has inflated.
    pub(super) fn chunk(&self, inflation: &StreamInflation) -> &[u8] {
        &self.step[..inflation.output_len]
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

    /// Resets the codec after a final block. The rest of the message may refer back to its beginning.
    fn prime_after(&mut self, dictionary: &[u8], message: &[u8]) -> Result<(), ProtocolError> {
        let mut window = Window::default();
        window.push(dictionary, WindowBits::MAX);
        window.push(message, WindowBits::MAX);
        self.prime(window.as_slice())
    }
}

impl Inflation {
    /// Returns the complete message.
    pub(super) fn into_message(mut self) -> Vec<u8> {
        if self.message.capacity() / 2 > self.message.len() {
            self.message.shrink_to_fit();
        }
        self.message
    }

    /// Heap memory held, in bytes.
    pub(super) fn buffered_len(&self) -> usize {
        self.message.capacity()
    }

    fn count_final_block(&mut self) -> Result<(), ProtocolError> {
        self.final_blocks_left = self
            .final_blocks_left
            .checked_sub(1)
            .ok_or(ProtocolError::TooManyFinalBlocks)?;
        Ok(())
    }

    /// Appends inflated bytes. Neither the length nor the capacity exceeds the limit.
    // [6455-10.4-1]
    fn append(&mut self, output: &[u8]) -> Result<(), ProtocolError> {
        let Self { message, size_max, .. } = self;
        let left = usize::try_from(*size_max)
            .unwrap_or(usize::MAX)
            .saturating_sub(message.len());
        if output.len() > left {
            return Err(ProtocolError::MessageTooBig);
        }
        if message.capacity() - message.len() < output.len() {
            grow(message, output.len(), left);
        }
        message.extend_from_slice(output);
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

    /// Inflates a complete message in steps of `step_max` bytes.
    fn inflate(
        inflater: &mut Inflater,
        dictionary: &[u8],
        payload: &[u8],
        step_max: usize,
    ) -> Result<Vec<u8>, ProtocolError> {
        let mut inflation = inflater.begin(dictionary, payload.len(), LIMIT)?;
        while !inflater.advance(&mut inflation, dictionary, payload, step_max)? {}
        Ok(inflation.into_message())
    }

    #[track_caller]
    fn check_inflate(dictionary: &[u8], payload: &[u8], expected: Result<&[u8], ProtocolError>) {
        let mut inflater = Inflater::new();
        // Reuses the codec: it must work after a message that failed.
        for step_max in [usize::MAX, 1] {
            let inflated = inflate(&mut inflater, dictionary, payload, step_max);
            assert_eq!(inflated.as_deref().map_err(|error| *error), expected);
        }
    }

    #[test]
    fn examples_of_rfc_7692_section_7_2_3_are_inflated() {
        // checks [7692-7.2.1-5, 7692-7.2.1-6, 7692-7.2.2-1, 7692-7.2.3.6-1]
        let hello = Ok(b"Hello".as_slice());
        check_inflate(b"", &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], hello); // one block
        check_inflate(b"Hello", &[0xf2, 0x00, 0x11, 0x00, 0x00], hello); // refers back to the previous message
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
    fn compressed_output_matches_the_rfc_example() {
        // checks [7692-7.2.1-1, 7692-7.2.1-2, 7692-7.2.3.6-1]
        let mut deflater = Deflater::new(&DeflateConfig::default());
        assert_eq!(
            deflater.compress(b"", b"Hello"),
            Some(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..])
        );
        assert_eq!(deflater.compress(b"", b""), Some(&[0x00][..]));
    }

    #[test]
    fn invalid_streams_are_errors() {
        let invalid = Err(ProtocolError::InvalidDeflate);
        check_inflate(b"", b"", invalid); // not even the header of a block
        check_inflate(b"", &[0xff], invalid); // reserved block type
        check_inflate(b"", &[0xf2, 0x48, 0xcd], invalid); // cut within a block
        check_inflate(b"", &[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48], invalid); // stored length and its complement differ
        check_inflate(b"", &[0xf2, 0x00, 0x11, 0x00, 0x00], invalid); // refers back beyond the start of the window
        check_inflate(b"", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xff], invalid); // garbage after a final block
    }

    #[test]
    fn too_many_final_blocks_are_rejected() {
        // 03 00 is an empty final block, after which the codec must be reset; 00 is the required last octet.
        let mut payload = [0x03, 0x00].repeat(100_000);
        payload.push(0x00);
        check_inflate(b"", &payload, Err(ProtocolError::TooManyFinalBlocks));
    }

    #[test]
    fn decompression_bomb_uses_memory_only_up_to_the_limit() {
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
                Err(error) => assert!(len > LIMIT && error == ProtocolError::MessageTooBig),
            }
        }
    }

    #[test]
    fn compressed_messages_inflate_at_every_size_and_level() {
        let noise: Vec<u8> = (0_u32..100_000)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let text = b"{\"price\":1024.5,\"symbol\":\"SOCK\"}".repeat(3000);
        let both = [&text[..PROBE_LEN], &noise].concat();
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
                            assert!(len > PROBE_LEN && data == &noise, "{len} bytes at level {level}");
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
