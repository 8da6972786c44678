//! Tests of engines by their deliveries.

mod cluster_calls;
mod cluster_model;
mod cluster_presence;
mod durable;
mod many_clients;
mod memory;
mod model;
mod nats;
mod redis;
mod servers;
mod suite;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;

use super::cluster::simulated::{SimServer, SimStore};
use super::cluster::{ClusterBroker, OutagePolicy, Store};
use super::*;
use crate::config::Limits;

/// Records what an engine delivers.
#[derive(Default)]
pub(super) struct Recorder {
    events: Mutex<Vec<String>>,
    subscribed: Mutex<Vec<ChannelName>>,
}

impl Deliver for Recorder {
    fn has_subscribers(&self, channel: &ChannelName) -> bool {
        self.subscribed.lock().contains(channel)
    }

    fn publication(&self, channel: &ChannelName, publication: &Publication, epoch: Option<&Epoch>) {
        let data = publication.content.data.to_json();
        let has_epoch = epoch.is_some();
        self.events
            .lock()
            .push(format!("{channel} {} {data} {has_epoch}", publication.offset));
    }

    fn join(&self, channel: &ChannelName, info: &ClientInfo) {
        self.events.lock().push(format!("{channel} join {}", info.user));
    }

    fn leave(&self, channel: &ChannelName, info: &ClientInfo) {
        self.events.lock().push(format!("{channel} leave {}", info.user));
    }
}

impl ChannelPositions for Recorder {
    fn continuity(&self, _: &ChannelName, _: &Epoch, _: u64, _: u64) -> Continuity {
        Continuity::Next
    }

    fn position(&self, _: &ChannelName) -> Option<Position> {
        None
    }

    fn positions(&self) -> Vec<(ChannelName, Position)> {
        Vec::new()
    }

    fn channels(&self) -> Vec<ChannelName> {
        self.subscribed.lock().clone()
    }

    fn catch_up(&self, _: &ChannelName, _: &Position, _: &Position) -> bool {
        false
    }
}

impl Recorder {
    pub(super) fn delivered(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock())
    }
}

const TTL: Duration = Duration::from_secs(60);

/// The channels to which a fixture is subscribed.
const SUBSCRIBED: [&str; 3] = ["a", "b", "plain"];

/// Options of an engine under test.
#[derive(Clone, Copy, Debug)]
struct Setup {
    count_max: usize,
    bytes_max: usize,
    ttl: Duration,
}

impl Setup {
    /// Ten publications per channel.
    fn ten() -> Self {
        Self {
            count_max: 10,
            bytes_max: Limits::default().history_bytes_max,
            ttl: TTL,
        }
    }

    /// The history of all channels, but for those whose name starts with "plain".
    fn limits(self) -> Arc<HistoryLimitsOf> {
        Arc::new(move |channel: &ChannelName| {
            (!channel.as_str().starts_with("plain")).then_some(HistoryLimits {
                count_max: self.count_max,
                bytes_max: Limits::default().history_bytes_per_channel_max,
                ttl: self.ttl,
            })
        })
    }
}

/// An engine under test, with a folder for those that need one.
struct Fixture<B: Broker + ?Sized> {
    recorder: Arc<Recorder>,
    engine: Engine,
    broker: Arc<B>,
    folder: Option<TempDir>,
    /// The task of a node of a cluster engine.
    running: Option<tokio::task::JoinHandle<()>>,
}

impl<B: Broker + 'static> Fixture<B> {
    fn of(recorder: Arc<Recorder>, broker: B, folder: Option<TempDir>) -> Self {
        let broker = Arc::new(broker);
        Self {
            recorder,
            engine: Engine::new(broker.clone(), Arc::new(MemoryPresence::new())),
            broker,
            folder,
            running: None,
        }
    }
}

impl Fixture<MemoryBroker> {
    fn memory(setup: Setup) -> Self {
        let recorder = Arc::new(Recorder::default());
        let broker = MemoryBroker::new(recorder.clone(), setup.limits(), setup.bytes_max);
        Self::of(recorder, broker, None)
    }

    fn logged(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = JournalConfig::new(folder.path());
        Self::open(setup, config, Some(folder))
    }

