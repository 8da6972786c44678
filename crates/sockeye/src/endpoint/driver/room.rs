//! Since when there has been no room for a message.

use std::time::Instant;

use super::Driver;

impl Driver {
    /// Notes that a message found no room, and returns since when that has been so.
    #[cold]
    pub(crate) fn record_full(&mut self) -> Instant {
        let runtime = self.runtime();
        let since = self.change_backlog(|backlog| *backlog.full_since.get_or_insert_with(|| runtime.now()));
        runtime.to_std(since)
    }

    /// Notes that a message found room, or that the queue is empty.
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

    /// Since when there has been no room. `None` while there is.
    pub(crate) fn full_since(&self) -> Option<sockeye_proto::Instant> {
        self.backlog.as_ref()?.full_since
    }
}
