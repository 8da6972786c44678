//! Delays between attempts to connect.

use std::time::Duration;

use http::header::RETRY_AFTER;

use crate::error::Error;

/// Delays between attempts to connect: exponential backoff with full jitter, for [`Reconnecting`](crate::Reconnecting).
///
/// Each delay is random, uniformly distributed between zero and a limit. The limit is 5 s for the first attempt, so
/// that the clients of a server that restarts do not return at once (RFC 6455 §7.2.3), and doubles with each failure up
/// to 60 s. It starts at 5 s again after a connection that lasted for at least 60 s.
///
/// A server that rejects a request with a `Retry-After` header in seconds (RFC 9110 §10.2.3) lengthens the delay, up to
/// [`max`](Self::max).
///
/// ```
/// # use std::time::Duration;
/// let backoff = sockeye::Backoff::default().initial(Duration::from_secs(1)).max(Duration::from_secs(30));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    reset_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(5),
            max: Duration::from_secs(60),
            reset_after: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// Sets the maximum of the first delay. Default: 5 s.
    #[must_use]
    pub fn initial(mut self, initial: Duration) -> Self {
        self.initial = initial;
        self
    }

    /// Sets the maximum of every delay. Default: 60 s.
    #[must_use]
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// Sets how long a connection has to last until the next delay is a first one again. Default: 60 s. A server that
    /// accepts and then closes immediately does not count as working.
    #[must_use]
    pub fn reset_after(mut self, reset_after: Duration) -> Self {
        self.reset_after = reset_after;
        self
    }

    pub(crate) fn is_stable(&self, lasted: Duration) -> bool {
        lasted >= self.reset_after
    }

    /// The delay after this number of earlier failures in a row. `random` is in the range 0 to 1.
    // RFC 6455 §7.2.3: the first delay is random, and later ones increase by truncated binary exponential backoff.
    // [6455-7.2.3-1, 6455-7.2.3-2, 6455-7.2.3-3]
    pub(crate) fn delay(&self, failures: u32, error: &Error, random: f64) -> Duration {
        let factor = 2_u32.saturating_pow(failures.min(31));
        let limit = self.initial.saturating_mul(factor).min(self.max);
        let delay = limit.mul_f64(random.clamp(0.0, 1.0));
        delay.max(retry_after(error).unwrap_or_default().min(self.max))
    }
}

/// The Retry-After header of a rejection, if it is a number of seconds.
fn retry_after(error: &Error) -> Option<Duration> {
    let value = error.response()?.headers().get(RETRY_AFTER)?;
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_doubles_up_to_the_maximum() {
        // checks [6455-7.2.3-2, 6455-7.2.3-3]
        let backoff = Backoff::default();
        let error = Error::other("x");
        let limits: Vec<_> = [0, 1, 2, 3, 4, 5, 40, u32::MAX]
            .map(|failures| backoff.delay(failures, &error, 1.0).as_secs())
            .into();
        assert_eq!(limits, [5, 10, 20, 40, 60, 60, 60, 60]);
        for (random, millis) in [(0.0, 0), (0.25, 1250), (0.999, 4995)] {
            assert_eq!(backoff.delay(0, &error, random).as_millis(), millis);
        }
        let small = Backoff::default().max(Duration::from_secs(1));
        assert_eq!(small.delay(0, &error, 1.0).as_secs(), 1);
        let huge = Backoff::default().initial(Duration::MAX).max(Duration::MAX);
        assert_eq!(huge.delay(9, &error, 0.0), Duration::ZERO);
    }
}
