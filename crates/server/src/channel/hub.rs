//! The subscribers of each channel, and the delivery of pushes to them.
//!
//! A push is encoded once per encoding and shared by all queues. The channel's lock is held during delivery, so all
//! subscribers see the same order.
//!
//! A client subscribes in two steps, so that no publication is lost while the history is read. After
//! [`Hub::subscribe`], publications are buffered. [`Hub::activate`] queues the reply, then the buffered publications
//! that are newer than the reply; later publications are delivered directly. The reply is therefore always first.
//!
//! In channels with history, the hub checks the offsets once per channel, not once per client. If an offset is missing,
//! all subscribers with a positioned subscription are unsubscribed with "insufficient state", and recover. The
//! same happens to a slow subscriber of which the [queue](crate::queue) drops a publication.

mod encoder;

use std::collections::HashMap;
use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sockeye::{Message, PreparedMessage};

use self::encoder::{PublicationEncoder, target};
use super::ChannelName;
use crate::codes::UnsubscribeCode;
use crate::config::SlowConsumerPolicy;
use crate::engine::{ChannelPositions, Continuity, Deliver, Epoch, Position, Publication, Tags};
use crate::filter::Filter;
use crate::ids::{ClientId, ClientMap, Generation, Subscription};
use crate::presence::ClientInfo;
use crate::protocol::{Data, Push, PushCache, PushTarget, Shape};
use crate::queue::{Dropped, Item, Queue};

/// Options of a subscription.
#[derive(Clone, Debug, Default)]
pub(crate) struct SubscriberOptions {
    /// Deliver join and leave pushes.
    pub(crate) join_leave: bool,
    /// End the subscription if a publication is lost, so that the client recovers.
    pub(crate) positioned: bool,
    /// Deliver publications as deltas.
    pub(crate) delta: bool,
    /// Deliver only publications with matching tags.
    pub(crate) filter: Option<Arc<Filter>>,
    /// What happens to publications while the client reads too slowly; `None` disconnects it. Otherwise each
    /// publication is sent as a whole also if the client accepts deltas, because the one before it may be missing.
    pub(crate) slow_consumer: Option<Arc<SlowConsumerPolicy>>,
    /// Do not count the subscriber, and drop joins and leaves if it is slow: a live view of an operator.
    pub(crate) is_hidden: bool,
    /// Pushes have the id of the channel instead of its name.
    pub(crate) by_id: bool,
}

/// Statistics of all channels.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HubStats {
    /// Channels with subscribers.
    pub(crate) channels: usize,
    pub(crate) subscriptions: usize,
    /// Publications passed to the queues of subscribers since the start.
    pub(crate) deliveries: u64,
    /// Publications that slow clients did not receive since the start, because of the policies of their channels.
    pub(crate) dropped: Dropped<u64>,
    /// How often positioned subscribers were unsubscribed since the start because they missed a publication: all those
    /// of a channel together, or a slow one.
    pub(crate) gaps: u64,
}

/// Error: a publication was lost while the client subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap;

/// The channels and their subscribers.
pub(crate) struct Hub {
    shards: Box<[Mutex<ChannelMap>]>,
    hasher: RandomState,
    /// The newest id of a channel.
    channel_ids: AtomicU64,
    deliveries: AtomicU64,
    /// Publications that slow clients did not receive, because of the policies of their channels.
    dropped: Dropped<AtomicU64>,
    gaps: AtomicU64,
}

type ChannelMap = HashMap<ChannelName, Arc<Mutex<Channel>>>;

#[derive(Debug, Default)]
struct Channel {
    subscribers: ClientMap<Subscriber>,
    /// Replaces the name in pushes to subscribers that want it. Zero if there was none yet.
    id: u64,
    /// The position of the newest publication, in a channel with history.
    position: Option<Position>,
    /// The newest publication, which deltas are made from. `None` if no subscriber wants deltas.
    newest: Option<Data>,
    /// Set when the last subscriber left and the channel was removed from the map.
    is_removed: bool,
    /// Whether a subscriber may be hidden.
    has_hidden: bool,
}

#[derive(Debug)]
struct Subscriber {
    queue: Arc<Queue>,
    generation: Generation,
    options: SubscriberOptions,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Between `subscribe` and `activate`.
    Buffering(Box<Buffered>),
    /// Publications with a higher offset are queued.
    Live {
        after: u64,
        /// Whether the client has received the previous publication, so that it can apply a delta.
        has_previous: bool,
    },
}

