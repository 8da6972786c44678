//! Client and server for programs without an async runtime: tests, tools, plugins, one thread per connection.
//!
//! The same protocol code as [`WebSocket`](crate::WebSocket), driven by the calling thread over a socket of the
//! standard library, with TLS by rustls. No runtime and no helper threads, except one while a host name is resolved.
//! Unix only.
//!
//! ```no_run
//! use std::time::Duration;
//! use sockeye::blocking;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut ws = blocking::connect("wss://echo.example/")?;
//! ws.send("hello")?;
//! if let Some(message) = ws.recv_timeout(Duration::from_secs(5))? {
//!     println!("{message:?}");
//! }
//! ws.close(sockeye::CloseCode::NORMAL, "")?;
//! # Ok(())
//! # }
//! ```
//!
//! Settings, headers and TLS are those of a [`Client`] or [`Server`]: see
//! [`RequestBuilder::connect_blocking`](crate::RequestBuilder::connect_blocking) and
//! [`Server::accept_blocking`](crate::Server::accept_blocking).

mod client;
mod dial;
mod server;
mod split;
mod streams;
mod tunnel;
mod typed;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use sockeye_proto::deflate::NegotiatedParams;
use sockeye_proto::{CloseCode, CloseInfo};

use crate::client::Client;
use crate::endpoint::Driver;
use crate::error::Error;
use crate::message::Message;
use crate::message::outbound::Outbound;
use crate::runtime::blocking::take_rescheduled;
use crate::runtime::std_clock::to_std;
use crate::server::Server;
use crate::stats::ConnectionStats;
use crate::transport::blocking::{ReadMode, wait_for, with_read_mode};
use crate::websocket::try_send::TrySendError;

pub use crate::transport::blocking::Socket;
pub use server::Incoming;
pub use split::{Receiver, Sender};
pub use streams::{MessageReader, MessageWriter, WebSocketIo};

/// Maximum time a thread blocks before it polls the connection again.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// How long [`WebSocket::close`] waits for the end of TCP after the closing handshake.
const LINGER: Duration = Duration::from_secs(1);

/// Opens a WebSocket with the default settings of a [`Client`].
///
/// # Errors
///
/// Those of [`Client::connect`].
pub fn connect(url: &str) -> Result<WebSocket, Error> {
    Client::default().request(url).connect_blocking()
}

/// Accepts a WebSocket over a socket, with the default settings of a [`Server`].
///
/// # Errors
///
/// Those of [`Server::accept`].
pub fn accept(socket: impl Into<Socket>) -> Result<WebSocket, Error> {
    Server::default().accept_blocking(socket)?.accept()
}

/// Error of [`WebSocket::recv_timeout`].
#[derive(Clone, Debug)]
pub enum RecvTimeoutError {
    /// No message arrived in time. The connection is still open.
    Elapsed,
    /// The connection has failed.
    Failed(Error),
}

impl From<Error> for RecvTimeoutError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elapsed => f.write_str("no message arrived in time"),
            Self::Failed(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for RecvTimeoutError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Elapsed => None,
            Self::Failed(error) => error.source(),
        }
    }
}

/// An open WebSocket connection that is used by one thread at a time. [`split`](Self::split) it to send and receive in
/// different threads.
///
/// Pings are answered and deadlines are handled while [`recv`](Self::recv) waits, and while a send waits for the peer.
/// Every call is limited by a deadline: sending by [`Timeouts::write`](crate::Timeouts::write), closing by
/// [`Timeouts::close`](crate::Timeouts::close), and receiving by the [keepalive](crate::Keepalive), which ends the
/// connection if the peer is gone, and by [`recv_timeout`](Self::recv_timeout) if the peer is merely silent.
///
/// Messages and the end are reported as by the async [`WebSocket`](crate::WebSocket#the-end). Dropping it closes TCP
/// without a closing handshake.
#[derive(Debug)]
pub struct WebSocket {
    ws: crate::websocket::WebSocket,
    socket: Arc<Socket>,
}

