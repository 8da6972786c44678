//! Presence of the clients of all nodes.
//!
//! Each entry in the store names its node. A node registers every [`LEASE_INTERVAL`]; when its registration ends,
//! because it died or was cut off, another node removes its entries and announces the leaves. A node that comes back
//! adds its entries again.
//!
//! A node remembers each entry whose state in the store is unknown, because a call failed, had no answer, or was
//! cancelled. After each renewal of the lease it repeats the call: it adds the entry if the client is present, and
//! removes it if not. A leave that could not be announced is announced then, so it may be announced twice, but it is
//! not forgotten. Announcements of one client in one channel are serialized, so none overtakes another.
//!
//! Three tasks run at the same time, so that none delays another: one renews the lease, one adds and removes entries of
//! this node, and one removes the entries of dead nodes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::super::{EngineError, EngineFuture, PresenceStore, record};
use super::Shared;
use super::calls::{CALL_TIMEOUT, Calls, QUEUE_TIMEOUT};
use super::inbox::Connection;
use super::per_key::PerKey;
use super::store::{LEASE_INTERVAL, Membership, MembershipKind, PresenceEntry, Store, StoreError};
use crate::channel::ChannelName;
use crate::ids::{ClientId, Generation, Subscription};
use crate::presence::{ClientInfo, PresenceStats};

/// Number of entries that are added or removed at the same time after a reconnection.
const SYNCS_MAX: usize = 64;

/// Time after which an addition without an answer does not take effect any more.
const LATE_ADDITION: Duration = Duration::from_secs(6);

/// Maximum number of entries whose removal, or whose leave, is repeated: about 50 MB. Beyond it, a client that left may
/// be shown as present until its node ends.
const UNSYNCED_MAX: usize = 1 << 18;

/// The presence of all nodes; see the module documentation.
pub(crate) struct ClusterPresence {
    store: Arc<dyn Store>,
    calls: Arc<Calls>,
    entries: Mutex<Entries>,
    /// Locked while a join or leave is announced.
    announcing: PerKey<Key, tokio::sync::Mutex<()>>,
}

/// A client in a channel.
type Key = (ChannelName, ClientId);

#[derive(Default)]
struct Entries {
    /// The entries of the clients of this node.
    own: HashMap<Key, Own>,
    /// What is to be repeated.
    unsynced: HashMap<Key, Unsynced>,
    has_warned: bool,
}

struct Own {
    entry: PresenceEntry,
    /// Whether the store has confirmed it.
    is_stored: bool,
}

/// An entry whose state in the store is unknown. If the client is in [`Entries::own`], it is added, otherwise removed.
#[derive(Clone, Default)]
struct Unsynced {
    /// If the client left.
    removal: Option<Removal>,
    /// The join of the present client, or the leave of the client that left, if it was not announced.
    announcement: Option<Bytes>,
}

impl Unsynced {
    fn is_empty(&self) -> bool {
        self.removal.is_none() && self.announcement.is_none()
    }
}

/// What [`Entries::put_again`] found.
enum PutAgain {
    /// The entry is the one that was put, or belongs to a later subscription.
    Done,
    /// The member has other information meanwhile.
    Replaced,
    /// The client has left meanwhile. If the removal was faster, the entry is there again.
    Left,
}

/// A removal of an entry up to a generation.
#[derive(Clone, Copy)]
struct Removal {
    generation: Generation,
    /// Repeated until a call succeeds that began after this time.
    until: Instant,
}

impl Removal {
    /// An addition whose result is not known may take effect late.
    fn new(generation: Generation, is_stored: bool) -> Self {
        let time = if is_stored { Duration::ZERO } else { LATE_ADDITION };
        Self {
            generation,
            until: Instant::now() + time,
        }
    }
}

/// What the task that renews the lease tells the one that adds and removes entries.
#[derive(Clone, Copy, Debug, Default)]
struct Renewed {
    renewals: u64,
    /// How often the lease had ended.
    lapses: u64,
    /// The number of the connection.
    connection: u64,
}

