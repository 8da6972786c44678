//! A transport that does what a test tells it: gives and takes bytes in pieces of any size, makes every operation wait
//! once, fails at a chosen operation, takes nothing for ever, and records each write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use super::wire::Frame;

/// The end that the code under test is given.
pub(crate) struct TransportAction(Arc<Mutex<Script>>);

/// The end that the test holds.
#[derive(Clone)]
pub(crate) struct Peer {
    script: Arc<Mutex<Script>>,
    /// Whether the peer is a client, whose frames are masked.
    masks: bool,
}

/// How the transport behaves.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// How many bytes one read gives at most.
    pub(crate) read_max: usize,
    /// How many bytes one write takes at most.
    pub(crate) write_max: usize,
    /// How many bytes writes take altogether before they wait.
    pub(crate) room: usize,
    /// What the peer sends again and again when there is nothing else: its input never ends.
    pub(crate) endless: Vec<u8>,
    /// Whether each operation first waits once.
    pub(crate) stutters: bool,
    /// Whether what is written reaches the peer only when it is flushed.
    pub(crate) buffers: bool,
    /// Whether a flush waits for ever.
    pub(crate) flush_hangs: bool,
    /// Whether closing the sending half waits for ever.
    pub(crate) shutdown_hangs: bool,
    /// Whether a write takes from the budget of its task, as one of tokio's transports does.
    pub(crate) write_costs: bool,
    /// Whether a write fails.
    pub(crate) write_fails: bool,
    /// Whether a write panics.
    pub(crate) write_panics: bool,
    /// The number of the operation (a read or write that could be done, counted from 0) that fails, and all after it.
    pub(crate) fails_at: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            read_max: usize::MAX,
            write_max: usize::MAX,
            room: usize::MAX,
            endless: vec![],
            stutters: false,
            buffers: false,
            flush_hangs: false,
            shutdown_hangs: false,
            write_costs: false,
            write_fails: false,
            write_panics: false,
            fails_at: usize::MAX,
        }
    }
}

/// One write that the transport took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) len: usize,
    /// The addresses of what was written, a slice each.
    pub(crate) slices: Vec<(usize, usize)>,
}

#[derive(Default)]
struct Script {
    rules: Rules,
    operations: usize,
    incoming: VecDeque<u8>,
    end: Option<io::ErrorKind>,
    is_ended: bool,
    unflushed: Vec<u8>,
    outgoing: Vec<u8>,
    writes: Vec<Write>,
    reads: usize,
    read_waited: bool,
    write_waited: bool,
    is_shut_down: bool,
    is_dropped: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A transport, and its other end; `masks` if that is a client.
pub(crate) fn transport(masks: bool) -> (TransportAction, Peer) {
    let script = Arc::new(Mutex::new(Script::default()));
    (TransportAction(script.clone()), Peer { script, masks })
}

impl Peer {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how the transport behaves from now on.
    pub(crate) fn rule(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.script().rules);
        self.wake();
    }

    /// Fails the next operation, and all after it.
    pub(crate) fn fails_after(&self, operations: usize) {
        let fails_at = self.script().operations + operations;
        self.rule(|rules| rules.fails_at = fails_at);
    }

    pub(crate) fn sends_bytes(&self, bytes: impl AsRef<[u8]>) {
        self.script().incoming.extend(bytes.as_ref());
        self.wake();
    }

    pub(crate) fn sends(&self, frames: impl IntoIterator<Item = Frame>) {
        let bytes: Vec<u8> = frames.into_iter().flat_map(|frame| frame.bytes(self.masks)).collect();
        self.sends_bytes(bytes);
    }

    /// Closes its sending half.
    pub(crate) fn ends(&self) {
        self.script().is_ended = true;
        self.wake();
    }

    /// Resets the connection: reading fails after what has been sent.
    pub(crate) fn resets(&self) {
        self.script().end = Some(io::ErrorKind::ConnectionReset);
        self.ends();
    }

