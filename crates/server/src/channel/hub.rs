//! The subscribers of each channel, and the delivery of pushes to them.
//!
//! A push is encoded once per encoding and shared by all queues. The lock of the channel is buffered during delivery, so all subscribers
//! see the same order.
//!
//! A client subscribes in two steps, so that no publication is lost while the history is read. After [`Hub::subscribe`],
//! publications are buffered. [`Hub::activate`] queues the reply, then the buffered publications that are newer than the
//! reply; later publications are delivered directly. The reply is therefore always first.
//!
//! In channels with history, the hub checks the offsets once per channel, not once per client. If an offset is missing, all
//! subscribers with a positioned subscription are unsubscribed with "insufficient state", and recover.

use std::collections::HashMap;
use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sockeye::{Message, PreparedMessage};

use super::ChannelName;
use crate::codes::UnsubscribeCode;
use crate::config::SlowConsumer;
use crate::delta;
use crate::engine::{Deliver, Epoch, Position, Publication, Tags};
use crate::filter::Filter;
use crate::presence::{ClientId, ClientInfo, ClientMap, Generation, Subscription};
use crate::protocol::{Data, Encoding, Push, PushCache, PushTarget, Shape, WireData};
use crate::queue::{Item, Queue};

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
    /// What happens to publications while the client reads too slowly; `None` disconnects it. Otherwise each publication is
    /// sent as a whole also if the client accepts deltas, because the one before it may be missing.
    pub(crate) slow_consumer: Option<Arc<SlowConsumer>>,
}

/// Error: a publication was lost while the client subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap;

/// The channels and their subscribers.
pub(crate) struct Hub {
    shards: Box<[Mutex<ChannelMap>]>,
    hasher: RandomState,
    /// Number of publications that slow clients did not receive, because of the policies of their channels.
    dropped: AtomicU64,
}

type ChannelMap = HashMap<ChannelName, Arc<Mutex<Channel>>>;

#[derive(Debug, Default)]
struct Channel {
    subscribers: ClientMap<Subscriber>,
    /// The position of the newest publication, in a channel with history.
    position: Option<Position>,
    /// The newest publication, which deltas are made from. `None` if no subscriber wants deltas.
    newest: Option<Data>,
    /// Set when the last subscriber left and the channel was removed from the map.
    is_removed: bool,
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
    /// The pushes with their offsets, which are zero for pushes without one.
    pushes: Pushes,
    /// The epoch of the offsets.
    epoch: Option<Epoch>,
    bytes: usize,
    has_gap: bool,
}

const SHARDS: usize = 64;

