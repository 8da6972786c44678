//! A naive decoder written from RFC 6455 §5 that sees the whole stream at once.

use sockeye_proto::{CloseCode, Limits, ProtocolError};

use super::endpoint::{Got, Local};

/// Decodes `stream` up to the first protocol error or close frame, as an endpoint with `limits` must.
pub(crate) fn decode_naively(local: Local, limits: &Limits, stream: &[u8]) -> Vec<Got> {
    let mut got = Vec::new();
    let mut reference = Reference {
        local,
        limits,
        stream,
        message: None,
    };
    loop {
        match reference.next_frame() {
            Ok(Step::Incomplete) => return got,
            Ok(Step::Fragment) => {}
            Ok(Step::Got(event)) => {
                let is_last = matches!(event, Got::Close(..));
                got.push(event);
                if is_last {
                    return got;
                }
            }
            Err(error) => {
                got.push(Got::ProtocolError(error));
                return got;
            }
        }
    }
}

struct Reference<'a> {
    local: Local,
    limits: &'a Limits,
    stream: &'a [u8],
    /// Opcode, payload so far, number of consecutive empty fragments.
    message: Option<(u8, Vec<u8>, u32)>,
}

enum Step {
    Incomplete,
    Fragment,
    Got(Got),
}

impl Reference<'_> {
    fn next_frame(&mut self) -> Result<Step, ProtocolError> {
        let stream = self.stream;
        if stream.len() < 2 {
            return Ok(Step::Incomplete);
        }
        let (fin, rsv, opcode) = (stream[0] >= 0x80, stream[0] >> 4 & 7, stream[0] & 15);
        let (is_masked, short) = (stream[1] >= 0x80, stream[1] & 127);
        let is_control = opcode >= 8;
        if [3, 4, 5, 6, 7, 11, 12, 13, 14, 15].contains(&opcode) {
            return Err(ProtocolError::ReservedOpcode(opcode));
        }
        if is_control && !fin {
            return Err(ProtocolError::FragmentedControl);
        }
        if is_control && short > 125 {
            return Err(ProtocolError::OversizedControl);
        }

        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(long) = stream.get(2..2 + length_bytes) else {
            return Ok(Step::Incomplete);
        };
        let long = long.iter().fold(0, |len: u64, &byte| len << 8 | u64::from(byte));
        let len = if length_bytes == 0 { u64::from(short) } else { long };
        if len > i64::MAX as u64 {
            return Err(ProtocolError::LengthOverflow);
        }
        if length_bytes == 2 && len < 126 || length_bytes == 8 && len < 65536 {
            return Err(ProtocolError::NonMinimalLength);
        }

        let payload_at = 2 + length_bytes + if is_masked { 4 } else { 0 };
        if stream.len() < payload_at {
            return Ok(Step::Incomplete);
        }
        if rsv != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        match (self.local, is_masked) {
            (Local::Server, false) => return Err(ProtocolError::UnmaskedFrame),
            (Local::Client, true) => return Err(ProtocolError::MaskedFrame),
            _ => {}
        }
        let key = if is_masked {
            &stream[payload_at - 4..payload_at]
        } else {
            &[0; 4]
        };
        let arrived = (stream.len() - payload_at).min(usize::try_from(len).unwrap_or(usize::MAX));
        let is_whole = arrived as u64 == len;
        let payload: Vec<u8> = (0..arrived).map(|i| stream[payload_at + i] ^ key[i % 4]).collect();
        self.stream = &stream[payload_at + arrived..];

        if is_control {
            return match (is_whole, opcode) {
                (false, _) => Ok(Step::Incomplete),
                (true, 8) => close(&payload).map(Step::Got),
                (true, 9) => Ok(Step::Got(Got::Ping(payload))),
                (true, _) => Ok(Step::Got(Got::Pong(payload))),
            };
        }
        self.data(fin, opcode, len, payload, is_whole)
    }

    fn data(
        &mut self,
        fin: bool,
        opcode: u8,
        len: u64,
        payload: Vec<u8>,
        is_whole: bool,
    ) -> Result<Step, ProtocolError> {
        let (kind, mut message, mut empty) = match (self.message.take(), opcode) {
            (None, 0) => return Err(ProtocolError::UnexpectedContinuation),
            (Some(_), 1 | 2) => return Err(ProtocolError::ExpectedContinuation),
            (Some(message), _) => message,
            (None, kind) => (kind, Vec::new(), 0),
        };
        if u128::from(len) + message.len() as u128 > u128::from(self.limits.message_size_max) {
            return Err(ProtocolError::MessageTooBig);
        }
        empty = if len == 0 && !fin { empty + 1 } else { 0 };
        if empty > self.limits.empty_fragments_max {
            return Err(ProtocolError::TooManyEmptyFragments);
        }
        message.extend(payload);
        let ends = fin && is_whole;
        if kind == 1
            && let Err(error) = std::str::from_utf8(&message)
            // Without `error_len`, the text ends inside a code point, which is an error only at the end of the message.
            && (ends || error.error_len().is_some())
        {
            return Err(ProtocolError::InvalidUtf8);
        }
        match (is_whole, ends, kind) {
            (false, ..) => return Ok(Step::Incomplete),
            (true, false, _) => {}
            (true, true, 1) => return Ok(Step::Got(Got::Text(String::from_utf8(message).unwrap()))),
            (true, true, _) => return Ok(Step::Got(Got::Binary(message))),
        }
        self.message = Some((kind, message, empty));
        Ok(Step::Fragment)
    }
}

fn close(payload: &[u8]) -> Result<Got, ProtocolError> {
    if payload.is_empty() {
        return Ok(Got::close(1005, ""));
    }
    if payload.len() == 1 {
        return Err(ProtocolError::TruncatedCloseCode);
    }
    let code = u16::from_be_bytes([payload[0], payload[1]]);
    let is_valid = (1000..1015).contains(&code) && ![1004, 1005, 1006].contains(&code) || (3000..5000).contains(&code);
    if !is_valid {
        return Err(ProtocolError::InvalidCloseCode(CloseCode(code)));
    }
    match std::str::from_utf8(&payload[2..]) {
        Ok(reason) => Ok(Got::close(code, reason)),
        Err(_) => Err(ProtocolError::InvalidUtf8),
    }
}
