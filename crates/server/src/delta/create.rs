//! Search for common parts of source and target, and the writer of deltas.
//!
//! The common prefix and suffix are found first: most publications differ from the previous one in a few fields. The
//! middle part is scanned from left to right for blocks of the source, which are looked up by a hash of [`BLOCK`]
//! bytes. A match is extended in both directions. At each position at most [`CANDIDATES_MAX`] blocks are compared, and
//! the bytes compared are at most that many times the bytes that the best match then covers, so hash collisions and
//! repetitive data cost a constant factor.

use super::{SIZE_MAX, checksum, number};

/// Bytes that are hashed, and the shortest match in the middle part.
const BLOCK: usize = 8;

/// Most blocks with the same hash that are compared for one position of the target.
const CANDIDATES_MAX: usize = 8;

/// Sources up to this size have a block at every offset; larger ones at every [`BLOCK`]th, which finds any match of
/// twice its length.
const DENSE_SIZE_MAX: usize = 2048;

/// Makes the delta from `source` to `target`, if it is smaller than the target.
///
/// `None` also if either is larger than [`SIZE_MAX`]; the target itself is sent then.
pub(crate) fn create(source: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    make(source, target, |_| true)
}

/// Makes a delta that is valid UTF-8, if it is smaller than the target.
///
/// `None` also if either is larger than [`SIZE_MAX`]; the target itself is sent then.
pub(crate) fn create_text(source: &str, target: &str) -> Option<String> {
    let delta = make(source.as_bytes(), target.as_bytes(), |at| target.is_char_boundary(at))?;
    let delta = String::from_utf8(delta);
    debug_assert!(delta.is_ok(), "inserts end at character boundaries");
    delta.ok()
}

/// `may_split` says whether a command may end at an offset of the target.
fn make(source: &[u8], target: &[u8], may_split: impl Fn(usize) -> bool) -> Option<Vec<u8>> {
    if source.len() > SIZE_MAX || target.len() > SIZE_MAX {
        return None;
    }
    let mut writer = Writer::new(target, may_split);
    let prefix = common_prefix(source, target);
    let suffix = common_suffix(&source[prefix..], &target[prefix..]);
    writer.copy(Match {
        source: 0,
        target: 0,
        len: prefix,
    });
    let end = target.len() - suffix;
    copy_blocks(&mut writer, source, prefix, end);
    writer.copy(Match {
        source: source.len() - suffix,
        target: end,
        len: suffix,
    });
    writer.finish()
}

/// A range of the target that is also in the source.
#[derive(Clone, Copy)]
struct Match {
    source: usize,
    target: usize,
    len: usize,
}

/// Finds parts of the source in `writer.target[begin..end]` and writes copy commands for them.
fn copy_blocks<F: Fn(usize) -> bool>(writer: &mut Writer<'_, F>, source: &[u8], begin: usize, end: usize) {
    let target = &writer.target[..end];
    if end - begin < BLOCK || source.len() < BLOCK {
        return;
    }
    let index = Index::new(source);
    let mut at = begin;
    while let Some(block) = target.get(at..).and_then(<[u8]>::first_chunk) {
        // Backwards, a match may take what was passed over, and nothing that was copied.
        let passed = writer.written;
        let longest = index
            .candidates(block)
            .filter(|&offset| source[offset..].starts_with(block))
            .map(|offset| {
                let back = common_suffix(&source[..offset], &target[passed..at]);
                let ahead = common_prefix(&source[offset..], &target[at..]);
                Match {
                    source: offset - back,
                    target: at - back,
                    len: back + ahead,
                }
            })
            .max_by_key(|found| found.len);
        at = match longest {
            Some(found) => {
                writer.copy(found);
                // Also if the match is not worth a command: its bytes are not compared again.
                found.target + found.len
            }
            None => at + 1,
        };
    }
}

/// Writes commands; bytes of the target between copies become inserts.
struct Writer<'a, F> {
    target: &'a [u8],
    may_split: F,
    /// How much of the target the commands give so far.
    written: usize,
    delta: Vec<u8>,
}

impl<'a, F: Fn(usize) -> bool> Writer<'a, F> {
    fn new(target: &'a [u8], may_split: F) -> Self {
        let mut delta = Vec::new();
        number::write(&mut delta, int(target.len()));
        delta.push(b'\n');
        Self {
            target,
            may_split,
            written: 0,
            delta,
        }
    }

