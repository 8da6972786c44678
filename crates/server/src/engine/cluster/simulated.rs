//! A store in memory for tests, which loses, delays and repeats events, fails calls, and loses publications.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::inbox::Inbox;
use super::store::{
    Event, LEASE_TTL, Membership, MembershipKind, NodeEntry, PresenceEntry, Store, StoreError, StoreFuture,
    StorePublish, StorePublished, StoredPage, StoredPublication,
};
use crate::channel::ChannelName;
use crate::engine::idempotency::KEY_TTL;
use crate::engine::{Epoch, HistoryLimits, HistoryQuery, Position, PublishOutcome, Version};
use crate::ids::{ClientId, Generation};

/// The server that all nodes of a test share.
pub(crate) struct SimServer {
    state: Mutex<State>,
}

/// How often what goes wrong, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SimFaults {
    pub(crate) lost_events: u32,
    /// Publications that are stored and not sent.
    pub(crate) lost_publications: u32,
    pub(crate) repeated_events: u32,
    /// Events that arrive up to 100 ms late, with all later ones of the node.
    pub(crate) late_events: u32,
    /// Calls without an effect.
    pub(crate) failed_calls: u32,
    /// Calls with an effect, of which the caller does not learn.
    pub(crate) lost_answers: u32,
}

struct State {
    rng: StdRng,
    faults: SimFaults,
    is_down: bool,
    /// How long an addition to presence takes.
    presence_delay: Duration,
    /// Joins or leaves that are announced late, as if their channel was being moved to another server, and how late.
    late_announcements: Option<(MembershipKind, Duration)>,
    /// Start of the names of channels whose streams cannot be read.
    dead: Option<&'static str>,
    streams: HashMap<ChannelName, Stream>,
    keys: HashMap<(ChannelName, Box<str>), (Instant, Position)>,
    presence: HashMap<ChannelName, BTreeMap<ClientId, (String, PresenceEntry)>>,
    leases: BTreeMap<String, (Instant, Bytes)>,
    nodes: HashMap<String, Connected>,
    killed: HashSet<String>,
    /// How long a call takes.
    latency: Duration,
    /// Calls that subscribe or unsubscribe.
    subscribe_calls: u64,
    /// Calls that read positions.
    position_calls: u64,
    /// Everything that was ever stored.
    log: Vec<LogEntry>,
    epochs: u64,
}

/// A publication at its place.
#[derive(Clone, Debug)]
pub(crate) struct LogEntry {
    pub(crate) channel: ChannelName,
    pub(crate) position: Position,
    pub(crate) payload: Bytes,
}

struct Stream {
    epoch: Epoch,
    top: u64,
    publications: VecDeque<(Instant, StoredPublication)>,
    version: Option<Version>,
    used: Instant,
}

/// The connection of a node.
struct Connected {
    channels: HashSet<ChannelName>,
    events: mpsc::UnboundedSender<(Instant, Event)>,
    /// When the newest event arrives. Later ones do not overtake it.
    newest: Instant,
}

/// One node's view of the server.
pub(crate) struct SimStore {
    server: Arc<SimServer>,
    uid: String,
    inbox: Mutex<Option<Arc<Inbox>>>,
}

