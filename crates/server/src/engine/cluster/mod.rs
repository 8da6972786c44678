//! The engine of several nodes, over a [`Store`] that all nodes share.
//!
//! The store numbers and keeps publications; each node delivers them to its own subscribers. Events are delivered to
//! nodes at most once; the stream is the source of truth. So each node checks that every publication continues its
//! channel, and compares the positions of all channels after each connection. If something is missing, it reads the
//! stream and delivers what it finds; the clients do not notice. Publications that have left the stream are announced
//! to them as a gap.
//!
//! While the store is away, calls fail at once with [`EngineError::Unreachable`], or, where the namespace says so,
//! publications wait for a bounded time. Subscribers stay connected.

mod calls;
mod catch_up;
mod inbox;
mod interest;
mod outage;
mod per_key;
mod presence;
mod probe;
#[cfg(test)]
pub(crate) mod simulated;
mod store;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::calls::Calls;
pub(crate) use self::inbox::Inbox;
use self::inbox::{Connection, Received};
use self::interest::Interests;
use self::outage::Waiting;
pub(crate) use self::outage::{OutagePolicy, OutagePolicyOf};
pub(crate) use self::per_key::PerChannel;
pub(crate) use self::presence::ClusterPresence;
use self::probe::DeliveryProbe;
pub(crate) use self::store::{
    Event, LEASE_TTL, Membership, MembershipKind, NodeEntry, POSITIONS_TIMEOUT, PresenceEntry, Store, StoreError,
    StoreFuture, StorePublish, StorePublished, StoredPage, StoredPublication,
};
use super::{
    Broker, ChannelPositions, ClusterStats, EngineError, EngineFuture, EngineStats, Health, History, HistoryLimits,
    HistoryLimitsOf, HistoryQuery, NodeBus, Position, Publish, Published, record, unix_time_ms,
};
use crate::channel::ChannelName;
use crate::presence::ClientInfo;

/// Start of the channel of [`Broker::probe`]; the id of the node follows. Clients cannot subscribe to it, because it is
/// private.
const PROBE_CHANNEL: &str = "$sockeye:storage:";

/// The engine; see the module documentation.
pub(crate) struct ClusterBroker {
    shared: Arc<Shared>,
    interests: Interests,
    waiting: Waiting,
    outage: Arc<OutagePolicyOf>,
    probe: DeliveryProbe,
    /// Whether the last publication of [`Broker::probe`] was stored and delivered.
    is_storing: AtomicBool,
    received: Mutex<Option<Received>>,
    /// Control messages of other nodes, for [`NodeBus::next`].
    control: tokio::sync::Mutex<mpsc::Receiver<Bytes>>,
    control_in: mpsc::Sender<Bytes>,
    /// The id of this node.
    uid: Arc<str>,
}

/// What the tasks of the engine need.
struct Shared {
    store: Arc<dyn Store>,
    inbox: Arc<Inbox>,
    calls: Arc<Calls>,
    limits: Arc<HistoryLimitsOf>,
    presence: Arc<ClusterPresence>,
    /// What this node registers with.
    info: Mutex<Bytes>,
    /// Set once this node has ended its lease. Held during each renewal, so that no renewal follows the end.
    lease_ended: tokio::sync::Mutex<bool>,
}

