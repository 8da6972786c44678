//! Locks that stay usable after a panic elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, poisoned or not.
///
/// Every structure behind a lock here is whole between any two statements, so what a panicking task left is as good as
/// what it found; refusing it would turn one broken connection into a broken server.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
