//! Bounded queues between the connection to the store and the hub.
//!
//! The task that reads from the store must never wait, or the server closes its connection. So [`Inbox::push`] puts
//! each event into the lane of its channel, and a task per lane delivers them. Lanes are bounded. If an event finds no
//! room, or does not continue the channel, the channel is suspended: further events of it are kept, the stream is read,
//! and then both are delivered. The other channels of the lane go on. If too many events are kept, those that the
//! stream has are dropped and read again. Joins, leaves and unstored publications are dropped only if they alone find
//! no room, which is counted.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, mpsc, watch};

use super::super::{ChannelPositions, Continuity, Epoch, Position, Publication, record};
use super::store::{Event, MembershipKind, StoredPublication};
use crate::channel::ChannelName;

/// Number of lanes, each with a task.
pub(super) const LANES: usize = 16;

/// Maximum size of the events in a lane.
const LANE_BYTES_MAX: usize = 4 << 20;

/// Maximum size of the events of a suspended channel. Beyond it, those that the stream has are dropped, and it is read
/// again.
const SUSPENDED_BYTES_MAX: usize = 256 << 10;

/// Maximum size of the events of all suspended channels together.
const ALL_SUSPENDED_BYTES_MAX: usize = 64 << 20;

/// Maximum number of control messages that wait to be executed.
const CONTROL_MAX: usize = 4096;

/// Number of probes that may arrive before a task that waits for one runs.
const PROBES_MAX: usize = 16;

/// Why a publication cannot be decoded.
pub(super) const UNREADABLE: &str = "a publication of the engine cannot be decoded, and its subscribers are told that they \
     miss one; does a newer node, or another program, write there?";

/// Accounted size of an event without its payload.
const EVENT_BYTES: usize = 128;

/// The events of a node that were received and not delivered yet.
pub(crate) struct Inbox {
    deliver: Arc<dyn ChannelPositions>,
    lanes: Box<[Lane]>,
    hasher: RandomState,
    connection: watch::Sender<Connection>,
    control: mpsc::Sender<Bytes>,
    /// The channel of [`Broker::probe`](super::super::Broker::probe). Its publications do not go to the hub.
    probe_channel: ChannelName,
    probes: broadcast::Sender<Bytes>,
    /// Channels that were suspended, to be caught up. Unbounded, but each channel is in it at most once.
    suspended: mpsc::UnboundedSender<Suspension>,
    /// Size of the events of all suspended channels.
    suspended_bytes: AtomicUsize,
    /// Counts the requests to compare all positions.
    verifications: watch::Sender<u64>,
    connections: AtomicU64,
    overflows: AtomicU64,
    suspensions: AtomicU64,
}

/// The receiving ends of an [`Inbox`].
#[derive(Debug)]
pub(super) struct Received {
    pub(super) control: mpsc::Receiver<Bytes>,
    pub(super) suspended: mpsc::UnboundedReceiver<Suspension>,
}

/// A channel whose stream is to be read.
#[derive(Debug)]
pub(super) struct Suspension {
    pub(super) channel: ChannelName,
    /// How often reading it has failed.
    pub(super) failures: u32,
}

/// The state of the connection to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// The first attempt to connect has not ended.
    Starting,
    /// Connected, and subscribed to all channels with subscribers. Counts the connections.
    Connected(u64),
    Disconnected(Arc<str>),
}

#[derive(Default)]
struct Lane {
    state: Mutex<LaneState>,
    changed: Notify,
}

#[derive(Default)]
struct LaneState {
    events: VecDeque<Event>,
    bytes: usize,
    suspended: HashMap<ChannelName, Suspended>,
}

/// The events of a suspended channel.
#[derive(Default)]
struct Suspended {
    events: VecDeque<Event>,
    bytes: usize,
    /// Size of the events that the stream has, too.
    stored_bytes: usize,
    /// Whether the stream must be read again, because it may have publications that this node has not received.
    must_read_again: bool,
}

/// What [`Inbox::resume`] did.
#[derive(Debug)]
pub(super) enum Resumed {
    /// The channel is not suspended any more.
    Resumed,
    /// Publications are missing, or the channel has another epoch: read the stream again.
    ReadAgain,
}

