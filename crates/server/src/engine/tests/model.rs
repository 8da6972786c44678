//! A model test of recovery: clients of a whole server, which is restarted, killed, and loses power.
//!
//! Seeded clients connect, subscribe, recover, read and vanish, while publications with and without idempotency keys
//! succeed, fail and are interrupted. Time is virtual, and the log is on a simulated disk. The model is the list of all
//! publications of a room in the order of delivery. It checks that
//!
//! - each client receives every publication of its room once and in order, until it is told that it may have missed
//!   one,
//! - a client recovers only if the publications of the reply are exactly those that it has missed,
//! - a client does recover if the server has everything that it missed,
//! - after a restart, the log has every acknowledged publication; if a power cut has cost some, all epochs are new,
//! - a publication is never delivered twice, also if it is repeated with its idempotency key.
//!
//! `SOCKEYE_MODEL_SEEDS=1000000 cargo test --release -p sockeye-server model` runs more seeds, and
//! `SOCKEYE_MODEL_SEED=7` one of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::*;
use crate::channel::Hub;
use crate::client::{Client as Session, PingedBy};
use crate::config::Config;
use crate::journal::tests::sim::{Faults, SimDisk};
use crate::journal::{self, JournalOptions};
use crate::node::Node;
use crate::protocol::commands;

/// Seeds that run by default.
const SEEDS: u64 = 3_000;
const STEPS: usize = 60;
const ROOMS: [&str; 2] = ["a", "b"];
const CLIENTS: usize = 3;
const KEPT: usize = 6;
const HISTORY_BYTES_MAX: usize = 12 << 10;

/// A publication as it was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Delivered {
    epoch: String,
    offset: u64,
    number: u64,
}

/// The publications of all rooms, in the order of delivery.
#[derive(Default)]
struct Truth {
    rooms: Mutex<BTreeMap<String, Vec<Delivered>>>,
}

/// Notes publications on their way to the hub.
struct Witness {
    hub: Arc<Hub>,
    truth: Arc<Truth>,
    /// Cleared when the process is killed: what its tasks do then reaches nobody.
    is_alive: Arc<AtomicBool>,
}

impl Deliver for Witness {
    fn has_subscribers(&self, channel: &ChannelName) -> bool {
        self.hub.has_subscribers(channel)
    }

    fn publication(&self, channel: &ChannelName, publication: &Publication, epoch: Option<&Epoch>) {
        if let Ok(number) = publication.content.data.to_json().parse()
            && let Some(epoch) = epoch
            && self.is_alive.load(Ordering::Relaxed)
        {
            let delivered = Delivered {
                epoch: epoch.as_str().to_owned(),
                offset: publication.offset,
                number,
            };
            let mut rooms = self.truth.rooms.lock();
            rooms.entry(channel.as_str().to_owned()).or_default().push(delivered);
        }
        self.hub.publication(channel, publication, epoch);
    }

    fn join(&self, channel: &ChannelName, info: &ClientInfo) {
        self.hub.join(channel, info);
    }

    fn leave(&self, channel: &ChannelName, info: &ClientInfo) {
        self.hub.leave(channel, info);
    }
}

impl ChannelPositions for Witness {
    fn continuity(&self, channel: &ChannelName, epoch: &Epoch, offset: u64, previous: u64) -> Continuity {
        self.hub.continuity(channel, epoch, offset, previous)
    }

    fn position(&self, channel: &ChannelName) -> Option<Position> {
        self.hub.position(channel)
    }

    fn positions(&self) -> Vec<(ChannelName, Position)> {
        self.hub.positions()
    }

    fn channels(&self) -> Vec<ChannelName> {
        self.hub.channels()
    }

    fn catch_up(&self, channel: &ChannelName, seen: &Position, top: &Position) -> bool {
        self.hub.catch_up(channel, seen, top)
    }
}

/// Counts of events, so that a run that checks nothing fails.
#[derive(Clone, Debug, Default)]
struct Seen {
    publications: u64,
    recovered: u64,
    recovered_across_restart: u64,
    not_recovered: u64,
    unsubscribed: u64,
    lossy: u64,
    refused: u64,
    unacknowledged_found: u64,
}