/// Maximum size of buffered pushes. Beyond it the subscription fails, and the client retries.
const BUFFERED_BYTES_MAX: usize = 256 << 10;

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Number of publications that slow clients did not receive, because of the policies of their channels.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds a subscriber. Its pushes are buffered until [`activate`](Self::activate).
    pub(crate) fn subscribe(
        &self,
        subscription: &Subscription,
        client: ClientId,
        queue: Arc<Queue>,
        options: SubscriberOptions,
    ) {
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
                channel.subscribers.insert(client, waiting);
            }
        }
    }

    /// Queues the reply to the subscription, if there is one, and the buffered pushes after `from`.
    ///
    /// # Errors
    /// Returns [`Gap`] and queues nothing if the buffered publications do not continue `from`.
    pub(crate) fn activate(
        &self,
        name: &ChannelName,
        client: ClientId,
        reply: Option<Message>,
        from: Option<&Position>,
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
                let Some(subscriber) = channel.subscribers.get_mut(&client) else {
                    return Err(Gap);
                };
                subscriber.phase = Phase::live(after);
                if let Some(reply) = reply {
                    subscriber.queue.push(Item::Reply(reply));
                }
                for push in pushes.into_iter().filter_map(|(_, push)| push) {
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

    /// The channels with subscribers, and their number of subscribers.
    pub(crate) fn channels(&self) -> Vec<(ChannelName, usize)> {
        let mut channels = Vec::new();
        for shard in &self.shards {
            // Not counted under the lock of the shard: a channel may be locked for a whole delivery.
            let shard: Vec<_> = shard
                .lock()
                .iter()
                .map(|(name, channel)| (name.clone(), channel.clone()))
                .collect();
            channels.extend(
                shard
                    .into_iter()
                    .map(|(name, channel)| (name, channel.lock().subscribers.len())),
            );
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
            let encoding = subscriber.queue.encoding();
            let encode = || encoding.push(PushTarget::channel(name.as_str()), push);
            let push = cache.get(encoding, Shape::Plain, false, encode);
            subscriber.deliver(0, None, Item::Push(push.clone()));
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
            match channel.advance(epoch, publication.offset) {
                Advance::Next => {}
                Advance::Repeated => return,
                Advance::Gap => channel.unsubscribe_positioned(name, GapScope::All),
            }
        }
        let dropped = channel.deliver(name, publication, epoch);
        if dropped > 0 {
            self.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        }
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

/// Pushes with their offsets; `None` for a publication that the filter of the subscriber excludes.
type Pushes = Vec<(u64, Option<PreparedMessage>)>;

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
    /// Delivers a publication to all subscribers. Returns the number of publications that slow ones do not receive.
    fn deliver(&mut self, name: &ChannelName, publication: &Publication, epoch: Option<&Epoch>) -> usize {
        let mut dropped = 0;
        let mut encoder = PublicationEncoder {
            target: PushTarget::channel(name.as_str()),
            publication,
            previous: self.newest.take(),
            deltas: Default::default(),
            cache: PushCache::default(),
        };
        let mut has_deltas = false;
        let tags = publication.content.tags.as_deref();
        for subscriber in self.subscribers.values_mut() {
            has_deltas |= subscriber.options.delta;
            if !subscriber.is_interested(tags) {
                subscriber.skip(publication.offset, epoch);
                continue;
            }
            let shape = match subscriber.phase {
                _ if !subscriber.options.delta => Shape::Plain,
                Phase::Live { has_previous: true, .. } => Shape::Delta,
                _ => Shape::Complete,
            };
            let push = encoder.encode(subscriber.queue.encoding(), shape);
            let item = match &subscriber.options.slow_consumer {
                None => Item::Push(push.clone()),
                Some(policy) => Item::publication(push.clone(), policy, name, tags),
            };
            dropped += subscriber.deliver(publication.offset, epoch, item);
        }
        if has_deltas {
            self.newest = Some(publication.content.data.clone());
        }
        dropped
    }

    /// Adopts the epoch that a new subscriber has read. A changed epoch means that the history was evicted, so older
    /// subscribers are unsubscribed and recover.
    ///
    /// If the new epoch were treated as a gap of the new subscriber, all subscriptions would fail until the next publication.
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

    fn advance(&mut self, epoch: &Epoch, offset: u64) -> Advance {
        let position = Position {
            epoch: epoch.clone(),
            offset,
        };
        let Some(last) = self.position.replace(position) else {
            return Advance::Next;
        };
        if last.epoch != *epoch {
            for subscriber in self.subscribers.values_mut() {
                if let Phase::Live { after, .. } = &mut subscriber.phase {
                    // Offsets of different epochs are not comparable.
                    *after = 0;
                }
            }
            Advance::Gap
        } else if offset <= last.offset {
            self.position = Some(last);
            Advance::Repeated
        } else if offset > last.offset + 1 {
            Advance::Gap
        } else {
            Advance::Next
        }
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

/// Encodes a publication for many subscribers.
struct PublicationEncoder<'a> {
    target: PushTarget<'a>,
    publication: &'a Publication,
    /// The previous publication, from which deltas are made.
    previous: Option<Data>,
    /// The deltas of both encodings, each `Some(None)` if it would not be smaller than the data.
    deltas: [Option<Option<Vec<u8>>>; 2],
    cache: PushCache,
}

impl PublicationEncoder<'_> {
    fn encode(&mut self, encoding: Encoding, mut shape: Shape) -> &PreparedMessage {
        let (previous, next) = (self.previous.as_ref(), &self.publication.content.data);
        let deltas = &mut self.deltas[encoding as usize];
        if shape == Shape::Delta
            && deltas
                .get_or_insert_with(|| delta_between(encoding, previous?, next))
                .is_none()
        {
            shape = Shape::Complete;
        }
        let (target, publication) = (self.target, self.publication);
        self.cache.get(encoding, shape, false, || {
            let data = match shape {
                Shape::Plain => WireData::Plain(next),
                Shape::Complete => WireData::Complete(next),
                Shape::Delta => {
                    let delta = deltas.as_ref().and_then(|delta| delta.as_deref());
                    WireData::Delta(delta.unwrap_or_default().into())
                }
            };
            encoding.push(target, &Push::Pub(publication.wire_with(data)))
        })
    }
}

/// Returns the delta between two publications, or `None` if it would not be smaller.
fn delta_between(encoding: Encoding, previous: &Data, next: &Data) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Json => delta::create_text(&previous.to_json(), &next.to_json()).map(String::into_bytes),
        Encoding::Protobuf => delta::create(previous.as_bytes(), next.as_bytes()),
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
        pushes.retain(|(offset, _)| *offset == 0 || *offset > after);
        for (offset, _) in pushes.iter().filter(|(offset, _)| *offset != 0) {
            if positioned && *offset != after + 1 {
                return Err(Gap);
            }
            after = *offset;
        }
        Ok((after, pushes))
    }

    fn add(&mut self, offset: u64, epoch: Option<&Epoch>, push: Option<&PreparedMessage>) {
        self.bytes += push.map_or(size_of::<(u64, PreparedMessage)>(), |push| push.message().len());
        // A single push of any size is accepted; otherwise channels with large publications could not be subscribed to.
        let is_full = self.bytes > BUFFERED_BYTES_MAX && !self.pushes.is_empty();
        let is_other_epoch = epoch.is_some_and(|epoch| self.epoch.get_or_insert_with(|| epoch.clone()) != epoch);
        if is_full || is_other_epoch || self.has_gap {
            self.has_gap = true;
            self.pushes = Vec::new();
            return;
        }
        self.pushes.push((offset, push.cloned()));
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
    fn skip(&mut self, offset: u64, epoch: Option<&Epoch>) {
        if let Phase::Buffering(buffered) = &mut self.phase {
            buffered.add(offset, epoch, None);
        }
    }

    /// Returns the number of publications that the client does not receive because of this one.
    fn deliver(&mut self, offset: u64, epoch: Option<&Epoch>, item: Item) -> usize {
        match &mut self.phase {
            Phase::Live { after, .. } if offset != 0 && offset <= *after => 0,
            Phase::Live { has_previous, .. } => {
                // Pushes without an offset are joins and leaves: deltas need history.
                *has_previous |= self.options.delta && offset != 0 && self.options.slow_consumer.is_none();
                self.queue.push_counted(item)
            }
            Phase::Buffering(buffered) => {
                buffered.add(offset, epoch, item.message());
                0
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
mod tests {
    use super::*;
    use crate::engine::Content;
    use crate::protocol::Data;
    use crate::queue::Outgoing;

    const ALL: SubscriberOptions = SubscriberOptions {
        join_leave: true,
        positioned: true,
        delta: false,
        filter: None,
        slow_consumer: None,
    };

    struct Room {
        hub: Hub,
        name: ChannelName,
    }

    impl Room {
        fn new() -> Self {
            Self {
                hub: Hub::new(),
                name: ChannelName::new("room").unwrap(),
            }
        }

        fn join(&self, bits: u128, options: SubscriberOptions) -> Arc<Queue> {
            let queue = Arc::new(Queue::new(1 << 20, None));
            self.hub.subscribe(
                &self.subscription(1),
                ClientId::from_random(bits),
                queue.clone(),
                options,
            );
            queue
        }

        fn subscription(&self, generation: u64) -> Subscription {
            let mut subscription = Subscription {
                channel: self.name.clone(),
                generation: Generation::default(),
            };
            (0..generation).for_each(|_| subscription.generation = subscription.generation.next());
            subscription
        }

        fn release(&self, bits: u128, from: Option<Position>) -> Result<(), Gap> {
            self.hub.activate(
                &self.name,
                ClientId::from_random(bits),
                Some("reply".into()),
                from.as_ref(),
            )
        }

        fn say(&self, epoch: &str, offset: u64) {
            let content = Content {
                data: Data::json(offset.to_string()).unwrap(),
                info: None,
                tags: None,
            };
            let epoch = (offset > 0).then(|| Epoch::new(epoch));
            self.hub.publication(
                &self.name,
                &Publication {
                    content,
                    offset,
                    time_ms: 0,
                },
                epoch.as_ref(),
            );
        }
    }

    fn at(epoch: &str, offset: u64) -> Option<Position> {
        Some(Position {
            epoch: Epoch::new(epoch),
            offset,
        })
    }

    /// Removes all items of a queue. Returns offsets for publications, and the kind of other items.
    fn drain(queue: &Queue) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(outgoing) = queue.take() {
            seen.push(match outgoing {
                Outgoing::Frame(frame) => match frame.message().as_text().unwrap() {
                    text if text.contains("\"join\"") => "join".to_owned(),
                    text => match text.split_once("\"data\":") {
                        Some((_, data)) => data.split([',', '}']).next().unwrap().to_owned(),
                        None => text.to_owned(),
                    },
                },
                Outgoing::Unsubscribe(..) => "unsubscribed".to_owned(),
                Outgoing::Command(_) => "command".to_owned(),
                Outgoing::Answer(_) => "answer".to_owned(),
                Outgoing::Close(code) => code.to_string(),
            });
        }
        seen
    }

    #[test]
    fn the_reply_is_first_and_its_publications_are_not_repeated() {
        let room = Room::new();
        let queue = room.join(1, ALL);
        for offset in 4..=6 {
            room.say("e", offset);
        }
        assert_eq!(drain(&queue), [""; 0]);
        room.release(1, at("e", 5)).unwrap();
        room.say("e", 7);
        assert_eq!(drain(&queue), ["reply", "6", "7"]);
    }

    #[test]
    fn publications_covered_by_the_reply_are_skipped_later() {
        let room = Room::new();
        let early = room.join(1, ALL);
        room.release(1, at("e", 1)).unwrap();
        let late = room.join(2, ALL);
        room.release(2, at("e", 3)).unwrap();
        for offset in 2..=4 {
            room.say("e", offset);
        }
        assert_eq!(drain(&early), ["reply", "2", "3", "4"]);
        assert_eq!(drain(&late), ["reply", "4"]);
    }

    #[test]
    fn a_gap_unsubscribes_positioned_subscribers() {
        let room = Room::new();
        let strict = room.join(1, ALL);
        let loose = room.join(2, SubscriberOptions::default());
        for client in [1, 2] {
            room.release(client, at("e", 0)).unwrap();
        }
        for offset in [1, 2, 2, 4] {
            room.say("e", offset);
        }
        assert_eq!(drain(&strict), ["reply", "1", "2", "unsubscribed"]);
        assert_eq!(drain(&loose), ["reply", "1", "2", "4"]);
    }

    #[test]
    fn a_new_epoch_is_a_gap() {
        let room = Room::new();
        let strict = room.join(1, ALL);
        let loose = room.join(2, SubscriberOptions::default());
        for client in [1, 2] {
            room.release(client, at("old", 7)).unwrap();
        }
        room.say("new", 1);
        assert_eq!(drain(&strict), ["reply", "unsubscribed"]);
        assert_eq!(drain(&loose), ["reply", "1"]);
    }

    #[test]
    fn a_gap_between_subscribe_and_activate_is_an_error() {
        let room = Room::new();
        let _queue = room.join(1, ALL);
        room.say("e", 7);
        assert_eq!(room.release(1, at("e", 5)), Err(Gap));

        let room = Room::new();
        let _queue = room.join(1, ALL);
        room.say("new", 1);
        assert_eq!(room.release(1, at("old", 0)), Err(Gap));
    }

    /// The history was evicted, so a new subscriber reads an epoch that the hub does not know yet.
    #[test]
    fn a_channel_with_evicted_history_accepts_new_subscribers() {
        let room = Room::new();
        let old = room.join(1, ALL);
        room.say("old", 7);
        room.release(1, at("old", 7)).unwrap();
        let (first, second) = (room.join(2, ALL), room.join(3, ALL));
        room.release(2, at("new", 0)).unwrap();
        room.release(3, at("new", 0)).unwrap();
        assert_eq!(drain(&old), ["reply", "unsubscribed"]);
        room.say("new", 1);
        assert_eq!(drain(&old), [""; 0]);
        for queue in [first, second] {
            assert_eq!(drain(&queue), ["reply", "1"]);
        }
    }

    #[test]
    fn a_subscriber_that_is_not_activated_receives_nothing() {
        let room = Room::new();
        let queue = room.join(1, ALL);
        room.say("e", 7);
        assert_eq!(room.release(1, at("e", 5)), Err(Gap));
        room.say("e", 8);
        assert_eq!(drain(&queue), [""; 0]);
    }

    #[test]
    fn a_channel_without_history_delivers_everything() {
        let room = Room::new();
        let queue = room.join(1, ALL);
        room.say("", 0);
        room.release(1, None).unwrap();
        room.say("", 0);
        assert_eq!(drain(&queue), ["reply", "0", "0"]);
    }

    #[test]
    fn joins_are_delivered_on_request() {
        let room = Room::new();
        let curious = room.join(1, ALL);
        let busy = room.join(2, SubscriberOptions::default());
        for client in [1, 2] {
            room.release(client, None).unwrap();
        }
        let info = ClientInfo {
            client: ClientId::from_random(2),
            user: "".into(),
            conn_info: None,
            chan_info: None,
        };
        Deliver::join(&room.hub, &room.name, &info);
        assert_eq!(drain(&curious), ["reply", "join"]);
        assert_eq!(drain(&busy), ["reply"]);
    }

    /// A publication with tags, in a channel with history.
    fn publish(room: &Room, offset: u64, data: &str, tags: &[(&str, &str)]) {
        let tags: Tags = tags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let content = Content {
            data: Data::json(data).unwrap(),
            info: None,
            tags: (!tags.is_empty()).then(|| Arc::new(tags)),
        };
        let publication = Publication {
            content,
            offset,
            time_ms: 0,
        };
        room.hub.publication(&room.name, &publication, Some(&Epoch::new("e")));
    }

    fn texts(queue: &Queue) -> Vec<String> {
        let frames = std::iter::from_fn(|| match queue.take()? {
            Outgoing::Frame(frame) => Some(frame),
            other => panic!("{other:?}"),
        });
        frames
            .map(|frame| frame.message().as_text().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_first_publication_of_a_delta_subscription_is_complete() {
        let room = Room::new();
        let options = SubscriberOptions { delta: true, ..ALL };
        let (deltas, plain) = (room.join(1, options), room.join(2, ALL));
        for client in [1, 2] {
            room.release(client, at("e", 0)).unwrap();
        }
        let long = |text: &str| format!("{{\"long\":\"{}{text}\"}}", "x".repeat(200));
        publish(&room, 1, &long("a"), &[]);
        publish(&room, 2, &long("b"), &[]);
        // Nothing in common: the data itself is smaller than a delta.
        publish(&room, 3, "1", &[]);
        let heard = texts(&deltas);
        assert!(
            heard[1].contains(r#""data":"{\"long\":"#) && !heard[1].contains("delta"),
            "{heard:?}"
        );
        assert!(
            heard[2].len() < 150 && heard[2].contains(r#""delta":true"#),
            "{heard:?}"
        );
        assert!(
            heard[3].contains(r#""data":"1""#) && !heard[3].contains("delta"),
            "{heard:?}"
        );
        assert!(texts(&plain)[2].contains(&long("b")));
    }

    #[test]
    fn a_filter_excludes_publications_without_a_gap() {
        let room = Room::new();
        let node = serde_json::from_str(r#"{"key":"symbol","cmp":"eq","val":"A"}"#).unwrap();
        let filter = Some(Arc::new(Filter::new(&node).unwrap()));
        let queue = room.join(1, SubscriberOptions { filter, ..ALL });
        publish(&room, 1, "1", &[("symbol", "B")]);
        publish(&room, 2, "2", &[("symbol", "A")]);
        room.release(1, at("e", 0)).unwrap();
        publish(&room, 3, "3", &[]);
        publish(&room, 4, "4", &[("symbol", "A")]);
        assert_eq!(drain(&queue), ["reply", "2", "4"]);
    }

    #[test]
    fn a_publication_is_encoded_for_each_subscriber() {
        let room = Room::new();
        let queue = Arc::new(Queue::new(1 << 20, None).with_encoding(Encoding::Protobuf));
        let client = ClientId::from_random(1);
        room.hub.subscribe(&room.subscription(1), client, queue.clone(), ALL);
        room.release(1, at("e", 0)).unwrap();
        queue.take().unwrap();
        publish(&room, 1, "7", &[]);
        let Some(Outgoing::Frame(frame)) = queue.take() else {
            panic!("no publication")
        };
        let expect = [
            &[15, 4 << 3 | 2, 13][..],
            &[2 << 3 | 2, 4],
            b"room",
            // Publication: data and offset.
            &[4 << 3 | 2, 5, 4 << 3 | 2, 1, b'7', 6 << 3, 1],
        ];
        assert_eq!(crate::protocol::bytes(frame.message()), expect.concat());
    }

    #[test]
    fn a_channel_is_removed_with_its_last_subscriber() {
        let room = Room::new();
        let _queue = room.join(1, ALL);
        assert!(room.hub.has_subscribers(&room.name));
        room.hub.unsubscribe(&room.subscription(1), ClientId::from_random(2));
        assert!(room.hub.has_subscribers(&room.name));
        // A newer subscription is not ended.
        room.hub.unsubscribe(&room.subscription(0), ClientId::from_random(1));
        assert!(room.hub.has_subscribers(&room.name));
        room.hub.unsubscribe(&room.subscription(1), ClientId::from_random(1));
        assert!(!room.hub.has_subscribers(&room.name));
        let queue = room.join(1, ALL);
        room.release(1, None).unwrap();
        assert_eq!(drain(&queue), ["reply"]);
    }

    #[test]
    fn buffered_publications_are_limited_in_size() {
        let room = Room::new();
        let _queue = room.join(1, ALL);
        let content = Content {
            data: Data::json(format!("\"{}\"", "x".repeat(60_000))).unwrap(),
            info: None,
            tags: None,
        };
        for _ in 0..10 {
            let publication = Publication {
                content: content.clone(),
                offset: 0,
                time_ms: 0,
            };
            room.hub.publication(&room.name, &publication, None);
        }
        assert_eq!(room.release(1, None), Err(Gap));
    }
}
