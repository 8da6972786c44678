//! Engines number publications, store history, and keep presence.
//!
//! An [`Engine`] has two parts, which are independent of each other and of connections. A [`Broker`] assigns an offset
//! to each publication, stores it, and passes it to [`Deliver`] on every node with subscribers, in the order of the
//! offsets. A [`PresenceStore`] keeps the members of each channel. [`MemoryBroker`] and [`MemoryPresence`] serve a
//! single node; with a log on disk ([`JournalConfig`]) the broker keeps its history over a restart. The traits also
//! suit Redis or NATS: all calls are asynchronous, and the hub checks the offsets that a broker delivers.

pub(crate) mod cluster;
mod durable;
mod epochs;
#[cfg(feature = "__fuzz")]
pub(crate) mod fuzzing;
mod idempotency;
mod journal_config;
mod memory;
pub(crate) mod nats;
mod record;
mod recovery;
pub(crate) mod redis;
mod shard;
mod stream;
mod streams;
mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use crate::journal::{Fsync, InvalidFsync, JournalCheck, JournalRepair};
pub(crate) use cluster::{ClusterBroker, NodeEntry, OutagePolicy, OutagePolicyOf, Store};
pub use journal_config::JournalConfig;
pub(crate) use memory::{MemoryBroker, MemoryPresence};
pub use nats::{InvalidNatsUrl, NatsConfig};
pub(crate) use recovery::is_recovered;
pub use redis::{InvalidRedisUrl, RedisConfig};
pub(crate) use stream::PUBLICATION_BYTES;
pub use url::{EngineUrl, InvalidEngineUrl};

use bytes::Bytes;
use prometheus_client::metrics::histogram::Histogram;

use crate::channel::ChannelName;
use crate::ids::{ClientId, Subscription};
use crate::journal::JournalStats;
use crate::presence::{ClientInfo, PresenceStats};
use crate::protocol::{Data, WireData, WirePublication};

/// The future of a call to an engine. Boxed, so that the task of an idle connection does not reserve memory for it.
pub(crate) type EngineFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// Number of channels whose positions are read in one call. A call takes some milliseconds of a store.
pub(crate) const POSITIONS_PER_CALL: usize = 512;

/// Publications and their history, shared by all nodes.
///
/// Calls may be concurrent. A call that fails may have taken effect, unless its error says otherwise.
pub(crate) trait Broker: Send + Sync + fmt::Debug {
    /// Notifies the broker that this node may have gained its first subscriber of a channel or lost its last one.
    /// [`Deliver::has_subscribers`] returns the current state. When the call returns, publications are delivered if there
    /// are subscribers.
    ///
    /// Level-triggered: if one client leaves while another subscribes, the order of their calls does not matter.
    fn interest_changed<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, ()>;

    /// Numbers, stores and delivers a publication. When the call returns, the publication is in the history, and as
    /// durable as the broker makes it.
    ///
    /// # Cancel safety
    /// A call that is dropped either has no effect or is completed in the background.
    fn publish<'a>(&'a self, channel: &'a ChannelName, publish: Publish) -> EngineFuture<'a, Published>;

    /// Starts [`publish`](Self::publish). If the result is [`StartedPublish::Numbered`], the caller may execute the
    /// client's next command before the future completes.
    fn start_publish<'a>(&'a self, channel: &'a ChannelName, publish: Publish) -> StartedPublish<'a> {
        StartedPublish::Unnumbered(self.publish(channel, publish))
    }

    /// Delivers a join push.
    fn publish_join<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()>;

    /// Delivers a leave push.
    fn publish_leave<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()>;

    /// Reads a part of the history, and the position of the stream at the same time.
    fn history<'a>(&'a self, channel: &'a ChannelName, query: HistoryQuery) -> EngineFuture<'a, History>;

    /// Removes all publications from the history of a channel. Its epoch and offset stay, so that clients that missed
    /// nothing can still recover.
    fn history_remove<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, ()>;

