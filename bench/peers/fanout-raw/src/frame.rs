//! Frames (RFC 6455 §5.2), as far as this server needs them.

use std::io::{self, ErrorKind};

pub(crate) const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

const PAYLOAD_SIZE_MAX: u64 = 16 * 1024 * 1024;

pub(crate) enum Frame<'a> {
    /// The opcode and payload of a frame.
    Message(u8, &'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(&'a [u8]),
}

/// Unmasks the first frame in place and passes it on. Returns its length, or `None` while it is incomplete.
pub(crate) fn take(bytes: &mut [u8], act: impl FnOnce(Frame<'_>) -> io::Result<()>) -> io::Result<Option<usize>> {
    let &[first, second, ..] = &*bytes else {
        return Ok(None);
    };
    let (len, header_len) = match second & 0x7F {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => (u64::from_be_bytes(bytes), 10),
            None => return Ok(None),
        },
        len => (u64::from(len), 2),
    };
    // Unfragmented and masked, without extensions.
    if first & 0xF0 != 0x80 || second & 0x80 == 0 || len > PAYLOAD_SIZE_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    let start = header_len + 4;
    let end = start + len as usize;
    let Some(frame) = bytes.get_mut(header_len..end) else {
        return Ok(None);
    };
    let (key, payload) = frame.split_at_mut(4);
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    act(match first & 0x0F {
        opcode @ (1 | 2) => Frame::Message(opcode, payload),
        CLOSE => Frame::Close(payload),
        PING => Frame::Ping(payload),
        PONG => Frame::Pong,
        _ => return Err(ErrorKind::InvalidData.into()),
    })?;
    Ok(Some(end))
}

/// Appends an unmasked, unfragmented frame.
pub(crate) fn encode(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ ..=125 => out.push(len as u8),
        len @ ..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}
