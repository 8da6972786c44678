//! Numbers of publications that slow clients did not receive, by policy.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

/// Publications that the policies for slow consumers dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped<T> {
    /// By `drop_oldest`.
    pub(crate) oldest: T,
    /// By `latest`: replaced by a newer publication.
    pub(crate) replaced: T,
    /// Positioned subscriptions that ended because `drop_oldest` dropped publications of theirs.
    pub(crate) ended_subscriptions: T,
}

impl Dropped<usize> {
    /// Number of publications of both policies.
    pub(crate) fn total(self) -> usize {
        self.oldest + self.replaced
    }
}

impl Dropped<u64> {
    /// Number of publications of both policies.
    pub(crate) fn total(self) -> u64 {
        self.oldest + self.replaced
    }
}

impl AddAssign for Dropped<usize> {
    fn add_assign(&mut self, other: Self) {
        self.oldest += other.oldest;
        self.replaced += other.replaced;
        self.ended_subscriptions += other.ended_subscriptions;
    }
}

impl Dropped<AtomicU64> {
    pub(crate) fn add(&self, dropped: Dropped<usize>) {
        for (counter, number) in [
            (&self.oldest, dropped.oldest),
            (&self.replaced, dropped.replaced),
            (&self.ended_subscriptions, dropped.ended_subscriptions),
        ] {
            if number > 0 {
                counter.fetch_add(number as u64, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn load(&self) -> Dropped<u64> {
        Dropped {
            oldest: self.oldest.load(Ordering::Relaxed),
            replaced: self.replaced.load(Ordering::Relaxed),
            ended_subscriptions: self.ended_subscriptions.load(Ordering::Relaxed),
        }
    }
}