impl WebSocket {
    fn new(ws: crate::websocket::WebSocket, socket: Arc<Socket>) -> Self {
        Self { ws, socket }
    }

    /// Receives the next message. Returns `None` after a normal [end](crate::WebSocket#the-end), and for every later
    /// call. Queued messages are written before this waits.
    ///
    /// # Errors
    ///
    /// The peer closed with a code other than 1000 or 1001, does not answer or violated the protocol, or the connection
    /// was lost. Later calls return the same error.
    pub fn recv(&mut self) -> Result<Option<Message>, Error> {
        loop {
            if let Some(received) = self.poll_until(None, Driver::poll_recv) {
                return received;
            }
        }
    }

    /// Receives the next message as [`recv`](Self::recv) does, but waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError::Elapsed`] if no message arrived in time: the connection stays open, and the next call
    /// continues a partly received message. Otherwise those of [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Message>, RecvTimeoutError> {
        let received = self.poll_until(deadline_after(timeout), Driver::poll_recv);
        Ok(received.ok_or(RecvTimeoutError::Elapsed)??)
    }

    /// Sends a message, and waits until it and everything queued before it has been passed to the kernel. While it
    /// waits for the peer, it receives messages ahead of [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// The connection is closed or lost, or the peer reads too slowly: see
    /// [`Timeouts::write`](crate::Timeouts::write).
    pub fn send(&mut self, message: impl Into<Outbound>) -> Result<(), Error> {
        self.feed(message)?;
        self.flush()
    }

    /// Queues a message. Waits only while the queue would exceed
    /// [`Limits::write_buffer_max`](crate::Limits::write_buffer_max). [`flush`](Self::flush) writes it, or
    /// [`recv`](Self::recv) before it waits. For several messages this is cheaper than [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn feed(&mut self, message: impl Into<Outbound>) -> Result<(), Error> {
        let message = message.into();
        self.wait_for(|driver, cx| driver.poll_feed(cx, &message))
    }

    /// Writes everything that is queued.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn flush(&mut self) -> Result<(), Error> {
        self.wait_for(Driver::poll_flush)
    }

    /// Queues a message if there is capacity, without waiting for the peer. It is written as with
    /// [`feed`](Self::feed).
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::try_send`](crate::WebSocket::try_send).
    pub fn try_send(&mut self, message: impl Into<Outbound>) -> Result<(), TrySendError> {
        self.ws.try_send(message)
    }

    /// Sends a ping, waits for its pong and returns the round-trip time. Messages that arrive before it are kept for
    /// [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::ping`](crate::WebSocket::ping).
    pub fn ping(&mut self) -> Result<Duration, Error> {
        let number = self.ws.driver().start_ping()?;
        self.wait_for(|driver, cx| driver.poll_pong(cx, number))
    }

    /// Performs the closing handshake: sends the close frame after everything queued, and waits for the peer's. Drops
    /// messages that arrive meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::close`](crate::WebSocket::close). The connection is closed in every case.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let started = self.ws.driver().start_close(code, reason);
        let closed = self.wait_for(Driver::poll_close);
        // Closing a socket with unread input would reset the connection, and the peer could lose the close frame.
        let linger = deadline_after(LINGER);
        self.poll_until(linger, Driver::poll_finish);
        started.and(closed)
    }

    /// Begins the closing handshake without waiting: the next call of [`flush`](Self::flush) or [`recv`](Self::recv)
    /// sends the close frame after everything queued. Messages of the peer are received until its close frame arrives.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::start_close`](crate::WebSocket::start_close).
    pub fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.ws.start_close(code, reason)
    }

    /// Closes TCP immediately. Queued messages are lost, and the peer sees 1006.
    pub fn abort(self) {
        self.ws.abort();
    }

    /// How the connection was closed, as far as is known yet. `None` while it is open.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        self.ws.close_info()
    }

    /// Whether messages can still be sent, as far as is known.
    pub fn is_open(&self) -> bool {
        self.ws.is_open()
    }

    /// Counters of messages and bytes in both directions.
    pub fn stats(&self) -> ConnectionStats {
        self.ws.stats()
    }

    /// The round-trip time of the most recently answered ping.
    pub fn rtt(&self) -> Option<Duration> {
        self.ws.rtt()
    }

    /// The negotiated subprotocol.
    pub fn subprotocol(&self) -> Option<&str> {
        self.ws.subprotocol()
    }

    /// The negotiated parameters of permessage-deflate (RFC 7692). `None` if messages are not compressed.
    pub fn negotiated_deflate(&self) -> Option<NegotiatedParams> {
        self.ws.negotiated_deflate()
    }

    /// The address of the peer, or of a proxy in between. `None` once the socket is closed, and for a Unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.socket.peer_addr()
    }

    /// The local address. `None` once the socket is closed, and for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr()
    }

    /// Polls the connection until it is ready. Its deadlines bound the wait.
    fn wait_for<R>(&mut self, mut poll: impl FnMut(&mut Driver, &mut Context<'_>) -> Poll<R>) -> R {
        loop {
            if let Some(result) = self.poll_until(None, &mut poll) {
                return result;
            }
        }
    }

    /// Polls the connection until it is ready or `until` has passed.
    fn poll_until<R>(
        &mut self,
        until: Option<Instant>,
        mut poll: impl FnMut(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Option<R> {
        let poll = |ws: &mut crate::websocket::WebSocket, cx: &mut Context<'_>| poll(ws.driver(), cx);
        drive(&mut self.ws, &self.socket, until, poll)
    }
}

/// A type that owns a [`Driver`].
trait HasDriver {
    fn driver(&mut self) -> &mut Driver;
}

impl HasDriver for crate::websocket::WebSocket {
    fn driver(&mut self) -> &mut Driver {
        self.driver()
    }
}

impl HasDriver for crate::websocket::io::WebSocketIo {
    fn driver(&mut self) -> &mut Driver {
        self.driver()
    }
}

/// Polls a connection until it is ready or `until` has passed. Blocks the thread while the peer has to act.
fn drive<D: HasDriver, R>(
    driven: &mut D,
    socket: &Socket,
    until: Option<Instant>,
    mut poll: impl FnMut(&mut D, &mut Context<'_>) -> Poll<R>,
) -> Option<R> {
    let cx = &mut Context::from_waker(Waker::noop());
    loop {
        let driver = HasDriver::driver(driven);
        // Compressing goes on without waiting for the peer.
        let reads = match driver.has_unencoded() {
            true => ReadMode::NonBlocking,
            false => ReadMode::WaitUntil(deadline_of(driver, until)),
        };
        let (polled, has_waited) = with_read_mode(reads, || poll(driven, cx));
        if let Poll::Ready(result) = polled {
            return Some(result);
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        if !take_rescheduled() && !has_waited {
            // The socket is full.
            let driver = HasDriver::driver(driven);
            let deadline = deadline_of(driver, until);
            let events = match driver.has_input() {
                // Input is waiting to be parsed, so poll only for writability.
                true => PollFlags::OUT,
                false => PollFlags::OUT | PollFlags::IN,
            };
            // The next call reports an error of the socket.
            let _ = wait_for(socket, events, deadline);
        }
    }
}

/// The earlier of the connection's next deadline and `until`.
fn deadline_of(driver: &Driver, until: Option<Instant>) -> Instant {
    let own = driver.next_deadline().map(to_std);
    match (own, until) {
        (Some(own), Some(until)) => own.min(until),
        (own, until) => own.or(until).unwrap_or_else(|| Instant::now() + WAIT_MAX),
    }
}

/// `None` if the time is beyond the clock's range.
fn deadline_after(wait: Duration) -> Option<Instant> {
    Instant::now().checked_add(wait)
}

/// The deadline of an opening handshake. A time that the clock cannot express is a day.
fn saturating_deadline(wait: Duration) -> Instant {
    deadline_after(wait).unwrap_or_else(|| Instant::now() + Duration::from_secs(24 * 60 * 60))
}
