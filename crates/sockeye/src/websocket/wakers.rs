//! The wakers of the operations that wait for one connection.
//!
//! A transport keeps one waker per direction, and a timer keeps one. When several tasks share a connection, the
//! transport and the timer keep the waker of a [`WakerSlots`], which wakes every pending operation. Each operation then
//! checks what has changed.
//!
//! Every pending operation has a slot, from its first pending poll until it completes or is dropped. Each poll replaces
//! the waker in the slot, so polling repeatedly has a constant cost, and the number of slots is the number of
//! concurrently pending operations. Nothing depends on [`Waker::will_wake`], which may be false for two wakers of the
//! same task.
//!
//! The models in `tests/models.rs` check every interleaving.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::Waker;

use crate::sync::{AtomicUsize, Mutex, lock};

/// Slots for the wakers of pending operations: a permanent one for the receiver, and as many others as needed.
#[derive(Debug)]
pub(crate) struct WakerSlots {
    /// The number of wake-ups so far, except those for [`Wait::Lock`] only.
    wake_ups: AtomicUsize,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    receiver: Slot,
    /// `None` while no other operation is pending.
    others: Option<Box<Slab>>,
}

/// Slots by index. The free ones form a linked list.
#[derive(Debug, Default)]
struct Slab {
    slots: Vec<Slot>,
    /// The first free slot, or the number of slots.
    free: u32,
    /// The number of slots in use.
    len: u32,
}

#[derive(Debug, Default)]
enum Slot {
    Waiting(Waker, Wait),
    /// In use. Its operation was woken, and has not been polled since.
    #[default]
    Woken,
    /// Unused. Holds the next free slot, or the number of slots.
    Free(u32),
}

/// The event that an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The connection may have made progress.
    Progress,
    /// The connection is unlocked.
    Lock,
    /// No message can be sent any more.
    End,
}

/// The slot of an operation, if it has one.
#[derive(Debug)]
pub(crate) struct SlotKey(u32);

/// The receiver's slot, while it holds no waker. It is kept from one operation to the next.
const RECEIVER: u32 = u32::MAX;
/// The receiver's slot, when it may hold a waker.
const REGISTERED_RECEIVER: u32 = u32::MAX - 1;
/// No slot yet: it is allocated when the operation is first pending.
const NO_SLOT: u32 = u32::MAX - 2;

impl SlotKey {
    /// The receiver's slot.
    pub(crate) fn receiver() -> Self {
        Self(RECEIVER)
    }

    /// A slot for any other operation.
    pub(crate) fn operation() -> Self {
        Self(NO_SLOT)
    }
}

/// The number of wake-ups at some time: see [`WakerSlots::wake_count`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct WakeCount(usize);

impl WakerSlots {
    pub(crate) fn new() -> Self {
        Self {
            wake_ups: AtomicUsize::new(0),
            slots: Mutex::new(Slots::default()),
        }
    }

    /// The number of wake-ups so far, for [`register`](Self::register). Read it before polling.
    #[inline]
    pub(crate) fn wake_count(&self) -> WakeCount {
        WakeCount(self.wake_ups.load(Acquire))
    }

    /// Registers an operation whose poll was pending. `wake_count` is from before that poll.
    ///
    /// Returns `false` if there was a wake-up since then that the operation may have missed: its task has to poll it
    /// again.
    #[must_use = "a wake-up may have been missed"]
    pub(crate) fn register(&self, key: &mut SlotKey, waker: &Waker, wake_count: WakeCount) -> bool {
        let waker = waker.clone();
        let mut slots = lock(&self.slots);
        let replaced = slots.set(key, Slot::Waiting(waker, Wait::Progress));
        // Wake-ups are counted under the lock.
        let is_current = self.wake_ups.load(Acquire) == wake_count.0;
        drop(slots);
        // Dropping a waker can run any code, so unlock first.
        drop(replaced);
        is_current
    }

    /// Registers an operation that could not be polled because the connection was locked.
    pub(crate) fn register_for_lock(&self, key: &mut SlotKey, waker: &Waker) {
        let waker = waker.clone();
        let replaced = lock(&self.slots).set(key, Slot::Waiting(waker, Wait::Lock));
        drop(replaced);
    }

    /// Registers an operation that waits for the end of the connection. Must be called while holding the lock, after
    /// checking that the connection is open: the task that ends it calls [`wake_all`](Self::wake_all) later.
    pub(crate) fn register_for_end(&self, key: &mut SlotKey, waker: &Waker) {
        let waker = waker.clone();
        let replaced = lock(&self.slots).set(key, Slot::Waiting(waker, Wait::End));
        drop(replaced);
    }

