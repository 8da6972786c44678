//! A naive inflater, written from RFC 1951, to agree with: bit by bit, without tables made in advance.
//!
//! It is as strict as the RFC allows one to be: a set of codes is complete, but for a single code of one bit; what a
//! code refers to is there. And it notes how far back a stream reaches, which no inflater with a window of its own tells.

/// What became of a message of permessage-deflate.
#[derive(Debug, PartialEq, Eq)]
pub struct Inflated {
    /// The message, or why there is none.
    pub message: Result<Vec<u8>, Failure>,
    /// The farthest that it refers back.
    pub distance_max: usize,
    /// How many final blocks it has.
    pub final_blocks: usize,
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The stream is broken.
    Invalid,
    /// The stream ends in the middle.
    Cut,
    /// There is more than the limit.
    TooBig,
}

/// Inflates a message that may refer back to `dictionary` (RFC 7692 §7.2.2): the sender cut `00 00 ff ff` off its end.
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
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Result<usize, Failure> {
        let byte = self.bytes.get(self.at / 8).ok_or(Failure::Cut)?;
        let bit = byte >> (self.at % 8) & 1;
        self.at += 1;
        Ok(bit.into())
    }

    /// A number, its lowest bit first.
    fn number(&mut self, len: usize) -> Result<usize, Failure> {
        (0..len).try_fold(0, |number, i| Ok(number | self.bit()? << i))
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}

/// A set of Huffman codes: how many there are of each length, and their symbols in the order of the codes.
struct Codes {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Codes {
    /// RFC 1951 §3.2.2. `None` if the lengths make no set of codes.
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
        // A set with one code, of one bit, or with none is what an encoder without distances makes.
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
    /// The dictionary, and behind it the message.
    out: Vec<u8>,
    out_max: usize,
    distance_max: usize,
    final_blocks: usize,
}

impl Inflater<'_> {
    /// All blocks, of which the message's own end within `payload_bits`. The last one is the empty block of which the
    /// end was put back: with it everything is used up.
    fn blocks(&mut self, payload_bits: usize) -> Result<(), Failure> {
        while self.bits.at < self.bits.bytes.len() * 8 {
            if !self.block()? {
                continue;
            }
            // RFC 7692 §7.2.3.4: after a final block the message goes on, but not in what was put back.
            if self.bits.at > payload_bits {
                return Err(Failure::Invalid);
            }
            self.final_blocks += 1;
            self.bits.align();
        }
        Ok(())
    }

    /// One block: whether it was a final one.
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

    /// RFC 1951 §3.2.7: the codes of a block that brings its own.
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
        // No repetition goes past the end, and the end of the block has a code.
        if lengths.len() > literal_count + distance_count || lengths[256] == 0 {
            return Err(Failure::Invalid);
        }
        let (literals, distances) = lengths.split_at(literal_count);
        Codes::new(literals).zip(Codes::new(distances)).ok_or(Failure::Invalid)
    }

    /// RFC 1951 §3.2.5.
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
