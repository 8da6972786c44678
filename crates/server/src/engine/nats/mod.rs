//! The engine's store on NATS JetStream.
//!
//! - Publications of channels with history go into streams, one for each class of history (size and TTL) and shard; see
//!   `streams.rs`. The server republishes each to the live subject of its channel. Everything else is published there
//!   by core NATS; see `live.rs`.
//! - A node subscribes to the live subjects of the channels with subscribers. There are no JetStream consumers.
//! - Histories are read by Direct Get; see `history.rs`.
//! - Presence and the registered nodes are in two streams in memory; see `presence.rs`.
//!
//! Names of subjects and streams are in `subject.rs`. What a crash of NATS loses depends on its `sync_interval`: with
//! `always`, or with three replicas on machines that do not fail together, nothing; with the default of two minutes, a
//! server without replicas may lose that much. Losses are announced: the stream gets a new epoch.

mod api;
mod config;
mod direct;
mod history;
mod live;
mod presence;
mod streams;
mod subject;
mod supervisor;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::config::{InvalidNatsUrl, NatsConfig};
use self::direct::Replies;
use self::live::Subscriptions;
use self::streams::Streams;
use self::subject::Subjects;
use super::cluster::{
    Inbox, Membership, NodeEntry, PresenceEntry, Store, StoreError, StoreFuture, StorePublish, StorePublished,
    StoredPage,
};
use super::{HistoryLimits, HistoryQuery, Position};
use crate::channel::ChannelName;
use crate::ids::{ClientId, Generation};

/// NATS JetStream as a [`Store`]; see the module documentation.
pub(crate) struct NatsStore {
    shared: Arc<Shared>,
}

/// What the tasks of the store share.
#[derive(Debug)]
struct Shared {
    config: NatsConfig,
    subjects: Subjects,
    uid: Arc<str>,
    streams: Streams,
    subscriptions: Subscriptions,
    /// Set when the client exists; it may still be connecting.
    link: OnceLock<Link>,
    inbox: OnceLock<Arc<Inbox>>,
    /// The sequence of this node's lease; 0 without one.
    lease: AtomicU64,
    /// Tasks that end with the store.
    tasks: Mutex<JoinSet<()>>,
}

/// The connection to NATS.
#[derive(Debug)]
struct Link {
    client: Client,
    replies: Arc<Replies>,
    /// The number of the newest barrier that has passed.
    barriers: watch::Sender<u64>,
    barriers_sent: AtomicU64,
    connected: Mutex<Instant>,
}

impl NatsStore {
    /// Creates the store of the node `uid`. It connects when [`Store::start`] is called.
    pub(crate) fn new(config: &NatsConfig, uid: Arc<str>) -> Self {
        let subjects = Subjects::new(&config.prefix);
        Self {
            shared: Arc::new(Shared {
                streams: Streams::new(subjects.clone(), config.replicas, config.stream_bytes),
                subjects,
                config: config.clone(),
                uid,
                subscriptions: Subscriptions::default(),
                link: OnceLock::new(),
                inbox: OnceLock::new(),
                lease: AtomicU64::new(0),
                tasks: Mutex::default(),
            }),
        }
    }
}

impl Shared {
    fn link(&self) -> Result<&Link, StoreError> {
        self.link
            .get()
            .ok_or_else(|| StoreError::Unavailable("not connected yet".into()))
    }

    /// Starts a task that ends with the store.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().spawn(task);
    }
}

impl Link {
    fn new(client: Client, replies: Arc<Replies>) -> Self {
        Self {
            client,
            replies,
            barriers: watch::Sender::new(0),
            barriers_sent: AtomicU64::new(0),
            connected: Mutex::new(Instant::now()),
        }
    }

