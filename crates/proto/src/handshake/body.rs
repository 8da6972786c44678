//! Collects the body of a response that rejects the client, up to a size limit.
//!
//! Invalid framing ends the body and is not an error: the request is rejected in any case, and the connection is closed
//! afterwards, so the following bytes are never interpreted.

use alloc::vec::Vec;

use super::head::StatusLine;
use super::headers::Single;
use super::{Headers, HttpVersion, header_name};

/// Maximum length of a chunk size line, in bytes. Enough for sixteen digits and a chunk extension.
const CHUNK_LINE_LEN_MAX: usize = 256;

/// Collects a response body.
#[derive(Debug)]
pub(super) struct BodyCollector {
    framing: Framing,
    size_max: usize,
    bytes: Vec<u8>,
}

/// How the end of the body is determined (RFC 9112 §6.3).
#[derive(Debug)]
enum Framing {
    /// After this many more bytes.
    Length(u64),
    /// After the last chunk.
    Chunked(Chunk),
    /// When the connection is closed.
    Close,
    /// The body has ended.
    Ended(BodyEnd),
}

/// Position of the next byte within a chunk.
#[derive(Debug)]
enum Chunk {
    /// In the size line. Contains the part received so far.
    Size(Vec<u8>),
    /// In the data. Contains the number of remaining bytes.
    Data(u64),
    /// In the line end after the data. Contains the remaining bytes.
    End(&'static [u8]),
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    Complete,
    Truncated,
}

impl BodyCollector {
    pub(super) fn new(line: StatusLine, headers: &Headers, size_max: usize) -> Self {
        Self {
            framing: Framing::of(line, headers),
            size_max,
            bytes: Vec::new(),
        }
    }

    /// Processes bytes. Returns `Some` once the body has ended.
    pub(super) fn handle_bytes(&mut self, mut input: &[u8]) -> Option<BodyEnd> {
        loop {
            match &mut self.framing {
                Framing::Ended(end) => return Some(*end),
                Framing::Length(0) => self.framing = Framing::Ended(BodyEnd::Complete),
                _ if input.is_empty() => return None,
                Framing::Length(left) => {
                    let data = take(&mut input, left);
                    self.keep(data);
                }
                Framing::Close => {
                    self.keep(input);
                    input = &[];
                }
                Framing::Chunked(chunk) => match chunk.handle_bytes(&mut input) {
                    ChunkStep::Data(data) => self.keep(data),
                    ChunkStep::Last => self.framing = Framing::Ended(BodyEnd::Complete),
                    ChunkStep::Malformed => self.framing = Framing::Ended(BodyEnd::Truncated),
                },
            }
        }
    }

    /// Handles the end of the connection.
    pub(super) const fn handle_eof(&self) -> BodyEnd {
        match self.framing {
            Framing::Close => BodyEnd::Complete,
            Framing::Ended(end) => end,
            Framing::Length(_) | Framing::Chunked(_) => BodyEnd::Truncated,
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends data up to the limit. Ends the body if the limit is exceeded.
    fn keep(&mut self, data: &[u8]) {
        let room = self.size_max - self.bytes.len();
        match data.get(..room) {
            Some(kept) if kept.len() < data.len() => {
                self.bytes.extend_from_slice(kept);
                self.framing = Framing::Ended(BodyEnd::Truncated);
            }
            _ => self.bytes.extend_from_slice(data),
        }
    }
}

impl Framing {
    fn of(line: StatusLine, headers: &Headers) -> Self {
        // RFC 9112 §6.3 (1): these have no body, regardless of the headers.
        if matches!(line.status.as_u16(), 204 | 304) {
            return Self::Length(0);
        }
        if headers.contains(header_name::TRANSFER_ENCODING) {
            return Self::of_transfer_encoding(line.version, headers);
        }
        match headers.single(header_name::CONTENT_LENGTH) {
            Single::Absent => Self::Close,
            Single::One(value) => match parse_length(value) {
                Some(length) => Self::Length(length),
                None => Self::Ended(BodyEnd::Truncated),
            },
            Single::Repeated => Self::Ended(BodyEnd::Truncated),
        }
    }

    /// RFC 9112 §6.3 (4): if chunked is not the last encoding, the body ends with the connection.
    fn of_transfer_encoding(version: HttpVersion, headers: &Headers) -> Self {
        let last = headers.list(header_name::TRANSFER_ENCODING).last();
        let is_chunked = last.is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        match is_chunked && version.has_transfer_encoding() {
            true => Self::Chunked(Chunk::Size(Vec::new())),
            false => Self::Close,
        }
    }
}

/// Result of processing part of a chunked body.
enum ChunkStep<'a> {
    /// Data of the body; may be empty.
    Data(&'a [u8]),
    /// The last chunk. The trailer section after it is ignored.
    Last,
    /// Invalid framing.
    Malformed,
}

impl Chunk {
    /// Consumes at least one byte of the input, which must not be empty.
    fn handle_bytes<'a>(&mut self, input: &mut &'a [u8]) -> ChunkStep<'a> {
        match self {
            Self::Size(line) => {
                let end = memchr::memchr(b'\n', input).map_or(input.len(), |idx| idx + 1);
                let (piece, rest) = input.split_at(end);
                *input = rest;
                if line.len() + piece.len() > CHUNK_LINE_LEN_MAX {
                    return ChunkStep::Malformed;
                }
                line.extend_from_slice(piece);
                if !line.ends_with(b"\n") {
                    return ChunkStep::Data(&[]);
                }
                match parse_chunk_line(line) {
                    None => ChunkStep::Malformed,
                    Some(0) => ChunkStep::Last,
                    Some(size) => {
                        *self = Self::Data(size);
                        ChunkStep::Data(&[])
                    }
                }
            }
            Self::Data(left) => {
                let data = take(input, left);
                if *left == 0 {
                    *self = Self::End(b"\r\n");
                }
                ChunkStep::Data(data)
            }
            Self::End(expected) => {
                let (Some((byte, rest)), Some((expect, after))) = (input.split_first(), expected.split_first()) else {
                    return ChunkStep::Malformed;
                };
                if byte != expect {
                    return ChunkStep::Malformed;
                }
                *input = rest;
                *self = match after {
                    [] => Self::Size(Vec::new()),
                    _ => Self::End(after),
                };
                ChunkStep::Data(&[])
            }
        }
    }
}

/// Parses a complete chunk size line.
fn parse_chunk_line(line: &[u8]) -> Option<u64> {
    // RFC 9112 §7.1: at least one digit, which httparse does not require.
    if !line.first().is_some_and(u8::is_ascii_hexdigit) {
        return None;
    }
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((_, size))) => Some(size),
        Ok(httparse::Status::Partial) | Err(_) => None,
    }
}

/// Splits up to `left` bytes off the front of `input` and subtracts them from `left`.
fn take<'a>(input: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let len = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    let (data, rest) = input.split_at(len);
    *input = rest;
    *left -= len as u64;
    data
}

/// Parses a Content-Length: digits only (RFC 9110 §8.6).
fn parse_length(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(value).ok()?.parse().ok()
}
