//! The wakers of the operations that wait for one connection.
//!
//! A transport remembers one waker per direction and a timer remembers one. When several tasks share a connection, these
//! remember a waker that wakes a [`WakerSlots`], which wakes every pending operation, and each looks for itself what has
//! changed.
//!
//! Every pending operation owns a slot, from its first pending poll until it completes or is dropped. A poll replaces the
//! waker in the slot, so a poll costs the same however often it is repeated, and the number of slots is the number of
//! operations that are pending at the same time. Nothing depends on [`Waker::will_wake`]: it may be false for two wakers
//! of the same task.
//!
//! Checked by the models in `tests/models.rs`.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::Waker;

use crate::sync::{AtomicUsize, Mutex, lock};

/// Slots for the wakers of pending operations: one that is always there, for the receiver, and as many others as are
/// needed.
#[derive(Debug)]
pub(crate) struct WakerSlots {
    /// The number of wake-ups so far, those aside that are for [`Wait::Lock`] only.
    wake_ups: AtomicUsize,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    receiver: Slot,
    /// `None` while no other operation is pending.
    others: Option<Box<Slab>>,
}

/// Slots by index, of which those that are free form a list.
#[derive(Debug, Default)]
struct Slab {
    slots: Vec<Slot>,
    /// The first free slot, or the number of slots.
    free: u32,
    /// How many are in use.
    len: u32,
}

#[derive(Debug, Default)]
enum Slot {
    Waiting(Waker, Wait),
    /// In use; its operation was woken, and has not been polled since.
    #[default]
    Woken,
    /// In no use; the next free slot, or the number of slots.
    Free(u32),
}

/// What an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until the connection may have made progress.
    Progress,
    /// Until no other task uses the connection.
    Lock,
    /// Until no message can be sent any more.
    End,
}

/// Which slot belongs to an operation, if any.
#[derive(Debug)]
pub(crate) struct SlotKey(u32);

/// The receiver's slot, which is kept from one operation to the next and holds no waker.
const RECEIVER: u32 = u32::MAX;
/// The same, and it may hold a waker.
const REGISTERED_RECEIVER: u32 = u32::MAX - 1;
/// No slot yet: it is allocated when the operation is first pending.
const NO_SLOT: u32 = u32::MAX - 2;

impl SlotKey {
    /// The receiver's.
    pub(crate) fn receiver() -> Self {
        Self(RECEIVER)
    }

    /// That of any other operation.
    pub(crate) fn operation() -> Self {
        Self(NO_SLOT)
    }
}

/// The number of wake-ups at some moment: see [`WakerSlots::register`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen(usize);

impl WakerSlots {
    pub(crate) fn new() -> Self {
        Self {
            wake_ups: AtomicUsize::new(0),
            slots: Mutex::new(Slots::default()),
        }
    }

    /// To be called before a poll whose operation is not registered yet.
    #[inline]
    pub(crate) fn seen(&self) -> Seen {
        Seen(self.wake_ups.load(Acquire))
    }

    /// Registers an operation whose poll was pending; `seen` is from before that poll.
    ///
    /// Returns false if there was a wake-up since `seen`, which the operation may have missed: its task has to poll it once
    /// more.
    #[must_use = "a wake-up may have been missed"]
    pub(crate) fn register(&self, key: &mut SlotKey, waker: &Waker, seen: Seen) -> bool {
        let waker = waker.clone();
        let mut slots = lock(&self.slots);
        let replaced = slots.set(key, Slot::Waiting(waker, Wait::Progress));
        // Wake-ups are counted under the lock.
        let is_current = self.wake_ups.load(Acquire) == seen.0;
        drop(slots);
        // A waker may run any code when it is dropped.
        drop(replaced);
        is_current
    }

    /// Registers an operation that could not be polled, for another task uses the connection.
    pub(crate) fn register_for_lock(&self, key: &mut SlotKey, waker: &Waker) {
        let waker = waker.clone();
        let replaced = lock(&self.slots).set(key, Slot::Waiting(waker, Wait::Lock));
        drop(replaced);
    }

    /// Drops the waker of an operation that has completed or is dropped, and frees its slot.
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

    /// Registers an operation that waits for the end of the connection. To be called while the connection is locked, by
    /// the task that has found it open: the task that ends it calls [`wake_all`](Self::wake_all) later.
    pub(crate) fn register_for_end(&self, key: &mut SlotKey, waker: &Waker) {
        let waker = waker.clone();
        let replaced = lock(&self.slots).set(key, Slot::Waiting(waker, Wait::End));
        drop(replaced);
    }

    /// Wakes every operation.
    pub(crate) fn wake_all(&self) {
        self.wake(|_| true);
    }

    /// Wakes every operation but those that wait for the end of the connection: the transport is ready, or a deadline has
    /// passed.
    pub(crate) fn wake_for_progress(&self) {
        self.wake(|wait| wait != Wait::End);
    }

    fn wake(&self, is_meant: impl Fn(Wait) -> bool) {
        let mut slots = lock(&self.slots);
        let wake_ups = self.wake_ups.load(Acquire);
        self.wake_ups.store(wake_ups.wrapping_add(1), Release);
        let receiver = slots.receiver.take_waker();
        let others = slots.take_others(is_meant);
        drop(slots);
        receiver.into_iter().chain(others).for_each(Waker::wake);
    }

    /// Wakes the operations that wait until no other task uses the connection.
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
    /// Returns what was in the slot.
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

    /// Returns what was in the slot, and the slab if this was the last of it.
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

    fn take_others(&mut self, is_meant: impl Fn(Wait) -> bool) -> Vec<Waker> {
        let slots = self.others.iter_mut().flat_map(|slab| &mut slab.slots);
        slots
            .filter_map(|slot| match slot {
                Slot::Waiting(_, wait) if is_meant(*wait) => slot.take_waker(),
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
