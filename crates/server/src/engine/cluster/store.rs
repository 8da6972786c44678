//! What a cluster engine needs from a store that all nodes share.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::{Epoch, HistoryLimits, HistoryQuery, Position, PublishOutcome, Version};
use super::inbox::Inbox;
use crate::channel::ChannelName;
use crate::ids::{ClientId, Generation};

/// Time to read the positions of many channels. Shorter than the time of a call, so that those that were read in time
/// count.
pub(crate) const POSITIONS_TIMEOUT: Duration = Duration::from_secs(2);

/// The future of a call to a store.
pub(crate) type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store that all nodes share: Redis, NATS JetStream, or a simulation.
///
/// It keeps the streams of channels and the entries of presence, and passes events to the nodes that subscribed to
/// them:
/// [`Inbox::push`] takes them. Events may get lost when the connection breaks or an [`Inbox`] is full; the caller then reads
/// the stream. Payloads are opaque.
///
/// Calls may be concurrent. The caller limits the time of each call and drops it then, so a call must be cancel-safe:
/// it has no effect, or the effect of a complete call.
pub(crate) trait Store: Send + Sync + fmt::Debug + 'static {
    /// Connects and keeps the connection, for ever: a task of its own reconnects whenever the connection is lost. After
    /// each connection, it subscribes to [`Inbox::subscriptions`] and to the control subjects of this node, and then
    /// calls
    /// [`Inbox::connected`]; when the connection is lost, [`Inbox::disconnected`].
    fn start(&self, inbox: Arc<Inbox>);

    /// Drops the connection and looks for the server again, because events do not arrive.
    fn reconnect(&self);

    /// Subscribes this node to the events of a channel. When the call returns, the server sends them.
    fn subscribe<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, ()>;

    /// Ends the subscription of this node to a channel.
    fn unsubscribe<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, ()>;

    /// In one atomic step: checks the idempotency key and the version, numbers and stores the publication, and sends it
    /// to the subscribed nodes as [`Event::Publication`]. Without `limits` the publication is not stored, and has no
    /// position.
    ///
    /// # Errors
    /// The publication may have been stored if the error is [`StoreError::Unavailable`].
    fn publish<'a>(&'a self, channel: &'a ChannelName, publish: StorePublish) -> StoreFuture<'a, StorePublished>;

    /// Sends [`Event::Membership`] to the subscribed nodes.
    fn announce<'a>(&'a self, channel: &'a ChannelName, membership: Membership) -> StoreFuture<'a, ()>;

    /// Reads a part of the stream, and its newest position at the same time.
    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        query: HistoryQuery,
        limits: HistoryLimits,
    ) -> StoreFuture<'a, StoredPage>;

    /// Removes all publications of a stream. Its epoch and offset stay.
    fn remove_history<'a>(&'a self, channel: &'a ChannelName, limits: HistoryLimits) -> StoreFuture<'a, ()>;

    /// Returns the newest positions of channels, in their order; `None` for those that cannot be read within
    /// [`POSITIONS_TIMEOUT`]. A server that does not answer delays no channel of another one. The caller asks for at
    /// most [`POSITIONS_PER_CALL`](super::super::POSITIONS_PER_CALL).
    fn positions<'a>(&'a self, channels: &'a [(ChannelName, HistoryLimits)]) -> StoreFuture<'a, Vec<Option<Position>>>;

    /// Gives a stream a new epoch if it is still in the epoch of `seen` and has lost the publication at this position,
    /// which a node has received. A store whose replicas may lag behind checks that first, and does nothing if it has
    /// not lost it.
    fn replace_epoch<'a>(
        &'a self,
        channel: &'a ChannelName,
        limits: HistoryLimits,
        seen: &'a Position,
    ) -> StoreFuture<'a, ()>;

    /// Adds or replaces the presence of a client in a channel, unless there is one of a later generation.
    fn presence_put<'a>(&'a self, channel: &'a ChannelName, entry: PresenceEntry) -> StoreFuture<'a, ()>;

    /// Removes the presence of a client from a channel, unless there is one of a later generation.
    fn presence_remove<'a>(
        &'a self,
        channel: &'a ChannelName,
        client: ClientId,
        generation: Generation,
    ) -> StoreFuture<'a, ()>;

    /// Returns the payloads of all entries of a channel.
    fn presence_read<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Vec<Bytes>>;

    /// Returns the number of clients and of users of a channel.
    fn presence_count<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, (usize, usize)>;

    /// Registers this node for [`LEASE_TTL`] more. Returns whether the node was known: if not, other nodes may have
    /// removed its presence entries.
    fn renew_lease<'a>(&'a self, info: Bytes) -> StoreFuture<'a, bool>;

    /// Ends the registration of this node.
    fn end_lease(&self) -> StoreFuture<'_, ()>;

    /// Returns the registered nodes, and what they have registered with.
    fn nodes(&self) -> StoreFuture<'_, Vec<NodeEntry>>;

    /// Removes the presence entries of nodes whose registration has ended. For each entry that this call has removed,
    /// and that announces its leave, sends [`Event::Membership`]; two nodes that call it at once never do so both.
    /// Returns the number of removed entries. The caller does not limit the time of this call: the store limits that of
    /// each step.
    fn remove_expired_presence(&self) -> StoreFuture<'_, usize>;

    /// Sends [`Event::Control`] to one node, or to all including this one.
    fn send_control<'a>(&'a self, to: Option<&'a str>, payload: Bytes) -> StoreFuture<'a, ()>;
}

