//! Well-behaved connections beside the crowd, and the round-trip times of their messages.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::wire;

/// Number of connections.
const COUNT: usize = 20;

/// Maximum time for a reply before the server counts as hung.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Payload of their messages.
const TEXT: &[u8] = b"twenty bytes of text";

/// Open connections that echo one after the other, with one message in flight.
pub(super) struct Neighbours {
    streams: Vec<TcpStream>,
    message: Vec<u8>,
    next: usize,
}

impl Neighbours {
    pub(super) fn connect(address: SocketAddr) -> Result<Self> {
        let streams = (0..COUNT).map(|_| connect(address)).collect::<Result<_>>()?;
        let message = wire::frame(wire::first::TEXT, TEXT);
        Ok(Self {
            streams,
            message,
            next: 0,
        })
    }

    /// Sends echoes for `window` and returns the 99th percentile of the round-trip times.
    pub(super) fn p99(&mut self, window: Duration) -> Result<Duration> {
        let began_at = Instant::now();
        let mut times = Vec::new();
        while began_at.elapsed() < window {
            times.push(self.echo().context("a well-behaved connection failed")?);
        }
        times.sort_unstable();
        Ok(times[(times.len() - 1) * 99 / 100])
    }

    fn echo(&mut self) -> Result<Duration> {
        self.next = (self.next + 1) % COUNT;
        let stream = &mut self.streams[self.next];
        let began_at = Instant::now();
        stream.write_all(&self.message)?;
        let mut reply = read_frame(stream)?;
        // Between two windows a neighbour may be idle long enough to be pinged.
        while reply.0 == wire::first::PING {
            reply = read_frame(stream)?;
        }
        let took = began_at.elapsed();
        ensure!(
            reply == (wire::first::TEXT, TEXT.to_vec()),
            "unexpected reply {reply:02x?}"
        );
        Ok(took)
    }
}

/// The first byte and the payload of a short server frame, which is not masked.
fn read_frame(stream: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    let mut header = [0; 2];
    stream.read_exact(&mut header)?;
    let mut payload = vec![0; usize::from(header[1] & 127)];
    stream.read_exact(&mut payload)?;
    Ok((header[0], payload))
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    stream.write_all(&wire::request())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    ensure!(
        answer.starts_with(b"HTTP/1.1 101 "),
        "the server rejected a valid request"
    );
    Ok(stream)
}