    /// Returns the positions of the newest publications of channels, in their order, for the check whether subscribers
    /// have missed one. It does not count as a use of the histories. `None` for a channel without history, and for one
    /// whose position cannot be read at the moment.
    fn positions<'a>(&'a self, channels: &'a [ChannelName]) -> EngineFuture<'a, Vec<Option<Position>>>;

    /// Frees what has expired. To be called periodically.
    fn maintain(&self) -> EngineFuture<'_, ()>;

    /// Checks that publications can be stored, by storing something that no client sees.
    fn probe(&self) -> EngineFuture<'_, ()>;

    /// Whether publications can be stored, as far as is known without a [`probe`](Self::probe).
    fn health(&self) -> Health;

    /// Makes everything durable. Publishing to channels with history fails from now on.
    fn close(&self) -> EngineFuture<'_, ()>;

    /// Statistics for metrics.
    fn stats(&self) -> EngineStats {
        EngineStats::default()
    }

    /// Does what has to be done in the background. Called once; never returns.
    fn run(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    /// Reads the stream of a channel that has missed a publication, and delivers what is missing. Returns whether the
    /// engine can do that; otherwise the subscribers have to recover.
    fn repair(&self, _: &ChannelName) -> bool {
        false
    }

    /// The way to the other nodes; `None` if there is only this one.
    fn nodes(&self) -> Option<&dyn NodeBus> {
        None
    }

    /// Durations of the log's calls of fdatasync, in seconds; `None` without a log.
    fn sync_seconds(&self) -> Option<Histogram> {
        None
    }
}

/// Messages between nodes.
///
/// Messages may get lost; each arrives at most once.
pub(crate) trait NodeBus: Send + Sync {
    /// Sets what this node registers with.
    fn set_info(&self, info: Bytes);

    /// Returns the registered nodes, and what they have registered with.
    fn nodes(&self) -> EngineFuture<'_, Vec<NodeEntry>>;

    /// Sends a message to one node, or to all including this one.
    fn send<'a>(&'a self, to: Option<&'a str>, payload: Bytes) -> EngineFuture<'a, ()>;

    /// Waits for the next message to this node. Cancel-safe.
    fn next(&self) -> Pin<Box<dyn Future<Output = Bytes> + Send + '_>>;
}

/// The members of each channel, shared by all nodes.
///
/// Calls may be concurrent. A call that fails may have taken effect.
pub(crate) trait PresenceStore: Send + Sync + fmt::Debug {
    /// Adds a client to the members of a channel. If its node dies, its leave is announced where `announces_leave` says
    /// so.
    fn add<'a>(
        &'a self,
        subscription: &'a Subscription,
        info: Arc<ClientInfo>,
        announces_leave: bool,
    ) -> EngineFuture<'a, ()>;

    /// Removes a client from the members of a channel, unless it has a newer subscription.
    fn remove<'a>(&'a self, subscription: &'a Subscription, client: ClientId) -> EngineFuture<'a, ()>;

    /// Returns the members of a channel, or `None` if there are more than `clients_max`.
    fn members<'a>(
        &'a self,
        channel: &'a ChannelName,
        clients_max: usize,
    ) -> EngineFuture<'a, Option<Vec<Arc<ClientInfo>>>>;

    /// Returns the number of members of a channel.
    fn stats<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, PresenceStats>;
}

/// The two parts of an engine, which may be of different kinds.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    broker: Arc<dyn Broker>,
    presence: Arc<dyn PresenceStore>,
}

impl Engine {
    pub(crate) fn new(broker: Arc<dyn Broker>, presence: Arc<dyn PresenceStore>) -> Self {
        Self { broker, presence }
    }

    /// [`Broker::interest_changed`]
    pub(crate) fn interest_changed<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, ()> {
        self.broker.interest_changed(channel)
    }

