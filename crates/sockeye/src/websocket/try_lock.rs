//! A lock on which no thread ever blocks.
//!
//! A task that receives may hold a connection for milliseconds: it reads, unmasks and inflates. [`TryLock`] lets other tasks
//! continue meanwhile. Locking succeeds or fails at once. A task whose attempt fails can
//!
//! - add to the inbox ([`try_enqueue`](TryLock::try_enqueue)), which the holder empties before it releases the lock, or
//! - set a request ([`request`](TryLock::request)), which the holder sees when it releases the lock.
//!
//! One atomic word, the gate, holds the whole state of the lock and changes by compare-and-swap. A bit can be set only while
//! the lock is held, and [`release`](Guard::release) succeeds only after the holder has seen every bit. So no request is lost.
//!
//! The models in `tests/models.rs` check every interleaving.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::sync::{AtomicU8, Mutex, MutexGuard, lock};

/// The lock is held.
const HELD: u8 = 1;
/// The holder does not accept additions to the inbox.
const INBOX_CLOSED: u8 = 1 << 1;
/// The inbox has something in it, or is about to.
const COMMANDS: u8 = 1 << 2;
/// A task waits for the lock.
const WAITING: u8 = 1 << 3;
/// The bits of [`Requests`], which the holder serves before it releases the lock.
const FLUSH: u8 = 1 << 4;
const DELEGATE_FLUSH: u8 = 1 << 5;

/// A value of type `T`, and what tasks use that cannot lock it: an inbox of type `B`, and `P`, a snapshot of the value that
/// its holders update.
#[derive(Debug)]
pub(crate) struct TryLock<T, B, P> {
    gate: AtomicU8,
    snapshot: P,
    /// Locked only by the task that has passed the gate, so that locking it never blocks.
    value: Mutex<T>,
    inbox: Mutex<B>,
}

/// Whether other tasks can add to the inbox while the lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InboxMode {
    Open,
    Closed,
}

/// Why nothing was added to the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnqueueError {
    /// No task holds the lock: lock it.
    Unlocked,
    /// The holder has closed the inbox.
    Closed,
}

/// What a task can ask the holder for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Wake the tasks that wait for the lock, once it is released.
    Wake,
    /// Schedule a flush.
    Flush,
    /// Leave the flush to the tasks that wait for the connection.
    DelegateFlush,
}

/// What the holder must do before it can release the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "requests are made once"]
pub(crate) struct Requests {
    /// Take what is in the inbox.
    pub(crate) commands: bool,
    pub(crate) flush: bool,
    pub(crate) delegate_flush: bool,
}

/// The result of [`Guard::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the lock is still held if there are requests"]
pub(crate) enum Release {
    /// The lock is released.
    Released {
        /// Whether tasks wait for the lock. The caller must wake them.
        has_waiting: bool,
    },
    /// The lock is still held. Serve these requests, then release it again.
    Requested(Requests),
}

impl<T, B, P> TryLock<T, B, P> {
    pub(crate) fn new(value: T, inbox: B, snapshot: P) -> Self {
        Self {
            gate: AtomicU8::new(0),
            snapshot,
            value: Mutex::new(value),
            inbox: Mutex::new(inbox),
        }
    }

