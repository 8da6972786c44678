//! Limits and deadlines, the same for clients and servers.

use std::sync::Arc;
use std::time::Duration;

use sockeye_proto::deflate::DeflateConfig;
use sockeye_proto::handshake::HandshakeLimits;
use sockeye_proto::{Config, Keepalive};

use crate::runtime::Runtime;

/// How much a peer may ask of this endpoint. Every limit has a default and none is infinite.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest message that is received, in bytes, all fragments together. Default 16 MiB; beyond it, the
    /// connection is closed with 1009.
    ///
    /// Raise it for large transfers, lower it where messages are known to be small: a hostile peer can make one
    /// connection hold up to twice this while a message arrives. From 1 MiB on, room for 16 MiB more is reserved at
    /// once, which takes addresses but no memory before it is needed.
    pub message_size_max: u64,
    /// How many empty fragments of a message may come in a row. Default 1,000; then 1008.
    pub empty_fragments_max: u32,
    /// How many bytes may wait to be written before [`feed`](crate::WebSocket::feed) and
    /// [`send`](crate::WebSocket::send) wait. Default 1 MiB. A message that is larger waits until it would be alone.
    pub write_buffer_max: usize,
    /// How many bytes of messages are received ahead of [`recv`](crate::WebSocket::recv) while a
    /// [`send`](crate::WebSocket::send), [`feed`](crate::WebSocket::feed) or [`flush`](crate::WebSocket::flush) waits for
    /// the peer. Default 8 MiB, beside the message that is arriving.
    ///
    /// Without this, two peers that both send more than the network holds before they receive would wait for each other.
    /// When it is full, nothing is read until the application receives; if the peer takes nothing meanwhile,
    /// [`Timeouts::write`] ends the connection. Lower it on a server whose clients send little: a client that sends and
    /// does not read can make a waiting send hold this much.
    pub read_ahead_max: usize,
    /// How many bytes a second a peer must take of what waits for it, on average over each [`Timeouts::write`]. Default
    /// 1 KiB; a slower peer is dropped. 0: any progress is enough.
    ///
    /// This bounds how long a peer may draw out what waits: 1 MiB for some 17 minutes.
    pub write_rate_min: u32,
    /// The size of a request or response head, in bytes. Default 16 KiB; a request beyond it is answered with 431.
    pub head_size_max: usize,
    /// The number of header fields in a request or response. Default 100; a request beyond it is answered with 431.
    pub header_count_max: usize,
    /// How much of the body of a refusal a client keeps, in bytes. Default 16 KiB; the rest is cut off.
    pub refusal_body_size_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let connection = sockeye_proto::Limits::default();
        let handshake = HandshakeLimits::default();
        Self {
            message_size_max: connection.message_size_max,
            empty_fragments_max: connection.empty_fragments_max,
            write_buffer_max: 1024 * 1024,
            read_ahead_max: 8 * 1024 * 1024,
            write_rate_min: 1024,
            head_size_max: handshake.head_size_max,
            header_count_max: handshake.header_count_max,
            refusal_body_size_max: handshake.body_size_max,
        }
    }
}

/// How long things may take. Every wait has a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Name resolution and TCP connection of a client. Default 10 s.
    pub connect: Duration,
    /// The opening handshake, TLS included, from the first byte to the last; on a server until the request is there, and
    /// once more for the response, when the application has decided. Default 10 s.
    pub handshake: Duration,
    /// Everything that a client does to open a connection: name resolution, TCP, TLS and the opening handshake together.
    /// Default `None`: no limit beyond [`connect`](Self::connect) and [`handshake`](Self::handshake).
    ///
    /// Set it where a caller is promised an answer within a given time. Unlike wrapping the call in `tokio::time::timeout`,
    /// this keeps the error that names the phase, and the refusal received so far.
    pub open: Option<Duration>,
    /// Stall timeout: the connection fails if the peer reads slower than [`Limits::write_rate_min`] over this period while
    /// bytes wait for it. Default 10 s.
    pub write: Duration,
    /// How long the peer may take to answer our close frame, counted from when that was written. Default 5 s; then TCP is
    /// closed without it. Until the close frame is written, behind what was queued before it, [`write`](Self::write)
    /// applies.
    pub close: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            open: None,
            write: Duration::from_secs(10),
            close: Config::default().close_timeout,
        }
    }
}

/// How much of a compressed message is inflated before other tasks have their turn: about half a millisecond of work.
const INFLATE_STEP_MAX: usize = 256 * 1024;

/// What a builder collects.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) deflate: Option<DeflateConfig>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            keepalive: Some(Keepalive::default()),
            deflate: None,
        }
    }
}

impl Options {
    pub(crate) fn handshake_limits(&self) -> HandshakeLimits {
        let mut limits = HandshakeLimits::default();
        limits.head_size_max = self.limits.head_size_max;
        limits.header_count_max = self.limits.header_count_max;
        limits.body_size_max = self.limits.refusal_body_size_max;
        limits
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        let mut connection = Config::default();
        connection.limits.message_size_max = self.limits.message_size_max;
        connection.limits.empty_fragments_max = self.limits.empty_fragments_max;
        connection.keepalive = self.keepalive.clone();
        connection.close_timeout = self.timeouts.close;
        connection.inflate_step_max = INFLATE_STEP_MAX;
        Arc::new(Settings {
            runtime: Runtime::default(),
            connection: Arc::new(connection),
            write_buffer_max: self.limits.write_buffer_max,
            read_ahead_max: self.limits.read_ahead_max,
            write_timeout: self.timeouts.write,
            write_taken_min: taken_min(self.limits.write_rate_min, self.timeouts.write),
        })
    }
}

/// How many bytes a peer must take within `time` at a rate of so many bytes a second.
fn taken_min(rate_min: u32, time: Duration) -> u64 {
    u64::try_from(time.as_millis() * u128::from(rate_min) / 1000).unwrap_or(u64::MAX)
}

/// What every connection of a client or server shares.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) runtime: Runtime,
    pub(crate) connection: Arc<Config>,
    pub(crate) write_buffer_max: usize,
    pub(crate) read_ahead_max: usize,
    pub(crate) write_timeout: Duration,
    /// How many bytes a peer must take within `write_timeout`.
    pub(crate) write_taken_min: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_default_is_infinite() {
        let Limits {
            message_size_max,
            empty_fragments_max,
            write_buffer_max,
            read_ahead_max,
            write_rate_min,
            head_size_max,
            header_count_max,
            refusal_body_size_max,
        } = Limits::default();
        assert!(message_size_max <= 1 << 30 && write_buffer_max <= 1 << 30 && read_ahead_max <= 1 << 30);
        assert!(write_rate_min > 0);
        assert!(head_size_max <= 1 << 20 && refusal_body_size_max <= 1 << 20);
        assert!(header_count_max <= 1000 && empty_fragments_max <= 1 << 16);
        let Timeouts {
            connect,
            handshake,
            // Limits the two above together, which have limits of their own.
            open: _,
            write,
            close,
        } = Timeouts::default();
        for timeout in [connect, handshake, write, close] {
            assert!(timeout <= Duration::from_secs(60));
        }
        assert!(Options::default().keepalive.is_some());
    }
}
