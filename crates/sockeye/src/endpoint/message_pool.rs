//! A process-wide pool of buffers for large messages.
//!
//! Allocators return the memory of a freed large message to the system, so that the next one causes a page fault for
//! each page: for messages of 2 to 16 MiB that was a third to a half of the cost of an echo. For 1 MiB, growing a
//! buffer that could not grow in place was nearly a third. Therefore a message's buffer returns to this pool when its
//! last clone is dropped, on any thread, and a later message is received into it.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;

use crate::sync::lock;

const MIB: usize = 1024 * 1024;

/// Smaller messages use the allocator.
const POOLED_ABOVE: usize = MIB / 2;

/// Maximum total size in MiB of idle buffers and of buffers leased to messages that are still arriving. So all
/// connections together hold at most this much for messages that peers announce and do not send.
const KEPT_MIB_MAX: usize = 32;

static POOL: Mutex<Pool> = Mutex::new(Pool {
    idle: VecDeque::new(),
    idle_len: 0,
    leased_len: 0,
});

/// Sizes are in MiB.
struct Pool {
    /// Idle buffers, newest last.
    idle: VecDeque<Vec<u8>>,
    idle_len: usize,
    leased_len: usize,
}

impl Pool {
    /// Takes the newest buffer that has room for `len` bytes and is at most twice as large.
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| buffer.capacity() >= len && buffer.capacity() / 2 <= len;
        let pos = self.idle.iter().rposition(fits)?;
        let buffer = self.idle.remove(pos)?;
        self.idle_len -= mib(&buffer);
        self.leased_len += mib(&buffer);
        Some(buffer)
    }

    /// Adds a buffer, and removes the oldest ones if necessary. The caller frees the returned buffers after unlocking
    /// the pool.
    fn put(&mut self, buffer: Vec<u8>) -> Vec<Vec<u8>> {
        let mut freed = Vec::new();
        let len = mib(&buffer);
        if self.leased_len + len > KEPT_MIB_MAX {
            freed.push(buffer);
            return freed;
        }
        while self.leased_len + self.idle_len + len > KEPT_MIB_MAX
            && let Some(oldest) = self.idle.pop_front()
        {
            self.idle_len -= mib(&oldest);
            freed.push(oldest);
        }
        self.idle_len += len;
        self.idle.push_back(buffer);
        freed
    }
}

fn mib(buffer: &Vec<u8>) -> usize {
    buffer.capacity().div_ceil(MIB)
}

/// The size of the pooled buffer into which a message is being received, in MiB; 0 if none. One byte, because every
/// connection holds it.
#[derive(Default)]
pub(super) struct Lease(u8);

impl Lease {
    /// Moves a message of at least `len` bytes into a pooled buffer, if its own buffer is too small and one fits.
    pub(super) fn acquire_for(&mut self, message: &mut Vec<u8>, len: usize) {
        if len <= POOLED_ABOVE || message.capacity() >= len {
            return;
        }
        self.release();
        let leased = lock(&POOL).take(len);
        if let Some(mut buffer) = leased {
            self.0 = mib(&buffer) as u8;
            buffer.extend_from_slice(message);
            *message = buffer;
        }
    }

    /// Must be called when the message is complete or abandoned.
    pub(super) fn release(&mut self) {
        let len = std::mem::take(&mut self.0);
        if len > 0 {
            lock(&POOL).leased_len -= usize::from(len);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
    }
}

/// The bytes of a message. Dropping the last clone returns a large buffer to the pool.
pub(super) fn share(bytes: Vec<u8>) -> Bytes {
    match bytes.capacity() > POOLED_ABOVE {
        true => Bytes::from_owner(PooledBytes(bytes)),
        false => bytes.into(),
    }
}

struct PooledBytes(Vec<u8>);

impl AsRef<[u8]> for PooledBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for PooledBytes {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        let freed = lock(&POOL).put(buffer);
        drop(freed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool_with(lens: &[usize]) -> Pool {
        let mut pool = Pool {
            idle: VecDeque::new(),
            idle_len: 0,
            leased_len: 0,
        };
        for len in lens {
            assert!(pool.put(Vec::with_capacity(len * MIB)).is_empty());
        }
        pool
    }

    fn lens(buffers: impl IntoIterator<Item = Vec<u8>>) -> Vec<usize> {
        buffers.into_iter().map(|buffer| mib(&buffer)).collect()
    }

    #[test]
    fn newest_fitting_buffer_is_leased() {
        let mut pool = pool_with(&[3, 2, 16, 4]);
        assert_eq!(pool.take(9 * MIB).map(|buffer| mib(&buffer)), Some(16));
        assert_eq!(pool.take(9 * MIB), None);
        assert_eq!(pool.take(MIB + 1).map(|buffer| mib(&buffer)), Some(2));
        assert_eq!(pool.take(2 * MIB).map(|buffer| mib(&buffer)), Some(4));
        assert_eq!(lens(pool.idle), [3]);
        assert_eq!((pool.idle_len, pool.leased_len), (3, 22));
    }

    #[test]
    fn oldest_buffers_are_evicted_and_leases_stay_counted() {
        let mut pool = pool_with(&[2; 16]);
        assert_eq!(lens(pool.put(Vec::with_capacity(16 * MIB))), [2; 8]);
        assert_eq!(lens(pool.put(Vec::with_capacity(33 * MIB))), [33]);
        assert!(pool.take(16 * MIB).is_some());
        assert_eq!(lens(pool.put(Vec::with_capacity(17 * MIB))), [17]);
        assert_eq!(lens(pool.put(Vec::with_capacity(16 * MIB))), [2; 8]);
        assert_eq!(lens(pool.idle), [16]);
        assert_eq!((pool.idle_len, pool.leased_len), (16, 16));
    }
}
