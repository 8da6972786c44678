//! Fan-out: one connection publishes, many receive. Tracks which messages all subscribers have received.

use std::collections::VecDeque;

/// Messages that not all subscribers have received, oldest first.
#[derive(Debug)]
pub(crate) struct Fanout {
    subscribers: u64,
    /// Index of the oldest such message.
    first: u64,
    pending: VecDeque<Pending>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    /// Number of subscribers that have not received it.
    missing: u64,
    published: u64,
}

impl Fanout {
    pub(crate) fn new(subscribers: u64) -> Self {
        Self {
            subscribers,
            first: 0,
            pending: VecDeque::new(),
        }
    }

    pub(crate) fn publish(&mut self, count: u64, now: u64) {
        for _ in 0..count {
            self.pending.push_back(Pending {
                missing: self.subscribers,
                published: now,
            });
        }
    }

    /// Records that one subscriber received the messages from `from` up to, excluding, `to`. Calls `each` with the
    /// publication time of each, and returns how many messages have now been received by all.
    pub(crate) fn deliver(&mut self, from: u64, to: u64, mut each: impl FnMut(u64)) -> u64 {
        for message in from..to {
            if let Some(pending) = self.pending.get_mut((message - self.first) as usize) {
                pending.missing -= 1;
                each(pending.published);
            }
        }
        let before = self.first;
        while self.pending.front().is_some_and(|oldest| oldest.missing == 0) {
            self.pending.pop_front();
            self.first += 1;
        }
        self.first - before
    }
}

#[cfg(test)]
mod tests {
    use super::Fanout;

    #[test]
    fn a_message_is_done_when_the_last_has_it() {
        let mut fanout = Fanout::new(2);
        fanout.publish(2, 7);
        assert_eq!(fanout.deliver(0, 2, |published| assert_eq!(published, 7)), 0);
        assert_eq!(fanout.deliver(0, 1, |_| {}), 1);
        fanout.publish(1, 8);
        assert_eq!(fanout.deliver(1, 3, |_| {}), 1);
        assert_eq!(fanout.deliver(2, 3, |published| assert_eq!(published, 8)), 1);
        assert!(fanout.pending.is_empty());
    }
}
