//! The protocol's time on the clock of the standard library.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The origin of the protocol's instants: one day before the first time that was converted. A clock that is set for a
/// test may be behind the first time.
static ORIGIN: OnceLock<Instant> = OnceLock::new();
const ORIGIN_OFFSET: Duration = Duration::from_secs(24 * 60 * 60);

fn origin(first: impl FnOnce() -> Instant) -> Instant {
    *ORIGIN.get_or_init(|| {
        let first = first();
        first.checked_sub(ORIGIN_OFFSET).unwrap_or(first)
    })
}

pub(super) fn from_std(instant: Instant) -> sockeye_proto::Instant {
    let origin = origin(|| instant);
    sockeye_proto::Instant::from_origin(instant.saturating_duration_since(origin))
}

pub(crate) fn to_std(instant: sockeye_proto::Instant) -> Instant {
    let origin = origin(Instant::now);
    // A deadline beyond the clock's range never passes.
    let never = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    origin.checked_add(instant.since_origin()).unwrap_or(origin + never)
}
