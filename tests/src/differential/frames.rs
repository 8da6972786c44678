//! Writes frames, valid or not, and parses a stream into frames without rejecting any.

use std::ops::Range;

/// A frame to send, in which every field may be invalid.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) fin: bool,
    /// Three bits.
    pub(super) rsv: u8,
    /// Four bits.
    pub(super) opcode: u8,
    pub(super) key: Option<[u8; 4]>,
    pub(super) form: LengthForm,
    /// The declared length, if it differs from the payload's.
    pub(super) declared: Option<u64>,
    pub(super) payload: Vec<u8>,
}

/// The form of the length (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LengthForm {
    /// The shortest form.
    Minimal,
    /// 16 bits, or 64 if the length does not fit.
    At16,
    /// 64 bits.
    At64,
}

impl Frame {
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        let masked = if self.key.is_some() { 0x80 } else { 0 };
        let len = self.declared.unwrap_or(self.payload.len() as u64);
        out.push(u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode);
        match (self.form, len) {
            (LengthForm::Minimal, 0..126) => out.push(masked | len as u8),
            (LengthForm::Minimal | LengthForm::At16, 0..65_536) => {
                out.push(masked | 126);
                out.extend((len as u16).to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend(len.to_be_bytes());
            }
        }
        let key = self.key.unwrap_or_default();
        out.extend(self.key.iter().flatten());
        out.extend(
            self.payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
    }
}

/// A frame found in a stream of bytes.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) rsv: u8,
    pub(super) opcode: u8,
    pub(super) fin: bool,
    /// The declared length; `None` if the stream ends before it.
    pub(super) len: Option<u64>,
    /// Number of extended length bytes.
    pub(super) len_bytes: usize,
    pub(super) key: Option<[u8; 4]>,
    /// From the first byte of the header to the last of the payload, as far as the stream contains them.
    pub(super) place: Range<usize>,
    pub(super) payload: Range<usize>,
    /// Number of header bytes missing from the stream.
    pub(super) missing_header: usize,
    /// Number of payload bytes missing from the stream; unknown if the header is incomplete.
    pub(super) missing_payload: u64,
}

/// The frames of a stream; the last one may be incomplete.
pub(super) fn walk(stream: &[u8]) -> Vec<Found> {
    let mut frames = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        let frame = find(stream, at);
        at = frame.place.end;
        frames.push(frame);
    }
    frames
}

fn find(stream: &[u8], at: usize) -> Found {
    let byte = |idx: usize| stream.get(idx).copied().unwrap_or_default();
    let (first, second) = (byte(at), byte(at + 1));
    let len_bytes = match second & 127 {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let is_masked = second & 0x80 != 0;
    let payload_at = at + 2 + len_bytes + if is_masked { 4 } else { 0 };
    let is_whole_header = payload_at <= stream.len();
    let key_at = payload_at.saturating_sub(4);
    let len = (at + 1 < stream.len() && at + 2 + len_bytes <= stream.len()).then(|| match len_bytes {
        0 => u64::from(second & 127),
        _ => (0..len_bytes).fold(0, |len, idx| len << 8 | u64::from(byte(at + 2 + idx))),
    });
    let available = stream.len().saturating_sub(payload_at) as u64;
    let arrived = len.filter(|_| is_whole_header).unwrap_or(0).min(available);
    let end = if is_whole_header {
        payload_at + arrived as usize
    } else {
        stream.len()
    };
    Found {
        rsv: first >> 4 & 7,
        opcode: first & 15,
        fin: first & 0x80 != 0,
        len,
        len_bytes,
        key: (is_masked && is_whole_header).then(|| [0, 1, 2, 3].map(|idx| byte(key_at + idx))),
        place: at..end,
        payload: payload_at.min(end)..end,
        missing_header: payload_at
            .saturating_sub(stream.len())
            .max(if at + 1 < stream.len() { 0 } else { 1 }),
        missing_payload: if is_whole_header { len.unwrap_or(0) - arrived } else { 0 },
    }
}

impl Found {
    pub(super) fn is_control(&self) -> bool {
        self.opcode >= 8
    }

    /// The payload received so far, unmasked.
    pub(super) fn unmasked(&self, stream: &[u8]) -> Vec<u8> {
        let key = self.key.unwrap_or_default();
        let payload = &stream[self.payload.clone()];
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect()
    }
}