impl ClusterPresence {
    pub(super) fn new(store: Arc<dyn Store>, calls: Arc<Calls>) -> Self {
        Self {
            store,
            calls,
            entries: Mutex::default(),
            announcing: PerKey::default(),
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, EngineError> {
        self.calls.call(call).await
    }

    async fn add(
        &self,
        subscription: &Subscription,
        info: &ClientInfo,
        announces_leave: bool,
    ) -> Result<(), EngineError> {
        let entry = PresenceEntry {
            client: info.client,
            generation: subscription.generation,
            user: info.user.clone(),
            info: record::encode_client(info).into(),
            announces_leave,
        };
        let key = (subscription.channel.clone(), info.client);
        // A member's new information is kept here at once. If the call below fails, it is repeated after the next renewal
        // of the lease.
        let is_member = self.entries.lock().replace(&key, &entry);
        if !is_member {
            // Without a connection it is certainly not stored, so nothing has to be removed.
            self.calls.wait_for_connection(Instant::now() + QUEUE_TIMEOUT).await?;
            if !self.entries.lock().add(&key, &entry) {
                return Ok(());
            }
        }
        let put = self.store.presence_put(&subscription.channel, entry.clone());
        self.call(put).await?;
        self.entries.lock().stored(&key, &entry);
        Ok(())
    }

    async fn remove(&self, subscription: &Subscription, client: ClientId) -> Result<(), EngineError> {
        let Subscription { channel, generation } = subscription;
        let key = (channel.clone(), client);
        if !self.entries.lock().remove(&key, *generation) {
            return Ok(());
        }
        // If this fails or is cancelled, the removal is repeated.
        self.remove_entry(&key, *generation).await
    }

    async fn remove_entry(&self, key: &Key, generation: Generation) -> Result<(), EngineError> {
        let start = Instant::now();
        self.call(self.store.presence_remove(&key.0, key.1, generation)).await?;
        self.entries.lock().removed(key, generation, start);
        Ok(())
    }

    /// Announces a join or leave after the earlier ones of the client. A leave that fails is announced later.
    pub(super) async fn announce(&self, key: Key, membership: Membership) -> Result<(), EngineError> {
        let Membership { kind, info } = membership.clone();
        let announced = async {
            let announcing = self.announcing.enter(&key);
            let _guard = announcing.lock().await;
            if kind == MembershipKind::Join {
                // The client is back, so its earlier leave is of no interest any more.
                self.entries.lock().forget_leave(&key);
            }
            self.call(self.store.announce(&key.0, membership)).await
        };
        // Bounds the wait for an earlier announcement: the longest time that one call may take.
        let announced = timeout(QUEUE_TIMEOUT + CALL_TIMEOUT, announced).await;
        let announced = announced.unwrap_or(Err(EngineError::Unreachable));
        if announced.is_err() && kind == MembershipKind::Leave {
            self.entries.lock().repeat_leave(key, info);
        }
        announced
    }

    /// Repeats the calls whose result is not known, before this node ends.
    pub(super) async fn sync_before_end(&self) {
        // Best effort: the lease ends anyway.
        let _ = timeout(CALL_TIMEOUT, self.sync()).await;
    }

    async fn members(
        &self,
        channel: &ChannelName,
        clients_max: usize,
    ) -> Result<Option<Vec<Arc<ClientInfo>>>, EngineError> {
        if clients_max < usize::MAX {
            let (clients, _) = self.calls.call(self.store.presence_count(channel)).await?;
            if clients > clients_max {
                return Ok(None);
            }
        }
        let entries = self.calls.call(self.store.presence_read(channel)).await?;
        let members: Vec<_> = entries
            .iter()
            .filter_map(|entry| record::decode_client(entry))
            .collect();
        Ok((members.len() <= clients_max).then_some(members))
    }

    /// Repeats the calls whose result is not known. What fails is repeated after the next renewal.
    async fn sync(&self) {
        let keys: Vec<_> = self.entries.lock().unsynced.keys().cloned().collect();
        stream::iter(keys)
            .for_each_concurrent(SYNCS_MAX, |key| async move {
                if let Err(error) = self.sync_entry(&key).await {
                    tracing::debug!(channel = %key.0, %error, "could not update presence; trying again");
                }
            })
            .await;
    }

    async fn sync_entry(&self, key: &Key) -> Result<(), EngineError> {
        let (own, unsynced) = {
            let entries = self.entries.lock();
            let Some(unsynced) = entries.unsynced.get(key) else {
                return Ok(());
            };
            (entries.own.get(key).map(|own| own.entry.clone()), unsynced.clone())
        };
        let is_present = own.is_some();
        if let Some(entry) = own {
            let generation = entry.generation;
            let put = self.call(self.store.presence_put(&key.0, entry.clone())).await;
            let found = self.entries.lock().put_again(key, &entry, put.is_ok());
            match found {
                PutAgain::Done => put?,
                // The next call has the new information.
                PutAgain::Replaced => return put,
                PutAgain::Left => {
                    self.remove_entry(key, generation).await?;
                    put?;
                }
            }
        } else if let Some(removal) = unsynced.removal {
            self.remove_entry(key, removal.generation).await?;
        }
        let announcing = self.announcing.enter(key);
        let _guard = announcing.lock().await;
        let Some(info) = self.entries.lock().take_announcement(key, is_present) else {
            return Ok(());
        };
        let kind = match is_present {
            true => MembershipKind::Join,
            false => MembershipKind::Leave,
        };
        let membership = Membership {
            kind,
            info: info.clone(),
        };
        let announced = self.call(self.store.announce(&key.0, membership)).await;
        if announced.is_err() {
            self.entries.lock().put_back_announcement(key, is_present, info);
        }
        announced
    }
}

impl Entries {
    /// Returns false if a later subscription of the client is present.
    fn add(&mut self, key: &Key, entry: &PresenceEntry) -> bool {
        if let Some(known) = self.own.get(key)
            && known.entry.generation > entry.generation
        {
            return false;
        }
        let own = Own {
            entry: entry.clone(),
            is_stored: false,
        };
        self.own.insert(key.clone(), own);
        // The entry replaces the one that was to be removed, and the client has not left.
        self.unsynced.remove(key);
        true
    }

    /// Gives a member new information, which is not stored yet. Returns false if the client is not a member.
    fn replace(&mut self, key: &Key, entry: &PresenceEntry) -> bool {
        let Some(own) = self.own.get_mut(key) else { return false };
        if own.entry.generation != entry.generation {
            return false;
        }
        own.entry = entry.clone();
        self.unsynced.entry(key.clone()).or_default();
        true
    }

    fn stored(&mut self, key: &Key, entry: &PresenceEntry) {
        if let Some(own) = self.own.get_mut(key)
            && own.entry == *entry
        {
            own.is_stored = true;
            if self.unsynced.get(key).is_some_and(Unsynced::is_empty) {
                self.unsynced.remove(key);
            }
        }
    }

    /// Remembers that an entry must be removed. Returns false if there is none.
    fn remove(&mut self, key: &Key, generation: Generation) -> bool {
        if self.own.get(key).is_none_or(|own| own.entry.generation > generation) {
            return false;
        }
        let Some(own) = self.own.remove(key) else {
            return false;
        };
        shrink(&mut self.own);
        let unsynced = Unsynced {
            removal: Some(Removal::new(generation, own.is_stored)),
            announcement: None,
        };
        self.insert_unsynced(key.clone(), unsynced);
        true
    }

    /// A removal that began at `start` has succeeded.
    fn removed(&mut self, key: &Key, generation: Generation, start: Instant) {
        if let Some(unsynced) = self.unsynced.get_mut(key) {
            let is_done = |removal: &Removal| removal.generation <= generation && removal.until <= start;
            unsynced.removal = unsynced.removal.filter(|removal| !is_done(removal));
        }
        self.drop_if_synced(key);
    }

    /// An entry was added once more, or this was tried.
    fn put_again(&mut self, key: &Key, entry: &PresenceEntry, is_stored: bool) -> PutAgain {
        match self.own.get_mut(key) {
            Some(own) if own.entry == *entry => {
                own.is_stored = is_stored;
                PutAgain::Done
            }
            Some(own) if own.entry.generation == entry.generation => {
                // It may have replaced the new information.
                self.unsynced.entry(key.clone()).or_default();
                PutAgain::Replaced
            }
            Some(_) => PutAgain::Done,
            None => {
                let unsynced = self.unsynced.entry(key.clone()).or_default();
                unsynced.removal = Some(Removal::new(entry.generation, is_stored));
                PutAgain::Left
            }
        }
    }

    fn forget_leave(&mut self, key: &Key) {
        if !self.own.contains_key(key)
            && let Some(unsynced) = self.unsynced.get_mut(key)
        {
            unsynced.announcement = None;
            self.drop_if_synced(key);
        }
    }

    fn repeat_leave(&mut self, key: Key, leave: Bytes) {
        if self.own.contains_key(&key) {
            return;
        }
        match self.unsynced.get_mut(&key) {
            Some(unsynced) => unsynced.announcement = Some(leave),
            None => self.insert_unsynced(
                key,
                Unsynced {
                    announcement: Some(leave),
                    ..Unsynced::default()
                },
            ),
        }
    }

    /// Takes what is to be announced, unless the client has come or left since the call before it.
    fn take_announcement(&mut self, key: &Key, is_present: bool) -> Option<Bytes> {
        if self.own.contains_key(key) != is_present {
            return None;
        }
        let unsynced = self.unsynced.get_mut(key)?;
        let announcement = unsynced.announcement.take();
        if is_present {
            self.unsynced.remove(key);
        }
        self.drop_if_synced(key);
        announcement
    }

    fn put_back_announcement(&mut self, key: &Key, is_present: bool, info: Bytes) {
        if self.own.contains_key(key) == is_present {
            self.unsynced.entry(key.clone()).or_default().announcement = Some(info);
        }
    }

    /// All entries of this node must be added again. `announces` their joins, because their leaves may have been
    /// announced.
    fn restore(&mut self, announces: bool) {
        for (key, own) in &self.own {
            let unsynced = self.unsynced.entry(key.clone()).or_default();
            if announces && own.entry.announces_leave {
                unsynced.announcement = Some(own.entry.info.clone());
            }
        }
    }

    fn insert_unsynced(&mut self, key: Key, unsynced: Unsynced) {
        if self.unsynced.len() < UNSYNCED_MAX {
            self.unsynced.insert(key, unsynced);
        } else if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!("more than {UNSYNCED_MAX} clients left while the engine was away; some stay in presence");
        }
    }

    fn drop_if_synced(&mut self, key: &Key) {
        if !self.own.contains_key(key) && self.unsynced.get(key).is_some_and(Unsynced::is_empty) {
            self.unsynced.remove(key);
            shrink(&mut self.unsynced);
        }
    }
}

fn shrink<T>(map: &mut HashMap<Key, T>) {
    if map.len() < map.capacity() / 4 {
        map.shrink_to_fit();
    }
}

/// Registers this node, keeps its entries, and removes those of nodes that are gone. Never returns.
pub(super) async fn run(shared: Arc<Shared>) {
    let renewed = watch::Sender::new(Renewed::default());
    tokio::join!(
        renew_lease(&shared, &renewed),
        sync_entries(&shared, renewed.subscribe()),
        remove_expired(&shared, renewed.subscribe()),
    );
}

/// Renews the lease until this node ends it. Awaits nothing else, or the lease could expire.
async fn renew_lease(shared: &Shared, renewed: &watch::Sender<Renewed>) {
    let mut interval = interval(LEASE_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = shared.inbox.connection();
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = connection.changed() => {}
        }
        let Connection::Connected(count) = *connection.borrow_and_update() else {
            continue;
        };
        let info = shared.info.lock().clone();
        let lease_ended = shared.lease_ended.lock().await;
        if *lease_ended {
            return;
        }
        match timeout(CALL_TIMEOUT, shared.store.renew_lease(info)).await {
            Ok(Ok(is_known)) => renewed.send_modify(|renewed| {
                renewed.renewals += 1;
                renewed.lapses += u64::from(!is_known);
                renewed.connection = count;
            }),
            Ok(Err(error)) => tracing::debug!(%error, "could not register this node"),
            Err(_) => tracing::debug!("the engine did not register this node within {CALL_TIMEOUT:?}"),
        }
    }
}

