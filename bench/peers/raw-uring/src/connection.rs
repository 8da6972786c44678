//! One connection: its pending data, and its operations in the kernel.

use std::collections::VecDeque;
use std::ptr;

use io_uring::squeue::Entry;
use io_uring::{opcode, types::Fixed};

use crate::pool::{Piece, Pool};

/// Maximum number of pieces per send.
const PIECES_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct Connection {
    /// Received pieces, oldest first.
    unsent: VecDeque<Piece>,
    /// Number of pieces being sent.
    sending: usize,
    /// The list of pieces for a vectored send.
    gather: Option<Box<Gather>>,
    pub(crate) is_receiving: bool,
    /// The peer has stopped sending, or sending to it failed.
    pub(crate) is_over: bool,
    /// The connection is queued for the end of this turn.
    pub(crate) is_listed: bool,
}

/// Memory that the kernel reads until the send is complete, and that must not move until then.
struct Gather {
    message: libc::msghdr,
    slices: [libc::iovec; PIECES_MAX],
}

impl Connection {
    pub(crate) fn is_sending(&self) -> bool {
        self.sending > 0
    }

    /// Records bytes that the kernel received.
    pub(crate) fn received(&mut self, pool: &mut Pool, buffer: u16, len: u32, is_going_on: bool) {
        // A piece that is being sent must not grow.
        let last = match self.unsent.len() > self.sending {
            true => self.unsent.back_mut(),
            false => None,
        };
        let piece = pool.fill(buffer, len, is_going_on, last);
        self.unsent.extend(piece);
    }

    /// The send operation for the pending pieces, if there are any.
    pub(crate) fn send(&mut self, slot: u32, pool: &Pool) -> Option<Entry> {
        const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let first = self.unsent.front()?;
        self.sending = self.unsent.len().min(PIECES_MAX);
        if self.sending == 1 {
            let send = opcode::Send::new(Fixed(slot), pool.address(first), first.len);
            return Some(send.flags(FLAGS).build());
        }
        let gather = self.gather.get_or_insert_with(Gather::new);
        for (slice, piece) in gather.slices.iter_mut().zip(&self.unsent) {
            *slice = libc::iovec {
                iov_base: pool.address(piece).cast(),
                iov_len: piece.len as usize,
            };
        }
        gather.message.msg_iov = gather.slices.as_mut_ptr();
        gather.message.msg_iovlen = self.sending;
        let send = opcode::SendMsg::new(Fixed(slot), &raw const gather.message);
        Some(send.flags(FLAGS as u32).build())
    }

    /// Handles a completed send: all pieces are sent (MSG_WAITALL) unless the connection is over.
    pub(crate) fn sent(&mut self, pool: &mut Pool, len: i32) {
        let sending = self.unsent.drain(..self.sending);
        let expected: u32 = sending.map(|piece| (piece.len, pool.release(piece)).0).sum();
        self.sending = 0;
        if u32::try_from(len) != Ok(expected) {
            self.is_over = true;
            self.unsent.drain(..).for_each(|piece| pool.release(piece));
        }
    }
}

impl Gather {
    fn new() -> Box<Self> {
        let slice = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        // SAFETY: an all-zero message header is valid: null pointers, lengths and flags of zero.
        let message = unsafe { std::mem::zeroed() };
        Box::new(Self {
            message,
            slices: [slice; PIECES_MAX],
        })
    }
}
