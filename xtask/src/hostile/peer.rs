//! One hostile connection that follows a script. Each visit advances it without blocking.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::wire::Bytes;

/// What a peer does, starting with a new TCP connection.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    /// Whether the peer reads and discards what the server sends.
    pub(super) reads: bool,
}

/// One step of a script.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Sends all bytes as fast as the socket accepts them.
    Send(Bytes),
    /// Sends all bytes, one per interval.
    Trickle(Bytes, Duration),
    /// Waits for the end of the server's handshake response.
    AwaitAnswer,
    /// Sends the bytes repeatedly: first as fast as the socket accepts them, until `fill` bytes are sent or the socket
    /// stays full, then up to `len` bytes per interval.
    Flood {
        bytes: Bytes,
        len: usize,
        interval: Duration,
        fill: u64,
    },
    /// Does nothing until the mood is [`Mood::Released`].
    Hold,
    /// Closes the sending half of TCP.
    EndSending,
    /// After about this time (half of it for the first peer, one and a half for the last), resets the connection and
    /// starts over with a new one.
    ResetAfter(Duration),
}

/// The phase that all peers of a crowd are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Get into position and stay there.
    Hold,
    /// Continue with the steps after [`Step::Hold`].
    Released,
}

/// Delay before the next visit to a peer that is blocked.
const RETRY: Duration = Duration::from_millis(2);

/// Number of visits without progress after which a socket counts as full.
const FULL_AFTER: u32 = 100;

/// During a flood, a reading peer reads once per this number of visits, because usually there is nothing to read.
const READ_EVERY: u32 = 16;

/// Delay before the next visit to a peer that has nothing to do.
const IDLE: Duration = Duration::from_millis(200);

/// Socket settings of peers that do not read, which keep the kernel's buffers small so that the data queues in the
/// server: the segment size of Ethernet, from which the server's kernel derives its send buffer, and a small receive
/// buffer.
const SEGMENT_LEN: u32 = 1448;
const RECEIVE_BUFFER_LEN: usize = 4 * 1024;
const SEND_BUFFER_LEN: usize = 32 * 1024;

