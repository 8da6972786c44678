//! Two or more threads that share one connection.
//!
//! A mutex protects the connection. It is never held while a thread waits for the peer: a thread waits for the socket
//! first, and then calls the connection without blocking.

use std::fmt;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use sockeye_proto::{CloseCode, CloseInfo};

use super::{RecvTimeoutError, WebSocket, deadline_after, deadline_of};
use crate::endpoint::Driver;
use crate::error::Error;
use crate::message::Message;
use crate::message::outbound::Outbound;
use crate::runtime::blocking::take_rescheduled;
use crate::stats::ConnectionStats;
use crate::sync::lock;
use crate::transport::blocking::{ReadMode, Socket, wait_for, with_read_mode};
use crate::websocket::try_send::TrySendError;

/// Maximum time a thread blocks before it polls the connection again: another thread may have sent a ping with an
/// earlier deadline, or left output unwritten.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Sending half of a [split](super::WebSocket::split) connection. Clones send on the same connection from any thread;
/// messages are never interleaved.
///
/// Pings of the peer are answered, and a lost peer is detected, while [`Receiver::recv`] waits.
#[derive(Clone)]
pub struct Sender(Arc<Shared>);

/// Receiving half of a [split](super::WebSocket::split) connection. Dropping it closes TCP, unless the closing
/// handshake has begun.
pub struct Receiver(Arc<Shared>);

struct Shared {
    ws: Mutex<crate::websocket::WebSocket>,
    socket: Arc<Socket>,
}

impl WebSocket {
    /// Splits the connection into a cloneable sender and a receiver, which can be used in different threads.
    pub fn split(self) -> (Sender, Receiver) {
        let shared = Arc::new(Shared {
            ws: Mutex::new(self.ws),
            socket: self.socket,
        });
        (Sender(shared.clone()), Receiver(shared))
    }
}

impl Sender {
    /// Sends a message, and waits until it and everything queued before it has been passed to the kernel.
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see
    /// [`Timeouts::write`](crate::Timeouts::write).
    pub fn send(&self, message: impl Into<Outbound>) -> Result<(), Error> {
        self.feed(message)?;
        self.flush()
    }

    /// Queues a message. Waits only while the queue would exceed
    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max). [`flush`](Self::flush) writes it, and so does the
    /// receiver before it waits. For several messages this is cheaper than [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn feed(&self, message: impl Into<Outbound>) -> Result<(), Error> {
        let message = message.into();
        self.0.wait_to_write(|driver, cx| driver.poll_feed(cx, &message))
    }

    /// Queues a message if there is capacity, and writes as much of the queue as the kernel accepts, without waiting
    /// for the peer. The rest is written by the next call, or by a thread in [`Receiver::recv`], which checks once a
    /// second. Blocks only while another thread is using the connection.
    ///
    /// # Errors
    ///
    /// Those of [`Sender::try_send`](crate::Sender::try_send).
    pub fn try_send(&self, message: impl Into<Outbound>) -> Result<(), TrySendError> {
        let message = message.into();
        let mut ws = self.0.lock();
        if !ws.driver().has_capacity_for(message.len()) {
            flush_now(&mut ws);
        }
        ws.try_send(message)?;
        flush_now(&mut ws);
        Ok(())
    }

    /// Writes everything that is queued.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn flush(&self) -> Result<(), Error> {
        self.0.wait_to_write(Driver::poll_flush)
    }

    /// Sends a ping with a payload of at most 125 bytes, without waiting for its pong, which updates
    /// [`rtt`](Self::rtt).
    ///
    /// # Errors
    ///
    /// The payload is too long ([`Error::is_invalid_input`]), or those of [`send`](Self::send).
    pub fn send_ping(&self, payload: &[u8]) -> Result<(), Error> {
        self.0.lock().driver().send_ping(payload)?;
        self.0.wait_to_write(Driver::poll_flush)
    }

    /// Sends the close frame after everything queued. The receiver completes the closing handshake.
    ///
    /// # Errors
    ///
    /// The connection is lost, or the code or reason must not be sent: see
    /// [`WebSocket::close`](crate::WebSocket::close).
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let started = self.0.lock().driver().start_close(code, reason);
        match self.0.wait_to_write(Driver::poll_flush) {
            Err(error) if !error.is_normal_close() => Err(error),
            _ => started,
        }
    }

    /// Closes TCP immediately. Threads that wait fail, and the peer sees 1006.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// How the connection was closed, as far as is known yet. `None` while it is open.
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.0.lock().close_info().cloned()
    }

    /// Whether messages can still be sent, as far as is known.
    pub fn is_open(&self) -> bool {
        self.0.lock().is_open()
    }

    /// The round-trip time of the most recently answered ping.
    pub fn rtt(&self) -> Option<Duration> {
        self.0.lock().rtt()
    }

    /// Counters of messages and bytes in both directions, of all halves.
    pub fn stats(&self) -> ConnectionStats {
        self.0.lock().stats()
    }
}

