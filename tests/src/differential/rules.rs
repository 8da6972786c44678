//! Rules that explain differences. Each rule checks its explanation on the session at hand: either the implementations
//! agree once one detail is repaired, or the frame really breaks the rule that the other implementation reports.

use std::fmt;

use sockeye_proto::ProtocolError;

use super::frames::{Found, walk};
use super::sockeye::{self, EmptyFragments, SockeyeVerdict};
use super::{End, Heard, MESSAGE_SIZE_MAX, Receiver, Session, Verdict, tungstenite};

/// An explained difference; `docs/differences.md` describes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Sockeye rejects a length that is not in the shortest form; tungstenite accepts it.
    NonMinimalLength,
    /// A 64-bit length with the top bit set: Sockeye reports 1002, tungstenite 1009.
    LengthTopBit,
    /// Sockeye limits consecutive empty fragments; tungstenite does not.
    EmptyFragments,
    /// Sockeye accepts close code 1014; tungstenite answers it with 1002.
    CloseCode1014,
    /// A close code that must not be sent: Sockeye fails with 1002; tungstenite reports and answers a close frame with
    /// 1002 instead of that code.
    CloseCodeReplaced,
    /// Sockeye fails before the frame is complete, tungstenite when it is.
    FoundLater,
    /// The frame breaks two rules with different close codes, and tungstenite reports the other one: a length over the
    /// limit, or a close reason that is not UTF-8.
    TwoFaults,
}

impl Class {
    /// All rules.
    pub const ALL: [Self; 7] = [
        Self::NonMinimalLength,
        Self::LengthTopBit,
        Self::EmptyFragments,
        Self::CloseCode1014,
        Self::CloseCodeReplaced,
        Self::FoundLater,
        Self::TwoFaults,
    ];
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explained {
    /// Both have this verdict.
    Agreed(Verdict),
    /// The verdicts differ for this reason.
    Differ(Class),
}

/// A difference that no rule explains.
#[derive(Debug)]
pub struct Unexplained {
    session: Session,
    sockeye: Verdict,
    tungstenite: Verdict,
    why: String,
}

impl fmt::Display for Unexplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            session,
            sockeye,
            tungstenite,
            why,
        } = self;
        write!(
            f,
            "{why}\n{session:?}\nsockeye-proto: {sockeye:#?}\ntungstenite: {tungstenite:#?}"
        )
    }
}

/// Runs a session through both implementations and explains a difference, if there is one.
///
/// # Errors
///
/// If there is a difference that no rule explains.
pub fn judge(session: &Session) -> Result<Explained, Box<Unexplained>> {
    let sockeye = sockeye::receive(session.receiver, EmptyFragments::Limited, session.pieces());
    let tungstenite = tungstenite::receive(session.receiver, session.pieces());
    let unexplained = |why: &str| {
        Box::new(Unexplained {
            session: session.clone(),
            sockeye: sockeye.verdict.clone(),
            tungstenite: tungstenite.clone(),
            why: why.into(),
        })
    };
    if sockeye.verdict.agrees_with(&tungstenite) {
        return Ok(Explained::Agreed(sockeye.verdict));
    }
    if sockeye::receive(session.receiver, EmptyFragments::Limited, [&session.bytes[..]]).verdict != sockeye.verdict {
        return Err(unexplained("our verdict depends on how the bytes are cut"));
    }
    if tungstenite::receive(session.receiver, [&session.bytes[..]]) != tungstenite {
        return Err(unexplained("tungstenite's verdict depends on how the bytes are cut"));
    }
    let stream = Stream {
        receiver: session.receiver,
        empty_fragments: EmptyFragments::Limited,
        bytes: session.bytes.clone(),
    };
    stream.explain().map(Explained::Differ).map_err(unexplained)
}

/// Completes a truncated header: with these bytes, lengths are minimal or over the limit.
const HEADER_FILLER: u8 = 1;

/// A stream of bytes, possibly repaired.
#[derive(Clone)]
struct Stream {
    receiver: Receiver,
    empty_fragments: EmptyFragments,
    bytes: Vec<u8>,
}

impl Stream {
    /// Byte by byte, to locate the error.
    fn sockeye(&self) -> SockeyeVerdict {
        sockeye::receive(self.receiver, self.empty_fragments, self.bytes.chunks(1))
    }

    fn tungstenite(&self) -> Verdict {
        tungstenite::receive(self.receiver, [&self.bytes[..]])
    }

