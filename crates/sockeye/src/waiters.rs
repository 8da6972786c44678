//! The tasks that wait for one connection.

use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::lock::lock;

/// The tasks that wait for anything of a connection. A transport remembers one waker for each direction, and the
/// timer one; here they all remember this, and every task looks for itself what has changed.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Wakers>);

#[derive(Debug, Default)]
struct Wakers {
    /// There is seldom more than the receiver's.
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Waiters {
    /// Remembers a task; says whether it was not remembered already, for something else that it waits for.
    pub(crate) fn register(&self, waker: &Waker) -> bool {
        let mut wakers = lock(&self.0);
        let is_new = !wakers.iter().any(|known| known.will_wake(waker));
        if is_new {
            let waker = waker.clone();
            match wakers.first {
                None => wakers.first = Some(waker),
                Some(_) => wakers.others.push(waker),
            }
        }
        is_new
    }

    /// Forgets a task that does not wait after all: a waker keeps its task's memory alive.
    pub(crate) fn forget(&self, waker: &Waker) {
        let mut wakers = lock(&self.0);
        let forgotten = wakers.first.take_if(|known| known.will_wake(waker)).or_else(|| {
            let pos = wakers.others.iter().position(|known| known.will_wake(waker));
            pos.map(|pos| wakers.others.swap_remove(pos))
        });
        // The last of a task goes when nothing is locked.
        drop(wakers);
        drop(forgotten);
    }
}

impl Wakers {
    fn iter(&self) -> impl Iterator<Item = &Waker> {
        self.first.iter().chain(&self.others)
    }
}

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Wakers { first, others } = std::mem::take(&mut *lock(&self.0));
        first.into_iter().chain(others).for_each(Waker::wake);
    }
}
