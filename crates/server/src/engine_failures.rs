//! Log lines for failed calls to the engine whose error no client receives: after a client has left, for a join.
//!
//! During an outage of Redis or NATS, such calls fail for every client that leaves. The first failure is logged, then
//! [`report`](EngineFailures::report) logs their number while they go on, and once when they have ended.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::channel::ChannelName;
use crate::engine::EngineError;

/// How often [`EngineFailures::report`] is to be called.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The failures that are logged together.
#[derive(Debug, Default)]
pub(crate) struct EngineFailures {
    series: Mutex<Option<Series>>,
}

/// Failures with less than [`REPORT_INTERVAL`] between them.
#[derive(Debug)]
struct Series {
    since: Instant,
    last: Instant,
    count: u64,
    /// Failures that were logged, one by one or as a number.
    logged: u64,
}

/// What [`EngineFailures::report`] logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    Continues { failures: u64 },
    Ended { failures: u64, lasted: Duration },
}

impl EngineFailures {
    /// Counts a failure. Logs the first one of a series: `what` the engine could not do.
    pub(crate) fn log(&self, channel: &ChannelName, error: EngineError, what: &'static str) {
        if self.is_first(Instant::now()) {
            tracing::warn!(%channel, %error, "{what}; more failures are counted");
        } else {
            tracing::debug!(%channel, %error, "{what}");
        }
    }

    /// Logs the number of failures since the last call, or that they have ended.
    pub(crate) fn report(&self) {
        match self.next_report(Instant::now()) {
            Some(Report::Continues { failures }) => tracing::warn!(
                failures,
                "calls to the engine still fail; presence may be wrong until the engine is back"
            ),
            Some(Report::Ended { failures, lasted }) => {
                let seconds = lasted.as_secs();
                tracing::info!(failures, seconds, "calls to the engine do not fail any more");
            }
            None => {}
        }
    }

    fn is_first(&self, now: Instant) -> bool {
        let mut series = self.series.lock();
        if let Some(series) = &mut *series {
            series.count += 1;
            series.last = now;
            return false;
        }
        *series = Some(Series {
            since: now,
            last: now,
            count: 1,
            logged: 1,
        });
        true
    }

    fn next_report(&self, now: Instant) -> Option<Report> {
        let mut current = self.series.lock();
        let series = current.as_mut()?;
        if now.duration_since(series.last) < REPORT_INTERVAL {
            let failures = series.count - series.logged;
            series.logged = series.count;
            return (failures > 0).then_some(Report::Continues { failures });
        }
        let report = Report::Ended {
            failures: series.count,
            lasted: series.last.duration_since(series.since),
        };
        *current = None;
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_logged_at_its_start_in_between_and_at_its_end() {
        let failures = EngineFailures::default();
        let mut lines = Vec::new();
        let mut firsts = 0;
        // An outage of 35 seconds, in which 100 clients leave per second, and another one later.
        for second in 0..120_u64 {
            for _ in 0..100 {
                if second < 35 || second == 100 {
                    firsts += u32::from(failures.is_first(Instant::now()));
                }
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            if (second + 1) % REPORT_INTERVAL.as_secs() == 0 {
                lines.extend(failures.next_report(Instant::now()));
            }
        }
        assert_eq!(firsts, 2);
        let continues = |failures| Report::Continues { failures };
        let ended = |failures, seconds| Report::Ended {
            failures,
            lasted: Duration::from_secs(seconds),
        };
        let expect = [
            continues(999),
            continues(1000),
            continues(1000),
            continues(500),
            ended(3500, 34),
            ended(100, 0),
        ];
        assert_eq!(lines, expect);
    }
}