/// Pushes that arrived between `subscribe` and `activate`.
#[derive(Debug, Default)]
struct Buffered {
    pushes: Pushes,
    /// The epoch of the offsets.
    epoch: Option<Epoch>,
    bytes: usize,
    has_gap: bool,
}

/// Number of parts of a hub, each with a lock.
pub(crate) const SHARDS: usize = 64;

/// Maximum size of buffered pushes. Beyond it the subscription fails, and the client retries.
const BUFFERED_BYTES_MAX: usize = 256 << 10;

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            channel_ids: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            dropped: Dropped::default(),
            gaps: AtomicU64::new(0),
        }
    }

    /// Statistics of all channels. Takes time in proportion to the number of channels.
    pub(crate) fn stats(&self) -> HubStats {
        let dropped = self.dropped.load();
        let mut stats = HubStats {
            deliveries: self.deliveries.load(Ordering::Relaxed),
            dropped,
            gaps: self.gaps.load(Ordering::Relaxed) + dropped.ended_subscriptions,
            ..HubStats::default()
        };
        for shard in &self.shards {
            let shard: Vec<_> = shard.lock().values().cloned().collect();
            for channel in shard {
                let subscribers = channel.lock().count();
                stats.channels += usize::from(subscribers > 0);
                stats.subscriptions += subscribers;
            }
        }
        stats
    }

    /// Adds a subscriber. Its pushes are buffered until [`activate`](Self::activate). Returns the id of the channel, if
    /// pushes have it instead of the name. It is not reused when the channel is removed.
    pub(crate) fn subscribe(
        &self,
        subscription: &Subscription,
        client: ClientId,
        queue: Arc<Queue>,
        options: SubscriberOptions,
    ) -> Option<u64> {
        let by_id = options.by_id;
        let mut id = None;
        let Subscription {
            channel: name,
            generation,
        } = subscription;
        let mut subscriber = Some(Subscriber {
            queue,
            generation: *generation,
            options,
            phase: Phase::Buffering(Box::default()),
        });
        while let Some(waiting) = subscriber.take() {
            let channel = self.shard(name).lock().entry(name.clone()).or_default().clone();
            let mut channel = channel.lock();
            if channel.is_removed {
                // The last subscriber left concurrently; the next lookup creates a new channel.
                subscriber = Some(waiting);
            } else {
                channel.has_hidden |= waiting.options.is_hidden;
                channel.subscribers.insert(client, waiting);
                if by_id && channel.id == 0 {
                    channel.id = self.channel_ids.fetch_add(1, Ordering::Relaxed) + 1;
                }
                id = by_id.then_some(channel.id);
            }
        }
        id
    }

    /// Queues the reply to the subscription, if there is one, and the buffered pushes after `from`. `base` is the data
    /// of the last publication in the reply, from which the next one may be sent as a delta.
    ///
    /// # Errors
    /// Returns [`Gap`] and queues nothing if the buffered publications do not continue `from`.
    pub(crate) fn activate(
        &self,
        name: &ChannelName,
        client: ClientId,
        reply: Option<Message>,
        from: Option<&Position>,
        base: Option<&Data>,
    ) -> Result<(), Gap> {
        let channel = self.channel(name).ok_or(Gap)?;
        let mut channel = channel.lock();
        let subscriber = channel.subscribers.get_mut(&client).ok_or(Gap)?;
        let after = from.map_or(0, |from| from.offset);
        let Phase::Buffering(buffered) = std::mem::replace(&mut subscriber.phase, Phase::live(after)) else {
            debug_assert!(false, "activated twice");
            return Ok(());
        };
        let positioned = subscriber.options.positioned;
        match buffered.pushes_after(positioned, from) {
            Ok((after, pushes)) => {
                if let Some(from) = from {
                    channel.adopt_epoch(name, client, from);
                }
                let has_numbered = pushes
                    .iter()
                    .any(|push| push.numbering.offset != 0 && push.message.is_some());
                let knows_newest = has_numbered || channel.is_newest(base, from);
                let Some(subscriber) = channel.subscribers.get_mut(&client) else {
                    return Err(Gap);
                };
                subscriber.phase = Phase::Live {
                    after,
                    has_previous: subscriber.options.delta && knows_newest,
                };
                if let Some(reply) = reply {
                    subscriber.queue.push(Item::Reply(reply));
                }
                for push in pushes.into_iter().filter_map(|push| push.message) {
                    subscriber.queue.push(Item::Push(push));
                }
                Ok(())
            }
            Err(gap) => {
                // The client must not receive pushes of a subscription that failed.
                channel.subscribers.remove(&client);
                Err(gap)
            }
        }
    }

    /// Removes a subscriber, unless it has a newer subscription.
    pub(crate) fn unsubscribe(&self, subscription: &Subscription, client: ClientId) {
        let Subscription {
            channel: name,
            generation,
        } = subscription;
        let Some(channel) = self.channel(name) else { return };
        let is_empty = {
            let mut channel = channel.lock();
            let known = channel.subscribers.get(&client);
            if known.is_some_and(|subscriber| subscriber.generation <= *generation) {
                channel.subscribers.remove(&client);
            }
            if channel.subscribers.len() < channel.subscribers.capacity() / 4 {
                channel.subscribers.shrink_to_fit();
            }
            channel.subscribers.is_empty()
        };
        if is_empty {
            self.remove_if_empty(name);
        }
    }

    /// Ends the subscription of a client to one channel. The client receives the code as a push and leaves presence.
    pub(crate) fn end_subscription(&self, name: &ChannelName, client: ClientId, code: UnsubscribeCode) {
        let Some(channel) = self.channel(name) else { return };
        let is_empty = {
            let mut channel = channel.lock();
            if let Some(subscriber) = channel.subscribers.remove(&client) {
                let subscription = Subscription {
                    channel: name.clone(),
                    generation: subscriber.generation,
                };
                let target = PushTarget::channel(name.as_str());
                let push = subscriber.queue.encoding().push(target, &Push::Unsubscribe(code));
                let push = PreparedMessage::new(push);
                subscriber.queue.push(Item::Unsubscribe(subscription, code, push));
            }
            channel.subscribers.is_empty()
        };
        if is_empty {
            self.remove_if_empty(name);
        }
    }

    /// The channels of one part of the hub with numbered publications, and the position of the newest one. See
    /// [`SHARDS`].
    pub(crate) fn shard_positions(&self, shard: usize) -> Vec<(ChannelName, Position)> {
        // Not under the lock of the shard: a channel may be locked for a whole delivery.
        let shard = self.shards[shard].lock();
        let channels: Vec<_> = shard
            .iter()
            .map(|(name, channel)| (name.clone(), channel.clone()))
            .collect();
        drop(shard);
        let positions = channels.into_iter().filter_map(|(name, channel)| {
            let position = channel.lock().position.clone()?;
            Some((name, position))
        });
        positions.collect()
    }

    /// The channels with subscribers, and their number of subscribers.
    pub(crate) fn subscriber_counts(&self) -> Vec<(ChannelName, usize)> {
        let mut channels = Vec::new();
        for shard in &self.shards {
            // Not counted under the lock of the shard: a channel may be locked for a whole delivery.
            let shard: Vec<_> = shard
                .lock()
                .iter()
                .map(|(name, channel)| (name.clone(), channel.clone()))
                .collect();
            channels.extend(shard.into_iter().map(|(name, channel)| (name, channel.lock().count())));
        }
        channels.retain(|(_, subscribers)| *subscribers > 0);
        channels
    }

    fn remove_if_empty(&self, name: &ChannelName) {
        let mut shard = self.shard(name).lock();
        let Some(channel) = shard.get(name).cloned() else {
            return;
        };
        let mut channel = channel.lock();
        if channel.subscribers.is_empty() {
            channel.is_removed = true;
            shard.remove(name);
        }
    }

    fn channel(&self, name: &ChannelName) -> Option<Arc<Mutex<Channel>>> {
        self.shard(name).lock().get(name).cloned()
    }

    fn shard(&self, name: &ChannelName) -> &Mutex<ChannelMap> {
        name.shard(&self.shards, &self.hasher)
    }

    fn notify_members(&self, name: &ChannelName, push: &Push<'_>) {
        let Some(channel) = self.channel(name) else { return };
        let mut channel = channel.lock();
        let id = channel.id;
        let mut interested = channel
            .subscribers
            .values_mut()
            .filter(|subscriber| subscriber.options.join_leave)
            .peekable();
        if interested.peek().is_none() {
            return;
        }
        let mut cache = PushCache::default();
        for subscriber in interested {
            let (encoding, by_id) = (subscriber.queue.encoding(), subscriber.options.by_id);
            let encode = || encoding.push(target(name, id, by_id), push);
            let push = cache.get(encoding, Shape::Plain, by_id, encode);
            let item = match subscriber.options.is_hidden {
                true => Item::Droppable(push.clone(), None),
                false => Item::Push(push.clone()),
            };
            subscriber.deliver(Numbering::default(), None, item);
        }
    }
}

