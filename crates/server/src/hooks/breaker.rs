//! A circuit breaker: after several failures in a row, calls fail at once for a while.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    paused_until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, pause: Duration) -> Self {
        Self {
            failures_max: failures_max.max(1),
            pause,
            state: Mutex::default(),
        }
    }

    /// Whether a call may be made. After a pause, one call tries the backend, and the others continue to fail
    /// meanwhile.
    pub(super) fn admit(&self) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        match state.paused_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.paused_until = Some(now + self.pause);
                true
            }
        }
    }

    pub(super) fn succeeded(&self) {
        *self.state.lock() = State::default();
    }

    /// Returns whether the pause begins with this failure.
    pub(super) fn failed(&self) -> bool {
        let mut state = self.state.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures < self.failures_max {
            return false;
        }
        let is_new = state.failures == self.failures_max;
        state.paused_until = Some(Instant::now() + self.pause);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_pause_until_a_trial_succeeds() {
        let breaker = Breaker::new(3, Duration::from_secs(5));
        for _ in 0..2 {
            assert!(breaker.admit() && !breaker.failed());
        }
        breaker.succeeded();
        for begins in [false, false, true] {
            assert!(breaker.admit());
            assert_eq!(breaker.failed(), begins);
        }
        assert!(!breaker.admit());
        tokio::time::advance(Duration::from_secs(5)).await;
        // One trial at a time, and its failure extends the pause.
        assert!(breaker.admit() && !breaker.admit());
        assert!(!breaker.failed() && !breaker.admit());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(breaker.admit());
        breaker.succeeded();
        assert!(breaker.admit() && breaker.admit());
    }
}
