//! Buffers that the kernel takes by itself when bytes arrive, and that are given back when what they hold has been sent.
//!
//! They are consumed by bytes: what arrives next, on whatever connection, lies right behind what arrived last. Small
//! messages of many connections share a few pages so, and a long one finds a long buffer.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::{BufRingEntry, IOU_PBUF_RING_INC};

/// The group that the kernel knows them by.
pub(crate) const GROUP: u16 = 0;

/// A power of two, as the kernel's ring needs it. They are filled in turns, so all of them, 1 MiB, should stay in a
/// processor's cache.
const BUFFERS: u16 = 32;
const BUFFER_SIZE: u32 = 32 * 1024;

/// All of them, and the ring in which the kernel finds those that it may fill. Both stay until the process ends: so long
/// the kernel may touch them.
pub(crate) struct Pool {
    bytes: NonNull<u8>,
    ring: NonNull<BufRingEntry>,
    /// How many were ever put into the ring.
    tail: u16,
    buffers: Vec<Buffer>,
}

#[derive(Clone, Copy, Default)]
struct Buffer {
    /// How much of it has been received into.
    filled: u32,
    /// How many pieces of it are still to be sent.
    pieces: u32,
    is_kernels: bool,
}

/// Bytes that were received and are to be sent.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    buffer: u16,
    offset: u32,
    pub(crate) len: u32,
}

impl Pool {
    pub(crate) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let mut pool = Self {
            bytes: allocate(usize::from(BUFFERS) * BUFFER_SIZE as usize),
            ring: allocate(usize::from(BUFFERS) * size_of::<BufRingEntry>()).cast(),
            tail: 0,
            buffers: vec![Buffer::default(); usize::from(BUFFERS)],
        };
        let ring = pool.ring.as_ptr() as u64;
        // SAFETY: the ring has room for so many entries and is never freed.
        unsafe { submitter.register_buf_ring_with_flags(ring, BUFFERS, GROUP, IOU_PBUF_RING_INC as u16) }?;
        for buffer in 0..BUFFERS {
            pool.provide(buffer);
        }
        Ok(pool)
    }

    /// Whether the kernel has a buffer to fill.
    pub(crate) fn has_room(&self) -> bool {
        self.buffers.iter().any(|buffer| buffer.is_kernels)
    }

    /// Notes what the kernel says that it received, and whether it goes on in the same buffer. What lies right behind
    /// the last piece makes that one longer.
    pub(crate) fn fill(&mut self, idx: u16, len: u32, is_going_on: bool, last: Option<&mut Piece>) -> Option<Piece> {
        let buffer = &mut self.buffers[usize::from(idx)];
        let offset = buffer.filled;
        buffer.filled += len;
        buffer.is_kernels = is_going_on;
        match last {
            Some(last) if last.buffer == idx && last.offset + last.len == offset => {
                last.len += len;
                None
            }
            _ => {
                buffer.pieces += 1;
                Some(Piece {
                    buffer: idx,
                    offset,
                    len,
                })
            }
        }
    }

    /// Where a piece lies.
    pub(crate) fn address(&self, piece: &Piece) -> *mut u8 {
        let start = usize::from(piece.buffer) * BUFFER_SIZE as usize + piece.offset as usize;
        self.bytes.as_ptr().wrapping_add(start)
    }

    /// A piece was sent, or never will be; the last one of a buffer gives it back to the kernel.
    pub(crate) fn release(&mut self, piece: Piece) {
        let buffer = &mut self.buffers[usize::from(piece.buffer)];
        buffer.pieces -= 1;
        if buffer.pieces == 0 && !buffer.is_kernels {
            self.provide(piece.buffer);
        }
    }

    fn provide(&mut self, idx: u16) {
        self.buffers[usize::from(idx)] = Buffer {
            is_kernels: true,
            ..Buffer::default()
        };
        let whole = Piece {
            buffer: idx,
            offset: 0,
            len: BUFFER_SIZE,
        };
        let address = self.address(&whole) as u64;
        let place = usize::from(self.tail % BUFFERS);
        let entry = self.ring.as_ptr().wrapping_add(place);
        // SAFETY: the place is within the ring. No more than BUFFERS are ever in it, so the kernel has taken what was
        // there and does not look before the tail moves; and nobody else has a reference.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(whole.len);
        entry.set_bid(idx);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the argument is the first entry of the ring, which zeroes have initialised.
        let tail = unsafe { BufRingEntry::tail(self.ring.as_ptr()) };
        // SAFETY: the field is aligned, lives as long as the process, and is written through nothing else: the setters
        // above leave it alone.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeroed pages, which are never freed.
fn allocate(size: usize) -> NonNull<u8> {
    const PAGE: usize = 4096;
    let layout = Layout::from_size_align(size, PAGE).expect("a few megabytes at a page");
    // SAFETY: the size is not zero.
    let start = unsafe { alloc_zeroed(layout) };
    NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout))
}
