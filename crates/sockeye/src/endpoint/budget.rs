//! The work that a connection may do before it checks its deadlines and yields to other tasks.
//!
//! Without this limit, a peer whose input never ends could outlast a deadline or starve other tasks. The unit is a byte that is
//! read into the thread's buffer. Other work is charged with as many bytes as take about as long.

/// The whole budget: usually some tenths of a millisecond, at most some milliseconds.
const MAX: u32 = 512 * 1024;

/// The hard limit, at which a connection yields even if messages remain in its buffer.
const OVERDRAWN: u32 = 2 * MAX;

/// The cost of a read into the thread's buffer.
const READ_COST: u32 = 128 * 1024;

/// The additional cost of a message or a control frame: one read may contain 60,000, which take some milliseconds.
const FRAME_COST: u32 = 64;

/// The least cost of a read straight into a large message, and how many of its bytes cost one: they are only unmasked.
const DIRECT_READ_COST_MIN: u32 = 32 * 1024;
const DIRECT_BYTES: usize = 4;

/// The cost of a compressed byte: one part of a large message costs more than the whole budget.
const COMPRESSED_COST: u32 = 16;

/// The work since the connection last yielded.
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

    /// The work so far, in bytes.
    #[inline]
    pub(super) fn spent(self) -> u64 {
        self.0.into()
    }

    #[inline]
    pub(super) fn reset(&mut self) {
        self.0 = 0;
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
        self.charge(saturated(len / DIRECT_BYTES).max(DIRECT_READ_COST_MIN));
    }

    #[inline]
    pub(super) fn charge_frame(&mut self) {
        self.charge(FRAME_COST);
    }

    /// For bytes that are not whole messages: one read may contain 20,000 fragments.
    #[inline]
    pub(super) fn charge_fragments(&mut self, len: usize) {
        self.charge(saturated(len));
    }

    /// For a message that was assembled from several reads or inflated: it may be a thousand times as large as its input.
    #[inline]
    pub(super) fn charge_assembled(&mut self, len: usize) {
        self.charge(saturated(len));
    }

    #[inline]
    pub(super) fn charge_compressed(&mut self, len: usize) {
        self.charge(saturated(len).saturating_mul(COMPRESSED_COST));
    }

    #[inline]
    fn charge(&mut self, cost: u32) {
        self.0 = self.0.saturating_add(cost);
    }
}

fn saturated(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
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
    }
}
