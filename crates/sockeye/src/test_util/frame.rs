//! Frames with any content, also such that no correct endpoint sends.

/// A frame (RFC 6455 §5.2). Every field may be wrong.
///
/// ```
/// use sockeye::test_util::Frame;
///
/// let first_fragment = Frame { fin: false, ..Frame::text("begins") };
/// let compressed_without_negotiation = Frame { rsv: 4, ..Frame::binary([0]) };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether this is the last fragment of its message.
    pub fin: bool,
    /// The three reserved bits; 4 is RSV1.
    pub rsv: u8,
    /// The opcode: 0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong. Only the low four bits are sent.
    pub opcode: u8,
    /// The payload, unmasked.
    pub payload: Vec<u8>,
    /// The payload length in the header, if it lies. `None`: that of `payload`.
    pub declared_len: Option<u64>,
}

impl Frame {
    /// A complete frame with this opcode.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            fin: true,
            rsv: 0,
            opcode,
            payload: payload.into(),
            declared_len: None,
        }
    }

    /// A text message.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(1, text.into())
    }

    /// A binary message.
    pub fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(2, payload)
    }

    /// A ping.
    pub fn ping(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(9, payload)
    }

    /// A pong.
    pub fn pong(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(10, payload)
    }

    /// A close frame.
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(8, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    /// The payload as text, if this is a text frame.
    pub fn as_text(&self) -> Option<&str> {
        match self.opcode {
            1 => std::str::from_utf8(&self.payload).ok(),
            _ => None,
        }
    }

    /// The close code, if this is a close frame with one.
    pub fn close_code(&self) -> Option<u16> {
        match (self.opcode, &self.payload[..]) {
            (8, [high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }

    /// The bytes on the wire.
    pub(super) fn encode(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let len = self.declared_len.unwrap_or(self.payload.len() as u64);
        let mask_bit = u8::from(mask.is_some()) << 7;
        let mut bytes = vec![u8::from(self.fin) << 7 | (self.rsv & 7) << 4 | self.opcode & 0xf];
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(len @ ..=125), _) => bytes.push(mask_bit | len),
            (_, Ok(len)) => {
                bytes.push(mask_bit | 126);
                bytes.extend(len.to_be_bytes());
            }
            _ => {
                bytes.push(mask_bit | 127);
                bytes.extend(len.to_be_bytes());
            }
        }
        bytes.extend(mask.into_iter().flatten());
        let key = mask.unwrap_or_default();
        bytes.extend(
            self.payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        bytes
    }

    /// Takes the first complete frame from `bytes`, and unmasks it.
    pub(super) fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let [first, second, ..] = **bytes else { return None };
        let (len, mut start) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
            len => (u64::from(len), 2),
        };
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            key = bytes.get(start..start + 4)?.try_into().ok()?;
            start += 4;
        }
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        let payload = bytes.get(start..end)?.iter().zip(key.iter().cycle());
        let frame = Self {
            fin: first & 0x80 != 0,
            rsv: first >> 4 & 7,
            opcode: first & 0xf,
            payload: payload.map(|(byte, key)| byte ^ key).collect(),
            declared_len: None,
        };
        bytes.drain(..end);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_are_encoded_and_taken() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let frame = Frame::binary(vec![7; len]);
                let whole = frame.encode(mask);
                let mut bytes = whole[..whole.len() - 1].to_vec();
                assert_eq!(Frame::take(&mut bytes), None);
                bytes = [&whole[..], b"rest"].concat();
                assert_eq!(Frame::take(&mut bytes), Some(frame));
                assert_eq!(bytes, b"rest");
            }
        }
    }
}
