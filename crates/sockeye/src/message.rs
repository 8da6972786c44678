//! Messages, and the two kinds of data that they carry.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::Utf8Error;

use bytes::Bytes;
use sockeye_proto::{Data, MessageKind};

/// Payloads up to this length lie in the message itself, without any allocation.
///
/// 24 bytes fit where the four words of a `Bytes` leave room for the choice between the two; one is the length.
const INLINE_MAX: usize = 23;

/// A whole message. Pings, pongs and close frames are not messages and never appear as such.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// UTF-8 text.
    Text(Text),
    /// Any bytes.
    Binary(Payload),
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<Text>) -> Self {
        Self::Text(text.into())
    }

    /// A binary message.
    pub fn binary(payload: impl Into<Payload>) -> Self {
        Self::Binary(payload.into())
    }

    /// The text, if it is a text message.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The bytes, of either kind.
    pub fn as_bytes(&self) -> &[u8] {
        self.payload()
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.payload().len()
    }

    /// Whether it has no bytes; such messages are legal and travel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is a text message.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    pub(crate) fn payload(&self) -> &Payload {
        match self {
            Self::Text(Text(payload)) | Self::Binary(payload) => payload,
        }
    }

    /// The bytes, of either kind, without a copy.
    pub fn into_payload(self) -> Payload {
        match self {
            Self::Text(Text(payload)) | Self::Binary(payload) => payload,
        }
    }

    pub(crate) fn kind(&self) -> MessageKind {
        match self {
            Self::Text(_) => MessageKind::Text,
            Self::Binary(_) => MessageKind::Binary,
        }
    }

    pub(crate) fn data(&self) -> Data<'_> {
        match self {
            Self::Text(text) => Data::Text(text),
            Self::Binary(payload) => Data::Binary(payload),
        }
    }

    /// The same message, its bytes a part of `bytes` that is equal to them. Few stay in place.
    pub(crate) fn stored_in(&self, bytes: &Bytes) -> Self {
        debug_assert!(*bytes == self.as_bytes());
        let payload = match bytes.len() {
            ..=INLINE_MAX => Payload::copy_from_slice(bytes),
            _ => bytes.clone().into(),
        };
        Self::received(self.kind(), payload)
    }

    /// A received message; the connection has checked that text is UTF-8.
    #[inline]
    pub(crate) fn received(kind: MessageKind, payload: Payload) -> Self {
        match kind {
            MessageKind::Text => Self::Text(Text(payload)),
            MessageKind::Binary => Self::Binary(payload),
        }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<Text> for Message {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::binary(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for Message {
    fn from(bytes: &[u8; N]) -> Self {
        Self::binary(bytes.as_slice())
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::binary(bytes)
    }
}

impl From<Payload> for Message {
    fn from(payload: Payload) -> Self {
        Self::Binary(payload)
    }
}

/// The bytes of a message: shared, so that a clone costs next to nothing; a copy of up to 23 bytes lies in place.
///
/// Converts from and to [`Bytes`], `Vec<u8>` and slices; without a copy where the bytes are on the heap already.
#[derive(Clone)]
pub struct Payload(Repr);

#[derive(Clone)]
enum Repr {
    Inline(Small),
    Shared(Bytes),
}

impl Payload {
    /// No bytes.
    pub const fn new() -> Self {
        Self(Repr::Inline(Small::EMPTY))
    }

    /// A copy of `bytes`.
    #[inline]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        match Small::copy_of(bytes) {
            Some(small) => Self(Repr::Inline(small)),
            None => Self(Repr::Shared(Bytes::copy_from_slice(bytes))),
        }
    }

    /// Appends the bytes to `out`.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Repr::Inline(small) => {
                let end = out.len() + usize::from(small.len);
                out.extend_from_slice(&small.bytes);
                out.truncate(end);
            }
            Repr::Shared(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(small) => &small.bytes[..usize::from(small.len)],
            Repr::Shared(bytes) => bytes,
        }
    }
}

/// A few bytes in place. The bytes come first, so that a copy of the whole moves them as they were stored.
#[derive(Clone, Copy)]
#[repr(C)]
struct Small {
    bytes: [u8; INLINE_MAX],
    len: u8,
}

impl Small {
    const EMPTY: Self = Self {
        bytes: [0; INLINE_MAX],
        len: 0,
    };

