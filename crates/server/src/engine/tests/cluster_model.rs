//! A model test of recovery on several nodes, which share a store: a simulated one here, and real servers in the tests
//! of Redis and NATS.
//!
//! Seeded clients of two nodes connect, subscribe, recover, read and vanish, while publications succeed, fail, and are
//! repeated with their idempotency keys. The simulated store loses, repeats and delays events, fails calls before and
//! after they took effect, goes away, and fails over to a replica without the newest publications; its time is virtual.
//! Real servers are killed and started again, close connections, and stop for a while. Nodes are killed. The test
//! checks that
//!
//! - each client receives what the store has at each offset of its epoch, without a gap and without a repetition, until
//!   it is told that it may have missed something,
//! - a client recovers only with exactly what it has missed,
//! - at the end, when everything works again, each client has reached the newest position of its room by itself,
//! - at the end, presence has exactly the clients that are subscribed,
//! - an acknowledged publication is in the store at the position that its publisher was told,
//! - a publication with an idempotency key is stored once, however often it was tried, unless a failover has lost the
//!   key,
//! - if the store syncs every write, its epochs stay.
//!
//! `SOCKEYE_MODEL_SEEDS` and `SOCKEYE_MODEL_SEED` select seeds, as in the model test of restarts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::cluster::simulated::{LogEntry, SimFaults};
use super::*;
use crate::client::{Client as Session, PingedBy};
use crate::config::Config;
use crate::node::{Node, random_uid};
use crate::protocol::commands;

/// Seeds that run by default.
const SEEDS: u64 = 300;
/// Seeds that run with real servers.
const REAL_SEEDS: u64 = 4;
const STEPS: usize = 80;
const ROOMS: [&str; 2] = ["a", "b"];
const CLIENTS: usize = 4;
const NODES: usize = 2;

/// The store that the nodes share, and what goes wrong with it.
pub(super) trait Backend {
    /// Whether offsets grow by one.
    const IS_DENSE: bool;
    /// Time after which everything has recovered by itself: an event that was lost while the connection stayed is
    /// noticed by the position check.
    const RECOVERY: Duration;
    /// How often the position check examines all channels.
    const POSITION_CHECK: Duration;

    fn store(&self, uid: &str) -> Arc<dyn Store>;

    /// Does one of the things that may go wrong, or ends it.
    async fn fail(&mut self, rng: &mut StdRng, seen: &mut Seen);

    /// The process of a node is gone.
    fn kill_node(&mut self, _: &str) {}

    /// Everything works again.
    async fn repair(&mut self);

    /// Everything that was ever stored, if the store remembers it.
    fn log(&self) -> Option<Vec<LogEntry>> {
        None
    }

    /// Whether publications or idempotency keys may have been lost.
    fn has_lost(&self) -> bool {
        false
    }
}

struct Simulated {
    server: Arc<SimServer>,
    has_failed_over: bool,
}

impl Backend for Simulated {
    const IS_DENSE: bool = true;
    const RECOVERY: Duration = Duration::from_secs(50);
    const POSITION_CHECK: Duration = Duration::from_secs(40);

    fn store(&self, uid: &str) -> Arc<dyn Store> {
        SimStore::new(&self.server, uid)
    }

    async fn fail(&mut self, rng: &mut StdRng, seen: &mut Seen) {
        match rng.random_range(0..7) {
            0 => {
                let mut percent = || rng.random_range(0..20);
                self.server.set_faults(SimFaults {
                    lost_events: percent(),
                    lost_publications: 0,
                    repeated_events: percent(),
                    late_events: percent(),
                    failed_calls: percent() / 2,
                    lost_answers: percent() / 2,
                });
            }
            1 => self.server.set_faults(SimFaults::default()),
            2 => self.server.set_down(true),
            3..6 => self.server.set_down(false),
            _ => {
                self.server.fail_over(rng.random_range(0..4));
                self.has_failed_over = true;
                seen.failovers += 1;
            }
        }
    }

    fn kill_node(&mut self, uid: &str) {
        self.server.kill(uid);
    }

    async fn repair(&mut self) {
        self.server.set_faults(SimFaults::default());
        self.server.set_down(false);
    }

    fn log(&self) -> Option<Vec<LogEntry>> {
        let mut log = self.server.log();
        // Probes of the nodes are in other channels.
        log.retain(|entry| ROOMS.contains(&entry.channel.as_str()));
        Some(log)
    }

