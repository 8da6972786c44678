//! The read buffer: received bytes that are not parsed yet.
//!
//! A connection without unparsed bytes has none; the buffer belongs to the thread.

use std::io;
use std::task::{Context, Poll, ready};

use sockeye_proto::Instant;

use super::buffer_pool;
use super::message_pool::Lease;
use crate::transport::Transport;

/// Received bytes that are not parsed yet.
#[derive(Default)]
pub(super) struct Input {
    pub(super) buffer: Vec<u8>,
    /// The end of the received bytes in `buffer`.
    pub(super) end: u32,
    /// The number of parsed bytes in `buffer`.
    pub(super) pos: u32,
    /// When the bytes were read.
    pub(super) received_at: Instant,
    /// Whether `buffer` is counted by [`buffer_pool::try_retain`].
    is_retained: bool,
    /// Whether to check readiness before the next read, because the last read was short. One check is enough: a wake-up
    /// implies readiness.
    checks_readiness: bool,
    /// The pooled buffer of a large message that is arriving. That message is not in `buffer`.
    pub(super) lease: Lease,
    /// The low part of the number of messages that were received: see [`Driver::stats`](super::Driver::stats).
    pub(super) messages: u32,
    /// The number of bytes that were received.
    pub(super) bytes: u64,
}

impl Input {
    pub(super) fn new(received: Vec<u8>, received_at: Instant) -> Self {
        let mut input = Self {
            received_at,
            bytes: received.len() as u64,
            ..Self::default()
        };
        input.replace(received);
        input
    }

    /// An empty input with the same counters.
    pub(super) fn without_content(&self) -> Self {
        Self {
            messages: self.messages,
            bytes: self.bytes,
            ..Self::default()
        }
    }

    /// Replaces all unparsed bytes.
    fn replace(&mut self, received: Vec<u8>) {
        (self.pos, self.end) = (0, received.len() as u32);
        self.buffer = received;
    }

    #[inline]
    pub(super) fn is_consumed(&self) -> bool {
        self.pos >= self.end
    }

    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.pos as usize..self.end as usize]
    }

    /// Reads into the thread's buffer, and keeps the buffer if anything was read.
    #[inline(always)]
    pub(super) fn poll_fill(
        &mut self,
        io: &mut Transport,
        len_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        assert!(self.is_consumed(), "a read would overwrite what is not consumed");
        if std::mem::take(&mut self.checks_readiness) {
            ready!(io.poll_read_ready(cx))?;
        }
        if !io.never_inspects_buffer() || len_max < buffer_pool::READ_BUFFER_LEN {
            return self.poll_fill_empty(io, len_max, cx);
        }
        let mut buffer = buffer_pool::take_read();
        let read = io.poll_read(cx, &mut buffer);
        if let Poll::Ready(Ok(len @ 1..)) = read {
            self.checks_readiness = len < buffer.len();
            (self.buffer, self.end) = (buffer, len as u32);
        } else {
            buffer_pool::return_read(buffer);
        }
        read
    }

    /// Reads into an empty buffer, so that the transport cannot see bytes of other connections. Keeps the buffer if
    /// anything was read.
    #[inline(always)]
    fn poll_fill_empty(&mut self, io: &mut Transport, len_max: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let is_pooled = len_max >= buffer_pool::READ_BUFFER_LEN;
        let mut buffer = match is_pooled {
            true => buffer_pool::take_empty_read(),
            false => Vec::with_capacity(len_max),
        };
        let read = io.poll_read_append(cx, &mut buffer, len_max);
        if let Poll::Ready(Ok(len @ 1..)) = read {
            (self.buffer, self.end) = (buffer, len as u32);
        } else if is_pooled {
            buffer_pool::return_empty_read(buffer);
        }
        read
    }

    /// Reads once from a TCP socket, even if the runtime does not know that it is readable. Returns the number of read
    /// bytes.
    #[cold]
    pub(super) fn try_fill(&mut self, io: &Transport) -> usize {
        let mut buffer = buffer_pool::take_read();
        let len = io.try_read(&mut buffer);
        if len == 0 {
            buffer_pool::return_read(buffer);
            return 0;
        }
        (self.buffer, self.end) = (buffer, len as u32);
        len
    }

    /// Returns the buffer to the pool if everything is parsed. Otherwise retains it.
    // Forced inlining: it is called for each message of a burst, and has several other callers.
    #[inline(always)]
    pub(super) fn release_or_retain(&mut self) {
        if self.is_consumed() {
            self.release();
        } else if !self.is_retained && self.is_pooled() {
            self.retain();
        }
    }

    /// Retains the thread's buffer, or copies the unparsed bytes into a buffer of their own.
    #[cold]
    fn retain(&mut self) {
        self.is_retained = buffer_pool::try_retain();
        if !self.is_retained {
            let rest = self.unread().to_vec();
            self.release();
            self.replace(rest);
        }
    }

    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.is_retained) {
            buffer_pool::release_retained();
        }
        let is_pooled = self.is_pooled();
        let buffer = std::mem::take(&mut self.buffer);
        (self.pos, self.end) = (0, 0);
        if !is_pooled {
            return;
        }
        match buffer.len() {
            buffer_pool::READ_BUFFER_LEN => buffer_pool::return_read(buffer),
            _ => buffer_pool::return_empty_read(buffer),
        }
    }

    /// Whether the buffer came from the pool.
    fn is_pooled(&self) -> bool {
        self.buffer.capacity() == buffer_pool::READ_BUFFER_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_bytes_are_not_returned_to_the_pool() {
        for len in [1, buffer_pool::READ_BUFFER_LEN - 1, buffer_pool::READ_BUFFER_LEN + 1] {
            let mut input = Input::new(vec![7; len], Instant::default());
            input.pos = 1;
            input.release_or_retain();
            assert_eq!(input.unread().len(), len - 1);
            input.pos = input.end;
            input.release_or_retain();
            assert!(input.buffer.is_empty());
            assert_eq!(buffer_pool::take_read().len(), buffer_pool::READ_BUFFER_LEN);
            assert_eq!(buffer_pool::take_empty_read().len(), 0);
        }
    }
}
