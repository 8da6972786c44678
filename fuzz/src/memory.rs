//! An allocator that counts what Rust code holds, has held at most, and has asked for in all.
//!
//! A target runs on one thread; the counters are atomic only because an allocator has to be shared.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ASKED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call is handed on to the system's allocator as it came; counting touches no memory but the counters.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        // SAFETY: the caller keeps the contract of `realloc`, which is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn note(gained: usize, lost: usize) {
    let held = HELD.load(Relaxed).wrapping_add(gained).wrapping_sub(lost);
    HELD.store(held, Relaxed);
    if held > PEAK.load(Relaxed) {
        PEAK.store(held, Relaxed);
    }
    ASKED.store(ASKED.load(Relaxed).wrapping_add(gained), Relaxed);
}

/// What was allocated since it was made.
#[derive(Debug)]
pub struct Meter {
    held: usize,
    asked: usize,
}

impl Meter {
    /// Begins to measure; one meter at a time.
    #[must_use]
    pub fn start() -> Self {
        let held = HELD.load(Relaxed);
        PEAK.store(held, Relaxed);
        Self {
            held,
            asked: ASKED.load(Relaxed),
        }
    }

    /// The most that was held at once, in bytes, beyond what was held at the start.
    #[must_use]
    pub fn peak(&self) -> usize {
        PEAK.load(Relaxed) - self.held
    }

    /// All that was asked for, in bytes, whether given back or not: what copying and growing cost.
    #[must_use]
    pub fn asked(&self) -> usize {
        ASKED.load(Relaxed) - self.asked
    }
}