struct World {
    rng: StdRng,
    seen: Seen,
    truth: Arc<Truth>,
    /// The simulated disk, if there is a log.
    disk: Option<SimDisk>,
    fsync: journal::Fsync,
    node: Arc<Node>,
    is_alive: Arc<AtomicBool>,
    clients: Vec<Client>,
    published: u64,
    /// Number of steps after which a client need not recover.
    possible_losses: u64,
    restarts: u64,
    may_evict: bool,
    /// The histories exceed the budget, so that any publication may evict a room.
    is_flooded: bool,
    /// Publications in progress.
    in_flight: Vec<(&'static str, u64, JoinHandle<()>)>,
    /// Publications that were in progress when an earlier process ended.
    unacknowledged_before: HashSet<(&'static str, u64)>,
    /// Publications that the log may still contain, although a process did not restore them after a power cut.
    evicted_before: Vec<(&'static str, Delivered)>,
}

/// A client of one room, with the state that an SDK keeps.
struct Client {
    room: &'static str,
    session: Option<Session>,
    is_subscribed: bool,
    /// [`World::possible_losses`] when it subscribed.
    possible_losses: u64,
    known: Option<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    epoch: String,
    offset: u64,
    /// Index of the next publication in the truth; `None` if the client has seen publications that were lost.
    next: Option<usize>,
    possible_losses: u64,
    restarts: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = rng.random_bool(0.75).then(|| SimDisk::new(seed));
        let fsync = match rng.random_range(0..3) {
            0 => journal::Fsync::Always,
            1 => journal::Fsync::Every(Duration::from_secs(3600)),
            _ => journal::Fsync::Never,
        };
        let truth = Arc::new(Truth::default());
        let clients = (0..CLIENTS).map(|n| Client {
            room: ROOMS[n % ROOMS.len()],
            session: None,
            is_subscribed: false,
            possible_losses: 0,
            known: None,
        });
        let is_alive = Arc::new(AtomicBool::new(true));
        Self {
            node: node(&truth, &is_alive, disk.as_ref(), fsync),
            is_alive,
            rng,
            seen: Seen::default(),
            truth,
            disk,
            fsync,
            clients: clients.collect(),
            published: 0,
            possible_losses: 0,
            restarts: 0,
            may_evict: false,
            is_flooded: false,
            in_flight: Vec::new(),
            unacknowledged_before: HashSet::new(),
            evicted_before: Vec::new(),
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..40) {
            0..12 => self.publish().await,
            12 => {
                let wait = Duration::from_secs(self.rng.random_range(0..90));
                tokio::time::advance(wait).await;
                self.node.engine().maintain().await.unwrap();
                self.note_possible_loss();
            }
            // Exceeds the budget, so that rooms are evicted.
            13 if self.published > 20 => {
                let flood = format!("\"{}\"", "x".repeat(3000));
                for n in 0..3 {
                    let name = name(&format!("flood{n}"));
                    let _ = self.node.engine().publish(&name, content(&flood)).await;
                }
                self.is_flooded = true;
                self.note_possible_loss();
            }
            14 => {
                let room = self.room();
                self.node.engine().history_remove(&name(room)).await.unwrap();
                // Clients that missed nothing may still recover, others may not.
                self.possible_losses += 1;
            }
            15 | 16 => self.restart().await,
            17 => self.publish_with_full_disk().await,
            _ => {
                let at = self.rng.random_range(0..self.clients.len());
                self.step_of(at).await;
            }
        }
    }

    fn note_possible_loss(&mut self) {
        self.possible_losses += 1;
        self.may_evict = true;
    }

    fn room(&mut self) -> &'static str {
        ROOMS[self.rng.random_range(0..ROOMS.len())]
    }

    fn next_number(&mut self) -> u64 {
        self.published += 1;
        self.published
    }

    async fn publish(&mut self) {
        let room = self.room();
        let number = self.next_number();
        let key = format!("key{number}");
        let is_keyed = self.rng.random_bool(0.3);
        let publish = || match is_keyed {
            true => Publish {
                idempotency_key: Some(key.as_str().into()),
                ..content(&number.to_string()).into()
            },
            false => content(&number.to_string()).into(),
        };
        let published = self.node.engine().publish(&name(room), publish()).await.unwrap();
        let last = self.truth.rooms.lock()[room].last().unwrap().clone();
        assert_eq!(last.number, number);
        assert_eq!((last.epoch.as_str(), last.offset), at(&published.position));
        if is_keyed {
            let repeated = self.node.engine().publish(&name(room), publish()).await.unwrap();
            assert_eq!(repeated.outcome, PublishOutcome::Duplicate);
            assert_eq!(repeated.position, published.position);
        }
        self.seen.publications += 1;
        self.possible_losses += u64::from(self.is_flooded);
    }

    /// Fails while the disk is full, and delivers nothing. Then succeeds again.
    async fn publish_with_full_disk(&mut self) {
        let Some(disk) = &self.disk else { return };
        disk.set_faults(Faults {
            capacity: Some(0),
            ..Faults::default()
        });
        let before = self.truth.rooms.lock().clone();
        let room = self.rng.random_range(0..ROOMS.len());
        let publish = content("0");
        let error = self
            .node
            .engine()
            .publish(&name(ROOMS[room]), publish.clone())
            .await
            .unwrap_err();
        assert_eq!(error, EngineError::Full);
        assert!(matches!(self.node.engine().health(), Health::NotReady(_)));
        assert_eq!(*self.truth.rooms.lock(), before);
        disk.set_faults(Faults::default());
        let mut attempts = 0;
        while self.node.engine().probe().await.is_err() {
            attempts += 1;
            assert!(attempts < 10_000, "does not recover");
            std::thread::sleep(Duration::from_micros(100));
        }
        self.seen.refused += 1;
    }

    async fn restart(&mut self) {
        for client in &mut self.clients {
            client.lose_connection();
        }
        self.restarts += 1;
        let ending = self.rng.random_range(0..5);
        match self.disk.clone() {
            None => {
                self.start(None);
                self.forget_all();
            }
            Some(disk) => {
                if ending == 0 {
                    self.node.engine().close().await.unwrap();
                    disk.kill();
                } else {
                    self.begin_publications(&disk).await;
                    match ending {
                        1 => disk.cut_power(),
                        2 => disk.reboot(),
                        _ => disk.kill(),
                    }
                }
                self.is_alive.store(false, Ordering::Relaxed);
                disk.set_faults(Faults::default());
                let in_flight = std::mem::take(&mut self.in_flight);
                let mut unacknowledged = Vec::new();
                for (room, number, publishing) in in_flight {
                    publishing.await.unwrap();
                    unacknowledged.push((room, number));
                }
                let may_lose = matches!(ending, 1 | 2) && self.fsync != journal::Fsync::Always;
                let may_change_epoch = matches!(ending, 1 | 2) || self.may_evict;
                let epochs = self.epochs().await;
                // Ends the threads of the old process.
                self.start(None);
                self.start(Some(&disk));
                self.compare(&unacknowledged, may_lose).await;
                self.unacknowledged_before.extend(&unacknowledged);
                if may_lose {
                    self.seen.lossy += 1;
                    for (before, after) in epochs.iter().zip(self.epochs().await) {
                        assert_ne!(*before, after, "the epoch must change after a loss");
                    }
                } else if !may_change_epoch {
                    assert_eq!(epochs, self.epochs().await, "the epoch must not change without a loss");
                }
                if may_change_epoch {
                    self.note_possible_loss();
                }
            }
        }
    }

    /// Starts publications while the disk does not answer.
    async fn begin_publications(&mut self, disk: &SimDisk) {
        if self.rng.random_bool(0.5) {
            return;
        }
        disk.set_faults(Faults {
            is_stalled: true,
            ..Faults::default()
        });
        for _ in 0..self.rng.random_range(1..4) {
            let (room, number) = (self.room(), self.next_number());
            let engine = self.node.engine().clone();
            let publishing = tokio::spawn(async move {
                let _ = engine.publish(&name(room), content(&number.to_string())).await;
            });
            self.in_flight.push((room, number, publishing));
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        if self.rng.random_bool(0.3) {
            // Then they reach the disk, but nobody learns of it.
            disk.set_faults(Faults::default());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Starts a new process.
    fn start(&mut self, disk: Option<&SimDisk>) {
        self.is_alive = Arc::new(AtomicBool::new(true));
        self.node = node(&self.truth, &self.is_alive, disk, self.fsync);
    }

    async fn epochs(&self) -> Vec<String> {
        let mut epochs = Vec::new();
        for room in ROOMS {
            let positions = self.node.engine().positions(&[name(room)]).await.unwrap();
            epochs.push(positions[0].as_ref().unwrap().epoch.as_str().to_owned());
        }
        epochs
    }

    /// All histories are gone.
    fn forget_all(&mut self) {
        self.truth.rooms.lock().clear();
        for client in &mut self.clients {
            if let Some(known) = &mut client.known {
                known.next = None;
            }
        }
    }

    /// Compares what a log has restored with the truth, and adapts the truth to it.
    async fn compare(&mut self, unacknowledged: &[(&'static str, u64)], may_lose: bool) {
        for room in ROOMS {
            let query = HistoryQuery {
                limit: usize::MAX,
                ..Default::default()
            };
            let history = self.node.engine().history(&name(room), query).await.unwrap();
            let (epoch, top) = at(&history.top);
            let logged = |epoch: &str| epoch.split('.').next().unwrap().to_owned();
            let mut rooms = self.truth.rooms.lock();
            let known = rooms.entry(room.to_owned()).or_default();
            // The epoch after a restart may have another era.
            for delivered in known.iter_mut() {
                if logged(&delivered.epoch) == logged(epoch) {
                    delivered.epoch = epoch.to_owned();
                }
            }
            let is_of_stream = |delivered: &Delivered| delivered.epoch == epoch;
            // Publications that were written but not acknowledged are added.
            let mut added: HashSet<u64> = HashSet::new();
            for publication in &history.publications {
                let number: u64 = publication.content.data.to_json().parse().unwrap();
                let delivered = Delivered {
                    epoch: epoch.to_owned(),
                    offset: publication.offset,
                    number,
                };
                match known
                    .iter()
                    .find(|known| is_of_stream(known) && known.offset == delivered.offset)
                {
                    Some(found) => assert_eq!(*found, delivered, "restored something else"),
                    None => {
                        // A stream that one process evicts while it restores the log may be kept by the next.
                        let is_expected = unacknowledged.contains(&(room, number))
                            || self.may_evict && self.unacknowledged_before.contains(&(room, number))
                            || self
                                .evicted_before
                                .iter()
                                .any(|(of, known)| *of == room && known.number == number);
                        assert!(is_expected, "{delivered:?} from nowhere");
                        assert!(added.insert(number), "{number} twice");
                        self.seen.unacknowledged_found += 1;
                        known.push(delivered);
                    }
                }
            }
            // A stream that is back may have its position, but not its publications.
            if top > 0 && !known.iter().any(|known| is_of_stream(known) && known.offset == top) {
                let is_missing = |evicted: &&Delivered| {
                    logged(&evicted.epoch) == logged(epoch)
                        && evicted.offset <= top
                        && !known
                            .iter()
                            .any(|known| is_of_stream(known) && known.offset == evicted.offset)
                };
                let of_room = self.evicted_before.iter().filter(|(of, _)| *of == room);
                let missing: Vec<_> = of_room
                    .map(|(_, evicted)| evicted)
                    .filter(is_missing)
                    .cloned()
                    .collect();
                known.extend(missing.into_iter().map(|evicted| Delivered {
                    epoch: epoch.to_owned(),
                    ..evicted
                }));
            }
            let last = known
                .last()
                .filter(|last| is_of_stream(last))
                .map_or(0, |last| last.offset);
            if may_lose {
                // What is missing is at the end.
                let len = known
                    .iter()
                    .rposition(|known| is_of_stream(known) && known.offset <= top)
                    .map_or(0, |index| index + 1);
                // A process that evicts a stream while it restores the log looks as if the stream were lost.
                let lost = known.drain(len..).map(|lost| (room, lost));
                self.evicted_before.extend(lost.filter(|_| self.may_evict));
                drop(rooms);
                for client in self.clients.iter_mut().filter(|client| client.room == room) {
                    if let Some(known) = &mut client.known {
                        known.next = known.next.filter(|next| *next <= len);
                    }
                }
            } else if !self.may_evict {
                assert_eq!(top, last, "an acknowledged publication of {room} is missing");
            }
        }
    }

    async fn step_of(&mut self, at: usize) {
        let node = self.node.clone();
        let client = &mut self.clients[at];
        let Some(session) = &mut client.session else {
            let mut session = Session::new(node, None, PingedBy::Commands);
            send(&mut session, r#"{"id":1,"connect":{}}"#).await.unwrap();
            session.next_frame().unwrap();
            client.session = Some(session);
            return;
        };
        if !client.is_subscribed {
            if self.rng.random_range(0..10) == 0 {
                client.known = None;
            }
            let recovery = match &client.known {
                Some(Known { epoch, offset, .. }) => {
                    format!(r#","recover":true,"epoch":"{epoch}","offset":{offset}"#)
                }
                None => String::new(),
            };
            let room = client.room;
            let command = format!(
                r#"{{"id":2,"subscribe":{{"channel":"{room}","recoverable":true,"positioned":true{recovery}}}}}"#
            );
            match send(session, &command).await {
                Ok(()) => (client.is_subscribed, client.possible_losses) = (true, self.possible_losses),
                Err(_) => return client.lose_connection(),
            }
            // Sometimes the reply is lost.
        }
        match self.rng.random_range(0..6) {
            0 => self.clients[at].lose_connection(),
            _ => self.read(at),
        }
    }

    /// Processes everything that the server has sent to a client.
    fn read(&mut self, at: usize) {
        let rooms = self.truth.rooms.lock().clone();
        let empty = Vec::new();
        let client = &mut self.clients[at];
        let truth = rooms.get(client.room).unwrap_or(&empty);
        let Some(session) = &mut client.session else { return };
        loop {
            let frame = match session.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return client.lose_connection(),
            };
            for line in frame.message().as_text().unwrap().lines() {
                let message: Value = serde_json::from_str(line).unwrap();
                if let Some(reply) = message.get("subscribe") {
                    let known = client.known.take();
                    client.known = Some(subscribed(
                        reply,
                        known,
                        truth,
                        self.possible_losses,
                        self.restarts,
                        &mut self.seen,
                    ));
                } else if let Some(publication) = message.pointer("/push/pub") {
                    let known = client.known.as_mut().expect("a push before the reply");
                    known.receive(publication, truth);
                } else if message.pointer("/push/unsubscribe").is_some() {
                    client.is_subscribed = false;
                    self.seen.unsubscribed += 1;
                    return;
                } else if message.get("error").is_some() {
                    panic!("{line}");
                }
            }
        }
        let known = client.known.as_ref().expect("subscribed");
        assert_eq!(
            known.next,
            Some(truth.len()),
            "something is missing, and the client was not told"
        );
    }
}

impl Client {
    fn lose_connection(&mut self) {
        self.session = None;
        self.is_subscribed = false;
    }
}

/// The state of a client after the reply to its subscription.
fn subscribed(
    reply: &Value,
    known: Option<Known>,
    truth: &[Delivered],
    possible_losses: u64,
    restarts: u64,
    seen: &mut Seen,
) -> Known {
    let epoch = reply["epoch"].as_str().unwrap().to_owned();
    let offset = reply["offset"].as_u64().unwrap_or(0);
    let publications = reply["publications"].as_array().cloned().unwrap_or_default();
    let is_recovered = reply["recovered"].as_bool().unwrap_or(false);
    if is_recovered {
        let before = known.expect("recovers from a position");
        assert_eq!(before.epoch, epoch);
        assert!(
            before.next.is_some(),
            "recovered {before:?}, which has seen publications that are lost"
        );
        seen.recovered += 1;
        seen.recovered_across_restart += u64::from(before.restarts != restarts);
        let mut after = Known {
            possible_losses,
            restarts,
            ..before
        };
        for publication in &publications {
            after.receive(publication, truth);
        }
        return after;
    }
    assert!(publications.is_empty());
    if let Some(known) = known {
        seen.not_recovered += 1;
        let missed = known.next.map(|next| truth.len() - next);
        assert!(
            known.possible_losses != possible_losses || missed.is_none_or(|missed| missed > KEPT),
            "the server had all publications after {known:?}: {reply}"
        );
    }
    let of_epoch = |offset: u64| {
        truth
            .iter()
            .position(|known| known.epoch == epoch && known.offset == offset)
    };
    let next = match offset {
        0 => of_epoch(1),
        _ => Some(of_epoch(offset).expect("a position from nowhere") + 1),
    };
    Known {
        epoch,
        offset,
        next: Some(next.unwrap_or(truth.len())),
        possible_losses,
        restarts,
    }
}

impl Known {
    fn receive(&mut self, publication: &Value, truth: &[Delivered]) {
        let received = Delivered {
            epoch: self.epoch.clone(),
            offset: publication["offset"].as_u64().unwrap(),
            number: publication["data"].as_u64().unwrap(),
        };
        let next = self.next.expect("checked by recovery");
        assert_eq!(Some(&received), truth.get(next), "at {self:?}");
        assert_eq!(received.offset, self.offset + 1);
        self.offset = received.offset;
        self.next = Some(next + 1);
    }
}

fn at(position: &Position) -> (&str, u64) {
    (position.epoch.as_str(), position.offset)
}

async fn send(session: &mut Session, frame: &str) -> Result<(), crate::codes::DisconnectCode> {
    for command in commands(frame).unwrap() {
        session.handle_command(command).await?;
    }
    Ok(())
}

/// A server in a new process.
fn node(truth: &Arc<Truth>, is_alive: &Arc<AtomicBool>, disk: Option<&SimDisk>, fsync: journal::Fsync) -> Arc<Node> {
    let hub = Arc::new(Hub::new());
    let deliver = Arc::new(Witness {
        hub: hub.clone(),
        truth: truth.clone(),
        is_alive: is_alive.clone(),
    });
    let limits: Arc<HistoryLimitsOf> = Arc::new(|_: &ChannelName| {
        Some(HistoryLimits {
            count_max: KEPT,
            bytes_max: 8 << 10,
            ttl: TTL,
        })
    });
    let broker = match disk {
        None => MemoryBroker::new(deliver, limits, HISTORY_BYTES_MAX),
        Some(disk) => {
            let mut options = JournalOptions::new("");
            options.fsync = fsync;
            options.segment_bytes = 8 << 10;
            options.full_retry_interval = Duration::from_micros(200);
            MemoryBroker::open_simulated(deliver, limits, HISTORY_BYTES_MAX, disk, &options).unwrap()
        }
    };
    let config = Arc::new(parking_lot::RwLock::new(Arc::new(Config::default())));
    Node::with_memory(config, hub, broker)
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
    for _ in 0..STEPS {
        world.step().await;
    }
    world.seen
}

/// Runs the seeds that are left, on one thread.
fn run_all(next: &AtomicU64, end: u64) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let mut seen = Seen::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return seen;
        }
        seen.add(&runtime.block_on(run(seed)));
    }
}

impl Seen {
    fn counts(&mut self) -> [(&'static str, &mut u64); 8] {
        [
            ("publications", &mut self.publications),
            ("recovered", &mut self.recovered),
            ("recovered across a restart", &mut self.recovered_across_restart),
            ("not recovered", &mut self.not_recovered),
            ("unsubscribed", &mut self.unsubscribed),
            ("power cuts", &mut self.lossy),
            ("full disks", &mut self.refused),
            ("unacknowledged publications in the log", &mut self.unacknowledged_found),
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
fn no_client_misses_a_publication_unnoticed_across_restarts() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    if let Some(seed) = number("SOCKEYE_MODEL_SEED") {
        run_all(&AtomicU64::new(seed), seed + 1);
        return;
    }
    let end = number("SOCKEYE_MODEL_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| run_all(&next, end))).collect();
        for thread in threads {
            seen.add(&thread.join().expect("a seed failed"));
        }
    });
    eprintln!("{seen:?}");
    for (what, count) in seen.counts() {
        assert!(*count >= end / 1_000, "{what}: {count}");
    }
}
