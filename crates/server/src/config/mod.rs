//! The configuration of a server, as plain values.
//!
//! Every limit and timeout has a finite default, which a test checks. Some fields depend on others: [`Config::check`]
//! reports contradictions, and no server starts with them.

mod check;
mod console;
mod namespace;
pub(crate) mod options;

use std::time::Duration;

use sockeye::HostPolicy;
use sockeye::{DeflateConfig, OriginPolicy};

use crate::auth::{Secret, TokenConfig};
use crate::engine::{EngineUrl, JournalConfig, PUBLICATION_BYTES};
use crate::hooks::HookOptions;
pub use check::ConfigError;
pub use console::ConsoleOptions;
pub(crate) use namespace::namespace_of;
pub use namespace::{Access, NamespaceOptions, Namespaces, SlowConsumerPolicy};
pub(crate) use namespace::{default_namespaces, demo_namespaces};
use options::options;

/// Configuration of a server. The default suits a server that browsers reach directly, without a proxy.
///
/// ```
/// let mut config = sockeye_server::Config::default();
/// config.limits.channels_per_client_max = 16;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Name of this server, as the `info` call of the HTTP API shows it.
    pub name: String,
    /// Origins of the web pages that may connect. Change it if the page is on another host than this server, or if a
    /// proxy in front of the server does not preserve the `Host` header.
    pub origins: OriginPolicy,
    /// Accepted values of the `Host` header. With the default (`None`), a listener on a loopback address accepts only
    /// loopback names, which prevents DNS rebinding, and any other listener accepts all names. Change it if a proxy on
    /// the same machine forwards public names.
    pub hosts: Option<HostPolicy>,
    /// Compression for clients that offer permessage-deflate, as browsers do; `None` disables it. By default each
    /// message is compressed independently, and a publication is compressed once for all its subscribers.
    pub compression: Option<DeflateConfig>,
    /// Whether the server offers its demonstrations: the pages of a chat, a market and a game, and the publishers
    /// behind them. With `false` the pages are 404. They use no time while nobody is subscribed to their channels,
    /// which start with `market:` and `game:`.
    pub demos: bool,
    /// Whether clients without a token may connect, as anonymous clients. [`Access`] decides what they may do in a
    /// channel.
    pub anonymous: bool,
    /// Keys of connection tokens. Without a key, every token is invalid.
    pub tokens: TokenConfig,
    /// Keys of subscription tokens; `None` if they are the keys of [`tokens`](Self::tokens).
    pub subscription_tokens: Option<TokenConfig>,
    /// Hooks, by which a backend decides about the events of clients. None by default.
    pub hooks: HookOptions,
    /// Namespace of personal channels: every client with a user is subscribed to the channel of that user, such as
    /// `users:#42` for `users` and `#42` for the empty namespace. `None` if there are no personal channels.
    pub personal_channels: Option<String>,
    /// Keys of the HTTP API. Without one, every request is answered with 401.
    pub api_keys: Vec<Secret>,
    /// Accepts requests of the HTTP API without a key. For development only.
    pub insecure_api: bool,
    /// Lets every client do everything in every channel, with and without tokens: permissions are not checked. For
    /// development only.
    pub insecure_clients: bool,
    /// The admin console at `/console`. Off without a password.
    pub console: ConsoleOptions,
    /// Options of channels without a namespace; `None` if there are no such channels.
    pub channels: Option<NamespaceOptions>,
    /// Options of each namespace. Commands for channels of other namespaces fail with error 102.
    pub namespaces: Namespaces,
    /// The journal, a log on disk that keeps histories over a restart; `None` keeps them in memory only.
    pub journal: Option<JournalConfig>,
    /// The engine that several nodes share; `None` for the embedded one, which serves this node alone. The journal is
    /// part of the embedded engine.
    pub engine: Option<EngineUrl>,
    /// Limits per client and for the whole server.
    pub limits: Limits,
    /// Timeouts and intervals.
    pub timeouts: Timeouts,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "sockeye".to_owned(),
            origins: OriginPolicy::default(),
            hosts: None,
            compression: Some(DeflateConfig::default()),
            demos: true,
            anonymous: true,
            tokens: TokenConfig::default(),
            subscription_tokens: None,
            hooks: HookOptions::default(),
            personal_channels: None,
            api_keys: Vec::new(),
            insecure_api: false,
            insecure_clients: false,
            console: ConsoleOptions::default(),
            channels: Some(NamespaceOptions::open()),
            namespaces: default_namespaces().into_iter().chain(demo_namespaces()).collect(),
            journal: None,
            engine: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Config {
    /// Options of a channel, or `None` if its namespace does not exist.
    ///
    /// ```
    /// let config = sockeye_server::Config::default();
    /// assert!(config.namespace("chat:general").is_some_and(|options| options.presence));
    /// assert_eq!(config.namespace("unknown:general"), None);
    /// ```
    pub fn namespace(&self, channel: &str) -> Option<&NamespaceOptions> {
        match namespace_of(channel) {
            "" => self.channels.as_ref(),
            name => self.namespaces.get(name),
        }
    }

    /// The channel to which every client of a user is subscribed, if there is one. An anonymous client has none.
    pub(crate) fn personal_channel(&self, user: &str) -> Option<String> {
        let namespace = self.personal_channels.as_ref()?;
        match (&**namespace, user) {
            (_, "") => None,
            ("", user) => Some(format!("#{user}")),
            (namespace, user) => Some(format!("{namespace}:#{user}")),
        }
    }

    /// Lists what [`check`](Self::check) allows although it is probably a mistake: secrets that are short enough to be
    /// guessed, values without effect, and
    /// authentication that is switched off.
    ///
    /// ```
    /// let mut config = sockeye_server::Config::default();
    /// assert!(config.warnings().is_empty());
    /// config.tokens.hmac_secret = Some("secret".into());
    /// assert_eq!(config.warnings()[0].field(), "tokens.hmac_secret");
    /// ```
    pub fn warnings(&self) -> Vec<ConfigError> {
        let mut warnings = Vec::new();
        for (field, is_set, effect) in [
            ("insecure_api", self.insecure_api, "may call the HTTP API"),
            (
                "insecure_clients",
                self.insecure_clients,
                "may do everything in every channel",
            ),
        ] {
            if is_set {
                let problem = format!("is true: everyone who can reach the server {effect}; for development only");
                warnings.push(ConfigError::new(field, problem));
            }
        }
        for (table, tokens) in self.token_tables() {
            if tokens.insecure_skip_signature_check {
                let problem = "is true: everyone can impersonate every user; for development only";
                warnings.push(ConfigError::new(
                    format!("{table}.insecure_skip_signature_check"),
                    problem,
                ));
            }
            for (option, secret) in [
                ("hmac_secret", &tokens.hmac_secret),
                ("hmac_previous_secret", &tokens.hmac_previous_secret),
            ] {
                let len = secret.as_ref().map_or(usize::MAX, |secret| secret.expose().len());
                if len < HMAC_SECRET_BYTES_MIN {
                    let problem = format!(
                        "has {len} bytes; RFC 7518 §3.2 requires at least {HMAC_SECRET_BYTES_MIN} for HS256, because \
                         whoever has a token can try out short secrets"
                    );
                    warnings.push(ConfigError::new(format!("{table}.{option}"), problem));
                }
            }
        }
        let password = self.console.password.as_ref();
        if let Some(len) = password.map(|password| password.expose().chars().count())
            && len < PASSWORD_CHARS_MIN
        {
            let problem = format!("has {len} characters; use at least {PASSWORD_CHARS_MIN} random ones");
            warnings.push(ConfigError::new("console.password", problem));
        }
        let bytes_max = self.limits.history_bytes_per_channel_max;
        let count_max = bytes_max / PUBLICATION_BYTES;
        for (path, options) in self.channel_tables() {
            if options.has_history() && options.history_size > count_max {
                let problem = format!(
                    "is {}, but limits.history_bytes_per_channel_max, {bytes_max} bytes, holds at most {count_max} \
                     publications",
                    options.history_size
                );
                let warning = ConfigError::new(format!("{path}.history_size"), problem);
                warnings.push(warning.caused_by(&["limits.history_bytes_per_channel_max"]));
            }
        }
        warnings
    }
}

