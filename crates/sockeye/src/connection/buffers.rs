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

/// How many buffers of each kind a thread keeps, but for small ones to write. One is enough while tasks run one after the
/// other; more serve connections that hold theirs across an await.
const KEPT_MAX: usize = 4;

/// A broadcast gives a write buffer to every connection at the same moment, and all come back together. So a thread keeps
/// many of up to 2 KiB, 2 MiB in all: in an allocator they would be memory given back to the system, and asked for
/// again with the next message.
const SMALL_LEN_MAX: usize = 2 * 1024;
const SMALL_KEPT_MAX: usize = 1024;

/// The buffers of messages that are larger than this come back when these are dropped, and a thread keeps so many bytes
/// of them. An allocator gives as much back to the system, and each page of it is a fault the next time: for messages
/// of 2 to 16 MiB these were a third to a half of all that an echo cost.
const LARGE_ABOVE: usize = 1024 * 1024;
const LARGE_KEPT_LEN_MAX: usize = 32 * 1024 * 1024;

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
    small_write: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    /// The capacity of all that is in `large`.
    large_len: usize,
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
    give(|pool| {
        if pool.read.len() < KEPT_MAX {
            pool.read.push(buffer);
        }
    });
}

/// A connection may be dropped when the thread ends and its pool is gone: then its buffers go with it.
fn give(give_to: impl FnOnce(&mut Pool)) {
    let _ = POOL.try_with(|pool| give_to(&mut pool.borrow_mut()));
}

/// An empty buffer to write to.
pub(super) fn take_write() -> Vec<u8> {
    POOL.with_borrow_mut(|pool| pool.write.pop().or_else(|| pool.small_write.pop()))
        .unwrap_or_default()
}

/// Gives back a buffer of [`take_write`].
pub(super) fn give_write(mut buffer: Vec<u8>) {
    buffer.clear();
    if buffer.capacity() == 0 || buffer.capacity() > WRITE_BUFFER_KEPT_MAX {
        return;
    }
    give(|pool| {
        let (kept, kept_max) = match buffer.capacity() {
            ..=SMALL_LEN_MAX => (&mut pool.small_write, SMALL_KEPT_MAX),
            _ => (&mut pool.write, KEPT_MAX),
        };
        if kept.len() < kept_max {
            kept.push(buffer);
        }
    });
}

/// The bytes of a large message, whose buffer goes to the thread that drops it.
pub(super) struct Large(Vec<u8>);

impl Large {
    /// Takes the bytes if the buffer is large enough to be worth it, else gives them back.
    pub(super) fn of(bytes: Vec<u8>) -> Result<Self, Vec<u8>> {
        match bytes.capacity() > LARGE_ABOVE {
            true => Ok(Self(bytes)),
            false => Err(bytes),
        }
    }
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        give(|pool| {
            let kept_len = pool.large_len + buffer.capacity();
            if kept_len <= LARGE_KEPT_LEN_MAX {
                pool.large_len = kept_len;
                pool.large.push(buffer);
            }
        });
    }
}

/// Moves a message that will have `len` bytes to a buffer of an earlier one, if one is kept that has room for all of it
/// and is not more than twice as large.
pub(super) fn move_to_kept(message: &mut Vec<u8>, len: usize) {
    if len <= LARGE_ABOVE || message.capacity() >= len {
        return;
    }
    let kept = POOL.with_borrow_mut(|pool| {
        let fits = |buffer: &Vec<u8>| buffer.capacity() >= len && buffer.capacity() / 2 <= len;
        let pos = pool.large.iter().rposition(fits)?;
        let kept = pool.large.swap_remove(pos);
        pool.large_len -= kept.capacity();
        Some(kept)
    });
    if let Some(mut kept) = kept {
        kept.extend_from_slice(message);
        *message = kept;
    }
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
            Vec::with_capacity(READ_BUFFER_LEN)
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
    fn a_large_message_moves_to_the_buffer_of_an_earlier_one() {
        const MIB: usize = 1 << 20;
        let of = |len: usize| Large::of(Vec::with_capacity(len));
        assert!(of(MIB).is_err());
        // The third is too much, wherever it is dropped.
        for len in [16 * MIB, 15 * MIB, 2 * MIB] {
            drop(of(len));
        }
        let room_after_moving = |len: usize| {
            let mut message = vec![7; 1000];
            move_to_kept(&mut message, len);
            assert_eq!(message, [7; 1000]);
            message.capacity()
        };
        for len in [MIB, 7 * MIB, 17 * MIB] {
            assert_eq!(room_after_moving(len), 1000);
        }
        assert_eq!(room_after_moving(8 * MIB), 15 * MIB);
        assert_eq!(room_after_moving(8 * MIB), 16 * MIB);
        assert_eq!(room_after_moving(8 * MIB), 1000);
        // There is room again, and what has enough stays where it is.
        drop(of(16 * MIB));
        let mut message = Vec::with_capacity(16 * MIB);
        let place = message.as_ptr();
        move_to_kept(&mut message, 16 * MIB);
        assert_eq!(message.as_ptr(), place);
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
