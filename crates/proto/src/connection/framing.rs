//! Messages framed once for many connections: a broadcast costs each of them a copy, or a reference.
//!
//! A server's frames carry no mask, so one frame serves every connection that reads it the same way: all of them as it
//! is, and those that compress with a window at least as large if it is compressed. A client's frames never repeat.

use alloc::vec::Vec;

#[cfg(feature = "deflate")]
use super::send::append_compressed_header;
use super::send::{append_header, opcode_of};
use super::{Connection, Data, Fragment, Role, SendError};
#[cfg(feature = "deflate")]
use crate::deflate::{Codecs, DeflateConfig, WindowBits, compress};

/// How a message was framed beforehand, and so which connections its frame may be sent on.
///
/// ```
/// # use sockeye_proto::{Data, Framing};
/// let message = Data::Text("to everyone");
/// let mut frame = Vec::new();
/// let framing = Framing::plain(message, &mut frame);
/// // For each connection: `connection.start_framed(message, framing)?`, then its transport gets `frame`.
/// # let _ = framing;
/// ```
///
/// Where `Connection::deflate_config` gives a configuration, a second frame is made by `Framing::compressed` with it, for
/// all connections that give the same.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    message_len: usize,
    /// The window that it was compressed with, if it was.
    #[cfg(feature = "deflate")]
    window_bits: Option<WindowBits>,
}

impl Framing {
    /// Appends the frame that a server sends for this message to `out`, not compressed.
    pub fn plain(message: Data<'_>, out: &mut Vec<u8>) -> Self {
        let bytes = message.bytes();
        out.reserve_exact(crate::frame::HEADER_LEN_MAX + bytes.len());
        append_header(Fragment::Last, opcode_of(message.kind()), bytes.len() as u64, None, out);
        out.extend_from_slice(bytes);
        Self {
            message_len: bytes.len(),
            #[cfg(feature = "deflate")]
            window_bits: None,
        }
    }

    /// Appends the frame that a server sends for this message to `out`, compressed as `config` says, without reference
    /// to any other message. `None`, with nothing appended, if that would not make it smaller.
    // [7692-6.1-2, 7692-7.2.1-7]
    #[cfg(feature = "deflate")]
    pub fn compressed(message: Data<'_>, config: &DeflateConfig, codecs: Codecs, out: &mut Vec<u8>) -> Option<Self> {
        compress(config, codecs, &[], message.bytes(), |payload| {
            out.reserve_exact(crate::frame::HEADER_LEN_MAX + payload.len());
            append_compressed_header(Fragment::Last, message.kind(), payload.len() as u64, None, out);
            out.extend_from_slice(payload);
        })?;
        Some(Self {
            message_len: message.bytes().len(),
            window_bits: Some(config.window_bits),
        })
    }
}

impl Connection {
    /// Begins a message that is framed already: `message` is what `framing` was made from, or later messages that refer
    /// back to it come out garbled. The caller then sends the whole frame, before anything else.
    ///
    /// # Errors
    ///
    /// The connection is closing, or a fragmented message is not finished. [`SendError::FrameMismatch`] if this connection
    /// masks, or if the peer does not inflate what was compressed so.
    pub fn start_framed(&mut self, message: Data<'_>, framing: Framing) -> Result<(), SendError> {
        debug_assert_eq!(message.bytes().len(), framing.message_len, "another message's framing");
        self.check_message_may_begin()?;
        // RFC 6455 §5.3: a client needs a key of its own for each frame.
        if !matches!(self.role, Role::Server) {
            return Err(SendError::FrameMismatch);
        }
        #[cfg(feature = "deflate")]
        if let Some(window_bits) = framing.window_bits {
            let deflate = self.deflate.as_mut().ok_or(SendError::FrameMismatch)?;
            if window_bits > deflate.config().window_bits {
                return Err(SendError::FrameMismatch);
            }
            deflate.remember_sent(message.bytes());
        }
        Ok(())
    }
}
