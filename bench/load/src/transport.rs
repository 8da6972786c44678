//! A socket with or without TLS. Non-blocking after [`Transport::start`].

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::net::{RecvFlags, SendFlags};
use rustls::{ClientConnection, pki_types::ServerName};
use socket2::{Domain, Socket, Type};

use crate::plan::Target;

/// Deadline for each step of opening a connection.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of plain bytes that wait for the socket.
const TLS_BUFFER_LEN: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Transport {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

/// Receive buffers that all connections share.
#[derive(Debug)]
pub(crate) struct Room {
    /// Bytes that are compared.
    pub(crate) seen: Vec<u8>,
    /// Target for bytes that the kernel discards. Never touched, and so never backed by memory.
    unseen: Vec<u8>,
    /// TLS records.
    sealed: Vec<u8>,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self {
            seen: vec![0; 256 * 1024],
            unseen: vec![0; 16 << 20],
            sealed: vec![0; 64 * 1024],
        }
    }
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// This many bytes; there may be more.
    Some(usize),
    /// This many bytes, and no more until the socket is readable again.
    Last(usize),
}

impl Transport {
    /// Connects and completes the TLS handshake if there is one. Blocks, with deadlines, until [`Transport::start`].
    pub(crate) fn connect(target: &Target, idx: usize) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, None)?;
        if let Some(len) = target.send_buffer {
            socket.set_send_buffer_size(len)?;
        }
        if target.sources > 1 {
            let last = (idx % usize::from(target.sources)) as u8 + 1;
            let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0);
            socket.bind(&SocketAddr::from(source).into())?;
        }
        socket.connect_timeout(&target.address.into(), OPENING_TIMEOUT)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(OPENING_TIMEOUT))?;
        socket.set_write_timeout(Some(OPENING_TIMEOUT))?;
        let mut transport = Self {
            tcp: socket.into(),
            tls: None,
        };
        if let Some(config) = &target.tls {
            let mut tls = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
            tls.set_buffer_limit(Some(TLS_BUFFER_LEN));
            while tls.is_handshaking() {
                tls.complete_io(&mut transport.tcp).context("TLS handshake")?;
            }
            transport.tls = Some(Box::new(tls));
        }
        Ok(transport)
    }

    /// Switches to non-blocking mode.
    pub(crate) fn start(&self) -> io::Result<()> {
        self.tcp.set_nonblocking(true)
    }

    /// Sends bytes and returns how many were accepted, 0 if the socket is full.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return or_none(rustix::net::send(&self.tcp, bytes, SendFlags::NOSIGNAL).map_err(Into::into));
        };
        let len = tls.writer().write(bytes)?;
        self.flush()?;
        Ok(len)
    }

    /// Whether TLS has records that the socket has not accepted.
    pub(crate) fn wants_to_send(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Writes pending TLS records to the socket. Returns whether all were written.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        while tls.wants_write() {
            if or_none(tls.write_tls(&mut self.tcp))? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Receives bytes into `room.seen`.
    pub(crate) fn receive(&mut self, room: &mut Room) -> io::Result<Received> {
        if self.tls.is_some() {
            return self.receive_tls(room);
        }
        let len = some(rustix::net::recv(&self.tcp, &mut room.seen[..], RecvFlags::empty()).map(|(len, _)| len))?;
        Ok(received(len, room.seen.len()))
    }

    /// Lets the kernel discard what has arrived. TLS records have to be decrypted all the same.
    pub(crate) fn discard(&mut self, room: &mut Room) -> io::Result<Received> {
        if self.tls.is_some() {
            return self.receive_tls(room);
        }
        let len = some(rustix::net::recv(&self.tcp, &mut room.unseen[..], RecvFlags::TRUNC).map(|(_, len)| len))?;
        Ok(received(len, room.unseen.len()))
    }

    fn receive_tls(&mut self, room: &mut Room) -> io::Result<Received> {
        let Some(tls) = &mut self.tls else {
            return Ok(Received::Last(0));
        };
        let sealed = some(rustix::net::recv(&self.tcp, &mut room.sealed[..], RecvFlags::empty()).map(|(len, _)| len))?;
        let mut records = &room.sealed[..sealed];
        let mut len = 0;
        // One read takes at most what fits into the record buffer of the connection.
        while !records.is_empty() {
            tls.read_tls(&mut records)?;
            tls.process_new_packets().map_err(io::Error::other)?;
            loop {
                match tls.reader().read(&mut room.seen[len..]) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(more) => len += more,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(match received(sealed, room.sealed.len()) {
            Received::Some(_) => Received::Some(len),
            Received::Last(_) => Received::Last(len),
        })
    }

    /// Reads in blocking mode.
    pub(crate) fn read_waiting(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.read(bytes),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.tcp).read(bytes),
        }
    }

    /// Writes everything in blocking mode.
    pub(crate) fn write_waiting(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.tcp.write_all(bytes),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.tcp).write_all(bytes),
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

/// After a short read a stream socket is empty, so that no second read is needed.
fn received(len: usize, room: usize) -> Received {
    if len < room {
        Received::Last(len)
    } else {
        Received::Some(len)
    }
}

/// The number of bytes received; 0 if none have arrived yet; an error at the end of the stream.
fn some(result: rustix::io::Result<usize>) -> io::Result<usize> {
    match result {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        other => or_none(other.map_err(Into::into)),
    }
}

fn or_none(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        other => other,
    }
}
