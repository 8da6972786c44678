//! How much a connection does before the deadlines are looked at and other tasks get their turn.
//!
//! A peer whose input never ends can neither outlast a deadline nor starve other tasks. What is done is counted in bytes
//! that are read into the thread's buffer, and other work in as many of these as take about as long.

/// A turn: some tenths of a millisecond as a rule, some milliseconds at most.
const MAX: u32 = 512 * 1024;

/// Hard limit: yield even if buffered messages remain.
const OVERDRAWN: u32 = 2 * MAX;

/// A read into the thread's buffer.
const READ_COST: u32 = 128 * 1024;

/// What a message or a control frame counts beyond that: in one read there may be 60,000, which take some milliseconds.
const FRAME_COST: u32 = 64;

/// The least that a read straight into a large message counts, and how many of its bytes count one: they are only
/// unmasked.
const DIRECT_READ_COST_MIN: u32 = 32 * 1024;
const DIRECT_BYTES: usize = 4;

/// What a compressed byte counts: a part of a large message is more than a turn.
const COMPRESSED_COST: u32 = 16;

/// What was done since other tasks last had their turn.
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

    /// How much was done, in bytes.
    #[inline]
    pub(super) fn spent(self) -> u64 {
        self.0.into()
    }

    #[inline]
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    /// Notes that the turn is over for a caller that cannot yield: [`is_spent`](Self::is_spent) until it
    /// [resumes](Self::resume).
    pub(super) fn pause(&mut self) {
        self.0 = u32::MAX;
    }

    /// Begins the next turn after [`pause`](Self::pause).
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
        self.charge(saturated(len / DIRECT_BYTES).max(DIRECT_READ_COST_MIN));
    }

    #[inline]
    pub(super) fn charge_frame(&mut self) {
        self.charge(FRAME_COST);
    }

    /// Bytes that are not messages whole in their frames: there may be 20,000 fragments in a read.
    #[inline]
    pub(super) fn charge_fragments(&mut self, len: usize) {
        self.charge(saturated(len));
    }

    /// A message that did not come out of one read as it is: what was inflated may be a thousand times what was read.
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
    fn a_turn_is_four_reads_or_as_much_other_work() {
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
