//! The log of refused clients, at a bounded rate.
//!
//! A refusal is something the operator has to see: a proxy that rewrites the Host header looks, from outside, like a
//! server that is down. But clients cause refusals, so a client that tries a thousand times a second must not fill a disk.
//! Up to [`BURST`] lines are written at once, and one more per second after that. What is left out is counted, and the
//! count is written before the next line, or by [`report`](RefusalLog::report).

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Decides which refusals are written to the log.
#[derive(Debug)]
pub(crate) struct RefusalLog {
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Lines that may be written now.
    tokens: u32,
    /// When the last token was added.
    filled_at: Instant,
    /// Refusals not written since that was last said.
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

    /// Calls `write`, which writes one line, unless too many were written lately.
    pub(crate) fn log(&self, write: impl FnOnce()) {
        let Some(suppressed) = self.bucket.lock().take(Instant::now()) else {
            return;
        };
        announce(suppressed);
        write();
    }

    /// Writes how many refusals were left out, if any were.
    pub(crate) fn report(&self) {
        announce(std::mem::take(&mut self.bucket.lock().suppressed));
    }
}

impl Bucket {
    /// One line, if there is one left, and how many were left out before it.
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

fn announce(suppressed: u64) {
    if suppressed > 0 {
        tracing::warn!(suppressed, "more refusals came than are logged");
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
        // What was left out is said once.
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
