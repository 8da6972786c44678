//! The challenge and its answer: proof that the server speaks WebSocket, not that it is trusted.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// RFC 6455 §1.3: the text appended to the key before hashing.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Base64 of 16 bytes: five groups of three and one of one, padded.
const KEY_TEXT_LEN: usize = 24;
/// Base64 of a SHA-1, 20 bytes: six groups of three and one of two, padded.
const ACCEPT_TEXT_LEN: usize = 28;

/// The nonce of `Sec-WebSocket-Key`: 16 bytes, drawn at random by the client for each handshake.
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
    /// A key of these bytes. The caller draws them: RFC 6455 §4.1 wants them random.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads the header's value; `None` unless it is the canonical base64 of 16 bytes.
    ///
    /// Erratum 3150 of RFC 6455 notes that the last digit can only be A, Q, g or w.
    /// Other digits would carry bits that no decoder keeps, so they are refused.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != KEY_TEXT_LEN {
            return None;
        }
        // The decoder wants room for whole groups: 24 / 4 * 3. [6455-4.2.1-7]
        let mut room = [0; 18];
        let len = STANDARD.decode_slice(text, &mut room).ok()?;
        room.get(..len)?.try_into().ok().map(Self)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The answer a server gives to this key.
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

    /// The header's value. [`parse`](Self::parse) takes nothing but this form, so hashing it is
    /// hashing what was received.
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
    /// The header's value.
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

/// Base64 digits as text. They are ASCII always, so the empty string is never reached.
fn ascii(digits: &[u8]) -> &str {
    core::str::from_utf8(digits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn key_of_the_rfc_gets_the_accept_of_the_rfc() {
        // checks [6455-4.2.2-15]
        // RFC 6455 §1.3.
        let key = Key::parse(b"dGhlIHNhbXBsZSBub25jZQ==").expect("canonical");
        assert_eq!(key.as_bytes(), b"the sample nonce");
        assert_eq!(key.accept().as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(key.to_string(), "dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn last_digit_is_one_of_four() {
        for digit in (0..=255).filter(|byte| !b"AQgw".contains(byte)) {
            let mut text = *b"dGhlIHNhbXBsZSBub25jZQ==";
            text[21] = digit;
            assert_eq!(Key::parse(&text), None, "{digit}");
        }
    }
}
