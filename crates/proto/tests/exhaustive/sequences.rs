//! Every sequence of up to three frames of all kinds, for every split in two, and every sequence of four, in one piece.
//!
//! Each is run in both receive modes, which counts once.
//!
//! The limits are so small that two frames can exceed them: 127 bytes per message, one consecutive empty fragment.

use std::sync::Arc;

use sockeye_proto::Config;

use crate::frame::{BOTH, Frame, LengthForm, Local};
use crate::harness::{Checker, Count, Scale, config, in_parallel};
use crate::model::{Limits, expect};

/// Number of frame kinds.
const KINDS: u64 = 60;

/// 2 roles. The number of splits follows from the lengths of the frames.
pub(crate) const UP_TO_TWO: Count = Count {
    inputs: 2 * (KINDS + KINDS.pow(2)),
    splits: 157_526,
};
pub(crate) const UP_TO_THREE: Count = Count {
    inputs: 2 * (KINDS + KINDS.pow(2) + KINDS.pow(3)),
    splits: 13_255_492,
};
pub(crate) const OF_FOUR: Count = Count {
    inputs: 2 * KINDS.pow(4),
    splits: 0,
};

const LIMITS: Limits = Limits {
    message_size_max: 127,
    empty_fragments_max: 1,
};

/// Each kind of frame that the rules distinguish, as sent to `local`.
fn kinds(local: Local) -> Vec<Frame> {
    let frame = |fin, opcode, payload: &[u8]| Frame::new(local, fin, opcode, payload);
    let (whole, first) = (true, false);
    let medium = [b'm'; 126];
    vec![
        // Messages: empty, ASCII, non-ASCII, with a 16-bit length.
        frame(whole, 0x1, b""),
        frame(whole, 0x1, b"a"),
        frame(whole, 0x1, b"\xc3\xa9"),
        frame(whole, 0x2, b""),
        frame(whole, 0x2, b"\xff"),
        frame(whole, 0x2, &medium),
        // Invalid text: a truncated character, a missing lead byte, an overlong form, a surrogate, above U+10FFFF.
        frame(whole, 0x1, b"\xc3"),
        frame(whole, 0x1, b"\xff"),
        frame(whole, 0x1, b"\xc0\x80"),
        frame(whole, 0x1, b"\xed\xa0\x80"),
        frame(whole, 0x1, b"\xf4\x90\x80\x80"),
        // First fragments: empty, complete characters, one truncated after each of its bytes, invalid.
        frame(first, 0x1, b""),
        frame(first, 0x1, b"a"),
        frame(first, 0x1, b"\xc3"),
        frame(first, 0x1, b"\xe2\x82"),
        frame(first, 0x1, b"\xf0\x9f"),
        frame(first, 0x1, b"\xf0"),
        frame(first, 0x1, b"\xff"),
        frame(first, 0x2, b""),
        frame(first, 0x2, b"\xc3"),
        frame(first, 0x2, &medium),
        // Continuations with and without FIN: empty, ASCII, bytes that complete the characters above, bytes that do
        // not.
        frame(whole, 0x0, b""),
        frame(whole, 0x0, b"b"),
        frame(whole, 0x0, b"\xa9"),
        frame(whole, 0x0, b"\xac"),
        frame(whole, 0x0, b"\x98\x80"),
        frame(whole, 0x0, b"\xff"),
        frame(whole, 0x0, &medium),
        frame(first, 0x0, b""),
        frame(first, 0x0, b"b"),
        frame(first, 0x0, b"\x9f"),
        frame(first, 0x0, b"\x98"),
        frame(first, 0x0, &medium),
        // Pings and pongs up to the maximum length.
        frame(whole, 0x9, b""),
        frame(whole, 0x9, b"p"),
        frame(whole, 0x9, &medium[..125]),
        frame(whole, 0xa, b""),
        frame(whole, 0xa, b"q"),
        // Close frames: empty, a truncated code, codes, reasons.
        frame(whole, 0x8, b""),
        frame(whole, 0x8, b"\x03"),
        frame(whole, 0x8, b"\x03\xe8"),
        frame(whole, 0x8, b"\x03\xe9gr\xc3\xbcn"),
        frame(whole, 0x8, b"\x13\x87"),
        frame(whole, 0x8, b"\x03\xed"),
        frame(whole, 0x8, b"\x03\xe8\xc3"),
        // Fragmented and oversized control frames.
        frame(first, 0x9, b""),
        frame(first, 0x8, b"\x03\xe8"),
        frame(whole, 0x9, &medium),
        frame(whole, 0x8, &medium).declaring(LengthForm::Eight, 126),
        // Reserved opcodes and bits.
        frame(whole, 0x3, b""),
        frame(first, 0xb, b"a"),
        frame(whole, 0x1, b"a").rsv(4),
        frame(whole, 0x0, b"b").rsv(2),
        frame(whole, 0x9, b"").rsv(1),
        // Masked as for the other role.
        frame(whole, 0x1, b"a").masked_wrongly(),
        frame(whole, 0x8, b"\x03\xe8").masked_wrongly(),
        // Lengths: not minimal, with the top bit, over the limit, the maximum.
        frame(whole, 0x2, b"x").declaring(LengthForm::Two, 1),
        frame(whole, 0x0, b"").declaring(LengthForm::Eight, 1 << 63),
        frame(whole, 0x1, b"").declaring(LengthForm::Two, 128),
        frame(first, 0x0, b"").declaring(LengthForm::Eight, (1 << 63) - 1),
    ]
}

