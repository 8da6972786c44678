//! The runtime services of a connection that is driven by a thread.
//!
//! The thread calls the connection again whenever its deadline has passed, so a timer is only a comparison. Nothing is
//! spawned: what is left of a closing handshake is not finished in the background.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The origin of the protocol's instants.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

thread_local! {
    /// Whether the connection wants to be called again at once.
    static IS_RESCHEDULED: Cell<bool> = const { Cell::new(false) };
}

fn origin() -> Instant {
    *ORIGIN.get_or_init(Instant::now)
}

pub(super) fn now() -> sockeye_proto::Instant {
    let origin = origin();
    sockeye_proto::Instant::from_origin(Instant::now().saturating_duration_since(origin))
}

pub(crate) fn to_std(instant: sockeye_proto::Instant) -> Instant {
    let origin = origin();
    // A deadline beyond the clock's range never passes.
    let never = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    origin.checked_add(instant.since_origin()).unwrap_or(origin + never)
}

pub(super) fn reschedule() {
    IS_RESCHEDULED.set(true);
}

/// Whether the connection has asked to be called again at once, since the last call.
pub(crate) fn take_rescheduled() -> bool {
    IS_RESCHEDULED.take()
}
