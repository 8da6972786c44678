//! Upper parts of the message counters.

/// The unit of the upper part of a counter.
const HIGH_UNIT: u32 = 1 << 31;

/// Upper parts of two counters. Kept apart from the 32-bit lower parts, which the hot path increments, because these
/// four bytes fit into padding.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HighCounts {
    sent: u16,
    received: u16,
}

impl HighCounts {
    /// Moves the overflow of the lower parts into the upper parts. Must be called before another 2^31 messages.
    #[inline]
    pub(crate) fn carry(&mut self, low_sent: &mut u32, low_received: &mut u32) {
        if (*low_sent | *low_received) >= HIGH_UNIT {
            carry(low_sent, &mut self.sent);
            carry(low_received, &mut self.received);
        }
    }

    /// The number of messages sent.
    pub(crate) fn sent(self, low: u32) -> u64 {
        total(self.sent, low)
    }

    /// The number of messages received.
    pub(crate) fn received(self, low: u32) -> u64 {
        total(self.received, low)
    }
}

#[cold]
fn carry(low: &mut u32, high: &mut u16) {
    if *low >= HIGH_UNIT {
        *low -= HIGH_UNIT;
        *high = high.saturating_add(1);
    }
}

fn total(high: u16, low: u32) -> u64 {
    u64::from(high) * u64::from(HIGH_UNIT) + u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carried_messages_are_counted() {
        let mut high = HighCounts::default();
        let (mut low_sent, mut low_received) = (HIGH_UNIT + 5, 7);
        let before = high.sent(low_sent);
        high.carry(&mut low_sent, &mut low_received);
        high.carry(&mut low_sent, &mut low_received);
        assert_eq!((low_sent, low_received), (5, 7));
        assert_eq!((high.sent(low_sent), high.received(low_received)), (before, 7));
    }
}
