//! Redis and Valkey as the store of several nodes: a single server, Sentinel, or Cluster with sharded
//! publish/subscribe.
//!
//! A script publishes in one step: it checks the idempotency key and the version, numbers the publication, stores it in
//! a list, and sends it to the subscribed nodes. All keys of a channel have one slot ([`names`]).
//!
//! # Epochs
//!
//! Redis may lose acknowledged writes: replication is asynchronous, and most configurations do not sync every write. A
//! server that has lost writes would give their offsets to other publications. So each stream names the lineage of the
//! server that wrote it last, and a script that finds another lineage gives the stream a new epoch, which clients see
//! as a gap.
//!
//! 1. The lineage of a server is its replication id. Redis draws a new one when a server starts, and when a replica
//!    becomes the primary, but also without a loss: when the first replica connects, and when the last one has been
//!    away for an hour.
//! 2. Each connection reads the replication id and the run id of the process before its first script, and again every
//!    second. If the process is another one, or was promoted, the connection is made anew.
//! 3. A single server, or the one that Sentinel names, keeps its lineage in a key. The same process, if it was not
//!    promoted, continues with that lineage. So does one that has restarted, if it synced each write both before and
//!    after, and recovery is complete.
//! 4. A script that finds the lineage of another server changes nothing and returns it. The node then decides.
//! 5. In a cluster, if that server is still a primary with the same replication id, the slot was moved: the epoch
//!    stays. It also stays if the node has seen that the process is the same, or that the server has given all its
//!    slots to others; see `lineage.rs`.
//! 6. Otherwise that server is gone: the stream keeps its publications and offsets, and gets a new epoch.
//! 7. Two nodes decide the same: the script compares the lineage that was found, so the first one decides.
//! 8. Reads and positions apply the same rules, so nobody sees the old epoch after a failover.
//! 9. Without its state (expired, evicted, flushed) a stream starts with a new epoch.
//! 10. A server that is demoted, synchronized and promoted again within a second, without closing connections, is not
//!     noticed.

mod config;
mod dial;
mod lineage;
mod link;
mod message;
mod names;
mod presence;
mod script;
mod streams;
mod supervisor;
mod topology;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::config::{Address, Deployment};
pub use self::config::{InvalidRedisUrl, RedisConfig};
use self::dial::Dialer;
use self::lineage::Lineages;
use self::link::Link;
use self::names::{Names, slot};
use self::presence::Lease;
use self::script::{Call, Scripts};
use self::topology::Topology;
use super::cluster::{
    Event, Inbox, Membership, NodeEntry, PresenceEntry, Store, StoreError, StoreFuture, StorePublish, StorePublished,
    StoredPage,
};
use super::{HistoryLimits, HistoryQuery, Position};
use crate::channel::ChannelName;
use crate::ids::{ClientId, Generation};

/// Time for a server to answer a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause before a call is repeated because its slot is being moved.
const MOVING_PAUSE: Duration = Duration::from_millis(20);

/// Maximum number of servers that are asked for the topology besides those of the URL.
const SEEDS_MAX: usize = 32;

/// How long a call waits for the new topology.
const TOPOLOGY_PAUSE: Duration = Duration::from_millis(500);

