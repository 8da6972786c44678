//! Accepts messages that are encoded later.

use super::Driver;
use crate::endpoint::deferred::{Deferred, DeferredQueue};
use crate::error::Error;
use crate::message::outbound::Outbound;

/// How many bytes are encoded at once, unless one message is longer. Encoded messages cannot be dropped any more.
const ENCODED_LEN_MAX: usize = 64 * 1024;

/// Whether a message that must not be dropped later needs room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acceptance {
    IfRoom,
    /// Its sender was told that it is queued.
    Always,
}

impl Driver {
    /// Accepts a message of an outbox: encodes it, or defers it if the connection is busy. Returns `false` if it needs
    /// room and there is none.
    pub(crate) fn accept(&mut self, deferred: Deferred, acceptance: Acceptance) -> Result<bool, Error> {
        self.check_open()?;
        let len = deferred.message.len();
        let is_droppable = deferred.drop_count.is_some();
        if !self.has_deferred() && self.has_room_for(len) && (!is_droppable || self.output.len() < ENCODED_LEN_MAX) {
            self.queue(&deferred.message)?;
            self.clear_queue_full();
            return Ok(true);
        }
        let (taken, cost_max) = (self.taken(), self.settings.write_buffer_max);
        if !is_droppable && acceptance == Acceptance::IfRoom && !self.deferred_has_room_for(len, taken) {
            self.record_queue_full();
            return Ok(false);
        }
        self.change_backlog(|backlog| match is_droppable {
            true => backlog.deferred.push_and_drop_oldest(deferred, cost_max),
            false => backlog.deferred.push(deferred),
        });
        Ok(true)
    }

    /// Queues a message whose sender was told that it is queued, regardless of the limit.
    pub(crate) fn queue_promised(&mut self, message: Outbound) -> Result<(), Error> {
        if !self.is_compressing() {
            return self.queue(&message);
        }
        // Nothing can be queued behind the message that is being compressed.
        self.check_open()?;
        let drop_count = None;
        self.change_backlog(|backlog| backlog.deferred.push(Deferred { message, drop_count }));
        Ok(())
    }

    fn deferred(&self) -> Option<&DeferredQueue> {
        Some(&self.backlog.as_ref()?.deferred)
    }

    pub(super) fn has_deferred(&self) -> bool {
        self.deferred().is_some_and(|deferred| !deferred.is_empty())
    }

    fn deferred_has_room_for(&self, len: usize, taken: usize) -> bool {
        let cost_max = self.settings.write_buffer_max;
        let empty = DeferredQueue::default();
        self.deferred().unwrap_or(&empty).has_room_for(len, taken, cost_max)
    }

    /// Memory used by deferred messages, in bytes.
    pub(crate) fn deferred_cost(&self) -> usize {
        self.deferred().map_or(0, DeferredQueue::cost)
    }

    /// Whether deferred messages must not be dropped for newer ones.
    pub(super) fn has_kept_deferred(&self) -> bool {
        self.deferred().is_some_and(DeferredQueue::has_kept)
    }

    /// Encodes what comes next: a part of the message that is being compressed, or deferred messages. Must not be called
    /// when the budget is spent.
    #[cold]
    #[inline(never)]
    pub(super) fn encode_next(&mut self) {
        if self.is_compressing() {
            return self.queue_part();
        }
        while self.output.len() < ENCODED_LEN_MAX && !self.is_compressing() && !self.budget.is_spent() {
            let Some(next) = self.change_backlog(|backlog| backlog.deferred.pop()) else {
                return;
            };
            if self.queue(&next.message).is_err() {
                // The connection has closed since.
                self.record_dropped_message();
                return self.drop_deferred();
            }
        }
    }

    /// Encodes all deferred messages, whatever the budget: a close frame must be queued behind them.
    #[cold]
    pub(super) fn encode_deferred(&mut self) {
        while self.has_deferred() {
            if self.is_compressing() {
                self.queue_part();
            } else if let Some(next) = self.change_backlog(|backlog| backlog.deferred.pop())
                && self.queue(&next.message).is_err()
            {
                self.record_dropped_message();
                return self.drop_deferred();
            }
        }
    }

    /// Drops all deferred messages, because the connection has ended.
    pub(super) fn drop_deferred(&mut self) {
        if self.has_deferred() {
            self.has_dropped_output = true;
            self.change_backlog(|backlog| backlog.deferred = DeferredQueue::default());
        }
    }
}