    /// [`Broker::publish`]
    pub(crate) fn publish<'a>(
        &'a self,
        channel: &'a ChannelName,
        publish: impl Into<Publish>,
    ) -> EngineFuture<'a, Published> {
        self.broker.publish(channel, publish.into())
    }

    /// [`Broker::start_publish`]
    pub(crate) fn start_publish<'a>(&'a self, channel: &'a ChannelName, publish: Publish) -> StartedPublish<'a> {
        self.broker.start_publish(channel, publish)
    }

    /// [`Broker::publish_join`]
    pub(crate) fn publish_join<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.broker.publish_join(channel, info)
    }

    /// [`Broker::publish_leave`]
    pub(crate) fn publish_leave<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.broker.publish_leave(channel, info)
    }

    /// [`Broker::history`]
    pub(crate) fn history<'a>(&'a self, channel: &'a ChannelName, query: HistoryQuery) -> EngineFuture<'a, History> {
        self.broker.history(channel, query)
    }

    /// [`Broker::history_remove`]
    pub(crate) fn history_remove<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, ()> {
        self.broker.history_remove(channel)
    }

    /// [`Broker::positions`]
    pub(crate) fn positions<'a>(&'a self, channels: &'a [ChannelName]) -> EngineFuture<'a, Vec<Option<Position>>> {
        self.broker.positions(channels)
    }

    /// [`Broker::maintain`]
    pub(crate) fn maintain(&self) -> EngineFuture<'_, ()> {
        self.broker.maintain()
    }

    /// [`Broker::probe`]
    pub(crate) fn probe(&self) -> EngineFuture<'_, ()> {
        self.broker.probe()
    }

    /// [`Broker::health`]
    pub(crate) fn health(&self) -> Health {
        self.broker.health()
    }

    /// [`Broker::close`]
    pub(crate) fn close(&self) -> EngineFuture<'_, ()> {
        self.broker.close()
    }

    /// [`Broker::sync_seconds`]
    pub(crate) fn sync_seconds(&self) -> Option<Histogram> {
        self.broker.sync_seconds()
    }

    /// [`Broker::stats`]
    pub(crate) fn stats(&self) -> EngineStats {
        self.broker.stats()
    }

    /// [`Broker::run`]
    pub(crate) fn run(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.broker.run()
    }

    /// [`Broker::repair`]
    pub(crate) fn repair(&self, channel: &ChannelName) -> bool {
        self.broker.repair(channel)
    }

    /// [`Broker::nodes`]
    pub(crate) fn nodes(&self) -> Option<&dyn NodeBus> {
        self.broker.nodes()
    }

    /// [`PresenceStore::add`]
    pub(crate) fn presence_add<'a>(
        &'a self,
        subscription: &'a Subscription,
        info: Arc<ClientInfo>,
        announces_leave: bool,
    ) -> EngineFuture<'a, ()> {
        self.presence.add(subscription, info, announces_leave)
    }

    /// [`PresenceStore::remove`]
    pub(crate) fn presence_remove<'a>(
        &'a self,
        subscription: &'a Subscription,
        client: ClientId,
    ) -> EngineFuture<'a, ()> {
        self.presence.remove(subscription, client)
    }

    /// [`PresenceStore::members`]
    pub(crate) fn presence<'a>(
        &'a self,
        channel: &'a ChannelName,
        clients_max: usize,
    ) -> EngineFuture<'a, Option<Vec<Arc<ClientInfo>>>> {
        self.presence.members(channel, clients_max)
    }

    /// [`PresenceStore::stats`]
    pub(crate) fn presence_stats<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, PresenceStats> {
        self.presence.stats(channel)
    }
}

/// Returns the limits of a channel's history, or `None` if it has none. Called for each publication and read, so that a
/// changed configuration applies at once.
pub(crate) type HistoryLimitsOf = dyn Fn(&ChannelName) -> Option<HistoryLimits> + Send + Sync;

/// Limits of the history of one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryLimits {
    pub(crate) count_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) ttl: Duration,
}