/// The store; see the module documentation.
pub(crate) struct RedisStore {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// What the tasks of the store share.
struct Shared {
    config: RedisConfig,
    uid: Arc<str>,
    names: Names,
    scripts: Scripts,
    dialer: Dialer,
    inbox: OnceLock<Arc<Inbox>>,
    topology: watch::Sender<Arc<Topology>>,
    /// The channels to which this node is to be subscribed.
    wanted: Mutex<HashSet<ChannelName>>,
    /// Asks the supervisor to resolve the topology.
    look_again: Notify,
    must_reconnect: AtomicBool,
    /// A server that another one has named.
    hint: Mutex<Option<Address>>,
    /// The servers that were known last.
    known: Mutex<Vec<Address>>,
    /// What is known about the data of the servers of a cluster.
    lineages: Lineages,
    has_told_durability: AtomicBool,
    lease: Lease,
    has_warned_of_eviction: AtomicBool,
    stop: CancellationToken,
}

impl RedisStore {
    /// Creates the store of the node `uid`. It connects when [`Store::start`] is called.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub(crate) fn new(config: &RedisConfig, uid: Arc<str>) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let shared = Shared {
            lease: Lease::new(&uid),
            uid,
            names: Names::new(&config.prefix),
            scripts: Scripts::new(),
            dialer: Dialer::new(config)?,
            inbox: OnceLock::new(),
            topology: watch::Sender::new(Arc::default()),
            wanted: Mutex::default(),
            look_again: Notify::new(),
            must_reconnect: AtomicBool::new(false),
            hint: Mutex::default(),
            known: Mutex::default(),
            lineages: Lineages::default(),
            has_told_durability: AtomicBool::new(false),
            has_warned_of_eviction: AtomicBool::new(false),
            stop: stop.clone(),
            config: config.clone(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            _stop: stop.drop_guard(),
        })
    }

    async fn subscribe(&self, channel: &ChannelName) -> Result<(), StoreError> {
        let shared = &self.shared;
        shared.wanted.lock().insert(channel.clone());
        let name = [shared.names.channel(channel)];
        loop {
            let link = shared.link(slot(name[0].as_bytes()))?;
            if !link.is_subscribed(&name[0])
                && let Err(error) = link.subscribe(&name).await
            {
                shared.after_error(error, &link).await?;
                continue;
            }
            // If the connections were replaced in the meantime, the subscription may be on the old one only.
            if shared.link(slot(name[0].as_bytes()))?.is_subscribed(&name[0]) {
                return Ok(());
            }
        }
    }

    async fn unsubscribe(&self, channel: &ChannelName) -> Result<(), StoreError> {
        let shared = &self.shared;
        shared.wanted.lock().remove(channel);
        let name = shared.names.channel(channel);
        match shared.link(slot(name.as_bytes())) {
            Ok(link) => link
                .unsubscribe(&name)
                .await
                .map_err(|error| shared.error(error, &link)),
            Err(error) => Err(error),
        }
    }

    /// Sends a message without storing anything.
    async fn send(&self, name: String, message: Vec<u8>) -> Result<(), StoreError> {
        let call = Call::command(self.shared.publish_command()).key(name).argument(message);
        self.shared.call(call).await.map(drop)
    }
}

impl Shared {
    fn is_cluster(&self) -> bool {
        self.config.deployment == Deployment::Cluster
    }

    fn publish_command(&self) -> &'static str {
        if self.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    fn inbox(&self) -> &Inbox {
        self.inbox.get().expect("set before the tasks start")
    }

    fn topology(&self) -> Arc<Topology> {
        self.topology.borrow().clone()
    }

    fn link(&self, slot: u16) -> Result<Arc<Link>, StoreError> {
        let topology = self.topology.borrow();
        let link = topology.link(slot).cloned();
        link.ok_or_else(|| StoreError::Unavailable("no connection to the server of the channel".into()))
    }

    /// The servers of a cluster to ask first.
    fn seeds(&self) -> Vec<Address> {
        let mut seeds = self.config.addresses.clone();
        let known = self.known.lock();
        seeds.extend(
            known
                .iter()
                .filter(|known| !self.config.addresses.contains(known))
                .take(SEEDS_MAX)
                .cloned(),
        );
        seeds
    }

    /// Takes a message that a server has sent to a pub/sub channel. Never blocks.
    fn receive(&self, name: &[u8], message: Bytes) {
        let Some(inbox) = self.inbox.get() else { return };
        if let Some(channel) = self.names.parse_channel(name) {
            match message::decode(channel, message) {
                Some(event) => inbox.push(event),
                None => tracing::warn!(
                    channel = %String::from_utf8_lossy(name),
                    "a message of the engine cannot be decoded; is another program publishing there?"
                ),
            }
        } else {
            inbox.push(Event::Control(message));
        }
    }

    /// Makes a call to the server of its first key.
    async fn call(&self, call: Call<'_>) -> Result<Value, StoreError> {
        let slot = slot(call.first_key());
        self.call_at(slot, |_| call.clone()).await.map(|(value, _)| value)
    }

