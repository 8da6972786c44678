//! Counts what the connection has sent and received.
//!
//! Each message counter is split so that it fits into padding: the hot path increments the low 32 bits, and
//! [`carry_counts`](Driver::carry_counts) moves their overflow into the high part at each read or flush.

use sockeye_proto::deflate::CompressionTotals;

use super::Driver;
use crate::stats::{ConnectionStats, DirectionStats};

/// The unit of the high part of a counter.
const HIGH_UNIT: u32 = 1 << 31;

/// The high parts of the counters of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HighCounts {
    sent: u16,
    received: u16,
}

impl Driver {
    pub(crate) fn stats(&self) -> ConnectionStats {
        let mut stats = self.counts();
        if let Some(latency) = self.latency() {
            (stats.round_trip, stats.queue_wait) = (latency.round_trip, latency.queue_wait);
        }
        stats
    }

    /// The statistics without the histograms.
    pub(super) fn counts(&self) -> ConnectionStats {
        let compression = self.connection.compression_stats();
        let HighCounts {
            sent: high_sent,
            received: high_received,
        } = self.high_counts;
        ConnectionStats {
            sent: direction_stats(
                high_sent,
                self.write_queue.messages,
                self.write_queue.written_total(),
                compression.sent,
            ),
            received: direction_stats(
                high_received,
                self.input.messages,
                self.input.bytes,
                compression.received,
            ),
            ..ConnectionStats::default()
        }
    }

    /// Moves overflow of the message counters into their high parts. Must be called before another 2^31 messages.
    #[inline]
    pub(super) fn carry_counts(&mut self) {
        if (self.input.messages | self.write_queue.messages) >= HIGH_UNIT {
            carry(&mut self.input.messages, &mut self.high_counts.received);
            carry(&mut self.write_queue.messages, &mut self.high_counts.sent);
        }
    }
}

#[cold]
fn carry(low: &mut u32, high: &mut u16) {
    if *low >= HIGH_UNIT {
        *low -= HIGH_UNIT;
        *high = high.saturating_add(1);
    }
}

fn direction_stats(high: u16, low: u32, bytes: u64, compressed: CompressionTotals) -> DirectionStats {
    DirectionStats {
        messages: u64::from(high) * u64::from(HIGH_UNIT) + u64::from(low),
        bytes,
        compressed_messages: compressed.messages,
        payload_bytes_before_compression: compressed.payload_before,
        payload_bytes_after_compression: compressed.payload_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carried_messages_are_counted() {
        let (mut low, mut high) = (HIGH_UNIT + 5, 0);
        let before = direction_stats(high, low, 0, CompressionTotals::default()).messages;
        carry(&mut low, &mut high);
        carry(&mut low, &mut high);
        assert_eq!((low, high), (5, 1));
        assert_eq!(
            direction_stats(high, low, 0, CompressionTotals::default()).messages,
            before
        );
    }
}
