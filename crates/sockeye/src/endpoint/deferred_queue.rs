//! Messages that are accepted but not encoded yet, because the connection is busy.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use sockeye_proto::Instant;

use crate::message::outbound::Outbound;

/// Memory per deferred message, in addition to its payload.
const DEFERRED_OVERHEAD: usize = size_of::<DeferredMessage>();

/// A message that is not encoded yet.
#[derive(Clone, Debug)]
pub(crate) struct DeferredMessage {
    pub(crate) message: Outbound,
    /// Counts the message if it is dropped for a newer one. `None` for a message that must not be dropped.
    pub(crate) drop_count: Option<Arc<AtomicU64>>,
    /// When it was accepted, if queue waits are measured.
    pub(crate) queued_at: Option<Instant>,
}

impl DeferredMessage {
    pub(crate) fn new(message: Outbound, drop_count: Option<Arc<AtomicU64>>) -> Self {
        Self {
            message,
            drop_count,
            queued_at: None,
        }
    }
}

/// Messages that wait to be encoded. Droppable messages have their own queue, so that dropping the oldest is O(1).
/// [`pop`](Self::pop) alternates between the queues.
#[derive(Debug, Default)]
pub(crate) struct DeferredQueue {
    undroppable: VecDeque<DeferredMessage>,
    droppable: VecDeque<DeferredMessage>,
    /// The length of the messages, plus [`DEFERRED_OVERHEAD`] for each.
    cost: usize,
    /// Whether the last message was taken from `undroppable`.
    was_last_undroppable: bool,
}

impl DeferredQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.undroppable.is_empty() && self.droppable.is_empty()
    }

    /// Memory used by the messages, in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    /// Whether there are messages that must not be dropped.
    pub(crate) fn has_undroppable(&self) -> bool {
        !self.undroppable.is_empty()
    }

    /// Whether a message of `len` bytes fits into `cost_max` when `used_len` of it is in use elsewhere. One message of
    /// any length fits if nothing else is queued.
    pub(crate) fn has_capacity_for(&self, len: usize, used_len: usize, cost_max: usize) -> bool {
        let used_len = used_len.saturating_add(self.cost);
        used_len == 0 || used_len.saturating_add(len).saturating_add(DEFERRED_OVERHEAD) <= cost_max
    }

    pub(crate) fn push(&mut self, deferred: DeferredMessage) {
        self.cost += deferred.message.len() + DEFERRED_OVERHEAD;
        match deferred.drop_count {
            Some(_) => self.droppable.push_back(deferred),
            None => self.undroppable.push_back(deferred),
        }
    }

    /// Adds a message and drops the oldest ones that may be dropped, until `cost_max` is observed or only the new one
    /// and those that must not be dropped are left.
    pub(crate) fn push_and_drop_oldest(&mut self, deferred: DeferredMessage, cost_max: usize) {
        while !self.has_capacity_for(deferred.message.len(), 0, cost_max)
            && let Some(oldest) = self.droppable.pop_front()
        {
            self.uncharge(&oldest);
            if let Some(count) = oldest.drop_count {
                count.fetch_add(1, Relaxed);
            }
        }
        self.push(deferred);
    }

    pub(crate) fn pop(&mut self) -> Option<DeferredMessage> {
        self.was_last_undroppable =
            !self.undroppable.is_empty() && (!self.was_last_undroppable || self.droppable.is_empty());
        let next = match self.was_last_undroppable {
            true => self.undroppable.pop_front(),
            false => self.droppable.pop_front(),
        }?;
        self.uncharge(&next);
        Some(next)
    }

    fn uncharge(&mut self, deferred: &DeferredMessage) {
        self.cost -= deferred.message.len() + DEFERRED_OVERHEAD;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str, drop_count: Option<&Arc<AtomicU64>>) -> DeferredMessage {
        DeferredMessage::new(text.into(), drop_count.cloned())
    }

    fn texts(mut queue: DeferredQueue) -> Vec<String> {
        let text = |deferred: DeferredMessage| deferred.message.to_message().as_text().unwrap().to_owned();
        let texts = std::iter::from_fn(|| queue.pop()).map(text).collect();
        assert_eq!((queue.cost(), queue.is_empty()), (0, true));
        texts
    }

    #[test]
    fn both_kinds_keep_their_order_and_take_turns() {
        let count = Arc::new(AtomicU64::new(0));
        let mut queue = DeferredQueue::default();
        for number in 0..4 {
            queue.push(message(&format!("k{number}"), None));
        }
        for number in 0..2 {
            queue.push(message(&format!("d{number}"), Some(&count)));
        }
        assert_eq!(texts(queue), ["k0", "d0", "k1", "d1", "k2", "k3"]);
        assert_eq!(count.load(Relaxed), 0);
    }

    #[test]
    fn oldest_droppable_messages_are_dropped() {
        let [first, second] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let cost_max = 3 * (DEFERRED_OVERHEAD + 1);
        let mut queue = DeferredQueue::default();
        for (text, count) in [
            ("a", Some(&first)),
            ("k", None),
            ("b", Some(&second)),
            ("c", Some(&first)),
        ] {
            queue.push_and_drop_oldest(message(text, count), cost_max);
            assert!(queue.cost() <= cost_max);
        }
        assert_eq!((first.load(Relaxed), second.load(Relaxed)), (1, 0));
        queue.push_and_drop_oldest(message(&"d".repeat(cost_max), Some(&first)), cost_max);
        // It does not fit beside `k`, which cannot be dropped.
        assert_eq!((first.load(Relaxed), second.load(Relaxed)), (2, 1));
        assert_eq!(texts(queue), ["k".to_owned(), "d".repeat(cost_max)]);
    }

    #[test]
    fn message_of_any_length_fits_into_an_empty_queue() {
        let mut queue = DeferredQueue::default();
        assert!(queue.has_capacity_for(usize::MAX, 0, 10));
        assert!(!queue.has_capacity_for(1, 1, 10));
        queue.push(message("x", None));
        assert!(queue.has_undroppable() && !queue.has_capacity_for(0, 0, 10));
    }
}
