//! Records when each message of a connection was due, when it was sent, and when it was answered.
//!
//! Replies arrive in the order of the messages, so a queue is enough. Times are nanoseconds on the clock of the run and
//! are passed in, so that tests can simulate a stalled server.

use std::collections::VecDeque;

/// The messages of one connection that have no reply yet.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// How many of them have been sent, from the front.
    written: usize,
}

/// Messages that were due at the same time.
#[derive(Clone, Copy, Debug)]
struct Entry {
    count: u64,
    /// Index of the message after them, counted from the first of the connection.
    end: u64,
    intended: u64,
    written: u64,
}

/// Reply times of some messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) count: u64,
    /// When the messages were due.
    pub(crate) intended: u64,
    /// When their last byte was sent.
    pub(crate) written: u64,
}

impl Ledger {
    /// Records messages that are due now: those before message `end`.
    pub(crate) fn ask(&mut self, count: u64, end: u64, intended: u64) {
        self.entries.push_back(Entry {
            count,
            end,
            intended,
            written: u64::MAX,
        });
    }

    /// Records that all messages before `end` have now been sent.
    pub(crate) fn wrote(&mut self, end: u64, now: u64) {
        while let Some(entry) = self.entries.get_mut(self.written).filter(|entry| entry.end <= end) {
            entry.written = now;
            self.written += 1;
        }
    }

    /// Records that the next `count` replies arrived. Returns false if there were more replies than sent messages.
    #[must_use]
    pub(crate) fn answer(&mut self, mut count: u64, mut each: impl FnMut(Answer)) -> bool {
        while count > 0 {
            let Some(entry) = self.entries.front_mut() else {
                return false;
            };
            if entry.written == u64::MAX {
                return false;
            }
            let answered = count.min(entry.count);
            each(Answer {
                count: answered,
                intended: entry.intended,
                written: entry.written,
            });
            count -= answered;
            entry.count -= answered;
            if entry.count == 0 {
                self.entries.pop_front();
                self.written -= 1;
            }
        }
        true
    }

    /// The unanswered messages, oldest first: their number, and when they were due.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = (u64, u64)> {
        self.entries.iter().map(|entry| (entry.count, entry.intended))
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Ledger};

    #[test]
    fn a_stalled_server_shows_in_the_intended_time_and_not_in_the_actual_one() {
        let mut ledger = Ledger::default();
        // One message per millisecond. For a hundred of them the server reads nothing, then all are sent at once and
        // answered a millisecond later.
        for idx in 0..100 {
            ledger.ask(1, idx + 1, idx);
        }
        ledger.wrote(100, 100);
        let (mut intended_max, mut actual_max) = (0, 0);
        assert!(ledger.answer(100, |answer| {
            intended_max = intended_max.max(101 - answer.intended);
            actual_max = actual_max.max(101 - answer.written);
        }));
        assert_eq!((intended_max, actual_max), (101, 1));
    }

    #[test]
    fn replies_are_matched_with_parts_of_a_burst() {
        let mut ledger = Ledger::default();
        ledger.ask(3, 3, 10);
        ledger.ask(2, 5, 20);
        ledger.wrote(4, 11);
        assert!(!ledger.answer(4, |_| {}), "the second burst has not left whole");
        assert_eq!(ledger.unanswered().collect::<Vec<_>>(), [(2, 20)]);
        ledger.wrote(5, 25);
        let mut answers = Vec::new();
        assert!(ledger.answer(1, |answer| answers.push(answer)));
        assert_eq!(
            answers,
            [Answer {
                count: 1,
                intended: 20,
                written: 25
            }]
        );
        assert_eq!(ledger.unanswered().collect::<Vec<_>>(), [(1, 20)]);
        assert!(!ledger.answer(2, |_| {}), "more replies than messages");
    }
}
