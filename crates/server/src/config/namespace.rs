//! Namespaces: options that all channels with the same prefix share.

use std::collections::BTreeMap;
use std::time::Duration;

use super::options::options;

options! {
    /// Options of the channels of one namespace.
    ///
    /// The namespace of a channel is the part of its name before the first `:`, such as `chat` in `chat:general`. The
    /// default is closed: no history, subscriptions only with a token. [`open`](Self::open) is the opposite.
    ///
    /// ```
    /// use sockeye_server::{NamespaceOptions, Access};
    ///
    /// let mut news = NamespaceOptions::default();
    /// news.allow_subscribe = Access::Anyone;
    /// news.history_size = 20;
    /// ```
    #[derive(PartialEq, Eq)]
    pub struct NamespaceOptions {
        /// Maximum number of publications in the history of a channel. Zero disables history, recovery and delta
        /// compression.
        pub history_size: usize = 0,
        /// How long a publication stays in the history.
        pub history_ttl: Duration = DAY,
        /// Whether clients may recover publications that they missed. Needs history.
        pub recovery: bool = true,
        /// Whether clients may ask to be told when they missed a publication. Needs history.
        pub positioning: bool = true,
        /// Makes every subscription recoverable, even if the client does not ask for it. Needs history.
        pub force_recovery: bool = false,
        /// Makes every subscription positioned, even if the client does not ask for it. Needs history.
        pub force_positioning: bool = false,
        /// Sends join and leave pushes to every subscriber, including those that do not ask for them.
        pub force_push_join_leave: bool = false,
        /// Whether the server keeps the list of subscribers of a channel.
        pub presence: bool = false,
        /// Whether the server announces clients that join and leave.
        pub join_leave: bool = false,
        /// Whether subscribers may ask for `fossil` deltas instead of whole publications. Needs history.
        pub delta: bool = false,
        /// Whether pushes to JSON clients that accept it (`flag` 1) have a short number in place of the name of the
        /// channel. Protobuf clients always get the name, because the JavaScript SDK does not recognize the number
        /// there.
        pub channel_ids: bool = true,
        /// Recovers only the newest publication of a channel, as a cache, even for clients without a position. Needs
        /// history.
        pub cache: bool = false,
        /// Whether the backend decides about subscriptions without a token, instead of `allow_subscribe`. Private (`$`)
        /// and user-limited (`#`) channels keep their rules. Needs `hooks.subscribe_url`.
        pub subscribe_hook: bool = false,
        /// Whether the backend decides when a subscription expires, instead of a new token of the client. Needs
        /// `hooks.sub_refresh_url`.
        pub sub_refresh_hook: bool = false,
        /// Whether the backend decides about publications of clients, instead of `allow_publish`. It may change them.
        /// Needs `hooks.publish_url`.
        pub publish_hook: bool = false,
        /// Who may subscribe. Clients with a subscription token always may, except with `nobody`. Channels named
        /// `name#u1,u2` admit these users instead, with and without a token, and private channels (`$name`) need a
        /// token.
        pub allow_subscribe: Access = Access::Token,
        /// Who may publish.
        pub allow_publish: Access = Access::Nobody,
        /// Who may read the history.
        pub allow_history: Access = Access::Nobody,
        /// Who may read presence.
        pub allow_presence: Access = Access::Nobody,
        /// What happens to a subscriber that reads more slowly than its channels publish. `disconnect`: its connection is
        /// closed with 3008, and it recovers when it is back. `drop_oldest`: the oldest publications that wait for it
        /// are dropped. `latest`: only the newest publication of each channel waits; `latest:TAG`: the newest one for
        /// each value of this tag, such as `latest:symbol`. The offset of the next publication shows that some were
        /// dropped. They are counted in `sockeye_dropped_publications_total`. If `drop_oldest` drops a publication of a
        /// recoverable or positioned subscription, the subscription ends with 2500, and the SDK recovers the missing
        /// publications. `latest` does not end subscriptions: the newest publication replaces the skipped ones.
        pub slow_consumer: SlowConsumerPolicy = SlowConsumerPolicy::Disconnect,
        /// How long a publication waits if Redis or NATS is not reachable; then it fails with the temporary error 100.
        /// The publisher waits for the answer. At most 5 s, and 16 MiB on each node. By default a publication fails at
        /// once. The embedded engine does not need it.
        pub outage_buffer: Duration = Duration::ZERO,
        /// Maximum size of the data of a client's publication, in bytes. A larger one fails with error 106. By default,
        /// only the server-wide limit [`limits.publication_size_max`](crate::Limits::publication_size_max) applies,
        /// which is always the only limit for the HTTP API and for data that `publish_hook` returns.
        pub publication_size_max: Option<usize> as ByteSize = None,
        /// Maximum number of publications per second of one client into one channel; more fail with error 111. By
        /// default there is no limit beside [`commands_per_second_max`](crate::Limits::commands_per_second_max).
        pub publication_rate_max: Option<u32> = None,
    }
}

