//! Collects and parses the head of an HTTP/1.1 message, for both roles.
//!
//! Each byte is examined once while it is collected, regardless of how the input is split, and the complete head is
//! parsed once, so the cost is linear. Invalid bytes are detected immediately: a peer that speaks TLS or another
//! protocol is rejected at its first invalid byte, not at the size limit.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::headers::is_control;
use super::{HandshakeError, HandshakeLimits, HeaderName, HeaderValue, Headers, HttpVersion, StatusCode};

/// Collects a head up to its final empty line.
pub(super) struct HeadCollector {
    kind: HeadKind,
    limits: HandshakeLimits,
    /// Number of bytes still allowed. Shared with earlier informational responses.
    size_left: usize,
    bytes: Vec<u8>,
    /// Number of complete lines, including the first line but not an ignored leading empty line.
    line_count: usize,
    line_len: usize,
    after_carriage_return: bool,
    /// Whether a leading empty line was ignored.
    skipped_empty_line: bool,
    #[cfg(test)]
    pub(super) step_count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadKind {
    Request,
    Response,
}

impl HeadCollector {
    pub(super) const fn new(kind: HeadKind, limits: HandshakeLimits) -> Self {
        Self {
            kind,
            limits,
            size_left: limits.head_size_max,
            bytes: Vec::new(),
            line_count: 0,
            line_len: 0,
            after_carriage_return: false,
            skipped_empty_line: false,
            #[cfg(test)]
            step_count: 0,
        }
    }

    /// Processes bytes up to the end of the head. Once it is complete, returns the number of bytes consumed.
    pub(super) fn handle_bytes(&mut self, input: &[u8]) -> Result<Option<usize>, HandshakeError> {
        for (idx, byte) in input.iter().enumerate() {
            match self.step(*byte) {
                Ok(false) => {}
                Ok(true) => {
                    self.store(&input[..=idx]);
                    return Ok(Some(idx + 1));
                }
                Err(error) => {
                    // The response to an error depends on the method, so keep what was received before it.
                    self.store(&input[..idx]);
                    return Err(error);
                }
            }
        }
        self.store(input);
        Ok(None)
    }

    /// Appends bytes. Doubles the capacity as needed, but not beyond the size limit.
    fn store(&mut self, input: &[u8]) {
        let len = self.bytes.len();
        let needed = len + input.len();
        if needed > self.bytes.capacity() {
            let doubled = self.bytes.capacity().saturating_mul(2).min(self.limits.head_size_max);
            self.bytes.reserve_exact(needed.max(doubled) - len);
        }
        self.bytes.extend_from_slice(input);
    }