/// Adds all entries of this node again after each connection and each lapse of the lease, and repeats what has failed.
async fn sync_entries(shared: &Shared, mut renewed: watch::Receiver<Renewed>) {
    let mut restored: Option<Renewed> = None;
    while renewed.changed().await.is_ok() {
        let now = *renewed.borrow_and_update();
        let is_restored = restored.is_some_and(|at| (at.connection, at.lapses) == (now.connection, now.lapses));
        if !is_restored {
            // Another server may not have the entries. The first lease is not a lapse.
            let has_lapsed = restored.is_some_and(|at| at.lapses != now.lapses);
            shared.presence.entries.lock().restore(has_lapsed);
            restored = Some(now);
        }
        shared.presence.sync().await;
    }
}

async fn remove_expired(shared: &Shared, mut renewed: watch::Receiver<Renewed>) {
    while renewed.changed().await.is_ok() {
        renewed.borrow_and_update();
        match shared.store.remove_expired_presence().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed the presence of nodes that are gone"),
            Err(error) => tracing::debug!(%error, "could not remove the presence of nodes that are gone"),
        }
    }
}

impl PresenceStore for ClusterPresence {
    fn add<'a>(
        &'a self,
        subscription: &'a Subscription,
        info: Arc<ClientInfo>,
        announces_leave: bool,
    ) -> EngineFuture<'a, ()> {
        Box::pin(async move { self.add(subscription, &info, announces_leave).await })
    }

    fn remove<'a>(&'a self, subscription: &'a Subscription, client: ClientId) -> EngineFuture<'a, ()> {
        Box::pin(self.remove(subscription, client))
    }

    fn members<'a>(
        &'a self,
        channel: &'a ChannelName,
        clients_max: usize,
    ) -> EngineFuture<'a, Option<Vec<Arc<ClientInfo>>>> {
        Box::pin(self.members(channel, clients_max))
    }

    fn stats<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, PresenceStats> {
        Box::pin(async move {
            let (clients, users) = self.calls.call(self.store.presence_count(channel)).await?;
            Ok(PresenceStats { clients, users })
        })
    }
}

impl fmt::Debug for ClusterPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterPresence").finish_non_exhaustive()
    }
}
