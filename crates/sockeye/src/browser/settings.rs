//! Limits and timeouts that can be applied around the WebSocket of a browser.

use std::time::Duration;

/// Limits on the memory that a peer can cause. Every limit has a finite default.
///
/// ```
/// # use sockeye::Limits;
/// let limits = Limits::default().message_size_max(64 * 1024).write_buffer_max(256 * 1024);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum size of a received message in bytes. Default 16 MiB. The connection fails if a message exceeds it. The
    /// browser has then already stored the message, because it cannot be told a limit.
    pub message_size_max: u64,
    /// Maximum number of bytes of messages that wait for [`recv`](crate::WebSocket::recv), with 64 bytes more for each
    /// message. Default 8 MiB. The oldest one does not count, so that it may have the maximum size.
    ///
    /// A browser cannot be told to read more slowly. If the messages behind the oldest one exceed this limit, the
    /// connection is closed with 4013, and `recv` returns an error after the messages that waited.
    pub read_ahead_max: usize,
    /// Maximum number of bytes that wait in the browser before [`feed`](crate::WebSocket::feed) and
    /// [`send`](crate::WebSocket::send) wait. Default 1 MiB. A message larger than this waits until nothing else is
    /// queued.
    pub write_buffer_max: usize,
    /// Minimum rate in bytes per second at which the browser must send while [`send`](crate::WebSocket::send),
    /// [`feed`](crate::WebSocket::feed) or [`flush`](crate::WebSocket::flush) waits, averaged over [`Timeouts::write`].
    /// Default 1 KiB/s. With 0, any progress is enough.
    pub write_rate_min: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size_max: sockeye_proto::Limits::default().message_size_max,
            read_ahead_max: 8 * 1024 * 1024,
            write_buffer_max: 1024 * 1024,
            write_rate_min: 1024,
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

    /// Sets [`read_ahead_max`](field@Self::read_ahead_max).
    #[must_use]
    pub fn read_ahead_max(mut self, value: usize) -> Self {
        self.read_ahead_max = value;
        self
    }

    /// Sets [`write_buffer_max`](field@Self::write_buffer_max).
    #[must_use]
    pub fn write_buffer_max(mut self, value: usize) -> Self {
        self.write_buffer_max = value;
        self
    }

    /// Sets [`write_rate_min`](field@Self::write_rate_min).
    #[must_use]
    pub fn write_rate_min(mut self, value: u32) -> Self {
        self.write_rate_min = value;
        self
    }
}

/// Timeouts for connecting, writing and closing. No wait is unbounded.
///
/// ```
/// # use sockeye::Timeouts;
/// # use std::time::Duration;
/// let timeouts = Timeouts::default().connect_total(Duration::from_secs(5)).close(Duration::from_secs(1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Timeout for opening a connection as a whole. Default 20 s. A browser does not report when it has resolved the
    /// name or connected, so those phases have no timeouts of their own.
    pub connect_total: Duration,
    /// Timeout for a stalled write: the connection fails if the browser sends slower than [`Limits::write_rate_min`]
    /// over this period while bytes are queued. Default 10 s.
    pub write: Duration,
    /// Timeout for the peer's answer to our close frame. Default 5 s. It starts again as long as the browser still
    /// sends what was queued before the close frame.
    pub close: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_total: Duration::from_secs(20),
            write: Duration::from_secs(10),
            close: sockeye_proto::Config::default().close_timeout,
        }
    }
}

/// Chainable setters, one for each field. The field documents unit and default.
impl Timeouts {
    /// Sets [`connect_total`](field@Self::connect_total).
    #[must_use]
    pub fn connect_total(mut self, value: Duration) -> Self {
        self.connect_total = value;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_finite() {
        let Limits {
            message_size_max,
            read_ahead_max,
            write_buffer_max,
            write_rate_min,
        } = Limits::default();
        assert!(message_size_max <= 1 << 30 && read_ahead_max <= 1 << 30 && write_buffer_max <= 1 << 30);
        assert!(write_rate_min > 0);
        let Timeouts {
            connect_total,
            write,
            close,
        } = Timeouts::default();
        for timeout in [connect_total, write, close] {
            assert!(timeout <= Duration::from_secs(60));
        }
    }
}
