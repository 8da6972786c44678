//! The times at which messages leave in an open loop, fixed before the first one does.

/// Message i leaves at i / rate, on connection i modulo their number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rate: f64,
    next: u64,
}

impl Pace {
    pub(crate) fn new(rate: f64) -> Self {
        Self { rate, next: 0 }
    }

    /// When the next message is to leave, in nanoseconds from the start.
    pub(crate) fn due(&self) -> u64 {
        // Not a sum of intervals, whose error would grow.
        (self.next as f64 / self.rate * 1e9) as u64
    }

    /// The next message, if it is time: its number, and when it was to leave.
    pub(crate) fn take(&mut self, now: u64) -> Option<(u64, u64)> {
        let due = self.due();
        if due > now {
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
        // After a pause of three milliseconds all that was missed leaves, each with the time it was meant for.
        let missed: Vec<_> = std::iter::from_fn(|| pace.take(3_500_000)).collect();
        assert_eq!(missed, [(1, 1_000_000), (2, 2_000_000), (3, 3_000_000)]);
    }
}
