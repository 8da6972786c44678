//! Messages, and text.

pub(crate) mod event;
pub(crate) mod outbound;
pub(crate) mod payload;
pub(crate) mod prepared;

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::Utf8Error;

use bytes::Bytes;
use sockeye_proto::{Data, MaskedMessage, MessageKind};

use crate::message::payload::{INLINE_MAX, Payload};

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

    fn payload(&self) -> &Payload {
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
        // Equal to the bytes of this message, so UTF-8 if that is text.
        Self::of_parts(self.kind(), payload)
    }

    /// A copy of a message, unmasked on the way; `None` if it should be text and is not UTF-8.
    #[inline(always)]
    pub(crate) fn unmasked(message: &MaskedMessage<'_>) -> Option<Self> {
        let payload = Payload::unmasked(message)?;
        // Text that is not UTF-8 has no payload.
        Some(Self::of_parts(message.kind(), payload))
    }

    /// A message of bytes that were checked already.
    ///
    /// # Safety
    ///
    /// If `kind` is text, `payload` is UTF-8: [`Text::as_str`] relies on it.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn of_checked(kind: MessageKind, payload: Payload) -> Self {
        Self::of_parts(kind, payload)
    }

    /// A message of a payload that is UTF-8 if `kind` is text. Not `unsafe`, because it is private and its callers above
    /// check that.
    #[inline]
    fn of_parts(kind: MessageKind, payload: Payload) -> Self {
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

/// The text of a message: a [`Payload`] that is UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(Payload);

impl Text {
    /// The text.
    #[inline]
    #[allow(unsafe_code)]
    pub fn as_str(&self) -> &str {
        debug_assert!(std::str::from_utf8(&self.0).is_ok());
        // SAFETY: a `Text` is UTF-8. It is made in this file alone, and never changed: empty; from a `str` or `String`; from
        // bytes that `TryFrom` has just checked; and by `Message::of_parts`, whose callers here say why it is, and by the
        // unsafe `Message::of_checked`, whose callers guarantee it.
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

impl From<Text> for Payload {
    fn from(text: Text) -> Self {
        text.0
    }
}

/// Without a copy if the text is on the heap and has no other owner. A text of up to 23 bytes, and one of more than 512 KiB
/// that was received, is copied: see [`Payload`].
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
    fn a_message_is_no_larger_than_bytes_and_a_word() {
        assert_eq!(size_of::<Payload>(), size_of::<Bytes>());
        assert!(size_of::<Message>() <= size_of::<Bytes>() + size_of::<usize>());
    }

    /// Every way to make a `Text`, in place and shared, for whoever watches the one unsafe block: Miri, in CI.
    #[test]
    fn text_is_the_same_however_it_came_to_be() {
        for len in (0..=INLINE_MAX + 1).chain([1000]) {
            // Two bytes each, and one to make the length odd.
            let string = format!("{}{}", "ü".repeat(len / 2), &"x"[..len % 2]);
            assert_eq!(string.len(), len);
            let bytes = Bytes::from(string.clone().into_bytes());
            let received = Message::of_parts(MessageKind::Text, Payload::copy_from_slice(&bytes));
            let stored = received.stored_in(&bytes);
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

    /// A text message as a server gets it, and bytes of others behind it.
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
        let found = connection.find_message(Instant::default(), &frame).unwrap();
        Message::unmasked(&found).unwrap()
    }

    #[test]
    fn string_of_a_text_with_one_owner_is_not_copied() {
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
    fn text_is_utf_8() {
        assert!(Text::try_from(Bytes::from_static(b"\xff")).is_err());
        let text = Text::try_from(Bytes::from_static("grüß".as_bytes())).unwrap();
        assert_eq!(text, "grüß");
        assert_eq!(String::from(text.clone()), "grüß");
        assert_eq!(format!("{text} {text:?}"), "grüß \"grüß\"");
    }
}
