//! What was received, and is not delivered yet.

use std::io::{self, Read as _};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use sockeye_proto::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::buffer_pool;
use super::message_pool::Lease;
use crate::runtime::clock;
use crate::transport::Transport;

/// Received bytes that are not delivered yet.
#[derive(Default)]
pub(super) struct Input {
    pub(super) buffer: Vec<u8>,
    /// Where in it what was received ends. A receive buffer is small.
    pub(super) end: u32,
    /// How much of it is delivered.
    pub(super) pos: u32,
    /// When they were read.
    pub(super) at: Instant,
    /// Whether `buffer` is counted among those that are held.
    is_retained: bool,
    /// Check readiness before the next read, because the last read was short. Cleared after one check: a wake-up already
    /// implies readiness.
    asks_first: bool,
    /// Of a buffer to the message that is arriving, which is not this one's.
    pub(super) lease: Lease,
}

impl Input {
    pub(super) fn of(received: Vec<u8>, at: Instant) -> Self {
        let mut input = Self { at, ..Self::default() };
        input.set(received);
        input
    }

    /// From now on `received` is all that is not delivered.
    fn set(&mut self, received: Vec<u8>) {
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

    /// Reads into a buffer of the thread's; keeps it only if something was read.
    #[inline(always)]
    pub(super) fn poll_fill(
        &mut self,
        io: &mut Transport,
        len_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        assert!(self.is_consumed(), "a read would overwrite what is not delivered");
        if std::mem::take(&mut self.asks_first) {
            ready!(io.poll_read_ready(cx))?;
        }
        if !io.reads_blindly() || len_max < buffer_pool::READ_BUFFER_LEN {
            return self.poll_append(io, len_max, cx);
        }
        let mut buffer = buffer_pool::take_read();
        let start = buffer.as_ptr();
        let mut filling = ReadBuf::new(&mut buffer);
        let read = Pin::new(io).poll_read(cx, &mut filling);
        assert_eq!(
            filling.filled().as_ptr(),
            start,
            "a transport reads into the buffer that it is given"
        );
        let read = read.map_ok(|()| filling.filled().len());
        if let Poll::Ready(Ok(len @ 1..)) = read {
            self.asks_first = len < buffer.len();
            (self.buffer, self.end, self.at) = (buffer, len as u32, clock::now());
        } else {
            buffer_pool::give_read(buffer);
        }
        read
    }

    /// Reads into an empty buffer, in which the transport sees no bytes of other connections. Keeps it only if something was
    /// read.
    #[inline(always)]
    fn poll_append(&mut self, io: &mut Transport, len_max: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let is_of_thread = len_max >= buffer_pool::READ_BUFFER_LEN;
        let mut buffer = match is_of_thread {
            true => buffer_pool::take_room(),
            false => Vec::with_capacity(len_max),
        };
        let read = pin!(io.read_buf(&mut buffer)).poll(cx);
        if let Poll::Ready(Ok(len @ 1..)) = read {
            (self.buffer, self.end, self.at) = (buffer, len as u32, clock::now());
        } else if is_of_thread {
            buffer_pool::give_room(buffer);
        }
        read
    }

    /// Reads from a TCP socket, whether or not the runtime knows that there is something to read. Returns whether there was.
    #[cold]
    pub(super) fn try_fill(&mut self, io: &mut Transport) -> bool {
        let Transport::Tcp(tcp) = io else { return false };
        let mut buffer = buffer_pool::take_read();
        match (&*socket2::SockRef::from(&*tcp)).read(&mut buffer) {
            Ok(len @ 1..) => {
                (self.buffer, self.end, self.at) = (buffer, len as u32, clock::now());
                true
            }
            _ => {
                buffer_pool::give_read(buffer);
                false
            }
        }
    }

    /// Returns the buffer to the pool, or keeps it while input remains.
    #[inline]
    pub(super) fn release_or_retain(&mut self) {
        if self.is_consumed() {
            self.release();
        } else if !self.is_retained && self.is_of_thread() {
            self.retain();
        }
    }

    /// Keeps the thread's buffer, or a copy of what is not delivered yet.
    #[cold]
    fn retain(&mut self) {
        self.is_retained = buffer_pool::try_retain();
        if !self.is_retained {
            let rest = self.unread().to_vec();
            self.release();
            self.set(rest);
        }
    }

    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.is_retained) {
            buffer_pool::release_retained();
        }
        let is_of_thread = self.is_of_thread();
        let buffer = std::mem::take(&mut self.buffer);
        (self.pos, self.end) = (0, 0);
        if !is_of_thread {
            return;
        }
        match buffer.len() {
            buffer_pool::READ_BUFFER_LEN => buffer_pool::give_read(buffer),
            _ => buffer_pool::give_room(buffer),
        }
    }

    /// Whether the buffer came from the pool.
    fn is_of_thread(&self) -> bool {
        self.buffer.capacity() == buffer_pool::READ_BUFFER_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_with_the_handshake_is_no_buffer_of_the_thread() {
        for len in [1, buffer_pool::READ_BUFFER_LEN - 1, buffer_pool::READ_BUFFER_LEN + 1] {
            let mut input = Input::of(vec![7; len], Instant::default());
            input.pos = 1;
            input.release_or_retain();
            assert_eq!(input.unread().len(), len - 1);
            input.pos = input.end;
            input.release_or_retain();
            assert!(input.buffer.is_empty());
            assert_eq!(buffer_pool::take_read().len(), buffer_pool::READ_BUFFER_LEN);
            assert_eq!(buffer_pool::take_room().len(), 0);
        }
    }
}
