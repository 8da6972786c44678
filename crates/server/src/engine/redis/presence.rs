//! Presence, and the leases of nodes.
//!
//! Each entry names the lease of its node. A set per lease lists the channels with its entries. When a lease ends,
//! other nodes remove its entries, and the script that removes an entry announces the leave. A node whose lease has
//! ended begins another one, and adds its entries again, so that a late removal does not find them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{FromRedisValue, Value};
use tokio::sync::RwLock;
use tokio::time::timeout;

use super::super::cluster::{LEASE_TTL, NodeEntry, PerChannel, PresenceEntry, StoreError};
use super::dial::DIAL_TIMEOUT;
use super::names::slot;
use super::script::{Call, Script};
use super::topology::Topology;
use super::{CHECK_TIMEOUT, Shared, message};
use crate::channel::ChannelName;
use crate::ids::{ClientId, Generation};

/// Time for a node to remove the entries of a lease, before another one tries.
const REMOVAL_TIME: Duration = Duration::from_secs(4);

/// Number of channels of a lease that are cleaned at the same time.
const CHANNELS_MAX: usize = 64;

/// The lease of this node.
pub(super) struct Lease {
    state: Mutex<State>,
    /// Whether entries of this node may have been removed since the last [`Shared::renew_lease`].
    has_lapsed: AtomicBool,
    uid: Arc<str>,
    /// The set of channels is in another slot than the entries. So a channel is not removed from it while entries are
    /// added: additions hold the lock shared, removals from the set exclusively.
    channels: PerChannel<RwLock<()>>,
}

struct State {
    name: String,
    info: Bytes,
    has_begun: bool,
}

impl Lease {
    pub(super) fn new(uid: &str) -> Self {
        Self {
            state: Mutex::new(State {
                name: new_name(uid),
                info: Bytes::new(),
                has_begun: false,
            }),
            has_lapsed: AtomicBool::new(true),
            uid: uid.into(),
            channels: PerChannel::default(),
        }
    }

    fn name(&self) -> String {
        self.state.lock().name.clone()
    }
}

/// A name for a lease. No lease has the name of another one.
fn new_name(uid: &str) -> String {
    format!("{uid}:{:016x}", rand::random::<u64>())
}

