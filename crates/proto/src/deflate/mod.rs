//! The permessage-deflate extension (RFC 7692): negotiation and codecs.
//!
//! | module | contents |
//! |---|---|
//! | `params` | offers, responses and negotiated parameters (§5, §7.1) |
//! | `codec` | compresses and inflates one message, within limits (§7.2) |
//! | `window` | the LZ77 window kept between messages for context takeover |
//! | `session` | compression state of one connection, both directions |
//!
//! # Interoperability
//!
//! - Some servers accept an offer but ignore its `server_no_context_takeover`. The client then fails the handshake with
//!   [`HandshakeError::NoContextTakeoverIgnored`](crate::handshake::HandshakeError::NoContextTakeoverIgnored), unless
//!   [`DeflateConfig::allow_fallback`] is set.
//! - A message that ends with a final block (BFINAL) must be followed by one more `00` octet (§7.2.3.4). That octet
//!   starts an empty stored block whose other four octets, `00 00 ff ff`, the sender removes. Compressors that end a
//!   message with `Z_FINISH` instead of `Z_SYNC_FLUSH` omit it. Such a message is rejected with 1007, because it cannot
//!   be distinguished from a truncated one. The sender must append `00` or use `Z_SYNC_FLUSH`.
//!
//! # Memory
//!
//! A codec needs 371 KiB to compress and 62 KiB to inflate, and most connections are idle most of the time.
//! Connections therefore do not own codecs. They borrow one per message from the caller's [`CodecPool`] and return it
//! afterwards. Without context takeover, nothing else is kept. With context takeover, the connection keeps the last
//! bytes of earlier messages uncompressed (at most the negotiated window: 256 bytes to 32 KiB per direction) and passes
//! them to the next codec as its dictionary.

mod codec;
mod params;
mod session;
mod window;

pub(crate) use codec::compress;
pub use codec::{CodecPool, Deflater, Inflater};
pub use params::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
pub(crate) use session::DeflateSession;
pub use session::{CompressionStats, CompressionTotals};