    /// Returns a collector for the next head, with the remaining size limit.
    pub(super) fn next(self) -> Self {
        Self {
            size_left: self.size_left,
            ..Self::new(self.kind, self.limits)
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) const fn limits(&self) -> &HandshakeLimits {
        &self.limits
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Splits the head into the first line, without its line end, and the field lines, including the final empty line.
    pub(super) fn split(&self) -> (&[u8], &[u8]) {
        let head = match self.bytes.as_slice() {
            [b'\r', b'\n', rest @ ..] => rest,
            head => head,
        };
        match memchr::memchr(b'\r', head) {
            Some(end) => (&head[..end], head.get(end + 2..).unwrap_or_default()),
            None => (head, &[]),
        }
    }

    /// Parses the field lines. The head must be complete.
    pub(super) fn headers(&self) -> Result<Headers, HandshakeError> {
        let (_, lines) = self.split();
        let mut fields = vec![httparse::EMPTY_HEADER; self.line_count.saturating_sub(1)];
        // httparse rejects a space before the colon and folded lines, as RFC 9112 §5.1 and §5.2 require.
        let parsed = httparse::parse_headers(lines, &mut fields);
        let Ok(httparse::Status::Complete((_, fields))) = parsed else {
            return Err(HandshakeError::InvalidHeaderLine);
        };
        let mut headers = Headers::new();
        for field in fields {
            let name = HeaderName::new(field.name);
            let value = HeaderValue::new(field.value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(HandshakeError::InvalidHeaderLine);
            };
            headers.append(name, value);
        }
        Ok(headers)
    }

    /// Processes one byte. Returns `true` if it ends the head.
    fn step(&mut self, byte: u8) -> Result<bool, HandshakeError> {
        #[cfg(test)]
        {
            self.step_count += 1;
        }
        if self.size_left == 0 {
            let size_max = self.limits.head_size_max;
            return Err(if self.line_count == 0 {
                HandshakeError::StartLineTooLong { size_max }
            } else {
                HandshakeError::HeadTooLarge { size_max }
            });
        }
        self.size_left -= 1;
        match (self.after_carriage_return, byte) {
            (true, b'\n') => {
                self.after_carriage_return = false;
                return self.end_line();
            }
            // RFC 9112 §2.2: a bare CR is invalid. A recipient may accept a bare LF as a line end, but parsers that
            // disagree about it allow request smuggling. [6455-10.7-1]
            (true, _) => return Err(HandshakeError::BareCarriageReturn),
            (false, b'\n') => return Err(HandshakeError::BareLineFeed),
            (false, b'\r') => self.after_carriage_return = true,
            (false, byte) if is_control(byte) => return Err(HandshakeError::ControlByte(byte)),
            (false, byte) => {
                if !self.is_valid_in_status_line(byte) {
                    return Err(HandshakeError::InvalidStatusLine);
                }
                self.line_len += 1;
            }
        }
        Ok(false)
    }

    /// Whether `byte` is valid at this position of a status line, which starts with `HTTP/` (RFC 9112 §4). Rejects
    /// servers of other protocols that send first, such as SSH and SMTP, at their first byte.
    fn is_valid_in_status_line(&self, byte: u8) -> bool {
        match (self.kind, self.line_count) {
            (HeadKind::Response, 0) => b"HTTP/".get(self.line_len).is_none_or(|expected| *expected == byte),
            _ => true,
        }
    }

    fn end_line(&mut self) -> Result<bool, HandshakeError> {
        let is_empty = self.line_len == 0;
        self.line_len = 0;
        if is_empty && self.line_count == 0 {
            return self.skip_leading_empty_line();
        }
        if is_empty {
            return Ok(true);
        }
        self.line_count += 1;
        let count_max = self.limits.header_count_max;
        if self.line_count - 1 > count_max {
            return Err(HandshakeError::TooManyHeaders { count_max });
        }
        Ok(false)
    }

    /// RFC 9112 §2.2: a server should ignore at least one empty line before the request line.
    fn skip_leading_empty_line(&mut self) -> Result<bool, HandshakeError> {
        match self.kind {
            HeadKind::Request if !self.skipped_empty_line => {
                self.skipped_empty_line = true;
                Ok(false)
            }
            HeadKind::Request => Err(HandshakeError::InvalidRequestLine),
            HeadKind::Response => Err(HandshakeError::InvalidStatusLine),
        }
    }
}

/// Omits the contents, which may include credentials.
impl fmt::Debug for HeadCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadCollector")
            .field("kind", &self.kind)
            .field("limits", &self.limits)
            .field("bytes_len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// A parsed request line. The method may be any token.
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) version: HttpVersion,
}

impl<'a> RequestLine<'a> {
    /// RFC 9112 §3: exactly one space between method, target and version.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, HandshakeError> {
        let line = core::str::from_utf8(line).map_err(|_| HandshakeError::InvalidRequestLine)?;
        let mut parts = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HandshakeError::InvalidRequestLine);
        };
        if !super::token::is_token(method.as_bytes()) || target.is_empty() {
            return Err(HandshakeError::InvalidRequestLine);
        }
        let version = HttpVersion::parse(version.as_bytes()).ok_or(HandshakeError::InvalidRequestLine)?;
        Ok(Self {
            method,
            target,
            version,
        })
    }
}

/// A parsed status line without its reason phrase.
#[derive(Clone, Copy)]
pub(super) struct StatusLine {
    pub(super) version: HttpVersion,
    pub(super) status: StatusCode,
}

