//! Generates sessions from seeds.

use std::fmt;

use super::Receiver;
use super::frames::{Frame, LengthForm};
use super::random::Random;

/// The bytes that one peer sends, and the pieces in which they arrive.
#[derive(Clone)]
pub struct Session {
    /// The seed.
    pub seed: u64,
    /// The receiver.
    pub receiver: Receiver,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The positions at which they are cut, in ascending order.
    pub cuts: Vec<usize>,
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Lengths at the boundaries of the length forms and at the message limit.
const LENGTHS: [usize; 14] = [0, 1, 2, 3, 7, 40, 125, 126, 127, 300, 500, 999, 1000, 1001];

/// Close codes at the boundaries of the ranges in RFC 6455 §7.4.
const CLOSE_CODES: [u16; 26] = [
    0, 1, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 1016,
    2999, 3000, 3999, 4000, 4999, 5000,
];

/// Text with UTF-8 sequences of all lengths.
const TEXTS: [&str; 5] = [
    "",
    "plain",
    "\u{e9}t\u{e9}",
    "\u{20ac}\u{4e16}\u{754c}",
    "\u{1f41f} \u{10ffff}",
];

/// Invalid UTF-8: a stray byte, an overlong form, a surrogate, a code point out of range, and each kind of truncation.
const BAD_TEXTS: [&[u8]; 10] = [
    b"\x80",
    b"\xc0\xaf",
    b"\xe0\x80\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf8",
    b"ok \xc3",
    b"ok \xe2\x82",
    b"ok \xf0\x9f\x90",
    b"\xffend",
];

impl Session {
    /// The session of a seed; always the same.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let receiver = random.pick(&[Receiver::Server, Receiver::Client]);
        let mut frames = Vec::new();
        for _ in 0..=random.below(5) {
            add_unit(&mut random, &mut frames);
        }
        for frame in &mut frames {
            frame.key =
                (receiver == Receiver::Server).then(|| random.next().to_le_bytes()[..4].try_into().unwrap_or([0; 4]));
        }
        // Half of all sessions stay valid.
        if random.one_in(2) {
            for _ in 0..=random.below(2) {
                spoil_frame(&mut random, &mut frames);
            }
        }
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.append_to(&mut bytes));
        if random.one_in(8) {
            spoil_bytes(&mut random, &mut bytes);
        }
        let cuts = cuts(&mut random, bytes.len());
        Self {
            seed,
            receiver,
            bytes,
            cuts,
        }
    }

    /// The bytes, cut into pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.cuts.iter().copied());
        let ends = self.cuts.iter().copied().chain(std::iter::once(self.bytes.len()));
        starts.zip(ends).map(|(start, end)| &self.bytes[start..end])
    }
}

/// Adds a message, whole or in fragments with control frames in between, or a control frame.
fn add_unit(random: &mut Random, frames: &mut Vec<Frame>) {
    match random.below(10) {
        0..=4 => add_message(random, frames),
        5..=8 => frames.push(control(random)),
        _ => frames.push(close(random)),
    }
}

fn add_message(random: &mut Random, frames: &mut Vec<Frame>) {
    let is_text = random.one_in(2);
    let payload = if is_text { text(random) } else { binary(random) };
    let count = if random.one_in(2) { 1 } else { 1 + random.below(6) };
    let mut rest = &payload[..];
    for idx in 0..count {
        let is_last = idx + 1 == count;
        // A fragment may be empty, and may split a code point.
        let len = if is_last {
            rest.len()
        } else {
            random.below(rest.len() + 1)
        };
        let opcode = match (idx, is_text) {
            (0, true) => TEXT,
            (0, false) => BINARY,
            _ => CONTINUATION,
        };
        frames.push(frame(is_last, opcode, rest[..len].to_vec()));
        rest = &rest[len..];
        if !is_last && random.one_in(4) {
            frames.push(control(random));
        }
    }
}

fn text(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..random.below(5) {
        text.extend(random.pick(&TEXTS).bytes());
    }
    if random.one_in(8) {
        let len = random.pick(&LENGTHS);
        text = "x".repeat(len).into();
    }
    if random.one_in(10) {
        text.extend(random.pick(&BAD_TEXTS));
    }
    text
}

fn binary(random: &mut Random) -> Vec<u8> {
    let len = if random.one_in(3) {
        random.pick(&LENGTHS)
    } else {
        random.below(30)
    };
    random.bytes(len)
}

fn control(random: &mut Random) -> Frame {
    let opcode = random.pick(&[PING, PONG]);
    let len = if random.one_in(8) {
        random.pick(&LENGTHS[..9])
    } else {
        random.below(10)
    };
    frame(true, opcode, random.bytes(len))
}

fn close(random: &mut Random) -> Frame {
    let mut body = Vec::new();
    if !random.one_in(5) {
        let code = if random.one_in(2) {
            random.pick(&CLOSE_CODES)
        } else {
            1000
        };
        body.extend(code.to_be_bytes());
        body.extend(random.pick(&TEXTS).bytes());
        if random.one_in(8) {
            body.extend(random.pick(&BAD_TEXTS));
        }
        if random.one_in(12) {
            body.truncate(1);
        }
    }
    frame(true, CLOSE, body)
}

fn frame(fin: bool, opcode: u8, payload: Vec<u8>) -> Frame {
    Frame {
        fin,
        rsv: 0,
        opcode,
        key: None,
        form: LengthForm::Minimal,
        declared: None,
        payload,
    }
}

/// Breaks a rule, with some probability.
fn spoil_frame(random: &mut Random, frames: &mut Vec<Frame>) {
    let idx = random.below(frames.len());
    let frame = &mut frames[idx];
    match random.below(10) {
        0 => frame.fin = !frame.fin,
        1 => frame.rsv = random.pick(&[1, 2, 4, 7]),
        2 => frame.opcode = random.byte() & 15,
        3 => {
            frame.key = match frame.key {
                Some(_) => None,
                None => Some([5, 6, 7, 8]),
            }
        }
        4 | 5 => frame.form = random.pick(&[LengthForm::At16, LengthForm::At64]),
        6 => {
            let declared = [1001, 65_535, 65_536, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX];
            frame.declared = Some(random.pick(&declared));
        }
        7 => {
            let copy = frame.clone();
            frames.insert(idx, copy);
        }
        8 => drop(frames.swap_remove(idx)),
        _ => frame.payload.extend(random.bytes(200)),
    }
    if frames.is_empty() {
        frames.push(control(random));
    }
}

/// Corrupts bytes at a random position.
fn spoil_bytes(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(4) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes.truncate(at),
        2 => drop(bytes.remove(at)),
        _ => bytes.insert(at, random.byte()),
    }
}

/// Anything from one piece to single bytes.
fn cuts(random: &mut Random, len: usize) -> Vec<usize> {
    let count = match random.below(4) {
        0 => 0,
        1 => 1,
        2 => random.below(6),
        _ => len.min(random.below(64)),
    };
    let mut cuts: Vec<_> = (0..count).map(|_| random.below(len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {:#x}, to a {:?}, cut at {:?}",
            self.seed, self.receiver, self.cuts
        )?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
