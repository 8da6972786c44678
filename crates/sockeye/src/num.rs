//! Conversions of integers.

/// Converts a length. Longer ones become `u32::MAX`.
pub(crate) fn saturating_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
