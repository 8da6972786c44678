//! Splits an input into pieces, as a network does.

/// Deterministic pseudo-random piece lengths.
#[derive(Clone, Debug)]
pub struct Cuts {
    state: u64,
    /// Maximum piece length minus one: a power of two minus one.
    mask: u64,
}

impl Cuts {
    /// Seeds below 16 split byte by byte. For others, the low bits determine the maximum piece length.
    #[must_use]
    pub fn new(seed: u8) -> Self {
        let mask = match seed {
            0..16 => 0,
            _ => (2 << (seed % 8)) - 1,
        };
        Self {
            state: (u64::from(seed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            mask,
        }
    }

    /// Splits the next piece off the front of `rest`.
    pub fn take<'a>(&mut self, rest: &mut &'a mut [u8]) -> &'a mut [u8] {
        let len = self.next_len(rest.len());
        rest.split_off_mut(..len).unwrap_or_default()
    }

    /// The length of the next piece, at least 1 and at most `left`.
    pub fn next_len(&mut self, left: usize) -> usize {
        // xorshift64.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let len = 1 + (self.state >> 24 & self.mask) as usize;
        len.min(left)
    }
}
