//! A lock that never blocks a thread.
//!
//! A receiving task may use a connection for milliseconds: it reads, unmasks and inflates. [`TryLock`] lets other tasks
//! continue meanwhile: locking succeeds or fails immediately. If it fails, a task can
//!
//! - add to the command queue ([`try_enqueue`](TryLock::try_enqueue)), which the holder empties before it releases the
//!   lock, or
//! - set a request ([`request`](TryLock::request)), which the holder sees when it releases the lock.
//!
//! One atomic word, the gate, holds the whole state of the lock and changes by compare-and-swap. A bit can be set only
//! while the lock is held, and [`release`](Guard::release) succeeds only after the holder has seen every bit. So no
//! request is lost.
//!
//! The models in `tests/models.rs` check every interleaving.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::sync::{AtomicU8, Mutex, MutexGuard, lock};

/// The lock is held.
const HELD: u8 = 1;
/// The holder does not accept additions to the command queue.
const QUEUE_CLOSED: u8 = 1 << 1;
/// The command queue has an item, or is about to have one.
const COMMANDS: u8 = 1 << 2;
/// A task waits for the lock.
const WAITING: u8 = 1 << 3;
/// The bits of [`Requests`], which the holder serves before it releases the lock.
const FLUSH: u8 = 1 << 4;
const DELEGATE_FLUSH: u8 = 1 << 5;

/// A value of type `T` behind a lock, a command queue of type `Q` for tasks that find it locked, and a snapshot `S` of
/// the value, which holders update and all tasks can read.
#[derive(Debug)]
pub(crate) struct TryLock<T, Q, S> {
    gate: AtomicU8,
    snapshot: S,
    /// Locked only by the task that has passed the gate, so that locking it never blocks.
    value: Mutex<T>,
    command_queue: Mutex<Q>,
}

/// Whether other tasks can add to the command queue while the lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueMode {
    Open,
    Closed,
}

/// Why nothing was added to the command queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnqueueError {
    /// The lock is not held: take it.
    Unlocked,
    /// The holder has closed the command queue.
    Closed,
}

/// A request to the lock holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Wake the tasks that wait for the lock, once it is released.
    Wake,
    /// Schedule a flush.
    Flush,
    /// Leave the flush to the tasks that wait for the connection.
    DelegateFlush,
}

/// Requests that the holder must serve before it can release the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "requests are made once"]
pub(crate) struct Requests {
    /// Execute the commands in the command queue.
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

impl<T, Q, S> TryLock<T, Q, S> {
    pub(crate) fn new(value: T, command_queue: Q, snapshot: S) -> Self {
        Self {
            gate: AtomicU8::new(0),
            snapshot,
            value: Mutex::new(value),
            command_queue: Mutex::new(command_queue),
        }
    }

    /// Locks the value, unless another task holds the lock. The caller must [`release`](Guard::release) it.
    #[inline]
    pub(crate) fn try_lock(&self, queue_mode: QueueMode) -> Option<Guard<'_, T, Q, S>> {
        let held = match queue_mode {
            QueueMode::Open => HELD,
            QueueMode::Closed => HELD | QUEUE_CLOSED,
        };
        // While the lock is free, no bit is set.
        self.gate.compare_exchange(0, held, AcqRel, Relaxed).ok()?;
        Some(Guard {
            lock: self,
            value: Some(lock(&self.value)),
            held,
        })
    }

    /// Sets a request for the lock holder. Returns `false` if the lock is not held; the caller can take it then.
    pub(crate) fn request(&self, request: Request) -> bool {
        let bit = match request {
            Request::Wake => WAITING,
            Request::Flush => FLUSH,
            Request::DelegateFlush => DELEGATE_FLUSH,
        };
        self.set(bit, 0).is_ok()
    }

    /// Adds to the command queue if another task holds the lock. That task empties the command queue before it releases
    /// the lock.
    ///
    /// `put` sees every update of the snapshot made before the lock was taken.
    ///
    /// # Errors
    ///
    /// The lock is not held, or its holder has closed the command queue. `put` was not called.
    pub(crate) fn try_enqueue<R>(&self, put: impl FnOnce(&mut Q) -> R) -> Result<R, EnqueueError> {
        // Lock the command queue before setting the bit: a holder that sees the bit then waits until the command queue
        // is updated.
        let mut command_queue = lock(&self.command_queue);
        self.set(COMMANDS, QUEUE_CLOSED)?;
        Ok(put(&mut command_queue))
    }

    /// Adds to the command queue like [`try_enqueue`](Self::try_enqueue), even if the holder has closed it. Returns
    /// `None` if the lock is not held: `put` was not called.
    pub(crate) fn force_enqueue<R>(&self, put: impl FnOnce(&mut Q) -> R) -> Option<R> {
        let mut command_queue = lock(&self.command_queue);
        self.set(COMMANDS, 0).ok()?;
        Some(put(&mut command_queue))
    }

    #[inline]
    pub(crate) fn snapshot(&self) -> &S {
        &self.snapshot
    }

    /// The command queue. Callers hold its mutex only to move a few words.
    pub(crate) fn command_queue(&self) -> MutexGuard<'_, Q> {
        lock(&self.command_queue)
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
pub(crate) struct Guard<'a, T, Q, S> {
    lock: &'a TryLock<T, Q, S>,
    /// `None` during [`release`](Self::release), and after it has succeeded.
    value: Option<MutexGuard<'a, T>>,
    /// The bits that this holder has set.
    held: u8,
}

impl<T, Q, S> Guard<'_, T, Q, S> {
    /// Releases the lock, or returns the requests that must be served first. Must not be called again after it has
    /// succeeded.
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
                requested => {
                    let requests = Requests {
                        commands: requested & COMMANDS != 0,
                        flush: requested & FLUSH != 0,
                        delegate_flush: requested & DELEGATE_FLUSH != 0,
                    };
                    (gate & !requested, Release::Requested(requests))
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

impl<T, Q, S> Deref for Guard<'_, T, Q, S> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("not released yet")
    }
}

impl<T, Q, S> DerefMut for Guard<'_, T, Q, S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("not released yet")
    }
}
