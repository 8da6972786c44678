//! A socket of the standard library as a transport, for connections that are driven by a thread.
//!
//! Writes never block. A read may block once per call of the connection, until a deadline: the thread that calls the
//! connection sets the mode with [`with_read_mode`]. So a message that is waited for costs one system call.

use std::cell::Cell;
use std::io::{self, IoSlice, Read as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum length of a read. The buffer may have to be zeroed first.
const READ_LEN_MAX: usize = 128 * 1024;

/// Waits longer than this use a shorter socket timeout, so that one `setsockopt` serves several reads: most deadlines
/// move later with each message. A read that ends early is repeated.
const COARSE_WAIT_MIN: Duration = Duration::from_secs(2);

/// What reads may do during one call of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// The first read waits for the peer, until this time. It changes the mode to `HasWaited`.
    WaitUntil(Instant),
    /// Non-blocking, because an earlier read of this call has already waited.
    HasWaited,
    /// Reads return what has arrived, without waiting.
    NonBlocking,
    /// Reads return nothing, because another thread receives.
    Never,
}

thread_local! {
    static READ_MODE: Cell<ReadMode> = const { Cell::new(ReadMode::NonBlocking) };
}

/// Calls a connection. Returns its result, and whether a read has waited.
pub(crate) fn with_read_mode<R>(mode: ReadMode, call: impl FnOnce() -> R) -> (R, bool) {
    READ_MODE.set(mode);
    let result = call();
    let mode_after = READ_MODE.replace(ReadMode::NonBlocking);
    (result, mode_after == ReadMode::HasWaited)
}

/// Makes further reads in the current poll non-blocking.
pub(crate) fn stop_blocking_reads() {
    if let ReadMode::WaitUntil(_) = READ_MODE.get() {
        READ_MODE.set(ReadMode::NonBlocking);
    }
}

/// Polls a future that waits only for this socket. Returns `None` if it is not ready by `deadline`.
pub(crate) fn block_on<F: Future>(socket: &Socket, deadline: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let cx = &mut Context::from_waker(Waker::noop());
    loop {
        let (polled, has_waited) = with_read_mode(ReadMode::WaitUntil(deadline), || future.as_mut().poll(cx));
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        if Instant::now() >= deadline {
            return None;
        }
        if !has_waited {
            // A write found the socket full. The next poll reports an error of the socket.
            let _ = wait_for(socket, PollFlags::OUT, deadline);
        }
    }
}

/// A connected TCP or Unix socket of the standard library. Convert either with `From`.
#[derive(Debug)]
pub struct Socket(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self(Kind::Tcp(tcp))
    }
}

impl From<UnixStream> for Socket {
    fn from(unix: UnixStream) -> Self {
        Self(Kind::Unix(unix))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::Tcp(tcp) => tcp.as_fd(),
            Kind::Unix(unix) => unix.as_fd(),
        }
    }
}

impl Socket {
    /// The address of a TCP peer.
    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp(tcp) => tcp.peer_addr().ok(),
            Kind::Unix(_) => None,
        }
    }

    /// The local address of TCP.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp(tcp) => tcp.local_addr().ok(),
            Kind::Unix(_) => None,
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.0 {
            Kind::Tcp(tcp) => tcp.shutdown(how),
            Kind::Unix(unix) => unix.shutdown(how),
        }
    }

    /// Sets blocking mode, and the options of TCP.
    fn prepare(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Tcp(tcp) => {
                tcp.set_nonblocking(false)?;
                super::socket::set_tcp_options(tcp)
            }
            Kind::Unix(unix) => unix.set_nonblocking(false),
        }
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match &self.0 {
            Kind::Tcp(tcp) => tcp.set_read_timeout(Some(timeout)),
            Kind::Unix(unix) => unix.set_read_timeout(Some(timeout)),
        }
    }

    /// Reads once, waiting until the timeout.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Tcp(tcp) => {
                let mut tcp = tcp;
                tcp.read(buffer)
            }
            Kind::Unix(unix) => {
                let mut unix = unix;
                unix.read(buffer)
            }
        }
    }
}