impl Deliver for Hub {
    fn has_subscribers(&self, name: &ChannelName) -> bool {
        self.shard(name).lock().contains_key(name)
    }

    fn publication(&self, name: &ChannelName, publication: &Publication, epoch: Option<&Epoch>) {
        let Some(channel) = self.channel(name) else { return };
        let mut channel = channel.lock();
        if let Some(epoch) = epoch {
            match channel.advance(epoch, publication) {
                Advance::Next => {}
                Advance::Repeated => return,
                Advance::Gap => {
                    self.gaps.fetch_add(1, Ordering::Relaxed);
                    channel.unsubscribe_positioned(name, GapScope::All);
                }
            }
        }
        let (deliveries, dropped) = channel.deliver(name, publication, epoch);
        self.deliveries.fetch_add(deliveries as u64, Ordering::Relaxed);
        self.dropped.add(dropped);
        if channel.subscribers.is_empty() {
            drop(channel);
            self.remove_if_empty(name);
        }
    }

    fn join(&self, name: &ChannelName, info: &ClientInfo) {
        self.notify_members(name, &Push::join(info.wire()));
    }

    fn leave(&self, name: &ChannelName, info: &ClientInfo) {
        self.notify_members(name, &Push::leave(info.wire()));
    }
}

impl ChannelPositions for Hub {
    fn continuity(&self, name: &ChannelName, epoch: &Epoch, offset: u64, previous: u64) -> Continuity {
        let Some(channel) = self.channel(name) else {
            return Continuity::NoSubscribers;
        };
        let channel = channel.lock();
        match &channel.position {
            Some(last) if last.epoch == *epoch && offset <= last.offset => Continuity::Repeated,
            Some(last) if last.epoch == *epoch && previous > last.offset => Continuity::Gap,
            _ => Continuity::Next,
        }
    }