pub(crate) fn run(scale: Scale) -> Count {
    let mut count = Count::default();
    for local in BOTH {
        let kinds = Kinds::new(local);
        count += in_parallel(KINDS as u32, |first| {
            let mut sequences = Sequences::new(&kinds);
            sequences.check_cut(&[first as usize]);
            for second in 0..kinds.frames.len() {
                sequences.check_cut(&[first as usize, second]);
                for third in (0..kinds.frames.len()).filter(|_| scale == Scale::Whole) {
                    sequences.check_cut(&[first as usize, second, third]);
                }
            }
            sequences.count
        });
    }
    count
}

/// Sequences of four frames.
pub(crate) fn run_four() -> Count {
    let mut count = Count::default();
    for local in BOTH {
        let kinds = Kinds::new(local);
        let range = || 0..kinds.frames.len();
        count += in_parallel((KINDS * KINDS) as u32, |pair| {
            let (first, second) = (pair as usize / kinds.frames.len(), pair as usize % kinds.frames.len());
            let mut sequences = Sequences::new(&kinds);
            for third in range() {
                for fourth in range() {
                    sequences.check_whole(&[first, second, third, fourth]);
                }
            }
            sequences.count
        });
    }
    count
}

struct Kinds {
    local: Local,
    config: Arc<Config>,
    frames: Vec<Frame>,
    wires: Vec<Vec<u8>>,
}

impl Kinds {
    fn new(local: Local) -> Self {
        let frames = kinds(local);
        Self {
            local,
            config: config(LIMITS),
            wires: frames.iter().map(Frame::bytes).collect(),
            frames,
        }
    }
}

struct Sequences<'a> {
    kinds: &'a Kinds,
    checkers: [Checker; 2],
    wire: Vec<u8>,
    count: Count,
}

impl<'a> Sequences<'a> {
    fn new(kinds: &'a Kinds) -> Self {
        Self {
            kinds,
            checkers: [Checker::in_chunks(), Checker::default()],
            wire: vec![],
            count: Count::default(),
        }
    }

    fn check_whole(&mut self, sequence: &[usize]) {
        let Kinds { local, config, .. } = self.kinds;
        let expected = self.prepare(sequence);
        for checker in &mut self.checkers {
            checker.check(*local, config, &self.wire, &[], &expected);
        }
    }

    fn check_cut(&mut self, sequence: &[usize]) {
        let Kinds { local, config, .. } = self.kinds;
        let expected = self.prepare(sequence);
        let [in_chunks, whole] = &mut self.checkers;
        in_chunks.check_cut_in_two(*local, config, &self.wire, &expected);
        self.count.splits += whole.check_cut_in_two(*local, config, &self.wire, &expected);
    }

    fn prepare(&mut self, sequence: &[usize]) -> crate::model::Expected {
        self.count.inputs += 1;
        self.wire.clear();
        sequence
            .iter()
            .for_each(|kind| self.wire.extend_from_slice(&self.kinds.wires[*kind]));
        expect(
            self.kinds.local,
            LIMITS,
            sequence.iter().map(|kind| &self.kinds.frames[*kind]),
        )
    }
}

/// No kind is a prefix of another, so different sequences are different inputs.
#[test]
fn no_frame_kind_is_a_prefix_of_another() {
    for local in BOTH {
        let wires: Vec<_> = kinds(local).iter().map(Frame::bytes).collect();
        assert_eq!(wires.len() as u64, KINDS);
        for (i, a) in wires.iter().enumerate() {
            for (j, b) in wires.iter().enumerate() {
                assert!(i == j || !a.starts_with(b), "{local:?} {a:02x?} begins with {b:02x?}");
            }
        }
    }
}