    fn has_lost(&self) -> bool {
        self.has_failed_over
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    publications: u64,
    refused: u64,
    recovered: u64,
    not_recovered: u64,
    unsubscribed: u64,
    /// Failovers, or restarts of a real server.
    pub(super) failovers: u64,
    kills: u64,
    catch_ups: u64,
}

struct World<B> {
    rng: StdRng,
    seen: Seen,
    backend: B,
    nodes: Vec<TestNode>,
    clients: Vec<Client>,
    published: u64,
    publishing: Vec<JoinHandle<Option<(ChannelName, u64, Position)>>>,
}

struct TestNode {
    node: Arc<Node>,
    running: JoinHandle<()>,
}

struct Client {
    room: &'static str,
    is_dense: bool,
    session: Option<Session>,
    /// Its id.
    id: String,
    /// The id of its node.
    node: String,
    is_subscribed: bool,
    known: Option<Known>,
}

/// What a client knows of its room.
#[derive(Clone, Debug)]
struct Known {
    epoch: String,
    offset: u64,
    is_dense: bool,
    /// Where it came here.
    start: u64,
    /// What it has received since it came here: offsets and numbers.
    received: Vec<(u64, u64)>,
}

impl TestNode {
    fn new<B: Backend>(backend: &B) -> Self {
        let uid = random_uid();
        let mut config = Config::default();
        config.timeouts.position_check = B::POSITION_CHECK;
        let channels = config.channels.as_mut().unwrap();
        channels.history_size = 20;
        channels.presence = true;
        channels.join_leave = true;
        let node = Node::with_store(config, backend.store(&uid), uid);
        let of_task = node.clone();
        let running = tokio::spawn(async move {
            tokio::select! {
                () = crate::handle::run(of_task.clone()) => {}
                () = of_task.run_position_check() => {}
            }
        });
        Self { node, running }
    }
}

impl<B: Backend> World<B> {
    fn new(seed: u64, backend: B) -> Self {
        let clients = (0..CLIENTS).map(|n| Client {
            room: ROOMS[n % ROOMS.len()],
            is_dense: B::IS_DENSE,
            session: None,
            id: String::new(),
            node: String::new(),
            is_subscribed: false,
            known: None,
        });
        Self {
            rng: StdRng::seed_from_u64(seed),
            seen: Seen::default(),
            nodes: (0..NODES).map(|_| TestNode::new(&backend)).collect(),
            backend,
            clients: clients.collect(),
            published: 0,
            publishing: Vec::new(),
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..60) {
            0..20 => self.publish(),
            20..27 => self.backend.fail(&mut self.rng, &mut self.seen).await,
            27 => self.kill_a_node(),
            _ => {
                let at = self.rng.random_range(0..self.clients.len());
                self.step_of(at).await;
            }
        }
        let pause = Duration::from_millis(self.rng.random_range(0..80));
        sleep(pause).await;
    }

    fn publish(&mut self) {
        self.published += 1;
        let number = self.published;
        let room = name(ROOMS[self.rng.random_range(0..ROOMS.len())]);
        let engine = self.nodes[self.rng.random_range(0..NODES)].node.engine().clone();
        let tries = self.rng.random_range(1..4);
        self.publishing.push(tokio::spawn(async move {
            for _ in 0..tries {
                let publish = Publish {
                    idempotency_key: Some(number.to_string().into()),
                    ..content(&number.to_string()).into()
                };
                match engine.publish(&room, publish).await {
                    Ok(published) => return Some((room, number, published.position)),
                    Err(error) => assert_eq!(error, EngineError::Unreachable),
                }
                sleep(Duration::from_millis(50)).await;
            }
            None
        }));
    }

    /// Kills a node and starts another one. Its clients lose their connections.
    fn kill_a_node(&mut self) {
        let killed = self.rng.random_range(0..NODES);
        let uid = self.nodes[killed].node.uid().to_owned();
        self.backend.kill_node(&uid);
        self.nodes[killed].running.abort();
        self.seen.catch_ups += catch_ups(&self.nodes[killed].node);
        for client in &mut self.clients {
            if client.node == uid {
                client.lose_connection();
            }
        }
        self.nodes[killed] = TestNode::new(&self.backend);
        self.seen.kills += 1;
    }

