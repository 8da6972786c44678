//! A rate limiter for the log lines about refused clients.
//!
//! Operators need these lines: with a proxy that rewrites the Host header, the server otherwise just seems to be down. But
//! clients cause them, so a client that retries a thousand times per second must not fill the disk. A token bucket allows
//! a burst of [`BURST`] lines and one line per second. The number of suppressed lines is logged before the next line, or by
//! [`report`](RefusalLog::report).

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The rate limiter.
#[derive(Debug)]
pub(crate) struct RefusalLog {
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Number of lines that may be written now.
    tokens: u32,
    /// When the last token was added.
    filled_at: Instant,
    /// Lines suppressed since their number was last logged.
    suppressed: u64,
}

const BURST: u32 = 20;
const REFILL_INTERVAL: Duration = Duration::from_secs(1);

impl RefusalLog {
    pub(crate) fn new() -> Self {
        Self {
            bucket: Mutex::new(Bucket {
                tokens: BURST,
                filled_at: Instant::now(),
                suppressed: 0,
            }),
        }
    }

    /// Calls `write`, which logs one line, unless the rate limit is exceeded.
    pub(crate) fn log(&self, write: impl FnOnce()) {
        let Some(suppressed) = self.bucket.lock().take(Instant::now()) else {
            return;
        };
        log_suppressed(suppressed);
        write();
    }

    /// Logs the number of suppressed lines, if there are any.
    pub(crate) fn report(&self) {
        log_suppressed(std::mem::take(&mut self.bucket.lock().suppressed));
    }
}

impl Bucket {
    /// Takes a token. Returns the number of lines suppressed before, or `None` without a token.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let elapsed = now.duration_since(self.filled_at);
        if elapsed >= REFILL_INTERVAL * (BURST - self.tokens) {
            (self.tokens, self.filled_at) = (BURST, now);
        } else {
            let added = (elapsed.as_nanos() / REFILL_INTERVAL.as_nanos()) as u32;
            self.tokens += added;
            self.filled_at += REFILL_INTERVAL * added;
        }
        if self.tokens == 0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1;
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
        assert_eq!(log.bucket.lock().suppressed, u64::from(1000 - BURST));
        tokio::time::advance(Duration::from_millis(2500)).await;
        flood();
        assert_eq!(lines.take(), 2);
        // The count of suppressed lines starts again after it was logged.
        assert_eq!(log.bucket.lock().suppressed, 998);
        tokio::time::advance(Duration::from_millis(500)).await;
        flood();
        assert_eq!(lines.take(), 1);
        tokio::time::advance(Duration::from_secs(24 * 60 * 60)).await;
        flood();
        assert_eq!(lines.take(), BURST);
        log.report();
        assert_eq!(log.bucket.lock().suppressed, 0);
    }
}
