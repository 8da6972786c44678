//! Engines number publications, store history, and keep presence.
//!
//! An [`Engine`] is independent of connections. It assigns an offset to each publication and passes it to [`Deliver`] on
//! every node with subscribers, in the order of the offsets. [`memory`] is the engine of a single node. The trait also
//! suits Redis or NATS: all calls are asynchronous, and the hub checks the offsets that an engine delivers.

mod memory;
mod recovery;
mod shard;
mod stream;
mod streams;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

pub(crate) use memory::MemoryEngine;
pub(crate) use recovery::is_recovered;

use crate::channel::ChannelName;
use crate::presence::{ClientId, ClientInfo, PresenceStats, Subscription};
use crate::protocol::{Data, WireData, WirePublication};

/// The future of a call to an engine. Boxed, so that the task of an idle connection does not reserve memory for it.
pub(crate) type EngineFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// State shared by all nodes: history and presence.
///
/// Calls may be concurrent. A call that fails may have taken effect.
pub(crate) trait Engine: Send + Sync + fmt::Debug {
    /// Notifies the engine that this node may have gained its first subscriber of a channel or lost its last one.
    /// [`Deliver::has_subscribers`] returns the current state. When the call returns, publications are delivered if there
    /// are subscribers.
    ///
    /// Level-triggered: if one client leaves while another subscribes, the order of their calls does not matter.
    fn interest_changed<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, ()>;

    /// Numbers, stores and delivers a publication. When the call returns, the publication is in the history.
    fn publish<'a>(&'a self, channel: &'a ChannelName, content: Content) -> EngineFuture<'a, ()>;

    /// Delivers a join push.
    fn publish_join<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()>;

    /// Delivers a leave push.
    fn publish_leave<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()>;

    /// Reads a part of the history, and the position of the stream at the same time.
    fn history<'a>(&'a self, channel: &'a ChannelName, query: HistoryQuery) -> EngineFuture<'a, History>;

    /// Adds a client to the members of a channel.
    fn presence_add<'a>(&'a self, subscription: &'a Subscription, info: Arc<ClientInfo>) -> EngineFuture<'a, ()>;

    /// Removes a client from the members of a channel, unless it has a newer subscription.
    fn presence_remove<'a>(&'a self, subscription: &'a Subscription, client: ClientId) -> EngineFuture<'a, ()>;

    /// Returns the members of a channel, or `None` if there are more than `clients_max`.
    fn presence<'a>(
        &'a self,
        channel: &'a ChannelName,
        clients_max: usize,
    ) -> EngineFuture<'a, Option<Vec<Arc<ClientInfo>>>>;

    /// Returns the number of members of a channel.
    fn presence_stats<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, PresenceStats>;
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
    /// Counts from 1 within an epoch; 0 in a channel without history.
    pub(crate) offset: u64,
    /// Unix time of the publication in milliseconds.
    pub(crate) time_ms: u64,
}

impl Publication {
    pub(crate) fn wire(&self) -> WirePublication<'_> {
        self.wire_with(WireData::Plain(&self.content.data))
    }

    /// The publication for a subscription with deltas, as a whole.
    pub(crate) fn wire_complete(&self) -> WirePublication<'_> {
        self.wire_with(WireData::Complete(&self.content.data))
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

/// An error of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum EngineError {
    /// The channel has no history.
    NoHistory,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHistory => f.write_str("the channel has no history"),
        }
    }
}

impl std::error::Error for EngineError {}

#[cfg(test)]
mod tests;
