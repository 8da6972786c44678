//! Ways of cutting an input: what a peer sends arrives in pieces that neither side chooses.

/// Lengths of pieces, drawn from a seed: the same seed gives the same pieces.
#[derive(Clone, Debug)]
pub struct Cuts {
    state: u64,
    /// One less than a power of two; a piece has at most one byte more.
    mask: u64,
}

impl Cuts {
    /// Seeds below 16 cut byte by byte; of the others the low bits choose how large pieces become.
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

    /// Takes the next piece off the front of what is left.
    pub fn take<'a>(&mut self, rest: &mut &'a mut [u8]) -> &'a mut [u8] {
        let len = self.next_len(rest.len());
        rest.split_off_mut(..len).unwrap_or_default()
    }

    /// The length of the next piece, at least 1 and at most `left`.
    pub fn next_len(&mut self, left: usize) -> usize {
        // xorshift64: any sequence without a pattern would do.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let len = 1 + (self.state >> 24 & self.mask) as usize;
        len.min(left)
    }
}