impl Inbox {
    pub(super) fn new(deliver: Arc<dyn ChannelPositions>, probe_channel: ChannelName) -> (Arc<Self>, Received) {
        let (control, control_received) = mpsc::channel(CONTROL_MAX);
        let (suspended, suspended_received) = mpsc::unbounded_channel();
        let inbox = Self {
            deliver,
            lanes: (0..LANES).map(|_| Lane::default()).collect(),
            hasher: RandomState::new(),
            connection: watch::Sender::new(Connection::Starting),
            control,
            probe_channel,
            probes: broadcast::Sender::new(PROBES_MAX),
            suspended,
            suspended_bytes: AtomicUsize::new(0),
            verifications: watch::Sender::new(0),
            connections: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
            suspensions: AtomicU64::new(0),
        };
        let received = Received {
            control: control_received,
            suspended: suspended_received,
        };
        (Arc::new(inbox), received)
    }

    /// Takes an event. Never blocks. Events of one channel are delivered in the order of the calls.
    pub(crate) fn push(&self, event: Event) {
        let channel = match &event {
            Event::Control(payload) => {
                if self.control.try_send(payload.clone()).is_err() {
                    self.overflows.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
            Event::Publication {
                channel, publication, ..
            } if *channel == self.probe_channel => {
                // Fails if no probe waits.
                let _ = self.probes.send(publication.payload.clone());
                return;
            }
            Event::Publication { channel, .. } | Event::Membership { channel, .. } => channel.clone(),
        };
        let lane = self.lane(&channel);
        let mut state = lane.state.lock();
        if let Some(suspended) = state.suspended.get_mut(&channel) {
            self.keep(suspended, event);
            return;
        }
        let cost = cost(&event);
        if state.bytes + cost <= LANE_BYTES_MAX || state.events.is_empty() {
            state.bytes += cost;
            state.events.push_back(event);
            drop(state);
            lane.changed.notify_one();
            return;
        }
        self.overflows.fetch_add(1, Ordering::Relaxed);
        // Joins, leaves and unstored publications are not in the stream: they are dropped.
        if event.is_stored() {
            self.suspend(&mut state, &channel).must_read_again = true;
        }
    }

    /// The channels to which this node is to be subscribed.
    pub(crate) fn subscriptions(&self) -> Vec<ChannelName> {
        let mut channels = self.deliver.channels();
        channels.push(self.probe_channel.clone());
        channels
    }

    pub(super) fn probe_channel(&self) -> &ChannelName {
        &self.probe_channel
    }

    /// The payloads of the publications in [`probe_channel`](Self::probe_channel) that arrive from now on.
    pub(super) fn probes(&self) -> broadcast::Receiver<Bytes> {
        self.probes.subscribe()
    }

    /// The connection was made, and this node is subscribed to [`subscriptions`](Self::subscriptions). The positions of
    /// all channels are compared with their streams.
    pub(crate) fn connected(&self) {
        self.connection.send_modify(|connection| {
            *connection = Connection::Connected(self.connections.fetch_add(1, Ordering::Relaxed));
        });
    }

    /// The connection was lost, or could not be made: from now on, calls fail at once.
    pub(crate) fn disconnected(&self, reason: &str) {
        self.connection.send_if_modified(|connection| {
            let was_disconnected = matches!(connection, Connection::Disconnected(_));
            *connection = Connection::Disconnected(reason.into());
            !was_disconnected
        });
    }

    /// Events of this channel may have been lost: suspends it until its stream is read.
    pub(crate) fn mark_dirty(&self, channel: &ChannelName) {
        let mut state = self.lane(channel).state.lock();
        match state.suspended.get_mut(channel) {
            Some(suspended) => suspended.must_read_again = true,
            None => drop(self.suspend(&mut state, channel)),
        }
    }

    /// Events of any channel may have been lost: the positions of all channels are compared with their streams.
    pub(crate) fn mark_all_dirty(&self) {
        self.verifications.send_modify(|count| *count += 1);
    }

    /// The requests of [`mark_all_dirty`](Self::mark_all_dirty).
    pub(super) fn verifications(&self) -> watch::Receiver<u64> {
        self.verifications.subscribe()
    }

    /// The state of the connection, and its changes.
    pub(super) fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(*self.connection.borrow(), Connection::Connected(_))
    }

    pub(super) fn deliver(&self) -> &dyn ChannelPositions {
        &*self.deliver
    }

    /// Events that found no room since the start.
    pub(super) fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// How often the stream of a channel was read because events may have been missing, since the start.
    pub(super) fn suspensions(&self) -> u64 {
        self.suspensions.load(Ordering::Relaxed)
    }

    /// Delivers the events of a lane. Never returns.
    pub(super) async fn run_lane(&self, index: usize) {
        let lane = &self.lanes[index];
        loop {
            let event = {
                let mut state = lane.state.lock();
                let event = state.events.pop_front();
                if let Some(event) = &event {
                    state.bytes -= cost(event);
                }
                event
            };
            match event {
                Some(event) => self.dispatch(lane, event),
                None => lane.changed.notified().await,
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    fn dispatch(&self, lane: &Lane, event: Event) {
        if let Event::Publication {
            channel,
            epoch: Some(epoch),
            publication,
        } = &event
        {
            match self
                .deliver
                .continuity(channel, epoch, publication.offset, publication.previous)
            {
                Continuity::Next => {}
                Continuity::NoSubscribers => return,
                Continuity::Gap => {
                    self.suspend_with(lane, channel, Some(event.clone()));
                    return;
                }
                // Either it was sent twice, or the store has lost publications and gives their offsets to others.
                Continuity::Repeated => {
                    self.suspend_with(lane, channel, None);
                    return;
                }
            }
        }
        self.deliver_event(event);
    }

    /// Suspends the channel of an event that was just taken from its lane.
    fn suspend_with(&self, lane: &Lane, channel: &ChannelName, event: Option<Event>) {
        let mut state = lane.state.lock();
        let suspended = match state.suspended.get_mut(channel) {
            Some(suspended) => suspended,
            None => self.suspend(&mut state, channel),
        };
        if let Some(event) = event {
            // It is older than the others.
            if self.keep(suspended, event)
                && let Some(event) = suspended.events.pop_back()
            {
                suspended.events.push_front(event);
            }
        }
    }

    /// Suspends a channel that is not suspended. Its events move there from the lane, so that they keep their order.
    fn suspend<'a>(&self, state: &'a mut LaneState, channel: &ChannelName) -> &'a mut Suspended {
        let mut suspended = Suspended::default();
        if state.events.iter().any(|event| event.channel() == Some(channel)) {
            let (mine, others): (VecDeque<_>, _) = std::mem::take(&mut state.events)
                .into_iter()
                .partition(|event| event.channel() == Some(channel));
            state.events = others;
            for event in mine {
                state.bytes -= cost(&event);
                self.keep(&mut suspended, event);
            }
        }
        self.suspensions.fetch_add(1, Ordering::Relaxed);
        self.read_later(Suspension {
            channel: channel.clone(),
            failures: 0,
        });
        state.suspended.entry(channel.clone()).or_insert(suspended)
    }

    /// Has the stream of a suspended channel read after those of the others.
    pub(super) fn read_later(&self, suspension: Suspension) {
        // Fails during a shutdown.
        let _ = self.suspended.send(suspension);
    }

    /// Keeps an event of a suspended channel, if there is room. Returns whether there was.
    fn keep(&self, suspended: &mut Suspended, event: Event) -> bool {
        let (cost, is_stored) = (cost(&event), event.is_stored());
        let has_room = |suspended: &Suspended| {
            let all = self.suspended_bytes.load(Ordering::Relaxed);
            suspended.bytes + cost <= SUSPENDED_BYTES_MAX && all + cost <= ALL_SUSPENDED_BYTES_MAX
        };
        if !has_room(suspended) && suspended.stored_bytes > 0 {
            // The stream has them.
            suspended.must_read_again = true;
            suspended.events.retain(|event| !event.is_stored());
            self.suspended_bytes
                .fetch_sub(suspended.stored_bytes, Ordering::Relaxed);
            suspended.bytes -= suspended.stored_bytes;
            suspended.stored_bytes = 0;
        }
        if !has_room(suspended) {
            suspended.must_read_again |= is_stored;
            self.overflows.fetch_add(u64::from(!is_stored), Ordering::Relaxed);
            return false;
        }
        suspended.bytes += cost;
        suspended.stored_bytes += if is_stored { cost } else { 0 };
        self.suspended_bytes.fetch_add(cost, Ordering::Relaxed);
        suspended.events.push_back(event);
        true
    }

    /// The offset before the first kept publication of a suspended channel that is of this epoch.
    pub(super) fn offset_before(&self, channel: &ChannelName, epoch: &Epoch) -> Option<u64> {
        let state = self.lane(channel).state.lock();
        let kept = state.suspended.get(channel)?;
        kept.events.iter().find_map(|event| match event {
            Event::Publication {
                epoch: Some(of),
                publication,
                ..
            } if of == epoch => Some(publication.previous),
            _ => None,
        })
    }

    /// Delivers the kept events of a suspended channel whose stream was read, and ends the suspension.
    pub(super) async fn resume(&self, channel: &ChannelName) -> Resumed {
        let lane = self.lane(channel);
        loop {
            let events = {
                let mut state = lane.state.lock();
                let Some(suspended) = state.suspended.get_mut(channel) else {
                    return Resumed::Resumed;
                };
                if std::mem::take(&mut suspended.must_read_again) {
                    return Resumed::ReadAgain;
                }
                if suspended.events.is_empty() {
                    state.suspended.remove(channel);
                    return Resumed::Resumed;
                }
                let Suspended { events, bytes, .. } = std::mem::take(suspended);
                self.suspended_bytes.fetch_sub(bytes, Ordering::Relaxed);
                events
            };
            let mut has_gap = false;
            for event in events {
                if let Event::Publication {
                    epoch: Some(epoch),
                    publication,
                    ..
                } = &event
                {
                    // A late event of an epoch that has ended, or an early one of the next: the stream shows which.
                    let position = self.deliver.position(channel);
                    has_gap |= position.is_some_and(|position| position.epoch != *epoch);
                    let continuity = self
                        .deliver
                        .continuity(channel, epoch, publication.offset, publication.previous);
                    has_gap |= continuity == Continuity::Gap;
                    if has_gap || continuity == Continuity::Repeated {
                        // The next read has it, or the last one had.
                        continue;
                    }
                }
                self.deliver_event(event);
                tokio::task::coop::consume_budget().await;
            }
            if has_gap {
                return Resumed::ReadAgain;
            }
        }
    }

    /// Delivers a publication of a stream that was read.
    pub(super) fn deliver_stored(&self, channel: &ChannelName, epoch: &Epoch, stored: StoredPublication) {
        self.deliver_event(Event::Publication {
            channel: channel.clone(),
            epoch: Some(epoch.clone()),
            publication: stored,
        });
    }

    fn deliver_event(&self, event: Event) {
        match event {
            Event::Publication {
                channel,
                epoch,
                publication,
            } => self.deliver_publication(&channel, epoch, publication),
            Event::Membership { channel, membership } => match record::decode_client(&membership.info) {
                Some(info) => match membership.kind {
                    MembershipKind::Join => self.deliver.join(&channel, &info),
                    MembershipKind::Leave => self.deliver.leave(&channel, &info),
                },
                None => tracing::warn!(%channel, "a join or leave of the engine cannot be decoded"),
            },
            Event::Control(_) => {}
        }
    }

    fn deliver_publication(&self, channel: &ChannelName, epoch: Option<Epoch>, stored: StoredPublication) {
        let offset = stored.offset;
        if let Some(publication) = decode(stored) {
            self.deliver.publication(channel, &publication, epoch.as_ref());
            return;
        }
        tracing::warn!(%channel, offset, "{UNREADABLE}");
        if let (Some(epoch), Some(seen)) = (epoch, self.deliver.position(channel)) {
            self.deliver.catch_up(channel, &seen, &Position { epoch, offset });
        }
    }

    fn lane(&self, channel: &ChannelName) -> &Lane {
        &self.lanes[self.hasher.hash_one(channel.as_str()) as usize % self.lanes.len()]
    }
}

/// Decodes a publication of the store.
pub(super) fn decode(stored: StoredPublication) -> Option<Publication> {
    Some(Publication {
        content: record::decode(&stored.payload)?.content,
        offset: stored.offset,
        previous: stored.previous,
        time_ms: stored.time_ms,
    })
}

impl Event {
    fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Publication { channel, .. } | Self::Membership { channel, .. } => Some(channel),
            Self::Control(_) => None,
        }
    }

