//! A message to send.

use std::fmt;

use bytes::Bytes;
use sockeye_proto::{Compress, MessageKind};

use crate::message::payload::{InlineBytes, Payload, Repr};
use crate::message::prepared::PreparedMessage;
use crate::message::{Message, Text};

/// A message to send, as `send`, `feed` and `try_send` take it. Everything that converts into a [`Message`] converts
/// into this, and so does a [`PreparedMessage`].
///
/// ```
/// # use sockeye::{Compress, Error, Message, PreparedMessage, WebSocket};
/// # async fn example(ws: &mut WebSocket, news: &PreparedMessage) -> Result<(), Error> {
/// ws.send("text").await?;
/// ws.send(vec![1, 2, 3]).await?;
/// ws.send(news).await?;
/// ws.send(Message::text("secret").compress(Compress::Never)).await?;
/// # Ok(())
/// # }
/// ```
// The fields of the message are stored separately so that each is moved with the same width as it was stored: see
// `InlineBytes`.
#[derive(Clone)]
pub struct Outbound {
    kind: MessageKind,
    compress: Compress,
    shared: Option<Bytes>,
    /// Only valid if both `shared` and `prepared` are `None`.
    inline: InlineBytes,
    prepared: Option<PreparedMessage>,
}

impl Outbound {
    #[inline(always)]
    pub(crate) fn new(message: Message, compress: Compress) -> Self {
        let kind = message.kind();
        match message.into_payload().0 {
            Repr::Inline(inline) => Self {
                kind,
                compress,
                shared: None,
                inline,
                prepared: None,
            },
            Repr::Shared(bytes) => Self {
                kind,
                compress,
                shared: Some(bytes),
                inline: InlineBytes::EMPTY,
                prepared: None,
            },
        }
    }

    /// Sets whether to compress the message, on a connection that negotiated compression. The default is
    /// [`Compress::Auto`], or for a prepared message the value that it was [prepared with](PreparedMessage::with_compress).
    #[must_use]
    pub fn compress(mut self, compress: Compress) -> Self {
        self.compress = compress;
        self
    }

    /// The length of the payload in bytes, before compression.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.prepared {
            None => self.plain_len(),
            Some(prepared) => prepared.message().len(),
        }
    }

    /// Whether the payload is empty. Empty messages are valid and are delivered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message without its sending options. Shares the bytes; a payload of up to 23 bytes is copied.
    pub fn to_message(&self) -> Message {
        if let Some(prepared) = &self.prepared {
            return prepared.message().clone();
        }
        // SAFETY: kind and bytes were taken from one message and are never modified.
        #[allow(unsafe_code)]
        unsafe {
            Message::from_validated(self.kind, self.payload())
        }
    }

    /// The prepared message, if there is one.
    #[inline]
    pub(crate) fn prepared(&self) -> Option<&PreparedMessage> {
        self.prepared.as_ref()
    }

    #[inline]
    pub(crate) fn compress_choice(&self) -> Compress {
        self.compress
    }

    #[inline]
    pub(crate) fn kind(&self) -> MessageKind {
        self.kind
    }

    /// [`len`](Self::len), for a message that is not prepared.
    #[inline]
    pub(crate) fn plain_len(&self) -> usize {
        match &self.shared {
            Some(bytes) => bytes.len(),
            None => self.inline.len(),
        }
    }

    /// The payload of a message that is not prepared.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.shared {
            Some(bytes) => bytes,
            None => self.inline.as_slice(),
        }
    }

    /// Appends the payload of a message that is not prepared to `out`.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        match &self.shared {
            Some(bytes) => out.extend_from_slice(bytes),
            None => self.inline.append_to(out),
        }
    }

    /// The payload of a message that is not prepared, without a copy.
    pub(crate) fn payload(&self) -> Payload {
        Payload(match &self.shared {
            Some(bytes) => Repr::Shared(bytes.clone()),
            None => Repr::Inline(self.inline),
        })
    }
}

impl Message {
    /// Adds the choice whether to compress the message on a connection that negotiated compression.
    pub fn compress(self, compress: Compress) -> Outbound {
        Outbound::new(self, compress)
    }
}

impl From<Message> for Outbound {
    #[inline(always)]
    fn from(message: Message) -> Self {
        Self::new(message, Compress::Auto)
    }
}

impl From<PreparedMessage> for Outbound {
    fn from(prepared: PreparedMessage) -> Self {
        Self {
            kind: prepared.message().kind(),
            compress: prepared.compress(),
            shared: None,
            inline: InlineBytes::EMPTY,
            prepared: Some(prepared),
        }
    }
}

impl From<&PreparedMessage> for Outbound {
    fn from(prepared: &PreparedMessage) -> Self {
        prepared.clone().into()
    }
}

macro_rules! from_message_sources {
    ($($source:ty),*) => {$(
        impl From<$source> for Outbound {
            #[inline]
            fn from(source: $source) -> Self {
                Message::from(source).into()
            }
        }
    )*};
}

from_message_sources!(&str, String, Text, &[u8], Vec<u8>, Bytes, Payload);

impl<const N: usize> From<&[u8; N]> for Outbound {
    fn from(bytes: &[u8; N]) -> Self {
        Message::from(bytes).into()
    }
}

/// Compares the kind, the payload and the choice of compression.
impl PartialEq for Outbound {
    fn eq(&self, other: &Self) -> bool {
        self.compress == other.compress && self.to_message() == other.to_message()
    }
}

impl Eq for Outbound {}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("message", &self.to_message())
            .field("compress", &self.compress)
            .field("is_prepared", &self.prepared.is_some())
            .finish()
    }
}
