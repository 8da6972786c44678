//! Frame headers (RFC 6455 §5.2) and masking (§5.3).
//!
//! This module is stateless. It encodes and decodes single headers and rejects those that are invalid in any context.
//! [`Connection`](crate::Connection) checks the rules that depend on the role, on the negotiated extensions or on
//! earlier frames.

mod header;
mod mask;

pub(crate) use header::CONTROL_PAYLOAD_MAX;
pub(crate) use header::{FIN, LENGTH_16, MASKED, RSV1, SHORT_MAX};
pub use header::{FrameHeader, HEADER_LEN_MAX, Opcode};
pub(crate) use mask::MaskRule;
pub use mask::MaskingKey;