    fn next_barrier(&self) -> u64 {
        self.barriers_sent.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn set_connected(&self) {
        *self.connected.lock() = Instant::now();
    }

    fn connected_for(&self) -> Duration {
        self.connected.lock().elapsed()
    }
}

impl Drop for NatsStore {
    fn drop(&mut self) {
        // The tasks keep the shared part.
        self.shared.tasks.lock().abort_all();
        self.shared.subscriptions.clear();
    }
}

impl Store for NatsStore {
    fn start(&self, inbox: Arc<Inbox>) {
        if self.shared.inbox.set(inbox.clone()).is_ok() {
            self.shared.spawn(supervisor::run(self.shared.clone(), inbox));
        } else {
            debug_assert!(false, "started twice");
        }
    }

    fn reconnect(&self) {
        if let Some(link) = self.shared.link.get() {
            let client = link.client.clone();
            tokio::spawn(async move {
                if let Err(error) = client.force_reconnect().await {
                    tracing::warn!(%error, "could not connect to NATS again");
                }
            });
        }
    }

    fn subscribe<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, ()> {
        Box::pin(self.shared.subscribe(channel))
    }

    fn unsubscribe<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, ()> {
        self.shared.unsubscribe(channel);
        Box::pin(std::future::ready(Ok(())))
    }

    fn publish<'a>(&'a self, channel: &'a ChannelName, publish: StorePublish) -> StoreFuture<'a, StorePublished> {
        Box::pin(async move {
            match publish.limits {
                Some(limits) => self.shared.publish_stored(channel, publish, limits).await,
                None => self.shared.publish_unstored(channel, publish).await,
            }
        })
    }

    fn announce<'a>(&'a self, channel: &'a ChannelName, membership: Membership) -> StoreFuture<'a, ()> {
        Box::pin(self.shared.announce(channel, membership))
    }

    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        query: HistoryQuery,
        limits: HistoryLimits,
    ) -> StoreFuture<'a, StoredPage> {
        Box::pin(self.shared.read(channel, query, limits))
    }

    fn remove_history<'a>(&'a self, channel: &'a ChannelName, limits: HistoryLimits) -> StoreFuture<'a, ()> {
        Box::pin(self.shared.remove_history(channel, limits))
    }

    fn positions<'a>(&'a self, channels: &'a [(ChannelName, HistoryLimits)]) -> StoreFuture<'a, Vec<Option<Position>>> {
        Box::pin(self.shared.positions(channels))
    }

    fn replace_epoch<'a>(
        &'a self,
        channel: &'a ChannelName,
        limits: HistoryLimits,
        seen: &'a Position,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move { self.shared.replace_epoch(channel, &limits, seen).await })
    }

    fn presence_put<'a>(&'a self, channel: &'a ChannelName, entry: PresenceEntry) -> StoreFuture<'a, ()> {
        Box::pin(self.shared.presence_put(channel, entry))
    }

    fn presence_remove<'a>(
        &'a self,
        channel: &'a ChannelName,
        client: ClientId,
        generation: Generation,
    ) -> StoreFuture<'a, ()> {
        Box::pin(self.shared.presence_remove(channel, client, generation))
    }

    fn presence_read<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Vec<Bytes>> {
        Box::pin(self.shared.presence_read(channel))
    }

    fn presence_count<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, (usize, usize)> {
        Box::pin(self.shared.presence_count(channel))
    }

    fn renew_lease<'a>(&'a self, info: Bytes) -> StoreFuture<'a, bool> {
        Box::pin(self.shared.renew_lease(info))
    }

    fn end_lease(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.shared.end_lease())
    }

    fn nodes(&self) -> StoreFuture<'_, Vec<NodeEntry>> {
        Box::pin(self.shared.nodes())
    }

    fn remove_expired_presence(&self) -> StoreFuture<'_, usize> {
        Box::pin(self.shared.remove_expired_presence())
    }

    fn send_control<'a>(&'a self, to: Option<&'a str>, payload: Bytes) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let link = self.shared.link()?;
            let subject = match to {
                Some(uid) => self.shared.subjects.control(uid),
                None => self.shared.subjects.control_all(),
            };
            let published = link.client.publish(subject, payload).await;
            published.map_err(|error| api::publish_error(&error))
        })
    }
}

impl fmt::Debug for NatsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsStore")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