impl Config {
    /// Whether another configuration decides in the same way who may be subscribed.
    pub(crate) fn allows_same_subscriptions(&self, other: &Self) -> bool {
        let rules = |config: &Self| -> (bool, Vec<_>) {
            let rules = config.channel_tables();
            let rules = rules.map(|(path, options)| (path, options.allow_subscribe, options.subscribe_hook));
            (config.insecure_clients, rules.collect())
        };
        rules(self) == rules(other)
    }

    /// The tables of tokens, with their paths.
    fn token_tables(&self) -> impl Iterator<Item = (&'static str, &TokenConfig)> {
        let subscription = self.subscription_tokens.as_ref();
        let subscription = subscription.map(|tokens| ("subscription_tokens", tokens));
        [("tokens", &self.tokens)].into_iter().chain(subscription)
    }

    /// The options of all channels, with their paths.
    fn channel_tables(&self) -> impl Iterator<Item = (String, &NamespaceOptions)> {
        let without_name = self.channels.iter().map(|options| ("channels".to_owned(), options));
        let named = self.namespaces.iter();
        without_name.chain(named.map(|(name, options)| (format!("namespaces.{name}"), options)))
    }
}

/// Size of the secret of HS256 that RFC 7518 §3.2 requires: that of the hash.
const HMAC_SECRET_BYTES_MIN: usize = 32;

