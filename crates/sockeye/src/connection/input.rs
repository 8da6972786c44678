//! What was received, and is not delivered yet.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use sockeye_proto::Instant;
use tokio::io::AsyncReadExt;

use super::carrier::Carrier;
use super::large::Loan;
use super::{buffers, clock};

/// Received bytes that are not delivered yet.
#[derive(Default)]
pub(super) struct Input {
    pub(super) buffer: Vec<u8>,
    /// How much of it is delivered. A receive buffer is small.
    pub(super) pos: u32,
    /// When they were read.
    pub(super) at: Instant,
    /// Whether `buffer` is counted among those that are held.
    is_counted: bool,
    /// Of a buffer to the message that is arriving, which is not this one's.
    pub(super) loan: Loan,
}

impl Input {
    pub(super) fn of(buffer: Vec<u8>, at: Instant) -> Self {
        Self {
            buffer,
            at,
            ..Self::default()
        }
    }

    #[inline]
    pub(super) fn is_delivered(&self) -> bool {
        self.pos as usize >= self.buffer.len()
    }

    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.pos as usize..]
    }

    /// Reads into a buffer of the thread's; keeps it only if something was read.
    pub(super) fn poll_fill(
        &mut self,
        io: &mut Carrier,
        len_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.buffer.capacity() == 0, "released when all was delivered");
        let mut buffer = match len_max {
            buffers::READ_BUFFER_LEN.. => buffers::take_read(),
            _ => Vec::with_capacity(len_max),
        };
        let read = pin!(io.read_buf(&mut (&mut buffer).limit(len_max))).poll(cx);
        if let Poll::Ready(Ok(1..)) = read {
            (self.buffer, self.at) = (buffer, clock::now());
        } else if buffer.capacity() >= buffers::READ_BUFFER_LEN {
            buffers::give_read(buffer);
        }
        read
    }

    /// Decides what becomes of the buffer while the message that was just taken out of it is with the user: it goes
    /// back if that was all, and is held while there is more, if not too many are.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.is_delivered() {
            self.release();
        } else if !self.is_counted && self.is_of_thread() {
            self.hold();
        }
    }

    /// Keeps the thread's buffer, or a copy of what is not delivered yet.
    #[cold]
    fn hold(&mut self) {
        self.is_counted = buffers::hold();
        if !self.is_counted {
            let rest = self.buffer[self.pos as usize..].to_vec();
            self.release();
            self.buffer = rest;
        }
    }

    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.is_counted) {
            buffers::let_go();
        }
        let is_of_thread = self.is_of_thread();
        let buffer = std::mem::take(&mut self.buffer);
        self.pos = 0;
        if is_of_thread {
            buffers::give_read(buffer);
        }
    }

    /// Whether the buffer is one of the thread's, not a copy or what was glued to the handshake.
    fn is_of_thread(&self) -> bool {
        self.buffer.capacity() >= buffers::READ_BUFFER_LEN
    }
}
