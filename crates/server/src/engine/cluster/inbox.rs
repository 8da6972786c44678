//! The way of events from the store to the hub.
//!
//! The task that reads from the store must never wait, or the server closes its connection. So [`Inbox::push`] puts each event
//! into the lane of its channel, and a task per lane delivers them. Lanes are bounded. If an event finds no room, or does not
//! continue the channel, the channel is suspended: further events of it are kept, the stream is read, and then both are
//! delivered. The other channels of the lane go on.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use super::super::{ChannelPositions, Continuity, Epoch, Position, Publication, record};
use super::store::{Event, MembershipKind, StoredPublication};
use crate::channel::ChannelName;

/// Number of lanes, each with a task.
pub(super) const LANES: usize = 16;

/// Maximum size of the events in a lane.
const LANE_BYTES_MAX: usize = 4 << 20;

/// Maximum size of the events of a suspended channel. Beyond it, the stream is read again.
const SUSPENDED_BYTES_MAX: usize = 256 << 10;

/// Maximum number of control messages that wait to be executed.
const CONTROL_MAX: usize = 4096;

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
    /// Channels that were suspended, to be caught up. Unbounded, but each channel is in it at most once.
    suspended: mpsc::UnboundedSender<ChannelName>,
    connections: AtomicU64,
    overflows: AtomicU64,
    suspensions: AtomicU64,
}

/// The receiving ends of an [`Inbox`].
#[derive(Debug)]
pub(super) struct Received {
    pub(super) control: mpsc::Receiver<Bytes>,
    pub(super) suspended: mpsc::UnboundedReceiver<ChannelName>,
}

/// The state of the connection to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
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
    events: Vec<Event>,
    bytes: usize,
    /// Whether events were dropped, so that the stream must be read again.
    has_overflowed: bool,
}

/// What [`Inbox::resume`] did.
#[derive(Debug)]
pub(super) enum Resumed {
    /// The channel is not suspended any more.
    Resumed,
    /// Events were dropped, or do not continue the channel: read the stream again.
    ReadAgain,
}

impl Inbox {
    pub(super) fn new(deliver: Arc<dyn ChannelPositions>) -> (Arc<Self>, Received) {
        let (control, control_received) = mpsc::channel(CONTROL_MAX);
        let (suspended, suspended_received) = mpsc::unbounded_channel();
        let inbox = Self {
            deliver,
            lanes: (0..LANES).map(|_| Lane::default()).collect(),
            hasher: RandomState::new(),
            connection: watch::Sender::new(Connection::Disconnected("not connected yet".into())),
            control,
            suspended,
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
            Event::Publication { channel, .. } | Event::Membership { channel, .. } => channel.clone(),
        };
        let lane = self.lane(&channel);
        let mut state = lane.state.lock();
        if let Some(suspended) = state.suspended.get_mut(&channel) {
            suspended.push(event);
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
        // What is not in the stream cannot be read again.
        if matches!(event, Event::Publication { epoch: Some(_), .. }) {
            let suspended = Suspended {
                has_overflowed: true,
                ..Suspended::default()
            };
            self.suspend(&mut state, &channel, suspended);
        }
    }

    /// The channels to which this node is to be subscribed.
    pub(crate) fn subscriptions(&self) -> Vec<ChannelName> {
        self.deliver.channels()
    }

    /// The connection was made, and this node is subscribed to [`subscriptions`](Self::subscriptions). The positions of all
    /// channels are compared with their streams.
    pub(crate) fn connected(&self) {
        self.connection.send_modify(|connection| {
            *connection = Connection::Connected(self.connections.fetch_add(1, Ordering::Relaxed));
        });
    }

    /// The connection was lost: from now on, calls fail at once.
    pub(crate) fn disconnected(&self, reason: &str) {
        self.connection.send_if_modified(|connection| {
            let was_connected = matches!(connection, Connection::Connected(_));
            *connection = Connection::Disconnected(reason.into());
            was_connected
        });
    }

    /// Events of this channel may have been lost: its stream is read.
    pub(crate) fn doubt(&self, channel: &ChannelName) {
        let mut state = self.lane(channel).state.lock();
        if let Some(suspended) = state.suspended.get_mut(channel) {
            suspended.has_overflowed = true;
        } else {
            self.suspend(&mut state, channel, Suspended::default());
        }
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

    fn suspend_with(&self, lane: &Lane, channel: &ChannelName, event: Option<Event>) {
        let mut state = lane.state.lock();
        match state.suspended.get_mut(channel) {
            Some(suspended) => event.into_iter().for_each(|event| suspended.push(event)),
            None => {
                let mut suspended = Suspended::default();
                event.into_iter().for_each(|event| suspended.push(event));
                // Later events of the channel, which are still in the lane, follow.
                let (mine, others): (VecDeque<_>, _) = std::mem::take(&mut state.events)
                    .into_iter()
                    .partition(|event| event.channel() == Some(channel));
                state.events = others;
                for event in mine {
                    state.bytes -= cost(&event);
                    suspended.push(event);
                }
                self.suspend(&mut state, channel, suspended);
            }
        }
    }

    fn suspend(&self, state: &mut LaneState, channel: &ChannelName, suspended: Suspended) {
        state.suspended.insert(channel.clone(), suspended);
        self.suspensions.fetch_add(1, Ordering::Relaxed);
        // Fails during a shutdown.
        let _ = self.suspended.send(channel.clone());
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
                if std::mem::take(&mut suspended.has_overflowed) {
                    suspended.clear();
                    return Resumed::ReadAgain;
                }
                if suspended.events.is_empty() {
                    state.suspended.remove(channel);
                    return Resumed::Resumed;
                }
                suspended.bytes = 0;
                std::mem::take(&mut suspended.events)
            };
            let mut has_gap = false;
            for event in events {
                if let Event::Publication {
                    epoch: Some(epoch),
                    publication,
                    ..
                } = &event
                {
                    has_gap |= self
                        .deliver
                        .continuity(channel, epoch, publication.offset, publication.previous)
                        == Continuity::Gap;
                    if has_gap {
                        // The next read has it.
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

/// Whether a node at `seen` has to read the stream, which is at `top`.
pub(super) fn is_doubtful(seen: &Position, top: &Position) -> bool {
    seen != top
}

impl Suspended {
    fn push(&mut self, event: Event) {
        if self.has_overflowed {
            return;
        }
        self.bytes += cost(&event);
        self.events.push(event);
        if self.bytes > SUSPENDED_BYTES_MAX && self.events.len() > 1 {
            self.clear();
            self.has_overflowed = true;
        }
    }

    fn clear(&mut self) {
        self.events = Vec::new();
        self.bytes = 0;
    }
}

impl Event {
    fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Publication { channel, .. } | Self::Membership { channel, .. } => Some(channel),
            Self::Control(_) => None,
        }
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
