//! A model of an endpoint, written from RFC 6455 alone.
//!
//! The model works on structured frames, without bytes, buffers or splits. If a frame violates several rules, the RFC
//! does not specify which one to report, so the model returns all of them, and any is correct if the close code
//! matches. Errors in a header precede errors in its payload, and limits are checked only for valid frames.

use crate::frame::{Frame, LengthForm, Local};

/// A rule that a frame can violate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Rule {
    ReservedBits,
    ReservedOpcode,
    Unmasked,
    Masked,
    LengthNotShortest,
    LengthTopBit,
    ControlFragmented,
    ControlTooLong,
    NothingToContinue,
    MessageNotFinished,
    CloseBodyOfOneByte,
    CloseCode,
    NotUtf8,
    TooManyEmptyFragments,
    MessageTooBig,
}

/// A set of rules.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rules(u16);

/// The limits of the endpoint under test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) message_size_max: u64,
    pub(crate) empty_fragments_max: u32,
}

/// An event delivered to the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, Vec<u8>),
}

/// The final state of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Open, with this pending pong, if any.
    Open(Option<Vec<u8>>),
    /// Closed by the peer with this code, which is echoed. 1005 if there was none.
    Closed(u16),
    /// Failed because of one of these rules.
    Failed(Rules),
}

/// The expected outcome of a sequence of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) delivered: Vec<Delivered>,
    pub(crate) end: End,
}

struct Message {
    is_text: bool,
    bytes: Vec<u8>,
    /// Sum of the lengths declared so far.
    len: u128,
    empty_in_a_row: u32,
}

/// Returns the outcome of `frames`, of which only the last may be incomplete.
pub(crate) fn expect<'a>(local: Local, limits: Limits, frames: impl IntoIterator<Item = &'a Frame>) -> Expected {
    let (mut delivered, mut pong, mut message) = (Vec::new(), None, None);
    for frame in frames {
        let mut broken = violated_by_header(local, frame, message.is_some());
        if broken.is_empty() && !frame.is_control() {
            broken = violated_limits(limits, frame, message.as_ref());
        }
        if !broken.is_empty() {
            return Expected {
                delivered,
                end: End::Failed(broken),
            };
        }
        let is_whole = frame.payload.len() as u64 == frame.len;
        match frame.opcode {
            0x0..=0x2 => match data(frame, is_whole, &mut message) {
                Ok(said) => delivered.extend(said),
                Err(rule) => {
                    return Expected {
                        delivered,
                        end: End::Failed(rule.alone()),
                    };
                }
            },
            _ if !is_whole => {}
            0x8 => {
                let end = match close(&frame.payload) {
                    Ok((code, reason)) => {
                        delivered.push(Delivered::Close(code, reason));
                        End::Closed(code)
                    }
                    Err(rules) => End::Failed(rules),
                };
                // §5.5.1, §7.1.7: after a close frame or a failure, further input is ignored.
                return Expected { delivered, end };
            }
            0x9 => {
                // §5.5.2: a ping is answered with its payload. §5.5.3: answering only the newest is allowed.
                pong = Some(frame.payload.clone());
                delivered.push(Delivered::Ping(frame.payload.clone()));
            }
            _ => delivered.push(Delivered::Pong(frame.payload.clone())),
        }
    }
    Expected {
        delivered,
        end: End::Open(pong),
    }
}

/// The rules for a header, one per line with its section.
fn violated_by_header(local: Local, frame: &Frame, is_inside_message: bool) -> Rules {
    let is_first = matches!(frame.opcode, 0x1 | 0x2);
    let shortest = match frame.len {
        0..=125 => LengthForm::Short,
        126..=0xffff => LengthForm::Two,
        _ => LengthForm::Eight,
    };
    Rules::default()
        // §5.2: zero unless an extension defines them, and none is negotiated.
        .and(Rule::ReservedBits, frame.rsv != 0)
        // §5.2, §11.8: 3 to 7 and B to F are reserved.
        .and(Rule::ReservedOpcode, matches!(frame.opcode, 0x3..=0x7 | 0xb..=0xf))
        // §5.1: a client masks all frames.
        .and(Rule::Unmasked, local == Local::Server && !frame.is_masked)
        // §5.1: a server masks no frames.
        .and(Rule::Masked, local == Local::Client && frame.is_masked)
        // §5.2: the length uses the shortest encoding.
        .and(Rule::LengthNotShortest, frame.form != shortest)
        // §5.2: the top bit of a 64-bit length is zero.
        .and(Rule::LengthTopBit, frame.len >> 63 == 1)
        // §5.5: a control frame is not fragmented.
        .and(Rule::ControlFragmented, frame.is_control() && !frame.fin)
        // §5.5: a control frame has at most 125 bytes, so it cannot use the longer length encodings.
        .and(
            Rule::ControlTooLong,
            frame.is_control() && frame.form != LengthForm::Short,
        )
        // §5.4: a continuation requires a message in progress.
        .and(Rule::NothingToContinue, frame.opcode == 0x0 && !is_inside_message)
        // §5.4: fragments of different messages are not interleaved.
        .and(Rule::MessageNotFinished, is_first && is_inside_message)
}

