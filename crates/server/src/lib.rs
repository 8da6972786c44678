//! Real-time channels for browsers and other programs: a server that speaks the Centrifugo client protocol (JSON and
//! Protobuf) over WebSocket, server-sent events and HTTP streaming, so that existing Centrifugo client libraries work
//! with it.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use sockeye_server::{Config, serve};
//!
//! let mut config = Config::default();
//! config.limits.channels_per_client_max = 16;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! serve(listener, config, async { drop(tokio::signal::ctrl_c().await) }).await
//! # }
//! ```
//!
//! A client connects, subscribes to channels, and receives what others publish there. It can list the subscribers of a
//! channel, be notified when they come and go, and read the channel's history. After a lost connection it recovers the
//! publications that it missed, or learns that recovery is impossible.
//!
//! Guarantees for clients:
//!
//! - The commands of one frame are executed in order. The reply to a subscription precedes all pushes of the channel.
//! - In channels with history, publications are numbered and arrive in order. If a positioned subscriber misses one, it
//!   is unsubscribed with 2500 and recovers all missed publications or none; this includes publications dropped by
//!   `drop_oldest`. For other subscribers, publications skipped by `drop_oldest` or `latest` appear as gaps in the
//!   offsets.
//! - Clients authenticate with JSON Web Tokens ([`auth`]), or are anonymous. The namespace of a channel decides who may
//!   subscribe, publish, and read presence and history ([`NamespaceOptions`]). Channels named `$private` need a token,
//!   and `dialog#42` admits the user `42`. Connections and subscriptions end 25 s after their token has expired, unless
//!   the client presents a new one.
//! - A backend decides about connections, subscriptions, publications and calls over HTTP ([`HookOptions`]), or the
//!   embedding program handles calls ([`ServerBuilder::on_rpc`]). A pending decision delays later commands for the same
//!   channel only, except that all commands wait for `connect`, and a call or subscription beyond the limits of a
//!   client blocks the commands behind it.
//! - The `data` of the `connect` command is shown to others as `conn_info.unverified`, up to 4 KiB, if the token
//!   contains no information about the client. The `data` for a backend that decides about the connection is not shown
//!   to others.
//! - An invalid or unsupported command (maps, shared polls, `rpc` without a handler) gets an error reply, and the
//!   connection stays open. A malformed frame, an invalid connection token or a flood of commands closes it
//!   ([`codes::DisconnectCode`]).
//! - A client that stops responding is removed from its channels within about 33 s.
//!
//! Guarantees for operators: every limit is finite ([`Limits`], [`Timeouts`]). A client that exceeds one receives an
//! error or a close code ([`codes`]), and other clients are not affected.
//!
//! [`serve`] runs the server, configured by [`Config`]. The program `sockeye` (package `sockeye-cli`) is a command line for
//! this library.

mod accept;
mod api;
pub mod auth;
mod channel;
mod client;
mod clients;
pub mod codes;
mod config;
mod connection;
mod connection_limiter;
mod console;
#[cfg_attr(not(test), expect(dead_code, reason = "only tests apply deltas"))]
mod delta;
mod demo;
mod endpoint;
mod engine;
mod engine_failures;
mod filter;
#[cfg(feature = "__fuzz")]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod handlers;
mod hooks;
mod http;
mod http_client;
mod ids;
mod journal;
mod metrics;
mod node;
mod page;
mod policy;
mod presence;
mod protocol;
mod queue;
mod rate_limiter;
mod refusals;
mod request_id;
mod serve;
mod session;
pub mod settings;
mod transports;

pub use config::{
    Access, Config, ConfigError, ConsoleOptions, Limits, NamespaceOptions, Namespaces, SlowConsumerPolicy, Timeouts,
};
pub use endpoint::Endpoint;
pub use engine::{
    EngineUrl, Fsync, InvalidEngineUrl, InvalidFsync, InvalidNatsUrl, InvalidRedisUrl, JournalCheck, JournalConfig,
    JournalRepair, NatsConfig, RedisConfig,
};
pub use handle::{
    ChannelStats, Disconnect, HistoryOptions, HistoryPage, HistoryPublication, Member, NodeInfo, PresenceCount,
    PublishOptions, RefreshOptions, ServerHandle, StreamPosition, SubscribeOptions, Target,
};
pub use handlers::{ClientMessage, RpcCall, RpcError};
pub use hooks::HookOptions;
pub use serve::{Server, ServerBuilder, serve};
pub use sockeye::handshake::Authority;
pub use sockeye::{DeflateConfig, HostPolicy, Origin, OriginPolicy, Takeover};