    /// Breaks the transport for writes. What was sent can still be read, and then the end.
    pub(crate) fn breaks(&self) {
        self.rule(|rules| rules.write_fails = true);
        self.ends();
    }

    /// All whole frames that reached the peer since it was last asked.
    pub(crate) fn takes(&self) -> Vec<Frame> {
        let mut script = self.script();
        std::iter::from_fn(|| Frame::take(&mut script.outgoing)).collect()
    }

    /// All bytes that reached the peer since it was last asked.
    pub(crate) fn takes_bytes(&self) -> Vec<u8> {
        std::mem::take(&mut self.script().outgoing)
    }

    /// The writes since it was last asked.
    pub(crate) fn writes(&self) -> Vec<Write> {
        std::mem::take(&mut self.script().writes)
    }

    /// How often something was read.
    pub(crate) fn reads(&self) -> usize {
        self.script().reads
    }

    /// How many bytes it has sent that were not read yet.
    pub(crate) fn unread_len(&self) -> usize {
        self.script().incoming.len()
    }

    /// Whether the other side closed its sending half.
    pub(crate) fn sees_half_close(&self) -> bool {
        self.script().is_shut_down
    }

    /// Whether the other side closed.
    pub(crate) fn sees_end(&self) -> bool {
        self.script().is_dropped
    }

    fn wake(&self) {
        let (reader, writer) = {
            let mut script = self.script();
            (script.reader.take(), script.writer.take())
        };
        reader.into_iter().chain(writer).for_each(Waker::wake);
    }
}

impl Script {
    /// Counts an operation that can be done, and fails if it is to.
    fn operate(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match number < self.rules.fails_at {
            true => Ok(()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.unflushed);
        self.outgoing.extend(bytes);
    }
}

impl AsyncRead for TransportAction {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let script = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if script.rules.stutters && !std::mem::replace(&mut script.read_waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if script.incoming.is_empty() {
            script.incoming.extend(&script.rules.endless);
        }
        let len = script.incoming.len().min(script.rules.read_max).min(buf.remaining());
        if len == 0 && !script.is_ended {
            script.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        script.read_waited = false;
        script.operate()?;
        script.reads += 1;
        if len == 0
            && let Some(kind) = script.end
        {
            return Poll::Ready(Err(kind.into()));
        }
        let (front, back) = script.incoming.as_slices();
        let of_front = len.min(front.len());
        buf.put_slice(&front[..of_front]);
        buf.put_slice(&back[..len - of_front]);
        script.incoming.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TransportAction {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let script = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!script.rules.write_panics, "as the test wants it");
        if script.rules.write_fails {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if script.rules.write_costs {
            ready!(coop::poll_proceed(cx)).made_progress();
        }
        if script.rules.stutters && !std::mem::replace(&mut script.write_waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if script.operations >= script.rules.fails_at {
            return Poll::Ready(script.operate().map(|()| 0));
        }
        if script.rules.room == 0 {
            script.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        script.write_waited = false;
        script.operate()?;
        let len_max = script.rules.write_max.min(script.rules.room);
        let mut len = 0;
        for slice in bufs {
            let taken = slice.len().min(len_max - len);
            script.unflushed.extend_from_slice(&slice[..taken]);
            len += taken;
        }
        if script.rules.room != usize::MAX {
            script.rules.room -= len;
        }
        script.writes.push(Write {
            len,
            slices: bufs
                .iter()
                .map(|slice| (slice.as_ptr() as usize, slice.len()))
                .collect(),
        });
        if !script.rules.buffers {
            script.flush();
        }
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let script = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if script.rules.flush_hangs {
            script.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if script.rules.buffers && script.rules.stutters && !std::mem::replace(&mut script.write_waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        script.write_waited = false;
        script.flush();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let script = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if script.rules.shutdown_hangs {
            script.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        script.flush();
        script.is_shut_down = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for TransportAction {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_dropped = true;
    }
}
