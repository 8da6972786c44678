//! What waits to be written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{Io, buffers};
use crate::message::Payload;

/// From this size on, a payload is written from where it lies instead of being copied behind its header.
pub(super) const BY_REFERENCE_MIN: usize = 16 * 1024;

/// How many bytes of control frames may wait in the buffer. A peer that sends pings in a burst gets a pong for each;
/// one that pings and does not read makes this much wait, and after that only its newest ping is answered.
const CONTROL_LEN_MAX: usize = 2 * 1024;

/// Besides the payload of a frame: its header, and the control frames that may come behind it.
const FRAME_ROOM: usize = 14 + CONTROL_LEN_MAX;

/// From this many written bytes on, those behind them are moved to the front of a buffer that does not become empty.
const COMPACT_FROM: usize = 32 * 1024;

/// Bytes in the order in which they are to leave: a buffer, and behind it at most one large payload.
#[derive(Debug, Default)]
pub(super) struct Output {
    buffer: Vec<u8>,
    /// How much of `buffer` is written.
    written: usize,
    /// Where in `buffer` the last control frame ends.
    control_end: usize,
    /// How many bytes of control frames came into `buffer` since all before them had left.
    control_len: usize,
    /// A payload whose header is the end of `buffer`, and how much of it is written. Boxed, for an idle connection has
    /// none.
    payload: Option<Box<(Payload, usize)>>,
    /// How many bytes were written since the connection began.
    written_total: u64,
    /// Whether the transport may still hold bytes that it took.
    unflushed: bool,
}

impl Output {
    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        let payload = self.payload.as_ref().map_or(0, |payload| payload.0.len() - payload.1);
        self.buffer.len() - self.written + payload
    }

    /// How many bytes were written since the connection began.
    pub(super) fn written_total(&self) -> u64 {
        self.written_total
    }

    /// How many bytes will have been written when all that waits now is.
    pub(super) fn end(&self) -> u64 {
        self.written_total + self.len() as u64
    }

    pub(super) fn is_drained(&self) -> bool {
        self.buffer.is_empty() && self.payload.is_none() && !self.unflushed
    }

    /// Whether frames may be appended now: not behind a large payload that has not left.
    pub(super) fn accepts_frames(&self) -> bool {
        self.payload.is_none()
    }

    /// The buffer to append frames to, unless a large payload must leave before anything may come behind it.
    #[inline]
    pub(super) fn buffer(&mut self) -> Option<&mut Vec<u8>> {
        if self.payload.is_some() {
            return None;
        }
        if self.buffer.capacity() == 0 {
            self.buffer = buffers::take_write();
        }
        Some(&mut self.buffer)
    }

    /// As [`buffer`](Self::buffer), with room for a frame of so many bytes. Grows by doubling as vectors do, but not
    /// beyond what may wait: the peer decides how much does.
    #[inline]
    pub(super) fn buffer_for(&mut self, payload_len: usize, wait_max: usize) -> Option<&mut Vec<u8>> {
        let buffer = self.buffer()?;
        let needed = buffer.len().saturating_add(payload_len).saturating_add(FRAME_ROOM);
        if needed > buffer.capacity() {
            let doubled = (2 * buffer.capacity()).min(wait_max.saturating_add(FRAME_ROOM));
            buffer.reserve_exact(needed.max(doubled) - buffer.len());
        }
        Some(buffer)
    }

    /// Has `append` append control frames, if there is room for them now.
    pub(super) fn append_control(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        if self.control_end <= self.written {
            self.control_len = 0;
        }
        if self.control_len >= CONTROL_LEN_MAX {
            return;
        }
        let Some(buffer) = self.buffer() else {
            return;
        };
        let before = buffer.len();
        append(buffer);
        self.control_end = buffer.len();
        self.control_len += self.control_end - before;
    }

    /// Puts a large payload behind the header that was just appended.
    pub(super) fn push_payload(&mut self, payload: Payload) {
        debug_assert!(self.payload.is_none());
        self.payload = Some(Box::new((payload, 0)));
    }

    /// Gives the buffer back, if nothing is in it.
    pub(super) fn release(&mut self) {
        if self.buffer.is_empty() {
            buffers::give_write(std::mem::take(&mut self.buffer));
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        buffers::give_write(std::mem::take(&mut self.buffer));
        *self = Self::default();
    }

    /// Writes until all is with the kernel. `wrote` tells whether any progress was made, also when pending.
    pub(super) fn poll_write(
        &mut self,
        io: &mut dyn Io,
        cx: &mut Context<'_>,
        wrote: &mut bool,
    ) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() || self.payload.is_some() {
            let written = ready!(self.poll_write_some(Pin::new(io), cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *wrote = true;
            self.unflushed = true;
            self.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_some(&self, io: Pin<&mut dyn Io>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let buffer = &self.buffer[self.written..];
        match &self.payload {
            None => io.poll_write(cx, buffer),
            Some(payload) => {
                let (payload, written) = &**payload;
                let slices = [IoSlice::new(buffer), IoSlice::new(&payload[*written..])];
                io.poll_write_vectored(cx, if buffer.is_empty() { &slices[1..] } else { &slices })
            }
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.written_total += written as u64;
        let of_buffer = written.min(self.buffer.len() - self.written);
        self.written += of_buffer;
        written -= of_buffer;
        if self.written == self.buffer.len() {
            buffers::give_write(std::mem::take(&mut self.buffer));
            (self.written, self.control_end, self.control_len) = (0, 0, 0);
        } else if self.written >= COMPACT_FROM && self.written >= self.buffer.len() / 2 {
            // Where more is queued as fast as it is written, the buffer never becomes empty. No byte is moved that
            // another has not paid for by leaving.
            self.buffer.drain(..self.written);
            self.control_end = self.control_end.saturating_sub(self.written);
            self.written = 0;
        }
        if let Some(payload) = &mut self.payload {
            let (payload, done) = &mut **payload;
            *done += written;
            if *done == payload.len() {
                self.payload = None;
            }
        }
    }
}