impl SimServer {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                rng: StdRng::seed_from_u64(seed),
                faults: SimFaults::default(),
                is_down: false,
                presence_delay: Duration::ZERO,
                late_announcements: None,
                dead: None,
                streams: HashMap::new(),
                keys: HashMap::new(),
                presence: HashMap::new(),
                leases: BTreeMap::new(),
                nodes: HashMap::new(),
                killed: HashSet::new(),
                latency: Duration::from_micros(400),
                subscribe_calls: 0,
                position_calls: 0,
                log: Vec::new(),
                epochs: 0,
            }),
        })
    }

    pub(crate) fn set_faults(&self, faults: SimFaults) {
        self.state.lock().faults = faults;
    }

    /// The streams of channels whose names start with this cannot be read: they are on a server that is away.
    pub(crate) fn set_dead(&self, dead: Option<&'static str>) {
        self.state.lock().dead = dead;
    }

    pub(crate) fn set_presence_delay(&self, delay: Duration) {
        self.state.lock().presence_delay = delay;
    }

    /// Joins or leaves are sent this late from now on.
    pub(crate) fn delay_announcements(&self, kind: MembershipKind, delay: Duration) {
        self.state.lock().late_announcements = Some((kind, delay));
    }

    /// How long each call takes from now on. It has its effect after half of the time.
    pub(crate) fn set_latency(&self, latency: Duration) {
        self.state.lock().latency = latency;
    }

    /// Number of calls that subscribe or unsubscribe.
    pub(crate) fn subscribe_calls(&self) -> u64 {
        self.state.lock().subscribe_calls
    }

    /// Number of calls that read positions.
    pub(crate) fn position_calls(&self) -> u64 {
        self.state.lock().position_calls
    }

    /// Whether a node is subscribed to a channel.
    pub(crate) fn is_subscribed(&self, uid: &str, channel: &ChannelName) -> bool {
        let state = self.state.lock();
        let node = state.nodes.get(uid);
        node.is_some_and(|node| node.channels.contains(channel))
    }

    /// Takes the server away, or brings it back. Nodes notice, and connect again.
    pub(crate) fn set_down(&self, is_down: bool) {
        let mut state = self.state.lock();
        state.is_down = is_down;
        if is_down {
            state.nodes.clear();
        }
    }

    /// The process of a node is gone: it neither calls nor connects again.
    pub(crate) fn kill(&self, uid: &str) {
        let mut state = self.state.lock();
        state.nodes.remove(uid);
        state.killed.insert(uid.to_owned());
    }

    /// Fails over to a replica that has not received the newest publications of each channel. Those are lost, and all
    /// channels get new epochs.
    pub(crate) fn fail_over(&self, lost: usize) {
        let mut state = self.state.lock();
        state.nodes.clear();
        state.keys.clear();
        state.presence.clear();
        let State {
            streams, epochs, log, ..
        } = &mut *state;
        for (channel, stream) in streams {
            let kept = stream.publications.len().saturating_sub(lost);
            stream.publications.truncate(kept);
            stream.top = stream.top.saturating_sub(lost as u64);
            *epochs += 1;
            stream.epoch = Epoch::new(format!("sim-{epochs}"));
            let kept = stream.publications.iter().map(|(_, publication)| LogEntry {
                channel: channel.clone(),
                position: Position {
                    epoch: stream.epoch.clone(),
                    offset: publication.offset,
                },
                payload: publication.payload.clone(),
            });
            log.extend(kept);
        }
    }

    /// Forgets the newest publications of each channel, but not the epochs: what must not happen.
    pub(crate) fn forget(&self, lost: usize) {
        let mut state = self.state.lock();
        for stream in state.streams.values_mut() {
            let kept = stream.publications.len().saturating_sub(lost);
            stream.publications.truncate(kept);
            stream.top = stream.top.saturating_sub(lost as u64);
        }
    }

    /// Everything that was ever stored.
    pub(crate) fn log(&self) -> Vec<LogEntry> {
        self.state.lock().log.clone()
    }
}

impl Stream {
    fn position(&self) -> Position {
        Position {
            epoch: self.epoch.clone(),
            offset: self.top,
        }
    }
}

impl State {
    fn chance(&mut self, percent: u32) -> bool {
        percent > 0 && self.rng.random_range(0..100) < percent
    }

    fn stream(&mut self, channel: &ChannelName, ttl: Duration) -> &mut Stream {
        let now = Instant::now();
        let is_expired = |stream: &Stream| now.duration_since(stream.used) >= 3 * ttl;
        if self.streams.get(channel).is_none_or(is_expired) {
            self.epochs += 1;
            let stream = Stream {
                epoch: Epoch::new(format!("sim-{}", self.epochs)),
                top: 0,
                publications: VecDeque::new(),
                version: None,
                used: now,
            };
            self.streams.insert(channel.clone(), stream);
        }
        let stream = self.streams.get_mut(channel).expect("inserted above");
        while let Some((at, _)) = stream.publications.front()
            && now.duration_since(*at) >= ttl
        {
            stream.publications.pop_front();
        }
        stream.used = now;
        stream
    }

    /// Sends an event to a node.
    fn send(&mut self, uid: &str, event: Event) {
        let is_stored = matches!(event, Event::Publication { epoch: Some(_), .. });
        if self.chance(self.faults.lost_events) || is_stored && self.chance(self.faults.lost_publications) {
            return;
        }
        let count = 1 + usize::from(self.chance(self.faults.repeated_events));
        let delay = match self.chance(self.faults.late_events) {
            true => Duration::from_millis(self.rng.random_range(1..100)),
            false => Duration::ZERO,
        };
        let Some(node) = self.nodes.get_mut(uid) else { return };
        node.newest = node.newest.max(Instant::now() + delay);
        for _ in 0..count {
            // Fails if the node has just stopped.
            let _ = node.events.send((node.newest, event.clone()));
        }
    }

