//! Everything that can be set about a server, as plain values that do nothing by themselves.
//!
//! No limit is infinite by default, and a test holds that every limit has a value a machine can bear. Some limits make
//! sense only beside others: [`Config::check`] knows how, and no server starts with values that contradict each other.

use std::fmt;
use std::time::Duration;

use sockeye::HostPolicy;
use sockeye::{DeflateConfig, OriginPolicy};

/// How a server behaves. `Config::default()` suits a server that browsers reach under its own address.
///
/// ```
/// let mut config = sockeye_server::Config::default();
/// config.limits.channels_per_client_max = 16;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// From which web pages browsers may connect. Change it when the page lives on another host than this server,
    /// or when a proxy in front of it does not pass the `Host` header on.
    pub origins: OriginPolicy,
    /// Under which names clients may connect. By default (`None`) a listener on a loopback address takes loopback names
    /// only, which keeps out pages that rename themselves to this machine (DNS rebinding), and any other listener takes
    /// any name. Change it when a proxy on the same machine passes public names on.
    pub hosts: Option<HostPolicy>,
    /// How messages are compressed for clients that offer permessage-deflate, as browsers do; `None` turns it off. By
    /// default each message by itself, and a publication once for all that hear it.
    pub compression: Option<DeflateConfig>,
    /// What channels offer.
    pub channels: ChannelOptions,
    /// What one client, and all of them together, may use.
    pub limits: Limits,
    /// How long the server waits for things.
    pub timeouts: Timeouts,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origins: OriginPolicy::default(),
            hosts: None,
            compression: Some(DeflateConfig::default()),
            channels: ChannelOptions::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Config {
    /// Checks that no field contradicts another; [`serve`](crate::serve) does so before anything else.
    ///
    /// ```
    /// let mut config = sockeye_server::Config::default();
    /// config.timeouts.pong = config.timeouts.ping_interval;
    /// assert_eq!(config.check().unwrap_err().field(), "timeouts.pong");
    /// ```
    ///
    /// # Errors
    /// The first relation that does not hold, of those stated at the fields of [`Limits`] and [`Timeouts`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let Limits {
            message_size_max,
            publication_size_max,
            client_info_size_max,
            queue_bytes_max,
            reply_size_max,
            history_bytes_per_channel_max,
            ..
        } = self.limits;
        let Timeouts {
            ping_interval, pong, ..
        } = self.timeouts;
        let has_history = self.channels.history_count_max > 0;

        let publication_limit = message_size_max.saturating_sub(PUSH_FRAME_BYTES);
        if publication_size_max > publication_limit {
            let must = format!("at most limits.message_size_max less {PUSH_FRAME_BYTES}, {publication_limit}");
            return Err(ConfigError::new(
                "limits.publication_size_max",
                publication_size_max,
                must,
            ));
        }
        let around = client_info_size_max.saturating_add(PUSH_FRAME_BYTES);
        let publication_limit = (queue_bytes_max / 2).saturating_sub(around);
        if publication_size_max > publication_limit {
            let must = format!(
                "at most half of limits.queue_bytes_max less limits.client_info_size_max and {PUSH_FRAME_BYTES}, \
                 {publication_limit}"
            );
            return Err(ConfigError::new(
                "limits.publication_size_max",
                publication_size_max,
                must,
            ));
        }
        if reply_size_max > queue_bytes_max / 2 {
            let must = format!("at most half of limits.queue_bytes_max, {}", queue_bytes_max / 2);
            return Err(ConfigError::new("limits.reply_size_max", reply_size_max, must));
        }
        let history_bytes_limit = reply_size_max.saturating_sub(REPLY_FRAME_BYTES);
        if has_history && history_bytes_per_channel_max > history_bytes_limit {
            let must = format!("at most limits.reply_size_max less {REPLY_FRAME_BYTES}, {history_bytes_limit}");
            let field = "limits.history_bytes_per_channel_max";
            return Err(ConfigError::new(field, history_bytes_per_channel_max, must));
        }
        if pong >= ping_interval {
            let must = format!("shorter than timeouts.ping_interval, {ping_interval:?}");
            return Err(ConfigError::new("timeouts.pong", format_args!("{pong:?}"), must));
        }
        Ok(())
    }
}

/// What a reply with the history of a channel holds beside the publications: 160 bytes, and some to spare.
const REPLY_FRAME_BYTES: usize = 1 << 10;