/// Statistics of a broker for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EngineStats {
    /// Memory of all histories.
    pub(crate) history_bytes: usize,
    /// Histories evicted because all of them together were too large, since the start.
    pub(crate) evictions: u64,
    /// Statistics of the log; zero without one.
    pub(crate) journal: JournalStats,
    /// Statistics of the connection to Redis or NATS; `None` without one.
    pub(crate) cluster: Option<ClusterStats>,
}

/// Statistics of the connection to the store that all nodes share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClusterStats {
    pub(crate) is_connected: bool,
    /// How often the stream of a channel was read because events may have been missing, since the start.
    pub(crate) catch_ups: u64,
    /// Events that found no room since the start.
    pub(crate) overflows: u64,
    /// Size of the publications that wait for the store.
    pub(crate) waiting_bytes: usize,
}

/// Whether a broker can store publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Ready,
    /// Publishing to channels with history fails, for this reason.
    NotReady(Arc<str>),
}

/// A publication with its options.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) content: Content,
    /// A publication with the same key in the same channel within five minutes is not published again.
    pub(crate) idempotency_key: Option<Box<str>>,
    /// Does not publish if the channel already has this version or a later one.
    pub(crate) version: Option<Version>,
    /// Delivers the publication without storing it, as in a channel without history.
    pub(crate) skips_history: bool,
}

impl From<Content> for Publish {
    fn from(content: Content) -> Self {
        Self {
            content,
            idempotency_key: None,
            version: None,
            skips_history: false,
        }
    }
}

/// The version of the state that a publication contains. Versions of different epochs are not comparable, and the later
/// publication then counts as newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) number: u64,
    pub(crate) epoch: Arc<str>,
}

/// A publication in progress. Dropping either future is as safe as dropping [`Broker::publish`].
pub(crate) enum StartedPublish<'a> {
    /// The future assigns the offset.
    Unnumbered(EngineFuture<'a, Published>),
    /// Has its offset, so later publications in the channel get higher ones. It is neither in the history nor delivered
    /// until the future completes.
    Numbered(EngineFuture<'static, Published>),
}

/// The result of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// Position of the publication, or of the newest one if it was suppressed. Offset 0 of an empty epoch in a channel
    /// without history.
    pub(crate) position: Position,
    pub(crate) outcome: PublishOutcome,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishOutcome {
    Delivered,
    /// A publication with the same idempotency key was published before.
    Duplicate,
    /// The channel already has this version or a later one.
    Suppressed,
}

/// The receiver of an engine's events. Its methods do not block.
pub(crate) trait Deliver: Send + Sync {
    /// Whether the channel has subscribers on this node.
    fn has_subscribers(&self, channel: &ChannelName) -> bool;

    /// Delivers a publication, in the order of the offsets. `epoch` is set if the channel has a history.
    fn publication(&self, channel: &ChannelName, publication: &Publication, epoch: Option<&Epoch>);

    /// Delivers a join.
    fn join(&self, channel: &ChannelName, info: &ClientInfo);

    /// Delivers a leave.
    fn leave(&self, channel: &ChannelName, info: &ClientInfo);
}

/// The receiver of the events of an engine that may lose some. It knows how far each channel has come.
pub(crate) trait ChannelPositions: Deliver {
    /// Whether a publication with these offsets continues the channel.
    fn continuity(&self, channel: &ChannelName, epoch: &Epoch, offset: u64, previous: u64) -> Continuity;

    /// The position of the newest publication that was delivered, if the channel has subscribers and the position is
    /// known.
    fn position(&self, channel: &ChannelName) -> Option<Position>;

    /// The positions of all channels that have one.
    fn positions(&self) -> Vec<(ChannelName, Position)>;

    /// The channels with subscribers.
    fn channels(&self) -> Vec<ChannelName>;

    /// Ends the positioned subscriptions to a channel with "insufficient state", if the channel is still at `seen`,
    /// which is not `top`. Returns whether it did. The channel continues at `top`.
    fn catch_up(&self, channel: &ChannelName, seen: &Position, top: &Position) -> bool;
}

/// How a publication relates to the newest one of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// The channel has no subscribers on this node.
    NoSubscribers,
    /// It is the next one, or the first one of another epoch, or the position of the channel is not known.
    Next,
    /// It, or another one with its offset, was delivered.
    Repeated,
    /// At least one publication is missing.
    Gap,
}