    /// Locks the value, unless another task holds it. The caller must [`release`](Guard::release) it.
    #[inline]
    pub(crate) fn try_lock(&self, inbox_mode: InboxMode) -> Option<Guard<'_, T, B, P>> {
        let held = match inbox_mode {
            InboxMode::Open => HELD,
            InboxMode::Closed => HELD | INBOX_CLOSED,
        };
        // While the lock is free, no bit is set.
        self.gate.compare_exchange(0, held, AcqRel, Relaxed).ok()?;
        Some(Guard {
            lock: self,
            value: Some(lock(&self.value)),
            held,
        })
    }

    /// Asks the holder to do something when it releases the lock. Returns `false` if no task holds it; the caller can lock it
    /// then.
    pub(crate) fn request(&self, request: Request) -> bool {
        let bit = match request {
            Request::Wake => WAITING,
            Request::Flush => FLUSH,
            Request::DelegateFlush => DELEGATE_FLUSH,
        };
        self.set(bit, 0).is_ok()
    }

    /// Adds to the inbox if another task holds the lock. That task empties the inbox before it releases the lock.
    ///
    /// `put` sees every change of the snapshot that came before the lock was taken.
    ///
    /// # Errors
    ///
    /// No task holds the lock, or its holder has closed the inbox. Then `put` was not called.
    pub(crate) fn try_enqueue<R>(&self, put: impl FnOnce(&mut B) -> R) -> Result<R, EnqueueError> {
        // Locked first: the holder that sees the bit waits until the inbox has been changed.
        let mut inbox = lock(&self.inbox);
        self.set(COMMANDS, INBOX_CLOSED)?;
        Ok(put(&mut inbox))
    }

    /// Adds to the inbox as [`try_enqueue`](Self::try_enqueue) does, also if the holder has closed it.
    ///
    /// # Errors
    ///
    /// No task holds the lock. Then `put` was not called.
    pub(crate) fn enqueue_always<R>(&self, put: impl FnOnce(&mut B) -> R) -> Result<R, EnqueueError> {
        let mut inbox = lock(&self.inbox);
        self.set(COMMANDS, 0)?;
        Ok(put(&mut inbox))
    }

    #[inline]
    pub(crate) fn snapshot(&self) -> &P {
        &self.snapshot
    }

    /// The inbox. Callers hold its mutex only to move a few words.
    pub(crate) fn inbox(&self) -> MutexGuard<'_, B> {
        lock(&self.inbox)
    }

    /// Sets a bit if the lock is held and none of the bits in `unless` is set.
    fn set(&self, bit: u8, unless: u8) -> Result<(), EnqueueError> {
        let mut gate = self.gate.load(Relaxed);
        loop {
            if gate & HELD == 0 {
                return Err(EnqueueError::Unlocked);
            }
            if gate & unless != 0 {
                return Err(EnqueueError::Closed);
            }
            match self.gate.compare_exchange_weak(gate, gate | bit, AcqRel, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => gate = now,
            }
        }
    }
}

/// Exclusive access to the value of a [`TryLock`].
#[derive(Debug)]
#[must_use = "the value stays locked until `release` succeeds"]
pub(crate) struct Guard<'a, T, B, P> {
    lock: &'a TryLock<T, B, P>,
    /// `None` within [`release`](Self::release), and after it has succeeded.
    value: Option<MutexGuard<'a, T>>,
    /// The bits that this holder has set itself.
    held: u8,
}

impl<T, B, P> Guard<'_, T, B, P> {
    /// Releases the lock, or returns the requests that must be served first. Must not be called again once it has succeeded.
    #[inline]
    pub(crate) fn release(&mut self) -> Release {
        self.value = None;
        let gate = &self.lock.gate;
        match gate.compare_exchange(self.held, 0, AcqRel, Acquire) {
            Ok(_) => Release::Released { has_waiting: false },
            Err(gate) => self.release_with_requests(gate),
        }
    }

    #[cold]
    fn release_with_requests(&mut self, mut gate: u8) -> Release {
        loop {
            let (after, result) = match gate & (COMMANDS | FLUSH | DELEGATE_FLUSH) {
                0 => {
                    let has_waiting = gate & WAITING != 0;
                    (0, Release::Released { has_waiting })
                }
                asked => {
                    let requests = Requests {
                        commands: asked & COMMANDS != 0,
                        flush: asked & FLUSH != 0,
                        delegate_flush: asked & DELEGATE_FLUSH != 0,
                    };
                    (gate & !asked, Release::Requested(requests))
                }
            };
            match self.lock.gate.compare_exchange_weak(gate, after, AcqRel, Acquire) {
                Ok(_) => {
                    if after != 0 {
                        self.value = Some(lock(&self.lock.value));
                    }
                    return result;
                }
                Err(now) => gate = now,
            }
        }
    }
}

impl<T, B, P> Deref for Guard<'_, T, B, P> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("not released yet")
    }
}

impl<T, B, P> DerefMut for Guard<'_, T, B, P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("not released yet")
    }
}
