//! Presence of the clients of all nodes.
//!
//! Each entry in the store names its node. A node registers every [`LEASE_INTERVAL`]; when its registration ends, because it
//! died or was cut off, another node removes its entries and announces the leaves. A node that comes back adds its entries
//! again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::{EngineError, EngineFuture, PresenceStore, record};
use super::Shared;
use super::calls::{CALL_TIMEOUT, Calls};
use super::inbox::Connection;
use super::store::{LEASE_INTERVAL, Membership, MembershipKind, PresenceEntry, Store};
use crate::channel::ChannelName;
use crate::ids::{ClientId, Subscription};
use crate::presence::{ClientInfo, PresenceStats};

/// Number of entries that are added at the same time after a reconnection.
const ADDS_MAX: usize = 64;

/// The presence of all nodes; see the module documentation.
pub(crate) struct ClusterPresence {
    store: Arc<dyn Store>,
    calls: Arc<Calls>,
    /// The entries of the clients of this node.
    own: Mutex<HashMap<(ChannelName, ClientId), PresenceEntry>>,
}

impl ClusterPresence {
    pub(super) fn new(store: Arc<dyn Store>, calls: Arc<Calls>) -> Self {
        Self {
            store,
            calls,
            own: Mutex::default(),
        }
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
        {
            let mut own = self.own.lock();
            let known = own.get(&key);
            if known.is_some_and(|known| known.generation > entry.generation) {
                return Ok(());
            }
            own.insert(key, entry.clone());
        }
        self.calls
            .call(self.store.presence_put(&subscription.channel, entry))
            .await
    }

    async fn remove(&self, subscription: &Subscription, client: ClientId) -> Result<(), EngineError> {
        let Subscription { channel, generation } = subscription;
        let key = (channel.clone(), client);
        {
            let mut own = self.own.lock();
            if own.get(&key).is_some_and(|known| known.generation <= *generation) {
                own.remove(&key);
            }
            if own.len() < own.capacity() / 4 {
                own.shrink_to_fit();
            }
        }
        self.calls
            .call(self.store.presence_remove(channel, client, *generation))
            .await
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

    /// Adds all entries of this node again, and announces their joins if their leaves may have been announced.
    async fn restore(&self, announces: bool) {
        let entries: Vec<_> = self.own.lock().keys().cloned().collect();
        stream::iter(entries)
            .for_each_concurrent(ADDS_MAX, |key| async move {
                // It may have left in the meantime.
                let entry = self.own.lock().get(&key).cloned();
                let Some(entry) = entry else { return };
                let generation = entry.generation;
                let join = (announces && entry.announces_leave).then(|| Membership {
                    kind: MembershipKind::Join,
                    info: entry.info.clone(),
                });
                if let Err(error) = self.calls.call(self.store.presence_put(&key.0, entry)).await {
                    tracing::debug!(%error, "could not add a client to presence again");
                }
                if let Some(join) = join {
                    let _ = self.calls.call(self.store.announce(&key.0, join)).await;
                }
                let has_left = !self.own.lock().contains_key(&key);
                if has_left {
                    let _ = self
                        .calls
                        .call(self.store.presence_remove(&key.0, key.1, generation))
                        .await;
                }
            })
            .await;
    }
}

/// Registers this node, and removes the presence of nodes that are gone. Never returns.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut interval = interval(LEASE_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = shared.inbox.connection();
    let mut restored = None;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = connection.changed() => {}
        }
        let Connection::Connected(count) = *connection.borrow_and_update() else {
            continue;
        };
        let info = shared.info.lock().clone();
        let is_known = match timeout(CALL_TIMEOUT, shared.store.renew_lease(info)).await {
            Ok(Ok(is_known)) => is_known,
            Ok(Err(error)) => {
                tracing::debug!(%error, "could not register this node");
                continue;
            }
            Err(_) => continue,
        };
        // Another server may not have the entries.
        if !is_known || restored != Some(count) {
            shared.presence.restore(!is_known && restored.is_some()).await;
            restored = Some(count);
        }
        match timeout(CALL_TIMEOUT, shared.store.remove_expired_presence()).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(removed)) => tracing::info!(removed, "removed the presence of nodes that are gone"),
            Ok(Err(error)) => tracing::debug!(%error, "could not remove the presence of nodes that are gone"),
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