/// Which clients may do something in a channel.
///
/// Publishing, history and presence of a private channel (`$name`) also need a subscription, whatever the value. The
/// values do not restrict the server: connection tokens, hooks and the HTTP API subscribe clients to any channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// No client, not even with a subscription token.
    Nobody,
    /// Every connected client, also an anonymous one.
    Anyone,
    /// Clients with a user.
    Authenticated,
    /// Subscribers of the channel. For `allow_subscribe`, the same as [`Token`](Self::Token).
    Subscriber,
    /// Clients with a subscription token, and those whose subscription a connection token, the backend or the HTTP API
    /// granted.
    Token,
}

/// What happens to a subscriber that reads more slowly than its channels publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowConsumerPolicy {
    /// Disconnects the client with 3008.
    #[default]
    Disconnect,
    /// Drops the oldest publications that the client has not received yet.
    DropOldest,
    /// Keeps only the newest publication that the client has not received yet, for each channel or for each key.
    Latest {
        /// The tag that holds the key, such as `symbol`. Without it, one publication is kept for each channel.
        key_tag: Option<String>,
    },
}

/// The namespaces of a server, by name.
pub type Namespaces = BTreeMap<String, NamespaceOptions>;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl NamespaceOptions {
    /// Options that allow everything to everyone: anonymous clients may subscribe, publish, and read presence and a
    /// history of 100 publications that are at most a day old.
    pub fn open() -> Self {
        Self {
            history_size: 100,
            presence: true,
            join_leave: true,
            delta: true,
            allow_subscribe: Access::Anyone,
            allow_publish: Access::Anyone,
            allow_history: Access::Anyone,
            allow_presence: Access::Anyone,
            ..Self::default()
        }
    }

    /// Whether channels have a history.
    pub fn has_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }
}

/// The namespaces of a server without a configuration file.
pub(crate) fn default_namespaces() -> Namespaces {
    ["room", "chat", "market", "game"]
        .into_iter()
        .map(|name| (name.to_owned(), NamespaceOptions::open()))
        .collect()
}

/// The namespaces in which the market compares the policies, beside `market`.
pub(crate) fn demo_namespaces() -> Namespaces {
    let key_tag = Some("symbol".to_owned());
    [
        ("market_drop_oldest", SlowConsumerPolicy::DropOldest),
        ("market_latest", SlowConsumerPolicy::Latest { key_tag }),
    ]
    .into_iter()
    .map(|(name, slow_consumer)| {
        let mut options = NamespaceOptions::open();
        options.slow_consumer = slow_consumer;
        (name.to_owned(), options)
    })
    .collect()
}

/// The namespace in the name of a channel: the part before the first `:`, without the `$` of private channels. Empty if
/// there is none.
pub(crate) fn namespace_of(channel: &str) -> &str {
    let channel = channel.strip_prefix('$').unwrap_or(channel);
    channel.split_once(':').map_or("", |(namespace, _)| namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_the_part_before_the_first_colon() {
        for (channel, namespace) in [
            ("news", ""),
            ("chat:general", "chat"),
            ("chat:a:b", "chat"),
            ("$chat:secret", "chat"),
            ("$secret", ""),
            (":x", ""),
            ("chat:", "chat"),
            ("dialog#1,2", ""),
            ("chat:dialog#1,2", "chat"),
        ] {
            assert_eq!(namespace_of(channel), namespace, "{channel}");
        }
    }

    #[test]
    fn default_namespaces_are_open_like_channels_without_one() {
        let config = crate::Config::default();
        for channel in ["x", "$x", "room:x", "chat:x", "market:x", "game:x", "$game:x"] {
            assert_eq!(config.namespace(channel), Some(&NamespaceOptions::open()), "{channel}");
        }
        for channel in ["nothing:x", "Chat:x", "chat2:x", "$nothing:x"] {
            assert_eq!(config.namespace(channel), None, "{channel}");
        }
    }
}
