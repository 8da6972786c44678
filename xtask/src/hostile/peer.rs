//! One hostile connection that follows a script, a little further at each visit. Nothing here waits.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::wire::Bytes;

/// What a peer does; it begins with a fresh TCP connection.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    /// Whether it reads, and throws away, what the server sends.
    pub(super) reads: bool,
}

/// One thing to do before the next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Sends all of it, as fast as the socket takes it.
    Send(Bytes),
    /// Sends all of it, one byte every so often.
    Trickle(Bytes, Duration),
    /// Waits for the end of the server's answer to the opening handshake.
    AwaitAnswer,
    /// Sends it again and again: as fast as the socket takes it until `fill` bytes have left or none have for a while,
    /// then up to `len` bytes of it every so often.
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
    /// After about so long, half of it for the first peer and one and a half for the last, breaks the connection with a
    /// reset and starts all over on another one.
    ResetAfter(Duration),
}

/// What all peers of a crowd are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Get into position, and stay there.
    Hold,
    /// Done with holding: go on with what the script has after it.
    Released,
}

/// How soon a peer that could not go on is visited again.
const RETRY: Duration = Duration::from_millis(2);

/// After so many visits to no avail, a socket that takes nothing is taken to be full.
const FULL_AFTER: u32 = 100;

/// In the middle of a flood, a peer that reads does so once in so many visits: most times there is nothing.
const READ_EVERY: u32 = 16;

/// How soon one that has nothing to do is visited again.
const IDLE: Duration = Duration::from_millis(200);

/// What makes the kernel's part small for those who do not read, so that what they cause waits in the server: segments
/// as on Ethernet, from whose size the server's kernel derives its send buffer, and little room of their own.
const SEGMENT_LEN: u32 = 1448;
const RECEIVE_BUFFER_LEN: usize = 4 * 1024;
const SEND_BUFFER_LEN: usize = 32 * 1024;

pub(super) struct Peer {
    address: SocketAddr,
    script: Arc<Script>,
    /// `None` before it is opened and after it has broken.
    stream: Option<TcpStream>,
    step: usize,
    /// How much of the step's bytes is sent.
    sent: usize,
    /// When the step began.
    since: Option<Instant>,
    /// The end of what was read while the answer is awaited.
    tail: [u8; 4],
    /// When it is to be visited next.
    pub(super) due: Instant,
    /// Between 0 and 1: where in an interval its turn is, so that all of them are spread evenly.
    phase: f64,
    /// How many visits in a row the socket took nothing, while it is filled.
    refusals: u32,
    is_lost: bool,
    /// Whether it has been where it wants to be: holding, trickling, flooding, or once around.
    pub(super) is_settled: bool,
    /// Bytes that the socket took.
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

    /// Does what it can now, and says in `due` when to come again.
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
            // The server is done with it, which is its good right.
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

    /// Breaks the connection so that the server gets a reset, whatever state it is in.
    fn reset(&mut self) -> io::Result<()> {
        if let Some(stream) = self.stream.take() {
            Socket::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        (self.step, self.sent, self.since, self.tail) = (0, 0, None, [0; 4]);
        Ok(())
    }

    /// Whether the socket took any.
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

    /// Reads what there is; false at the end.
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

    /// Whether the server's head has come to its end. Reads no further than that.
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
