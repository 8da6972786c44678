//! Measures round trips and how long messages wait in the queue, if the application asks for it.

use std::time::Duration;

use sockeye_proto::Instant;

use crate::stats::Histogram;

/// The measurements of a connection.
#[derive(Debug, Default)]
pub(super) struct Latency {
    pub(super) round_trip: Histogram,
    pub(super) queue_wait: Histogram,
    /// The message that is measured. The next one is measured once this one is written.
    sample: Option<Sample>,
    /// The number of the newest answered ping that was recorded.
    answered_ping: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    queued_at: Instant,
    /// The number of bytes that are written on the connection once the message is.
    end: u64,
}

impl Latency {
    #[inline]
    pub(super) fn is_sampling(&self) -> bool {
        self.sample.is_some()
    }

    /// Measures the message that ends at this position of the output.
    pub(super) fn start_sample(&mut self, queued_at: Instant, end: u64) {
        self.sample.get_or_insert(Sample { queued_at, end });
    }

    /// Records the message that is measured, if it is written. Returns how long it waited.
    pub(super) fn finish_sample(&mut self, written_total: u64, now: impl FnOnce() -> Instant) -> Option<Duration> {
        let sample = self.sample.take_if(|sample| written_total >= sample.end)?;
        let wait = now() - sample.queued_at;
        self.queue_wait.record(wait);
        Some(wait)
    }

    /// Forgets the message that is measured, because the queue was dropped.
    pub(super) fn cancel_sample(&mut self) {
        self.sample = None;
    }

    /// Whether a ping was answered since the last call.
    pub(super) fn is_new_pong(&mut self, answered_ping: u32) -> bool {
        std::mem::replace(&mut self.answered_ping, answered_ping) != answered_ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_is_measured_until_it_is_written() {
        let at = |millis| Instant::from_origin(Duration::from_millis(millis));
        let mut latency = Latency::default();
        latency.start_sample(at(10), 100);
        // Not measured: the first message is not written yet.
        latency.start_sample(at(11), 200);
        assert_eq!(latency.finish_sample(99, || at(20)), None);
        assert_eq!(latency.finish_sample(100, || at(25)), Some(Duration::from_millis(15)));
        assert_eq!(latency.finish_sample(300, || at(30)), None);
        latency.start_sample(at(40), 400);
        latency.cancel_sample();
        assert_eq!(latency.finish_sample(400, || at(50)), None);
        assert_eq!(latency.queue_wait.count(), 1);
    }
}
