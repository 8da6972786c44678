//! An allocator that counts the current, peak and total memory of Rust code.
//!
//! A target runs on one thread; the counters are atomic only because an allocator must be `Sync`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ASKED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call is forwarded unchanged to the system allocator; counting only accesses the counters.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller upholds the contract of , which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller upholds the contract of , which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: the caller upholds the contract of , which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        // SAFETY: the caller upholds the contract of , which is the same.
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

/// Measures allocations since its creation.
#[derive(Debug)]
pub struct Meter {
    held: usize,
    asked: usize,
}

impl Meter {
    /// Starts measuring. Use only one meter at a time.
    #[must_use]
    pub fn start() -> Self {
        let held = HELD.load(Relaxed);
        PEAK.store(held, Relaxed);
        Self {
            held,
            asked: ASKED.load(Relaxed),
        }
    }

    /// Peak memory minus the memory at the start, in bytes.
    #[must_use]
    pub fn peak(&self) -> usize {
        PEAK.load(Relaxed) - self.held
    }

    /// Total size of all allocations, in bytes, whether freed or not. Includes the cost of growing buffers.
    #[must_use]
    pub fn asked(&self) -> usize {
        ASKED.load(Relaxed) - self.asked
    }
}
