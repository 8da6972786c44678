//! Synchronization primitives of the hand-written wake-up protocols.
//!
//! The protocols ([`try_lock`](crate::websocket::try_lock), [`wakers`](crate::websocket::wakers), [`batch`](crate::websocket::batch)) use nothing else of
//! `std::sync` than what is named here. `tests/models.rs` compiles the same files with loom's types in this place and
//! checks every interleaving.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicUsize};
pub(crate) use std::sync::{Mutex, MutexGuard};

use std::sync::PoisonError;

/// Locks a mutex, whether or not a thread panicked while it held it: every critical section leaves the data valid at each
/// point where it can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
