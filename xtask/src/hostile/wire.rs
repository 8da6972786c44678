//! The bytes that the hostile peers send.

use std::sync::Arc;

use flate2::{Compress, Compression, FlushCompress};

/// Bytes that several peers share.
pub(super) type Bytes = Arc<[u8]>;

/// The masking key of every frame. Not zero, so that the server pays for unmasking.
const MASKING_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// First bytes of frames: FIN, RSV1 and opcode.
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

/// An unfinished request head of at most `len` bytes.
pub(super) fn endless_header(len: usize) -> Vec<u8> {
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    while head.len() + HEADER_FIELD.len() <= len {
        head.extend_from_slice(HEADER_FIELD);
    }
    head
}

/// A header field so long that the size limit is reached before the limit on the number of fields.
pub(super) const HEADER_FIELD: &[u8] = &{
    let mut field = [b'a'; 400];
    (field[1], field[398], field[399]) = (b':', b'\r', b'\n');
    field
};

/// A masked client frame.
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

/// The header of a client frame, with its masking key.
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

/// Pseudo-random bytes, the same in every run.
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

/// `len` zeros as permessage-deflate sends them: raw deflate without the last four bytes of its empty block
/// (RFC 7692 §7.2.1).
pub(super) fn zeros_compressed(len: usize) -> Vec<u8> {
    // Deflate needs a little more than a thousandth.
    let mut compressed = Vec::with_capacity(len / 500 + 64);
    Compress::new(Compression::best(), false)
        .compress_vec(&vec![0; len], &mut compressed, FlushCompress::Sync)
        .expect("the output has room");
    compressed.truncate(compressed.len() - 4);
    compressed
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};

    #[test]
    fn compressed_zeros_inflate_to_their_length() {
        const LEN: usize = 16 << 20;
        let mut compressed = super::zeros_compressed(LEN);
        assert!(compressed.len() < 17 << 10, "{}", compressed.len());
        compressed.extend([0, 0, 0xff, 0xff]);
        let mut inflated = Vec::with_capacity(LEN + 1);
        Decompress::new(false)
            .decompress_vec(&compressed, &mut inflated, FlushDecompress::Sync)
            .expect("the stream is valid");
        assert!(inflated.len() == LEN && inflated.iter().all(|byte| *byte == 0));
    }
}
