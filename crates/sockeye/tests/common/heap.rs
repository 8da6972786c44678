//! Heap memory, counted by the allocator for each thread; each test runs on one thread.
//!
//! Each test binary that counts declares this module itself, because a program has only one global allocator.
#![allow(unsafe_code, reason = "an allocator cannot be written without")]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) {
    // A thread that exits has no counter any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = PEAK.try_with(|most| most.set(most.get().max(live.get())));
    });
}

// SAFETY: every call is forwarded to `System` unchanged, which fulfils the contract; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
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
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's guarantee is passed on.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// The number of allocated bytes.
pub(crate) fn live() -> isize {
    LIVE.get()
}

/// The number of bytes that dropping `value` frees.
pub(crate) fn held_by<T>(value: T) -> usize {
    let before = live();
    drop(value);
    usize::try_from(before - live()).unwrap()
}

/// The peak number of bytes allocated while `future` ran, minus those allocated before.
pub(crate) async fn peak_during<F: Future>(future: F) -> (F::Output, usize) {
    let begin = live();
    PEAK.set(begin);
    let output = future.await;
    (output, usize::try_from(PEAK.get() - begin).unwrap())
}
