//! Records since when the queue has been full.

use std::time::Instant;

use super::Driver;

impl Driver {
    /// Records that a message found no room. Returns the time since when this is so.
    #[cold]
    pub(crate) fn record_full(&mut self) -> Instant {
        let runtime = self.runtime();
        let since = self.change_backlog(|backlog| *backlog.full_since.get_or_insert_with(|| runtime.now()));
        runtime.to_std(since)
    }

    /// Records that a message was accepted, or that the queue is empty.
    #[inline]
    pub(crate) fn clear_full(&mut self) {
        if self.backlog.is_some() {
            self.clear_full_since();
        }
    }

    #[cold]
    fn clear_full_since(&mut self) {
        self.change_backlog(|backlog| backlog.full_since = None);
    }

    /// Since when messages have found no room. `None` while there is room.
    pub(crate) fn full_since(&self) -> Option<sockeye_proto::Instant> {
        self.backlog.as_ref()?.full_since
    }
}