    /// Whether it is in the stream of its channel.
    fn is_stored(&self) -> bool {
        matches!(self, Self::Publication { epoch: Some(_), .. })
    }
}

fn cost(event: &Event) -> usize {
    let len = match event {
        Event::Publication { publication, .. } => publication.payload.len(),
        Event::Membership { membership, .. } => membership.info.len(),
        Event::Control(payload) => payload.len(),
    };
    EVENT_BYTES + len
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::Membership;
    use super::*;
    use crate::engine::tests::Recorder;
    use crate::ids::ClientId;
    use crate::presence::ClientInfo;

    fn inbox() -> (Arc<Inbox>, Arc<Recorder>, Received) {
        let recorder = Arc::new(Recorder::default());
        let (inbox, received) = Inbox::new(recorder.clone(), channel("probe"));
        (inbox, recorder, received)
    }

    fn channel(name: &str) -> ChannelName {
        ChannelName::new(name).unwrap()
    }

    fn membership(kind: MembershipKind, user: &str) -> Event {
        let info = ClientInfo {
            client: ClientId::from_random(1),
            user: user.into(),
            conn_info: None,
            chan_info: None,
        };
        Event::Membership {
            channel: channel("a"),
            membership: Membership {
                kind,
                info: record::encode_client(&info).into(),
            },
        }
    }

    fn publication(of: &str, offset: u64, len: usize) -> Event {
        Event::Publication {
            channel: channel(of),
            epoch: Some(Epoch::new("e")),
            publication: StoredPublication {
                offset,
                previous: offset - 1,
                time_ms: 0,
                payload: vec![0; len].into(),
            },
        }
    }

    #[tokio::test]
    async fn joins_survive_a_second_mark() {
        let (inbox, recorder, _received) = inbox();
        let name = channel("a");
        inbox.mark_dirty(&name);
        inbox.push(membership(MembershipKind::Join, "ada"));
        inbox.mark_dirty(&name);
        inbox.push(membership(MembershipKind::Leave, "ada"));
        assert!(matches!(inbox.resume(&name).await, Resumed::ReadAgain));
        assert!(matches!(inbox.resume(&name).await, Resumed::Resumed));
        assert_eq!(recorder.delivered(), ["a join ada", "a leave ada"]);
        assert_eq!(inbox.overflows(), 0);
    }

    #[tokio::test]
    async fn events_in_the_lane_are_not_overtaken() {
        let (inbox, recorder, _received) = inbox();
        let name = channel("a");
        inbox.push(membership(MembershipKind::Join, "ada"));
        inbox.mark_dirty(&name);
        inbox.push(membership(MembershipKind::Leave, "ada"));
        assert!(matches!(inbox.resume(&name).await, Resumed::Resumed));
        assert_eq!(recorder.delivered(), ["a join ada", "a leave ada"]);
        // A full lane, too.
        inbox.push(membership(MembershipKind::Join, "eve"));
        inbox.push(publication("a", 1, LANE_BYTES_MAX));
        inbox.push(membership(MembershipKind::Leave, "eve"));
        assert!(matches!(inbox.resume(&name).await, Resumed::ReadAgain));
        assert!(matches!(inbox.resume(&name).await, Resumed::Resumed));
        assert_eq!(recorder.delivered(), ["a join eve", "a leave eve"]);
    }

    #[tokio::test]
    async fn what_the_stream_has_makes_room_for_joins() {
        let (inbox, recorder, _received) = inbox();
        let name = channel("a");
        inbox.mark_dirty(&name);
        inbox.push(membership(MembershipKind::Join, "ada"));
        for offset in 1..100 {
            inbox.push(publication("a", offset, 10 << 10));
        }
        inbox.push(membership(MembershipKind::Leave, "ada"));
        assert!(inbox.suspended_bytes.load(Ordering::Relaxed) <= SUSPENDED_BYTES_MAX);
        assert!(matches!(inbox.resume(&name).await, Resumed::ReadAgain));
        while let Resumed::ReadAgain = inbox.resume(&name).await {}
        let delivered = recorder.delivered();
        assert_eq!(delivered, ["a join ada", "a leave ada"]);
        assert_eq!(inbox.overflows(), 0);
        assert_eq!(inbox.suspended_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_suspended_channels_keep_has_a_common_limit() {
        let (inbox, _recorder, _received) = inbox();
        let names: Vec<_> = (0..1000).map(|n| format!("c{n}")).collect();
        for name in &names {
            inbox.mark_dirty(&channel(name));
            inbox.push(publication(name, 1, 1));
            inbox.push(publication(name, 2, 200 << 10));
        }
        assert!(inbox.suspended_bytes.load(Ordering::Relaxed) <= ALL_SUSPENDED_BYTES_MAX);
        for name in &names {
            while let Resumed::ReadAgain = inbox.resume(&channel(name)).await {}
        }
        assert_eq!(inbox.suspended_bytes.load(Ordering::Relaxed), 0);
    }
}
