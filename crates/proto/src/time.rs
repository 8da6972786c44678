//! The caller's clock, as the core sees it.

use core::num::NonZeroU64;
use core::ops::{Add, Sub};
use core::time::Duration;

/// A moment on the caller's monotonic clock.
///
/// The core has no clock: each call that needs to know the time is given it. An `Instant` counts from an origin
/// that the caller chooses once (program start, say) and never moves. Resolution 1 ns, range 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    /// Nanoseconds since the origin, and one: an `Option<Instant>` is as small as an `Instant`.
    count: NonZeroU64,
}

impl Instant {
    /// The caller's origin of time.
    pub const ORIGIN: Self = Self { count: NonZeroU64::MIN };

    /// The moment `elapsed` after the origin; saturates after 584 years.
    pub fn from_origin(elapsed: Duration) -> Self {
        Self::ORIGIN + elapsed
    }

    /// How long after the origin this is.
    pub const fn since_origin(self) -> Duration {
        Duration::from_nanos(self.count.get() - 1)
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
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

    /// Saturates instead of overflowing.
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            count: self.count.saturating_add(nanos),
        }
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Saturates at zero.
    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_range_saturates_instead_of_wrapping() {
        let end = Instant::from_origin(Duration::MAX);
        // One less than fits into 64 bits, for one value stands for no instant.
        assert_eq!(end.since_origin(), Duration::from_nanos(u64::MAX - 1));
        assert_eq!(end + Duration::from_nanos(1), end);
        assert_eq!(Instant::ORIGIN + Duration::MAX, end);
    }

    #[test]
    fn the_time_since_something_later_is_zero() {
        let later = Instant::ORIGIN + Duration::from_secs(1);
        assert_eq!(Instant::ORIGIN - later, Duration::ZERO);
        assert_eq!(later - Instant::ORIGIN, Duration::from_secs(1));
    }
}
