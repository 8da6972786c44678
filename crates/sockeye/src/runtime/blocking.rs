//! The runtime services of a connection that is driven by a thread.
//!
//! The thread calls the connection again whenever its deadline has passed, so a timer is only a comparison. Nothing is
//! spawned: what is left of a closing handshake is not finished in the background.

use std::cell::Cell;
use std::time::Instant;

use super::std_clock;

thread_local! {
    /// Whether the connection wants to be called again at once.
    static IS_RESCHEDULED: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn now() -> sockeye_proto::Instant {
    std_clock::from_std(Instant::now())
}

pub(super) fn reschedule() {
    IS_RESCHEDULED.set(true);
}

/// Whether the connection has asked to be called again at once, since the last call.
pub(crate) fn take_rescheduled() -> bool {
    IS_RESCHEDULED.take()
}