    async fn step_of(&mut self, at: usize) {
        let node = self.nodes[self.rng.random_range(0..NODES)].node.clone();
        let is_forgetful = self.rng.random_range(0..20) == 0;
        let client = &mut self.clients[at];
        client.connect(&node).await;
        if !client.is_subscribed {
            if is_forgetful {
                client.known = None;
            }
            client.subscribe().await;
        }
        match self.rng.random_range(0..10) {
            0 => client.lose_connection(),
            _ => client.read(&mut self.seen),
        }
    }

    /// Everything works again. The clients recover, if they were told to, and then must have reached the newest
    /// positions.
    async fn finish(mut self) -> Seen {
        self.backend.repair().await;
        sleep(B::RECOVERY).await;
        for client in &mut self.clients {
            client.read(&mut self.seen);
            for attempt in 0.. {
                client.connect(&self.nodes[0].node).await;
                if client.is_subscribed {
                    break;
                }
                assert!(attempt < 5, "a client cannot subscribe");
                client.subscribe().await;
                client.read(&mut self.seen);
            }
        }
        sleep(Duration::from_secs(1)).await;
        let mut stored = Stored::default();
        let log = self.backend.log();
        for entry in log.iter().flatten() {
            let number = super::record::decode(&entry.payload).unwrap().content.data;
            let number = number.to_json().parse().unwrap();
            assert!(
                stored.add(&entry.channel, &entry.position, number),
                "an offset was used twice"
            );
        }
        for room in ROOMS {
            let is_here = |client: &&Client| client.room == room && client.is_subscribed;
            let mut subscribed: Vec<_> = self.clients.iter().filter(is_here).map(|client| &client.id).collect();
            subscribed.sort();
            for TestNode { node, .. } in &self.nodes {
                let members = node.engine().presence(&name(room), usize::MAX).await.unwrap();
                let members = members.unwrap_or_default();
                let mut present: Vec<_> = members.iter().map(|member| member.client.to_string()).collect();
                present.sort();
                assert!(
                    present.iter().eq(subscribed.iter().copied()),
                    "{present:?} are present, not {subscribed:?}"
                );
            }
        }
        for publishing in self.publishing {
            self.seen.publications += 1;
            match publishing.await.unwrap() {
                None => self.seen.refused += 1,
                Some((room, number, position)) => {
                    let is_new = stored.add(&room, &position, number);
                    assert!(!is_new || log.is_none(), "an acknowledged publication is not stored");
                }
            }
        }
        let engine = self.nodes[0].node.engine();
        for room in ROOMS.map(name) {
            let query = HistoryQuery {
                limit: usize::MAX,
                ..HistoryQuery::default()
            };
            let history = engine.history(&room, query).await.unwrap();
            let first = history.publications.first().map_or(u64::MAX, |first| first.offset);
            let mut kept = std::collections::HashSet::new();
            for publication in &history.publications {
                let position = Position {
                    epoch: history.top.epoch.clone(),
                    offset: publication.offset,
                };
                stored.add(&room, &position, publication.content.data.to_json().parse().unwrap());
                kept.insert(publication.offset);
            }
            let known = stored.offsets(&room, history.top.epoch.as_str(), first..);
            assert!(
                known.iter().all(|offset| kept.contains(offset)),
                "the history has a gap"
            );
            if !self.backend.has_lost() {
                let epochs = stored.epochs(&room);
                assert!(epochs.len() <= 1, "{room} has had several epochs: {epochs:?}");
            }
        }
        for client in &mut self.clients {
            client.read(&mut self.seen);
            let room = name(client.room);
            let known = client.known.as_ref().expect("subscribed");
            for (offset, number) in &known.received {
                let position = Position {
                    epoch: Epoch::new(&*known.epoch),
                    offset: *offset,
                };
                let is_new = stored.add(&room, &position, *number);
                assert!(!is_new || log.is_none(), "received what the store does not have");
            }
        }
        for client in &self.clients {
            let room = name(client.room);
            let known = client.known.as_ref().expect("subscribed");
            let received: Vec<_> = known.received.iter().map(|(offset, _)| *offset).collect();
            let expect = stored.offsets(&room, &known.epoch, known.start + 1..);
            assert_eq!(received, expect, "a client of {room} has missed something");
            let top = engine.positions(std::slice::from_ref(&room)).await.unwrap()[0]
                .clone()
                .unwrap();
            assert_eq!(
                (known.epoch.as_str(), known.offset),
                (top.epoch.as_str(), top.offset),
                "a client of {room} stays behind, and was not told"
            );
        }
        if !self.backend.has_lost() {
            stored.check_that_each_is_there_once();
        }
        for TestNode { node, running } in &self.nodes {
            self.seen.catch_ups += catch_ups(node);
            running.abort();
        }
        self.seen
    }
}

/// Where which publication is stored, as far as is known.
#[derive(Default)]
struct Stored {
    numbers: BTreeMap<(ChannelName, String, u64), u64>,
}

impl Stored {
    /// Adds a publication. Returns whether it was not known.
    fn add(&mut self, room: &ChannelName, position: &Position, number: u64) -> bool {
        let key = (room.clone(), position.epoch.as_str().to_owned(), position.offset);
        let before = self.numbers.insert(key, number);
        assert!(
            before.is_none_or(|before| before == number),
            "two publications at {position:?}"
        );
        before.is_none()
    }