    /// Writes a copy command, preceded by an insert of the bytes before it. Leaves out a match that is too short to pay
    /// for its command; it becomes part of the next insert.
    fn copy(&mut self, mut found: Match) {
        // At most three bytes at either end, for the target is valid UTF-8 wherever a split is forbidden.
        while found.len > 0 && !(self.may_split)(found.target) {
            found.source += 1;
            found.target += 1;
            found.len -= 1;
        }
        while found.len > 0 && !(self.may_split)(found.target + found.len) {
            found.len -= 1;
        }
        // The command itself, and the header of an insert that follows.
        let cost = number::len(int(found.len)) + number::len(int(found.source)) + 2 + 2;
        if found.len <= cost {
            return;
        }
        self.insert_until(found.target);
        number::write(&mut self.delta, int(found.len));
        self.delta.push(b'@');
        number::write(&mut self.delta, int(found.source));
        self.delta.push(b',');
        self.written = found.target + found.len;
    }

    fn insert_until(&mut self, end: usize) {
        let bytes = &self.target[self.written..end];
        if !bytes.is_empty() {
            number::write(&mut self.delta, int(bytes.len()));
            self.delta.push(b':');
            self.delta.extend_from_slice(bytes);
        }
        self.written = end;
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        self.insert_until(self.target.len());
        number::write(&mut self.delta, checksum(self.target));
        self.delta.push(b';');
        (self.delta.len() < self.target.len()).then_some(self.delta)
    }
}

/// Offsets of blocks of the source, by hash: chains in two arrays.
struct Index {
    stride: usize,
    /// Number of the last block with each hash, plus one; 0 for none.
    heads: Vec<u32>,
    /// For each block, the number of the one before it with the same hash, plus one.
    next: Vec<u32>,
    shift: u32,
}

impl Index {
    fn new(source: &[u8]) -> Self {
        let stride = if source.len() <= DENSE_SIZE_MAX { 1 } else { BLOCK };
        let blocks = (source.len() - BLOCK) / stride + 1;
        // A hash table that is at most half full.
        let bits = (2 * blocks).next_power_of_two().trailing_zeros();
        let mut index = Self {
            stride,
            heads: vec![0; 1 << bits],
            next: Vec::with_capacity(blocks),
            shift: u64::BITS - bits,
        };
        let offsets = (0..source.len()).step_by(stride);
        for block in offsets.map_while(|offset| source[offset..].first_chunk()) {
            let hash = index.hash(block);
            index.next.push(index.heads[hash]);
            index.heads[hash] = int(index.next.len());
        }
        index
    }

    /// Offsets of blocks that may equal this one, at most [`CANDIDATES_MAX`].
    fn candidates(&self, block: &[u8; BLOCK]) -> impl Iterator<Item = usize> {
        let number = |link: u32| (link as usize).checked_sub(1);
        let first = number(self.heads[self.hash(block)]);
        let chain = std::iter::successors(first, move |&block| number(self.next[block]));
        chain.take(CANDIDATES_MAX).map(|block| block * self.stride)
    }

    fn hash(&self, block: &[u8; BLOCK]) -> usize {
        // Multiplicative hashing: the fractional part of the golden ratio spreads over the high bits.
        let hash = u64::from_le_bytes(*block).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> self.shift) as usize
    }
}

fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    let (left_words, right_words) = (left.as_chunks::<8>().0, right.as_chunks::<8>().0);
    let words = left_words
        .iter()
        .zip(right_words)
        .take_while(|(left, right)| left == right);
    let begin = words.count() * 8;
    let bytes = left[begin..].iter().zip(&right[begin..]);
    begin + bytes.take_while(|(left, right)| left == right).count()
}

fn common_suffix(left: &[u8], right: &[u8]) -> usize {
    let (left_words, right_words) = (left.as_rchunks::<8>().1, right.as_rchunks::<8>().1);
    let words = left_words.iter().rev().zip(right_words.iter().rev());
    let len = words.take_while(|(left, right)| left == right).count() * 8;
    let bytes = left[..left.len() - len]
        .iter()
        .rev()
        .zip(right[..right.len() - len].iter().rev());
    len + bytes.take_while(|(left, right)| left == right).count()
}

/// Offsets and sizes are at most [`SIZE_MAX`].
fn int(number: usize) -> u32 {
    debug_assert!(number <= SIZE_MAX);
    number as u32
}
