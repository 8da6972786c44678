//! Limits and timeouts, the same for clients and servers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sockeye_proto::deflate::DeflateConfig;
use sockeye_proto::handshake::HandshakeLimits;
use sockeye_proto::{Config, Keepalive};

use crate::runtime::Runtime;

/// Limits on the memory and work that a peer can cause. Every limit has a finite default.
///
/// ```
/// # use sockeye::Limits;
/// let limits = Limits::default().message_size_max(64 * 1024).write_buffer_max(256 * 1024);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum size of a received message in bytes, all fragments together. Default 16 MiB. The connection fails with
    /// 1009 if a message exceeds it.
    ///
    /// Raise it for large transfers; lower it where messages are known to be small. While a message arrives, a hostile
    /// peer can make one connection hold up to twice this. From 1 MiB on, 16 MiB more of address space is reserved at
    /// once; the memory is only used as the message arrives.
    pub message_size_max: u64,
    /// Maximum number of consecutive empty fragments. Default 1,000. The connection fails with 1008 beyond it.
    pub empty_fragments_max: u32,
    /// Maximum number of queued bytes before [`feed`](crate::WebSocket::feed) and [`send`](crate::WebSocket::send)
    /// wait. Default 1 MiB. A message larger than this waits until nothing else is queued.
    pub write_buffer_max: usize,
    /// Maximum number of bytes received ahead of [`recv`](crate::WebSocket::recv) while a
    /// [`send`](crate::WebSocket::send), [`feed`](crate::WebSocket::feed) or [`flush`](crate::WebSocket::flush) waits
    /// for the peer. Default 8 MiB. Does not include the message that is arriving.
    ///
    /// Reading ahead prevents a deadlock between two peers that both send more than the network buffers before they
    /// receive. Once the limit is reached, nothing is read until the application receives; if the peer takes no bytes
    /// meanwhile, [`Timeouts::write`] ends the connection. Lower it on a server whose clients send little: a client
    /// that sends without reading can make a waiting send hold this much.
    pub read_ahead_max: usize,
    /// Minimum rate in bytes per second at which a peer must take queued bytes, averaged over [`Timeouts::write`].
    /// Default 1 KiB/s. A slower peer is disconnected. With 0, any progress is enough.
    ///
    /// This limits how long a peer can take to drain the queue: about 17 minutes for 1 MiB.
    pub write_rate_min: u32,
    /// Maximum size of a request or response head in bytes. Default 16 KiB. A server answers larger requests with 431.
    pub head_size_max: usize,
    /// Maximum number of header fields in a request or response. Default 100. A server answers requests with more with
    /// 431.
    pub header_count_max: usize,
    /// Maximum size in bytes of a rejection's body that a client keeps. Default 16 KiB. The rest is truncated.
    pub rejection_body_size_max: usize,
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
            rejection_body_size_max: handshake.body_size_max,
        }
    }
}

/// Chainable setters, one for each field. The field documents unit and default.
impl Limits {
    /// Sets [`message_size_max`](field@Self::message_size_max).
    #[must_use]
    pub fn message_size_max(mut self, value: u64) -> Self {
        self.message_size_max = value;
        self
    }

    /// Sets [`empty_fragments_max`](field@Self::empty_fragments_max).
    #[must_use]
    pub fn empty_fragments_max(mut self, value: u32) -> Self {
        self.empty_fragments_max = value;
        self
    }

    /// Sets [`write_buffer_max`](field@Self::write_buffer_max).
    #[must_use]
    pub fn write_buffer_max(mut self, value: usize) -> Self {
        self.write_buffer_max = value;
        self
    }

    /// Sets [`read_ahead_max`](field@Self::read_ahead_max).
    #[must_use]
    pub fn read_ahead_max(mut self, value: usize) -> Self {
        self.read_ahead_max = value;
        self
    }

    /// Sets [`write_rate_min`](field@Self::write_rate_min).
    #[must_use]
    pub fn write_rate_min(mut self, value: u32) -> Self {
        self.write_rate_min = value;
        self
    }

    /// Sets [`head_size_max`](field@Self::head_size_max).
    #[must_use]
    pub fn head_size_max(mut self, value: usize) -> Self {
        self.head_size_max = value;
        self
    }

    /// Sets [`header_count_max`](field@Self::header_count_max).
    #[must_use]
    pub fn header_count_max(mut self, value: usize) -> Self {
        self.header_count_max = value;
        self
    }

    /// Sets [`rejection_body_size_max`](field@Self::rejection_body_size_max).
    #[must_use]
    pub fn rejection_body_size_max(mut self, value: usize) -> Self {
        self.rejection_body_size_max = value;
        self
    }
}

/// Timeouts for connecting, the handshakes and writing. No wait is unbounded.
///
/// ```
/// # use sockeye::Timeouts;
/// # use std::time::Duration;
/// let timeouts = Timeouts::default().connect(Duration::from_secs(3)).close(Duration::from_secs(1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Timeout for name resolution and the TCP connection of a client, and then for the answer of a
    /// [proxy](crate::Proxy). Default 10 s.
    pub connect: Duration,
    /// Timeout for the opening handshake, including TLS. Default 10 s. On a server it limits receiving the request, and
    /// then again sending the response once the application has decided.
    pub handshake: Duration,
    /// Timeout for opening a client connection as a whole: name resolution, TCP, proxy, TLS, the opening handshake and
    /// redirects. Default `None`: only [`connect`](Self::connect) and [`handshake`](Self::handshake) apply.
    ///
    /// Set it to guarantee an answer within a given time. Unlike `tokio::time::timeout` around the call, it keeps the
    /// error that names the phase, and a rejection that was received in part.
    pub connect_total: Option<Duration>,
    /// Timeout for a stalled write: the connection fails if the peer reads slower than [`Limits::write_rate_min`] over
    /// this period while bytes are queued. Default 10 s.
    pub write: Duration,
    /// Timeout for the peer's answer to our close frame, counted from when that frame was written. Default 5 s. TCP is
    /// closed when it expires. Until the close frame is written, [`write`](Self::write) applies.
    pub close: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            connect_total: None,
            write: Duration::from_secs(10),
            close: Config::default().close_timeout,
        }
    }
}

