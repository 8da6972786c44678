//! Counters and latency histograms of a connection.

use std::fmt;
use std::time::Duration;

/// What a connection has sent and received since the opening handshake, returned by
/// [`WebSocket::stats`](crate::WebSocket::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Counters of the sending direction.
    pub sent: DirectionStats,
    /// Counters of the receiving direction.
    pub received: DirectionStats,
    /// The round-trip times of answered pings. Empty unless
    /// [`latency_histograms`](crate::ServerBuilder::latency_histograms) is set.
    pub round_trip: Histogram,
    /// How long messages of this side waited, from being queued until the transport had taken them. One message is
    /// measured at a time, so that a burst costs two readings of the clock. Empty unless
    /// [`latency_histograms`](crate::ServerBuilder::latency_histograms) is set.
    pub queue_wait: Histogram,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectionStats {
    /// The number of messages. A message counts once it is encoded, or once it is completely received and decoded.
    pub messages: u64,
    /// The number of bytes written to or read from the transport: frame headers, payloads and control frames. The
    /// overhead of TLS and TCP and the opening handshake are not included.
    pub bytes: u64,
    /// The number of compressed messages, which are included in `messages`. A message of up to 64 KiB that compression
    /// would not make smaller is sent uncompressed; a larger one is, if its first 64 KiB would not become smaller.
    pub compressed_messages: u64,
    /// The payload bytes of the compressed messages before compression.
    pub payload_bytes_before_compression: u64,
    /// The payload bytes of the compressed messages after compression. Can be more than before, if only the beginning
    /// of large messages can be compressed.
    pub payload_bytes_after_compression: u64,
}

/// The number of buckets of a [`Histogram`].
const BUCKETS: usize = 28;

/// A histogram of durations, with fixed buckets: the first one is for less than 1 µs, and each further one ends at
/// twice the duration of the previous one. The last one has no end and begins at 67 s.
///
/// Two histograms can be [merged](Self::merge), for example those of all connections of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u32; BUCKETS],
    /// In nanoseconds, saturating.
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Adds a duration.
    pub(crate) fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let micros = nanos / 1000;
        let idx = (u64::BITS - micros.leading_zeros()) as usize;
        let bucket = &mut self.buckets[idx.min(BUCKETS - 1)];
        *bucket = bucket.saturating_add(1);
        self.sum = self.sum.saturating_add(nanos);
        self.max = self.max.max(nanos);
    }

    /// Adds the durations of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket = bucket.saturating_add(more);
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The number of durations. Each bucket counts up to 2³² - 1.
    pub fn count(&self) -> u64 {
        self.buckets.iter().copied().map(u64::from).sum()
    }

    /// The sum of all durations, for an average.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// The longest duration, exact.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// A duration that the share `quantile` of all durations does not exceed: with 0.99, the 99th percentile. It is the
    /// end of a bucket, so at most twice the exact value from 1 µs to 67 s, and never more than [`max`](Self::max).
    /// `None` if nothing was measured. A `quantile` outside of 0 to 1 counts as the nearest of the two.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((count as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut cumulative = 0;
        self.buckets().find_map(|(end, bucket)| {
            cumulative += bucket;
            (cumulative >= rank).then(|| end.unwrap_or(self.max()).min(self.max()))
        })
    }

    /// The buckets in order: the exclusive end, which is `None` for the last bucket, and the number of durations.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        self.buckets.iter().enumerate().map(|(idx, count)| {
            let end = (idx + 1 < BUCKETS).then(|| Duration::from_micros(1 << idx));
            (end, u64::from(*count))
        })
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(times: &[Duration]) -> Histogram {
        let mut histogram = Histogram::default();
        times.iter().for_each(|time| histogram.record(*time));
        histogram
    }

    #[test]
    fn durations_are_counted_below_the_end_of_their_bucket() {
        let micros = Duration::from_micros;
        for (time, end) in [
            (Duration::ZERO, Some(micros(1))),
            (Duration::from_nanos(999), Some(micros(1))),
            (micros(1), Some(micros(2))),
            (micros(2), Some(micros(4))),
            (micros(1023), Some(micros(1024))),
            (micros(1024), Some(micros(2048))),
            (micros((1 << 26) - 1), Some(micros(1 << 26))),
            (micros(1 << 26), None),
            (Duration::MAX, None),
        ] {
            let histogram = histogram(&[time]);
            let found: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
            assert_eq!(found, [(end, 1)], "{time:?}");
        }
    }

    #[test]
    fn quantiles_are_upper_bounds() {
        let millis: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        let histogram = histogram(&millis);
        assert_eq!(histogram.count(), 100);
        assert_eq!(histogram.sum(), Duration::from_millis(5050));
        for (quantile, exact) in [(0.0, 1), (0.5, 50), (0.9, 90), (1.0, 100), (7.0, 100)] {
            let (bound, exact) = (histogram.quantile(quantile).unwrap(), Duration::from_millis(exact));
            assert!(bound >= exact && bound <= 2 * exact, "{quantile}: {bound:?}");
        }
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_millis(100)));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn merged_histogram_has_the_durations_of_both() {
        let mut merged = histogram(&[Duration::from_micros(3)]);
        merged.merge(&histogram(&[Duration::from_micros(3), Duration::from_secs(1)]));
        assert_eq!(merged, histogram(&[3, 3, 1_000_000].map(Duration::from_micros)));
    }
}
