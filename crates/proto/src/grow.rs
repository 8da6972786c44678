//! How a buffer grows whose length the peer decides.

use alloc::vec::Vec;

/// From this length on, a buffer gets room for so many bytes at once: one that doubles is copied each time, and leaves
/// holes behind that are as large together as itself. Room that is not used is not touched.
const AT_ONCE_FROM: usize = 1024 * 1024;
const AT_ONCE: usize = 16 * 1024 * 1024;

/// Makes room for `needed` bytes at least, and for some more, but for no more than `room_max`: as much again as has
/// arrived, and from 1 MiB on 16 MiB.
pub(crate) fn grow(buffer: &mut Vec<u8>, needed: usize, room_max: usize) {
    let step = match buffer.len() {
        len @ AT_ONCE_FROM.. => len.max(AT_ONCE),
        len => len,
    };
    buffer.reserve_exact(needed.max(step).min(room_max));
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_buffer_has_room_for_as_much_again_and_from_a_mebibyte_on_for_sixteen() {
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
