//! A pool of buffers for each thread.
//!
//! A connection holds a buffer only while there is something in it: received bytes that are not parsed yet, or bytes that the
//! kernel has not taken yet. An idle connection holds none. Busy connections of one thread reuse the same few buffers, which
//! therefore stay in the processor's cache.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The size of a receive buffer: a burst of 64 messages of 1 KiB and their headers arrives in one read, and it is a
/// small part of a second-level cache.
pub(super) const READ_BUFFER_LEN: usize = 128 * 1024;

/// A write buffer that grew beyond this is freed instead of kept.
const WRITE_BUFFER_KEPT_MAX: usize = 256 * 1024;

/// How many buffers of each kind a thread keeps, except small write buffers. One is enough while tasks run one after the other.
/// The others serve connections that hold theirs across an await.
const KEPT_MAX: usize = 4;

/// A broadcast gives a write buffer to every connection at the same moment, and all are returned together. So a thread keeps
/// many of up to 2 KiB, 2 MiB in total: otherwise each broadcast would free and allocate them again.
const SMALL_LEN_MAX: usize = 2 * 1024;
const SMALL_KEPT_MAX: usize = 1024;

/// How many receive buffers, of all threads, connections may retain while their messages wait to be received: 32 MiB. Beyond
/// this, a connection copies its unparsed bytes and returns the buffer. Without the limit, a peer could make a slow application
/// hold 128 KiB with two small messages.
const RETAINED_MAX: usize = 256;

/// How many receive buffers are retained.
static RETAINED: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct Pool {
    read: Vec<Vec<u8>>,
    write: Vec<Vec<u8>>,
    small_write: Vec<Vec<u8>>,
}

thread_local! {
    /// The buffer of each kind that was returned last. Mostly this one is enough, and it is found faster than in a list.
    static NEWEST_READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static NEWEST_WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static NEWEST_ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Counts a receive buffer that a connection retains while its messages wait. Returns `false` if too many are retained: the
/// connection keeps a copy instead.
pub(super) fn try_retain() -> bool {
    let may = RETAINED.fetch_add(1, Ordering::Relaxed) < RETAINED_MAX;
    if !may {
        release_retained();
    }
    may
}

/// Must be called when a buffer that [`try_retain`] counted is released.
pub(super) fn release_retained() {
    RETAINED.fetch_sub(1, Ordering::Relaxed);
}

/// A receive buffer of [`READ_BUFFER_LEN`] bytes. It is zeroed only once, so it holds bytes that other connections have
/// received: callers look only at what a read has written, and pass it only to a transport that never looks at it. All others
/// get [`take_room`].
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

/// An empty receive buffer with a capacity of [`READ_BUFFER_LEN`] bytes. Its old content cannot be read.
pub(super) fn take_room() -> Vec<u8> {
    let newest = NEWEST_ROOM.take();
    match newest.capacity() {
        0 => Vec::with_capacity(READ_BUFFER_LEN),
        _ => newest,
    }
}

/// Returns a buffer of [`take_room`].
pub(super) fn give_room(mut room: Vec<u8>) {
    room.clear();
    let _ = NEWEST_ROOM.try_with(|newest| newest.set(room));
}

/// Returns a buffer of [`take_read`].
#[inline]
pub(super) fn give_read(buffer: Vec<u8>) {
    match NEWEST_READ.try_with(|newest| newest.replace(buffer)) {
        Ok(older) if older.capacity() > 0 => give_older_read(older),
        _ => {}
    }
}

#[cold]
fn give_older_read(buffer: Vec<u8>) {
    give(|pool| {
        if pool.read.len() < KEPT_MAX - 1 {
            pool.read.push(buffer);
        }
    });
}

/// A connection may be dropped while the thread ends and its pool is gone. Then its buffers are freed.
fn give(give_to: impl FnOnce(&mut Pool)) {
    let _ = POOL.try_with(|pool| give_to(&mut pool.borrow_mut()));
}

/// An empty buffer to write to.
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

/// Returns a buffer of [`take_write`].
#[inline]
pub(super) fn give_write(mut buffer: Vec<u8>) {
    buffer.clear();
    if buffer.capacity() == 0 || buffer.capacity() > WRITE_BUFFER_KEPT_MAX {
        return;
    }
    match NEWEST_WRITE.try_with(|newest| newest.replace(buffer)) {
        Ok(older) if older.capacity() > 0 => give_older_write(older),
        _ => {}
    }
}

#[cold]
fn give_older_write(buffer: Vec<u8>) {
    give(|pool| {
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
    fn buffers_may_come_back_when_the_thread_ends() {
        struct Last;
        impl Drop for Last {
            fn drop(&mut self) {
                give_read(take_some());
                give_write(take_some());
            }
        }
        fn take_some() -> Vec<u8> {
            vec![0; READ_BUFFER_LEN]
        }
        thread_local! {
            static LAST: Last = const { Last };
        }
        // Whichever of the two is dropped first.
        for is_pool_first in [true, false] {
            let thread = std::thread::spawn(move || {
                if is_pool_first {
                    give_write(take_some());
                }
                LAST.with(|_| {});
                give_write(take_some());
            });
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_thread_keeps_the_small_buffers_of_a_broadcast_and_few_others() {
        for (len, kept_max) in [(1, 1024), (2048, 1024), (2049, 4), (256 * 1024, 4), (256 * 1024 + 1, 0)] {
            (0..1500).for_each(|_| give_write(Vec::with_capacity(len)));
            let kept = std::iter::from_fn(|| Some(take_write()).filter(|buffer| buffer.capacity() > 0));
            assert_eq!(kept.count(), kept_max, "{len}");
        }
    }
}