impl Receiver {
    /// Receives the next message. Returns `None` after a normal [end](crate::WebSocket#the-end), and for every later
    /// call.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::recv`](super::WebSocket::recv).
    pub fn recv(&mut self) -> Result<Option<Message>, Error> {
        loop {
            if let Some(received) = self.0.recv_until(None) {
                return received;
            }
        }
    }

    /// Receives the next message as [`recv`](Self::recv) does, but waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::recv_timeout`](super::WebSocket::recv_timeout).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Message>, RecvTimeoutError> {
        let received = self.0.recv_until(deadline_after(timeout));
        Ok(received.ok_or(RecvTimeoutError::Elapsed)??)
    }

    /// Whether messages can still be sent, as far as is known.
    pub fn is_open(&self) -> bool {
        self.0.lock().is_open()
    }

    /// How the connection was closed, as far as is known yet. `None` while it is open.
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.0.lock().close_info().cloned()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.0.lock().is_open() {
            self.0.abort();
        }
    }
}

/// Writes as much of the queue as the kernel accepts. An error is reported by the next call.
fn flush_now(ws: &mut crate::websocket::WebSocket) {
    let cx = &mut Context::from_waker(Waker::noop());
    let _ = with_read_mode(ReadMode::Never, || ws.driver().poll_flush(cx));
    take_rescheduled();
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, crate::websocket::WebSocket> {
        lock(&self.ws)
    }

    fn abort(&self) {
        self.lock().driver().abort_with(Error::aborted());
        // Wakes the threads that wait for the socket.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Calls the connection until a message arrives, the connection ends or `until` has passed.
    fn recv_until(&self, until: Option<Instant>) -> Option<Result<Option<Message>, Error>> {
        let cx = &mut Context::from_waker(Waker::noop());
        loop {
            let mut ws = self.lock();
            let driver = ws.driver();
            let (polled, _) = with_read_mode(ReadMode::NonBlocking, || driver.poll_recv(cx));
            if let Poll::Ready(received) = polled {
                return Some(received);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return None;
            }
            let is_rescheduled = take_rescheduled();
            let deadline = deadline_of(driver, until).min(Instant::now() + WAIT_MAX);
            let mut events = PollFlags::IN;
            if driver.has_queued_output() {
                events |= PollFlags::OUT;
            }
            drop(ws);
            if !is_rescheduled {
                let _ = wait_for(&self.socket, events, deadline);
            }
        }
    }

    /// Calls the connection until it is ready, which the deadline for writing guarantees. Leaves reading to the
    /// receiver.
    fn wait_to_write<R>(&self, mut poll: impl FnMut(&mut Driver, &mut Context<'_>) -> Poll<R>) -> R {
        let cx = &mut Context::from_waker(Waker::noop());
        loop {
            let mut ws = self.lock();
            let driver = ws.driver();
            let (polled, _) = with_read_mode(ReadMode::Never, || poll(driver, cx));
            if let Poll::Ready(result) = polled {
                return result;
            }
            let is_rescheduled = take_rescheduled();
            let deadline = deadline_of(driver, None).min(Instant::now() + WAIT_MAX);
            drop(ws);
            if !is_rescheduled {
                let _ = wait_for(&self.socket, PollFlags::OUT, deadline);
            }
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