    /// Copies at most [`INLINE_MAX`] bytes, in registers: most messages are small, and `memcpy` is made for many.
    ///
    /// They are loaded in the pieces in which they were stored when the mask was taken off: eight bytes, four, single
    /// ones. A load that spans two stores waits until both have reached the cache.
    #[inline]
    fn copy_of(from: &[u8]) -> Option<Self> {
        let len = from.len();
        if len > INLINE_MAX {
            return None;
        }
        let mut words = [0_u64; 3];
        let mut rest = from;
        // Not a loop: that would become a call of `memcpy`.
        if let Some((bytes, behind)) = rest.split_first_chunk() {
            (words[0], rest) = (u64::from_le_bytes(*bytes), behind);
        }
        if let Some((bytes, behind)) = rest.split_first_chunk() {
            (words[1], rest) = (u64::from_le_bytes(*bytes), behind);
        }
        let (half, rest) = match rest.split_first_chunk::<4>() {
            Some((half, rest)) => (u64::from(u32::from_le_bytes(*half)), rest),
            None => (0, rest),
        };
        let mut last = 0;
        for byte in rest.iter().rev() {
            last = last << 8 | u64::from(*byte);
        }
        words[len / 8] = half | (last << ((len & 4) * 8));
        let mut bytes = [0; INLINE_MAX];
        bytes[..8].copy_from_slice(&words[0].to_le_bytes());
        bytes[8..16].copy_from_slice(&words[1].to_le_bytes());
        bytes[16..].copy_from_slice(&words[2].to_le_bytes()[..INLINE_MAX - 16]);
        Some(Self { bytes, len: len as u8 })
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Payload {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_slice(), f)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Payload {}

impl std::hash::Hash for Payload {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl PartialEq<[u8]> for Payload {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_slice() == other
    }
}

impl From<Text> for Payload {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for Payload {
    fn from(bytes: &[u8; N]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Shared(bytes))
    }
}

impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Self {
        match payload.0 {
            Repr::Inline(_) => Self::copy_from_slice(&payload),
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl From<Payload> for Vec<u8> {
    fn from(payload: Payload) -> Self {
        match payload.0 {
            Repr::Inline(_) => payload.to_vec(),
            Repr::Shared(bytes) => bytes.into(),
        }
    }
}

/// The text of a message: a [`Payload`] that is UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(Payload);

impl Text {
    /// The text.
    #[inline]
    #[allow(unsafe_code)]
    pub fn as_str(&self) -> &str {
        debug_assert!(std::str::from_utf8(&self.0).is_ok());
        // SAFETY: `from_utf8_unchecked` needs UTF-8. A `Text` is made in three ways, all in this file, and never
        // changed: from a `str` or `String`; from bytes that `TryFrom` has just checked; and by `Message::received`
        // from a message that the connection has checked (RFC 6455 §8.1) while it arrived.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// The bytes of the text.
    pub fn into_payload(self) -> Payload {
        self.0
    }
}

impl Deref for Text {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Payload::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl TryFrom<Bytes> for Text {
    type Error = Utf8Error;

    fn try_from(bytes: Bytes) -> Result<Self, Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Self(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_no_larger_than_bytes_and_a_word() {
        assert_eq!(size_of::<Payload>(), size_of::<Bytes>());
        assert!(size_of::<Message>() <= size_of::<Bytes>() + size_of::<usize>());
    }

    #[test]
    fn payloads_are_the_same_whether_in_place_or_shared() {
        for len in (0..=INLINE_MAX + 1).chain([1000]) {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let copied = Payload::from(bytes.as_slice());
            let shared = Payload::from(bytes.clone());
            assert_eq!(copied, shared);
            assert_eq!(Vec::from(copied.clone()), bytes);
            assert_eq!(Bytes::from(copied), bytes);
            assert_eq!(Bytes::from(shared.clone()), bytes);
            assert_eq!(Vec::from(shared), bytes);
        }
    }

    /// Every way to make a `Text`, in place and shared, for whoever watches the one unsafe block: Miri, in CI.
    #[test]
    fn text_is_the_same_however_it_came_to_be() {
        for len in (0..=INLINE_MAX + 1).chain([1000]) {
            // Two bytes each, and one to make the length odd.
            let string = format!("{}{}", "ü".repeat(len / 2), &"x"[..len % 2]);
            assert_eq!(string.len(), len);
            let bytes = Bytes::from(string.clone().into_bytes());
            let received = Message::received(MessageKind::Text, Payload::copy_from_slice(&bytes));
            let texts = [
                Text::from(string.as_str()),
                Text::from(string.clone()),
                Text::try_from(bytes).unwrap(),
                received.as_text().unwrap().into(),
            ];
            for text in texts {
                assert_eq!(text.as_str(), string);
                let clone = text.clone();
                drop(text);
                assert_eq!(clone.as_str(), string);
                assert_eq!(clone.into_payload().as_slice(), string.as_bytes());
            }
        }
    }

    #[test]
    fn text_is_utf_8() {
        assert!(Text::try_from(Bytes::from_static(b"\xff")).is_err());
        let text = Text::try_from(Bytes::from_static("grüß".as_bytes())).unwrap();
        assert_eq!(text, "grüß");
        assert_eq!(String::from(text.clone()), "grüß");
        assert_eq!(format!("{text} {text:?}"), "grüß \"grüß\"");
    }
}
