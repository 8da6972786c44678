//! A pool of buffers of large messages, shared by the process.
//!
//! Allocators return the memory of a large message to the system when it is freed, and then each page of the next message is a
//! page fault: for messages of 2 to 16 MiB that was a third to a half of the cost of an echo. For 1 MiB, growing a buffer that
//! could not grow in place was nearly a third. So the buffer of a message is returned to the pool when its last clone is
//! dropped, on any thread, and a later message is received into it.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;

use crate::sync::lock;

const MIB: usize = 1024 * 1024;

/// Messages up to this size are left to the allocator.
const LARGE_ABOVE: usize = MIB / 2;

/// The total size at most, in MiB: of buffers that wait for a message, and of those that are leased to messages which are still
/// arriving. All connections together hold no more than this for messages that peers declare and do not send.
const KEPT_MAX: usize = 32;

static POOL: Mutex<Pool> = Mutex::new(Pool {
    waiting: VecDeque::new(),
    waiting_len: 0,
    leased_len: 0,
});

/// Lengths are in MiB.
struct Pool {
    /// The newest last.
    waiting: VecDeque<Vec<u8>>,
    waiting_len: usize,
    leased_len: usize,
}

impl Pool {
    /// Takes the newest buffer that has room for `len` bytes and is at most twice as large.
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| buffer.capacity() >= len && buffer.capacity() / 2 <= len;
        let pos = self.waiting.iter().rposition(fits)?;
        let buffer = self.waiting.remove(pos)?;
        self.waiting_len -= mib(&buffer);
        self.leased_len += mib(&buffer);
        Some(buffer)
    }

    /// Keeps a buffer, in place of the oldest ones if necessary. Returns the buffers that the caller frees after it has unlocked
    /// the pool.
    fn put(&mut self, buffer: Vec<u8>) -> Vec<Vec<u8>> {
        let mut freed = Vec::new();
        let len = mib(&buffer);
        if self.leased_len + len > KEPT_MAX {
            freed.push(buffer);
            return freed;
        }
        while self.leased_len + self.waiting_len + len > KEPT_MAX
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.waiting_len -= mib(&oldest);
            freed.push(oldest);
        }
        self.waiting_len += len;
        self.waiting.push_back(buffer);
        freed
    }
}

fn mib(buffer: &Vec<u8>) -> usize {
    buffer.capacity().div_ceil(MIB)
}

/// The size of the pooled buffer into which a message is being received, in MiB; 0 if there is none. One byte, because every
/// connection has it.
#[derive(Default)]
pub(super) struct Lease(u8);

impl Lease {
    /// Moves a message that will have at least `len` bytes into a pooled buffer, if its own has no room and a pooled one fits.
    pub(super) fn acquire_for(&mut self, message: &mut Vec<u8>, len: usize) {
        if len <= LARGE_ABOVE || message.capacity() >= len {
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

    /// Must be called when the message has arrived or will not arrive.
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

/// The bytes of a message. A large buffer is returned to the pool when the last clone is dropped.
pub(super) fn share(bytes: Vec<u8>) -> Bytes {
    match bytes.capacity() > LARGE_ABOVE {
        true => Bytes::from_owner(Large(bytes)),
        false => bytes.into(),
    }
}

struct Large(Vec<u8>);

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Large {
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

    fn kept(lens: &[usize]) -> Pool {
        let mut kept = Pool {
            waiting: VecDeque::new(),
            waiting_len: 0,
            leased_len: 0,
        };
        for len in lens {
            assert!(kept.put(Vec::with_capacity(len * MIB)).is_empty());
        }
        kept
    }

    fn lens(buffers: impl IntoIterator<Item = Vec<u8>>) -> Vec<usize> {
        buffers.into_iter().map(|buffer| mib(&buffer)).collect()
    }

    #[test]
    fn the_newest_buffer_that_fits_is_lent() {
        let mut kept = kept(&[3, 2, 16, 4]);
        assert_eq!(kept.take(9 * MIB).map(|buffer| mib(&buffer)), Some(16));
        assert_eq!(kept.take(9 * MIB), None);
        assert_eq!(kept.take(MIB + 1).map(|buffer| mib(&buffer)), Some(2));
        assert_eq!(kept.take(2 * MIB).map(|buffer| mib(&buffer)), Some(4));
        assert_eq!(lens(kept.waiting), [3]);
        assert_eq!((kept.waiting_len, kept.leased_len), (3, 22));
    }

    #[test]
    fn the_oldest_make_room_and_what_is_lent_stays_counted() {
        let mut kept = kept(&[2; 16]);
        assert_eq!(lens(kept.put(Vec::with_capacity(16 * MIB))), [2; 8]);
        assert_eq!(lens(kept.put(Vec::with_capacity(33 * MIB))), [33]);
        assert!(kept.take(16 * MIB).is_some());
        assert_eq!(lens(kept.put(Vec::with_capacity(17 * MIB))), [17]);
        assert_eq!(lens(kept.put(Vec::with_capacity(16 * MIB))), [2; 8]);
        assert_eq!(lens(kept.waiting), [16]);
        assert_eq!((kept.waiting_len, kept.leased_len), (16, 16));
    }
}