    fn position(&self, name: &ChannelName) -> Option<Position> {
        self.channel(name)?.lock().position.clone()
    }

    fn positions(&self) -> Vec<(ChannelName, Position)> {
        (0..SHARDS).flat_map(|shard| self.shard_positions(shard)).collect()
    }

    fn channels(&self) -> Vec<ChannelName> {
        let shards = self.shards.iter();
        shards
            .flat_map(|shard| shard.lock().keys().cloned().collect::<Vec<_>>())
            .collect()
    }

    fn catch_up(&self, name: &ChannelName, seen: &Position, top: &Position) -> bool {
        let Some(channel) = self.channel(name) else {
            return false;
        };
        let mut channel = channel.lock();
        if channel.position.as_ref() != Some(seen) || seen == top {
            return false;
        }
        self.gaps.fetch_add(1, Ordering::Relaxed);
        channel.set_position(top.clone());
        channel.newest = None;
        channel.unsubscribe_positioned(name, GapScope::All);
        if channel.subscribers.is_empty() {
            drop(channel);
            self.remove_if_empty(name);
        }
        true
    }
}

/// Pushes that wait for the activation of their subscriber.
type Pushes = Vec<BufferedPush>;

/// The offset of a publication and of the one before it; both zero for a push that is not a publication with an offset.
#[derive(Clone, Copy, Debug, Default)]
struct Numbering {
    offset: u64,
    previous: u64,
}

#[derive(Debug)]
struct BufferedPush {
    numbering: Numbering,
    /// `None` for a publication that the filter of the subscriber excludes.
    message: Option<PreparedMessage>,
}

/// Which subscribers are affected by a gap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GapScope {
    All,
    /// Only live subscribers: a buffering subscriber is checked against the history that it reads.
    Live,
}

/// How the offset of a publication relates to the previous one.
enum Advance {
    Next,
    /// The publication was already delivered.
    Repeated,
    /// At least one publication is missing, or the epoch changed.
    Gap,
}