    /// Makes a call to the server of a slot. Returns the server that has answered, too.
    async fn call_at<'a>(&self, slot: u16, call: impl Fn(&Link) -> Call<'a>) -> Result<(Value, Arc<Link>), StoreError> {
        loop {
            let mut link = self.link(slot)?;
            let mut result = call(&link).run(&mut link.commands().commands(), false).await;
            if let Err(error) = &result
                && let Some(target) = self.ask_target(error)
            {
                link = target;
                result = call(&link).run(&mut link.commands().commands(), true).await;
            }
            match result {
                Ok(value) => return Ok((value, link)),
                Err(error) => self.after_error(error, &link).await?,
            }
        }
    }

    /// The target of an ASK redirect.
    fn ask_target(&self, error: &RedisError) -> Option<Arc<Link>> {
        if error.kind() != ErrorKind::Server(ServerErrorKind::Ask) {
            return None;
        }
        let address = redirected(error)?;
        let topology = self.topology.borrow();
        let link = topology
            .links
            .iter()
            .find(|link| *link.address() == address && !link.is_lost());
        link.cloned()
    }

    /// Waits until a call that has failed can be repeated, or returns its error.
    async fn after_error(&self, error: RedisError, link: &Link) -> Result<(), StoreError> {
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::ClusterDown) => {
                let mut topology = self.topology.subscribe();
                if let Some(address) = redirected(&error) {
                    *self.hint.lock() = Some(address);
                }
                self.look_again.notify_one();
                // The next attempt finds out.
                let _ = timeout(TOPOLOGY_PAUSE, topology.changed()).await;
                Ok(())
            }
            // Soon the slot is moved, and its server known.
            ErrorKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::Ask) => {
                sleep(MOVING_PAUSE).await;
                Ok(())
            }
            _ => Err(self.error(error, link)),
        }
    }

    /// Translates an error. Closes the connection if it, or the server, is of no use any more.
    fn error(&self, error: RedisError, link: &Link) -> StoreError {
        let kind = error.kind();
        if error.is_unrecoverable_error() || kind == ErrorKind::Server(ServerErrorKind::ReadOnly) {
            link.close();
        }
        let text: Arc<str> = format!("{}: {error}", link.address()).into();
        match error.code() {
            Some("OOM") => StoreError::Full(text),
            // Redis 6 reports errors of scripts in the text only.
            _ if error
                .detail()
                .is_some_and(|detail| detail.contains("OOM command not allowed")) =>
            {
                StoreError::Full(text)
            }
            _ => StoreError::Unavailable(text),
        }
    }

    /// Warns once if the server evicts keys when its memory is full: that ends epochs, and removes clients from
    /// presence.
    async fn warn_of_eviction(&self, commands: &mut MultiplexedConnection) {
        let mut command = Cmd::new();
        command.arg("INFO").arg("memory");
        let info = command.query_async::<String>(commands).await.unwrap_or_default();
        let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
        if let Some(policy) = policy.map(str::trim)
            && policy != "noeviction"
            && !self.has_warned_of_eviction.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                policy,
                "the engine evicts keys when its memory is full, and clients then miss publications; set maxmemory-policy noeviction"
            );
        }
    }
}

/// The server that an answer refers to.
fn redirected(error: &RedisError) -> Option<Address> {
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok()?;
    // A server that does not know its address leaves out the host.
    (!host.is_empty()).then(|| Address {
        host: host.into(),
        port,
    })
}

impl Store for RedisStore {
    fn start(&self, inbox: Arc<Inbox>) {
        if self.shared.inbox.set(inbox).is_err() {
            debug_assert!(false, "started twice");
            return;
        }
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let stop = shared.stop.clone();
            stop.run_until_cancelled(supervisor::run(shared)).await;
        });
    }

    fn reconnect(&self) {
        let shared = &self.shared;
        // In a cluster, the server of the messages to this node may be lost already; the others work.
        let is_known = shared.is_cluster() && shared.link(slot(shared.names.node(&shared.uid).as_bytes())).is_err();
        if !is_known {
            shared.must_reconnect.store(true, Ordering::Relaxed);
        }
        shared.look_again.notify_one();
    }

    fn subscribe<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, ()> {
        Box::pin(self.subscribe(channel))
    }

    fn unsubscribe<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, ()> {
        Box::pin(self.unsubscribe(channel))
    }

    fn publish<'a>(&'a self, channel: &'a ChannelName, publish: StorePublish) -> StoreFuture<'a, StorePublished> {
        Box::pin(self.shared.publish(channel, publish))
    }

    fn announce<'a>(&'a self, channel: &'a ChannelName, membership: Membership) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let name = self.shared.names.channel(channel);
            self.send(name, message::membership(&membership)).await
        })
    }

    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        query: HistoryQuery,
        limits: HistoryLimits,
    ) -> StoreFuture<'a, StoredPage> {
        Box::pin(self.shared.read(channel, query, limits))
    }

    fn remove_history<'a>(&'a self, channel: &'a ChannelName, _: HistoryLimits) -> StoreFuture<'a, ()> {
        Box::pin(self.shared.remove_history(channel))
    }

    fn positions<'a>(&'a self, channels: &'a [(ChannelName, HistoryLimits)]) -> StoreFuture<'a, Vec<Option<Position>>> {
        Box::pin(self.shared.positions(channels))
    }

    fn replace_epoch<'a>(
        &'a self,
        channel: &'a ChannelName,
        _: HistoryLimits,
        seen: &'a Position,
    ) -> StoreFuture<'a, ()> {
        Box::pin(self.shared.replace_epoch(channel, &seen.epoch))
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
        let name = match to {
            Some(uid) => self.shared.names.node(uid),
            None => self.shared.names.control(),
        };
        Box::pin(self.send(name, payload.to_vec()))
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisStore({})", self.shared.config)
    }
}
