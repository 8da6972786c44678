//! A thread-local pool of read and write buffers.
//!
//! A connection holds a buffer only while it has unparsed input or unwritten output; an idle connection holds none.
//! Busy connections of one thread reuse the same few buffers, which therefore stay in the processor's cache.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Size of a read buffer. A burst of 64 messages of 1 KiB fits into one read, and the buffer is a small part of a
/// second-level cache.
pub(super) const READ_BUFFER_LEN: usize = 128 * 1024;

/// A write buffer with a larger capacity is freed instead of pooled.
const WRITE_BUFFER_KEPT_MAX: usize = 256 * 1024;

/// Maximum number of pooled buffers of each kind per thread, except small write buffers. Tasks that run one after the
/// other need only one. The others serve connections that hold theirs across an await.
const KEPT_MAX: usize = 4;

/// Limits of the pool of small write buffers, 2 MiB in total. A broadcast takes a write buffer for every connection at
/// once, and all are returned together. A smaller pool would free and allocate them for each broadcast.
const SMALL_LEN_MAX: usize = 2 * 1024;
const SMALL_KEPT_MAX: usize = 1024;

/// Maximum number of read buffers that connections of all threads retain while their messages wait to be received: 32
/// MiB. Beyond it, a connection copies its unparsed bytes and returns the buffer. Without the limit, a peer could make
/// a slow application hold 128 KiB with two small messages.
const RETAINED_MAX: usize = 256;

/// Number of retained read buffers.
static RETAINED: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct Pool {
    read: Vec<Vec<u8>>,
    write: Vec<Vec<u8>>,
    small_write: Vec<Vec<u8>>,
}

thread_local! {
    /// The most recently returned buffer of each kind. Faster to take than from the list, and usually sufficient.
    static NEWEST_READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static NEWEST_WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static NEWEST_EMPTY_READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Counts a read buffer that a connection retains while its messages wait. Returns `false` if too many are retained:
/// the connection must copy its bytes instead.
pub(super) fn try_retain() -> bool {
    let has_room = RETAINED.fetch_add(1, Ordering::Relaxed) < RETAINED_MAX;
    if !has_room {
        release_retained();
    }
    has_room
}

/// Must be called when a buffer counted by [`try_retain`] is released.
pub(super) fn release_retained() {
    RETAINED.fetch_sub(1, Ordering::Relaxed);
}

/// Takes a read buffer of [`READ_BUFFER_LEN`] bytes. It is zeroed only once, so it contains bytes that other
/// connections have received. Callers must only use what a read has written, and only pass it to transports that never
/// inspect it. For other transports use [`take_empty_read`].
#[inline]
pub(super) fn take_read() -> Vec<u8> {
    let newest = NEWEST_READ.take();
    match newest.capacity() {
        0 => take_older_read(),
        _ => newest,
    }
}

#[cold]
fn take_older_read() -> Vec<u8> {
    let kept = POOL.with_borrow_mut(|pool| pool.read.pop());
    kept.unwrap_or_else(|| vec![0; READ_BUFFER_LEN])
}

/// Takes an empty read buffer with a capacity of [`READ_BUFFER_LEN`] bytes. Its old content cannot be read.
pub(super) fn take_empty_read() -> Vec<u8> {
    let newest = NEWEST_EMPTY_READ.take();
    match newest.capacity() {
        0 => Vec::with_capacity(READ_BUFFER_LEN),
        _ => newest,
    }
}

/// Returns a buffer taken with [`take_empty_read`].
pub(super) fn return_empty_read(mut buffer: Vec<u8>) {
    buffer.clear();
    let _ = NEWEST_EMPTY_READ.try_with(|newest| newest.set(buffer));
}

/// Returns a buffer taken with [`take_read`].
#[inline]
pub(super) fn return_read(buffer: Vec<u8>) {
    match NEWEST_READ.try_with(|newest| newest.replace(buffer)) {
        Ok(older) if older.capacity() > 0 => return_older_read(older),
        _ => {}
    }
}

#[cold]
fn return_older_read(buffer: Vec<u8>) {
    with_pool(|pool| {
        if pool.read.len() < KEPT_MAX - 1 {
            pool.read.push(buffer);
        }
    });
}

/// Returns a buffer to the pool. Frees it if the thread is exiting and has already dropped its pool.
fn with_pool(put: impl FnOnce(&mut Pool)) {
    let _ = POOL.try_with(|pool| put(&mut pool.borrow_mut()));
}

/// Takes an empty write buffer.
#[inline]
pub(super) fn take_write() -> Vec<u8> {
    let newest = NEWEST_WRITE.take();
    match newest.capacity() {
        0 => take_older_write(),
        _ => newest,
    }
}

#[cold]
fn take_older_write() -> Vec<u8> {
    POOL.with_borrow_mut(|pool| pool.write.pop().or_else(|| pool.small_write.pop()))
        .unwrap_or_default()
}

/// Returns a buffer taken with [`take_write`].
#[inline]
pub(super) fn return_write(mut buffer: Vec<u8>) {
    buffer.clear();
    if buffer.capacity() == 0 || buffer.capacity() > WRITE_BUFFER_KEPT_MAX {
        return;
    }
    match NEWEST_WRITE.try_with(|newest| newest.replace(buffer)) {
        Ok(older) if older.capacity() > 0 => return_older_write(older),
        _ => {}
    }
}

#[cold]
fn return_older_write(buffer: Vec<u8>) {
    with_pool(|pool| {
        let (kept, kept_max) = match buffer.capacity() {
            ..=SMALL_LEN_MAX => (&mut pool.small_write, SMALL_KEPT_MAX - 1),
            _ => (&mut pool.write, KEPT_MAX - 1),
        };
        if kept.len() < kept_max {
            kept.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_can_be_returned_while_the_thread_exits() {
        struct Last;
        impl Drop for Last {
            fn drop(&mut self) {
                return_read(take_some());
                return_write(take_some());
            }
        }
        fn take_some() -> Vec<u8> {
            vec![0; READ_BUFFER_LEN]
        }
        thread_local! {
            static LAST: Last = const { Last };
        }
        // Covers both drop orders.
        for is_pool_first in [true, false] {
            let thread = std::thread::spawn(move || {
                if is_pool_first {
                    return_write(take_some());
                }
                LAST.with(|_| {});
                return_write(take_some());
            });
            thread.join().unwrap();
        }
    }

    #[test]
    fn thread_pools_many_small_buffers_and_few_others() {
        for (len, kept_max) in [(1, 1024), (2048, 1024), (2049, 4), (256 * 1024, 4), (256 * 1024 + 1, 0)] {
            (0..1500).for_each(|_| return_write(Vec::with_capacity(len)));
            let kept = std::iter::from_fn(|| Some(take_write()).filter(|buffer| buffer.capacity() > 0));
            assert_eq!(kept.count(), kept_max, "{len}");
        }
    }
}
