//! The LZ77 window kept between messages for context takeover.

use alloc::vec::Vec;

use super::WindowBits;

/// The last bytes of one direction, uncompressed, at most the size of the negotiated window.
#[derive(Debug, Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a message and drops the oldest bytes beyond `size`.
    pub(super) fn push(&mut self, message: &[u8], size: WindowBits) {
        let size = size.size();
        if let Some(start) = message.len().checked_sub(size) {
            self.bytes.clear();
            self.bytes.reserve_exact(size);
            self.bytes.extend_from_slice(&message[start..]);
            return;
        }
        let kept = size - message.len();
        let dropped = self.bytes.len().saturating_sub(kept);
        self.bytes.drain(..dropped);
        self.bytes.reserve_exact(message.len());
        self.bytes.extend_from_slice(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn keeps_the_last_bytes_up_to_the_window_size() {
        let size = WindowBits::MIN;
        let mut window = Window::default();
        let mut all = vec![];
        for (i, len) in [1, 0, 100, 155, 1, 255, 256, 257, 1000, 3, 250].into_iter().enumerate() {
            let message = vec![i as u8; len];
            window.push(&message, size);
            all.extend_from_slice(&message);
            let expected = &all[all.len().saturating_sub(256)..];
            assert_eq!(window.as_slice(), expected, "after {len}");
            assert!(window.bytes.capacity() <= 2 * 256);
        }
    }
}
