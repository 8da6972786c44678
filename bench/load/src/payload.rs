//! Payloads: all different, and the same in every run.

use std::fmt::Write;

use crate::plan::Kind;

/// The payload of one variant, exactly `size` bytes.
pub(crate) fn payload(kind: Kind, size: usize, variant: usize) -> Vec<u8> {
    let mut noise = Noise::new(variant);
    match kind {
        Kind::Binary => noise.bytes().take(size).collect(),
        Kind::Text => {
            const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789";
            noise
                .bytes()
                .map(|byte| LETTERS[usize::from(byte % 64)])
                .take(size)
                .collect()
        }
        Kind::Json => json(size, &mut noise),
    }
}

/// Records of a market feed; the last one ends with a string that pads to `size`. A size too small for a record gives a
/// string.
fn json(size: usize, noise: &mut Noise) -> Vec<u8> {
    const SYMBOLS: [&str; 6] = ["BTC-USD", "ETH-USD", "SOL-EUR", "XRP-USD", "ADA-EUR", "DOT-USD"];
    let mut text = String::from("[");
    loop {
        let word = noise.next();
        let before = text.len();
        let _ = write!(
            text,
            "{{\"symbol\":\"{}\",\"side\":\"{}\",\"price\":{}.{:02},\"amount\":{},\"venue\":\"main\"}},",
            SYMBOLS[(word % 6) as usize],
            if word & 64 == 0 { "buy" } else { "sell" },
            20_000 + (word >> 8) % 2_000,
            (word >> 24) % 100,
            1 + (word >> 40) % 50,
        );
        // Reserves room for the padding string with its quotes and the bracket: `""]`.
        if text.len() + 3 > size {
            text.truncate(before);
            break;
        }
    }
    if size < 4 {
        return "1".repeat(size).into_bytes();
    }
    text.push('"');
    while text.len() + 2 < size {
        text.push('.');
    }
    text.push_str("\"]");
    text.into_bytes()
}

/// xorshift64: the same sequence in every run.
#[derive(Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: usize) -> Self {
        // Any odd constant spreads small seeds; this one comes from the golden ratio.
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> impl Iterator<Item = u8> {
        std::iter::repeat_with(|| (self.next() >> 32) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::payload;
    use crate::plan::Kind;

    #[test]
    fn payloads_have_their_size_and_differ() {
        for kind in [Kind::Binary, Kind::Text, Kind::Json] {
            for size in [1, 3, 4, 20, 200, 1024, 5000] {
                assert_eq!(payload(kind, size, 0).len(), size, "{kind:?}");
            }
            assert_ne!(payload(kind, 1024, 0), payload(kind, 1024, 1), "{kind:?}");
        }
    }

    #[test]
    fn json_is_json() {
        for size in [4, 100, 1024] {
            let text = payload(Kind::Json, size, 3);
            serde_json::from_slice::<serde_json::Value>(&text)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
        }
    }
}
