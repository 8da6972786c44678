//! One shard of the streams: a map by name, with two orders.
//!
//! - By last use, for the memory budget: a doubly linked list through the slots, O(1) per use.
//! - By expiry, for the sweep: an ordered set, O(log n), changed only by the sweep and by the creation of a stream.
//!
//! No operation iterates over all streams. Evicted streams are returned to the caller, which drops them without the
//! lock.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::stream::Stream;
use crate::channel::ChannelName;

/// A stream with its own lock, so that the delivery of a publication does not block other channels.
pub(super) type SharedStream = Arc<Mutex<Stream>>;

#[derive(Debug)]
pub(super) struct Shard {
    by_name: HashMap<ChannelName, SlotId>,
    slots: Vec<Option<Slot>>,
    free: Vec<SlotId>,
    /// The ends of the list by last use.
    oldest: Option<SlotId>,
    newest: Option<SlotId>,
    due: BTreeSet<(Instant, SlotId)>,
    /// Numbers of evictions, by hash of the name: see [`evictions`](Self::evictions).
    evictions: Box<[u32]>,
}

type SlotId = u32;

#[derive(Debug)]
struct Slot {
    entry: Entry,
    due: Instant,
    older: Option<SlotId>,
    newer: Option<SlotId>,
}

/// A stream with its name and time of last use.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: ChannelName,
    pub(super) stream: SharedStream,
    /// Time of the last read or write.
    pub(super) used_at: Instant,
}

/// Number of counters, which take 4 KiB per shard. Channels without a stream that share a counter with an evicted
/// channel also get a new epoch.
const EVICTION_COUNTERS: usize = 1024;

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            by_name: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            oldest: None,
            newest: None,
            due: BTreeSet::new(),
            evictions: vec![0; EVICTION_COUNTERS].into_boxed_slice(),
        }
    }

    /// Finds a stream and makes it the most recently used.
    pub(super) fn find(&mut self, name: &ChannelName, now: Instant) -> Option<SharedStream> {
        let id = *self.by_name.get(name)?;
        self.touch(id, now);
        Some(self.slot(id).entry.stream.clone())
    }

    /// Adds a stream that the sweep examines at `due`. There must be no stream of this name.
    pub(super) fn insert(&mut self, name: ChannelName, stream: SharedStream, now: Instant, due: Instant) {
        debug_assert!(!self.by_name.contains_key(&name));
        let slot = Some(Slot {
            entry: Entry {
                name: name.clone(),
                stream,
                used_at: now,
            },
            due,
            older: None,
            newer: None,
        });
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as SlotId
            }
        };
        self.by_name.insert(name, id);
        self.due.insert((due, id));
        self.link_newest(id);
    }

    /// The least recently used stream.
    pub(super) fn oldest(&self) -> Option<&Entry> {
        let slot = self.slots[self.oldest? as usize].as_ref();
        slot.map(|slot| &slot.entry)
    }

    /// Marks the least recently used stream as used, because it is locked.
    pub(super) fn touch_oldest(&mut self, now: Instant) {
        if let Some(id) = self.oldest {
            self.touch(id, now);
        }
    }

    /// The stream that is due first, unless it is due later than `now`.
    pub(super) fn first_due(&self, now: Instant) -> Option<&Entry> {
        let (_, id) = self.due.first().filter(|(due, _)| *due <= now)?;
        self.slots[*id as usize].as_ref().map(|slot| &slot.entry)
    }

    /// Sets the next time of the stream that is due first.
    pub(super) fn reschedule_first(&mut self, due: Instant) {
        if let Some((_, id)) = self.due.pop_first() {
            self.slot(id).due = due;
            self.due.insert((due, id));
        }
    }

    /// Removes a stream, so that its channel gets a new epoch. `hash` is the hash of the name.
    pub(super) fn evict(&mut self, name: &ChannelName, hash: u64) {
        let Some(id) = self.by_name.remove(name) else { return };
        self.unlink(id);
        let due = self.slot(id).due;
        self.due.remove(&(due, id));
        self.slots[id as usize] = None;
        self.free.push(id);
        let counter = &mut self.evictions[counter(hash)];
        *counter = counter.wrapping_add(1);
    }

    /// A number that grows with each eviction of the channel whose name has this hash, and sometimes with evictions of
    /// other channels. The epoch of a channel without a stream is derived from it.
    pub(super) fn evictions(&self, hash: u64) -> u32 {
        self.evictions[counter(hash)]
    }

    /// Counts evictions from zero.
    pub(super) fn forget_evictions(&mut self) {
        self.evictions.fill(0);
    }

    /// Finds a stream without using it.
    pub(super) fn peek(&self, name: &str) -> Option<&SharedStream> {
        let id = *self.by_name.get(name)?;
        self.slots[id as usize].as_ref().map(|slot| &slot.entry.stream)
    }

    /// All streams with their names, in no particular order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().flatten().map(|slot| &slot.entry)
    }

    fn touch(&mut self, id: SlotId, now: Instant) {
        self.slot(id).entry.used_at = now;
        if self.newest != Some(id) {
            self.unlink(id);
            self.link_newest(id);
        }
    }

    fn link_newest(&mut self, id: SlotId) {
        let before = self.newest.replace(id);
        let slot = self.slot(id);
        (slot.older, slot.newer) = (before, None);
        match before {
            Some(before) => self.slot(before).newer = Some(id),
            None => self.oldest = Some(id),
        }
    }

    fn unlink(&mut self, id: SlotId) {
        let slot = self.slot(id);
        let (older, newer) = (slot.older, slot.newer);
        match older {
            Some(older) => self.slot(older).newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.slot(newer).older = older,
            None => self.newest = older,
        }
    }

    fn slot(&mut self, id: SlotId) -> &mut Slot {
        self.slots[id as usize].as_mut().expect("ids refer to occupied slots")
    }
}