/// What a publication or a push holds beside the data and what the client says about itself: the name of the channel,
/// each byte written as `\u00xx` at worst (6 * 255), the client's id, numbers, and the names of the fields.
const PUSH_FRAME_BYTES: usize = 2 << 10;

/// A field of a [`Config`] that contradicts another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    value: String,
    must: String,
}

impl ConfigError {
    fn new(field: &'static str, value: impl fmt::Display, must: String) -> Self {
        let value = value.to_string();
        Self { field, value, must }
    }

    /// The path of the field within [`Config`], such as `limits.reply_size_max`.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, must } = self;
        write!(f, "{field} is {value}, but must be {must}")
    }
}

impl std::error::Error for ConfigError {}

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
    pub history_count_max: usize,
    /// How long a publication is remembered.
    pub history_ttl: Duration,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            publish: PublishPolicy::Subscribers,
            presence: true,
            join_leave: true,
            history_count_max: 100,
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
    /// Size of one WebSocket message from a client, in bytes. Beyond: WebSocket close 1009, after which SDKs do not
    /// connect again. One message may carry many commands: an SDK that connects sends all its subscriptions in one,
    /// with a token for each. 128 subscriptions take up to 110 KiB.
    pub message_size_max: usize,
    /// Size of the data of one publication, in bytes of JSON. Beyond: error 106 for this publication. At least 2 KiB
    /// less than [`message_size_max`](Self::message_size_max). With [`client_info_size_max`](Self::client_info_size_max)
    /// and 2 KiB, at most half of [`queue_bytes_max`](Self::queue_bytes_max), or one publication would make all its
    /// subscribers slow. [`set_publication_size_max`](Self::set_publication_size_max) sets it with everything that
    /// depends on it.
    pub publication_size_max: usize,
    /// Channels one client is subscribed to. Beyond: error 106.
    pub channels_per_client_max: usize,
    /// Size of the `data` with which a client connects, in bytes of JSON. Others see it as `conn_info.unverified` with
    /// each publication and in presence, so a larger limit lets one client inflate the pushes and replies of its
    /// channels. Beyond: error 106, after which SDKs do not connect again. At zero it is ignored and not shown to anyone.
    pub client_info_size_max: usize,
    /// Bytes waiting for one client that reads too slowly. Beyond: disconnect 3008. At least twice the push of the
    /// largest publication, and twice the largest reply.
    pub queue_bytes_max: usize,
    /// Size of one reply, in bytes. Beyond: error 106. At most half of [`queue_bytes_max`](Self::queue_bytes_max), to
    /// keep room for what channels say meanwhile.
    pub reply_size_max: usize,
    /// Clients listed by one `presence` reply. Beyond: error 106; `presence_stats` still counts them.
    pub presence_clients_max: usize,
    /// Memory of one channel's history. Beyond: the oldest publications are forgotten. At least 1 KiB less than
    /// [`reply_size_max`](Self::reply_size_max), for a client that recovers gets all of it in one reply.
    pub history_bytes_per_channel_max: usize,
    /// Memory of all history. Beyond: the least recently used history is evicted, and the subscribers of its channel are
    /// told to recover. Publishing to a history and reading it both count as use.
    pub history_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            message_size_max: 256 << 10,
            publication_size_max: 64 << 10,
            channels_per_client_max: 128,
            client_info_size_max: 4 << 10,
            queue_bytes_max: 1 << 20,
            reply_size_max: 512 << 10,
            presence_clients_max: 4_000,
            history_bytes_per_channel_max: 384 << 10,
            history_bytes_max: 256 << 20,
        }
    }
}

impl Limits {
    /// Sets [`publication_size_max`](Self::publication_size_max), and raises the limits that would be too small for
    /// publications of this size, and for the [`client_info_size_max`](Self::client_info_size_max) that is set: the
    /// message that brings one, the queues and replies that hold it, and the history of
    /// a channel, so that it remembers at least one.
    ///
    /// ```
    /// let mut config = sockeye_server::Config::default();
    /// config.limits.set_publication_size_max(4 << 20);
    /// assert!(config.check().is_ok());
    /// ```
    pub fn set_publication_size_max(&mut self, bytes: usize) {
        let push_size = bytes
            .saturating_add(self.client_info_size_max)
            .saturating_add(PUSH_FRAME_BYTES);
        let at_least = |limit: &mut usize, bytes: usize| *limit = bytes.max(*limit);
        self.publication_size_max = bytes;
        let data_size = bytes.max(self.client_info_size_max);
        at_least(&mut self.message_size_max, data_size.saturating_add(PUSH_FRAME_BYTES));
        at_least(&mut self.history_bytes_per_channel_max, push_size);
        let reply_size = self.history_bytes_per_channel_max.saturating_add(REPLY_FRAME_BYTES);
        at_least(&mut self.reply_size_max, reply_size);
        at_least(
            &mut self.queue_bytes_max,
            self.reply_size_max.max(push_size).saturating_mul(2),
        );
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
    /// Between the server's pings. Clients learn it when they connect. Longer than [`pong`](Self::pong).
    pub ping_interval: Duration,
    /// For the answer to a ping. Then: disconnect 3012. Shorter than [`ping_interval`](Self::ping_interval), so that
    /// one ping at a time is unanswered. A client that falls silent is out of its channels after both together, 33 s by
    /// default.
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
            publication_size_max,
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
            publication_size_max,
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
    }