    fn offsets(&self, room: &ChannelName, epoch: &str, range: std::ops::RangeFrom<u64>) -> Vec<u64> {
        let keys = self.numbers.keys();
        keys.filter(|(of, in_epoch, offset)| of == room && in_epoch == epoch && range.contains(offset))
            .map(|(_, _, offset)| *offset)
            .collect()
    }

    fn epochs(&self, room: &ChannelName) -> std::collections::BTreeSet<&str> {
        let keys = self.numbers.keys();
        keys.filter(|(of, ..)| of == room)
            .map(|(_, epoch, _)| &**epoch)
            .collect()
    }

    fn check_that_each_is_there_once(&self) {
        let numbers: std::collections::HashSet<_> = self.numbers.values().collect();
        assert_eq!(numbers.len(), self.numbers.len(), "a publication was stored twice");
    }
}

fn catch_ups(node: &Node) -> u64 {
    node.engine().stats().cluster.map_or(0, |cluster| cluster.catch_ups)
}

impl Client {
    async fn connect(&mut self, node: &Arc<Node>) {
        if self.session.is_none() {
            let mut session = Session::new(node.clone(), None, PingedBy::Commands);
            send(&mut session, r#"{"id":1,"connect":{}}"#).await.unwrap();
            let frame = session.next_frame().unwrap().unwrap();
            let reply: Value = serde_json::from_str(frame.message().as_text().unwrap()).unwrap();
            self.id = reply["connect"]["client"].as_str().unwrap().to_owned();
            self.session = Some(session);
            self.node = node.uid().to_owned();
        }
    }

    async fn subscribe(&mut self) {
        let recovery = match &self.known {
            Some(Known { epoch, offset, .. }) => format!(r#","recover":true,"epoch":"{epoch}","offset":{offset}"#),
            None => String::new(),
        };
        let room = self.room;
        let command =
            format!(r#"{{"id":2,"subscribe":{{"channel":"{room}","recoverable":true,"positioned":true{recovery}}}}}"#);
        let session = self.session.as_mut().expect("connected");
        match send(session, &command).await {
            Ok(()) => self.is_subscribed = true,
            Err(_) => self.lose_connection(),
        }
    }

    /// Processes everything that the server has sent.
    fn read(&mut self, seen: &mut Seen) {
        let Some(session) = &mut self.session else { return };
        loop {
            let frame = match session.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(_) => return self.lose_connection(),
            };
            for line in frame.message().as_text().unwrap().lines() {
                let message: Value = serde_json::from_str(line).unwrap();
                if let Some(reply) = message.get("subscribe") {
                    self.known = Some(subscribed(reply, self.known.take(), self.is_dense, seen));
                } else if let Some(publication) = message.pointer("/push/pub") {
                    self.known
                        .as_mut()
                        .expect("a push before the reply")
                        .receive(publication);
                } else if message.pointer("/push/unsubscribe").is_some() {
                    self.is_subscribed = false;
                    seen.unsubscribed += 1;
                    return;
                } else if message.get("error").is_some() {
                    assert_eq!(message["error"]["code"], 100, "{line}");
                    self.is_subscribed = false;
                }
            }
        }
    }

    fn lose_connection(&mut self) {
        self.session = None;
        self.is_subscribed = false;
    }
}

/// What a client knows after the reply to its subscription.
fn subscribed(reply: &Value, known: Option<Known>, is_dense: bool, seen: &mut Seen) -> Known {
    let epoch = reply["epoch"].as_str().unwrap().to_owned();
    if reply["recovered"].as_bool().unwrap_or(false) {
        let mut known = known.expect("recovers from a position");
        assert_eq!(known.epoch, epoch, "recovered in another epoch");
        for publication in reply["publications"].as_array().into_iter().flatten() {
            known.receive(publication);
        }
        seen.recovered += 1;
        return known;
    }
    seen.not_recovered += u64::from(known.is_some());
    let offset = reply["offset"].as_u64().unwrap_or(0);
    Known {
        epoch,
        offset,
        is_dense,
        start: offset,
        received: Vec::new(),
    }
}

impl Known {
    fn receive(&mut self, publication: &Value) {
        let offset = publication["offset"].as_u64().unwrap();
        let is_next = match self.is_dense {
            true => offset == self.offset + 1,
            false => offset > self.offset,
        };
        assert!(is_next, "a gap or a repetition: {offset} at {self:?}");
        self.offset = offset;
        self.received.push((offset, publication["data"].as_u64().unwrap()));
    }
}

async fn send(session: &mut Session, frame: &str) -> Result<(), crate::codes::DisconnectCode> {
    for command in commands(frame).unwrap() {
        session.handle_command(command).await?;
    }
    Ok(())
}

/// Prints the seed of a run that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with SOCKEYE_MODEL_SEED={}", self.0);
        }
    }
}

