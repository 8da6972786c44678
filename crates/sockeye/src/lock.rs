//! Locks that survive a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic leaves what is locked here as it was between two calls.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
