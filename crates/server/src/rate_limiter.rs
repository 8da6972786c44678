//! A limit of the average rate of events, which allows bursts.

use std::time::{Duration, Instant};

/// How often events may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// The interval between events on average.
    pub(crate) interval: Duration,
    /// The time whose worth of events may happen at once.
    pub(crate) burst: Duration,
}

impl Rate {
    /// A number of events per second, at least one. The average number of events in `burst` may happen at once.
    pub(crate) fn per_second(max: u32, burst: Duration) -> Self {
        Self {
            interval: Duration::from_secs(1) / max.max(1),
            burst,
        }
    }

    /// One event per interval on average; `count` may happen at once.
    pub(crate) const fn per_interval(interval: Duration, count: u32) -> Self {
        Self {
            interval,
            burst: interval.saturating_mul(count),
        }
    }
}

/// Counts events against a [`Rate`] (the generic cell rate algorithm). The rate is an argument, because a reload may
/// change it, and so is the time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RateLimiter {
    /// When all admitted events would have happened at the average rate.
    due: Option<Instant>,
}

impl RateLimiter {
    /// Admits and counts an event.
    ///
    /// # Errors
    /// Returns the time after which the event would be admitted. It is not counted.
    pub(crate) fn admit(&mut self, now: Instant, rate: Rate) -> Result<(), Duration> {
        let next = self.due.map_or(now, |due| due.max(now)) + rate.interval;
        let ahead = next.saturating_duration_since(now + rate.burst);
        if !ahead.is_zero() {
            return Err(ahead);
        }
        self.due = Some(next);
        Ok(())
    }

    /// Whether a new limiter would admit the same.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_average_rate() {
        let mut now = Instant::now();
        let mut limiter = RateLimiter::default();
        let rate = Rate::per_second(10, Duration::from_secs(2));
        assert!(limiter.is_idle(now));
        let admitted = |limiter: &mut RateLimiter, now| (0..100).filter(|_| limiter.admit(now, rate).is_ok()).count();
        assert_eq!(admitted(&mut limiter, now), 20);
        assert_eq!(limiter.admit(now, rate), Err(Duration::from_millis(100)));
        now += Duration::from_millis(300);
        assert_eq!(admitted(&mut limiter, now), 3);
        assert!(!limiter.is_idle(now));
        now += Duration::from_secs(2);
        assert!(limiter.is_idle(now));
        now += Duration::from_secs(60);
        assert_eq!(admitted(&mut limiter, now), 20);
    }

    #[test]
    fn a_rate_per_interval_admits_a_number_of_events_at_once() {
        let (now, rate) = (Instant::now(), Rate::per_interval(Duration::from_secs(12), 5));
        let mut limiter = RateLimiter::default();
        assert_eq!((0..9).filter(|_| limiter.admit(now, rate).is_ok()).count(), 5);
        assert_eq!(limiter.admit(now, rate), Err(Duration::from_secs(12)));
        assert_eq!(limiter.admit(now + Duration::from_secs(12), rate), Ok(()));
    }
}
