//! Limits how much work a connection does before it checks its deadlines and yields to other tasks.
//!
//! Without it, a peer that sends without pause could delay deadlines and starve other tasks. The unit is the cost of
//! one byte read into the thread's buffer; other work is charged as the number of bytes that take about as long.

use crate::num::saturating_u32;

/// The budget between two yields: usually some tenths of a millisecond of work, at most a few milliseconds.
const MAX: u32 = 512 * 1024;

/// Hard limit: a connection yields even if messages remain in its buffer.
const OVERDRAWN: u32 = 2 * MAX;

/// The cost of a read into the thread's buffer.
const READ_COST: u32 = 128 * 1024;

/// The cost of a message or control frame in addition to its read. One read can contain 60,000 of them, which take some
/// milliseconds.
const FRAME_COST: u32 = 64;

/// The minimum cost of a read straight into a large message, and the number of its bytes that cost one unit: they are
/// only unmasked.
const DIRECT_READ_COST_MIN: u32 = 32 * 1024;
const DIRECT_BYTES: usize = 4;

/// The cost of compressing one byte: one part of a large message exceeds the whole budget.
const COMPRESSED_COST: u32 = 16;

/// The work done since the connection last yielded, in budget units.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget(u32);

impl Budget {
    #[inline]
    pub(super) fn is_spent(self) -> bool {
        self.0 >= MAX
    }

    #[inline]
    pub(super) fn is_overdrawn(self) -> bool {
        self.0 >= OVERDRAWN
    }

    /// The work so far.
    #[inline]
    pub(super) fn spent(self) -> u64 {
        self.0.into()
    }

    #[inline]
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    /// Marks the budget as spent until [`resume`](Self::resume), for a caller that cannot yield.
    pub(super) fn pause(&mut self) {
        self.0 = u32::MAX;
    }

    /// Resets the budget after [`pause`](Self::pause).
    pub(super) fn resume(&mut self) {
        if self.0 == u32::MAX {
            self.0 = 0;
        }
    }

    #[inline]
    pub(super) fn exhaust(&mut self) {
        self.0 = self.0.max(MAX);
    }

    #[inline]
    pub(super) fn charge_read(&mut self) {
        self.charge(READ_COST);
    }

    #[inline]
    pub(super) fn charge_direct_read(&mut self, len: usize) {
        self.charge(saturating_u32(len / DIRECT_BYTES).max(DIRECT_READ_COST_MIN));
    }

    #[inline]
    pub(super) fn charge_frame(&mut self) {
        self.charge(FRAME_COST);
    }

    /// Charges bytes that are not complete messages: one read can contain 20,000 fragments.
    #[inline]
    pub(super) fn charge_fragments(&mut self, len: usize) {
        self.charge(saturating_u32(len));
    }

    /// Charges a message that was assembled from several reads or inflated: it can be a thousand times larger than its
    /// input.
    #[inline]
    pub(super) fn charge_assembled(&mut self, len: usize) {
        self.charge(saturating_u32(len));
    }

    #[inline]
    pub(super) fn charge_compressed(&mut self, len: usize) {
        self.charge(saturating_u32(len).saturating_mul(COMPRESSED_COST));
    }

    #[inline]
    fn charge(&mut self, cost: u32) {
        self.0 = self.0.saturating_add(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[track_caller]
    fn check(charge: impl Fn(&mut Budget), times: usize) {
        let mut budget = Budget::default();
        for _ in 0..times {
            assert!(!budget.is_spent());
            charge(&mut budget);
        }
        assert!(budget.is_spent());
        budget.reset();
        assert!(!budget.is_spent());
    }

    #[test]
    fn budget_is_four_reads_or_as_much_other_work() {
        check(Budget::charge_read, 4);
        check(Budget::charge_frame, 8192);
        check(|budget| budget.charge_direct_read(1), 16);
        check(|budget| budget.charge_direct_read(2 << 20), 1);
        check(|budget| budget.charge_assembled(256 << 10), 2);
        check(|budget| budget.charge_assembled(usize::MAX), 1);
        check(|budget| budget.charge_compressed(1024), 32);
        check(Budget::exhaust, 1);
        check(Budget::pause, 1);
    }
}
