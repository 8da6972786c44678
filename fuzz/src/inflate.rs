//! A reference inflater, written from RFC 1951, that works bit by bit without lookup tables.
//!
//! It is as strict as the RFC allows: code sets must be complete, except for a single one-bit code, and distances must
//! not exceed the available data. It also reports the largest distance, which ordinary inflaters do not.

/// The result of inflating a permessage-deflate message.
#[derive(Debug, PartialEq, Eq)]
pub struct Inflated {
    /// The message or the error.
    pub message: Result<Vec<u8>, Failure>,
    /// The largest distance that is used.
    pub distance_max: usize,
    /// Number of final blocks.
    pub final_blocks: usize,
}

/// Why inflating failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The data is invalid.
    Invalid,
    /// The data is truncated.
    Cut,
    /// The message exceeds the limit.
    TooBig,
}

/// Inflates a message that may refer back to `dictionary`. The sender removed `00 00 ff ff` from its end (RFC 7692
/// §7.2.2).
#[must_use]
pub fn message(dictionary: &[u8], payload: &[u8], size_max: usize) -> Inflated {
    let bytes = [payload, &[0x00, 0x00, 0xff, 0xff]].concat();
    let mut inflater = Inflater {
        bits: Bits { bytes: &bytes, at: 0 },
        out: dictionary.to_vec(),
        out_max: dictionary.len() + size_max,
        distance_max: 0,
        final_blocks: 0,
    };
    let outcome = inflater.blocks(payload.len() * 8);
    Inflated {
        message: outcome.map(|()| inflater.out.split_off(dictionary.len())),
        distance_max: inflater.distance_max,
        final_blocks: inflater.final_blocks,
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    /// Position in bits.
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Result<usize, Failure> {
        let byte = self.bytes.get(self.at / 8).ok_or(Failure::Cut)?;
        let bit = byte >> (self.at % 8) & 1;
        self.at += 1;
        Ok(bit.into())
    }

    /// Reads a number, least significant bit first.
    fn number(&mut self, len: usize) -> Result<usize, Failure> {
        (0..len).try_fold(0, |number, i| Ok(number | self.bit()? << i))
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}

/// A set of Huffman codes: the number of codes of each length, and the symbols in code order.
struct Codes {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Codes {
    /// Builds a code set from code lengths (RFC 1951 §3.2.2). Returns `None` if the lengths are invalid.
    fn new(lengths: &[usize]) -> Option<Self> {
        let mut counts = [0; 16];
        for length in lengths {
            counts[*length] += 1;
        }
        counts[0] = 0;
        let mut symbols: Vec<_> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        let mut left = 1_i32;
        for count in &counts[1..] {
            left = left * 2 - *count as i32;
            if left < 0 {
                return None;
            }
        }
        // Encoders that use no distances produce an empty set or a single one-bit code.
        let is_small = symbols.is_empty() || symbols.len() == 1 && counts[1] == 1;
        (left == 0 || is_small).then_some(Self { counts, symbols })
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Result<usize, Failure> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.bit()?;
            if code < first + count {
                return Ok(self.symbols[index + code - first]);
            }
            index += count;
            first = (first + count) * 2;
            code *= 2;
        }
        Err(Failure::Invalid)
    }
}

struct Inflater<'a> {
    bits: Bits<'a>,
    /// The dictionary, followed by the message.
    out: Vec<u8>,
    out_max: usize,
    distance_max: usize,
    final_blocks: usize,
}

impl Inflater<'_> {
    /// Decodes all blocks. The blocks of the message end within `payload_bits`; the last block is the empty one whose
    /// end was appended, and must consume all input.
    fn blocks(&mut self, payload_bits: usize) -> Result<(), Failure> {
        while self.bits.at < self.bits.bytes.len() * 8 {
            if !self.block()? {
                continue;
            }
            // RFC 7692 §7.2.3.4: the message continues after a final block, but not within the appended tail.
            if self.bits.at > payload_bits {
                return Err(Failure::Invalid);
            }
            self.final_blocks += 1;
            self.bits.align();
        }
        Ok(())
    }

    /// Decodes one block. Returns whether it is final.
    fn block(&mut self) -> Result<bool, Failure> {
        let is_final = self.bits.bit()? == 1;
        match self.bits.number(2)? {
            0 => self.stored()?,
            1 => {
                let lengths: Vec<_> = [(8, 144), (9, 112), (7, 24), (8, 8)]
                    .iter()
                    .flat_map(|(length, count)| std::iter::repeat_n(*length, *count))
                    .collect();
                let literals = Codes::new(&lengths).ok_or(Failure::Invalid)?;
                let distances = Codes::new(&[5; 32]).ok_or(Failure::Invalid)?;
                self.compressed(&literals, &distances)?;
            }
            2 => {
                let (literals, distances) = self.tables()?;
                self.compressed(&literals, &distances)?;
            }
            _ => return Err(Failure::Invalid),
        }
        Ok(is_final)
    }

    fn stored(&mut self) -> Result<(), Failure> {
        self.bits.align();
        let (len, complement) = (self.bits.number(16)?, self.bits.number(16)?);
        if len ^ complement != 0xffff {
            return Err(Failure::Invalid);
        }
        let rest = &self.bits.bytes[self.bits.at / 8..];
        let bytes = &rest[..len.min(rest.len())];
        let room = self.out_max - self.out.len();
        if bytes.len() > room {
            return Err(Failure::TooBig);
        }
        self.out.extend_from_slice(bytes);
        self.bits.at += bytes.len() * 8;
        if bytes.len() < len { Err(Failure::Cut) } else { Ok(()) }
    }

    /// Reads the code sets of a block with dynamic codes (RFC 1951 §3.2.7).
    fn tables(&mut self) -> Result<(Codes, Codes), Failure> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let literal_count = self.bits.number(5)? + 257;
        let distance_count = self.bits.number(5)? + 1;
        let length_count = self.bits.number(4)? + 4;
        if literal_count > 286 || distance_count > 30 {
            return Err(Failure::Invalid);
        }
        let mut lengths = [0; 19];
        for symbol in &ORDER[..length_count] {
            lengths[*symbol] = self.bits.number(3)?;
        }
        let is_complete = lengths.iter().filter(|length| **length > 0).count() > 1;
        let codes = Codes::new(&lengths).filter(|_| is_complete).ok_or(Failure::Invalid)?;
        let mut lengths = vec![];
        while lengths.len() < literal_count + distance_count {
            let (length, count) = match codes.symbol(&mut self.bits)? {
                16 => {
                    let last = lengths.last().copied().ok_or(Failure::Invalid)?;
                    (last, 3 + self.bits.number(2)?)
                }
                17 => (0, 3 + self.bits.number(3)?),
                18 => (0, 11 + self.bits.number(7)?),
                length => (length, 1),
            };
            lengths.extend(std::iter::repeat_n(length, count));
        }
        // Repetitions must not exceed the end, and there must be a code for the end of the block.
        if lengths.len() > literal_count + distance_count || lengths[256] == 0 {
            return Err(Failure::Invalid);
        }
        let (literals, distances) = lengths.split_at(literal_count);
        Codes::new(literals).zip(Codes::new(distances)).ok_or(Failure::Invalid)
    }

    /// Length and distance codes (RFC 1951 §3.2.5).
    fn compressed(&mut self, literals: &Codes, distances: &Codes) -> Result<(), Failure> {
        loop {
            let symbol = literals.symbol(&mut self.bits)?;
            let length = match symbol {
                0..256 => {
                    self.push(symbol as u8)?;
                    continue;
                }
                256 => return Ok(()),
                257..265 => symbol - 254,
                265..285 => {
                    let extra = (symbol - 261) / 4;
                    (((symbol - 261) % 4 + 4) << extra) + 3 + self.bits.number(extra)?
                }
                285 => 258,
                _ => return Err(Failure::Invalid),
            };
            let symbol = distances.symbol(&mut self.bits)?;
            let distance = match symbol {
                0..4 => symbol + 1,
                4..30 => {
                    let extra = symbol / 2 - 1;
                    ((symbol % 2 + 2) << extra) + 1 + self.bits.number(extra)?
                }
                _ => return Err(Failure::Invalid),
            };
            if distance > self.out.len() {
                return Err(Failure::Invalid);
            }
            self.distance_max = self.distance_max.max(distance);
            for _ in 0..length {
                self.push(self.out[self.out.len() - distance])?;
            }
        }
    }

    fn push(&mut self, byte: u8) -> Result<(), Failure> {
        if self.out.len() == self.out_max {
            return Err(Failure::TooBig);
        }
        self.out.push(byte);
        Ok(())
    }
}
