//! A connected pair of in-memory sockets, with the properties of kernel TCP sockets that matter to a driver: a bounded
//! buffer in each direction, one waker for reading and one for writing at each end (the last poll replaces the earlier
//! waker), half-close, reset, tokio's cooperative budget, and the loss of unread bytes when an end is closed with
//! unread input.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

/// One end of the pair.
pub(crate) struct Link {
    pipes: Arc<Mutex<Pipes>>,
    /// The index of the pipe that this end writes. It reads the other one.
    end: usize,
}

/// Counts the transport operations of the first end of a pair. Outlives it.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Mutex<Pipes>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Operations {
    /// Calls of `poll_read`, including pending ones.
    pub(crate) reads: usize,
    /// Calls of `poll_write`, including pending ones.
    pub(crate) writes: usize,
}

type Pipes = [Pipe; 2];

/// One direction.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// The writing end has shut down or is closed: the end follows `bytes`.
    is_ended: bool,
    /// The reading end is closed: writing fails.
    is_rejected: bool,
    /// The connection was reset: an error follows `bytes`.
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Operations of the end that writes this pipe.
    operations: Operations,
}

/// A connected pair with `capacity` bytes in each direction.
pub(crate) fn link(capacity: usize) -> (Link, Link) {
    let pipe = || Pipe {
        capacity,
        ..Pipe::default()
    };
    let pipes = Arc::new(Mutex::new([pipe(), pipe()]));
    let near = Link {
        pipes: pipes.clone(),
        end: 0,
    };
    (near, Link { pipes, end: 1 })
}

impl Link {
    /// Resets the connection: the other end reads what has arrived, then an error.
    pub(crate) fn reset(self) {
        let mut pipes = self.pipes();
        for pipe in &mut *pipes {
            pipe.is_reset = true;
        }
        pipes[1 - self.end].bytes.clear();
        drop(pipes);
        self.wake();
    }

    /// Counts the operations of this end.
    pub(crate) fn meter(&self) -> Meter {
        assert_eq!(self.end, 0, "the first end is measured");
        Meter(self.pipes.clone())
    }

    fn pipes(&self) -> MutexGuard<'_, Pipes> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all tasks.
    fn wake(&self) {
        let wakers: Vec<Waker> = {
            let mut pipes = self.pipes();
            let both = pipes.iter_mut();
            both.flat_map(|pipe| [pipe.reader.take(), pipe.writer.take()])
                .flatten()
                .collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Meter {
    pub(crate) fn operations(&self) -> Operations {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[0].operations
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let progress = ready!(coop::poll_proceed(cx));
        let mut pipes = self.pipes();
        pipes[self.end].operations.reads += 1;
        let pipe = &mut pipes[1 - self.end];
        let len = pipe.bytes.len().min(buf.remaining());
        if len == 0 && buf.remaining() > 0 {
            if pipe.is_reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if !pipe.is_ended {
                pipe.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        progress.made_progress();
        let (front, back) = pipe.bytes.as_slices();
        let of_front = len.min(front.len());
        buf.put_slice(&front[..of_front]);
        buf.put_slice(&back[..len - of_front]);
        pipe.bytes.drain(..len);
        // A kernel reports room again when a third of the buffer is free. Otherwise each byte would be a wake-up.
        let writer = match pipe.bytes.len() <= pipe.capacity / 3 * 2 {
            true => pipe.writer.take(),
            false => None,
        };
        drop(pipes);
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let progress = ready!(coop::poll_proceed(cx));
        let mut pipes = self.pipes();
        let pipe = &mut pipes[self.end];
        pipe.operations.writes += 1;
        if pipe.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.is_rejected || pipe.is_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let len = bytes.len().min(pipe.capacity - pipe.bytes.len());
        if len == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        progress.made_progress();
        pipe.bytes.extend(&bytes[..len]);
        let reader = pipe.reader.take();
        drop(pipes);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipes()[self.end].is_ended = true;
        self.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut pipes = self.pipes();
        let has_unread = !pipes[1 - self.end].bytes.is_empty();
        pipes[1 - self.end].is_rejected = true;
        pipes[self.end].is_ended = true;
        // RFC 9293 §3.10.4 and RFC 2525 §2.17: closing with unread input resets the connection, and the other end may
        // lose what it has not read. Here it always does, if this is the end under test.
        if has_unread && self.end == 0 {
            pipes[self.end].bytes.clear();
            pipes[self.end].is_reset = true;
        }
        drop(pipes);
        self.wake();
    }
}
