//! Accepts messages that are encoded later.

use super::Driver;
use crate::endpoint::deferred_queue::{DeferredMessage, DeferredQueue};
use crate::error::Error;
use crate::message::outbound::Outbound;

/// How many bytes are encoded at once, unless one message is longer. Encoded messages cannot be dropped any more.
const ENCODED_LEN_MAX: usize = 64 * 1024;

/// Whether the queue limit applies to a message that must not be dropped later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitCheck {
    Enforce,
    /// The message was already accepted.
    Skip,
}

impl Driver {
    /// Encodes a message of an outbox, or defers it if the connection is busy. Returns `false` if it needs capacity and
    /// there is none.
    pub(crate) fn queue_or_defer(
        &mut self,
        mut deferred: DeferredMessage,
        limit_check: LimitCheck,
    ) -> Result<bool, Error> {
        self.check_open()?;
        let len = deferred.message.len();
        let is_droppable = deferred.drop_count.is_some();
        if !self.has_deferred()
            && self.has_capacity_for(len)
            && (!is_droppable || self.write_queue.len() < ENCODED_LEN_MAX)
        {
            self.queue(&deferred.message)?;
            self.clear_queue_full();
            return Ok(true);
        }
        let (used_len, cost_max) = (self.used_len(), self.group.write_buffer_max);
        if !is_droppable && limit_check == LimitCheck::Enforce && !self.deferred_has_capacity_for(len, used_len) {
            self.record_queue_full();
            return Ok(false);
        }
        deferred.queued_at = self.queue_time();
        self.with_busy_state(|busy| match is_droppable {
            true => busy.deferred.push_and_drop_oldest(deferred, cost_max),
            false => busy.deferred.push(deferred),
        });
        Ok(true)
    }

    /// Queues a message that was already accepted, regardless of the limit. Defers it while another
    /// one is being sent in parts.
    pub(crate) fn queue_accepted(&mut self, message: Outbound) -> Result<(), Error> {
        if !self.is_message_open() {
            return self.queue(&message);
        }
        // Nothing can be queued behind the message that is being sent in parts.
        self.check_open()?;
        let deferred = DeferredMessage {
            message,
            drop_count: None,
            queued_at: self.queue_time(),
        };
        self.with_busy_state(|busy| busy.deferred.push(deferred));
        Ok(())
    }

    fn deferred(&self) -> Option<&DeferredQueue> {
        Some(&self.busy.as_ref()?.deferred)
    }

    pub(super) fn has_deferred(&self) -> bool {
        self.deferred().is_some_and(|deferred| !deferred.is_empty())
    }

    fn deferred_has_capacity_for(&self, len: usize, used_len: usize) -> bool {
        let cost_max = self.group.write_buffer_max;
        let empty = DeferredQueue::default();
        self.deferred()
            .unwrap_or(&empty)
            .has_capacity_for(len, used_len, cost_max)
    }

    /// Memory used by deferred messages, in bytes.
    pub(crate) fn deferred_cost(&self) -> usize {
        self.deferred().map_or(0, DeferredQueue::cost)
    }

    /// Whether deferred messages must not be dropped for newer ones.
    pub(super) fn has_undroppable_deferred(&self) -> bool {
        self.deferred().is_some_and(DeferredQueue::has_undroppable)
    }

    /// Encodes what comes next: a part of the message that is being compressed, or deferred messages. Must not be
    /// called when the budget is spent, or while a message is being streamed.
    #[cold]
    #[inline(never)]
    pub(super) fn encode_next(&mut self) {
        if self.is_compressing() {
            return self.queue_part();
        }
        while self.write_queue.len() < ENCODED_LEN_MAX && !self.is_compressing() && !self.budget.is_spent() {
            let Some(next) = self.with_busy_state(|busy| busy.deferred.pop()) else {
                return;
            };
            if self.queue_deferred(&next).is_err() {
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
            } else if let Some(next) = self.with_busy_state(|busy| busy.deferred.pop())
                && self.queue_deferred(&next).is_err()
            {
                self.record_dropped_message();
                return self.drop_deferred();
            }
        }
    }

    /// Queues a deferred message. It is measured from when it was accepted.
    fn queue_deferred(&mut self, deferred: &DeferredMessage) -> Result<(), Error> {
        if deferred.queued_at.is_none() {
            return self.queue(&deferred.message);
        }
        let before = self.write_queue.end();
        self.queue_unmeasured(&deferred.message)?;
        if self.write_queue.end() > before {
            self.start_sample(deferred.queued_at);
        }
        Ok(())
    }

    /// Drops all deferred messages, because the connection has ended.
    pub(super) fn drop_deferred(&mut self) {
        if self.has_deferred() {
            self.has_dropped_output = true;
            self.with_busy_state(|busy| busy.deferred = DeferredQueue::default());
        }
    }
}
