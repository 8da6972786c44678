//! Where publications are numbered and remembered, and where presence lives.
//!
//! An [`Engine`] knows nothing about connections. The node asks it to publish; the engine numbers the publication and
//! hands it to [`Deliver`] on every node that has subscribers, in the order of the numbers. The one in [`memory`]
//! serves a single node; engines over Redis or NATS fit the same trait, so everything is asynchronous and what comes
//! back from an engine is checked before it is used.

mod memory;
mod recovery;
mod shard;
mod stream;
mod streams;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

pub(crate) use memory::MemoryEngine;
pub(crate) use recovery::is_recovered;

use crate::channel::ChannelName;
use crate::presence::{ClientId, ClientInfo, PresenceStats, Subscription};
use crate::protocol::{Json, WirePublication};

/// What every call to an engine returns. Boxed, so that an idle connection does not hold room for a call in flight.
pub(crate) type EngineFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// The shared memory of all nodes.
///
/// Calls may come concurrently. A call that fails may have happened all the same.
pub(crate) trait Engine: Send + Sync + fmt::Debug {
    /// Says that this node may have begun or ceased to care about a channel; [`Deliver::is_wanted`] tells which.
    ///
    /// Level-triggered on purpose: when a client leaves while another enters, no order of two such calls can end with
    /// a wanted channel unheard. Once it returns, what is published into a wanted channel is delivered.
    fn interest_changed<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, ()>;

    /// Numbers, remembers and delivers a publication. Once it returns, the publication is in the history.
    fn publish<'a>(&'a self, channel: &'a ChannelName, content: Content) -> EngineFuture<'a, ()>;

    /// Tells subscribers that ask for it that a client came.
    fn publish_join<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()>;

    /// Tells subscribers that ask for it that a client went.
    fn publish_leave<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()>;

    /// Reads a part of the history, with the position of the stream at that moment.
    fn history<'a>(&'a self, channel: &'a ChannelName, query: HistoryQuery) -> EngineFuture<'a, History>;

    /// Counts a client among the members of a channel, by a subscription.
    fn presence_add<'a>(&'a self, subscription: &'a Subscription, info: Arc<ClientInfo>) -> EngineFuture<'a, ()>;

    /// Takes a client out of the members of a channel, unless it is one by a newer subscription.
    fn presence_remove<'a>(&'a self, subscription: &'a Subscription, client: ClientId) -> EngineFuture<'a, ()>;

    /// The members of a channel, or `None` if there are more than `clients_max`.
    fn presence<'a>(
        &'a self,
        channel: &'a ChannelName,
        clients_max: usize,
    ) -> EngineFuture<'a, Option<Vec<Arc<ClientInfo>>>>;

    /// How many members a channel has.
    fn presence_stats<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, PresenceStats>;
}

/// Where an engine hands over what happened in a channel. Never waits.
pub(crate) trait Deliver: Send + Sync {
    /// Whether anybody on this node listens to the channel.
    fn is_wanted(&self, channel: &ChannelName) -> bool;

    /// A publication, in the order of the offsets; `epoch` is there if the channel has a history.
    fn publication(&self, channel: &ChannelName, publication: &Publication, epoch: Option<&Epoch>);

    /// A client came.
    fn join(&self, channel: &ChannelName, info: &ClientInfo);

    /// A client went.
    fn leave(&self, channel: &ChannelName, info: &ClientInfo);
}

/// What a publication says, before it is numbered.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) data: Json,
    /// The client that published it; `None` when the server did.
    pub(crate) info: Option<Arc<ClientInfo>>,
}

/// A publication with its place in the channel.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) content: Content,
    /// Counts from 1 within an epoch; 0 in a channel without history.
    pub(crate) offset: u64,
    /// Milliseconds since 1970 when it was published.
    pub(crate) time_ms: u64,
}

impl Publication {
    pub(crate) fn wire(&self) -> WirePublication<'_> {
        WirePublication {
            data: &self.content.data,
            info: self.content.info.as_deref().map(ClientInfo::wire),
            offset: self.offset,
            time: self.time_ms,
        }
    }
}

/// Names one life of a stream. Offsets of different epochs have nothing to do with each other.
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

/// A place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
}

/// Which part of the history.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HistoryQuery {
    /// Where to begin, exclusive: after it, or before it if reversed.
    pub(crate) since: Option<u64>,
    /// How many at most.
    pub(crate) limit: usize,
    /// From the newest to the oldest.
    pub(crate) is_reversed: bool,
}

/// A part of the history.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) publications: Vec<Publication>,
    /// The newest position of the stream.
    pub(crate) top: Position,
}

/// Why an engine could not do what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum EngineError {
    /// The channel has no history here.
    NoHistory,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHistory => f.write_str("the channel keeps no history"),
        }
    }
}

impl std::error::Error for EngineError {}

#[cfg(test)]
mod tests;
