//! The bytes that hostile peers send.

use std::sync::Arc;

/// What is shared by all peers that send it.
pub(super) type Bytes = Arc<[u8]>;

/// The key of every frame: nobody here hides anything, but unmasking is to cost what it costs.
const MASKING_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// FIN and the opcode of a frame.
pub(super) mod first {
    pub(in super::super) const TEXT: u8 = 0x81;
    pub(in super::super) const BINARY: u8 = 0x82;
    pub(in super::super) const BINARY_TO_BE_CONTINUED: u8 = 0x02;
    pub(in super::super) const CONTINUATION_TO_BE_CONTINUED: u8 = 0x00;
    pub(in super::super) const CONTINUATION: u8 = 0x80;
    pub(in super::super) const CLOSE: u8 = 0x88;
    pub(in super::super) const PING: u8 = 0x89;
    /// With RSV1: compressed.
    pub(in super::super) const COMPRESSED_TO_BE_CONTINUED: u8 = 0x42;
}

/// A valid opening handshake.
pub(super) fn request() -> Vec<u8> {
    request_with("")
}

/// A valid opening handshake that offers compression.
pub(super) fn request_with_compression() -> Vec<u8> {
    request_with("Sec-WebSocket-Extensions: permessage-deflate\r\n")
}

fn request_with(header: &str) -> Vec<u8> {
    // The key is the sample of RFC 6455 §1.3.
    format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{header}\r\n"
    )
    .into()
}

/// A request of `len` bytes or a little less whose header fields do not end.
pub(super) fn endless_header(len: usize) -> Vec<u8> {
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    while head.len() + HEADER_FIELD.len() <= len {
        head.extend_from_slice(HEADER_FIELD);
    }
    head
}

/// A field long enough that the limit of their number is not met first.
pub(super) const HEADER_FIELD: &[u8] = &{
    let mut field = [b'a'; 400];
    (field[1], field[398], field[399]) = (b':', b'\r', b'\n');
    field
};

/// A client's frame.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame.extend(
        payload
            .iter()
            .zip(MASKING_KEY.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

/// The header of a client's frame, key included.
pub(super) fn header(first: u8, payload_len: u64) -> Vec<u8> {
    let mut header = vec![first];
    match payload_len {
        0..126 => header.push(0x80 | payload_len as u8),
        126..65_536 => {
            header.push(0x80 | 126);
            header.extend((payload_len as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend(payload_len.to_be_bytes());
        }
    }
    header.extend(MASKING_KEY);
    header
}

/// Bytes without any meaning, the same in every run.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// So many zeros as permessage-deflate sends them: raw deflate without the four bytes of its last, empty block.
pub(super) fn zeros_compressed(len: usize) -> Vec<u8> {
    // RFC 1951 by hand, for this one message: a thousandth of a stream of zeros is repetitions, two bits for 258 bytes.
    let mut bits = Bits::default();
    // A block with codes of its own: 257 + 29 codes for literals and lengths, 1 for distances, 4 + 14 for code lengths.
    bits.push(0b100, 3);
    bits.push(29, 5);
    bits.push(0, 5);
    bits.push(14, 4);
    // Code lengths in the order 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1: of use are 18 (a run of zeros), 1 and 2.
    for length in [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2] {
        bits.push(length, 3);
    }
    // The canonical codes of code lengths: 18 is 0, 1 is 10, 2 is 11, the first bit first.
    let (run_of_zeros, one, two) = ((0b0, 1), (0b01, 2), (0b11, 2));
    let run = |bits: &mut Bits, len: u32| {
        bits.push(run_of_zeros.0, run_of_zeros.1);
        bits.push(len - 11, 7);
    };
    // Literal 0 has two bits, 1 to 255 none, the end of the block (256) two, 257 to 284 none, length 258 (285) one.
    bits.push(two.0, two.1);
    run(&mut bits, 138);
    run(&mut bits, 117);
    bits.push(two.0, two.1);
    run(&mut bits, 28);
    bits.push(one.0, one.1);
    // Distance 1 has one bit.
    bits.push(one.0, one.1);

    // The canonical codes: length 258 is 0, literal 0 is 10, the end is 11; distance 1 is 0.
    bits.push(0b01, 2);
    for _ in 0..len / 258 {
        bits.push(0, 2);
    }
    bits.push(0b11, 2);
    // The empty stored block whose last four bytes RFC 7692 §7.2.1 takes off: its three bits, filled up to a byte.
    bits.push(0b000, 3);
    bits.bytes
}

/// Writes bits as RFC 1951 §3.1.1 packs them: the lowest of a byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    fn push(&mut self, value: u32, count: usize) {
        for idx in 0..count {
            if self.len.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> idx & 1) as u8) << (self.len % 8);
            }
            self.len += 1;
        }
    }
}
