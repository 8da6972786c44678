//! What a connection is told when it is made: limits and deadlines, none of them infinite by default.

use core::time::Duration;

/// How much a peer may ask of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest message that is received, in bytes, all fragments together. Default 16 MiB.
    ///
    /// A larger one closes the connection with 1009, as soon as a frame header shows it; a compressed one, as soon as
    /// inflating it goes beyond. Worst-case memory per connection: twice this. Memory follows bytes that arrived,
    /// never a length that was declared (of a message that has grown to 1 MiB, room for 16 MiB more is reserved, and
    /// not touched before it is needed); of a compressed message, it is what arrived and what that inflates to. When
    /// messages are [received in chunks](crate::ReceiveMode::Chunks), nothing is stored of those that are not compressed,
    /// and the limit only bounds how long one may go on.
    // [6455-10.4-2]
    pub message_size_max: u64,
    /// How many empty fragments of a message may come in a row. Default 1,000; then 1008.
    ///
    /// They cost the peer two bytes and this endpoint work, and bring nothing. No program sends more than a few.
    pub empty_fragments_max: u32,
}

impl Limits {
    /// The defaults, to change one by one.
    pub const DEFAULT: Self = Self {
        message_size_max: 16 * 1024 * 1024,
        empty_fragments_max: 1000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a connection learns that its peer is gone (RFC 6455 §5.5.2: a ping may serve as a keepalive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// A ping is sent after so long without progress: no bytes received, and no bytes written to a full transport. Default
    /// 20 s.
    ///
    /// Shorter finds dead peers sooner and keeps middleboxes with short memories from forgetting the connection;
    /// longer saves phones' batteries.
    pub interval: Duration,
    /// The peer is taken to be gone after so long without progress since the ping was written to the transport. Default
    /// 10 s.
    ///
    /// A peer that reads slowly sees the ping only behind what its own and the local kernel buffer: raise this where peers
    /// read less than some 13 KB/s.
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

/// Everything a [`Connection`](crate::Connection) is told when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How much the peer may ask.
    pub limits: Limits,
    /// When to ping and when to give up; `None` never pings, and then a vanished peer is not noticed.
    pub keepalive: Option<Keepalive>,
    /// How long the peer may take to answer our close frame and to end the transport, counted from when our close frame
    /// was written. Default 5 s.
    pub close_timeout: Duration,
    /// About how many bytes of a compressed message one call inflates, before the caller may do something else; see
    /// [`Connection::is_inflating`](crate::Connection::is_inflating). Default: all, which for a message of 16 MiB
    /// takes some 30 ms.
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
            // Bounds no memory, and no time beyond that of a message.
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
