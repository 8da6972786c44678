//! Frames (RFC 6455 §5.2): their headers and their masking.
//!
//! Nothing here knows of connections, roles or messages: a header is decoded, encoded and checked for what it
//! violates by itself. What a frame may be *here and now* is the connection's business.

mod header;
mod mask;

pub(crate) use header::CONTROL_PAYLOAD_MAX;
pub(crate) use header::{FIN, LENGTH_16, MASKED, RSV1, SHORT_MAX};
pub use header::{FrameHeader, HEADER_LEN_MAX, Opcode};
pub use mask::MaskingKey;
