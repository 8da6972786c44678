//! All 65,536 close codes, received and sent, and all reason lengths.

use sockeye_proto::{CloseCode, CloseFrame, Connection, InvalidClose, MaskingKey, Role};

use crate::frame::{BOTH, Frame};
use crate::harness::{Checker, Count, Scale, config, in_parallel, wire_of};
use crate::model::{Limits, expect, is_valid_on_wire};

/// Reasons: empty, ASCII, a three-byte character, a truncated character, an invalid byte.
const REASONS: [&[u8]; 5] = [b"", b"bye", b"\xe2\x82\xac", b"\xe2\x82", b"\xff"];

/// 2 roles; each code with each reason and as an argument; 256 one-byte bodies; body lengths from 2 to 126. The number
/// of splits follows from the lengths of the inputs.
pub(crate) const WHOLE: Count = Count {
    inputs: 2 * (65_536 * (5 + 1) + 256 + 125),
    splits: 4_470_820,
};
/// Without the splits.
pub(crate) const SMALL: Count = Count { splits: 0, ..WHOLE };

const LIMITS: Limits = Limits {
    message_size_max: 16 << 20,
    empty_fragments_max: 1000,
};

pub(crate) fn run(scale: Scale) -> Count {
    let codes = in_parallel(256, |high| {
        let mut count = Count::default();
        for low in 0..=255 {
            let code = u16::from_be_bytes([high as u8, low]);
            count += received(
                scale,
                REASONS.iter().map(|reason| [&code.to_be_bytes(), *reason].concat()),
            );
            count += sent(code);
        }
        count
    });
    let one_byte = (0..=255).map(|byte| vec![byte]);
    let lengths = (2..=126).map(|len| [b"\x03\xe8".to_vec(), vec![b'r'; len - 2]].concat());
    codes + received(scale, one_byte.chain(lengths))
}

/// Passes close frames with these bodies to both roles.
fn received(scale: Scale, bodies: impl Iterator<Item = Vec<u8>>) -> Count {
    let mut checker = Checker::default();
    let mut count = Count::default();
    let config = config(LIMITS);
    for body in bodies {
        for local in BOTH {
            let frame = Frame::new(local, true, 0x8, &body);
            let (wire, expected) = (wire_of([&frame]), expect(local, LIMITS, [&frame]));
            count.inputs += 1;
            match scale {
                Scale::Small => checker.check(local, &config, &wire, &[], &expected),
                Scale::Whole => count.splits += checker.check_cut_in_two(local, &config, &wire, &expected),
            }
        }
    }
    count
}

/// Closes a connection of both roles with `code`.
fn sent(code: u16) -> Count {
    // Without a reason, 1005 stands for a close frame without a code, so no reserved code is sent.
    let is_sendable = is_valid_on_wire(code) || code == 1005;
    let mut count = Count::default();
    let mask = || MaskingKey([0; 4]);
    for role in [Role::Server, Role::Client { mask }] {
        let now = sockeye_proto::Instant::ORIGIN;
        let mut connection = Connection::new(role, config(LIMITS), now);
        let expected = match is_sendable {
            true => Ok(()),
            false => Err(InvalidClose::Code(CloseCode(code))),
        };
        assert_eq!(connection.close(CloseCode(code), ""), expected, "{role:?} sends {code}");
        assert_eq!(connection.wants_transmit(), is_sendable, "{role:?} sends {code}");
        let mut out = vec![];
        connection.poll_transmit(&mut out);
        let carries_code = out.ends_with(&code.to_be_bytes());
        assert_eq!(carries_code, is_valid_on_wire(code), "{role:?} sends {code}");
        assert_eq!(CloseFrame::new(CloseCode(code), "r").is_ok(), is_valid_on_wire(code));
        count.inputs += 1;
    }
    count
}
