//! A DSL to write and parse frames in tests.
//!
//! Encodes frames according to RFC 6455 §5.2 without the crate under test, because an error in its encoder could hide
//! the same error in its decoder. Frames may be invalid.

/// The key of the example in RFC 6455 §5.7.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) payload: Vec<u8>,
    /// The payload length in the header, if it differs from the actual length.
    declared: Option<u64>,
}

pub(crate) fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame {
        fin: true,
        rsv: 0,
        opcode,
        mask: None,
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

/// The bytes of several frames, one after the other.
pub(crate) fn wire(frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
    frames.into_iter().flat_map(|frame| frame.bytes()).collect()
}

impl Frame {
    pub(crate) fn fin(mut self, fin: bool) -> Self {
        self.fin = fin;
        self
    }

    pub(crate) fn rsv(mut self, rsv: u8) -> Self {
        self.rsv = rsv;
        self
    }

    /// Masked with `key`, as a client's frame is.
    pub(crate) fn masked(mut self, key: [u8; 4]) -> Self {
        self.mask = Some(key);
        self
    }

    /// Declares a payload length of `len` bytes in the header, regardless of the payload.
    pub(crate) fn declaring(mut self, len: u64) -> Self {
        self.declared = Some(len);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        let masked = u8::from(self.mask.is_some()) << 7;
        match self.declared.unwrap_or(self.payload.len() as u64) {
            len @ 0..=125 => out.push(masked | len as u8),
            len @ 126..=0xffff => {
                out.push(masked | 126);
                out.extend((len as u16).to_be_bytes());
            }
            len => {
                out.push(masked | 127);
                out.extend(len.to_be_bytes());
            }
        }
        let key = self.mask.unwrap_or_default();
        out.extend(self.mask.iter().flatten());
        out.extend(
            self.payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        out
    }

    /// Parses complete frames sent by an endpoint. Unmasks payloads and keeps the keys.
    #[track_caller]
    pub(crate) fn parse_all(mut bytes: &[u8]) -> Vec<Self> {
        let mut frames = Vec::new();
        while let [first, second, rest @ ..] = bytes {
            let (len, rest) = match second & 0x7f {
                126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
                127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
                len => (usize::from(len), rest),
            };
            let (mask, rest) = match second & 0x80 {
                0 => (None, rest),
                _ => (Some(<[u8; 4]>::try_from(&rest[..4]).unwrap()), &rest[4..]),
            };
            let (payload, rest) = rest.split_at(len);
            let key = mask.unwrap_or_default();
            frames.push(Self {
                fin: first & 0x80 != 0,
                rsv: first >> 4 & 7,
                opcode: first & 0xf,
                mask,
                payload: payload
                    .iter()
                    .zip(key.iter().cycle())
                    .map(|(byte, key)| byte ^ key)
                    .collect(),
                declared: None,
            });
            bytes = rest;
        }
        assert_eq!(bytes, [], "an incomplete frame was sent");
        frames
    }
}
