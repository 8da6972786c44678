//! Messages encoded once for many connections (broadcast).
//!
//! A server's frames are not masked, so the same bytes can be sent on every connection: an uncompressed frame on all of
//! them, a compressed frame on those that negotiated a window at least as large. A client masks each frame with a new
//! key, so its frames cannot be shared.

use alloc::vec::Vec;

#[cfg(feature = "deflate")]
use super::send::append_compressed_header;
use super::send::{append_header, opcode_of};
use super::{Connection, Role, SendError};
#[cfg(feature = "deflate")]
use crate::deflate::{CodecPool, DeflateConfig, WindowBits, compress};
use crate::message::{Data, Fragment};

/// Describes a frame that was encoded in advance. Determines which connections it may be sent on.
///
/// Encoding and compressing a broadcast message once saves that work for each further connection.
///
/// ```
/// # use sockeye_proto::{Data, FrameInfo};
/// let message = Data::Text("to everyone");
/// let mut frame = Vec::new();
/// let frame_info = FrameInfo::plain(message, &mut frame);
/// // For each connection: call `connection.start_framed(message, frame_info)?`, then write `frame` to its transport.
/// # let _ = frame_info;
/// ```
///
/// For connections with compression, create a second frame with `FrameInfo::compressed` and the configuration from
/// `Connection::deflate_config`. It can be shared by all connections with the same configuration.
#[derive(Clone, Copy, Debug)]
pub struct FrameInfo {
    message_len: usize,
    /// Window size of the compressor; `None` if the frame is not compressed.
    #[cfg(feature = "deflate")]
    window_bits: Option<WindowBits>,
    /// The length of the payload as it is sent.
    #[cfg(feature = "deflate")]
    payload_len: usize,
}

impl FrameInfo {
    /// Appends an uncompressed, unmasked frame with this message to `out`.
    pub fn plain(message: Data<'_>, out: &mut Vec<u8>) -> Self {
        let bytes = message.bytes();
        out.reserve_exact(crate::frame::HEADER_LEN_MAX + bytes.len());
        append_header(Fragment::Last, opcode_of(message.kind()), bytes.len() as u64, None, out);
        out.extend_from_slice(bytes);
        Self {
            message_len: bytes.len(),
            #[cfg(feature = "deflate")]
            window_bits: None,
            #[cfg(feature = "deflate")]
            payload_len: bytes.len(),
        }
    }

    /// Appends a compressed, unmasked frame with this message to `out`. The frame does not refer to earlier messages.
    ///
    /// Returns `None` and appends nothing if compression does not make the message smaller.
    // [7692-6.1-2, 7692-7.2.1-7]
    #[cfg(feature = "deflate")]
    pub fn compressed(message: Data<'_>, config: &DeflateConfig, codecs: CodecPool, out: &mut Vec<u8>) -> Option<Self> {
        let payload_len = compress(config, codecs, &[], message.bytes(), |payload| {
            out.reserve_exact(crate::frame::HEADER_LEN_MAX + payload.len());
            append_compressed_header(Fragment::Last, message.kind(), payload.len() as u64, None, out);
            out.extend_from_slice(payload);
            payload.len()
        })?;
        Some(Self {
            message_len: message.bytes().len(),
            window_bits: Some(config.window_bits),
            payload_len,
        })
    }
}

impl Connection {
    /// Starts sending a message that was encoded in advance. The caller must then write the whole frame to the
    /// transport, before any other bytes.
    ///
    /// `message` must be the message that `frame_info` was created from: with context takeover, later messages refer
    /// back to it and would be corrupted otherwise.
    ///
    /// # Errors
    ///
    /// - [`SendError::Closed`] if the connection is closing or closed.
    /// - [`SendError::MessageInProgress`] if a fragmented message is not finished.
    /// - [`SendError::FrameMismatch`] if this endpoint is a client, or if the frame is compressed and this connection
    ///   did not negotiate compression with a window at least as large.
    ///
    /// # Panics
    ///
    /// In debug builds, if `message` differs in length from the message that `frame_info` was created from.
    pub fn start_framed(&mut self, message: Data<'_>, frame_info: FrameInfo) -> Result<(), SendError> {
        debug_assert_eq!(
            message.bytes().len(),
            frame_info.message_len,
            "`frame_info` was created from another message"
        );
        self.check_message_may_begin()?;
        // RFC 6455 §5.3: a client needs a new masking key for each frame.
        if !matches!(self.role, Role::Server) {
            return Err(SendError::FrameMismatch);
        }
        #[cfg(feature = "deflate")]
        if let Some(window_bits) = frame_info.window_bits {
            let deflate = self.deflate.as_mut().ok_or(SendError::FrameMismatch)?;
            if window_bits > deflate.config().window_bits {
                return Err(SendError::FrameMismatch);
            }
            deflate.remember_sent(message.bytes());
            deflate.count_framed(message.bytes().len(), frame_info.payload_len);
        }
        Ok(())
    }
}