/// Chainable setters, one for each field. The field documents unit and default.
impl Timeouts {
    /// Sets [`connect`](field@Self::connect).
    #[must_use]
    pub fn connect(mut self, value: Duration) -> Self {
        self.connect = value;
        self
    }

    /// Sets [`handshake`](field@Self::handshake).
    #[must_use]
    pub fn handshake(mut self, value: Duration) -> Self {
        self.handshake = value;
        self
    }

    /// Sets [`connect_total`](field@Self::connect_total).
    #[must_use]
    pub fn connect_total(mut self, value: impl Into<Option<Duration>>) -> Self {
        self.connect_total = value.into();
        self
    }

    /// Sets [`write`](field@Self::write).
    #[must_use]
    pub fn write(mut self, value: Duration) -> Self {
        self.write = value;
        self
    }

    /// Sets [`close`](field@Self::close).
    #[must_use]
    pub fn close(mut self, value: Duration) -> Self {
        self.close = value;
        self
    }
}

/// Number of bytes inflated from a message before the task yields: about half a millisecond of work.
const INFLATE_STEP_MAX: usize = 256 * 1024;

/// The options common to client and server builders.
#[derive(Clone, Debug)]
pub(crate) struct CommonOptions {
    pub(crate) runtime: Runtime,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) deflate: Option<DeflateConfig>,
    pub(crate) measures_latency: bool,
}

impl Default for CommonOptions {
    fn default() -> Self {
        Self {
            runtime: Runtime::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            keepalive: Some(Keepalive::default()),
            deflate: None,
            measures_latency: false,
        }
    }
}

impl CommonOptions {
    pub(crate) fn handshake_limits(&self) -> HandshakeLimits {
        let mut limits = HandshakeLimits::default();
        limits.head_size_max = self.limits.head_size_max;
        limits.header_count_max = self.limits.header_count_max;
        limits.body_size_max = self.limits.rejection_body_size_max;
        limits
    }

    pub(crate) fn connection_group(&self) -> Arc<ConnectionGroup> {
        self.connection_group_for(self.runtime)
    }

    pub(crate) fn connection_group_for(&self, runtime: Runtime) -> Arc<ConnectionGroup> {
        let mut connection = Config::default();
        connection.limits.message_size_max = self.limits.message_size_max;
        connection.limits.empty_fragments_max = self.limits.empty_fragments_max;
        connection.keepalive = self.keepalive.clone();
        connection.close_timeout = self.timeouts.close;
        connection.inflate_step_max = INFLATE_STEP_MAX;
        Arc::new(ConnectionGroup {
            runtime,
            connection: Arc::new(connection),
            write_buffer_max: self.limits.write_buffer_max,
            read_ahead_max: self.limits.read_ahead_max,
            write_timeout: self.timeouts.write,
            is_shutting_down: AtomicBool::new(false),
            measures_latency: self.measures_latency,
            write_taken_min: taken_min(self.limits.write_rate_min, self.timeouts.write),
        })
    }
}

/// The number of bytes that a peer must take within `time` at the minimum rate. Saturates at 4 GiB.
fn taken_min(rate_min: u32, time: Duration) -> u32 {
    u32::try_from(time.as_millis() * u128::from(rate_min) / 1000).unwrap_or(u32::MAX)
}

/// The connections of one client or server: their shared settings, and whether they are shutting down.
#[derive(Debug)]
pub(crate) struct ConnectionGroup {
    pub(crate) runtime: Runtime,
    pub(crate) connection: Arc<Config>,
    pub(crate) write_buffer_max: usize,
    pub(crate) read_ahead_max: usize,
    pub(crate) write_timeout: Duration,
    /// The number of bytes that a peer must take within `write_timeout`.
    pub(crate) write_taken_min: u32,
    is_shutting_down: AtomicBool,
    /// Whether connections keep histograms of their round trips and queue waits.
    pub(crate) measures_latency: bool,
}

impl ConnectionGroup {
    /// Makes every connection of the group close with 1001 when it is next polled by a receiver.
    pub(crate) fn request_shutdown(&self) {
        self.is_shutting_down.store(true, Relaxed);
    }

    #[inline]
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.is_shutting_down.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_finite() {
        let Limits {
            message_size_max,
            empty_fragments_max,
            write_buffer_max,
            read_ahead_max,
            write_rate_min,
            head_size_max,
            header_count_max,
            rejection_body_size_max,
        } = Limits::default();
        assert!(message_size_max <= 1 << 30 && write_buffer_max <= 1 << 30 && read_ahead_max <= 1 << 30);
        assert!(write_rate_min > 0);
        assert!(head_size_max <= 1 << 20 && rejection_body_size_max <= 1 << 20);
        assert!(header_count_max <= 1000 && empty_fragments_max <= 1 << 16);
        let Timeouts {
            connect,
            handshake,
            // Only lowers the two limits above, which are finite.
            connect_total: _,
            write,
            close,
        } = Timeouts::default();
        for timeout in [connect, handshake, write, close] {
            assert!(timeout <= Duration::from_secs(60));
        }
        assert!(CommonOptions::default().keepalive.is_some());
    }
}
