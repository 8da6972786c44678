//! Configuration of a connection: limits and timeouts. All defaults are finite.

use core::time::Duration;

/// Limits on what a peer may send.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum size of a received message, in bytes, summed over all fragments and after decompression. Default 16 MiB.
    ///
    /// A larger message closes the connection with 1009: as soon as a frame header exceeds the limit, or, if the
    /// message is compressed, as soon as its decompressed size does.
    ///
    /// Worst-case memory per connection is twice this limit. Memory grows with the bytes that have arrived (and, for a
    /// compressed message, with what they inflate to), never with a declared length. Once a message exceeds 1 MiB,
    /// capacity grows by at least 16 MiB at a time; the operating system commits those pages only when they are
    /// written.
    ///
    /// With [`ReceiveMode::Chunks`](crate::ReceiveMode::Chunks), uncompressed messages are not stored, and this limit
    /// only bounds their total length. With [`ReceiveMode::Stream`](crate::ReceiveMode::Stream), no message is stored,
    /// and the limit does not apply.
    // [6455-10.4-2]
    pub message_size_max: u64,
    /// Maximum number of consecutive empty fragments in a message. Default 1,000; one more closes the connection with
    /// 1008.
    ///
    /// An empty fragment costs the peer two bytes and this endpoint CPU time, and makes no progress. Real senders
    /// produce at most a few.
    pub empty_fragments_max: u32,
}

impl Limits {
    /// The default limits.
    pub const DEFAULT: Self = Self {
        message_size_max: 16 * 1024 * 1024,
        empty_fragments_max: 1000,
    };
}

/// Chainable setters, one for each field. The field documents the default.
impl Limits {
    /// Sets [`message_size_max`](field@Self::message_size_max), in bytes.
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
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Keepalive settings: when to ping and when to give up on the peer (RFC 6455 §5.5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keepalive {
    /// Time without progress after which a ping is sent. Default 20 s.
    ///
    /// Progress is bytes received, or bytes accepted by a transport whose buffers were full. A shorter interval detects
    /// dead peers sooner and prevents NATs and proxies from dropping the idle connection; a longer one saves battery on
    /// mobile devices.
    pub interval: Duration,
    /// Time without progress, counted from when the ping was written to the transport, after which the connection is
    /// closed as dead. Default 10 s.
    ///
    /// A slow reader sees the ping only after it has drained the data in both kernels' socket buffers. Raise this if
    /// peers read more slowly than about 13 KB/s.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(20),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Chainable setters, one for each field. The field documents the default.
impl Keepalive {
    /// Sets [`interval`](field@Self::interval).
    #[must_use]
    pub fn interval(mut self, value: Duration) -> Self {
        self.interval = value;
        self
    }

    /// Sets [`timeout`](field@Self::timeout).
    #[must_use]
    pub fn timeout(mut self, value: Duration) -> Self {
        self.timeout = value;
        self
    }
}

/// Configuration of a [`Connection`](crate::Connection).
///
/// All limits and timeouts have finite defaults. The `Arc` in [`Connection::new`](crate::Connection::new) lets many
/// connections share one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Limits on what the peer may send.
    pub limits: Limits,
    /// Keepalive settings. `None` disables pings; a peer that disappears without closing TCP is then never detected.
    /// Default: ping after 20 s, close 10 s later.
    pub keepalive: Option<Keepalive>,
    /// Time for the peer to answer our close frame and to close the transport, counted from when our close frame was
    /// written. Default 5 s.
    pub close_timeout: Duration,
    /// Approximate number of bytes that one call inflates before it returns to the caller. Default: unlimited.
    ///
    /// Inflating a 16 MiB message in one call takes about 30 ms. Set this to bound the time per call; see
    /// [`Connection::is_inflating`](crate::Connection::is_inflating).
    pub inflate_step_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            keepalive: Some(Keepalive::default()),
            close_timeout: Duration::from_secs(5),
            inflate_step_max: usize::MAX,
        }
    }
}

/// Chainable setters, one for each field. The field documents the default.
impl Config {
    /// Sets [`limits`](field@Self::limits).
    #[must_use]
    pub fn limits(mut self, value: Limits) -> Self {
        self.limits = value;
        self
    }

    /// Sets [`keepalive`](field@Self::keepalive).
    #[must_use]
    pub fn keepalive(mut self, value: impl Into<Option<Keepalive>>) -> Self {
        self.keepalive = value.into();
        self
    }

    /// Sets [`close_timeout`](field@Self::close_timeout).
    #[must_use]
    pub fn close_timeout(mut self, value: Duration) -> Self {
        self.close_timeout = value;
        self
    }

    /// Sets [`inflate_step_max`](field@Self::inflate_step_max), in bytes.
    #[must_use]
    pub fn inflate_step_max(mut self, value: usize) -> Self {
        self.inflate_step_max = value;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_default_is_infinite() {
        let day = Duration::from_secs(24 * 60 * 60);
        let Config {
            limits,
            keepalive,
            close_timeout,
            // Affects latency only: the total work per message is bounded by `message_size_max`.
            inflate_step_max: _,
        } = Config::default();
        let Limits {
            message_size_max,
            empty_fragments_max,
        } = limits;
        assert!(message_size_max <= 1 << 30);
        assert!(empty_fragments_max <= 1 << 16);
        let Keepalive { interval, timeout } = keepalive.expect("on by default");
        assert!(interval < day && timeout < day && close_timeout < day);
    }
}