impl Channel {
    /// Number of subscribers that are not hidden.
    fn count(&self) -> usize {
        match self.has_hidden {
            true => self
                .subscribers
                .values()
                .filter(|subscriber| !subscriber.options.is_hidden)
                .count(),
            false => self.subscribers.len(),
        }
    }

    /// Delivers a publication to all subscribers. Returns how many there are, and what slow ones do not receive.
    fn deliver(
        &mut self,
        name: &ChannelName,
        publication: &Publication,
        epoch: Option<&Epoch>,
    ) -> (usize, Dropped<usize>) {
        let (mut deliveries, mut dropped) = (0, Dropped::default());
        let mut encoder = PublicationEncoder {
            name,
            id: self.id,
            publication,
            previous: self.newest.take(),
            deltas: Default::default(),
            cache: PushCache::default(),
        };
        let mut has_deltas = false;
        let tags = publication.content.tags.as_deref();
        let numbering = Numbering {
            offset: publication.offset,
            previous: publication.previous,
        };
        for subscriber in self.subscribers.values_mut() {
            has_deltas |= subscriber.options.delta;
            if !subscriber.is_interested(tags) {
                subscriber.skip(numbering, epoch);
                continue;
            }
            let shape = match subscriber.phase {
                _ if !subscriber.options.delta => Shape::Plain,
                Phase::Live { has_previous: true, .. } => Shape::Delta,
                _ => Shape::Complete,
            };
            let push = encoder.encode(subscriber.queue.encoding(), shape, subscriber.options.by_id);
            let item = match &subscriber.options.slow_consumer {
                None => Item::Push(push.clone()),
                Some(policy) => {
                    let is_positioned = subscriber.options.positioned && publication.offset != 0;
                    let positioned = is_positioned.then_some(subscriber.generation);
                    Item::publication(push.clone(), policy, name, tags, positioned)
                }
            };
            let lost = subscriber.deliver(numbering, epoch, item);
            if !subscriber.options.is_hidden {
                deliveries += 1;
                dropped += lost;
            }
        }
        if has_deltas {
            self.newest = Some(publication.content.data.clone());
        }
        (deliveries, dropped)
    }

    /// Whether this data, of the publication at a position, is the newest one of the channel, which deltas are made
    /// from.
    fn is_newest(&mut self, data: Option<&Data>, position: Option<&Position>) -> bool {
        let Some(data) = data else { return false };
        if self.newest.is_none() && self.position.as_ref() == position {
            self.newest = Some(data.clone());
        }
        self.newest.as_ref() == Some(data)
    }

    /// Adopts the epoch that a new subscriber has read. A changed epoch means that the history was evicted, so older
    /// subscribers are unsubscribed and recover.
    ///
    /// If the new epoch were treated as a gap of the new subscriber, all subscriptions would fail until the next
    /// publication.
    fn adopt_epoch(&mut self, name: &ChannelName, client: ClientId, from: &Position) {
        if self.position.as_ref().is_none_or(|last| last.epoch == from.epoch) {
            self.position.get_or_insert_with(|| from.clone());
            return;
        }
        self.position = Some(from.clone());
        let newcomer = self.subscribers.remove(&client);
        self.unsubscribe_positioned(name, GapScope::Live);
        if let Some(newcomer) = newcomer {
            self.subscribers.insert(client, newcomer);
        }
    }

    fn advance(&mut self, epoch: &Epoch, publication: &Publication) -> Advance {
        let Publication { offset, previous, .. } = *publication;
        let position = Position {
            epoch: epoch.clone(),
            offset,
        };
        let Some(last) = self.set_position(position) else {
            return Advance::Next;
        };
        if last.epoch != *epoch {
            Advance::Gap
        } else if offset <= last.offset {
            self.position = Some(last);
            Advance::Repeated
        } else if previous > last.offset {
            Advance::Gap
        } else {
            Advance::Next
        }
    }

    /// Sets the position of the newest publication. Returns the one before.
    fn set_position(&mut self, position: Position) -> Option<Position> {
        let last = self.position.replace(position.clone())?;
        if last.epoch != position.epoch {
            for subscriber in self.subscribers.values_mut() {
                if let Phase::Live { after, .. } = &mut subscriber.phase {
                    // Offsets of different epochs are not comparable.
                    *after = 0;
                }
            }
        }
        Some(last)
    }