impl StatusLine {
    /// Parses a status line (RFC 9112 §4). The space after the code is mandatory, but some servers omit it together
    /// with the reason phrase. Accepting that is unambiguous.
    pub(super) fn parse(line: &[u8]) -> Result<Self, HandshakeError> {
        let Some((version, rest)) = line.split_at_checked(8) else {
            return Err(HandshakeError::InvalidStatusLine);
        };
        let version = HttpVersion::parse(version).ok_or(HandshakeError::InvalidStatusLine)?;
        let [b' ', a, b, c, reason @ ..] = rest else {
            return Err(HandshakeError::InvalidStatusLine);
        };
        if !matches!(reason, [] | [b' ', ..]) {
            return Err(HandshakeError::InvalidStatusLine);
        }
        let mut code = 0;
        for digit in [a, b, c] {
            if !digit.is_ascii_digit() {
                return Err(HandshakeError::InvalidStatusLine);
            }
            code = code * 10 + u16::from(digit - b'0');
        }
        let status = StatusCode::new(code).ok_or(HandshakeError::InvalidStatusLine)?;
        if !version.is_http_1() {
            return Err(HandshakeError::HttpVersionUnknown);
        }
        Ok(Self { version, status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    #[test]
    fn each_byte_is_examined_once_for_any_split() {
        for piece_len in 1..=HEAD.len() {
            let mut head = HeadCollector::new(HeadKind::Request, HandshakeLimits::default());
            let mut done = false;
            for piece in HEAD.chunks(piece_len) {
                done = head.handle_bytes(piece) == Ok(Some(piece.len()));
            }
            assert!(done, "{piece_len}");
            assert_eq!(head.step_count, HEAD.len());
            assert_eq!(head.bytes(), HEAD);
        }
    }

    #[test]
    fn invalid_status_line_is_rejected_at_its_first_invalid_byte() {
        for (input, good_len) in [
            (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], 0),
            (b"220 mail", 0),
            (b"HTTQ", 3),
            (b"http/1.1", 0),
        ] {
            let collect =
                |input| HeadCollector::new(HeadKind::Response, HandshakeLimits::default()).handle_bytes(input);
            assert_eq!(collect(&input[..good_len]), Ok(None));
            assert_eq!(collect(&input[..=good_len]), Err(HandshakeError::InvalidStatusLine));
        }
    }

    #[test]
    fn endless_head_uses_memory_only_up_to_the_limit() {
        // Under Miri, small pieces would take minutes.
        let piece_lens: &[usize] = if cfg!(miri) { &[1500] } else { &[1, 7, 100, 1500] };
        for &piece_len in piece_lens {
            let limits = HandshakeLimits::default();
            let size_max = limits.head_size_max;
            let mut head = HeadCollector::new(HeadKind::Request, limits);
            let mut endless = HEAD[..16].iter().chain([b'a'; 1000].iter().cycle()).copied();
            loop {
                let piece: Vec<u8> = endless.by_ref().take(piece_len).collect();
                let ended = head.handle_bytes(&piece).is_err();
                assert!(
                    head.bytes.capacity() <= size_max,
                    "{} in pieces of {piece_len}",
                    head.bytes.capacity()
                );
                if ended {
                    break;
                }
            }
        }
    }

    #[test]
    fn bytes_after_the_head_are_not_consumed() {
        let mut head = HeadCollector::new(HeadKind::Request, HandshakeLimits::default());
        let input = [HEAD, b"\x81\x80rest"].concat();
        assert_eq!(head.handle_bytes(&input), Ok(Some(HEAD.len())));
        assert_eq!(head.bytes(), HEAD);
    }

    #[test]
    fn size_limit_includes_the_empty_line() {
        for (size_max, fits) in [(HEAD.len() - 1, false), (HEAD.len(), true)] {
            let limits = HandshakeLimits {
                head_size_max: size_max,
                ..HandshakeLimits::default()
            };
            let mut head = HeadCollector::new(HeadKind::Request, limits);
            assert_eq!(head.handle_bytes(HEAD).is_ok(), fits, "{size_max}");
        }
    }
}
