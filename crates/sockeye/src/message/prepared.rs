//! Messages made once for many connections.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sockeye_proto::deflate::{CodecPool, DeflateConfig};
use sockeye_proto::{Compress, Connection, Framing};

use crate::message::Message;
use crate::message::payload::Payload;

/// A message that is framed once, and compressed at most once for each set of parameters, whatever number of
/// connections it is sent on: for broadcasts. A clone costs a reference count.
///
/// ```
/// # use sockeye::{PreparedMessage, Sender};
/// # fn publish(senders: &[Sender]) {
/// let news = PreparedMessage::new("to everyone");
/// for sender in senders {
///     if let Err(error) = sender.try_send_prepared(&news) {
///         // Slow or gone: what becomes of it is yours to say.
///         eprintln!("not sent: {error}");
///     }
/// }
/// # }
/// ```
///
/// # Cost
///
/// A connection copies a frame of less than 16 KiB into its write buffer, and refers to a larger one. The message is
/// compressed whole within the call that first needs it, while others that need it too wait for that (some 4 ms for 1
/// MiB of text; of what does not get smaller, only the first 64 KiB are tried); there is at most one
/// compressed frame for each level and size of window (clients choose among seven). Nothing but this message is in the
/// window: with context takeover it comes out larger than it would on one connection. Clients mask every frame anew, so
/// to them it is a message like any other.
#[derive(Clone)]
pub struct PreparedMessage(Arc<Inner>);

struct Inner {
    /// Its bytes lie in those of `plain`, unless they are few.
    message: Message,
    compress: Compress,
    plain: Frame,
    compressed: OnceLock<Box<Variant>>,
}

/// A frame as it leaves.
pub(crate) struct Frame {
    pub(crate) framing: Framing,
    pub(crate) bytes: Payload,
}

/// The frame for all connections that compress alike; a list, of one nearly always.
struct Variant {
    config: DeflateConfig,
    /// `None` if compressed it would not be smaller.
    frame: Option<Frame>,
    next: OnceLock<Box<Self>>,
}

impl PreparedMessage {
    /// Frames a message, with one copy of it. It is compressed where that was negotiated and is worth it.
    pub fn new(message: impl Into<Message>) -> Self {
        Self::with(message, Compress::Auto)
    }

    /// Frames a message, with one copy of it. `compress` says whether to compress it where that was negotiated.
    pub fn with(message: impl Into<Message>, compress: Compress) -> Self {
        let message = message.into();
        let mut bytes = Vec::new();
        let framing = Framing::plain(message.data(), &mut bytes);
        let header_len = bytes.len() - message.len();
        let bytes = Bytes::from(bytes);
        Self(Arc::new(Inner {
            message: message.stored_in(&bytes.slice(header_len..)),
            compress,
            plain: Frame {
                framing,
                bytes: bytes.into(),
            },
            compressed: OnceLock::new(),
        }))
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    pub(crate) fn compress(&self) -> Compress {
        self.0.compress
    }

    /// The frame to send on this connection of a server. Compresses the message if no connection with the same parameters has
    /// done so.
    pub(crate) fn frame_for(&self, connection: &Connection, codecs: CodecPool) -> &Frame {
        let message = &self.0.message;
        let config = connection
            .deflate_config()
            .filter(|_| connection.would_compress(message.len(), self.0.compress));
        config
            .and_then(|config| self.compressed_frame(config, codecs))
            .unwrap_or(&self.0.plain)
    }

    fn compressed_frame(&self, config: &DeflateConfig, codecs: CodecPool) -> Option<&Frame> {
        let mut slot = &self.0.compressed;
        loop {
            let variant = slot.get_or_init(|| Box::new(Variant::new(&self.0.message, config, codecs)));
            if variant.is_for(config) {
                return variant.frame.as_ref();
            }
            slot = &variant.next;
        }
    }
}

impl Variant {
    /// Whether such a configuration makes the same frame.
    fn is_for(&self, config: &DeflateConfig) -> bool {
        let deciding = |config: &DeflateConfig| (config.level, config.memory_level, config.window_bits);
        deciding(&self.config) == deciding(config)
    }

    fn new(message: &Message, config: &DeflateConfig, codecs: CodecPool) -> Self {
        let mut bytes = Vec::new();
        let framing = Framing::compressed(message.data(), config, codecs, &mut bytes);
        Self {
            config: config.clone(),
            frame: framing.map(|framing| Frame {
                framing,
                bytes: bytes.into(),
            }),
            next: OnceLock::new(),
        }
    }
}

/// Equal messages, to be compressed alike.
impl PartialEq for PreparedMessage {
    fn eq(&self, other: &Self) -> bool {
        self.0.compress == other.0.compress && self.0.message == other.0.message
    }
}

impl Eq for PreparedMessage {}

impl From<Message> for PreparedMessage {
    fn from(message: Message) -> Self {
        Self::new(message)
    }
}

impl fmt::Debug for PreparedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedMessage").field(&self.0.message).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
    use sockeye_proto::{Config, Connection, Instant, Role};

    use super::*;

    fn connection(window_bits: u8, takeover: Takeover) -> Connection {
        let window_bits = WindowBits::new(window_bits).unwrap();
        let agreement = NegotiatedParams {
            takeover,
            peer_takeover: takeover,
            window_bits,
            peer_window_bits: window_bits,
        };
        let mut connection = Connection::new(Role::Server, Arc::new(Config::default()), Instant::default());
        connection.enable_deflate(&DeflateConfig::default(), agreement, CodecPool::UNPOOLED);
        connection
    }

    #[test]
    fn connections_that_compress_alike_share_one_frame() {
        let prepared = PreparedMessage::new("again ".repeat(100));
        let (wide, narrow) = (connection(15, Takeover::Reset), connection(9, Takeover::Reset));
        let frame = prepared.frame_for(&wide, CodecPool::UNPOOLED);
        assert!(frame.bytes.len() < 100);
        let alike = [connection(15, Takeover::Reset), connection(15, Takeover::Keep)];
        for other in &alike {
            assert!(std::ptr::eq(
                frame,
                prepared.clone().frame_for(other, CodecPool::UNPOOLED)
            ));
        }
        let narrow = prepared.frame_for(&narrow, CodecPool::UNPOOLED);
        assert!(!std::ptr::eq(frame, narrow) && !std::ptr::eq(narrow, &raw const prepared.0.plain));

        let never = PreparedMessage::with("again ".repeat(100), Compress::Never);
        assert!(std::ptr::eq(
            never.frame_for(&wide, CodecPool::UNPOOLED),
            &raw const never.0.plain
        ));
    }
}
