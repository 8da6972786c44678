//! Counts what the connection has sent and received.
//!
//! The hot path increments 32-bit counters of messages. [`carry_counts`](Driver::carry_counts) moves their overflow
//! into [`HighCounts`] at each read or flush.

use sockeye_proto::deflate::CompressionTotals;

use super::Driver;
#[cfg(doc)]
use crate::endpoint::high_counts::HighCounts;
use crate::stats::{ConnectionStats, DirectionStats};

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
        ConnectionStats {
            sent: direction_stats(
                self.high_counts.sent(self.write_queue.messages),
                self.write_queue.written_total(),
                compression.sent,
            ),
            received: direction_stats(
                self.high_counts.received(self.input.messages),
                self.input.bytes,
                compression.received,
            ),
            ..ConnectionStats::default()
        }
    }

    /// Moves overflow of the message counters into their high parts. Must be called before another 2^31 messages.
    #[inline]
    pub(super) fn carry_counts(&mut self) {
        self.high_counts
            .carry(&mut self.write_queue.messages, &mut self.input.messages);
    }
}

fn direction_stats(messages: u64, bytes: u64, compressed: CompressionTotals) -> DirectionStats {
    DirectionStats {
        messages,
        bytes,
        compressed_messages: compressed.messages,
        payload_bytes_before_compression: compressed.payload_before,
        payload_bytes_after_compression: compressed.payload_after,
    }
}
