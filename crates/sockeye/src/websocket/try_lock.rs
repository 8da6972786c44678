//! A value that one task at a time uses, and that nobody blocks on.
//!
//! A task that receives may use a connection for milliseconds: it reads, unmasks and inflates. [`Exclusive`] lets others go
//! on meanwhile. Entering never waits: it succeeds or fails at once. Whoever fails may
//!
//! - put something into the inbox ([`deposit`](Exclusive::deposit)), which the holder takes before it leaves, or
//! - leave a request ([`request`](Exclusive::request)), of which the holder learns when it leaves.
//!
//! All this is decided by compare-and-swap operations on one word, the gate. A bit can be set only while the value is held,
//! and the gate opens only when the holder has seen every bit: no request can be stranded.
//!
//! Checked by the models in `tests/models.rs`.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::sync::{AtomicU8, Mutex, MutexGuard, lock};

/// A task has entered.
const HELD: u8 = 1;
/// The inbox takes nothing until the holder has left.
const NO_DEPOSITS: u8 = 1 << 1;
/// There is, or is about to be, something in the inbox.
const MAIL: u8 = 1 << 2;
/// A task waits to enter.
const WAITING: u8 = 1 << 3;
/// The bits of [`Requests`], which the holder serves before it leaves.
const FLUSH: u8 = 1 << 4;
const HAND_OVER: u8 = 1 << 5;

/// A value of type `T`, an inbox of type `B` for tasks that find it in use, and `P`: snapshot published for tasks that find
/// the value in use.
#[derive(Debug)]
pub(crate) struct Exclusive<T, B, P> {
    gate: AtomicU8,
    published: P,
    /// Locked only by the task that has passed the gate, so that locking it never blocks.
    value: Mutex<T>,
    inbox: Mutex<B>,
}

/// What the inbox is open to while the value is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deposits {
    Accepted,
    Refused,
}

/// Why nothing was put into the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoDeposit {
    /// Nobody holds the value: enter.
    Free,
    /// The holder refuses deposits.
    Refused,
}

/// What a task can ask the holder for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Wake the tasks that wait to enter, once the value is free.
    Wake,
    /// Schedule a flush.
    Flush,
    /// Leave flushing to the tasks that wait for the connection.
    HandOver,
}

/// What the holder has to do before it can leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "requests are made once"]
pub(crate) struct Requests {
    /// Take what is in the inbox.
    pub(crate) mail: bool,
    pub(crate) flush: bool,
    pub(crate) hand_over: bool,
}

/// The result of [`Entered::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the value is still held if there are requests"]
pub(crate) enum Leave {
    /// The value is free again.
    Left {
        /// Whether tasks wait to enter, which the caller must wake.
        has_waiting: bool,
    },
    /// The value is still held. Serve these, then leave again.
    Requested(Requests),
}

impl<T, B, P> Exclusive<T, B, P> {
    pub(crate) fn new(value: T, inbox: B, published: P) -> Self {
        Self {
            gate: AtomicU8::new(0),
            published,
            value: Mutex::new(value),
            inbox: Mutex::new(inbox),
        }
    }