/// A shorter password of the console is reported.
const PASSWORD_CHARS_MIN: usize = 16;

/// Size of a history reply without its publications: 160 bytes, rounded up generously.
const REPLY_FRAME_BYTES: usize = 1 << 10;

/// Size of a publication or push without its data and client info: the channel name, with each byte escaped as `\u00xx`
/// in the worst case (6 * 255), the client id, numbers, and field names.
const PUSH_FRAME_BYTES: usize = 2 << 10;

options! {
    /// Limits on what clients may use. The docs of each limit say what happens to a client that exceeds it.
    #[derive(PartialEq, Eq)]
    pub struct Limits {
        /// Maximum number of open connections, HTTP and WebSocket. Further connections are answered with 503 and
        /// closed. An idle client costs about 4 KiB of user memory and 4 KiB in the kernel.
        pub connections_max: usize = 100_000,
        /// Maximum number of open connections of one IP address. Further connections are answered with 503 and closed.
        /// Behind a proxy, all clients have the address of the proxy.
        pub connections_per_address_max: usize = 100_000,
        /// Maximum number of new clients per second: WebSocket handshakes, and requests that open SSE or HTTP
        /// streaming. Bursts of two seconds' worth are allowed. Beyond it, clients get 503 with `Retry-After`.
        pub handshakes_per_second_max: u32 = 10_000,
        /// Maximum number of connections of one user; further clients are disconnected with 3504. Anonymous clients are
        /// not limited by it.
        pub connections_per_user_max: usize = 100_000,
        /// Maximum size of a request of the HTTP API, in bytes. A larger one is answered with 413.
        pub api_request_size_max: usize as ByteSize = 4 << 20,
        /// Maximum size of a WebSocket message from a client, in bytes. A larger one closes the connection with 1009,
        /// and SDKs do not reconnect. SDKs send all subscriptions, with tokens, in one message when they connect (128
        /// take up to 110 KiB).
        pub message_size_max: usize as ByteSize = 256 << 10,
        /// Maximum size of the data of a publication, in bytes of JSON. A larger publication fails with error 106.
        /// Clients are also limited by the [`publication_size_max`](crate::NamespaceOptions::publication_size_max) of
        /// the namespace; raise both. Must be at least 2 KiB less than [`message_size_max`](Self::message_size_max).
        /// The sum of this limit,
        /// [`client_info_size_max`](Self::client_info_size_max) and 2 KiB must be at most half of
        /// [`queue_bytes_max`](Self::queue_bytes_max); otherwise one publication could exceed the queue of every subscriber.
        /// [`set_publication_size_max`](Self::set_publication_size_max) also raises the limits that depend on it.
        pub publication_size_max: usize as ByteSize = 64 << 10,
        /// Maximum number of commands that one client may send per second, on average over a few seconds. Bursts of
        /// four times as many are allowed; after that the client is disconnected with 3013, and SDKs reconnect after a
        /// pause.
        pub commands_per_second_max: u32 = 250,
        /// Maximum number of channels that one client is subscribed to. Further subscriptions fail with error 106.
        pub channels_per_client_max: usize = 128,
        /// Maximum size of the `data` of the `connect` command, in bytes of JSON. Larger data fails with error 106,
        /// after which SDKs do not reconnect. Others receive it as `conn_info.unverified` with each publication and in
        /// presence, so a larger limit lets one client inflate the pushes and replies of its channels. With zero, the
        /// data is ignored and not shown.
        pub client_info_size_max: usize as ByteSize = 4 << 10,
        /// Maximum number of bytes queued for one client. A client that reads too slowly and exceeds it is disconnected
        /// with
        /// 3008. Must be at least twice the size of the largest push and of the largest reply.
        pub queue_bytes_max: usize as ByteSize = 1 << 20,
        /// Maximum size of a reply, in bytes. A command with a larger reply fails with error 106. Must be at most half
        /// of
        /// [`queue_bytes_max`](Self::queue_bytes_max), to leave room for pushes.
        pub reply_size_max: usize as ByteSize = 512 << 10,
        /// Maximum number of clients in a `presence` reply. In larger channels `presence` fails with error 106, and
        /// only `presence_stats` works.
        pub presence_clients_max: usize = 4_000,
        /// Maximum memory of one channel's history. Beyond it, the oldest publications are evicted. Must be at least 1
        /// KiB less than [`reply_size_max`](Self::reply_size_max), because a client that recovers gets all of it in one
        /// reply.
        pub history_bytes_per_channel_max: usize as ByteSize = 384 << 10,
        /// Maximum memory of all histories. Beyond it, the least recently used history is evicted, and the subscribers
        /// of its channel are unsubscribed so that they recover. Publishing and reading both count as use.
        pub history_bytes_max: usize as ByteSize = 256 << 20,
    }
}