impl Shared {
    /// Renews the lease, or begins another one, before the first call on new connections.
    pub(super) async fn begin_lease(&self, topology: &Topology) -> Result<(), String> {
        let name = self.names.nodes();
        let Some(link) = topology.link(slot(name.as_bytes())) else {
            return Ok(());
        };
        for is_new in [false, true] {
            let call = self.renewal(is_new);
            let mut commands = link.commands().commands();
            let value = timeout(DIAL_TIMEOUT, call.run(&mut commands, false)).await;
            let Ok(value) = value else {
                link.close();
                return Err(format!("{}: no answer within {DIAL_TIMEOUT:?}", link.address()));
            };
            match value {
                Ok(Value::Int(1)) => return Ok(()),
                Ok(_) => {}
                // A full server still answers reads.
                Err(error) => {
                    tracing::warn!(%error, "could not register this node");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub(super) async fn renew_lease(&self, info: Bytes) -> Result<bool, StoreError> {
        self.lease.state.lock().info = info;
        if self.call(self.renewal(false)).await? != Value::Int(1) {
            self.call(self.renewal(true)).await?;
        }
        Ok(!self.lease.has_lapsed.swap(false, Ordering::Relaxed))
    }

    /// A call that renews the lease, or begins another one.
    fn renewal(&self, is_new: bool) -> Call<'_> {
        let mut state = self.lease.state.lock();
        if is_new {
            if std::mem::replace(&mut state.has_begun, true) {
                state.name = new_name(&self.lease.uid);
            }
            self.lease.has_lapsed.store(true, Ordering::Relaxed);
        }
        self.nodes_call(&self.scripts.lease_renew)
            .argument(state.name.as_str())
            .number(LEASE_TTL.as_millis() as u64)
            .argument(state.info.to_vec())
            .argument(if is_new { "1" } else { "0" })
    }

    pub(super) async fn end_lease(&self) -> Result<(), StoreError> {
        let call = self.nodes_call(&self.scripts.lease_end);
        self.call(call.argument(self.lease.name())).await.map(drop)
    }

    pub(super) async fn nodes(&self) -> Result<Vec<NodeEntry>, StoreError> {
        let value = self.call(self.nodes_call(&self.scripts.lease_list)).await?;
        let list: Vec<Vec<u8>> = parse(value)?;
        let entries = list.chunks_exact(2).filter_map(|pair| {
            let lease = std::str::from_utf8(&pair[0]).ok()?;
            let (uid, _) = lease.rsplit_once(':')?;
            Some(NodeEntry {
                uid: uid.to_owned(),
                info: pair[1].clone().into(),
            })
        });
        Ok(entries.collect())
    }

    pub(super) async fn presence_put(&self, channel: &ChannelName, entry: PresenceEntry) -> Result<(), StoreError> {
        let in_use = self.lease.channels.enter(channel);
        let adding = in_use.read().await;
        let lease = self.lease.name();
        // First, so that no entry is forgotten.
        let channels = self.names.lease_channels(&lease);
        self.call(Call::command("SADD").key(channels).argument(channel.as_str()))
            .await?;
        let generation = entry.generation.0;
        let encoded = message::presence_entry(generation, entry.announces_leave, &lease, &entry.user, &entry.info);
        let call = self.presence_call(&self.scripts.presence_put, channel);
        let call = call
            .argument(entry.client.to_string())
            .argument(encoded)
            .number(generation);
        let left = self.call(call.argument(lease).argument(&*entry.user)).await?;
        drop(adding);
        self.forget_channel(channel, left).await
    }

    pub(super) async fn presence_remove(
        &self,
        channel: &ChannelName,
        client: ClientId,
        generation: Generation,
    ) -> Result<(), StoreError> {
        let call = self.presence_call(&self.scripts.presence_remove, channel);
        let left = self
            .call(call.argument(client.to_string()).number(generation.0))
            .await?;
        self.forget_channel(channel, left).await
    }

    /// Removes a channel from the set of a lease that had no entries in it any more, unless it has some by now.
    async fn forget_channel(&self, channel: &ChannelName, lease: Value) -> Result<(), StoreError> {
        let lease: String = parse(lease)?;
        if lease.is_empty() {
            return Ok(());
        }
        let in_use = self.lease.channels.enter(channel);
        let _removing = in_use.write().await;
        let leases = format!("{}:n", self.names.channel(channel));
        let has_entries = Call::command("HEXISTS").key(leases).argument(lease.as_str());
        if self.call(has_entries).await? != Value::Int(0) {
            return Ok(());
        }
        let channels = self.names.lease_channels(&lease);
        let call = Call::command("SREM").key(channels).argument(channel.as_str());
        self.call(call).await.map(drop)
    }

    pub(super) async fn presence_read(&self, channel: &ChannelName) -> Result<Vec<Bytes>, StoreError> {
        let name = self.names.channel(channel);
        let value = self.call(Call::command("HVALS").key(format!("{name}:p"))).await?;
        let entries: Vec<Vec<u8>> = parse(value)?;
        Ok(entries.into_iter().filter_map(message::presence_info).collect())
    }

    pub(super) async fn presence_count(&self, channel: &ChannelName) -> Result<(usize, usize), StoreError> {
        let name = self.names.channel(channel);
        let count = async |suffix: &str| {
            let value = self.call(Call::command("HLEN").key(format!("{name}:{suffix}"))).await?;
            parse(value)
        };
        futures_util::try_join!(count("p"), count("u"))
    }

    pub(super) async fn remove_expired_presence(&self) -> Result<usize, StoreError> {
        let call = self.nodes_call(&self.scripts.lease_expired);
        let call = call
            .number(LEASE_TTL.as_millis() as u64)
            .number(REMOVAL_TIME.as_millis() as u64);
        let ended: Vec<String> = parse(self.call_within(call).await?)?;
        let (mut removed, mut failure) = (0, None);
        for lease in ended {
            // The server of some entries may be away. The other leases do not wait for it.
            match self.remove_lease(&lease).await {
                Ok(count) => removed += count,
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(removed), Err)
    }

    /// Removes all entries of a lease, and then the lease.
    async fn remove_lease(&self, lease: &str) -> Result<usize, StoreError> {
        let removed = self.remove_entries(lease).await?;
        let call = Call::command("HDEL")
            .key(format!("{}:ended", self.names.nodes()))
            .argument(lease);
        self.call_within(call).await?;
        Ok(removed)
    }

    /// Removes all entries of a lease.
    async fn remove_entries(&self, lease: &str) -> Result<usize, StoreError> {
        let key = self.names.lease_channels(lease);
        let mut removed = 0;
        loop {
            let sample = Call::command("SRANDMEMBER")
                .key(key.as_str())
                .number(CHANNELS_MAX as u64);
            let channels: Vec<String> = parse(self.call_within(sample).await?)?;
            if channels.is_empty() {
                return Ok(removed);
            }
            let removals = channels.iter().map(|name| async {
                let removed = match ChannelName::new(name) {
                    Ok(channel) => {
                        let call = self.presence_call(&self.scripts.presence_expire, &channel);
                        let call = call.argument(lease).argument(self.publish_command());
                        parse(self.call_within(call.argument(self.names.channel(&channel))).await?)?
                    }
                    Err(_) => 0,
                };
                self.call_within(Call::command("SREM").key(key.as_str()).argument(name.as_str()))
                    .await?;
                Ok::<usize, StoreError>(removed)
            });
            let results = futures_util::future::join_all(removals).await;
            removed += results.iter().flatten().sum::<usize>();
            // The server of some channels may be away. The samples are random, so the others have their turn.
            if results.iter().all(Result::is_err)
                && let Some(Err(error)) = results.into_iter().next()
            {
                return Err(error);
            }
        }
    }

    /// Makes a call whose caller does not limit its time.
    async fn call_within(&self, call: Call<'_>) -> Result<Value, StoreError> {
        match timeout(CHECK_TIMEOUT, self.call(call)).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unavailable("the server does not answer".into())),
        }
    }

    /// A script with the keys of `presence.lua`.
    fn presence_call<'a>(&self, script: &'a Script, channel: &ChannelName) -> Call<'a> {
        let name = self.names.channel(channel);
        let call = script.call();
        call.key(format!("{name}:p"))
            .key(format!("{name}:u"))
            .key(format!("{name}:n"))
    }

    /// A script with the keys of `nodes.lua`.
    fn nodes_call<'a>(&self, script: &'a Script) -> Call<'a> {
        let name = self.names.nodes();
        let call = script.call();
        call.key(format!("{name}:leases"))
            .key(format!("{name}:info"))
            .key(format!("{name}:ended"))
    }
}

fn parse<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    redis::from_redis_value(value).map_err(|error| StoreError::Unavailable(error.to_string().into()))
}
