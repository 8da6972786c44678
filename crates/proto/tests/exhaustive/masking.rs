//! Masking at every alignment, length and phase of the key, compared with the formula of the RFC.

use sockeye_proto::MaskingKey;

use crate::harness::{Count, Scale, in_parallel};

/// Keys: four different bytes, all zeros, all ones, and two equal pairs of bytes.
const KEYS: [[u8; 4]; 4] = [[0x37, 0xfa, 0x21, 0x3d], [0; 4], [0xff; 4], [0xa5, 0x5a, 0xa5, 0x5a]];

const OFFSETS: u32 = 64;
const LENGTH_MAX: usize = 256;
const PHASES: usize = 4;

/// Splits are tested at one alignment: n - 1 for n bytes.
pub(crate) const WHOLE: Count = Count {
    inputs: 64 * 257 * 4 * 4,
    splits: 4 * 4 * (256 * 255 / 2),
};
/// One key, without splits.
pub(crate) const SMALL: Count = Count {
    inputs: 64 * 257 * 4,
    splits: 0,
};

/// Memory aligned to 64 bytes.
#[repr(align(64))]
struct Aligned([u8; OFFSETS as usize + LENGTH_MAX + 64]);

pub(crate) fn run(scale: Scale) -> Count {
    let keys = match scale {
        Scale::Small => &KEYS[..1],
        Scale::Whole => &KEYS,
    };
    in_parallel(OFFSETS, |offset| {
        let mut count = Count::default();
        for len in 0..=LENGTH_MAX {
            for phase in 0..PHASES {
                for key in keys {
                    count += check(*key, phase, offset as usize, len, scale);
                }
            }
        }
        count
    })
}

/// Masks `len` bytes at `offset`, where the first one is byte `phase` of a payload.
fn check(key: [u8; 4], phase: usize, offset: usize, len: usize, scale: Scale) -> Count {
    let before = Aligned(core::array::from_fn(|i| (i * 151 + 7) as u8));
    let mut expected = before.0;
    // RFC 6455 §5.3: byte i of the payload is masked with byte i modulo 4 of the key.
    for i in 0..len {
        expected[offset + i] ^= key[(phase + i) % 4];
    }
    let here = || format!("key {key:02x?} phase {phase} offset {offset} length {len}");

    let mut masked = Aligned(before.0);
    let rotated = MaskingKey(key).rotated(phase);
    rotated.apply(&mut masked.0[offset..offset + len]);
    // The surrounding bytes are compared as well: they must not change.
    assert_eq!(masked.0, expected, "{}", here());

    // Masking in two parts, the second with the rotated key, gives the same bytes. One offset for each split.
    let cuts = match scale {
        Scale::Whole if offset == 0 => 1..len.max(1),
        _ => 1..1,
    };
    let splits = cuts.len() as u64;
    for cut in cuts {
        let mut parts = Aligned(before.0);
        let (head, tail) = parts.0[offset..offset + len].split_at_mut(cut);
        rotated.apply(head);
        rotated.rotated(cut).apply(tail);
        assert_eq!(parts.0, expected, "{} split at {cut}", here());
    }
    Count { inputs: 1, splits }
}
