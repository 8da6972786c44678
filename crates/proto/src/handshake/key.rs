//! Sec-WebSocket-Key and Sec-WebSocket-Accept. They prove that the server understands WebSocket, not that it can be
//! trusted.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// The text appended to the key before hashing (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Length of the base64 encoding of 16 bytes.
const KEY_TEXT_LEN: usize = 24;
/// Length of the base64 encoding of a SHA-1 hash, 20 bytes.
const ACCEPT_TEXT_LEN: usize = 28;

/// The nonce in `Sec-WebSocket-Key`: 16 random bytes, chosen by the client for each handshake (RFC 6455 §4.1).
///
/// ```
/// use sockeye_proto::handshake::Key;
///
/// let key = Key::parse(b"x3JJHMbDL1EzLkh9GBhXDw==").unwrap();
/// assert_eq!(key.accept().as_str(), "HSmrc0sMlYUkAGmm5OPpG2HaGWk=");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; 16]);

impl Key {
    /// Creates a key. The caller must provide random bytes (RFC 6455 §4.1).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Parses the header value. Returns `None` unless it is the canonical base64 encoding of 16 bytes.
    ///
    /// Erratum 3150 of RFC 6455 notes that the last digit can only be A, Q, g or w. Other digits contain bits that are
    /// lost when decoding, so they are rejected.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != KEY_TEXT_LEN {
            return None;
        }
        // The decoder requires space for whole groups: 24 / 4 * 3. [6455-4.2.1-7]
        let mut room = [0; 18];
        let len = STANDARD.decode_slice(text, &mut room).ok()?;
        room.get(..len)?.try_into().ok().map(Self)
    }

    /// Returns the bytes of the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Computes the value of `Sec-WebSocket-Accept` for this key.
    // [6455-4.2.2-15]
    #[must_use]
    pub fn accept(&self) -> AcceptKey {
        let mut hash = Sha1::new();
        hash.update(self.encode());
        hash.update(GUID);
        let mut text = [0; ACCEPT_TEXT_LEN];
        let written = STANDARD.encode_slice(hash.finalize(), &mut text);
        debug_assert_eq!(written, Ok(ACCEPT_TEXT_LEN));
        AcceptKey(text)
    }

    /// Returns the header value. [`parse`](Self::parse) accepts only this form, so hashing it is the same as hashing
    /// the received text.
    pub(super) fn encode(&self) -> [u8; KEY_TEXT_LEN] {
        let mut text = [0; KEY_TEXT_LEN];
        let written = STANDARD.encode_slice(self.0, &mut text);
        debug_assert_eq!(written, Ok(KEY_TEXT_LEN));
        text
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ascii(&self.encode()))
    }
}

/// The value of `Sec-WebSocket-Accept` that answers a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptKey([u8; ACCEPT_TEXT_LEN]);

impl AcceptKey {
    /// Returns the header value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }
}

impl fmt::Display for AcceptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Converts base64 digits to text. They are ASCII, so this never falls back to the empty string.
fn ascii(digits: &[u8]) -> &str {
    core::str::from_utf8(digits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn accept_key_matches_rfc_6455_section_1_3() {
        // checks [6455-4.2.2-15]
        // RFC 6455 §1.3.
        let key = Key::parse(b"dGhlIHNhbXBsZSBub25jZQ==").expect("canonical");
        assert_eq!(key.as_bytes(), b"the sample nonce");
        assert_eq!(key.accept().as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(key.to_string(), "dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn parse_rejects_non_canonical_last_digit() {
        for digit in (0..=255).filter(|byte| !b"AQgw".contains(byte)) {
            let mut text = *b"dGhlIHNhbXBsZSBub25jZQ==";
            text[21] = digit;
            assert_eq!(Key::parse(&text), None, "{digit}");
        }
    }
}
