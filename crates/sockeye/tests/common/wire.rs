//! Frames as a peer writes and reads them, implemented from RFC 6455 §5.2 independently of the crate under test.

/// The key of the example in RFC 6455 §5.7.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    fin: bool,
    /// RSV1, set on the first frame of a compressed message.
    compressed: bool,
    opcode: u8,
    payload: Vec<u8>,
    /// A payload length in the header that differs from the actual one.
    declared: Option<u64>,
}

pub(crate) fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame {
        fin: true,
        compressed: false,
        opcode,
        payload: payload.as_ref().to_vec(),
        declared: None,
    }
}

pub(crate) fn continuation(payload: impl AsRef<[u8]>) -> Frame {
    frame(0x0, payload)
}

pub(crate) fn text(payload: impl AsRef<[u8]>) -> Frame {
    frame(0x1, payload)
}

pub(crate) fn binary(payload: impl AsRef<[u8]>) -> Frame {
    frame(0x2, payload)
}

pub(crate) fn close(code: u16, reason: &str) -> Frame {
    frame(0x8, [&code.to_be_bytes(), reason.as_bytes()].concat())
}

pub(crate) fn ping(payload: impl AsRef<[u8]>) -> Frame {
    frame(0x9, payload)
}

pub(crate) fn pong(payload: impl AsRef<[u8]>) -> Frame {
    frame(0xa, payload)
}

/// The texts of frames that are complete text messages. Fails on any other frame.
#[track_caller]
pub(crate) fn texts(frames: &[Frame]) -> Vec<String> {
    let text = |frame: &Frame| {
        assert!(
            frame.fin && !frame.compressed && frame.opcode == 0x1,
            "{frame:?} is no whole text message"
        );
        String::from_utf8(frame.payload.clone()).expect("UTF-8")
    };
    frames.iter().map(text).collect()
}

impl Frame {
    /// Clears FIN: more fragments follow.
    pub(crate) fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    /// Declares a payload length of `len` bytes in the header.
    pub(crate) fn declaring(mut self, len: u64) -> Self {
        self.declared = Some(len);
        self
    }

    /// FIN, RSV1 and the opcode.
    pub(crate) fn head(&self) -> (bool, bool, u8) {
        (self.fin, self.compressed, self.opcode)
    }

    pub(crate) fn is_ping(&self) -> bool {
        self.opcode == 0x9
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The encoded frame, masked if `mask`.
    pub(crate) fn bytes(&self, mask: bool) -> Vec<u8> {
        let mask_bit = u8::from(mask) << 7;
        let mut out = vec![u8::from(self.fin) << 7 | u8::from(self.compressed) << 6 | self.opcode];
        match self.declared.unwrap_or(self.payload.len() as u64) {
            len @ 0..=125 => out.push(mask_bit | len as u8),
            len @ 126..=0xffff => {
                out.push(mask_bit | 126);
                out.extend((len as u16).to_be_bytes());
            }
            len => {
                out.push(mask_bit | 127);
                out.extend(len.to_be_bytes());
            }
        }
        let key = if mask { KEY } else { [0; 4] };
        out.extend(mask.then_some(key).iter().flatten());
        out.extend(
            self.payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        out
    }

    /// Takes a complete frame from the front of `bytes`, and unmasks it.
    pub(crate) fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let [first, second, ..] = **bytes else { return None };
        let (extended, mask_len) = match second & 0x7f {
            126 => (2, usize::from(second >> 7) * 4),
            127 => (8, usize::from(second >> 7) * 4),
            _ => (0, usize::from(second >> 7) * 4),
        };
        let head = bytes.get(2..2 + extended + mask_len)?;
        let len = match extended {
            0 => u64::from(second & 0x7f),
            _ => head[..extended].iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        let start = 2 + extended + mask_len;
        let end = start + usize::try_from(len).ok()?;
        let payload = bytes.get(start..end)?;
        let key = match mask_len {
            0 => [0; 4],
            _ => head[extended..].try_into().expect("four bytes"),
        };
        let unmasked = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        let frame = Self {
            fin: first & 0x80 != 0,
            compressed: first & 0x40 != 0,
            opcode: first & 0xf,
            payload: unmasked.collect(),
            declared: None,
        };
        assert_eq!(first & 0x30, 0, "reserved bits of {frame:?}");
        bytes.drain(..end);
        Some(frame)
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let payload = String::from_utf8_lossy(&self.payload[..self.payload.len().min(40)]);
        let (fin, opcode, len) = (self.fin, self.opcode, self.payload.len());
        write!(f, "Frame(fin {fin}, opcode {opcode:#x}, {len} bytes {payload:?})")
    }
}
