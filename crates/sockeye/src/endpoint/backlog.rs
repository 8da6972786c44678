//! State that only a busy connection has.
//!
//! It is boxed and exists only while there is something in it, so that an idle connection does not pay for it.

use std::collections::VecDeque;
use std::time::Duration;

use sockeye_proto::Instant;

use super::compress_job::CompressJob;
use crate::message::Message;

/// The memory that a queued message takes beside its payload: its entry in the queue, and an allocation.
const MESSAGE_COST: usize = 64;

#[derive(Default)]
pub(super) struct Backlog {
    /// The message that is being compressed. Everything before it is in the output, and nothing can be queued behind it.
    pub(super) compress_job: Option<CompressJob>,
    /// Present while the transport is full.
    pub(super) stall: Option<Stall>,
    /// An estimate of when a slow peer has read what the transport held when it was full last.
    pub(super) drained_at: Option<Instant>,
    /// Messages that were received while a send waited.
    pub(super) ahead: ReadAhead,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.compress_job.is_none()
            && self.stall.is_none()
            && self.drained_at.is_none()
            && self.ahead.messages.is_empty()
    }
}

/// The longest estimate of the time in which a peer reads what its transport holds.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(120);

/// A full transport, and how much it has taken since the peer's rate was checked last.
#[derive(Debug)]
pub(super) struct Stall {
    began: Instant,
    /// How many bytes of the connection had been written when the transport was first full.
    written_at_first: u64,
    /// How many bytes the transport took in the last write before it was full: about as much as it holds.
    held: u64,
    since: Instant,
    /// How many bytes of the connection had been written then.
    written_before: u64,
    /// How many bytes the transport took beyond the least rate in the period before. A kernel takes them in large pieces.
    surplus: u64,
}

impl Stall {
    /// The transport has just taken `held` bytes of `written_total`, and is full.
    pub(super) fn new(now: Instant, written_total: u64, held: u64) -> Self {
        Self {
            began: now,
            written_at_first: written_total,
            held,
            since: now,
            written_before: written_total,
            surplus: 0,
        }
    }

    /// When the peer's rate must be checked.
    pub(super) fn deadline(&self, timeout: Duration) -> Instant {
        self.since + timeout
    }

    /// Whether the peer has taken any bytes in this period, and at least `taken_min` together with the surplus of the period
    /// before. Begins the next period.
    pub(super) fn renew(&mut self, now: Instant, written_total: u64, taken_min: u64) -> bool {
        let taken = written_total.saturating_sub(self.written_before);
        let counted = taken + self.surplus;
        self.since = now;
        self.written_before = written_total;
        self.surplus = counted.saturating_sub(taken_min).min(taken_min);
        taken > 0 && counted >= taken_min
    }

    /// Estimates the time in which the peer reads what the transport holds, from the rate at which it has made room so far.
    pub(super) fn drain_time(&self, now: Instant, written_total: u64) -> Duration {
        let taken = written_total.saturating_sub(self.written_at_first);
        let millis = u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX);
        match self.held.saturating_mul(millis).checked_div(taken) {
            Some(millis) => Duration::from_millis(millis).min(DRAIN_TIME_MAX),
            None => Duration::ZERO,
        }
    }
}

/// Messages that were received while a send waited, in order.
///
/// Without this, two peers that both send more than the network holds before they receive would wait for each other.
#[derive(Default)]
pub(super) struct ReadAhead {
    messages: VecDeque<Message>,
    cost: usize,
}

impl ReadAhead {
    /// The memory that the messages take, in bytes.
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
            let mut stall = Stall::new(at(5), 1000, 0);
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
    fn what_the_transport_holds_takes_as_long_as_the_rate_of_the_peer_says() {
        let stall = Stall::new(at(10), 50_000, 50_000);
        // 100 bytes a second: 500 s, which is cut.
        assert_eq!(stall.drain_time(at(20), 51_000), DRAIN_TIME_MAX);
        assert_eq!(stall.drain_time(at(20), 150_000), Duration::from_secs(5));
        // Nothing taken says nothing.
        assert_eq!(stall.drain_time(at(20), 50_000), Duration::ZERO);
    }

    #[test]
    fn a_surplus_counts_for_one_more_period() {
        let mut stall = Stall::new(at(0), 0, 0);
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