/// The content of a publication, without its offset.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) data: Data,
    /// The publishing client; `None` if the server published.
    pub(crate) info: Option<Arc<ClientInfo>>,
    /// Tags for filters of subscribers; `None` if there are none.
    pub(crate) tags: Option<Arc<Tags>>,
}

/// Names and values that a publication carries beside its data.
pub(crate) type Tags = BTreeMap<String, String>;

/// A publication with its offset in the channel.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) content: Content,
    /// Grows within an epoch; 0 in a channel without history. Engines that count each channel start at 1.
    pub(crate) offset: u64,
    /// The offset of the publication before it in the channel: `offset - 1`, unless the engine numbers several channels
    /// together. If it is not the last one that a subscriber has received, a publication is missing.
    pub(crate) previous: u64,
    /// Unix time of the publication in milliseconds.
    pub(crate) time_ms: u64,
}

impl Publication {
    pub(crate) fn wire(&self) -> WirePublication<'_> {
        self.wire_with(WireData::Plain(&self.content.data))
    }

    /// The publication with another form of its data.
    pub(crate) fn wire_with<'a>(&'a self, data: WireData<'a>) -> WirePublication<'a> {
        WirePublication {
            delta: matches!(data, WireData::Delta(_)),
            data,
            info: self.content.info.as_deref().map(ClientInfo::wire),
            offset: self.offset,
            tags: self.content.tags.as_deref(),
            time: self.time_ms,
        }
    }
}

impl Position {
    /// Whether there are later publications than this position, or those after it are of another epoch.
    pub(crate) fn is_behind(&self, top: &Self) -> bool {
        self.epoch != top.epoch || self.offset < top.offset
    }
}

/// The id of one incarnation of a stream. Offsets of different epochs are not comparable.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Epoch(Arc<str>);

impl Epoch {
    pub(crate) fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A position in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
}

impl Position {
    /// The position in a channel without history.
    pub(crate) fn none() -> Self {
        Self {
            epoch: Epoch::new(""),
            offset: 0,
        }
    }
}

/// Selects a part of the history.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HistoryQuery {
    /// Exclusive start: only later publications, or only earlier ones if reversed.
    pub(crate) since: Option<u64>,
    /// Maximum number of publications.
    pub(crate) limit: usize,
    /// Whether to read from the newest to the oldest.
    pub(crate) is_reversed: bool,
}

/// A part of the history.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) publications: Vec<Publication>,
    /// The newest position of the stream.
    pub(crate) top: Position,
}

/// The time as Unix time in milliseconds.
fn unix_time_ms() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_millis() as u64)
}

/// An error of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum EngineError {
    /// The channel has no history.
    NoHistory,
    /// There is no room to store the publication, which was not delivered. A retry may succeed.
    Full,
    /// Publications cannot be stored until the server is restarted. The publication was not delivered.
    Unavailable,
    /// Redis or NATS cannot be reached. The call may have taken effect. A retry may succeed.
    Unreachable,
    /// The publication is too large to be stored.
    TooLarge,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHistory => "the channel has no history",
            Self::Full => {
                "the log or the engine has no room for the publication: free disk space, or memory of the engine"
            }
            Self::Unavailable => "the log is closed or failed to write: restart the server",
            Self::Unreachable => "the engine is not reachable",
            Self::TooLarge => "the publication is too large for the log or the engine",
        })
    }
}

impl std::error::Error for EngineError {}

#[cfg(test)]
mod tests;