/// §10.4: limits on the declared length of a frame.
fn violated_limits(limits: Limits, frame: &Frame, message: Option<&Message>) -> Rules {
    let (len, empty) = message.map_or((0, 0), |message| (message.len, message.empty_in_a_row));
    let is_empty = frame.len == 0 && !frame.fin;
    Rules::default()
        .and(
            Rule::MessageTooBig,
            len + u128::from(frame.len) > limits.message_size_max.into(),
        )
        .and(
            Rule::TooManyEmptyFragments,
            is_empty && empty >= limits.empty_fragments_max,
        )
}

/// §5.4, §5.6: a fragment or an unfragmented message.
fn data(frame: &Frame, is_whole: bool, message: &mut Option<Message>) -> Result<Option<Delivered>, Rule> {
    let is_text = frame.opcode == 0x1;
    let so_far = message.get_or_insert_with(|| Message {
        is_text,
        bytes: vec![],
        len: 0,
        empty_in_a_row: 0,
    });
    so_far.bytes.extend_from_slice(&frame.payload);
    so_far.len += u128::from(frame.len);
    so_far.empty_in_a_row = if frame.len == 0 && !frame.fin {
        so_far.empty_in_a_row + 1
    } else {
        0
    };
    let is_end = frame.fin && is_whole;
    // §8.1: text is UTF-8. It is invalid as soon as no continuation could make it valid (`error_len` is set), and at
    // the end of the message also if a character is truncated (`error_len` is not set).
    if so_far.is_text
        && let Err(error) = core::str::from_utf8(&so_far.bytes)
        && (is_end || error.error_len().is_some())
    {
        return Err(Rule::NotUtf8);
    }
    if !is_end {
        return Ok(None);
    }
    Ok(message.take().map(|message| match message.is_text {
        true => Delivered::Text(message.bytes),
        false => Delivered::Binary(message.bytes),
    }))
}

/// §5.5.1, §7.4: an empty body, or a code and a reason.
fn close(body: &[u8]) -> Result<(u16, Vec<u8>), Rules> {
    let (code, reason) = match body {
        // §7.1.5: a missing code is reported as 1005.
        [] => return Ok((1005, vec![])),
        // §5.5.1: a body starts with a two-byte code.
        [_] => return Err(Rule::CloseBodyOfOneByte.alone()),
        [high, low, reason @ ..] => (u16::from(*high) << 8 | u16::from(*low), reason),
    };
    let broken = Rules::default()
        .and(Rule::CloseCode, !is_valid_on_wire(code))
        // §5.5.1: the reason is UTF-8.
        .and(Rule::NotUtf8, core::str::from_utf8(reason).is_err());
    match broken.is_empty() {
        true => Ok((code, reason.to_vec())),
        false => Err(broken),
    }
}

/// §7.4.1, §7.4.2, and the IANA registry of close codes, which added 1012, 1013 and 1014.
pub(crate) fn is_valid_on_wire(code: u16) -> bool {
    match code {
        // §7.4.2: not used.
        0..1000 => false,
        // §7.4.1: reserved without a meaning.
        1004 => false,
        // §7.4.1: reported locally only, never sent.
        1005 | 1006 | 1015 => false,
        1000..1015 => true,
        // §7.4.2: for later versions of the protocol.
        1016..3000 => false,
        // §7.4.2: registered by libraries, and private.
        3000..5000 => true,
        5000.. => false,
    }
}

impl Frame {
    /// §5.5: the top bit of the opcode.
    fn is_control(&self) -> bool {
        self.opcode & 0x8 != 0
    }
}

impl Rule {
    /// §7.4.1: the close code of the rule.
    pub(crate) fn close_code(self) -> u16 {
        match self {
            Self::NotUtf8 => 1007,
            Self::TooManyEmptyFragments => 1008,
            Self::MessageTooBig => 1009,
            _ => 1002,
        }
    }

    pub(crate) fn alone(self) -> Rules {
        Rules::default().and(self, true)
    }
}

impl Rules {
    fn and(self, rule: Rule, is_violated: bool) -> Self {
        Self(self.0 | u16::from(is_violated) << rule as u8)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn contains(self, rule: Rule) -> bool {
        self.0 >> rule as u8 & 1 == 1
    }
}

impl core::fmt::Debug for Rules {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use Rule::*;
        let all = [
            ReservedBits,
            ReservedOpcode,
            Unmasked,
            Masked,
            LengthNotShortest,
            LengthTopBit,
            ControlFragmented,
            ControlTooLong,
            NothingToContinue,
            MessageNotFinished,
            CloseBodyOfOneByte,
            CloseCode,
            NotUtf8,
            TooManyEmptyFragments,
            MessageTooBig,
        ];
        f.debug_set()
            .entries(all.into_iter().filter(|rule| self.contains(*rule)))
            .finish()
    }
}