impl Limits {
    /// Sets [`publication_size_max`](Self::publication_size_max), and raises the limits that are too small for
    /// publications of this size with the current [`client_info_size_max`](Self::client_info_size_max): messages,
    /// queues, replies, and the history of a channel, which must hold at least one publication.
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

options! {
    /// Timeouts and intervals. The docs of each timeout say what happens when it expires.
    #[derive(PartialEq, Eq)]
    pub struct Timeouts {
        /// Time to receive the complete head of an HTTP request, counted from the previous response on a reused
        /// connection; after that, the connection is closed.
        pub request_head: Duration = Duration::from_secs(10),
        /// Total lifetime of an HTTP connection that does not become a WebSocket; after that, it is closed.
        pub http_connection: Duration = Duration::from_secs(60),
        /// Time from the upgrade to the `connect` command; after that, the client is disconnected with 3000, or with
        /// 3502 if `connect` failed. Also the time for the body of a request to `/connection/http_stream` or
        /// `/emulation`; after that, it is answered with 408.
        pub connect: Duration = Duration::from_secs(10),
        /// Interval of the server's pings, which is part of the reply to `connect`. Must be longer than
        /// [`pong`](Self::pong).
        pub ping_interval: Duration = Duration::from_secs(25),
        /// Time to answer a ping; after that, the client is disconnected with 3012. Must be shorter than
        /// [`ping_interval`](Self::ping_interval), so that at most one ping is unanswered. A client that stops responding is
        /// removed from its channels after the sum of both, 33 s by default.
        pub pong: Duration = Duration::from_secs(8),
        /// How often each channel with history is compared with the engine. If a publication is missing, its
        /// subscribers are unsubscribed with 2500, and recover; with Redis or NATS, the node first reads what is
        /// missing and delivers it, so that subscribers notice nothing. The server examines at most 4,096 channels at a
        /// time, 64 times per interval; with more channels, the check of each takes place less often.
        pub position_check: Duration = Duration::from_secs(40),
        /// Time for a slow client to read 64 KiB; after that, the client is disconnected with 3008.
        pub write: Duration = Duration::from_secs(33),
        /// Time for the closing handshake of one connection; after that, TCP is closed without it.
        pub close: Duration = Duration::from_secs(5),
        library_only {
            /// Time over which clients are disconnected after the shutdown signal, in random order, so that they do not
            /// all reconnect at once. By default all at once. Must be shorter than [`shutdown`](Self::shutdown).
            /// `sockeye serve` derives it from its setting `drain`.
            pub drain: Duration = Duration::ZERO,
            /// Time for all connections to end after the shutdown signal; after that, they are dropped. `sockeye serve`
            /// derives it from its setting `drain`.
            pub shutdown: Duration = Duration::from_secs(10),
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
            connections_per_address_max,
            handshakes_per_second_max,
            connections_per_user_max,
            api_request_size_max,
            message_size_max,
            publication_size_max,
            commands_per_second_max,
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
            connections_per_address_max,
            handshakes_per_second_max as usize,
            connections_per_user_max,
            api_request_size_max,
            message_size_max,
            publication_size_max,
            commands_per_second_max as usize,
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
            position_check,
            write,
            close,
            drain,
            shutdown,
        } = Timeouts::default();
        for timeout in [
            request_head,
            http_connection,
            connect,
            ping_interval,
            pong,
            position_check,
            write,
            close,
            shutdown,
        ] {
            assert!((1..=60).contains(&timeout.as_secs()));
        }
        assert!(drain < shutdown);
        assert!(ping_interval + pong <= Duration::from_secs(35));
    }

    #[test]
    fn the_security_page_names_every_limit_and_timeout() {
        let page = include_str!("../../../../SECURITY.md");
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
    fn default_config_passes_the_check() {
        check(|_| {}, Ok(()));
    }

    #[test]
    fn publications_do_not_wait_longer_than_clients() {
        check(
            |config| config.namespaces.get_mut("chat").unwrap().outage_buffer = Duration::from_secs(6),
            Err("namespaces.chat.outage_buffer is 6s, but must be at most 5s"),
        );
    }

    #[test]
    fn limits_that_exclude_everybody_and_empty_secrets_are_errors() {
        check(
            |config| config.limits.handshakes_per_second_max = 0,
            Err("limits.handshakes_per_second_max is 0, but must be at least 1"),
        );
        check(
            |config| config.namespaces.get_mut("chat").unwrap().publication_rate_max = Some(0),
            Err(
                "namespaces.chat.publication_rate_max is 0, but must be at least 1; allow_publish = \"nobody\" forbids \
                 publishing",
            ),
        );
        check(
            |config| config.api_keys = vec!["key".into(), "".into()],
            Err("api_keys must not contain an empty key"),
        );
        check(
            |config| config.tokens.hmac_secret = Some("".into()),
            Err("tokens.hmac_secret is empty; leave it out to refuse HMAC tokens"),
        );
        check(
            |config| config.console.password = Some("".into()),
            Err("console.password must not be empty"),
        );
    }

    #[test]
    fn a_limit_or_timeout_of_zero_is_an_error_where_nothing_would_work() {
        use options::{OptionInfo, Options, Value};
        let names = |options: &'static [OptionInfo]| options.iter().map(|option| option.name);
        let sizes = ["client_info_size_max", "presence_clients_max"];
        // Their error names another option: the relation to it.
        let related = ["message_size_max", "queue_bytes_max", "reply_size_max"];
        for name in names(Limits::default().options()) {
            let mut config = Config::default();
            config.limits.set(name, Value::Text("0")).unwrap();
            match config.check() {
                Ok(()) => assert!(sizes.contains(&name), "{name}"),
                Err(error) if related.contains(&name) => {
                    assert!(error.field().starts_with("limits."), "{name}: {error}")
                }
                Err(error) => assert_eq!(error.to_string(), format!("limits.{name} is 0, but must be at least 1")),
            }
        }
        for name in names(Timeouts::default().options()) {
            let mut config = Config::default();
            config.timeouts.set(name, Value::Text("0")).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert_eq!(error, format!("timeouts.{name} is 0, but must be greater than 0"));
        }
        for name in ["timeout", "concurrency_max", "rpc_per_client_max", "failures_max"] {
            let mut config = Config::default();
            config.hooks.set(name, Value::Text("0")).unwrap();
            assert_eq!(config.check().unwrap_err().field(), format!("hooks.{name}"));
        }
        let set_size = |config: &mut Config| {
            config.subscription_tokens = Some(TokenConfig {
                size_max: 0,
                ..TokenConfig::default()
            });
        };
        check(
            set_size,
            Err("subscription_tokens.size_max is 0, but must be at least 1"),
        );
        check(
            |config| config.console.session_lifetime = Duration::ZERO,
            Err("console.session_lifetime is 0, but must be greater than 0"),
        );
    }

    #[test]
    fn probable_mistakes_are_reported() {
        let warnings = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap();
            config.warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(warnings(&|_| {}), Vec::<String>::new());
        let secret = |len: usize| move |config: &mut Config| config.tokens.hmac_secret = Some("s".repeat(len).into());
        assert_eq!(warnings(&secret(32)), Vec::<String>::new());
        assert!(warnings(&secret(31))[0].starts_with("tokens.hmac_secret has 31 bytes; RFC 7518"));
        let insecure = |config: &mut Config| {
            config.insecure_api = true;
            config.insecure_clients = true;
            config.tokens.insecure_skip_signature_check = true;
        };
        assert_eq!(
            warnings(&insecure),
            [
                "insecure_api is true: everyone who can reach the server may call the HTTP API; for development only",
                "insecure_clients is true: everyone who can reach the server may do everything in every channel; for \
                 development only",
                "tokens.insecure_skip_signature_check is true: everyone can impersonate every user; for development only",
            ]
        );
        let password = |config: &mut Config| config.console.password = Some("open sesame".into());
        assert_eq!(
            warnings(&password),
            ["console.password has 11 characters; use at least 16 random ones"]
        );
        let size = |size| move |config: &mut Config| config.namespaces.get_mut("chat").unwrap().history_size = size;
        assert_eq!(warnings(&size(2457)), Vec::<String>::new());
        assert_eq!(
            warnings(&size(2458)),
            [
                "namespaces.chat.history_size is 2458, but limits.history_bytes_per_channel_max, 393216 bytes, holds at most \
                 2457 publications"
            ]
        );
    }

    #[test]
    fn personal_channels_need_their_namespace() {
        let personal = |name: &str| {
            let name = Some(name.to_owned());
            |config: &mut Config| config.personal_channels = name
        };
        check(personal(""), Ok(()));
        check(personal("chat"), Ok(()));
        let error = "personal_channels is \"users\", but must be a namespace that exists, or empty";
        check(personal("users"), Err(error));
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
    fn set_publication_size_max_raises_dependent_limits() {
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
            config.channels = None;
            config.namespaces.clear();
            config.limits.reply_size_max = 0;
        };
        check(without_history, Ok(()));
    }

    #[test]
    fn a_namespace_uses_only_hooks_that_have_an_address() {
        let change = |url: Option<&'static str>| {
            move |config: &mut Config| {
                config.hooks.publish_url = url.map(str::to_owned);
                config.namespaces.get_mut("chat").unwrap().publish_hook = true;
            }
        };
        check(change(Some("http://127.0.0.1:1/")), Ok(()));
        let error = "namespaces.chat.publish_hook needs hooks.publish_url, which is not set";
        check(change(None), Err(error));
        let slow = |config: &mut Config| {
            config.hooks.connect_url = Some("http://127.0.0.1:1/".to_owned());
            config.hooks.timeout = Duration::from_secs(10);
        };
        check(
            slow,
            Err("hooks.timeout is 10s, but must be shorter than timeouts.connect, 10s"),
        );
    }

    #[test]
    fn a_pong_is_due_before_the_next_ping() {
        let pong = |ms| move |config: &mut Config| config.timeouts.pong = Duration::from_millis(ms);
        check(pong(24_999), Ok(()));
        let error = "timeouts.pong is 25s, but must be shorter than timeouts.ping_interval, 25s";
        check(pong(25_000), Err(error));
    }
}