    /// Sends an event to the nodes that are subscribed to its channel.
    fn spread(&mut self, channel: &ChannelName, event: &Event) {
        let subscribed = self.nodes.iter().filter(|(_, node)| node.channels.contains(channel));
        let mut uids: Vec<_> = subscribed.map(|(uid, _)| uid.clone()).collect();
        // The order must not depend on the hash.
        uids.sort();
        for uid in uids {
            self.send(&uid, event.clone());
        }
    }

    fn publish(&mut self, channel: &ChannelName, publish: StorePublish) -> StorePublished {
        let now = Instant::now();
        let key = publish.idempotency_key.map(|key| (channel.clone(), key));
        if let Some((at, position)) = key.as_ref().and_then(|key| self.keys.get(key))
            && now.duration_since(*at) < KEY_TTL
        {
            return StorePublished {
                position: position.clone(),
                outcome: PublishOutcome::Duplicate,
            };
        }
        let mut stored = StoredPublication {
            offset: 0,
            previous: 0,
            time_ms: publish.time_ms,
            payload: publish.payload,
        };
        let mut position = Position::none();
        if let Some(limits) = publish.limits {
            let stream = self.stream(channel, limits.ttl);
            if let (Some(new), Some(known)) = (&publish.version, &stream.version)
                && new.epoch == known.epoch
                && new.number <= known.number
            {
                return StorePublished {
                    position: stream.position(),
                    outcome: PublishOutcome::Suppressed,
                };
            }
            stream.version = publish.version.or(stream.version.take());
            stored.previous = stream.top;
            stream.top += 1;
            stored.offset = stream.top;
            stream.publications.push_back((now, stored.clone()));
            let excess = stream.publications.len().saturating_sub(limits.count_max);
            stream.publications.drain(..excess);
            position = stream.position();
            self.log.push(LogEntry {
                channel: channel.clone(),
                position: position.clone(),
                payload: stored.payload.clone(),
            });
        }
        if let Some(key) = key {
            self.keys.insert(key, (now, position.clone()));
        }
        let event = Event::Publication {
            channel: channel.clone(),
            epoch: (stored.offset > 0).then(|| position.epoch.clone()),
            publication: stored,
        };
        self.spread(channel, &event);
        StorePublished {
            position,
            outcome: PublishOutcome::Delivered,
        }
    }

    fn read(&mut self, channel: &ChannelName, query: HistoryQuery, limits: HistoryLimits) -> StoredPage {
        let stream = self.stream(channel, limits.ttl);
        let all = stream.publications.iter().map(|(_, publication)| publication);
        let publications = match (query.is_reversed, query.since) {
            (false, since) => all
                .filter(|publication| publication.offset > since.unwrap_or(0))
                .take(query.limit)
                .cloned()
                .collect(),
            (true, since) => all
                .rev()
                .filter(|publication| publication.offset < since.unwrap_or(u64::MAX))
                .take(query.limit)
                .cloned()
                .collect(),
        };
        StoredPage {
            publications,
            top: stream.position(),
        }
    }
}

impl SimStore {
    pub(crate) fn new(server: &Arc<SimServer>, uid: &str) -> Arc<Self> {
        Arc::new(Self {
            server: server.clone(),
            uid: uid.to_owned(),
            inbox: Mutex::default(),
        })
    }

    /// Breaks the connection of this node. It connects again.
    pub(crate) fn cut(&self) {
        self.server.state.lock().nodes.remove(&self.uid);
    }

    /// Reports that events of unknown channels were dropped, as if a buffer had been full.
    pub(crate) fn report_loss(&self) {
        if let Some(inbox) = &*self.inbox.lock() {
            inbox.mark_all_dirty();
        }
    }

    fn fail_if_dead<T: Send + 'static>(&self, channel: &ChannelName) -> Option<StoreFuture<'static, T>> {
        let dead = self.server.state.lock().dead?;
        channel.as_str().starts_with(dead).then(|| -> StoreFuture<'static, T> {
            Box::pin(async {
                sleep(Duration::from_micros(200)).await;
                Err(StoreError::Unavailable("simulated".into()))
            })
        })
    }

    /// Makes a call that may fail.
    fn call<T: Send + 'static>(&self, call: impl FnOnce(&mut State) -> T + Send + 'static) -> StoreFuture<'_, T> {
        Box::pin(async move {
            let latency = self.server.state.lock().latency;
            sleep(latency / 2).await;
            let failed = || Err(StoreError::Unavailable("simulated".into()));
            let result = {
                let mut state = self.server.state.lock();
                let failed_calls = state.faults.failed_calls;
                if state.is_down || !state.nodes.contains_key(&self.uid) || state.chance(failed_calls) {
                    return failed();
                }
                let result = call(&mut state);
                let lost_answers = state.faults.lost_answers;
                (!state.chance(lost_answers)).then_some(result)
            };
            sleep(latency / 2).await;
            result.map_or_else(failed, Ok)
        })
    }
}

