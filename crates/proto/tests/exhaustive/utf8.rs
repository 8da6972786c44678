//! All strings of up to three bytes, and those of four at every boundary, for every split, compared with `core`.
//!
//! Each string is sent to both roles
//!
//! - as a single-frame message, with the frame split between any of the string's bytes,
//! - as a message in two fragments, split before, between or after any of its bytes,
//! - as the start of an incomplete text, which must be rejected immediately if no valid text starts with it
//!   (RFC 6455 §8.1), and
//! - as the reason of a close frame.

use std::sync::Arc;

use sockeye_proto::Config;

use crate::frame::{BOTH, Frame, LengthForm, Local};
use crate::harness::{Checker, Count, Scale, config, in_parallel};
use crate::model::{Delivered, End, Expected, Limits, Rule};

/// Bounds of the ranges in Unicode Table 3-7 for continuation bytes, and adjacent values.
const BOUNDARIES: [u8; 12] = [0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xf4, 0xff];
/// Bounds for the first byte.
const LEADS: [u8; 20] = [
    0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5,
    0xff,
];

/// Number of strings of 0 to 4 bytes. With 4 bytes: every first byte, followed by boundary values.
pub(crate) const WHOLE: Count = count_of([1, 256, 256 * 256, 256 * 256 * 256, 256 * 12 * 12 * 12]);
/// With 2 and 3 bytes: boundary values only.
pub(crate) const SMALL: Count = count_of([1, 256, 20 * 12, 20 * 12 * 12, 0]);

/// Inputs for a string of n bytes, in both roles: one frame, n + 1 pairs of fragments, a start, a reason. The frame has
/// n - 1 possible split positions.
const fn count_of([zero, one, two, three, four]: [u64; 5]) -> Count {
    Count {
        inputs: 2 * (zero * 4 + one * 5 + two * 6 + three * 7 + four * 8),
        splits: 2 * (two + three * 3 + four * 7),
    }
}

pub(crate) fn run(scale: Scale) -> Count {
    let every: Vec<u8> = (0..=255).collect();
    let mut empty = Strings::new();
    empty.check(&[]);
    empty.count + in_parallel(256, |first| of_first_byte(scale, first as u8, &every))
}

fn of_first_byte(scale: Scale, first: u8, every: &[u8]) -> Count {
    let mut strings = Strings::new();
    strings.check(&[first]);
    let (short, is_lead) = match scale {
        Scale::Whole => (every, true),
        Scale::Small => (&BOUNDARIES[..], LEADS.contains(&first)),
    };
    for &second in short.iter().filter(|_| is_lead) {
        strings.check(&[first, second]);
        for &third in short {
            strings.check(&[first, second, third]);
        }
    }
    if scale == Scale::Whole {
        for second in BOUNDARIES {
            for third in BOUNDARIES {
                for fourth in BOUNDARIES {
                    strings.check(&[first, second, third, fourth]);
                }
            }
        }
    }
    strings.count
}

/// Checks strings. Reuses its buffers.
struct Strings {
    config: Arc<Config>,
    checker: Checker,
    wire: Vec<u8>,
    good: Expected,
    good_reason: Expected,
    bad: Expected,
    waiting: Expected,
    count: Count,
}

impl Strings {
    fn new() -> Self {
        let expected = |delivered, end| Expected { delivered, end };
        Self {
            config: config(Limits {
                message_size_max: 100,
                empty_fragments_max: 1000,
            }),
            checker: Checker::default(),
            wire: vec![],
            good: expected(vec![Delivered::Text(vec![])], End::Open(None)),
            good_reason: expected(vec![Delivered::Close(1000, vec![])], End::Closed(1000)),
            bad: expected(vec![], End::Failed(Rule::NotUtf8.alone())),
            waiting: expected(vec![], End::Open(None)),
            count: Count::default(),
        }
    }

    fn check(&mut self, string: &[u8]) {
        let judged = core::str::from_utf8(string);
        let is_bad_already = judged.is_err_and(|error| error.error_len().is_some());
        if let [Delivered::Text(text)] = &mut self.good.delivered[..] {
            text.clear();
            text.extend_from_slice(string);
        }
        if let [Delivered::Close(_, reason)] = &mut self.good_reason.delivered[..] {
            reason.clear();
            reason.extend_from_slice(string);
        }
        let (message, reason) = match judged {
            Ok(_) => (&self.good, &self.good_reason),
            Err(_) => (&self.bad, &self.bad),
        };
        let beginning = if is_bad_already { &self.bad } else { &self.waiting };
        let (checker, config, wire, count) = (&mut self.checker, &self.config, &mut self.wire, &mut self.count);

        for local in BOTH {
            // One frame, with every combination of splits between the bytes of the string.
            fill(wire, local, [(true, 0x1, string)]);
            let begin = wire.len() - string.len();
            checker.check(local, config, wire, &[], message);
            count.inputs += 1;
            for ways in 1..1_u32 << string.len().saturating_sub(1) {
                let mut cuts = [0; 3];
                let mut cut_count = 0;
                for at in (1..string.len()).filter(|at| ways >> (at - 1) & 1 == 1) {
                    cuts[cut_count] = begin + at;
                    cut_count += 1;
                }
                checker.check(local, config, wire, &cuts[..cut_count], message);
                count.splits += 1;
            }
            // Two fragments.
            for cut in 0..=string.len() {
                let (head, tail) = string.split_at(cut);
                fill(wire, local, [(false, 0x1, head), (true, 0x0, tail)]);
                checker.check(local, config, wire, &[], message);
                count.inputs += 1;
            }
            // A start of an incomplete text.
            wire.clear();
            let longer = Frame::new(local, true, 0x1, string).declaring(LengthForm::Short, 50);
            longer.append_to(wire);
            checker.check(local, config, wire, &[], beginning);
            count.inputs += 1;
            // A reason, after the code 1000.
            let mut body = [0x03, 0xe8, 0, 0, 0, 0];
            body[2..2 + string.len()].copy_from_slice(string);
            fill(wire, local, [(true, 0x8, &body[..2 + string.len()])]);
            checker.check(local, config, wire, &[], reason);
            count.inputs += 1;
        }
    }
}

/// Encodes frames given as FIN, opcode and payload.
fn fill<const N: usize>(wire: &mut Vec<u8>, local: Local, frames: [(bool, u8, &[u8]); N]) {
    wire.clear();
    for (fin, opcode, payload) in frames {
        Frame::new(local, fin, opcode, payload).append_to(wire);
    }
}
