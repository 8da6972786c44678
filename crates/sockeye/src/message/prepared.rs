//! Messages that are encoded once for many connections.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sockeye_proto::deflate::{CodecPool, DeflateConfig};
use sockeye_proto::{Compress, Connection, FrameInfo};

use crate::message::Message;
use crate::message::payload::Payload;

/// A message that is framed once, and compressed at most once for each set of parameters, for any number of
/// connections. Use it for broadcasts. A clone costs a reference count.
///
/// ```
/// # use sockeye::{PreparedMessage, Sender};
/// # fn publish(senders: &[Sender]) {
/// let news = PreparedMessage::new("to everyone");
/// for sender in senders {
///     if let Err(error) = sender.try_send(&news) {
///         // The peer is slow or gone: the application decides what to do.
///         eprintln!("not sent: {error}");
///     }
/// }
/// # }
/// ```
///
/// # Cost
///
/// A connection copies a frame of less than 16 KiB into its write buffer and refers to a larger one. The first call
/// that needs the compressed form compresses the whole message (about 4 ms for 1 MiB of text), and concurrent calls
/// that need it wait. If the first 64 KiB do not get smaller, compression stops there. There is at most one compressed
/// frame for each compression level and window size (clients choose among seven).
///
/// Each message is compressed on its own: with context takeover, the result is larger than that of a connection's own
/// compressor. Clients mask every frame anew, so preparing a message does not save them the copy.
#[derive(Clone)]
pub struct PreparedMessage(Arc<Inner>);

struct Inner {
    /// Shares its bytes with `plain`, unless they are stored inline.
    message: Message,
    compress: Compress,
    plain: Frame,
    compressed: OnceLock<Box<Variant>>,
}

/// An encoded frame.
pub(crate) struct Frame {
    pub(crate) info: FrameInfo,
    pub(crate) bytes: Payload,
}

/// The frame for all connections with the same parameters. A linked list, nearly always of one entry.
struct Variant {
    config: DeflateConfig,
    /// `None` if compression does not make the message smaller.
    frame: Option<Frame>,
    next: OnceLock<Box<Self>>,
}

impl PreparedMessage {
    /// Frames a message, with one copy of it. It is compressed on connections that negotiated that, if worthwhile.
    pub fn new(message: impl Into<Message>) -> Self {
        Self::with_compress(message, Compress::Auto)
    }

    /// Frames a message, with one copy of it. `compress` says whether to compress it on connections that negotiated
    /// that.
    pub fn with_compress(message: impl Into<Message>, compress: Compress) -> Self {
        let message = message.into();
        let mut bytes = Vec::new();
        let info = FrameInfo::plain(message.data(), &mut bytes);
        let header_len = bytes.len() - message.len();
        let bytes = Bytes::from(bytes);
        Self(Arc::new(Inner {
            message: message.with_storage(&bytes.slice(header_len..)),
            compress,
            plain: Frame {
                info,
                bytes: bytes.into(),
            },
            compressed: OnceLock::new(),
        }))
    }

    /// The message that was prepared.
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    pub(crate) fn compress(&self) -> Compress {
        self.0.compress
    }

    /// The frame to send on a server's connection. Compresses the message unless that was done for the same parameters.
    pub(crate) fn frame_for(&self, connection: &Connection, compress: Compress, codecs: CodecPool) -> &Frame {
        let message = &self.0.message;
        let config = connection
            .deflate_config()
            .filter(|_| connection.would_compress(message.len(), compress));
        config
            .and_then(|config| self.compressed_frame(config, codecs))
            .unwrap_or(&self.0.plain)
    }

    fn compressed_frame(&self, config: &DeflateConfig, codecs: CodecPool) -> Option<&Frame> {
        let mut slot = &self.0.compressed;
        loop {
            let variant = slot.get_or_init(|| Box::new(Variant::new(&self.0.message, config, codecs)));
            if variant.matches(config) {
                return variant.frame.as_ref();
            }
            slot = &variant.next;
        }
    }
}

impl Variant {
    /// Whether this configuration gives the same frame.
    fn matches(&self, config: &DeflateConfig) -> bool {
        let key = |config: &DeflateConfig| (config.level, config.memory_level, config.window_bits);
        key(&self.config) == key(config)
    }

    fn new(message: &Message, config: &DeflateConfig, codecs: CodecPool) -> Self {
        let mut bytes = Vec::new();
        let info = FrameInfo::compressed(message.data(), config, codecs, &mut bytes);
        Self {
            config: config.clone(),
            frame: info.map(|info| Frame {
                info,
                bytes: bytes.into(),
            }),
            next: OnceLock::new(),
        }
    }
}

/// Equal if the messages are equal and use the same [`Compress`] value.
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
        let negotiated = NegotiatedParams {
            takeover,
            peer_takeover: takeover,
            window_bits,
            peer_window_bits: window_bits,
        };
        let mut connection = Connection::new(Role::Server, Arc::new(Config::default()), Instant::default());
        connection.enable_deflate(&DeflateConfig::default(), negotiated, CodecPool::UNPOOLED);
        connection
    }

    #[test]
    fn connections_with_equal_parameters_share_one_frame() {
        let prepared = PreparedMessage::new("again ".repeat(100));
        let (wide, narrow) = (connection(15, Takeover::Reset), connection(9, Takeover::Reset));
        let frame = prepared.frame_for(&wide, Compress::Auto, CodecPool::UNPOOLED);
        assert!(frame.bytes.len() < 100);
        let alike = [connection(15, Takeover::Reset), connection(15, Takeover::Keep)];
        for other in &alike {
            assert!(std::ptr::eq(
                frame,
                prepared.clone().frame_for(other, Compress::Auto, CodecPool::UNPOOLED)
            ));
        }
        let narrow = prepared.frame_for(&narrow, Compress::Auto, CodecPool::UNPOOLED);
        assert!(!std::ptr::eq(frame, narrow) && !std::ptr::eq(narrow, &raw const prepared.0.plain));

        let never = PreparedMessage::with_compress("again ".repeat(100), Compress::Never);
        assert!(std::ptr::eq(
            never.frame_for(&wide, Compress::Never, CodecPool::UNPOOLED),
            &raw const never.0.plain
        ));
    }
}