fn counter(hash: u64) -> usize {
    (hash >> 32) as usize % EVICTION_COUNTERS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::engine::{Epoch, HistoryLimits};

    const LIMITS: HistoryLimits = HistoryLimits {
        count_max: 1,
        bytes_max: 1,
        ttl: Duration::ZERO,
    };

    /// A naive model: lists that are searched and sorted.
    #[derive(Default)]
    struct Model {
        /// Name, last use, and due time; the least recently used first.
        streams: Vec<(ChannelName, Instant, Instant)>,
    }

    impl Model {
        fn first_due(&self, now: Instant) -> Option<usize> {
            let due = (0..self.streams.len()).filter(|at| self.streams[*at].2 <= now);
            due.min_by_key(|at| self.streams[*at].2)
        }
    }

    #[test]
    fn a_shard_matches_a_naive_model() {
        let mut rng = StdRng::seed_from_u64(6455);
        for _ in 0..50 {
            let (mut shard, mut model) = (Shard::new(), Model::default());
            let mut now = Instant::now();
            for _ in 0..400 {
                now += Duration::from_millis(1);
                let n: u64 = rng.random_range(0..12);
                let name = ChannelName::new(&format!("c{n}")).unwrap();
                let at = model.streams.iter().position(|stream| stream.0 == name);
                match rng.random_range(0..6) {
                    0 | 1 => match (shard.find(&name, now), at) {
                        (Some(_), Some(at)) => {
                            let mut used = model.streams.remove(at);
                            used.1 = now;
                            model.streams.push(used);
                        }
                        (None, None) => {
                            let stream = Arc::new(Mutex::new(Stream::new(Epoch::new("e"), LIMITS)));
                            // Distinct due times, so that the order is unambiguous.
                            let due = now + Duration::from_nanos(rng.random_range(0..50) * 1_000_003);
                            if !model.streams.iter().any(|stream| stream.2 == due) {
                                shard.insert(name.clone(), stream, now, due);
                                model.streams.push((name, now, due));
                            }
                        }
                        other => panic!("{other:?}"),
                    },
                    2 => {
                        let before = shard.evictions(n << 32);
                        shard.evict(&name, n << 32);
                        assert_eq!(shard.evictions(n << 32) - before, u32::from(at.is_some()));
                        at.map(|at| model.streams.remove(at));
                    }
                    3 => {
                        shard.touch_oldest(now);
                        if !model.streams.is_empty() {
                            let mut spared = model.streams.remove(0);
                            spared.1 = now;
                            model.streams.push(spared);
                        }
                    }
                    _ => {
                        let (first, due) = (model.first_due(now), now + Duration::from_nanos(40_000_007));
                        let found = shard.first_due(now).map(|entry| entry.name.clone());
                        assert_eq!(found, first.map(|at| model.streams[at].0.clone()));
                        if let Some(at) = first
                            && !model.streams.iter().any(|stream| stream.2 == due)
                        {
                            shard.reschedule_first(due);
                            model.streams[at].2 = due;
                        }
                    }
                }
                let oldest = shard.oldest().map(|entry| (entry.name.clone(), entry.used_at));
                assert_eq!(oldest, model.streams.first().map(|first| (first.0.clone(), first.1)));
                assert_eq!(shard.by_name.len(), model.streams.len());
                assert_eq!(shard.due.len(), model.streams.len());
                assert!(shard.slots.len() <= 12);
            }
            // Compare the whole list, in both directions.
            while let Some(entry) = shard.oldest().cloned() {
                assert_eq!(entry.name, model.streams.remove(0).0);
                shard.evict(&entry.name, 0);
            }
            assert!(model.streams.is_empty() && shard.newest.is_none());
        }
    }
}
