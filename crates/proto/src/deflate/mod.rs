//! permessage-deflate (RFC 7692): what is negotiated, and the codecs.
//!
//! | file | holds |
//! |---|---|
//! | `params` | offers, answers and what they agree on (§5, §7.1) |
//! | `codec` | one message compressed or inflated, within bounds (§7.2) |
//! | `window` | what a context takeover has to remember |
//! | `session` | both directions of one connection |
//!
//! # What peers get wrong
//!
//! - A server that accepts an offer and ignores `server_no_context_takeover` in it fails the connection with
//!   [`HandshakeError::TakeoverIgnored`](crate::handshake::HandshakeError::TakeoverIgnored), unless
//!   [`DeflateConfig::falls_back`] is set.
//! - A message that ends in a final block (BFINAL) needs one more octet of zeros behind that block (§7.2.3.4): it begins
//!   the empty block of which the sender removed the other four octets, `00 00 ff ff`. A compressor that is finished with
//!   `Z_FINISH` instead of flushed leaves it out. Such a message is refused with 1007: without the octet, the four that
//!   the receiver appends (§7.2.2) are no block, so a message that was cut off would look the same. The sender has to
//!   append `00`, or to flush with `Z_SYNC_FLUSH`.
//!
//! # Memory is the design
//!
//! A codec of zlib costs some 300 KiB to compress and 48 KiB to inflate, and most connections are idle most of the
//! time. So no connection owns one: it borrows a codec for one message from a [`Codecs`] of the caller's, and gives it
//! back. Without context takeover nothing is left behind. With it, what the codec would remember of earlier messages
//! is kept as plain bytes, at most the window that was negotiated (256 bytes to 32 KiB, each direction), and given to
//! the next codec as its dictionary.

mod codec;
mod params;
mod session;
mod window;

pub(crate) use codec::compress;
pub use codec::{Codecs, Deflater, Inflater};
pub use params::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
pub(crate) use session::DeflateSession;
