//! Growth policy for buffers whose final length is controlled by the peer.

use alloc::vec::Vec;

/// Buffers of at least [`LARGE_BUFFER_MIN`] bytes grow by at least [`LARGE_GROWTH_STEP`] bytes. Doubling would copy the
/// data each time and fragment the heap by as much as the buffer's size. Unused capacity is not written, so it costs
/// only address space.
const LARGE_BUFFER_MIN: usize = 1024 * 1024;
const LARGE_GROWTH_STEP: usize = 16 * 1024 * 1024;

/// Reserves capacity for at least `needed` more bytes.
///
/// Doubles buffers below 1 MiB and grows larger ones by at least 16 MiB, but reserves at most `room_max` bytes.
pub(crate) fn grow(buffer: &mut Vec<u8>, needed: usize, room_max: usize) {
    let step = match buffer.len() {
        len @ LARGE_BUFFER_MIN.. => len.max(LARGE_GROWTH_STEP),
        len => len,
    };
    buffer.reserve_exact(needed.max(step).min(room_max));
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn small_buffers_double_and_large_buffers_grow_by_at_least_16_mib() {
        const MIB: usize = 1 << 20;
        for (len, needed, room_max, expected) in [
            (0, 1, 100, 1),
            (100, 1, 1000, 100),
            (100, 300, 1000, 300),
            (100, 1, 50, 50),
            (MIB - 1, 1, 100 * MIB, MIB - 1),
            (MIB, 1, 100 * MIB, 16 * MIB),
            (MIB, 1, 3 * MIB, 3 * MIB),
            (20 * MIB, 1, 100 * MIB, 20 * MIB),
        ] {
            let mut buffer = vec![0; len];
            grow(&mut buffer, needed, room_max);
            assert_eq!(buffer.capacity() - len, expected, "{len}, {needed}, {room_max}");
        }
    }
}
