//! Buffers that belong to the thread.
//!
//! A connection holds a buffer only while there is something in it: received bytes that are not delivered yet, or
//! bytes that the kernel has not taken yet. An idle connection holds none, and busy connections of one thread use the
//! same few buffers again and again, so these stay in the processor's cache.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The size of a receive buffer: a burst of 64 messages of 1 KiB and their headers arrives in one read, and it is a
/// small part of a second-level cache.
pub(super) const READ_BUFFER_LEN: usize = 128 * 1024;

/// A write buffer that grew beyond this is freed instead of kept.
const WRITE_BUFFER_KEPT_MAX: usize = 256 * 1024;

/// How many buffers of each kind a thread keeps. One is enough while tasks run one after the other; more serve
/// connections that hold theirs across an await.
const KEPT_MAX: usize = 4;

/// How many receive buffers, of all threads, connections may hold while their messages wait to be taken; 32 MiB. From
/// then on a connection that waits keeps a copy of what it has instead. Without this, a peer would make a slow
/// application hold 128 KiB with two small messages.
const HELD_MAX: usize = 256;

/// How many receive buffers are held.
static HELD: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct Pool {
    read: Vec<Vec<u8>>,
    write: Vec<Vec<u8>>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Counts a receive buffer that a connection wants to keep while its user is busy; `false` if too many are kept, and
/// it is to keep a copy instead.
pub(super) fn hold() -> bool {
    let may = HELD.fetch_add(1, Ordering::Relaxed) < HELD_MAX;
    if !may {
        let_go();
    }
    may
}

/// A receive buffer is no longer kept.
pub(super) fn let_go() {
    HELD.fetch_sub(1, Ordering::Relaxed);
}

/// An empty buffer to receive into.
pub(super) fn take_read() -> Vec<u8> {
    let kept = POOL.with_borrow_mut(|pool| pool.read.pop());
    kept.unwrap_or_else(|| Vec::with_capacity(READ_BUFFER_LEN))
}

/// Gives back a buffer of [`take_read`].
pub(super) fn give_read(mut buffer: Vec<u8>) {
    buffer.clear();
    POOL.with_borrow_mut(|pool| {
        if pool.read.len() < KEPT_MAX {
            pool.read.push(buffer);
        }
    });
}

/// An empty buffer to write to.
pub(super) fn take_write() -> Vec<u8> {
    POOL.with_borrow_mut(|pool| pool.write.pop()).unwrap_or_default()
}

/// Gives back a buffer of [`take_write`].
pub(super) fn give_write(mut buffer: Vec<u8>) {
    buffer.clear();
    if buffer.capacity() == 0 || buffer.capacity() > WRITE_BUFFER_KEPT_MAX {
        return;
    }
    POOL.with_borrow_mut(|pool| {
        if pool.write.len() < KEPT_MAX {
            pool.write.push(buffer);
        }
    });
}