/// Runs a seed with a store.
pub(super) async fn run<B: Backend>(seed: u64, backend: B) -> Seen {
    let _seed = Seed(seed);
    let mut world = World::new(seed, backend);
    sleep(Duration::from_millis(100)).await;
    for _ in 0..STEPS {
        world.step().await;
    }
    world.finish().await
}

fn run_all(next: &AtomicU64, end: u64) -> Seen {
    let mut seen = Seen::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return seen;
        }
        // A runtime for each seed, so that no task is left over.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let run = async {
            let simulated = Simulated {
                server: SimServer::new(seed),
                has_failed_over: false,
            };
            run(seed, simulated).await
        };
        seen.add(&runtime.block_on(run));
    }
}

/// Runs seeds with real servers, at the same time, each with a server of its own.
pub(super) async fn run_real<B: Backend>(backend: impl Fn() -> B) -> Seen {
    let seeds = match std::env::var("SOCKEYE_MODEL_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..REAL_SEEDS).collect(),
    };
    let mut sum = Seen::default();
    for seen in futures_util::future::join_all(seeds.into_iter().map(|seed| run(seed, backend()))).await {
        sum.add(&seen);
    }
    println!("{sum:?}");
    assert!(
        sum.publications > 0 && sum.recovered > 0 && sum.failovers > 0,
        "{sum:?}"
    );
    sum
}

impl Seen {
    fn counts(&mut self) -> [(&'static str, &mut u64); 8] {
        [
            ("publications", &mut self.publications),
            ("refused", &mut self.refused),
            ("recovered", &mut self.recovered),
            ("not recovered", &mut self.not_recovered),
            ("unsubscribed", &mut self.unsubscribed),
            ("failovers", &mut self.failovers),
            ("killed nodes", &mut self.kills),
            ("catch-ups", &mut self.catch_ups),
        ]
    }

    fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for ((_, sum), (_, count)) in self.counts().into_iter().zip(other.counts()) {
            *sum += *count;
        }
    }
}

#[test]
fn no_client_of_several_nodes_misses_a_publication_unnoticed() {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let one = variable("SOCKEYE_MODEL_SEED");
    let (start, end) = match one {
        Some(seed) => (seed, seed + 1),
        None => (0, variable("SOCKEYE_MODEL_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(start);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut seen = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| run_all(&next, end))).collect();
        let mut seen = Seen::default();
        for thread in threads {
            seen.add(&thread.join().expect("a seed failed"));
        }
        seen
    });
    println!("{seen:?}");
    if one.is_none() {
        for (event, count) in seen.counts() {
            assert!(*count > 0, "never happened: {event}");
        }
    }
}
