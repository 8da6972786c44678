//! One connection: its handshake, partly received frames, and unsent bytes.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::frame::{self, Frame};

/// Maximum size of a request, and of the bytes queued for a subscriber, which is disconnected beyond it.
const HEAD_SIZE_MAX: usize = 16 * 1024;
const UNSENT_MAX: usize = 1024 * 1024;

/// RFC 6455 §1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(crate) struct Connection {
    tcp: TcpStream,
    is_open: bool,
    /// A partly received request or, later, frame.
    partial: Vec<u8>,
    /// Bytes that the socket did not accept, and how many of them have been sent since.
    unsent: Vec<u8>,
    sent: usize,
}

impl Connection {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            is_open: false,
            partial: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
        }
    }

    /// Sends queued bytes, reads once, and adds the messages to the batch. Fails when the connection is over.
    pub(crate) fn handle(&mut self, buffer: &mut [u8], batch: &mut Vec<u8>) -> io::Result<()> {
        if self.is_blocked() {
            self.send_unsent()?;
        }
        let len = match self.tcp.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.is_open && self.partial.is_empty() {
            let used = self.take_frames(&mut buffer[..len], batch)?;
            self.partial.extend_from_slice(&buffer[used..len]);
            return Ok(());
        }
        self.partial.extend_from_slice(&buffer[..len]);
        if !self.is_open && !self.open()? {
            return Ok(());
        }
        let mut partial = std::mem::take(&mut self.partial);
        let used = self.take_frames(&mut partial, batch)?;
        if used < partial.len() {
            partial.drain(..used);
            self.partial = partial;
        }
        Ok(())
    }

    /// Sends in one call if nothing is queued; queues what the socket does not accept.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = match self.is_blocked() {
            true => 0,
            false => send(&mut self.tcp, bytes)?,
        };
        if self.unsent.len() - self.sent + bytes.len() - sent > UNSENT_MAX.max(bytes.len()) {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    pub(crate) fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn send_unsent(&mut self) -> io::Result<()> {
        self.sent += send(&mut self.tcp, &self.unsent[self.sent..])?;
        if self.sent == self.unsent.len() {
            (self.unsent, self.sent) = (Vec::new(), 0);
        }
        Ok(())
    }

    /// Answers the request once it is complete. Returns whether it was.
    fn open(&mut self) -> io::Result<bool> {
        let Some(end) = self.partial.windows(4).position(|window| window == b"\r\n\r\n") else {
            return match self.partial.len() {
                ..=HEAD_SIZE_MAX => Ok(false),
                _ => Err(ErrorKind::InvalidData.into()),
            };
        };
        let head: Vec<u8> = self.partial.drain(..end + 4).collect();
        let head = std::str::from_utf8(&head).map_err(io::Error::other)?;
        let key = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim()))
            .ok_or(ErrorKind::InvalidData)?;
        // RFC 6455 §4.2.2 (5.4).
        let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
        let accept = STANDARD.encode(digest);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.send(answer.as_bytes())?;
        self.is_open = true;
        Ok(true)
    }

    /// Handles all complete frames and returns their length.
    fn take_frames(&mut self, bytes: &mut [u8], batch: &mut Vec<u8>) -> io::Result<usize> {
        let mut used = 0;
        while let Some(len) = frame::take(&mut bytes[used..], |frame| match frame {
            Frame::Message(opcode, payload) => {
                frame::encode(opcode, payload, batch);
                Ok(())
            }
            Frame::Ping(payload) => {
                let mut pong = Vec::new();
                frame::encode(frame::PONG, payload, &mut pong);
                self.send(&pong)
            }
            Frame::Pong => Ok(()),
            Frame::Close(payload) => {
                let mut close = Vec::new();
                frame::encode(frame::CLOSE, payload, &mut close);
                self.send(&close)?;
                Err(ErrorKind::ConnectionAborted.into())
            }
        })? {
            used += len;
        }
        Ok(used)
    }
}

/// Calls `send` once and returns how many bytes the socket accepted.
fn send(tcp: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match tcp.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
}
