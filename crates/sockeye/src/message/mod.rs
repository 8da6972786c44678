//! Messages and their text.

pub(crate) mod event;
pub(crate) mod outbound;
pub(crate) mod payload;
pub(crate) mod prepared;

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::Utf8Error;

use bytes::Bytes;
use sockeye_proto::{Data, MessageKind, RawMessage};

use crate::message::payload::{INLINE_MAX, Payload};

/// A complete text or binary message. Control frames are never represented as messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// UTF-8 text.
    Text(Text),
    /// Arbitrary bytes.
    Binary(Payload),
}

impl Message {
    /// Creates a text message.
    pub fn text(text: impl Into<Text>) -> Self {
        Self::Text(text.into())
    }

    /// Creates a binary message.
    pub fn binary(payload: impl Into<Payload>) -> Self {
        Self::Binary(payload.into())
    }

    /// The text, or `None` for a binary message.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The payload of a text or binary message.
    pub fn as_bytes(&self) -> &[u8] {
        self.payload()
    }

    /// The length of the payload in bytes.
    pub fn len(&self) -> usize {
        self.payload().len()
    }

    /// Whether the payload is empty. Empty messages are valid and are delivered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is a text message.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    fn payload(&self) -> &Payload {
        match self {
            Self::Text(Text(payload)) | Self::Binary(payload) => payload,
        }
    }

    /// The payload of a text or binary message, without a copy.
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

    /// The same message with `bytes`, which equal its payload, as its storage. A small payload stays inline.
    pub(crate) fn with_storage(&self, bytes: &Bytes) -> Self {
        debug_assert!(*bytes == self.as_bytes());
        let payload = match bytes.len() {
            ..=INLINE_MAX => Payload::copy_from_slice(bytes),
            _ => bytes.clone().into(),
        };
        // `bytes` equal the payload, so they are UTF-8 if it is text.
        Self::from_parts(self.kind(), payload)
    }

    /// Copies and unmasks a message in one pass. `None` if a text message is not UTF-8.
    #[inline(always)]
    pub(crate) fn unmasked(message: &RawMessage<'_>) -> Option<Self> {
        let payload = Payload::unmasked(message)?;
        // `payload` is only `Some` if a text message is UTF-8.
        Some(Self::from_parts(message.kind(), payload))
    }

    /// Creates a message from bytes that were already validated.
    ///
    /// # Safety
    ///
    /// If `kind` is text, `payload` must be UTF-8: [`Text::as_str`] relies on it.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn from_validated(kind: MessageKind, payload: Payload) -> Self {
        Self::from_parts(kind, payload)
    }

    /// Creates a message. If `kind` is text, `payload` must be UTF-8. Not `unsafe` because it is private and the
    /// callers above guarantee that.
    #[inline]
    fn from_parts(kind: MessageKind, payload: Payload) -> Self {
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

/// The text of a message: a [`Payload`] that is valid UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(Payload);

impl Text {
    /// Returns the text as a string slice.
    #[inline]
    #[allow(unsafe_code)]
    pub fn as_str(&self) -> &str {
        debug_assert!(std::str::from_utf8(&self.0).is_ok());
        // SAFETY: a `Text` is UTF-8. It is only created in this file and never modified. It is empty, comes from a
        // `str` or `String`, was validated by `TryFrom`, or comes from `Message::from_parts`, whose callers guarantee
        // UTF-8 (the unsafe `Message::from_validated` passes that on to its own callers).
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// The UTF-8 bytes of the text.
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

impl From<Text> for Payload {
    fn from(text: Text) -> Self {
        text.0
    }
}

/// Does not copy if the text is on the heap and has no other owner. Copies a text of up to 23 bytes, and a received one
/// of more than 512 KiB: see [`Payload`].
impl From<Text> for String {
    fn from(text: Text) -> Self {
        Self::from_utf8(text.0.into()).expect("a text is UTF-8")
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
    use std::sync::Arc;

    use sockeye_proto::{Compress, Connection, Instant, MaskingKey, Role};

    use super::*;
    use crate::message::outbound::Outbound;

    #[test]
    fn message_is_one_word_larger_than_bytes_at_most() {
        assert_eq!(size_of::<Payload>(), size_of::<Bytes>());
        assert!(size_of::<Message>() <= size_of::<Bytes>() + size_of::<usize>());
    }

    /// Covers every way to create a `Text`, inline and shared, so that Miri checks the unsafe block in CI.
    #[test]
    fn text_is_equal_for_every_way_to_create_it() {
        for len in (0..=INLINE_MAX + 1).chain([1000]) {
            // Two bytes for each character, plus one to make the length odd.
            let string = format!("{}{}", "ü".repeat(len / 2), &"x"[..len % 2]);
            assert_eq!(string.len(), len);
            let bytes = Bytes::from(string.clone().into_bytes());
            let received = Message::from_parts(MessageKind::Text, Payload::copy_from_slice(&bytes));
            let stored = received.with_storage(&bytes);
            let outgoing = Outbound::new(received.clone(), Compress::Auto).to_message();
            let unmasked = arrived(string.as_bytes());
            let texts = [
                Text::from(string.as_str()),
                Text::from(string.clone()),
                Text::try_from(bytes).unwrap(),
                received.as_text().unwrap().into(),
                stored.as_text().unwrap().into(),
                outgoing.as_text().unwrap().into(),
                unmasked.as_text().unwrap().into(),
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

    /// A text message as a server receives it, followed by the bytes of other frames.
    fn arrived(text: &[u8]) -> Message {
        let mut connection = Connection::new(Role::Server, Arc::default(), Instant::default());
        let mut frame = vec![0x81];
        match text.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len => frame.extend([0x80 | 126, (len >> 8) as u8, len as u8]),
        }
        let key = MaskingKey([0xa5, 0, 0xff, 7]);
        frame.extend(key.0);
        key.append(text, &mut frame);
        frame.extend([0xff; 30]);
        let found = connection.recognize_message(Instant::default(), &frame).unwrap();
        Message::unmasked(&found).unwrap()
    }

    #[test]
    fn string_from_uniquely_owned_text_is_not_copied() {
        for text in [Text::from("x".repeat(1000)), {
            let unmasked = arrived("ü".repeat(500).as_bytes());
            let Message::Text(text) = unmasked else { panic!() };
            text
        }] {
            let (at, expected) = (text.as_ptr(), text.to_string());
            let shared = text.clone();
            let copied = String::from(shared);
            assert_eq!((copied.as_str(), copied.as_ptr() == at), (expected.as_str(), false));
            let string = String::from(text);
            assert_eq!((string.as_str(), string.as_ptr() == at), (expected.as_str(), true));
        }
    }

    #[test]
    fn text_from_invalid_utf_8_fails() {
        assert!(Text::try_from(Bytes::from_static(b"\xff")).is_err());
        let text = Text::try_from(Bytes::from_static("grüß".as_bytes())).unwrap();
        assert_eq!(text, "grüß");
        assert_eq!(String::from(text.clone()), "grüß");
        assert_eq!(format!("{text} {text:?}"), "grüß \"grüß\"");
    }
}