/// Connects a node for ever, and passes events to its inbox.
async fn run(server: Arc<SimServer>, uid: String, inbox: Arc<Inbox>) {
    loop {
        sleep(Duration::from_millis(20)).await;
        let (events, mut received) = mpsc::unbounded_channel();
        {
            let mut state = server.state.lock();
            if state.killed.contains(&uid) {
                return;
            }
            if state.is_down {
                drop(state);
                inbox.disconnected("simulated");
                continue;
            }
            let connected = Connected {
                channels: inbox.subscriptions().into_iter().collect(),
                events,
                newest: Instant::now(),
            };
            state.nodes.insert(uid.clone(), connected);
        }
        inbox.connected();
        while let Some((at, event)) = received.recv().await {
            sleep_until(at).await;
            inbox.push(event);
        }
        inbox.disconnected("simulated");
    }
}

impl Store for SimStore {
    fn start(&self, inbox: Arc<Inbox>) {
        *self.inbox.lock() = Some(inbox.clone());
        tokio::spawn(run(self.server.clone(), self.uid.clone(), inbox));
    }

    fn reconnect(&self) {
        self.cut();
    }

    fn subscribe<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, ()> {
        let (uid, channel) = (self.uid.clone(), channel.clone());
        self.call(move |state| {
            state.subscribe_calls += 1;
            let node = state.nodes.get_mut(&uid);
            node.map(|node| node.channels.insert(channel));
        })
    }

    fn unsubscribe<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, ()> {
        let (uid, channel) = (self.uid.clone(), channel.clone());
        self.call(move |state| {
            state.subscribe_calls += 1;
            let node = state.nodes.get_mut(&uid);
            node.map(|node| node.channels.remove(&channel));
        })
    }

    fn publish<'a>(&'a self, channel: &'a ChannelName, publish: StorePublish) -> StoreFuture<'a, StorePublished> {
        let channel = channel.clone();
        self.call(move |state| state.publish(&channel, publish))
    }

