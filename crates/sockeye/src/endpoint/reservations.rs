//! Room in the send queue that is reserved, and the tasks that wait for a reservation.

use std::collections::VecDeque;

/// Identifies a waiting task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaiterId(u32);

/// The reservations of a connection. Empty on most connections.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    /// The number of reserved bytes.
    len: usize,
    /// The number of reservations.
    count: usize,
    /// The waiting tasks in order, with the number of bytes that each wants.
    waiters: VecDeque<(WaiterId, usize)>,
    next_id: u32,
    /// Whether a task waits to queue a message because capacity is reserved or tasks wait for a reservation.
    has_blocked_sender: bool,
    /// Whether the first fragments of a [streamed message](super::driver::Driver::poll_feed_fragment) are queued and
    /// its last one is not. Nothing else can be queued in between.
    pub(super) is_streaming: bool,
}

impl Reservations {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && self.waiters.is_empty() && !self.is_streaming
    }

    /// The number of reserved bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// The number of bytes that the first waiting task wants.
    pub(super) fn first_waiter_len(&self) -> Option<usize> {
        self.waiters.front().map(|(_, len)| *len)
    }

    /// Whether this waiter is first. Without an id: whether there are no waiters.
    pub(super) fn is_next(&self, id: Option<WaiterId>) -> bool {
        self.waiters.front().map(|(first, _)| *first) == id
    }

    /// Adds a task to the wait queue, unless it has an id.
    pub(super) fn enqueue(&mut self, id: &mut Option<WaiterId>, len: usize) {
        if id.is_none() {
            let new = WaiterId(self.next_id);
            self.next_id = self.next_id.wrapping_add(1);
            self.waiters.push_back((new, len));
            *id = Some(new);
        }
    }

    /// Removes a task from the wait queue. Returns whether tasks that wait to queue a message can continue.
    pub(super) fn remove_waiter(&mut self, id: WaiterId) -> bool {
        self.waiters.retain(|(waiter, _)| *waiter != id);
        !self.has_waiters() && std::mem::take(&mut self.has_blocked_sender)
    }

    pub(super) fn add(&mut self, len: usize) {
        self.len = self.len.saturating_add(len);
        self.count += 1;
    }

    /// Removes a reservation. Returns whether a task may wait for its capacity.
    pub(super) fn remove(&mut self, len: usize) -> bool {
        self.len = self.len.saturating_sub(len);
        self.count = self.count.saturating_sub(1);
        std::mem::take(&mut self.has_blocked_sender) || self.has_waiters()
    }

    /// Records that a task waits to queue a message.
    pub(super) fn record_blocked(&mut self) {
        self.has_blocked_sender = true;
    }
}

#[cfg(test)]
mod tests {
    use super::Reservations;

    #[test]
    fn tasks_are_served_in_order_and_a_cancelled_one_is_skipped() {
        let mut reservations = Reservations::default();
        let mut ids = [None; 3];
        for (id, len) in ids.iter_mut().zip([10, 20, 30]) {
            reservations.enqueue(id, len);
            // Waiting again does not change its place.
            reservations.enqueue(id, len);
        }
        let [first, second, third] = ids;
        assert!(reservations.is_next(first) && !reservations.is_next(second) && !reservations.is_next(None));
        reservations.record_blocked();
        assert!(!reservations.remove_waiter(second.unwrap()));
        assert!(!reservations.remove_waiter(first.unwrap()));
        assert!(reservations.is_next(third));
        assert_eq!(reservations.first_waiter_len(), Some(30));
        assert!(reservations.remove_waiter(third.unwrap()), "the others can continue");
        assert!(reservations.is_next(None) && reservations.is_empty());
    }

    #[test]
    fn removed_reservation_reports_who_waits() {
        let mut reservations = Reservations::default();
        reservations.add(10);
        reservations.add(usize::MAX);
        assert_eq!(reservations.len(), usize::MAX);
        reservations.record_blocked();
        assert!(reservations.remove(usize::MAX));
        assert!(!reservations.remove(10), "the task was woken already");
        assert!(reservations.is_empty());
    }
}