    fn open(setup: Setup, config: JournalConfig, folder: Option<TempDir>) -> Self {
        let recorder = Arc::new(Recorder::default());
        let broker = MemoryBroker::open(recorder.clone(), setup.limits(), setup.bytes_max, &config).unwrap();
        Self::of(recorder, broker, folder)
    }
}

impl<B: Broker + 'static> Fixture<B> {
    fn erased(self) -> Fixture<dyn Broker> {
        Fixture {
            recorder: self.recorder,
            engine: self.engine,
            broker: self.broker,
            folder: self.folder,
            running: self.running,
        }
    }
}

impl Fixture<ClusterBroker> {
    /// A node of a cluster engine, connected to a simulated store.
    async fn cluster(setup: Setup) -> Self {
        let server = SimServer::new(1);
        Self::node(setup, &server, "node").await
    }

    async fn node(setup: Setup, server: &Arc<SimServer>, uid: &str) -> Self {
        Self::over(setup, SimStore::new(server, uid), uid).await
    }

    /// A node over a store, connected and subscribed.
    async fn over(setup: Setup, store: Arc<dyn Store>, uid: &str) -> Self {
        let recorder = Arc::new(Recorder::default());
        let refuse = Arc::new(|_: &ChannelName| OutagePolicy::Refuse);
        let broker = ClusterBroker::new(store, recorder.clone(), setup.limits(), refuse, uid.into());
        let presence = broker.presence();
        let broker = Arc::new(broker);
        let running = broker.clone();
        let running = tokio::spawn(async move { running.run().await });
        let engine = Engine::new(broker.clone(), presence);
        while engine.health() != Health::Ready {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for channel in SUBSCRIBED.map(name) {
            recorder.subscribed.lock().push(channel.clone());
            engine.interest_changed(&channel).await.unwrap();
        }
        Self {
            recorder,
            engine,
            broker,
            folder: None,
            running: Some(running),
        }
    }
}

impl<B: Broker + ?Sized> Fixture<B> {
    /// What was delivered, after everything on its way has arrived.
    async fn settled(&self) -> Vec<String> {
        const BARRIER: &str = "barrier";
        let is_barrier = |event: &String| event.ends_with(BARRIER);
        // Events of one channel keep their order.
        for channel in SUBSCRIBED {
            let info = member(u128::MAX, BARRIER);
            self.engine.publish_join(&name(channel), info).await.unwrap();
        }
        while self
            .recorder
            .events
            .lock()
            .iter()
            .filter(|event| is_barrier(event))
            .count()
            < SUBSCRIBED.len()
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut delivered = self.delivered();
        delivered.retain(|event| !is_barrier(event));
        delivered
    }

    async fn publish(&self, channel: &str, data: &str) -> Position {
        let published = self.engine.publish(&name(channel), content(data)).await.unwrap();
        assert_eq!(published.outcome, PublishOutcome::Delivered);
        published.position
    }

    async fn history(&self, channel: &str) -> History {
        let query = HistoryQuery {
            limit: 100,
            ..Default::default()
        };
        self.engine.history(&name(channel), query).await.unwrap()
    }

    async fn position(&self, channel: &str) -> Position {
        let positions = self.engine.positions(&[name(channel)]).await.unwrap();
        positions[0].clone().unwrap()
    }

    /// The data of the history.
    async fn stored(&self, channel: &str) -> Vec<String> {
        let publications = self.history(channel).await.publications;
        publications
            .iter()
            .map(|publication| publication.content.data.to_json().into_owned())
            .collect()
    }

    /// Whether a client recovers from a position.
    async fn recovers(&self, channel: &str, from: &Position) -> bool {
        let query = HistoryQuery {
            since: Some(from.offset),
            limit: usize::MAX,
            is_reversed: false,
        };
        is_recovered(from, &self.engine.history(&name(channel), query).await.unwrap())
    }

    fn delivered(&self) -> Vec<String> {
        self.recorder.delivered()
    }
}

fn content(data: &str) -> Content {
    Content {
        data: Data::json(data).unwrap(),
        info: None,
        tags: None,
    }
}

fn name(channel: &str) -> ChannelName {
    ChannelName::new(channel).unwrap()
}

fn member(bits: u128, user: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        client: ClientId::from_random(bits),
        user: user.into(),
        conn_info: None,
        chan_info: None,
    })
}