    #[test]
    fn the_security_page_names_every_limit_and_timeout() {
        let page = include_str!("../../../SECURITY.md");
        let Config { limits, timeouts, .. } = Config::default();
        for (group, debug) in [
            ("limits", format!("{limits:#?}")),
            ("timeouts", format!("{timeouts:#?}")),
        ] {
            for (field, _) in debug.lines().filter_map(|line| line.trim().split_once(": ")) {
                assert!(page.contains(&format!("| `{group}.{field}` |")), "{group}.{field}");
            }
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Config), expect: Result<(), &str>) {
        let mut config = Config::default();
        change(&mut config);
        let checked = config.check().map_err(|error| error.to_string());
        assert_eq!(checked, expect.map_err(str::to_owned));
    }

    #[test]
    fn defaults_do_not_contradict_each_other() {
        check(|_| {}, Ok(()));
    }

    #[test]
    fn a_queue_holds_two_of_the_largest_publications_and_replies() {
        let publication = |bytes| {
            move |config: &mut Config| {
                config.limits.message_size_max = 1 << 20;
                config.limits.publication_size_max = bytes;
            }
        };
        check(publication(506 << 10), Ok(()));
        check(
            publication((506 << 10) + 1),
            Err(
                "limits.publication_size_max is 518145, but must be at most half of limits.queue_bytes_max less \
                 limits.client_info_size_max and 2048, 518144",
            ),
        );
        check(|config| config.limits.queue_bytes_max = 1 << 20, Ok(()));
        check(
            |config| config.limits.queue_bytes_max = (1 << 20) - 1,
            Err("limits.reply_size_max is 524288, but must be at most half of limits.queue_bytes_max, 524287"),
        );
    }

    #[test]
    fn a_message_holds_the_largest_publication() {
        check(|config| config.limits.publication_size_max = 254 << 10, Ok(()));
        check(
            |config| config.limits.publication_size_max = (254 << 10) + 1,
            Err("limits.publication_size_max is 260097, but must be at most limits.message_size_max less 2048, 260096"),
        );
    }

    #[test]
    fn any_publication_size_can_be_set_with_all_that_depends_on_it() {
        for bytes in [1, 64 << 10, 300 << 10, 1 << 20, 1 << 30] {
            let set = |config: &mut Config| config.limits.set_publication_size_max(bytes);
            check(set, Ok(()));
            let mut limits = Limits::default();
            limits.set_publication_size_max(bytes);
            assert_eq!(limits.publication_size_max, bytes);
            assert!(limits.history_bytes_per_channel_max >= bytes);
        }
        let mut limits = Limits::default();
        limits.set_publication_size_max(64 << 10);
        assert_eq!(limits, Limits::default());
    }

    #[test]
    fn a_reply_holds_the_history_of_a_channel() {
        check(|config| config.limits.reply_size_max = 385 << 10, Ok(()));
        check(
            |config| config.limits.reply_size_max = (385 << 10) - 1,
            Err(
                "limits.history_bytes_per_channel_max is 393216, but must be at most limits.reply_size_max less 1024, \
                 393215",
            ),
        );
        let without_history = |config: &mut Config| {
            config.channels.history_count_max = 0;
            config.limits.reply_size_max = 0;
        };
        check(without_history, Ok(()));
    }

    #[test]
    fn a_pong_is_due_before_the_next_ping() {
        let pong = |ms| move |config: &mut Config| config.timeouts.pong = Duration::from_millis(ms);
        check(pong(24_999), Ok(()));
        let error = "timeouts.pong is 25s, but must be shorter than timeouts.ping_interval, 25s";
        check(pong(25_000), Err(error));
    }
}
