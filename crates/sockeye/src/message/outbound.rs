//! A message on its way into a future, and from there to the wire.

use bytes::Bytes;
use sockeye_proto::{Compress, MessageKind};

use crate::message::Message;
use crate::message::payload::{Payload, Repr, Small};

/// A message taken apart: what lies in place, and what does not. So each part is moved as it was stored, while a
/// [`Message`] as a whole is moved in pieces that are not those it is made of: see [`Small`].
pub(crate) struct OutboundMessage {
    kind: MessageKind,
    compress: Compress,
    shared: Option<Bytes>,
    /// Means something only if nothing is `shared`.
    small: Small,
}

impl OutboundMessage {
    #[inline(always)]
    pub(crate) fn new(message: Message, compress: Compress) -> Self {
        let kind = message.kind();
        match message.into_payload().0 {
            Repr::Inline(small) => Self {
                kind,
                compress,
                shared: None,
                small,
            },
            Repr::Shared(bytes) => Self {
                kind,
                compress,
                shared: Some(bytes),
                small: Small::EMPTY,
            },
        }
    }

    #[inline]
    pub(crate) fn kind(&self) -> MessageKind {
        self.kind
    }

    #[inline]
    pub(crate) fn compress(&self) -> Compress {
        self.compress
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match &self.shared {
            Some(bytes) => bytes.len(),
            None => self.small.len(),
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.shared {
            Some(bytes) => bytes,
            None => self.small.as_slice(),
        }
    }

    /// Appends the bytes to `out`.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        match &self.shared {
            Some(bytes) => out.extend_from_slice(bytes),
            None => self.small.append_to(out),
        }
    }

    /// The bytes, without a copy.
    pub(crate) fn payload(&self) -> Payload {
        Payload(match &self.shared {
            Some(bytes) => Repr::Shared(bytes.clone()),
            None => Repr::Inline(self.small),
        })
    }

    /// The message again.
    pub(crate) fn to_message(&self) -> Message {
        // SAFETY: kind and bytes are those of the message that this was made of, and never change.
        #[allow(unsafe_code)]
        unsafe {
            Message::of_checked(self.kind, self.payload())
        }
    }
}