impl ClusterBroker {
    /// Creates the engine of the node `uid`. It connects when [`Broker::run`] is polled.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        deliver: Arc<dyn ChannelPositions>,
        limits: Arc<HistoryLimitsOf>,
        outage: Arc<OutagePolicyOf>,
        uid: Arc<str>,
    ) -> Self {
        let probe_channel = ChannelName::new(&format!("{PROBE_CHANNEL}{uid}")).expect("the id of a node is short");
        let (inbox, received) = Inbox::new(deliver, probe_channel);
        let (control_in, control) = mpsc::channel(CONTROL_MAX);
        let calls = Arc::new(Calls::new(inbox.clone()));
        let presence = Arc::new(ClusterPresence::new(store.clone(), calls.clone()));
        Self {
            shared: Arc::new(Shared {
                store,
                inbox,
                calls,
                limits,
                presence,
                info: Mutex::default(),
                lease_ended: false.into(),
            }),
            interests: Interests::default(),
            waiting: Waiting::new(),
            outage,
            probe: DeliveryProbe::new(),
            is_storing: AtomicBool::new(true),
            received: Mutex::new(Some(received)),
            control: control.into(),
            control_in,
            uid,
        }
    }

    /// The presence of all nodes.
    pub(crate) fn presence(&self) -> Arc<ClusterPresence> {
        self.shared.presence.clone()
    }

    async fn run(&self) {
        let Some(received) = self.received.lock().take() else {
            debug_assert!(false, "run twice");
            return std::future::pending().await;
        };
        let shared = &self.shared;
        let mut tasks = JoinSet::new();
        for lane in 0..inbox::LANES {
            let inbox = shared.inbox.clone();
            tasks.spawn(async move { inbox.run_lane(lane).await });
        }
        tasks.spawn(catch_up::run(shared.clone(), received.suspended));
        tasks.spawn(catch_up::verify_after_each_connection(shared.clone()));
        tasks.spawn(presence::run(shared.clone()));
        shared.store.start(shared.inbox.clone());
        tokio::join!(
            self.probe.run(&*shared.store, &shared.inbox, &self.uid),
            self.route_control(received.control),
        );
    }

    /// Passes on the control messages that are not probes.
    async fn route_control(&self, mut received: mpsc::Receiver<Bytes>) {
        while let Some(payload) = received.recv().await {
            if !self.probe.handle(&payload) && self.control_in.try_send(payload).is_err() {
                tracing::warn!("dropped a command of another node, because too many wait");
            }
        }
    }

    async fn publish(&self, channel: &ChannelName, publish: Publish) -> Result<Published, EngineError> {
        let limits = (self.shared.limits)(channel).filter(|_| !publish.skips_history);
        let policy = (self.outage)(channel);
        let mut call = StorePublish {
            payload: record::encode(&publish.content, None, None).into(),
            time_ms: unix_time_ms(),
            idempotency_key: publish.idempotency_key,
            version: publish.version,
            limits,
        };
        let published = match policy {
            OutagePolicy::Refuse => self.shared.call(self.shared.store.publish(channel, call)).await?,
            OutagePolicy::Buffer(time) => {
                // A call that failed may have taken effect, so a repetition needs a key.
                call.idempotency_key.get_or_insert_with(outage::random_key);
                self.waiting.publish(&self.shared, channel, call, time).await?
            }
        };
        Ok(Published {
            position: published.position,
            outcome: published.outcome,
        })
    }

    async fn announce(
        &self,
        channel: &ChannelName,
        kind: MembershipKind,
        info: &ClientInfo,
    ) -> Result<(), EngineError> {
        let membership = Membership {
            kind,
            info: record::encode_client(info).into(),
        };
        self.shared
            .presence
            .announce((channel.clone(), info.client), membership)
            .await
    }

    async fn history(&self, channel: &ChannelName, query: HistoryQuery) -> Result<History, EngineError> {
        let limits = self.limits(channel)?;
        let page = self.shared.call(self.shared.store.read(channel, query, limits)).await?;
        let stored = page.publications.len();
        // Who recovers over one that is missing is told.
        let publications: Vec<_> = page.publications.into_iter().filter_map(inbox::decode).collect();
        if publications.len() < stored {
            let unreadable = stored - publications.len();
            tracing::warn!(%channel, unreadable, "{}", inbox::UNREADABLE);
        }
        Ok(History {
            publications,
            top: page.top,
        })
    }

    /// Stores a publication, and waits until it arrives at this node. Logs why the store refuses it.
    async fn probe_storage(&self) -> Result<(), EngineError> {
        let Shared { store, inbox, .. } = &*self.shared;
        let payload = Bytes::from(format!("probe {:x}", rand::random::<u128>()));
        let publish = StorePublish {
            payload: payload.clone(),
            time_ms: unix_time_ms(),
            idempotency_key: None,
            version: None,
            limits: Some(HistoryLimits {
                count_max: 1,
                bytes_max: 1 << 10,
                ttl: Duration::from_secs(60),
            }),
        };
        let mut arrived = inbox.probes();
        let publishing = async {
            let published = store.publish(inbox.probe_channel(), publish).await;
            // Log only the first failure until a probe succeeds again.
            if let Err(error) = &published
                && self.is_storing.load(Ordering::Relaxed)
            {
                tracing::warn!(%error, "the engine does not store publications; trying again");
            }
            published
        };
        self.shared.call(publishing).await?;
        let arrives = async {
            loop {
                match arrived.recv().await {
                    Ok(arrived) if arrived == payload => return Ok(()),
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Err(EngineError::Unreachable),
                }
            }
        };
        timeout(calls::CALL_TIMEOUT, arrives)
            .await
            .unwrap_or(Err(EngineError::Unreachable))
    }

    fn limits(&self, channel: &ChannelName) -> Result<HistoryLimits, EngineError> {
        (self.shared.limits)(channel).ok_or(EngineError::NoHistory)
    }
}

/// Remembers the result of a probe. One that is cancelled has failed, because the caller limits its time.
struct ProbeOutcome<'a> {
    is_storing: &'a AtomicBool,
    is_ok: bool,
}

