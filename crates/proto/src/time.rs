//! Points in time on the caller's clock.

use core::num::NonZeroU64;
use core::ops::{Add, Sub};
use core::time::Duration;

/// A point in time on the caller's monotonic clock.
///
/// This crate has no clock; calls that depend on the time take it as an argument. An `Instant` is the time elapsed
/// since an origin that the caller chooses once, such as program start. Resolution 1 ns, range 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    /// Nanoseconds since the origin, plus one, so that `Option<Instant>` has the size of `Instant`.
    count: NonZeroU64,
}

impl Instant {
    /// The origin of the caller's clock.
    pub const ORIGIN: Self = Self { count: NonZeroU64::MIN };

    /// Returns the instant `elapsed` after the origin. Saturates after 584 years.
    pub fn from_origin(elapsed: Duration) -> Self {
        Self::ORIGIN + elapsed
    }

    /// Returns the time elapsed since the origin.
    pub const fn since_origin(self) -> Duration {
        Duration::from_nanos(self.count.get() - 1)
    }

    /// Returns the time from `earlier` to `self`, or zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.count.get().saturating_sub(earlier.count.get()))
    }
}

impl Default for Instant {
    /// The origin.
    fn default() -> Self {
        Self::ORIGIN
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of the range instead of overflowing.
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            count: self.count.saturating_add(nanos),
        }
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Returns zero if `earlier` is later than `self`.
    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_saturates_at_the_end_of_the_range() {
        let end = Instant::from_origin(Duration::MAX);
        // One less than the range of a u64: zero is the niche of `Option<Instant>`.
        assert_eq!(end.since_origin(), Duration::from_nanos(u64::MAX - 1));
        assert_eq!(end + Duration::from_nanos(1), end);
        assert_eq!(Instant::ORIGIN + Duration::MAX, end);
    }

    #[test]
    fn subtracting_a_later_instant_gives_zero() {
        let later = Instant::ORIGIN + Duration::from_secs(1);
        assert_eq!(Instant::ORIGIN - later, Duration::ZERO);
        assert_eq!(later - Instant::ORIGIN, Duration::from_secs(1));
    }
}
