//! Allocations of the whole process, counted by the allocator.
//!
//! Each test binary that counts declares this module itself, because a program has only one global allocator.
#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static COUNTERS_IN_USE: Mutex<()> = Mutex::new(());

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) {
    let live = LIVE.fetch_add(change, Ordering::Relaxed) + change;
    if change > 0 {
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

// SAFETY: every call is forwarded to `System` unchanged, which fulfils the contract; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        count(layout.size() as isize);
        // SAFETY: the caller's guarantee is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's guarantee is passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's guarantee is passed on.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocations {
    pub(crate) allocations: usize,
    /// The peak number of allocated bytes, minus those allocated before.
    pub(crate) memory_max: usize,
}

/// Counts the allocations while `future` runs.
pub(crate) async fn count_during<F: Future<Output = ()>>(future: F) -> Allocations {
    let (allocations, live) = (ALLOCATIONS.load(Ordering::Relaxed), LIVE.load(Ordering::Relaxed));
    PEAK.store(live, Ordering::Relaxed);
    future.await;
    Allocations {
        allocations: ALLOCATIONS.load(Ordering::Relaxed) - allocations,
        memory_max: usize::try_from(PEAK.load(Ordering::Relaxed) - live).unwrap_or(0),
    }
}

/// Excludes all other counting tests of this process until it is dropped.
pub(crate) fn lock_counters() -> MutexGuard<'static, ()> {
    COUNTERS_IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}
