//! Limit of the rate of commands.

use std::time::{Duration, Instant};

/// Limits the average rate of events, and allows bursts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// When all events so far would have happened at the maximum rate.
    settled_at: Instant,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { settled_at: now }
    }

    /// Counts an event. Returns `false` if more than `burst` seconds' worth of events happened at once; the event is then
    /// not counted.
    pub(super) fn allows(&mut self, now: Instant, per_second_max: u32, burst: Duration) -> bool {
        let settled_at = self.settled_at.max(now) + Duration::from_secs(1) / per_second_max.max(1);
        let is_allowed = settled_at <= now + burst;
        if is_allowed {
            self.settled_at = settled_at;
        }
        is_allowed
    }

    /// Whether nothing of the past counts any more.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.settled_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_average_rate() {
        let mut now = Instant::now();
        let mut rate = Rate::new(now);
        let burst = Duration::from_secs(2);
        assert_eq!((0..100).filter(|_| rate.allows(now, 10, burst)).count(), 20);
        now += Duration::from_millis(300);
        assert_eq!((0..100).filter(|_| rate.allows(now, 10, burst)).count(), 3);
        assert!(!rate.is_idle(now));
        now += Duration::from_secs(2);
        assert!(rate.is_idle(now));
    }
}