    fn announce<'a>(&'a self, channel: &'a ChannelName, membership: Membership) -> StoreFuture<'a, ()> {
        let channel = channel.clone();
        let late = self.server.state.lock().late_announcements;
        let delay = late.filter(|(kind, _)| *kind == membership.kind);
        let call = self.call(move |state| {
            let event = Event::Membership {
                channel: channel.clone(),
                membership,
            };
            state.spread(&channel, &event);
        });
        Box::pin(async move {
            if let Some((_, delay)) = delay {
                sleep(delay).await;
            }
            call.await
        })
    }

    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        query: HistoryQuery,
        limits: HistoryLimits,
    ) -> StoreFuture<'a, StoredPage> {
        if let Some(failed) = self.fail_if_dead(channel) {
            return failed;
        }
        let channel = channel.clone();
        self.call(move |state| state.read(&channel, query, limits))
    }

    fn remove_history<'a>(&'a self, channel: &'a ChannelName, limits: HistoryLimits) -> StoreFuture<'a, ()> {
        let channel = channel.clone();
        self.call(move |state| state.stream(&channel, limits.ttl).publications.clear())
    }

    fn positions<'a>(&'a self, channels: &'a [(ChannelName, HistoryLimits)]) -> StoreFuture<'a, Vec<Option<Position>>> {
        let channels = channels.to_vec();
        self.call(move |state| {
            state.position_calls += 1;
            let channels = channels.iter();
            channels
                .map(|(channel, limits)| {
                    let is_dead = state.dead.is_some_and(|dead| channel.as_str().starts_with(dead));
                    (!is_dead).then(|| state.stream(channel, limits.ttl).position())
                })
                .collect()
        })
    }

    fn replace_epoch<'a>(
        &'a self,
        channel: &'a ChannelName,
        _: HistoryLimits,
        seen: &'a Position,
    ) -> StoreFuture<'a, ()> {
        let (channel, lost) = (channel.clone(), seen.epoch.clone());
        self.call(move |state| {
            state.epochs += 1;
            let epoch = Epoch::new(format!("sim-{}", state.epochs));
            if let Some(stream) = state.streams.get_mut(&channel)
                && stream.epoch == lost
            {
                stream.epoch = epoch;
            }
        })
    }

    fn presence_put<'a>(&'a self, channel: &'a ChannelName, entry: PresenceEntry) -> StoreFuture<'a, ()> {
        let (uid, channel) = (self.uid.clone(), channel.clone());
        let call = self.call(move |state| {
            let entries = state.presence.entry(channel).or_default();
            let known = entries.get(&entry.client);
            if known.is_none_or(|(_, known)| known.generation <= entry.generation) {
                entries.insert(entry.client, (uid, entry));
            }
        });
        Box::pin(async move {
            let delay = self.server.state.lock().presence_delay;
            sleep(delay).await;
            call.await
        })
    }

    fn presence_remove<'a>(
        &'a self,
        channel: &'a ChannelName,
        client: ClientId,
        generation: Generation,
    ) -> StoreFuture<'a, ()> {
        let channel = channel.clone();
        self.call(move |state| {
            let entries = state.presence.entry(channel).or_default();
            if entries
                .get(&client)
                .is_some_and(|(_, known)| known.generation <= generation)
            {
                entries.remove(&client);
            }
        })
    }

    fn presence_read<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Vec<Bytes>> {
        let channel = channel.clone();
        self.call(move |state| {
            let entries = state.presence.entry(channel).or_default();
            entries.values().map(|(_, entry)| entry.info.clone()).collect()
        })
    }

    fn presence_count<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, (usize, usize)> {
        let channel = channel.clone();
        self.call(move |state| {
            let entries = state.presence.entry(channel).or_default();
            let users: HashSet<_> = entries.values().map(|(_, entry)| entry.user.clone()).collect();
            (entries.len(), users.len())
        })
    }

    fn renew_lease<'a>(&'a self, info: Bytes) -> StoreFuture<'a, bool> {
        let uid = self.uid.clone();
        self.call(move |state| {
            let until = Instant::now() + LEASE_TTL;
            let known = state.leases.insert(uid, (until, info));
            known.is_some_and(|(until, _)| until > Instant::now())
        })
    }

    fn end_lease(&self) -> StoreFuture<'_, ()> {
        let uid = self.uid.clone();
        self.call(move |state| drop(state.leases.remove(&uid)))
    }

    fn nodes(&self) -> StoreFuture<'_, Vec<NodeEntry>> {
        self.call(move |state| {
            let leases = state.leases.iter();
            leases
                .filter(|(_, (until, _))| *until > Instant::now())
                .map(|(uid, (_, info))| NodeEntry {
                    uid: uid.clone(),
                    info: info.clone(),
                })
                .collect()
        })
    }

    fn remove_expired_presence(&self) -> StoreFuture<'_, usize> {
        self.call(move |state| {
            let now = Instant::now();
            let alive: HashSet<_> = state
                .leases
                .iter()
                .filter(|(_, (until, _))| *until > now)
                .map(|(uid, _)| uid.clone())
                .collect();
            let mut removed = Vec::new();
            for (channel, entries) in &mut state.presence {
                entries.retain(|_, (uid, entry)| {
                    let is_alive = alive.contains(uid);
                    if !is_alive {
                        removed.push((channel.clone(), entry.clone()));
                    }
                    is_alive
                });
            }
            let count = removed.len();
            removed.sort_by_key(|(channel, entry)| (channel.clone(), entry.client));
            for (channel, entry) in removed {
                if entry.announces_leave {
                    let membership = Membership {
                        kind: MembershipKind::Leave,
                        info: entry.info,
                    };
                    let event = Event::Membership {
                        channel: channel.clone(),
                        membership,
                    };
                    state.spread(&channel, &event);
                }
            }
            count
        })
    }

    fn send_control<'a>(&'a self, to: Option<&'a str>, payload: Bytes) -> StoreFuture<'a, ()> {
        let to = to.map(str::to_owned);
        self.call(move |state| {
            let mut uids: Vec<_> = match to {
                Some(uid) => vec![uid],
                None => state.nodes.keys().cloned().collect(),
            };
            uids.sort();
            for uid in uids {
                state.send(&uid, Event::Control(payload.clone()));
            }
        })
    }
}

impl std::fmt::Debug for SimStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimStore")
            .field("uid", &self.uid)
            .finish_non_exhaustive()
    }
}
