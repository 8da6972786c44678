//! Masking (RFC 6455 §5.3): XOR with a four-byte key, in safe code that the compiler vectorizes.

use alloc::vec::Vec;

/// Bytes per iteration of the main loop: two AVX registers or four SSE2 registers.
const BLOCK: usize = 64;

/// Whether received frames must be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaskRule {
    /// This endpoint is a server and rejects unmasked frames (RFC 6455 §5.1).
    Required,
    /// This endpoint is a client and rejects masked frames (RFC 6455 §5.1).
    Forbidden,
}

/// The four-byte key that masks a client's frame.
///
/// RFC 6455 §10.3: each frame needs a new key from a strong source of entropy. With predictable keys, a script in a
/// browser could control the bytes on the wire and attack intermediaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MaskingKey(pub [u8; 4]);

impl MaskingKey {
    /// Returns the key rotated for payload bytes that start `offset` bytes into the frame.
    #[must_use]
    pub fn rotated(self, offset: usize) -> Self {
        let mut key = self.0;
        key.rotate_left(offset % 4);
        Self(key)
    }

    /// Masks or unmasks `data` in place. Both are the same operation.
    ///
    /// `data` must start at the beginning of the payload; for a later part of a frame, use [`rotated`](Self::rotated)
    /// first.
    // [6455-5.3-5]
    #[inline]
    pub fn apply(self, data: &mut [u8]) {
        let key = u32::from_ne_bytes(self.0);
        if key == 0 {
            return;
        }
        let wide = u64::from(key) | u64::from(key) << 32;
        let (blocks, rest) = data.as_chunks_mut::<BLOCK>();
        for block in blocks {
            let (words, _) = block.as_chunks_mut::<8>();
            for word in words {
                *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
            }
        }
        let (words, rest) = rest.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        let (halves, rest) = rest.as_chunks_mut::<4>();
        for half in halves {
            *half = (u32::from_ne_bytes(*half) ^ key).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(self.0) {
            *byte ^= key;
        }
    }

    /// Masks or unmasks an array in place. The constant length lets the compiler keep small arrays in registers.
    #[inline(always)]
    pub(crate) fn apply_to_array<const N: usize>(self, data: &mut [u8; N]) {
        let key = u32::from_ne_bytes(self.0);
        let (vectors, rest) = data.as_chunks_mut::<16>();
        for vector in vectors {
            let (words, _) = vector.as_chunks_mut::<4>();
            for word in words {
                *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
            }
        }
        self.apply(rest);
    }

    /// Appends `data` to `out`, masked, in one pass.
    ///
    /// Use this for the payload that follows the header from
    /// [`Connection::start_message`](crate::Connection::start_message).
    #[inline]
    pub fn append(self, data: &[u8], out: &mut Vec<u8>) {
        out.reserve(data.len());
        let (blocks, rest) = data.as_chunks::<BLOCK>();
        for block in blocks {
            let mut block = *block;
            self.apply(&mut block);
            out.extend_from_slice(&block);
        }
        let start = out.len();
        out.extend_from_slice(rest);
        self.apply(&mut out[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn naive(key: [u8; 4], data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte ^= key[i % 4];
        }
    }

    #[test]
    fn masking_matches_the_rfc_formula_at_every_length_and_alignment() {
        // checks [6455-5.3-5]
        let key = [0x37, 0xfa, 0x21, 0x3d];
        // Under Miri, all lengths would take minutes.
        let step = if cfg!(miri) { 23 } else { 1 };
        for start in 0..8 {
            for len in (0..300).step_by(step) {
                let mut data: Vec<u8> = (0..start + len).map(|i| (i * 7) as u8).collect();
                let mut expected = data.clone();
                let mut appended = data[..start].to_vec();
                MaskingKey(key).append(&data[start..], &mut appended);
                MaskingKey(key).apply(&mut data[start..]);
                naive(key, &mut expected[start..]);
                assert_eq!(data, expected, "start {start} len {len}");
                assert_eq!(appended, expected, "appended, start {start} len {len}");
            }
        }
    }

    #[test]
    fn arrays_are_masked_like_slices() {
        fn check<const N: usize>() {
            let mut array = core::array::from_fn::<u8, N, _>(|i| (i * 7) as u8);
            let mut expected = array;
            MaskingKey([1, 2, 3, 4]).apply_to_array(&mut array);
            naive([1, 2, 3, 4], &mut expected);
            assert_eq!(array, expected);
        }
        check::<0>();
        check::<7>();
        check::<24>();
        check::<61>();
    }

    #[test]
    fn masking_in_two_parts_equals_masking_at_once() {
        let key = MaskingKey([1, 2, 3, 4]);
        for cut in 0..40 {
            let mut whole = vec![0xa5; 40];
            key.apply(&mut whole);
            let mut parts = vec![0xa5; 40];
            let (head, tail) = parts.split_at_mut(cut);
            key.apply(head);
            key.rotated(cut).apply(tail);
            assert_eq!(parts, whole, "cut {cut}");
        }
    }

    #[test]
    fn masked_hello_matches_rfc_6455_section_5_7() {
        // RFC 6455 §5.7: a single-frame masked text message "Hello".
        let mut payload = *b"Hello";
        MaskingKey([0x37, 0xfa, 0x21, 0x3d]).apply(&mut payload);
        assert_eq!(payload, [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }
}
