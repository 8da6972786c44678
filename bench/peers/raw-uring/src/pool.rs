//! Buffers that the kernel selects when bytes arrive, and that are returned after their contents have been sent.
//!
//! Buffers are consumed incrementally: bytes that arrive next, on any connection, are placed directly after the last
//! ones. Small messages of many connections share a few pages, and a long message gets a long buffer.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::{BufRingEntry, IOU_PBUF_RING_INC};

/// The buffer group id.
pub(crate) const GROUP: u16 = 0;

/// A power of two, as the kernel requires. All buffers are used in turn, so together (1 MiB) they should fit into the
/// processor's cache.
const BUFFERS: u16 = 32;
const BUFFER_SIZE: u32 = 32 * 1024;

/// All buffers, and the ring in which the kernel finds the free ones. Both are never freed, because the kernel may
/// access them.
pub(crate) struct Pool {
    bytes: NonNull<u8>,
    ring: NonNull<BufRingEntry>,
    /// Number of buffers ever added to the ring.
    tail: u16,
    buffers: Vec<Buffer>,
}

#[derive(Clone, Copy, Default)]
struct Buffer {
    /// Number of bytes received into this buffer.
    filled: u32,
    /// Number of pieces of this buffer that are not sent yet.
    pieces: u32,
    is_kernels: bool,
}

/// Received bytes to be sent.
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
        // SAFETY: the ring has room for this many entries and is never freed.
        unsafe { submitter.register_buf_ring_with_flags(ring, BUFFERS, GROUP, IOU_PBUF_RING_INC as u16) }?;
        for buffer in 0..BUFFERS {
            pool.provide(buffer);
        }
        Ok(pool)
    }

    /// Whether the kernel has a free buffer.
    pub(crate) fn has_room(&self) -> bool {
        self.buffers.iter().any(|buffer| buffer.is_kernels)
    }

    /// Records a receive, and whether the kernel continues in the same buffer. Bytes directly after the last piece
    /// extend it.
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

    /// The memory of a piece.
    pub(crate) fn address(&self, piece: &Piece) -> *mut u8 {
        let start = usize::from(piece.buffer) * BUFFER_SIZE as usize + piece.offset as usize;
        self.bytes.as_ptr().wrapping_add(start)
    }

    /// Releases a piece that was sent or will never be. The last piece of a buffer returns it to the kernel.
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
        // SAFETY: the index is within the ring. At most BUFFERS entries are in use, so the kernel has consumed the old
        // one and does not read this one before the tail moves; no other reference exists.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(whole.len);
        entry.set_bid(idx);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the argument is the first entry of the ring, initialised with zeros.
        let tail = unsafe { BufRingEntry::tail(self.ring.as_ptr()) };
        // SAFETY: the field is aligned, is never freed, and is written nowhere else: the setters above do not touch it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeroed pages that are never freed.
fn allocate(size: usize) -> NonNull<u8> {
    const PAGE: usize = 4096;
    let layout = Layout::from_size_align(size, PAGE).expect("a few megabytes at a page");
    // SAFETY: the size is not zero.
    let start = unsafe { alloc_zeroed(layout) };
    NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout))
}
