//! Everything that can be set about a server, as plain values that do nothing by themselves.
//!
//! No limit is infinite by default, and a test holds that every limit has a value a machine can bear.

use std::time::Duration;

use sockeye::OriginPolicy;
use sockeye::handshake::HostPolicy;

/// How a server behaves. `Config::default()` suits a server that browsers reach under its own address.
///
/// ```
/// let mut config = sockeye_server::Config::default();
/// config.limits.channels_per_client_max = 16;
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// From which web pages browsers may connect. Change it when the page lives on another host than this server,
    /// or when a proxy in front of it does not pass the `Host` header on.
    pub origins: OriginPolicy,
    /// Under which names clients may connect. By default (`None`) a listener on a loopback address takes loopback names
    /// only, which keeps out pages that rename themselves to this machine (DNS rebinding), and any other listener takes
    /// any name. Change it when a proxy on the same machine passes public names on.
    pub hosts: Option<HostPolicy>,
    /// What channels offer.
    pub channels: ChannelOptions,
    /// What one client, and all of them together, may use.
    pub limits: Limits,
    /// How long the server waits for things.
    pub timeouts: Timeouts,
}

/// What a channel offers to its subscribers. One set of options holds for all channels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelOptions {
    /// Who may publish.
    pub publish: PublishPolicy,
    /// Whether subscribers may ask who else is there.
    pub presence: bool,
    /// Whether subscribers that ask for it are told who comes and goes.
    pub join_leave: bool,
    /// How many publications a channel remembers, for newcomers and for clients that were away. Zero turns history
    /// and recovery off.
    pub history_size: usize,
    /// How long a publication is remembered.
    pub history_ttl: Duration,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            publish: PublishPolicy::Subscribers,
            presence: true,
            join_leave: true,
            history_size: 100,
            history_ttl: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Which clients may publish into a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishPolicy {
    /// None.
    Nobody,
    /// Those subscribed to it.
    Subscribers,
    /// All that are connected.
    Everyone,
}

/// What clients may use. Beside each limit: what happens beyond it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Open connections, HTTP and WebSocket together. Beyond: answered 503 and closed. An idle client costs about
    /// 4 KiB here and as much in the kernel.
    pub connections_max: usize,
    /// Size of one message from a client, in bytes. Beyond: WebSocket close 1009.
    pub message_size_max: usize,
    /// Channels one client is subscribed to. Beyond: error 106.
    pub channels_per_client_max: usize,
    /// What a client may say about itself when it connects, in bytes of JSON; others see it as `conn_info.unverified`.
    /// Beyond: error 106. At zero it is not shown to anyone.
    pub client_info_size_max: usize,
    /// Bytes waiting for one client that reads too slowly. Beyond: disconnect 3008.
    pub queue_bytes_max: usize,
    /// Size of one reply, in bytes; half of the queue keeps room for what channels say meanwhile. Beyond: error 106.
    pub reply_size_max: usize,
    /// Clients listed by one `presence` reply. Beyond: error 106; `presence_stats` still counts them.
    pub presence_clients_max: usize,
    /// Memory of one channel's history. Beyond: the oldest publications are forgotten.
    pub history_bytes_per_channel_max: usize,
    /// Memory of all history. Beyond: the channels silent for longest are forgotten, and their subscribers told so.
    pub history_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            message_size_max: 64 << 10,
            channels_per_client_max: 128,
            client_info_size_max: 1 << 10,
            queue_bytes_max: 1 << 20,
            reply_size_max: 512 << 10,
            presence_clients_max: 4_000,
            history_bytes_per_channel_max: 384 << 10,
            history_bytes_max: 256 << 20,
        }
    }
}

/// How long the server waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For the whole head of an HTTP request, and for the next request on an idle connection. Then: closed.
    pub request_head: Duration,
    /// For an HTTP connection that has not become a WebSocket, all its requests and answers together. Then: closed.
    pub http_connection: Duration,
    /// From the upgrade to the `connect` command. Then: disconnect 3502.
    pub connect: Duration,
    /// Between the server's pings. Clients learn it when they connect.
    pub ping_interval: Duration,
    /// For the answer to a ping; must be shorter than the interval. Then: disconnect 3012. A client that falls silent
    /// is out of its channels after both together, 33 s by default.
    pub pong: Duration,
    /// For a client that takes what is sent to it, but slowly, to take 64 KiB of it. Then: disconnect 3008.
    pub write: Duration,
    /// For the close handshake of one connection. Then: closed all the same.
    pub close: Duration,
    /// For all connections to end after the server was told to stop. Then: dropped.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request_head: Duration::from_secs(10),
            http_connection: Duration::from_secs(60),
            connect: Duration::from_secs(10),
            ping_interval: Duration::from_secs(25),
            pong: Duration::from_secs(8),
            write: Duration::from_secs(33),
            close: Duration::from_secs(5),
            shutdown: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_finite() {
        let Limits {
            connections_max,
            message_size_max,
            channels_per_client_max,
            client_info_size_max,
            queue_bytes_max,
            reply_size_max,
            presence_clients_max,
            history_bytes_per_channel_max,
            history_bytes_max,
        } = Limits::default();
        for limit in [
            connections_max,
            message_size_max,
            channels_per_client_max,
            client_info_size_max,
            queue_bytes_max,
            reply_size_max,
            presence_clients_max,
            history_bytes_per_channel_max,
            history_bytes_max,
        ] {
            assert!((1..=1 << 30).contains(&limit));
        }
        assert!(reply_size_max <= queue_bytes_max / 2);
        // A recovery reply carries the whole history of a channel, framed as JSON.
        assert!(history_bytes_per_channel_max < reply_size_max);

        let Timeouts {
            request_head,
            http_connection,
            connect,
            ping_interval,
            pong,
            write,
            close,
            shutdown,
        } = Timeouts::default();
        for timeout in [
            request_head,
            http_connection,
            connect,
            ping_interval,
            pong,
            write,
            close,
            shutdown,
        ] {
            assert!((1..=60).contains(&timeout.as_secs()));
        }
        assert!(ping_interval + pong <= Duration::from_secs(35));
        assert!(pong < ping_interval);
    }
}
