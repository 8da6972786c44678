//! Room in the send queue that is reserved, and the tasks that wait for a reservation.

use std::collections::VecDeque;

/// Identifies a waiting task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

/// The reservations of a connection. Empty on most connections.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    /// The number of reserved bytes.
    len: usize,
    /// The number of reservations.
    count: usize,
    /// The waiting tasks in order, with the number of bytes that each wants.
    waiting: VecDeque<(Ticket, usize)>,
    next_ticket: u32,
    /// Whether a task that waits for room, without a ticket, has found it reserved or other tasks in the line.
    blocks_others: bool,
}

impl Reservations {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && self.waiting.is_empty()
    }

    /// The number of reserved bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The number of bytes that the first waiting task wants.
    pub(super) fn first_waiting(&self) -> Option<usize> {
        self.waiting.front().map(|(_, len)| *len)
    }

    /// Whether it is the turn of the task with this ticket; without one, whether no task waits.
    pub(super) fn is_next(&self, ticket: Option<Ticket>) -> bool {
        self.waiting.front().map(|(first, _)| *first) == ticket
    }

    /// Puts a task at the end of the line, unless it has a ticket.
    pub(super) fn enqueue(&mut self, ticket: &mut Option<Ticket>, len: usize) {
        if ticket.is_none() {
            let new = Ticket(self.next_ticket);
            self.next_ticket = self.next_ticket.wrapping_add(1);
            self.waiting.push_back((new, len));
            *ticket = Some(new);
        }
    }

    /// Removes a task from the line. Returns whether tasks without a ticket may have waited for that.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        !self.has_waiting() && std::mem::take(&mut self.blocks_others)
    }

    pub(super) fn add(&mut self, len: usize) {
        self.len = self.len.saturating_add(len);
        self.count += 1;
    }

    /// Removes a reservation. Returns whether a task may wait for its room.
    pub(super) fn remove(&mut self, len: usize) -> bool {
        self.len = self.len.saturating_sub(len);
        self.count = self.count.saturating_sub(1);
        std::mem::take(&mut self.blocks_others) || self.has_waiting()
    }

    /// Records that a task without a ticket waits.
    pub(super) fn record_blocked(&mut self) {
        self.blocks_others = true;
    }
}

#[cfg(test)]
mod tests {
    use super::Reservations;

    #[test]
    fn tasks_are_served_in_order_and_a_cancelled_one_is_skipped() {
        let mut reservations = Reservations::default();
        let mut tickets = [None; 3];
        for (ticket, len) in tickets.iter_mut().zip([10, 20, 30]) {
            reservations.enqueue(ticket, len);
            // Waiting again does not change its place.
            reservations.enqueue(ticket, len);
        }
        let [first, second, third] = tickets;
        assert!(reservations.is_next(first) && !reservations.is_next(second) && !reservations.is_next(None));
        reservations.record_blocked();
        assert!(!reservations.leave(second.unwrap()));
        assert!(!reservations.leave(first.unwrap()));
        assert!(reservations.is_next(third));
        assert_eq!(reservations.first_waiting(), Some(30));
        assert!(reservations.leave(third.unwrap()), "the others can continue");
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