/// How long a node is registered after [`Store::renew_lease`]. A node that died leaves presence after this time and one
/// more [`LEASE_INTERVAL`].
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(6);

/// How often a node renews its registration, and removes the presence of dead nodes.
pub(crate) const LEASE_INTERVAL: Duration = Duration::from_secs(2);

/// A publication for the store.
#[derive(Clone, Debug)]
pub(crate) struct StorePublish {
    pub(crate) payload: Bytes,
    pub(crate) time_ms: u64,
    /// A repeated publication with the same key in this channel within [`super::super::KEY_TTL`] is not published.
    pub(crate) idempotency_key: Option<Box<str>>,
    pub(crate) version: Option<Version>,
    /// `None` if the channel has no history.
    pub(crate) limits: Option<HistoryLimits>,
}

/// The result of a publication.
#[derive(Clone, Debug)]
pub(crate) struct StorePublished {
    /// The position of the publication, or of the first one with its idempotency key, or of the newest one if it was
    /// suppressed.
    pub(crate) position: Position,
    pub(crate) outcome: PublishOutcome,
}

/// A publication of a stream.
#[derive(Clone, Debug)]
pub(crate) struct StoredPublication {
    pub(crate) offset: u64,
    /// The offset of the publication before it in the channel.
    pub(crate) previous: u64,
    pub(crate) time_ms: u64,
    pub(crate) payload: Bytes,
}

/// A part of a stream.
#[derive(Clone, Debug)]
pub(crate) struct StoredPage {
    pub(crate) publications: Vec<StoredPublication>,
    pub(crate) top: Position,
}

/// A client that came or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) kind: MembershipKind,
    /// The encoded [`crate::presence::ClientInfo`].
    pub(crate) info: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MembershipKind {
    Join,
    Leave,
}

/// A client in a channel, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PresenceEntry {
    pub(crate) client: ClientId,
    pub(crate) generation: Generation,
    pub(crate) user: Arc<str>,
    /// The encoded [`crate::presence::ClientInfo`].
    pub(crate) info: Bytes,
    /// Whether a leave is announced when the node dies.
    pub(crate) announces_leave: bool,
}

/// A registered node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeEntry {
    pub(crate) uid: String,
    pub(crate) info: Bytes,
}

/// What a store sends to the nodes.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Publication {
        channel: ChannelName,
        /// The epoch; `None` if the publication is not stored.
        epoch: Option<Epoch>,
        publication: StoredPublication,
    },
    Membership {
        channel: ChannelName,
        membership: Membership,
    },
    /// A message of a node to other nodes.
    Control(Bytes),
}

/// Why a call to a store failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    /// The server is not reachable, or did not answer. A retry may succeed.
    Unavailable(Arc<str>),
    /// The server has no room. The call had no effect.
    Full(Arc<str>),
    /// The publication is larger than the server takes.
    TooLarge,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(reason) => write!(f, "the engine is not reachable: {reason}"),
            Self::Full(reason) => write!(f, "the engine has no room: {reason}"),
            Self::TooLarge => f.write_str("the publication is too large for the engine"),
        }
    }
}

impl std::error::Error for StoreError {}