    fn explain(&self) -> Result<Class, &'static str> {
        let (sockeye, tungstenite) = (self.sockeye(), self.tungstenite());
        let (Some(fault), Some(fault_at)) = (sockeye.fault, sockeye.fault_at) else {
            return match is_1014(&sockeye.verdict, &tungstenite) {
                true => Ok(Class::CloseCode1014),
                false => Err("we take what tungstenite does not"),
            };
        };
        if !tungstenite.heard.starts_with(&sockeye.verdict.heard) {
            return Err("they heard different things before the fault");
        }
        let frames = walk(&self.bytes);
        let frame = frames.iter().find(|frame| frame.place.contains(&(fault_at - 1)));
        let Some(frame) = frame else {
            return Err("the fault is in no frame");
        };
        match fault {
            ProtocolError::NonMinimalLength => self.explain_non_minimal(frame, &tungstenite),
            // Only the long form makes it too long for a control frame.
            ProtocolError::OversizedControl if frame.len.is_some_and(|len| len <= 125) => {
                self.explain_non_minimal(frame, &tungstenite)
            }
            ProtocolError::TooManyEmptyFragments => self.explain_empty_fragments(),
            ProtocolError::InvalidCloseCode(_) if is_replaced(&sockeye.verdict, &tungstenite) => {
                Ok(Class::CloseCodeReplaced)
            }
            _ if tungstenite.heard != sockeye.verdict.heard => Err("tungstenite heard more before it ended"),
            _ if tungstenite.end == End::Waiting => self.explain_later(frame),
            ProtocolError::LengthOverflow if tungstenite.code() == Some(1009) => Ok(Class::LengthTopBit),
            _ => match tungstenite.code().is_some_and(|code| breaks(&self.bytes, frame, code)) {
                true => Ok(Class::TwoFaults),
                false => Err("the frame at fault does not break the rule that tungstenite names"),
            },
        }
    }

    /// With the length in its shortest form, tungstenite's verdict is the same, and Sockeye agrees or differs by
    /// another rule.
    fn explain_non_minimal(&self, frame: &Found, tungstenite: &Verdict) -> Result<Class, &'static str> {
        let Some(repaired) = self.with_minimal_length(frame) else {
            return Err("the length is minimal");
        };
        if !repaired.tungstenite().agrees_with(tungstenite) {
            return Err("tungstenite does not read the length as it reads the minimal one");
        }
        repaired.explain_rest().map(|()| Class::NonMinimalLength)
    }

    fn explain_empty_fragments(&self) -> Result<Class, &'static str> {
        let repaired = Self {
            empty_fragments: EmptyFragments::Unlimited,
            ..self.clone()
        };
        repaired.explain_rest().map(|()| Class::EmptyFragments)
    }

    /// With the frame completed, tungstenite rejects it too.
    fn explain_later(&self, frame: &Found) -> Result<Class, &'static str> {
        if frame.missing_header == 0 && frame.missing_payload == 0 {
            return Err("tungstenite waits behind the frame at fault");
        }
        let mut filled = self.clone();
        // First the header, which may declare a length, then the payload.
        for filler in [HEADER_FILLER, 0] {
            let missing = match walk(&filled.bytes).last() {
                Some(frame) if filler == HEADER_FILLER => frame.missing_header as u64,
                Some(frame) if filled.tungstenite().end == End::Waiting => frame.missing_payload,
                _ => break,
            };
            if missing > MESSAGE_SIZE_MAX as u64 {
                return Err("tungstenite waits for a frame beyond the limit");
            }
            filled.bytes.resize(filled.bytes.len() + missing as usize, filler);
        }
        filled.explain_rest().map(|()| Class::FoundLater)
    }

    /// Whether a repaired stream has no difference, or one with an explanation.
    fn explain_rest(&self) -> Result<(), &'static str> {
        match self.sockeye().verdict.agrees_with(&self.tungstenite()) {
            true => Ok(()),
            false => self.explain().map(|_| ()),
        }
    }

    fn with_minimal_length(&self, frame: &Found) -> Option<Self> {
        let len = frame.len?;
        let place = frame.place.start + 2..frame.place.start + 2 + frame.len_bytes;
        let (short, long) = match (frame.len_bytes, len) {
            (2 | 8, 0..126) => (len as u8, Vec::new()),
            (8, 126..65_536) => (126, (len as u16).to_be_bytes().to_vec()),
            _ => return None,
        };
        let mut bytes = self.bytes.clone();
        bytes[place.start - 1] = bytes[place.start - 1] & 0x80 | short;
        bytes.splice(place, long);
        Some(Self { bytes, ..self.clone() })
    }
}

fn is_1014(sockeye: &Verdict, tungstenite: &Verdict) -> bool {
    let (Some((Heard::Close(1014, _), before)), Some((last, theirs_before))) =
        (sockeye.heard.split_last(), tungstenite.heard.split_last())
    else {
        return false;
    };
    before == theirs_before && *last == replaced()
}

/// Whether tungstenite saw the same events, followed by a close frame whose code it replaced.
fn is_replaced(sockeye: &Verdict, tungstenite: &Verdict) -> bool {
    tungstenite.heard.split_last() == Some((&replaced(), &sockeye.heard))
}

fn replaced() -> Heard {
    Heard::Close(1002, "Protocol violation".into())
}

/// Whether a frame by itself breaks a rule with this close code.
fn breaks(stream: &[u8], frame: &Found, code: u16) -> bool {
    match code {
        1002 => breaks_framing(frame),
        1007 => is_not_utf8(&frame.unmasked(stream), frame),
        1009 => frame.len.is_some_and(|len| len > MESSAGE_SIZE_MAX as u64),
        _ => false,
    }
}

fn breaks_framing(frame: &Found) -> bool {
    let is_reserved = matches!(frame.opcode, 3..=7 | 11..=15);
    let is_long = frame.len.is_some_and(|len| len > 125);
    frame.rsv != 0 || is_reserved || frame.is_control() && (!frame.fin || is_long)
}

fn is_not_utf8(payload: &[u8], frame: &Found) -> bool {
    let text = match frame.opcode {
        8 => payload.get(2..).unwrap_or_default(),
        _ => payload,
    };
    std::str::from_utf8(text).is_err()
}
