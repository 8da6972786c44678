//! What waits in either direction while a connection is busy.
//!
//! Boxed and present only while there is something in it, so that an idle connection does not pay for it.

use std::collections::VecDeque;
use std::time::Duration;

use sockeye_proto::Instant;

use super::parts::Parts;
use crate::message::Message;

/// What a queued message costs beside its payload: its place in the queue, and an allocation.
const MESSAGE_COST: usize = 64;

#[derive(Default)]
pub(super) struct Backlog {
    /// The message that is being compressed. What was queued before it is in the output; nothing is queued behind it.
    pub(super) parts: Option<Parts>,
    /// The transport is full.
    pub(super) stall: Option<Stall>,
    /// Messages that were received while a send waited.
    pub(super) ahead: ReadAhead,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_none() && self.stall.is_none() && self.ahead.messages.is_empty()
    }
}

/// A full transport, and how much it has taken since its peer's rate was last checked.
#[derive(Debug)]
pub(super) struct Stall {
    since: Instant,
    /// How many bytes of the connection had been written then.
    written_before: u64,
    /// How many bytes were taken beyond the least rate before. A kernel takes them in large pieces.
    surplus: u64,
}

impl Stall {
    pub(super) fn new(now: Instant, written_total: u64) -> Self {
        Self {
            since: now,
            written_before: written_total,
            surplus: 0,
        }
    }

    /// When the peer's rate is to be checked.
    pub(super) fn deadline(&self, timeout: Duration) -> Instant {
        self.since + timeout
    }

    /// Whether the peer has taken any bytes by the deadline, and at least `taken_min` with the surplus of the period before.
    /// If so, the next period begins.
    pub(super) fn renew(&mut self, now: Instant, written_total: u64, taken_min: u64) -> bool {
        let taken = written_total.saturating_sub(self.written_before);
        let counted = taken + self.surplus;
        *self = Self {
            since: now,
            written_before: written_total,
            surplus: counted.saturating_sub(taken_min).min(taken_min),
        };
        taken > 0 && counted >= taken_min
    }
}

/// Messages that were received while a send waited, in order.
///
/// Two peers that both send more than the network holds before they receive would otherwise wait for each other.
#[derive(Default)]
pub(super) struct ReadAhead {
    messages: VecDeque<Message>,
    cost: usize,
}

impl ReadAhead {
    /// Bytes of memory that the messages cost.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn push(&mut self, message: Message) {
        self.cost += message.len() + MESSAGE_COST;
        self.messages.push_back(message);
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.cost -= message.len() + MESSAGE_COST;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(secs)
    }

    #[test]
    fn a_peer_that_takes_less_than_the_least_rate_is_stalled() {
        for (taken, taken_min, is_alive) in [(0, 0, false), (1, 0, true), (99, 100, false), (100, 100, true)] {
            let mut stall = Stall::new(at(5), 1000);
            assert_eq!(stall.deadline(Duration::from_secs(10)), at(15));
            assert_eq!(
                stall.renew(at(15), 1000 + taken, taken_min),
                is_alive,
                "{taken} of {taken_min}"
            );
            assert_eq!(stall.deadline(Duration::from_secs(10)), at(25));
            assert!(
                !stall.renew(at(25), 1000 + taken, taken_min),
                "no byte in the second period"
            );
        }
    }

    #[test]
    fn a_surplus_counts_for_one_more_period() {
        let mut stall = Stall::new(at(0), 0);
        assert!(stall.renew(at(10), 1000, 100));
        assert!(stall.renew(at(20), 1001, 100));
        assert!(!stall.renew(at(30), 1002, 100));
    }

    #[test]
    fn messages_leave_in_order_and_their_cost_with_them() {
        let mut ahead = ReadAhead::default();
        for len in [0, 1, 1000] {
            ahead.push(vec![7; len].into());
        }
        assert_eq!(ahead.cost(), 1001 + 3 * MESSAGE_COST);
        let lens: Vec<_> = std::iter::from_fn(|| ahead.pop())
            .map(|message| message.len())
            .collect();
        assert_eq!(lens, [0, 1, 1000]);
        assert_eq!(ahead.cost(), 0);
    }
}
