//! Locking, and the synchronization primitives of the hand-written wake-up protocols.
//!
//! The modules [`try_lock`](crate::websocket::try_lock), [`wakers`](crate::websocket::wakers) and
//! [`batch`](crate::websocket::batch) import their primitives from here and never from `std::sync`. `tests/models.rs`
//! compiles the same files with loom's types instead, and checks every interleaving.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicUsize};
pub(crate) use std::sync::{Mutex, MutexGuard};

use std::sync::PoisonError;

/// Locks a mutex and ignores poisoning: every critical section keeps the data valid wherever it can panic. With this
/// function, the mutex of `std` is as simple to use as that of `parking_lot`, so the library has one dependency less.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