    /// Enters, unless another has. The caller must [`leave`](Entered::leave).
    #[inline]
    pub(crate) fn try_enter(&self, deposits: Deposits) -> Option<Entered<'_, T, B, P>> {
        let held = match deposits {
            Deposits::Accepted => HELD,
            Deposits::Refused => HELD | NO_DEPOSITS,
        };
        // Without a holder no bit is set.
        self.gate.compare_exchange(0, held, AcqRel, Relaxed).ok()?;
        Some(Entered {
            exclusive: self,
            value: Some(lock(&self.value)),
            held,
        })
    }

    /// Has the holder do something before, or when, it leaves; `false` if nobody holds the value, and the caller may enter.
    pub(crate) fn request(&self, request: Request) -> bool {
        let bit = match request {
            Request::Wake => WAITING,
            Request::Flush => FLUSH,
            Request::HandOver => HAND_OVER,
        };
        self.set(bit, 0).is_ok()
    }

    /// Changes the inbox, if another holds the value: it will take the inbox before it leaves.
    ///
    /// `put` sees all that the holder published before it entered.
    ///
    /// # Errors
    ///
    /// Nobody holds the value, or its holder accepts no deposits; `put` was not called.
    pub(crate) fn deposit<R>(&self, put: impl FnOnce(&mut B) -> R) -> Result<R, NoDeposit> {
        // Locked first: the holder that sees the bit waits until the inbox has been changed.
        let mut inbox = lock(&self.inbox);
        self.set(MAIL, NO_DEPOSITS)?;
        Ok(put(&mut inbox))
    }

    /// Puts something into the inbox also if the holder of the value refuses deposits. `put` sees all that the holder
    /// published before it entered.
    pub(crate) fn deposit_always<R>(&self, put: impl FnOnce(&mut B) -> R) -> Result<R, NoDeposit> {
        let mut inbox = lock(&self.inbox);
        self.set(MAIL, 0)?;
        Ok(put(&mut inbox))
    }

    #[inline]
    pub(crate) fn published(&self) -> &P {
        &self.published
    }

    /// The inbox. It is not kept locked for longer than it takes to move a few words.
    pub(crate) fn inbox(&self) -> MutexGuard<'_, B> {
        lock(&self.inbox)
    }

    /// Sets a bit if the value is held, and none of `unless` is set.
    fn set(&self, bit: u8, unless: u8) -> Result<(), NoDeposit> {
        let mut gate = self.gate.load(Relaxed);
        loop {
            if gate & HELD == 0 {
                return Err(NoDeposit::Free);
            }
            if gate & unless != 0 {
                return Err(NoDeposit::Refused);
            }
            match self.gate.compare_exchange_weak(gate, gate | bit, AcqRel, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => gate = now,
            }
        }
    }
}

/// The right to use the value of an [`Exclusive`].
#[derive(Debug)]
#[must_use = "the value stays held until it is left"]
pub(crate) struct Entered<'a, T, B, P> {
    exclusive: &'a Exclusive<T, B, P>,
    /// `None` only within [`leave`](Self::leave), and after.
    value: Option<MutexGuard<'a, T>>,
    /// The bits that this holder has set itself.
    held: u8,
}

impl<T, B, P> Entered<'_, T, B, P> {
    /// Frees the value, or says what is to be done first. Not to be called again once it has been left.
    #[inline]
    pub(crate) fn leave(&mut self) -> Leave {
        self.value = None;
        let gate = &self.exclusive.gate;
        match gate.compare_exchange(self.held, 0, AcqRel, Acquire) {
            Ok(_) => Leave::Left { has_waiting: false },
            Err(gate) => self.leave_with_requests(gate),
        }
    }

    #[cold]
    fn leave_with_requests(&mut self, mut gate: u8) -> Leave {
        loop {
            let (after, left) = match gate & (MAIL | FLUSH | HAND_OVER) {
                0 => {
                    let has_waiting = gate & WAITING != 0;
                    (0, Leave::Left { has_waiting })
                }
                asked => {
                    let requests = Requests {
                        mail: asked & MAIL != 0,
                        flush: asked & FLUSH != 0,
                        hand_over: asked & HAND_OVER != 0,
                    };
                    (gate & !asked, Leave::Requested(requests))
                }
            };
            match self.exclusive.gate.compare_exchange_weak(gate, after, AcqRel, Acquire) {
                Ok(_) => {
                    if after != 0 {
                        self.value = Some(lock(&self.exclusive.value));
                    }
                    return left;
                }
                Err(now) => gate = now,
            }
        }
    }
}

impl<T, B, P> Deref for Entered<'_, T, B, P> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("the value has not been left")
    }
}

impl<T, B, P> DerefMut for Entered<'_, T, B, P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("the value has not been left")
    }
}
