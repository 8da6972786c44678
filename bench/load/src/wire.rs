//! Minimal frames (RFC 6455 §5.2) and compression, so that the generator shares no code with the measured servers.

use anyhow::{Result, ensure};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Opcodes with the FIN bit.
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// The bit of the last fragment of a message.
const FIN: u8 = 0x80;

const FRAGMENT_LEN: usize = 64 * 1024;

/// The compression bit of permessage-deflate (RFC 7692 §6).
pub(crate) const COMPRESSED: u8 = 0x40;

/// A client frame, masked.
pub(crate) fn client_frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = header(first, 0x80, payload.len());
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A server frame, not masked.
pub(crate) fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0, payload.len());
    frame.extend(payload);
    frame
}

/// A server's message in fragments of 64 KiB, not masked. The last one is not empty.
pub(crate) fn server_fragments(first: u8, payload: &[u8]) -> Vec<u8> {
    let count = payload.len().div_ceil(FRAGMENT_LEN).max(1);
    let mut frames = Vec::with_capacity(payload.len() + 10 * count);
    for idx in 0..count {
        let start = idx * FRAGMENT_LEN;
        let part = &payload[start..payload.len().min(start + FRAGMENT_LEN)];
        let fin = if idx + 1 == count { FIN } else { 0 };
        let opcode = if idx == 0 { first & !FIN } else { 0 };
        frames.extend(server_frame(fin | opcode, part));
    }
    frames
}

fn header(first: u8, mask_bit: u8, len: usize) -> Vec<u8> {
    let mut header = vec![first];
    match len {
        0..126 => header.push(mask_bit | len as u8),
        126..65_536 => {
            header.push(mask_bit | 126);
            header.extend((len as u16).to_be_bytes());
        }
        _ => {
            header.push(mask_bit | 127);
            header.extend((len as u64).to_be_bytes());
        }
    }
    header
}

/// The empty block that is omitted at the end of each message (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Compresses a message by itself.
pub(crate) fn deflate(payload: &[u8]) -> Result<Vec<u8>> {
    let mut codec = Compress::new(Compression::default(), false);
    // Enough for incompressible data and the block headers.
    let mut out = Vec::with_capacity(payload.len() + payload.len() / 1000 + 64);
    codec.compress_vec(payload, &mut out, FlushCompress::Sync)?;
    ensure!(
        codec.total_in() == payload.len() as u64 && out.ends_with(&TAIL),
        "a message did not compress in one step"
    );
    out.truncate(out.len() - TAIL.len());
    Ok(out)
}

/// Inflates messages that were compressed by themselves.
#[derive(Debug)]
pub(crate) struct Inflater {
    codec: Decompress,
    out: Vec<u8>,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self {
            codec: Decompress::new(false),
            out: Vec::new(),
        }
    }

    /// The inflated message, or an error if it is longer than `size_max`.
    pub(crate) fn inflate(&mut self, compressed: &[u8], size_max: usize) -> Result<&[u8]> {
        self.codec.reset(false);
        self.out.clear();
        // One byte more than allowed, to tell a message at the limit from a longer one.
        self.out.reserve_exact(size_max + 1);
        for input in [compressed, &TAIL] {
            let before = self.codec.total_in();
            let status = self.codec.decompress_vec(input, &mut self.out, FlushDecompress::Sync)?;
            let is_taken = self.codec.total_in() - before == input.len() as u64;
            ensure!(
                is_taken || status == Status::StreamEnd || self.out.len() > size_max,
                "a compressed reply does not end where its frame does"
            );
        }
        ensure!(self.out.len() <= size_max, "a reply inflates to more than was sent");
        Ok(&self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::{BINARY, Inflater, TEXT, client_frame, deflate, server_fragments, server_frame};

    #[test]
    fn frames_are_those_of_the_rfc() {
        // The samples of RFC 6455 §5.7.
        let key = [0x37, 0xfa, 0x21, 0x3d];
        assert_eq!(
            client_frame(TEXT, b"Hello", key),
            [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]
        );
        assert_eq!(server_frame(TEXT, b"Hello"), [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        for (len, start) in [
            (125, &[0x82, 125][..]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = server_frame(BINARY, &vec![0; len]);
            assert_eq!(&frame[..start.len()], start);
            assert_eq!(frame.len(), start.len() + len);
        }
    }

    #[test]
    fn fragments_have_64_kib() {
        let payload = vec![7; 2 * 65_536 + 1];
        let frames = server_fragments(BINARY, &payload);
        let expected = [
            server_frame(0x02, &payload[..65_536]),
            server_frame(0x00, &payload[..65_536]),
            server_frame(0x80, &payload[..1]),
        ];
        assert_eq!(frames, expected.concat());
        for len in [0, 1, 65_536] {
            assert_eq!(
                server_fragments(TEXT, &payload[..len]),
                server_frame(TEXT, &payload[..len])
            );
        }
    }

    #[test]
    fn what_is_compressed_inflates() {
        // The sample of RFC 7692 §7.2.3.1.
        assert_eq!(
            deflate(b"Hello").expect("it compresses"),
            [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]
        );
        let mut inflater = Inflater::new();
        for text in ["Hello", "a longer one, a longer one, a longer one", ""] {
            let compressed = deflate(text.as_bytes()).expect("it compresses");
            let inflated = inflater.inflate(&compressed, text.len());
            assert_eq!(inflated.expect("it inflates"), text.as_bytes());
        }
        let zeros = deflate(&[0; 1000]).expect("it compresses");
        assert!(inflater.inflate(&zeros, 999).is_err(), "longer than allowed");
    }
}