    /// Ends all positioned subscriptions, so that the clients recover.
    fn unsubscribe_positioned(&mut self, name: &ChannelName, scope: GapScope) {
        tracing::debug!(channel = %name, "a publication is missing; unsubscribed all positioned subscribers");
        let push = Push::Unsubscribe(UnsubscribeCode::InsufficientState);
        let mut cache = PushCache::default();
        self.subscribers.retain(|_, subscriber| {
            if !subscriber.options.positioned {
                return true;
            }
            match &mut subscriber.phase {
                Phase::Buffering(buffered) => {
                    buffered.has_gap |= scope == GapScope::All;
                    true
                }
                Phase::Live { .. } => {
                    let subscription = Subscription {
                        channel: name.clone(),
                        generation: subscriber.generation,
                    };
                    let encoding = subscriber.queue.encoding();
                    let encode = || encoding.push(PushTarget::channel(name.as_str()), &push);
                    let push = cache.get(encoding, Shape::Plain, false, encode).clone();
                    subscriber.queue.push(Item::Unsubscribe(
                        subscription,
                        UnsubscribeCode::InsufficientState,
                        push,
                    ));
                    false
                }
            }
        });
    }
}

impl Phase {
    fn live(after: u64) -> Self {
        Self::Live {
            after,
            has_previous: false,
        }
    }
}

impl Buffered {
    /// Returns the buffered pushes after `from`, and the offset of the last one.
    fn pushes_after(self, positioned: bool, from: Option<&Position>) -> Result<(u64, Pushes), Gap> {
        if self.has_gap {
            return Err(Gap);
        }
        let mut pushes = self.pushes;
        let Some(from) = from else { return Ok((0, pushes)) };
        // It is unknown which of the two epochs is newer.
        if positioned && self.epoch.is_some_and(|epoch| epoch != from.epoch) {
            return Err(Gap);
        }
        let mut after = from.offset;
        pushes.retain(|push| push.numbering.offset == 0 || push.numbering.offset > after);
        for Numbering { offset, previous } in pushes.iter().map(|push| push.numbering) {
            if offset == 0 {
                continue;
            }
            if positioned && previous > after {
                return Err(Gap);
            }
            after = offset;
        }
        Ok((after, pushes))
    }

    fn add(&mut self, numbering: Numbering, epoch: Option<&Epoch>, push: Option<&PreparedMessage>) {
        self.bytes += push.map_or(size_of::<BufferedPush>(), |push| push.message().len());
        // A single push of any size is accepted; otherwise channels with large publications could not be subscribed to.
        let is_full = self.bytes > BUFFERED_BYTES_MAX && !self.pushes.is_empty();
        let is_other_epoch = epoch.is_some_and(|epoch| self.epoch.get_or_insert_with(|| epoch.clone()) != epoch);
        if is_full || is_other_epoch || self.has_gap {
            self.has_gap = true;
            self.pushes = Vec::new();
            return;
        }
        self.pushes.push(BufferedPush {
            numbering,
            message: push.cloned(),
        });
    }
}

impl Subscriber {
    fn is_interested(&self, tags: Option<&Tags>) -> bool {
        match (&self.options.filter, tags) {
            (None, _) => true,
            (Some(filter), Some(tags)) => filter.matches(tags),
            (Some(filter), None) => filter.matches(&Tags::new()),
        }
    }

    /// Notes a publication that the filter of the subscriber excludes.
    fn skip(&mut self, numbering: Numbering, epoch: Option<&Epoch>) {
        if let Phase::Buffering(buffered) = &mut self.phase {
            buffered.add(numbering, epoch, None);
        }
    }

    /// Returns the publications that the client does not receive because of this one.
    fn deliver(&mut self, numbering: Numbering, epoch: Option<&Epoch>, item: Item) -> Dropped<usize> {
        let offset = numbering.offset;
        match &mut self.phase {
            Phase::Live { after, .. } if offset != 0 && offset <= *after => Dropped::default(),
            Phase::Live { has_previous, .. } => {
                // Pushes without an offset are joins and leaves: deltas need history.
                *has_previous |= self.options.delta && offset != 0 && self.options.slow_consumer.is_none();
                self.queue.push_counted(item)
            }
            Phase::Buffering(buffered) => {
                buffered.add(numbering, epoch, item.message());
                Dropped::default()
            }
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
