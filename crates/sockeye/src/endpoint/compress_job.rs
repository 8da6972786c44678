//! Large messages that are compressed in parts. Other tasks run in between.

use sockeye_proto::{Data, Fragment};

use crate::message::Message;

/// How much of a message is compressed at once; larger messages are compressed in parts. At the default level this takes a
/// tenth of a millisecond for constant input, a quarter for text, and one millisecond for noise.
pub(crate) const PART_LEN: usize = 64 * 1024;

/// A message of which some parts are not compressed yet.
#[derive(Debug)]
pub(super) struct CompressJob {
    message: Message,
    /// How many of its bytes are taken.
    pos: usize,
    /// The position of its first fragment, in bytes since the connection began. It identifies the message.
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

    /// Takes the next part, and whether it is the last.
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
    fn parts_are_all_of_a_message_and_cut_no_code_point() {
        check(vec![7; PART_LEN + 1].into(), &[PART_LEN, 1]);
        check(vec![7; 2 * PART_LEN].into(), &[PART_LEN, PART_LEN]);
        check("a".repeat(PART_LEN + 1).into(), &[PART_LEN, 1]);
        // Three bytes each.
        check("\u{20ac}".repeat(PART_LEN / 3 + 1).into(), &[PART_LEN - 1, 3]);
    }
}
