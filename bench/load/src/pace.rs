//! The send times of an open loop, fixed before the first message is sent.

/// Message i is due at i / rate, on connection i modulo the number of connections, up to an end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rate: f64,
    next: u64,
    end: u64,
}

impl Pace {
    pub(crate) fn new(rate: f64) -> Self {
        Self {
            rate,
            next: 0,
            end: u64::MAX,
        }
    }

    /// Messages due at `end` or later are not sent. All messages due before it are, however late.
    pub(crate) fn end_at(&mut self, end: u64) {
        self.end = end;
    }

    /// Whether all messages are sent.
    pub(crate) fn is_over(&self) -> bool {
        self.due() >= self.end
    }

    /// When the next message is due, in nanoseconds from the start.
    pub(crate) fn due(&self) -> u64 {
        // Multiplied out instead of summed up, so that rounding errors do not accumulate.
        (self.next as f64 / self.rate * 1e9) as u64
    }

    /// Returns the next message if it is due: its number and its due time.
    pub(crate) fn take(&mut self, now: u64) -> Option<(u64, u64)> {
        let due = self.due();
        if due > now || due >= self.end {
            return None;
        }
        self.next += 1;
        Some((self.next - 1, due))
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;

    #[test]
    fn what_is_late_keeps_its_time() {
        let mut pace = Pace::new(1000.0);
        assert_eq!(pace.take(0), Some((0, 0)));
        assert_eq!(pace.take(999_999), None);
        // After a pause of three milliseconds all missed messages are sent, each with its original due time.
        let missed: Vec<_> = std::iter::from_fn(|| pace.take(3_500_000)).collect();
        assert_eq!(missed, [(1, 1_000_000), (2, 2_000_000), (3, 3_000_000)]);
        // All messages due before the end are sent.
        pace.end_at(6_000_000);
        assert!(!pace.is_over());
        let missed: Vec<_> = std::iter::from_fn(|| pace.take(9_000_000)).collect();
        assert_eq!(missed, [(4, 4_000_000), (5, 5_000_000)]);
        assert!(pace.is_over());
    }
}
