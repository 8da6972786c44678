//! State that exists only while the connection is busy.
//!
//! Boxed, and freed while it is empty, so that an idle connection does not hold it.

use std::time::Duration;

use sockeye_proto::Instant;

use super::compress_job::CompressJob;
use super::deferred_queue::DeferredQueue;
use super::latency::Latency;
use super::read_ahead::ReadAhead;
use super::reservations::Reservations;

#[derive(Default)]
pub(super) struct BusyState {
    /// The message that is being compressed in parts. Nothing can be queued behind it.
    pub(super) compress_job: Option<CompressJob>,
    /// Present while the transport is full.
    pub(super) stall: Option<Stall>,
    /// When a slow peer should have read what the transport held when it was last full.
    pub(super) drain_estimate: Option<Instant>,
    /// Messages received while a send waited.
    pub(super) ahead: ReadAhead,
    /// When the queue became full: the time of the first message that was rejected or delayed. Reset when a message is
    /// accepted or the queue is empty.
    pub(super) full_since: Option<Instant>,
    pub(super) reservations: Reservations,
    /// Messages that are encoded once everything encoded before is written.
    pub(super) deferred: DeferredQueue,
    /// Present from the beginning if the application asks for measurements. This state then always exists.
    pub(super) latency: Option<Box<Latency>>,
}

impl BusyState {
    pub(super) fn with_latency() -> Self {
        Self {
            latency: Some(Box::default()),
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.compress_job.is_none()
            && self.stall.is_none()
            && self.drain_estimate.is_none()
            && self.full_since.is_none()
            && self.ahead.is_empty()
            && self.reservations.is_empty()
            && self.deferred.is_empty()
            && self.latency.is_none()
    }
}

impl BusyState {
    /// Whether a message is being sent in parts, so that no other can be queued.
    #[inline]
    pub(super) fn is_message_open(&self) -> bool {
        self.compress_job.is_some() || self.reservations.is_streaming
    }
}

/// Upper bound of the estimated time in which a peer reads what its transport holds.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(120);

/// A full transport, and its progress since the peer's rate was last checked.
#[derive(Debug)]
pub(super) struct Stall {
    began: Instant,
    /// Bytes written on the connection when the transport first became full.
    written_at_start: u64,
    /// Bytes written by the last write before the transport became full: about its capacity.
    transport_len: u64,
    period_start: Instant,
    /// Bytes written on the connection at `period_start`.
    written_at_period_start: u64,
    /// Bytes taken beyond the minimum rate in the previous period. Carried over because kernels free space in large
    /// steps.
    surplus: u64,
}

impl Stall {
    /// Starts when the transport is full: it has just taken `transport_len` of `written_total` bytes.
    pub(super) fn new(now: Instant, written_total: u64, transport_len: u64) -> Self {
        Self {
            began: now,
            written_at_start: written_total,
            transport_len,
            period_start: now,
            written_at_period_start: written_total,
            surplus: 0,
        }
    }

    /// When the peer's rate must be checked.
    pub(super) fn deadline(&self, timeout: Duration) -> Instant {
        self.period_start + timeout
    }

    /// Whether the peer took any bytes in this period, and at least `taken_min` including the surplus of the previous
    /// period. Ends this period and starts the next one.
    pub(super) fn end_period(&mut self, now: Instant, written_total: u64, taken_min: u64) -> bool {
        let taken = written_total.saturating_sub(self.written_at_period_start);
        let counted = taken + self.surplus;
        self.period_start = now;
        self.written_at_period_start = written_total;
        self.surplus = counted.saturating_sub(taken_min).min(taken_min);
        taken > 0 && counted >= taken_min
    }

    /// Estimates how long the peer needs to read what the transport holds, from its rate so far.
    pub(super) fn drain_time(&self, now: Instant, written_total: u64) -> Duration {
        let taken = written_total.saturating_sub(self.written_at_start);
        let millis = u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX);
        match self.transport_len.saturating_mul(millis).checked_div(taken) {
            Some(millis) => Duration::from_millis(millis).min(DRAIN_TIME_MAX),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(secs)
    }

    #[test]
    fn peer_slower_than_minimum_rate_is_stalled() {
        for (taken, taken_min, is_alive) in [(0, 0, false), (1, 0, true), (99, 100, false), (100, 100, true)] {
            let mut stall = Stall::new(at(5), 1000, 0);
            assert_eq!(stall.deadline(Duration::from_secs(10)), at(15));
            assert_eq!(
                stall.end_period(at(15), 1000 + taken, taken_min),
                is_alive,
                "{taken} of {taken_min}"
            );
            assert_eq!(stall.deadline(Duration::from_secs(10)), at(25));
            assert!(
                !stall.end_period(at(25), 1000 + taken, taken_min),
                "no byte in the second period"
            );
        }
    }

    #[test]
    fn drain_time_is_estimated_from_the_peers_rate() {
        let stall = Stall::new(at(10), 50_000, 50_000);
        // At 100 bytes a second it would take 500 s, which is capped.
        assert_eq!(stall.drain_time(at(20), 51_000), DRAIN_TIME_MAX);
        assert_eq!(stall.drain_time(at(20), 150_000), Duration::from_secs(5));
        // Without progress there is no estimate.
        assert_eq!(stall.drain_time(at(20), 50_000), Duration::ZERO);
    }

    #[test]
    fn surplus_counts_for_one_more_period() {
        let mut stall = Stall::new(at(0), 0, 0);
        assert!(stall.end_period(at(10), 1000, 100));
        assert!(stall.end_period(at(20), 1001, 100));
        assert!(!stall.end_period(at(30), 1002, 100));
    }
}