    /// Drops the waker of an operation that was completed or dropped, and frees its slot.
    #[inline]
    pub(crate) fn release(&self, key: &mut SlotKey) {
        match key.0 {
            RECEIVER | NO_SLOT => {}
            _ => self.release_registered(key),
        }
    }

    #[cold]
    fn release_registered(&self, key: &mut SlotKey) {
        let mut slots = lock(&self.slots);
        let released = slots.release(key);
        drop(slots);
        drop(released);
    }

    /// Wakes every operation.
    pub(crate) fn wake_all(&self) {
        self.wake(|_| true);
    }

    /// Wakes every operation except those that wait for the end: the transport is ready, or a deadline has passed.
    pub(crate) fn wake_for_progress(&self) {
        self.wake(|wait| wait != Wait::End);
    }

    fn wake(&self, should_wake: impl Fn(Wait) -> bool) {
        let mut slots = lock(&self.slots);
        let wake_ups = self.wake_ups.load(Acquire);
        self.wake_ups.store(wake_ups.wrapping_add(1), Release);
        let receiver = slots.receiver.take_waker();
        let others = slots.take_others(should_wake);
        drop(slots);
        receiver.into_iter().chain(others).for_each(Waker::wake);
    }

    /// Wakes the operations that wait for the lock.
    pub(crate) fn wake_for_lock(&self) {
        let mut slots = lock(&self.slots);
        let receiver = match slots.receiver {
            Slot::Waiting(_, Wait::Lock) => slots.receiver.take_waker(),
            _ => None,
        };
        let others = slots.take_others(|wait| wait == Wait::Lock);
        drop(slots);
        receiver.into_iter().chain(others).for_each(Waker::wake);
    }
}

impl Slots {
    /// Stores `slot`, and returns the previous content.
    fn set(&mut self, key: &mut SlotKey, slot: Slot) -> Slot {
        let place = match key.0 {
            RECEIVER | REGISTERED_RECEIVER => {
                key.0 = REGISTERED_RECEIVER;
                &mut self.receiver
            }
            _ => {
                let slab = self.others.get_or_insert_default();
                if key.0 == NO_SLOT {
                    key.0 = slab.allocate();
                }
                &mut slab.slots[key.0 as usize]
            }
        };
        std::mem::replace(place, slot)
    }

    /// Frees the slot. Returns its content, and the slab if no slot is left in use.
    fn release(&mut self, key: &mut SlotKey) -> (Slot, Option<Box<Slab>>) {
        match (key.0, &mut self.others) {
            (RECEIVER | REGISTERED_RECEIVER, _) => {
                key.0 = RECEIVER;
                (std::mem::take(&mut self.receiver), None)
            }
            (NO_SLOT, _) | (_, None) => (Slot::Woken, None),
            (index, Some(slab)) => {
                key.0 = NO_SLOT;
                let released = slab.free(index);
                let emptied = self.others.take_if(|slab| slab.len == 0);
                (released, emptied)
            }
        }
    }

    fn take_others(&mut self, should_wake: impl Fn(Wait) -> bool) -> Vec<Waker> {
        let slots = self.others.iter_mut().flat_map(|slab| &mut slab.slots);
        slots
            .filter_map(|slot| match slot {
                Slot::Waiting(_, wait) if should_wake(*wait) => slot.take_waker(),
                _ => None,
            })
            .collect()
    }
}

impl Slab {
    fn allocate(&mut self) -> u32 {
        self.len += 1;
        let index = self.free;
        match self.slots.get_mut(index as usize) {
            Some(slot) => {
                if let Slot::Free(next) = std::mem::take(slot) {
                    self.free = next;
                }
            }
            None => {
                self.slots.push(Slot::Woken);
                self.free += 1;
            }
        }
        index
    }

    fn free(&mut self, index: u32) -> Slot {
        self.len -= 1;
        let next = std::mem::replace(&mut self.free, index);
        std::mem::replace(&mut self.slots[index as usize], Slot::Free(next))
    }
}

impl Slot {
    fn take_waker(&mut self) -> Option<Waker> {
        match std::mem::take(self) {
            Self::Waiting(waker, _) => Some(waker),
            other => {
                *self = other;
                None
            }
        }
    }
}