pub(super) struct Peer {
    address: SocketAddr,
    script: Arc<Script>,
    /// `None` before it is opened and after it is closed.
    stream: Option<TcpStream>,
    step: usize,
    /// Number of bytes of the current step already sent.
    sent: usize,
    /// When the current step began.
    since: Option<Instant>,
    /// The last bytes read while waiting for the handshake response.
    tail: [u8; 4],
    /// When the peer is to be visited next.
    pub(super) due: Instant,
    /// Position between 0 and 1 within an interval, so that all peers are spread evenly.
    phase: f64,
    /// Consecutive visits in which the socket accepted nothing while it was being filled.
    refusals: u32,
    is_lost: bool,
    /// Whether the peer reached its position: holding, trickling, flooding, or one full cycle.
    pub(super) is_settled: bool,
    /// Bytes that the socket accepted.
    pub(super) sent_total: u64,
    visits: u32,
    /// Connections opened.
    pub(super) opened_total: u64,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, script: Arc<Script>, phase: f64) -> Self {
        Self {
            address,
            script,
            stream: None,
            step: 0,
            sent: 0,
            since: None,
            tail: [0; 4],
            due: Instant::now(),
            phase,
            refusals: 0,
            is_lost: false,
            is_settled: false,
            sent_total: 0,
            visits: 0,
            opened_total: 0,
        }
    }

    /// Advances the script as far as possible and sets `due` to the time of the next visit.
    pub(super) fn visit(&mut self, now: Instant, mood: Mood) -> io::Result<()> {
        if self.is_lost {
            self.due = now + IDLE;
            return Ok(());
        }
        if self.stream.is_none() {
            self.stream = Some(self.open()?);
            self.opened_total += 1;
        }
        match self.go_on(now, mood) {
            // The server closed the connection, which it may do.
            Err(error) if is_end(&error) => {
                self.is_settled = true;
                self.is_lost = true;
                Ok(())
            }
            other => other,
        }
    }

    fn open(&self) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        if !self.script.reads {
            socket.set_tcp_mss(SEGMENT_LEN)?;
            socket.set_recv_buffer_size(RECEIVE_BUFFER_LEN)?;
            socket.set_send_buffer_size(SEND_BUFFER_LEN)?;
        }
        socket.connect(&self.address.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }

    fn go_on(&mut self, now: Instant, mood: Mood) -> io::Result<()> {
        let script = self.script.clone();
        self.visits = self.visits.wrapping_add(1);
        let is_flooding = matches!(script.steps.get(self.step), Some(Step::Flood { .. }));
        let reads_now = script.reads && (!is_flooding || self.visits.is_multiple_of(READ_EVERY));
        if reads_now && !self.read()? {
            return Err(ErrorKind::ConnectionReset.into());
        }
        loop {
            self.due = now + RETRY;
            match script.steps.get(self.step) {
                None => return self.rest(now + IDLE),
                Some(Step::Send(bytes)) => {
                    if !self.send(&bytes[self.sent..])? {
                        return Ok(());
                    }
                    if self.sent == bytes.len() {
                        self.next_step();
                    }
                }
                Some(Step::Trickle(bytes, interval)) => {
                    self.is_settled = true;
                    if self.since.is_none() {
                        self.since = Some(now);
                        return self.rest(now + interval.mul_f64(self.phase));
                    }
                    self.send(&bytes[self.sent..=self.sent])?;
                    if self.sent < bytes.len() {
                        return self.rest(now + *interval);
                    }
                    self.next_step();
                }
                Some(Step::AwaitAnswer) => {
                    if !self.has_answer()? {
                        return Ok(());
                    }
                    self.next_step();
                }
                Some(Step::Hold) if mood == Mood::Released => self.next_step(),
                Some(Step::Hold) => return self.rest(now + IDLE),
                Some(Step::Flood {
                    bytes,
                    len,
                    interval,
                    fill,
                }) => {
                    return self.flood(now, bytes, *len, *interval, *fill);
                }
                Some(Step::EndSending) => {
                    if let Some(stream) = &self.stream {
                        stream.shutdown(Shutdown::Write)?;
                    }
                    self.next_step();
                }
                Some(Step::ResetAfter(pause)) => {
                    let since = *self.since.get_or_insert(now);
                    let until = since + pause.mul_f64(0.5 + self.phase);
                    if now < until {
                        return self.rest(until);
                    }
                    return self.reset();
                }
            }
        }
    }

    fn rest(&mut self, until: Instant) -> io::Result<()> {
        self.is_settled = true;
        self.due = until;
        Ok(())
    }

    fn next_step(&mut self) {
        self.step += 1;
        self.sent = 0;
        self.since = None;
    }

    fn flood(&mut self, now: Instant, bytes: &[u8], len: usize, interval: Duration, fill: u64) -> io::Result<()> {
        let end = bytes.len().min(self.sent + len);
        let took_any = self.send(&bytes[self.sent..end])?;
        if self.sent == bytes.len() {
            self.sent = 0;
        }
        if self.is_settled {
            self.due = now + interval;
            return Ok(());
        }
        self.refusals = if took_any { 0 } else { self.refusals + 1 };
        if self.sent_total < fill && self.refusals < FULL_AFTER {
            return Ok(());
        }
        self.rest(now + interval.mul_f64(self.phase))
    }

    /// Closes the connection with a reset, whatever its state.
    fn reset(&mut self) -> io::Result<()> {
        if let Some(stream) = self.stream.take() {
            Socket::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        (self.step, self.sent, self.since, self.tail) = (0, 0, None, [0; 4]);
        Ok(())
    }

    /// Returns whether the socket accepted any bytes.
    fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else {
            return Ok(false);
        };
        match stream.write(bytes) {
            Ok(len) => {
                self.sent += len;
                self.sent_total += len as u64;
                Ok(len > 0)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads and discards what has arrived; returns false at the end of the stream.
    fn read(&mut self) -> io::Result<bool> {
        let mut scratch = [0; 4096];
        loop {
            let Some(stream) = &mut self.stream else {
                return Ok(true);
            };
            match stream.read(&mut scratch) {
                Ok(0) => return Ok(false),
                Ok(len) => self.note(&scratch[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns whether the response head is complete. Reads no further than that.
    fn has_answer(&mut self) -> io::Result<bool> {
        while self.tail != *b"\r\n\r\n" {
            let Some(stream) = &mut self.stream else {
                return Ok(false);
            };
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.note(&byte),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.tail != *b"\r\n\r\n" {
                self.tail.rotate_left(1);
                self.tail[3] = *byte;
            }
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    use ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionReset | BrokenPipe | UnexpectedEof | NotConnected
    )
}
