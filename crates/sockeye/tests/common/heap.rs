//! What is on the heap, counted by the allocator: of each thread its own, and each test is one thread.
//!
//! A test binary that counts has this as a module of its own, for there can be one allocator only.
#![allow(unsafe_code, reason = "an allocator cannot be written without")]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) {
    // A thread that ends has no counter any more, and nobody who asks.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = MOST.try_with(|most| most.set(most.get().max(live.get())));
    });
}

// SAFETY: every call goes to `System` as it came, which keeps the contract; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// How many bytes are allocated.
pub(crate) fn live() -> isize {
    LIVE.get()
}

/// How many bytes are freed with `value`.
pub(crate) fn held_by<T>(value: T) -> usize {
    let before = live();
    drop(value);
    usize::try_from(before - live()).unwrap()
}

/// How many bytes more than at its beginning were allocated at the most while `future` ran.
pub(crate) async fn most_during<F: Future>(future: F) -> (F::Output, usize) {
    let begin = live();
    MOST.set(begin);
    let output = future.await;
    (output, usize::try_from(MOST.get() - begin).unwrap())
}