impl Drop for ProbeOutcome<'_> {
    fn drop(&mut self) {
        self.is_storing.store(self.is_ok, Ordering::Relaxed);
    }
}

impl Shared {
    /// [`Calls::call`]
    async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, EngineError> {
        self.calls.call(call).await
    }
}

impl Broker for ClusterBroker {
    fn run(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.run())
    }

    fn interest_changed<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, ()> {
        Box::pin(self.interests.changed(&self.shared, channel))
    }

    fn publish<'a>(&'a self, channel: &'a ChannelName, publish: Publish) -> EngineFuture<'a, Published> {
        Box::pin(self.publish(channel, publish))
    }

    fn publish_join<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        Box::pin(async move { self.announce(channel, MembershipKind::Join, &info).await })
    }

    fn publish_leave<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        Box::pin(async move { self.announce(channel, MembershipKind::Leave, &info).await })
    }

    fn history<'a>(&'a self, channel: &'a ChannelName, query: HistoryQuery) -> EngineFuture<'a, History> {
        Box::pin(self.history(channel, query))
    }

    fn history_remove<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let limits = self.limits(channel)?;
            self.shared
                .call(self.shared.store.remove_history(channel, limits))
                .await
        })
    }

    fn positions<'a>(&'a self, channels: &'a [ChannelName]) -> EngineFuture<'a, Vec<Option<Position>>> {
        Box::pin(async move {
            let limits: Vec<_> = channels.iter().map(|channel| (self.shared.limits)(channel)).collect();
            let with_history = channels.iter().zip(&limits);
            let with_history: Vec<_> = with_history
                .filter_map(|(channel, limits)| Some((channel.clone(), (*limits)?)))
                .collect();
            let positions = self.shared.call(self.shared.store.positions(&with_history)).await?;
            let mut positions = positions.into_iter();
            let position = |limits: Option<HistoryLimits>| limits.and_then(|_| positions.next().flatten());
            Ok(limits.into_iter().map(position).collect())
        })
    }

    fn repair(&self, channel: &ChannelName) -> bool {
        self.shared.inbox.mark_dirty(channel);
        true
    }

    fn maintain(&self) -> EngineFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn probe(&self) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            let mut outcome = ProbeOutcome {
                is_storing: &self.is_storing,
                is_ok: false,
            };
            let result = self.probe_storage().await;
            outcome.is_ok = result.is_ok();
            result
        })
    }

    fn health(&self) -> Health {
        match (&*self.shared.inbox.connection().borrow(), self.probe.failure()) {
            (Connection::Starting, _) => Health::NotReady("connecting to the engine".into()),
            (Connection::Disconnected(reason), _) => {
                Health::NotReady(format!("the engine is not reachable: {reason}").into())
            }
            (Connection::Connected(_), Some(reason)) => Health::NotReady(reason),
            (Connection::Connected(_), None) => Health::Ready,
        }
    }

    fn close(&self) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            let mut lease_ended = self.shared.lease_ended.lock().await;
            *lease_ended = true;
            // Other nodes remove this node's entries, but cannot announce leaves whose entries are already gone.
            self.shared.presence.sync_before_end().await;
            self.shared.call(self.shared.store.end_lease()).await
        })
    }

    fn stats(&self) -> EngineStats {
        EngineStats {
            cluster: Some(ClusterStats {
                is_connected: self.health() == Health::Ready && self.is_storing.load(Ordering::Relaxed),
                catch_ups: self.shared.inbox.suspensions(),
                overflows: self.shared.inbox.overflows(),
                waiting_bytes: self.waiting.bytes(),
            }),
            ..EngineStats::default()
        }
    }

    fn nodes(&self) -> Option<&dyn NodeBus> {
        Some(self)
    }
}

impl NodeBus for ClusterBroker {
    fn set_info(&self, info: Bytes) {
        *self.shared.info.lock() = info;
    }

    fn nodes(&self) -> EngineFuture<'_, Vec<NodeEntry>> {
        Box::pin(async move { self.shared.call(self.shared.store.nodes()).await })
    }

    fn send<'a>(&'a self, to: Option<&'a str>, payload: Bytes) -> EngineFuture<'a, ()> {
        Box::pin(async move { self.shared.call(self.shared.store.send_control(to, payload)).await })
    }

    fn next(&self) -> std::pin::Pin<Box<dyn Future<Output = Bytes> + Send + '_>> {
        Box::pin(async move {
            match self.control.lock().await.recv().await {
                Some(payload) => payload,
                None => std::future::pending().await,
            }
        })
    }
}

/// Maximum number of commands of other nodes that wait to be executed.
const CONTROL_MAX: usize = 4096;

impl fmt::Debug for ClusterBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterBroker")
            .field("store", &self.shared.store)
            .finish_non_exhaustive()
    }
}
