//! All 65,536 values of the first two bytes of a frame, with every length that they can declare, in every message
//! state.
//!
//! For 126 and 127 in the second byte, the extended length takes each of sixteen values at which implementations have
//! failed, if it fits, whether or not it is the shortest encoding. The payload follows if it is small; a frame that
//! declares more is left incomplete.

use std::sync::Arc;

use sockeye_proto::Config;

use crate::frame::{BOTH, Frame, LengthForm, Local};
use crate::harness::{Checker, Count, Scale, config, in_parallel, wire_of};
use crate::model::{End, Limits, expect};

/// Values on both sides of each bound of an encoding or an integer type.
const LENGTHS: [u64; 16] = [
    0,
    1,
    125,
    126,
    127,
    128,
    65_535,
    65_536,
    65_537,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

/// Payloads up to this size are sent completely.
const SENT_MAX: u64 = 65_537;

/// 2 roles, 3 states, 256 first bytes, 2 mask bits; 126 lengths of 7 bits, 7 of 16 bits, 16 of 64 bits. The number of
/// splits follows from the lengths of the inputs, under two limits.
pub(crate) const WHOLE: Count = Count {
    inputs: 2 * 3 * 256 * 2 * (126 + 7 + 16),
    splits: 7_056_272,
};
/// Only the state between messages, without splits.
pub(crate) const SMALL: Count = Count {
    inputs: WHOLE.inputs / 3,
    splits: 0,
};

/// The default limit, and one that no length exceeds: then only the encoding of a header is checked, and a header that
/// declares 2^63 - 1 bytes must not allocate memory.
const MESSAGE_SIZE_MAX: [u64; 2] = [16 << 20, u64::MAX];

pub(crate) fn run(scale: Scale) -> Count {
    in_parallel(256, |first| {
        let mut cases = Cases::new(scale);
        for local in BOTH {
            for preceding in preceding(local, scale) {
                for second in 0..=255 {
                    for (form, len) in lengths(second & 0x7f) {
                        cases.check(local, preceding.as_ref(), header(first as u8, second, form, len));
                    }
                }
            }
        }
        cases.count
    })
}

/// The preceding input: nothing, or the first fragment of a text or binary message.
fn preceding(local: Local, scale: Scale) -> impl Iterator<Item = Option<Frame>> {
    let fragments = [0x1, 0x2].map(|opcode| Some(Frame::new(local, false, opcode, b"a")));
    let state_count = match scale {
        Scale::Small => 1,
        Scale::Whole => 3,
    };
    [None].into_iter().chain(fragments).take(state_count)
}

fn lengths(short: u8) -> Vec<(LengthForm, u64)> {
    let in_form = |form, max| {
        LENGTHS
            .into_iter()
            .filter(move |len| *len <= max)
            .map(move |len| (form, len))
    };
    match short {
        126 => in_form(LengthForm::Two, 0xffff).collect(),
        127 => in_form(LengthForm::Eight, u64::MAX).collect(),
        len => vec![(LengthForm::Short, len.into())],
    }
}

fn header(first: u8, second: u8, form: LengthForm, len: u64) -> Frame {
    Frame {
        fin: first & 0x80 != 0,
        rsv: first >> 4 & 0x7,
        opcode: first & 0xf,
        is_masked: second & 0x80 != 0,
        form,
        len,
        payload: vec![],
    }
}

struct Cases {
    scale: Scale,
    configs: [(Limits, Arc<Config>); 2],
    checker: Checker,
    count: Count,
}

impl Cases {
    fn new(scale: Scale) -> Self {
        let configs = MESSAGE_SIZE_MAX.map(|message_size_max| {
            let limits = Limits {
                message_size_max,
                empty_fragments_max: 1000,
            };
            (limits, config(limits))
        });
        Self {
            scale,
            configs,
            checker: Checker::default(),
            count: Count::default(),
        }
    }

    fn check(&mut self, local: Local, preceding: Option<&Frame>, mut frame: Frame) {
        // The payload follows only a valid header.
        let (unlimited, _) = &self.configs[1];
        let after_header = expect(local, *unlimited, preceding.into_iter().chain([&frame])).end;
        if matches!(after_header, End::Open(_)) && frame.len <= SENT_MAX {
            frame.payload = payload(frame.opcode, frame.len as usize);
        }
        let wire = wire_of(preceding.into_iter().chain([&frame]));
        self.count.inputs += 1;
        for (limits, config) in &self.configs {
            let expected = expect(local, *limits, preceding.into_iter().chain([&frame]));
            match self.scale {
                Scale::Small => self.checker.check(local, config, &wire, &[], &expected),
                Scale::Whole => self.count.splits += self.checker.check_cut_in_two(local, config, &wire, &expected),
            }
        }
    }
}

/// A payload that is valid text, and a valid close body if it has at least two bytes.
fn payload(opcode: u8, len: usize) -> Vec<u8> {
    let mut payload = vec![b'a'; len];
    if opcode == 0x8 {
        for (byte, code) in payload.iter_mut().zip(1000_u16.to_be_bytes()) {
            *byte = code;
        }
    }
    payload
}
