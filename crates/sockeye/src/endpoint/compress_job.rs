//! Compression of a large message in parts, so that other tasks run in between.

use sockeye_proto::{Data, Fragment};

use crate::message::Message;

/// Size of one part; larger messages are compressed in parts. At the default level, a part takes 0.1 ms for constant
/// input, 0.25 ms for text, and 1 ms for noise.
pub(crate) const PART_LEN: usize = 64 * 1024;

/// A message that is partly compressed.
#[derive(Debug)]
pub(super) struct CompressJob {
    message: Message,
    /// The number of bytes taken so far.
    pos: usize,
    /// The position of its first fragment, in bytes since the connection began. Identifies the message.
    start: u64,
}

impl CompressJob {
    /// A message whose first fragment is at `start`.
    pub(super) fn new(message: Message, start: u64) -> Self {
        Self { message, pos: 0, start }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Takes the next part, and says whether it is the last.
    pub(super) fn next_part(&mut self) -> (Data<'_>, Fragment) {
        let part = match self.message.data() {
            Data::Text(text) => {
                let rest = &text[self.pos..];
                Data::Text(&rest[..rest.floor_char_boundary(PART_LEN)])
            }
            Data::Binary(bytes) => {
                let rest = &bytes[self.pos..];
                Data::Binary(&rest[..rest.len().min(PART_LEN)])
            }
        };
        self.pos += part.bytes().len();
        let fragment = match self.pos < self.message.len() {
            true => Fragment::More,
            false => Fragment::Last,
        };
        (part, fragment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: Message, expected: &[usize]) {
        let whole = message.as_bytes().to_vec();
        let mut job = CompressJob::new(message, 0);
        let mut taken = vec![];
        for (i, len) in expected.iter().enumerate() {
            let (part, fragment) = job.next_part();
            assert_eq!(part.bytes().len(), *len, "of part {i}");
            assert_eq!(fragment == Fragment::Last, i + 1 == expected.len());
            taken.extend_from_slice(part.bytes());
        }
        assert!(taken == whole);
    }

    #[test]
    fn parts_cover_the_message_and_split_no_code_point() {
        check(vec![7; PART_LEN + 1].into(), &[PART_LEN, 1]);
        check(vec![7; 2 * PART_LEN].into(), &[PART_LEN, PART_LEN]);
        check("a".repeat(PART_LEN + 1).into(), &[PART_LEN, 1]);
        // Three bytes each.
        check("\u{20ac}".repeat(PART_LEN / 3 + 1).into(), &[PART_LEN - 1, 3]);
    }
}
