//! One connection of a client: everything that arrives is split into frames and lines.

use std::{
    fmt,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};

use crate::wire::{self, PING, PONG, TEXT};

/// The path of the endpoint, the same in Centrifugo and Sockeye.
const PATH: &str = "/connection/websocket";

/// The key of all masked frames. A constant costs the server as much as a random one.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const CLOSE: u8 = 0x88;

/// Maximum length of a response head or frame.
const INPUT_LEN_MAX: usize = 4 << 20;

/// A line of the client protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// The opening handshake is complete.
    Open,
    /// The reply to a command.
    Reply(&'a [u8]),
    /// A push of a channel.
    Push(&'a [u8]),
    /// A ping, which was answered.
    Ping,
}

/// The server did not accept the opening handshake.
#[derive(Debug)]
pub(super) struct Refused {
    head: String,
}

impl Refused {
    /// Whether the server has too many clients or handshakes, and the client may try again.
    pub(super) fn is_temporary(&self) -> bool {
        self.head.starts_with("HTTP/1.1 503 ") || self.head.starts_with("HTTP/1.1 429 ")
    }

    /// When to try again, if the response says so in seconds (RFC 9110 §10.2.3).
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let head = self.head.to_ascii_lowercase();
        let (_, rest) = head.split_once("\r\nretry-after:")?;
        let seconds = rest.lines().next()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refused the handshake: {}", self.head)
    }
}

impl std::error::Error for Refused {}

/// A connection that was opened by [`Client::connect`].
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    address: SocketAddr,
    is_requested: bool,
    is_open: bool,
    /// The beginning of an incomplete response head or frame.
    rest: Vec<u8>,
    /// Bytes that the socket has not accepted.
    unsent: Vec<u8>,
}

impl Client {
    /// Starts to connect. Events of the socket go to [`handle_writable`](Self::handle_writable) and
    /// [`receive`](Self::receive).
    pub(super) fn connect(address: SocketAddr, source: u8) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::from(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, source), 0)).into())?;
        match socket.connect(&address.into()) {
            Err(error) if error.kind() != ErrorKind::WouldBlock && error.raw_os_error() != Some(EINPROGRESS) => {
                return Err(error).context("cannot connect");
            }
            _ => {}
        }
        Ok(Self {
            stream: socket.into(),
            address,
            is_requested: false,
            is_open: false,
            rest: Vec::new(),
            unsent: Vec::new(),
        })
    }

    /// Sends the request when the connection is established, and later what the socket did not accept.
    pub(super) fn handle_writable(&mut self) -> Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error).context("the connection failed");
        }
        if !self.is_requested {
            self.is_requested = true;
            let request = format!(
                "GET {PATH} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                self.address
            );
            self.unsent.extend_from_slice(request.as_bytes());
        }
        self.flush()
    }

    /// Sends lines in one text frame.
    pub(super) fn send(&mut self, lines: &[u8]) -> Result<()> {
        self.send_frame(&wire::client_frame(TEXT, lines, MASK))
    }

    fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.unsent.extend_from_slice(frame);
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.stream.write(&self.unsent[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            // Ten thousand clients keep no buffers.
            self.unsent = Vec::new();
        }
        Ok(())
    }

    /// Reads what has arrived into the shared buffer, answers pings, and passes each line on. Returns whether more may
    /// have arrived.
    pub(super) fn receive(
        &mut self,
        room: &mut [u8],
        mut each: impl FnMut(&mut Self, Line<'_>) -> Result<()>,
    ) -> Result<bool> {
        let len = match self.stream.read(room) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("cannot receive"),
        };
        if self.rest.is_empty() {
            let used = self.parse(&room[..len], &mut each)?;
            self.rest.extend_from_slice(&room[used..len]);
        } else {
            let mut input = std::mem::take(&mut self.rest);
            input.extend_from_slice(&room[..len]);
            ensure!(input.len() <= INPUT_LEN_MAX, "a frame is too long");
            let used = self.parse(&input, &mut each)?;
            if used < input.len() {
                input.drain(..used);
                self.rest = input;
            }
        }
        // After a short read the socket is empty.
        Ok(len == room.len())
    }

    /// Returns the number of bytes in complete frames.
    fn parse(&mut self, input: &[u8], each: &mut impl FnMut(&mut Self, Line<'_>) -> Result<()>) -> Result<usize> {
        let mut used = 0;
        if !self.is_open {
            let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                return Ok(0);
            };
            let head = String::from_utf8_lossy(&input[..end]);
            if !head.starts_with("HTTP/1.1 101 ") {
                return Err(Refused { head: head.into() }.into());
            }
            self.is_open = true;
            used = end + 4;
            each(self, Line::Open)?;
        }
        while let Some((first, payload, len)) = frame(&input[used..])? {
            used += len;
            match first {
                TEXT => {
                    for line in payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                        match line {
                            b"{}" => {
                                self.send(b"{}")?;
                                each(self, Line::Ping)?;
                            }
                            line if line.starts_with(b"{\"id\":") => each(self, Line::Reply(line))?,
                            line => each(self, Line::Push(line))?,
                        }
                    }
                }
                PING => {
                    let pong = wire::client_frame(PONG, payload, MASK);
                    self.send_frame(&pong)?;
                }
                CLOSE => {
                    let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                    bail!("the server closed the connection with {code} {reason}");
                }
                other => bail!("a frame with the first byte {other:#04x}"),
            }
        }
        Ok(used)
    }

    /// Closes the connection with a TCP reset, as a network that fails does.
    pub(super) fn reset(self) -> Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
        Ok(())
    }
}

const EINPROGRESS: i32 = 115;

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The first frame of the input: its first byte, its payload and its length.
fn frame(input: &[u8]) -> Result<Option<(u8, &[u8], usize)>> {
    let [first, second, ..] = *input else {
        return Ok(None);
    };
    let (head, len) = match second {
        126 => match input[2..].first_chunk() {
            Some(len) => (4, u64::from(u16::from_be_bytes(*len))),
            None => return Ok(None),
        },
        127 => match input[2..].first_chunk() {
            Some(len) => (10, u64::from_be_bytes(*len)),
            None => return Ok(None),
        },
        len => (2, u64::from(len)),
    };
    ensure!(second & 0x80 == 0, "a masked frame from the server");
    ensure!(len <= INPUT_LEN_MAX as u64, "a frame of {len} bytes");
    let end = head + len as usize;
    Ok(input.get(head..end).map(|payload| (first, payload, end)))
}

#[cfg(test)]
mod tests {
    use super::{TEXT, frame, wire};

    #[test]
    fn frames_are_split_at_every_length_of_the_input() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; len];
            let mut input = wire::server_frame(TEXT, &payload);
            let end = input.len();
            for cut in [0, 1, 2, 3, end - 1] {
                if cut < end {
                    assert_eq!(frame(&input[..cut]).expect("it is valid"), None, "{len} {cut}");
                }
            }
            input.push(0x81);
            let found = frame(&input).expect("it is valid").expect("it is complete");
            assert_eq!(found, (TEXT, &payload[..], end));
        }
        frame(&[0x81, 0x80, 0, 0, 0, 0]).expect_err("masked");
        frame(&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0]).expect_err("too long");
    }
}
