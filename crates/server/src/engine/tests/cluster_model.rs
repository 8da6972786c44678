//! A model test of recovery on several nodes, which share a simulated store.
//!
//! Seeded clients of two nodes connect, subscribe, recover, read and vanish, while publications succeed, fail, and are
//! repeated with their idempotency keys. The store loses, repeats and delays events, fails calls before and after they took
//! effect, goes away, and fails over to a replica without the newest publications; nodes are killed. Time is virtual. The
//! test checks that
//!
//! - each client receives what the store has at each offset of its epoch, without a gap and without a repetition, until it
//!   is told that it may have missed something,
//! - a client recovers only with exactly what it has missed,
//! - at the end, when everything works again, each client has reached the newest position of its room by itself,
//! - at the end, presence has exactly the clients that are subscribed,
//! - an acknowledged publication is in the store at the position that its publisher was told,
//! - a publication with an idempotency key is stored once, however often it was tried, unless a failover has lost the key.
//!
//! `SOCKEYE_MODEL_SEEDS` and `SOCKEYE_MODEL_SEED` select seeds, as in the model test of restarts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::cluster::simulated::SimFaults;
use super::*;
use crate::client::{Client as Session, PingedBy};
use crate::config::Config;
use crate::node::{Node, random_uid};
use crate::protocol::commands;

/// Seeds that run by default.
const SEEDS: u64 = 300;
const STEPS: usize = 80;
const ROOMS: [&str; 2] = ["a", "b"];
const CLIENTS: usize = 4;
const NODES: usize = 2;

/// Time after which everything has recovered by itself: an event that was lost while the connection stayed is noticed by
/// the position check, which takes 40 s for a round.
const RECOVERY: Duration = Duration::from_secs(50);

#[derive(Clone, Debug, Default)]
struct Seen {
    publications: u64,
    refused: u64,
    recovered: u64,
    not_recovered: u64,
    unsubscribed: u64,
    failovers: u64,
    kills: u64,
    catch_ups: u64,
}

struct World {
    rng: StdRng,
    seen: Seen,
    server: Arc<SimServer>,
    nodes: Vec<TestNode>,
    clients: Vec<Client>,
    published: u64,
    publishing: Vec<JoinHandle<Option<(ChannelName, u64, Position)>>>,
    has_failed_over: bool,
}

struct TestNode {
    node: Arc<Node>,
    running: JoinHandle<()>,
}

struct Client {
    room: &'static str,
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
    /// What it has received since it came here: offsets and numbers.
    received: Vec<(u64, u64)>,
}

impl TestNode {
    fn new(server: &Arc<SimServer>) -> Self {
        let uid = random_uid();
        let mut config = Config::default();
        let channels = config.channels.as_mut().unwrap();
        channels.history_size = 20;
        channels.presence = true;
        channels.join_leave = true;
        let store = SimStore::new(server, &uid);
        let node = Node::with_store(config, store, uid);
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

impl World {
    fn new(seed: u64) -> Self {
        let server = SimServer::new(seed);
        let clients = (0..CLIENTS).map(|n| Client {
            room: ROOMS[n % ROOMS.len()],
            session: None,
            id: String::new(),
            node: String::new(),
            is_subscribed: false,
            known: None,
        });
        Self {
            rng: StdRng::seed_from_u64(seed),
            seen: Seen::default(),
            nodes: (0..NODES).map(|_| TestNode::new(&server)).collect(),
            server,
            clients: clients.collect(),
            published: 0,
            publishing: Vec::new(),
            has_failed_over: false,
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..60) {
            0..20 => self.publish(),
            20 => {
                let faults = self.random_faults();
                self.server.set_faults(faults);
            }
            21 => self.server.set_faults(SimFaults::default()),
            22 => self.server.set_down(true),
            23..26 => self.server.set_down(false),
            26 => {
                let lost = self.rng.random_range(0..4);
                self.server.fail_over(lost);
                self.has_failed_over = true;
                self.seen.failovers += 1;
            }
            27 => self.kill_a_node(),
            _ => {
                let at = self.rng.random_range(0..self.clients.len());
                self.step_of(at).await;
            }
        }
        let pause = Duration::from_millis(self.rng.random_range(0..80));
        sleep(pause).await;
    }

    fn random_faults(&mut self) -> SimFaults {
        let mut percent = || self.rng.random_range(0..20);
        SimFaults {
            lost_events: percent(),
            lost_publications: 0,
            repeated_events: percent(),
            late_events: percent(),
            failed_calls: percent() / 2,
            lost_answers: percent() / 2,
        }
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
        self.server.kill(&uid);
        self.nodes[killed].running.abort();
        self.seen.catch_ups += catch_ups(&self.nodes[killed].node);
        for client in &mut self.clients {
            if client.node == uid {
                client.lose_connection();
            }
        }
        self.nodes[killed] = TestNode::new(&self.server);
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

    /// Everything works again. The clients recover, if they were told to, and then must have reached the newest positions.
    async fn finish(mut self) -> Seen {
        self.server.set_faults(SimFaults::default());
        self.server.set_down(false);
        sleep(RECOVERY).await;
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
        let mut stored: HashMap<(ChannelName, String, u64), u64> = HashMap::new();
        let mut copies: HashMap<u64, u32> = HashMap::new();
        // Probes of the nodes are in other channels.
        let log = self.server.log().into_iter();
        for entry in log.filter(|entry| ROOMS.contains(&entry.channel.as_str())) {
            let number = super::record::decode(&entry.payload).unwrap().content.data;
            let number: u64 = number.to_json().parse().unwrap();
            let (epoch, offset) = (entry.position.epoch.as_str().to_owned(), entry.position.offset);
            let before = stored.insert((entry.channel, epoch, offset), number);
            assert_eq!(before, None, "the simulation has used an offset twice");
            *copies.entry(number).or_default() += 1;
        }
        for client in &mut self.clients {
            client.read(&mut self.seen);
            let room = name(client.room);
            let known = client.known.as_ref().expect("subscribed");
            for (offset, number) in &known.received {
                let there = stored.get(&(room.clone(), known.epoch.clone(), *offset));
                assert_eq!(there, Some(number), "received something else than the store has");
            }
            if let Some(top) = self.server.top(&room) {
                assert_eq!(
                    (known.epoch.as_str(), known.offset),
                    (top.epoch.as_str(), top.offset),
                    "a client of {room} stays behind, and was not told"
                );
            }
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
                    let key = (room, position.epoch.as_str().to_owned(), position.offset);
                    assert_eq!(
                        stored.get(&key),
                        Some(&number),
                        "an acknowledged publication is not stored"
                    );
                }
            }
        }
        if !self.has_failed_over {
            assert!(
                copies.values().all(|copies| *copies == 1),
                "a publication was stored twice"
            );
        }
        for TestNode { node, running } in &self.nodes {
            self.seen.catch_ups += catch_ups(node);
            running.abort();
        }
        self.seen
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
                    self.known = Some(subscribed(reply, self.known.take(), seen));
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
fn subscribed(reply: &Value, known: Option<Known>, seen: &mut Seen) -> Known {
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
    Known {
        epoch,
        offset: reply["offset"].as_u64().unwrap_or(0),
        received: Vec::new(),
    }
}

impl Known {
    fn receive(&mut self, publication: &Value) {
        let offset = publication["offset"].as_u64().unwrap();
        assert_eq!(offset, self.offset + 1, "a gap or a repetition at {self:?}");
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

async fn run(seed: u64) -> Seen {
    let _seed = Seed(seed);
    let mut world = World::new(seed);
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
        seen.add(&runtime.block_on(run(seed)));
    }
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
