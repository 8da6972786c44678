//! Well-behaved connections beside the crowd, and how long their messages take.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::wire;

/// How many.
const COUNT: usize = 20;

/// How long a message may take before the server counts as dead.
const PATIENCE: Duration = Duration::from_secs(10);

/// What they send.
const TEXT: &[u8] = b"twenty bytes of text";

/// Open connections that echo in turn, one message in flight.
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

    /// Echoes for so long: the time that one message in a hundred exceeds.
    pub(super) fn p99(&mut self, window: Duration) -> Result<Duration> {
        let began_at = Instant::now();
        let mut times = Vec::new();
        while began_at.elapsed() < window {
            times.push(self.echo().context("a well-behaved connection")?);
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
        // Between two windows a neighbour may be silent for so long that the server asks after it.
        while reply.0 == wire::first::PING {
            reply = read_frame(stream)?;
        }
        let took = began_at.elapsed();
        ensure!(reply == (wire::first::TEXT, TEXT.to_vec()), "was answered {reply:02x?}");
        Ok(took)
    }
}

/// The first byte and the payload of a server's short frame, which has no masking key.
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
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&wire::request())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    ensure!(
        answer.starts_with(b"HTTP/1.1 101 "),
        "the server refuses a valid request"
    );
    Ok(stream)
}
