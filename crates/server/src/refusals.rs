//! A rate limiter for the log lines about refused clients.
//!
//! Operators need these lines: with a proxy that rewrites the Host header, the server otherwise just seems to be down.
//! But clients cause them, so a client that retries a thousand times per second must not fill the disk. The limit
//! allows a burst of [`BURST`] lines and one line per second. The number of suppressed lines is logged before the next
//! line, or by [`report`](RefusalLog::report).

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::rate_limiter::{Rate, RateLimiter};

/// The rate limiter.
#[derive(Debug)]
pub(crate) struct RefusalLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limiter: RateLimiter,
    /// Lines suppressed since their number was last logged.
    suppressed: u64,
}

/// Number of lines that may be written at once.
const BURST: u32 = 20;

const RATE: Rate = Rate::per_interval(Duration::from_secs(1), BURST);

impl RefusalLog {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
        }
    }

    /// Calls `write`, which logs one line, unless the rate limit is exceeded.
    pub(crate) fn log(&self, write: impl FnOnce()) {
        let Some(suppressed) = self.state.lock().admit(Instant::now()) else {
            return;
        };
        log_suppressed(suppressed);
        write();
    }

    /// Logs the number of suppressed lines, if there are any.
    pub(crate) fn report(&self) {
        log_suppressed(std::mem::take(&mut self.state.lock().suppressed));
    }
}

impl State {
    /// Counts a line. Returns the number of lines suppressed before it, or `None` if it is suppressed.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.limiter.admit(now.into_std(), RATE).is_err() {
            self.suppressed += 1;
            return None;
        }
        Some(std::mem::take(&mut self.suppressed))
    }
}

fn log_suppressed(suppressed: u64) {
    if suppressed > 0 {
        tracing::warn!(suppressed, "suppressed log lines about refused clients");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refusals_writes_a_bounded_number_of_lines() {
        let log = RefusalLog::new();
        let lines = Cell::new(0);
        let flood = || (0..1000).for_each(|_| log.log(|| lines.set(lines.get() + 1)));
        flood();
        assert_eq!(lines.take(), BURST);
        assert_eq!(log.state.lock().suppressed, u64::from(1000 - BURST));
        tokio::time::advance(Duration::from_millis(2500)).await;
        flood();
        assert_eq!(lines.take(), 2);
        // The count of suppressed lines starts again after it was logged.
        assert_eq!(log.state.lock().suppressed, 998);
        tokio::time::advance(Duration::from_millis(500)).await;
        flood();
        assert_eq!(lines.take(), 1);
        tokio::time::advance(Duration::from_secs(24 * 60 * 60)).await;
        flood();
        assert_eq!(lines.take(), BURST);
        log.report();
        assert_eq!(log.state.lock().suppressed, 0);
    }
}