/// A socket, and a TLS session over it.
pub(crate) struct BlockingStream {
    socket: Arc<Socket>,
    #[cfg(feature = "tls")]
    tls: Option<Box<rustls::Connection>>,
    /// The timeout that is set for reads.
    read_timeout: Duration,
    /// Whether the last write found the socket full.
    is_full: bool,
}

impl BlockingStream {
    /// Takes a socket in blocking or non-blocking mode.
    pub(crate) fn new(socket: Arc<Socket>) -> io::Result<Self> {
        socket.prepare()?;
        Ok(Self {
            socket,
            #[cfg(feature = "tls")]
            tls: None,
            read_timeout: Duration::MAX,
            is_full: false,
        })
    }

    /// Performs a TLS handshake until `deadline`. Everything afterwards goes through TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn start_tls(&mut self, mut tls: rustls::Connection, deadline: Instant) -> io::Result<()> {
        while tls.is_handshaking() || tls.wants_write() {
            while tls.wants_write() {
                match tls.write_tls(&mut NonBlocking(&self.socket)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::OUT, deadline)?,
                    written => drop(written?),
                }
            }
            if tls.is_handshaking() {
                self.wait(PollFlags::IN, deadline)?;
                if tls.read_tls(&mut NonBlocking(&self.socket))? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if let Err(error) = tls.process_new_packets() {
                    // Sends the alert.
                    let _ = tls.write_tls(&mut NonBlocking(&self.socket));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<&rustls::Connection> {
        self.tls.as_deref()
    }

    /// Waits for an event, or fails with `TimedOut`.
    fn wait(&self, events: PollFlags, deadline: Instant) -> io::Result<()> {
        match wait_for(&self.socket, events, deadline)?.is_empty() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }

    /// Reads once, waiting until `deadline` at most. For the opening handshake.
    pub(crate) fn read_until(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            let mut read = ReadBuf::new(buffer);
            let (polled, _) = with_read_mode(ReadMode::WaitUntil(deadline), || self.read(&mut read));
            match polled {
                Poll::Ready(Ok(())) => return Ok(read.filled().len()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending if Instant::now() >= deadline => return Err(io::ErrorKind::TimedOut.into()),
                Poll::Pending => {}
            }
        }
    }

    /// Writes all bytes until `deadline`. For the opening handshake.
    pub(crate) fn write_all_until(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        loop {
            let polled = match bytes.is_empty() {
                true => self.flush_tls(),
                false => self.write(bytes).map_ok(|len| bytes = &bytes[len..]),
            };
            match polled {
                Poll::Ready(done) => {
                    done?;
                    if bytes.is_empty() && !self.wants_flush() {
                        return Ok(());
                    }
                }
                Poll::Pending => self.wait(PollFlags::OUT, deadline)?,
            }
        }
    }

    fn wants_flush(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        #[cfg(not(feature = "tls"))]
        false
    }

    fn read(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let len = buffer.remaining().min(READ_LEN_MAX);
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return self.read_tls(buffer, len);
        }
        let read = self.read_socket(buffer.initialize_unfilled_to(len));
        read.map_ok(|len| buffer.advance(len))
    }

    #[cfg(feature = "tls")]
    fn read_tls(&mut self, buffer: &mut ReadBuf<'_>, len: usize) -> Poll<io::Result<()>> {
        let Some(mut tls) = self.tls.take() else {
            return Poll::Ready(Ok(()));
        };
        let read = loop {
            match tls.reader().read(buffer.initialize_unfilled_to(len)) {
                Ok(len) => {
                    buffer.advance(len);
                    break Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => break Poll::Ready(Err(error)),
            }
            let mut socket = ReadAsAllowed(self);
            match tls.read_tls(&mut socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Poll::Pending,
                Err(error) => break Poll::Ready(Err(error)),
            }
            if let Err(error) = tls.process_new_packets() {
                let _ = tls.write_tls(&mut NonBlocking(&self.socket));
                break Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        };
        self.tls = Some(tls);
        read
    }

    /// Reads once from the socket, as [`READ_MODE`] allows.
    fn read_socket(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let deadline = match READ_MODE.get() {
            ReadMode::Never => return Poll::Pending,
            ReadMode::NonBlocking | ReadMode::HasWaited => {
                return ready_unless_blocked(recv_now(&self.socket, buffer));
            }
            ReadMode::WaitUntil(deadline) => deadline,
        };
        READ_MODE.set(ReadMode::HasWaited);
        if self.is_full {
            // Waits for either direction, and lets the connection write.
            let events = wait_for(&self.socket, PollFlags::IN | PollFlags::OUT, deadline)?;
            self.is_full = !events.contains(PollFlags::OUT);
            return ready_unless_blocked(recv_now(&self.socket, buffer));
        }
        let wait = deadline.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return ready_unless_blocked(recv_now(&self.socket, buffer));
        }
        if self.read_timeout > wait || self.read_timeout < wait / 2 {
            self.read_timeout = match wait > COARSE_WAIT_MIN {
                true => wait / 4 * 3,
                false => wait.max(Duration::from_millis(1)),
            };
            self.socket.set_read_timeout(self.read_timeout)?;
        }
        ready_unless_blocked(self.socket.read(buffer))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            use std::io::Write as _;
            let written = tls.writer().write(bytes)?;
            let flushed = self.flush_tls();
            return match (written, flushed) {
                (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (0, Poll::Pending) => Poll::Pending,
                // The buffer of the session was full and is empty now.
                (0, Poll::Ready(Ok(()))) => Poll::Ready(match &mut self.tls {
                    Some(tls) => tls.writer().write(bytes),
                    None => Ok(0),
                }),
                (written, _) => Poll::Ready(Ok(written)),
            };
        }
        let written = ready_unless_blocked(send_now(&self.socket, bytes));
        self.is_full = written.is_pending();
        written
    }

    /// Writes what the TLS session has encrypted.
    fn flush_tls(&mut self) -> Poll<io::Result<()>> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut NonBlocking(&self.socket)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.is_full = true;
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            self.is_full = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for BlockingStream {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.read(buffer)
    }
}

impl AsyncWrite for BlockingStream {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.write(first.map_or(&[], |slice| slice));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let written = retry(|| sendmsg(&self.socket, slices, &mut SendAncillaryBuffer::default(), flags));
        let written = ready_unless_blocked(written);
        self.is_full = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flush_tls()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut this.tls {
            tls.send_close_notify();
            let _ = this.flush_tls();
        }
        Poll::Ready(this.socket.shutdown(Shutdown::Write))
    }
}

/// Waits until `deadline` for events of a socket. Returns those that occurred; errors count as all of them.
pub(crate) fn wait_for(socket: &Socket, events: PollFlags, deadline: Instant) -> io::Result<PollFlags> {
    loop {
        let wait = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the deadline has passed afterwards.
        let timeout = Timespec::try_from(wait + Duration::from_micros(500)).ok();
        let mut fds = [PollFd::new(socket, events)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Ok(PollFlags::empty()),
            Ok(_) => {
                let occurred = fds[0].revents();
                return Ok(
                    match occurred.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
                        true => events,
                        false => occurred,
                    },
                );
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn recv_now(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| recv(socket, &mut *buffer, RecvFlags::DONTWAIT).map(|(len, _)| len))
}

fn send_now(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    retry(|| send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

fn ready_unless_blocked(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        // A timeout of the socket is reported as either, depending on the system.
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Poll::Pending,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// The socket for a TLS session that writes or reads without waiting.
#[cfg(feature = "tls")]
struct NonBlocking<'a>(&'a Socket);

#[cfg(feature = "tls")]
impl io::Read for NonBlocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        recv_now(self.0, buffer)
    }
}

#[cfg(feature = "tls")]
impl io::Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send_now(self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The socket for a TLS session that reads as [`READ_MODE`] allows.
#[cfg(feature = "tls")]
struct ReadAsAllowed<'a>(&'a mut BlockingStream);

#[cfg(feature = "tls")]
impl io::Read for ReadAsAllowed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read_socket(buffer) {
            Poll::Ready(read) => read,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}
