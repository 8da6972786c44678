//! A scripted transport: reads and writes pieces of any size, is pending once before each operation, fails at a chosen
//! operation, stops taking bytes, and records each write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use super::wire::Frame;

/// The end for the code under test.
pub(crate) struct ScriptedTransport(Arc<Mutex<Script>>);

/// The end for the test.
#[derive(Clone)]
pub(crate) struct Peer {
    script: Arc<Mutex<Script>>,
    /// Whether the peer is a client, which masks its frames.
    masks: bool,
}

/// The behaviour of the transport.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Maximum number of bytes per read.
    pub(crate) read_max: usize,
    /// Maximum number of bytes per write.
    pub(crate) write_max: usize,
    /// Number of bytes that writes take in total before they are pending.
    pub(crate) room: usize,
    /// What the peer sends repeatedly once nothing else is left: endless input.
    pub(crate) endless: Vec<u8>,
    /// Whether each operation is pending once before it succeeds.
    pub(crate) stutters: bool,
    /// Whether written bytes reach the peer only when flushed.
    pub(crate) buffers: bool,
    /// Whether a flush is pending forever.
    pub(crate) flush_hangs: bool,
    /// Whether a shutdown is pending forever.
    pub(crate) shutdown_hangs: bool,
    /// Whether a write consumes the task's cooperative budget, as tokio's transports do.
    pub(crate) write_costs: bool,
    /// Whether a write fails.
    pub(crate) write_fails: bool,
    /// Whether a write panics.
    pub(crate) write_panics: bool,
    /// The index of the operation (a read or write that is not pending, counted from 0) that fails, with all later
    /// ones.
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
    /// Address and length of each written slice.
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

/// A transport and its peer. `masks` if the peer is a client.
pub(crate) fn transport(masks: bool) -> (ScriptedTransport, Peer) {
    let script = Arc::new(Mutex::new(Script::default()));
    (ScriptedTransport(script.clone()), Peer { script, masks })
}

impl Peer {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the behaviour of the transport.
    pub(crate) fn change_rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.script().rules);
        self.wake();
    }

    /// Fails after this many further operations.
    pub(crate) fn fail_after(&self, operations: usize) {
        let fails_at = self.script().operations + operations;
        self.change_rules(|rules| rules.fails_at = fails_at);
    }

    pub(crate) fn send_bytes(&self, bytes: impl AsRef<[u8]>) {
        self.script().incoming.extend(bytes.as_ref());
        self.wake();
    }

    pub(crate) fn send(&self, frames: impl IntoIterator<Item = Frame>) {
        let bytes: Vec<u8> = frames.into_iter().flat_map(|frame| frame.bytes(self.masks)).collect();
        self.send_bytes(bytes);
    }

    /// Closes the peer's sending direction.
    pub(crate) fn end(&self) {
        self.script().is_ended = true;
        self.wake();
    }

    /// Resets the connection: reading fails after what was sent.
    pub(crate) fn reset(&self) {
        self.script().end = Some(io::ErrorKind::ConnectionReset);
        self.end();
    }

    /// Makes writes fail. What was sent can still be read, then the end.
    pub(crate) fn fail_writes_and_end(&self) {
        self.change_rules(|rules| rules.write_fails = true);
        self.end();
    }

    /// All complete frames that reached the peer since the last call.
    pub(crate) fn take_frames(&self) -> Vec<Frame> {
        let mut script = self.script();
        std::iter::from_fn(|| Frame::take(&mut script.outgoing)).collect()
    }

    /// All bytes that reached the peer since the last call.
    pub(crate) fn take_bytes(&self) -> Vec<u8> {
        std::mem::take(&mut self.script().outgoing)
    }

    /// The writes since the last call.
    pub(crate) fn take_writes(&self) -> Vec<Write> {
        std::mem::take(&mut self.script().writes)
    }

    /// The number of reads that returned bytes.
    pub(crate) fn read_count(&self) -> usize {
        self.script().reads
    }

    /// The number of sent bytes that were not read yet.
    pub(crate) fn unread_len(&self) -> usize {
        self.script().incoming.len()
    }

    /// Whether the local side has shut down its sending direction.
    pub(crate) fn is_half_closed(&self) -> bool {
        self.script().is_shut_down
    }

    /// Whether the local side has closed the transport.
    pub(crate) fn is_transport_closed(&self) -> bool {
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
    /// Counts an operation, and fails it if the rules say so.
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

impl AsyncRead for ScriptedTransport {
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

impl AsyncWrite for ScriptedTransport {
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

impl Drop for ScriptedTransport {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_dropped = true;
    }
}
