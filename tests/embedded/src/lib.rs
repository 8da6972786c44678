//! A client for a device without an operating system: the protocol over anything that implements `embedded-io`, such as
//! a serial line to a modem or a TCP stack.
//!
//! The device provides a clock, a source of random bytes and a global allocator. Its main loop calls
//! [`Client::poll`], which never waits. Compression needs `std`.

#![no_std]

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use embedded_io::{Read, ReadReady, Write};
use sockeye_proto::handshake::{ClientProgress, ClientRequest, HandshakeError, Key, Uri};
use sockeye_proto::{Config, Connection, Data, Event, Instant, MaskingKey, Role, SendError, TransportAction};

/// What the device provides.
#[derive(Clone, Copy)]
pub struct Device {
    /// The time since the device was started.
    pub uptime: fn() -> Duration,
    /// Unpredictable bytes, from a hardware random number generator.
    pub random: fn() -> [u8; 16],
    /// As `random`: a new key for each frame (RFC 6455 §10.3).
    pub mask: fn() -> MaskingKey,
}

/// An open WebSocket.
pub struct Client<T> {
    io: T,
    connection: Connection,
    device: Device,
    /// What arrived with the response.
    read_buf: Vec<u8>,
    out: Vec<u8>,
}

/// Why a connection failed.
#[derive(Debug)]
pub enum Error<E> {
    /// The line.
    Io(E),
    /// The URL or the server's response is invalid, or the server did not accept the request.
    Handshake(HandshakeError),
    /// The server answered with this status instead of 101.
    Rejected(u16),
    InvalidUrl,
    /// The message cannot be sent: the connection is closing.
    Send(SendError),
    /// The line ended, or the response took too long.
    Ended,
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

impl<T: Read + ReadReady + Write> Client<T> {
    /// Performs the opening handshake.
    pub fn connect(mut io: T, url: &str, device: Device) -> Result<Self, Error<T::Error>> {
        let uri = Uri::parse(url).map_err(|_| Error::InvalidUrl)?;
        let (request, mut awaiting) = ClientRequest::new(&uri, Key::from_bytes((device.random)())).start();
        io.write_all(&request).map_err(Error::Io)?;
        io.flush().map_err(Error::Io)?;
        let deadline = (device.uptime)() + HANDSHAKE_TIMEOUT;
        let mut buffer = [0; 256];
        let connected = loop {
            if (device.uptime)() > deadline {
                return Err(Error::Ended);
            }
            let len = match io.read_ready().map_err(Error::Io)? {
                true => io.read(&mut buffer).map_err(Error::Io)?,
                false => continue,
            };
            if len == 0 {
                return Err(Error::Ended);
            }
            match awaiting.handle_bytes(&buffer[..len]) {
                ClientProgress::Incomplete(next) => awaiting = next,
                ClientProgress::Connected(connected) => break connected,
                ClientProgress::Rejected(response) => return Err(Error::Rejected(response.status().as_u16())),
                ClientProgress::Failed(error) => return Err(Error::Handshake(error)),
            }
        };
        let now = Instant::from_origin((device.uptime)());
        let connection = Connection::new(Role::Client { mask: device.mask }, Arc::new(Config::default()), now);
        Ok(Self {
            io,
            connection,
            device,
            read_buf: connected.read_buf,
            out: Vec::new(),
        })
    }

    /// Sends a text message.
    pub fn send(&mut self, text: &str) -> Result<(), Error<T::Error>> {
        self.connection
            .send(Data::Text(text), &mut self.out)
            .map_err(Error::Send)?;
        self.write()
    }

    /// Reads what has arrived, passes text messages on, answers pings and keeps deadlines. Returns whether the
    /// connection is open.
    pub fn poll(&mut self, mut on_text: impl FnMut(&str)) -> Result<bool, Error<T::Error>> {
        let mut read_buf = core::mem::take(&mut self.read_buf);
        self.handle_bytes(&mut read_buf, &mut on_text);
        let mut buffer = [0; 256];
        while self.io.read_ready().map_err(Error::Io)? {
            match self.io.read(&mut buffer).map_err(Error::Io)? {
                0 => {
                    self.connection.handle_transport_end();
                    break;
                }
                len => self.handle_bytes(&mut buffer[..len], &mut on_text),
            }
        }
        self.connection.handle_timeout(self.now());
        self.write()?;
        Ok(self.connection.transport_action() == TransportAction::Open)
    }

    fn handle_bytes(&mut self, mut bytes: &mut [u8], on_text: &mut dyn FnMut(&str)) {
        loop {
            let progress = self.connection.handle_bytes(self.now(), bytes);
            let consumed = progress.consumed;
            match progress.event {
                Some(Event::Message { payload, .. }) => {
                    if let Ok(text) = core::str::from_utf8(&payload) {
                        on_text(text);
                    }
                }
                Some(_) => {}
                None => return,
            }
            bytes = &mut bytes[consumed..];
        }
    }

    fn write(&mut self) -> Result<(), Error<T::Error>> {
        self.connection.poll_transmit(&mut self.out);
        self.io.write_all(&self.out).map_err(Error::Io)?;
        self.io.flush().map_err(Error::Io)?;
        self.out.clear();
        self.connection.handle_transmitted(self.now());
        Ok(())
    }

    fn now(&self) -> Instant {
        Instant::from_origin((self.device.uptime)())
    }
}
