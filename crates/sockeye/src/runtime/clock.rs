//! Tokio's clock as the protocol's: counted from the first time that anyone asked.

use std::sync::OnceLock;
use std::time::Duration;

use sockeye_proto::Instant;

static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();

/// Far enough away never to come, and near enough for any clock: 30 years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How long before the first question the count begins. Tests with paused time have a clock each, and one that was
/// started before or is behind the first must not be taken to stand still.
const HEAD_START: Duration = Duration::from_secs(24 * 60 * 60);

fn origin() -> tokio::time::Instant {
    *ORIGIN.get_or_init(|| {
        let now = tokio::time::Instant::now();
        now.checked_sub(HEAD_START).unwrap_or(now)
    })
}

pub(crate) fn now() -> Instant {
    let origin = origin();
    Instant::from_origin(tokio::time::Instant::now().saturating_duration_since(origin))
}

pub(crate) fn to_tokio(instant: Instant) -> tokio::time::Instant {
    origin() + instant.since_origin()
}

/// The end of a wait that begins now; the longest durations mean never.
pub(crate) fn deadline(wait: Duration) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}
