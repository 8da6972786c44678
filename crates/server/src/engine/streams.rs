//! The streams of all channels, within one memory budget.
//!
//! The first publication creates the stream of a channel. Without a stream, reading the history does not create one: the
//! channel is at offset 0 of an epoch that is derived from its name and its number of evictions. The next publication
//! continues this epoch, so a client that has read the empty history can recover from it.
//!
//! Lock order: shard, then stream. A thread that holds the lock of a shard never waits for a stream, because the lock of a
//! stream is held during delivery. A bounded number of streams is examined per lock of a shard.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::shard::{Entry, Shard, SharedStream};
use super::stream::{STREAM_BYTES, Stream, StreamLimits};
use super::{Content, Deliver, Epoch, History, HistoryQuery, Position, Publication};
use crate::channel::ChannelName;

/// All streams; see the module documentation.
pub(super) struct Streams {
    shards: Box<[Mutex<Shard>]>,
    /// Last use of the least recently used stream of each shard, in nanoseconds since `started`; [`NONE`] if empty.
    oldest: Box<[AtomicU64]>,
    started: Instant,
    hasher: RandomState,
    limits: StreamLimits,
    /// Accounted size of all streams.
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Number of streams evicted for the budget since it was last logged.
    evicted: AtomicU64,
}

const SHARDS: usize = 64;

const NONE: u64 = u64::MAX;

/// Streams that the sweep examines per lock of a shard.
const SWEEP_BATCH: usize = 32;

/// Delay before the sweep examines a stream again that was locked, or that is empty and has subscribers.
const SWEEP_RETRY_DELAY: Duration = Duration::from_secs(30);

/// A publisher that finds this many locked streams in a row gives up; the publishers that hold them enforce the budget.
const BUSY_MAX: usize = 8;

impl Streams {
    pub(super) fn new(limits: StreamLimits, bytes_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect(),
            oldest: (0..SHARDS).map(|_| AtomicU64::new(NONE)).collect(),
            started: Instant::now(),
            hasher: RandomState::new(),
            limits,
            bytes: AtomicUsize::new(0),
            bytes_max,
            evicted: AtomicU64::new(0),
        }
    }

    /// Numbers, stores and delivers a publication, then enforces the budget.
    pub(super) fn append(
        &self,
        channel: &ChannelName,
        content: Content,
        time_ms: u64,
        deliver: impl FnOnce(&Publication, &Epoch),
    ) {
        let now = Instant::now();
        loop {
            let stream = self.find_or_create(channel, now);
            let mut stream = stream.lock();
            if stream.is_evicted() {
                continue;
            }
            let before = stream.bytes();
            let publication = stream.append(content, time_ms, now, self.limits);
            deliver(&publication, stream.epoch());
            self.account(before, stream.bytes());
            break;
        }
        self.enforce_budget();
    }

    /// Reads a part of a channel's history.
    pub(super) fn read(&self, channel: &ChannelName, query: HistoryQuery) -> History {
        let now = Instant::now();
        loop {
            let stream = match self.find(channel, now) {
                Ok(stream) => stream,
                Err(epoch) => {
                    return History {
                        publications: Vec::new(),
                        top: Position { epoch, offset: 0 },
                    };
                }
            };
            let mut stream = stream.lock();
            if stream.is_evicted() {
                continue;
            }
            let before = stream.bytes();
            let history = stream.read(query, now, self.limits.ttl);
            self.account(before, stream.bytes());
            return history;
        }
    }

    /// Frees expired publications, and evicts empty streams without subscribers.
    pub(super) fn sweep(&self, deliver: &dyn Deliver) {
        let now = Instant::now();
        for index in 0..SHARDS {
            while self.sweep_batch(index, now, deliver) == SWEEP_BATCH {}
        }
        let evicted = self.evicted.swap(0, Ordering::Relaxed);
        if evicted > 0 {
            tracing::warn!(
                evicted,
                "history exceeds limits.history_bytes_max; evicted the history of the least recently used channels"
            );
        }
    }

    /// Accounted size of all streams.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether a channel has a stream. Does not count as use.
    #[cfg(test)]
    pub(super) fn has(&self, channel: &ChannelName) -> bool {
        self.shard(self.hash(channel)).1.has(channel)
    }

    /// Returns the stream of a channel, or the epoch if there is none.
    fn find(&self, channel: &ChannelName, now: Instant) -> Result<SharedStream, Epoch> {
        let hash = self.hash(channel);
        let (index, mut shard) = self.shard(hash);
        let found = shard.find(channel, now);
        self.update_oldest(index, &shard);
        found.ok_or_else(|| epoch(hash, &shard))
    }

    fn find_or_create(&self, channel: &ChannelName, now: Instant) -> SharedStream {
        let hash = self.hash(channel);
        let (index, mut shard) = self.shard(hash);
        let stream = shard.find(channel, now).unwrap_or_else(|| {
            let stream = Arc::new(Mutex::new(Stream::new(epoch(hash, &shard))));
            self.account(0, STREAM_BYTES);
            let due = after(now, self.limits.ttl);
            shard.insert(channel.clone(), stream.clone(), now, due);
            stream
        });
        self.update_oldest(index, &shard);
        stream
    }

    /// Evicts the least recently used streams until the rest fit the budget. Without a low-water mark, each publisher only
    /// evicts as much as it has added.
    fn enforce_budget(&self) {
        let mut busy = 0;
        while self.bytes.load(Ordering::Relaxed) > self.bytes_max && busy < BUSY_MAX {
            let oldest = (0..SHARDS).map(|index| (self.oldest[index].load(Ordering::Relaxed), index));
            match oldest.min() {
                None | Some((NONE, _)) => break,
                Some((_, index)) => match self.evict_oldest(index) {
                    true => busy = 0,
                    false => busy += 1,
                },
            }
        }
    }

    /// Returns whether a stream was evicted.
    fn evict_oldest(&self, index: usize) -> bool {
        let mut shard = self.shards[index].lock();
        let evicted = shard.oldest().cloned().and_then(|entry| {
            let evicted = self.evict(&mut shard, &entry);
            if evicted.is_none() {
                shard.touch_oldest(Instant::now());
            }
            evicted
        });
        self.update_oldest(index, &shard);
        drop(shard);
        self.evicted.fetch_add(u64::from(evicted.is_some()), Ordering::Relaxed);
        evicted.is_some()
    }

    /// Evicts a stream. Returns its publications, to be dropped without the lock, or `None` if the stream is locked.
    fn evict(&self, shard: &mut Shard, entry: &Entry) -> Option<impl Sized + use<>> {
        let mut stream = entry.stream.try_lock()?;
        self.account(stream.bytes(), 0);
        shard.evict(&entry.name, self.hash(&entry.name));
        Some(stream.evict())
    }

    /// Examines up to [`SWEEP_BATCH`] due streams of a shard, and returns their number.
    fn sweep_batch(&self, index: usize, now: Instant, deliver: &dyn Deliver) -> usize {
        let mut garbage = Vec::new();
        let mut evicted = Vec::new();
        let mut count = 0;
        let mut shard = self.shards[index].lock();
        while count < SWEEP_BATCH
            && let Some(entry) = shard.first_due(now).cloned()
        {
            count += 1;
            let Some(mut stream) = entry.stream.try_lock() else {
                shard.reschedule_first(now + SWEEP_RETRY_DELAY);
                continue;
            };
            let before = stream.bytes();
            garbage.push(stream.expire(now, self.limits.ttl));
            self.account(before, stream.bytes());
            let next = stream.oldest_at().map(|at| after(at, self.limits.ttl));
            drop(stream);
            let unused_at = after(entry.used_at, self.limits.ttl);
            match next {
                Some(next) => shard.reschedule_first(next),
                // Keep the empty stream with its epoch and offset, because a client may still recover from it.
                None if unused_at > now => shard.reschedule_first(unused_at),
                None if deliver.has_subscribers(&entry.name) => shard.reschedule_first(now + SWEEP_RETRY_DELAY),
                None => match self.evict(&mut shard, &entry) {
                    Some(publications) => evicted.push(publications),
                    None => shard.reschedule_first(now + SWEEP_RETRY_DELAY),
                },
            }
        }
        self.update_oldest(index, &shard);
        drop(shard);
        count
    }

    fn account(&self, before: usize, after: usize) {
        // The difference may be negative: wrapping addition then subtracts.
        self.bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    fn update_oldest(&self, index: usize, shard: &Shard) {
        let nanos = shard.oldest().map_or(NONE, |entry| {
            let since = entry.used_at.duration_since(self.started);
            u64::try_from(since.as_nanos()).unwrap_or(NONE - 1)
        });
        // Store only on change: every publisher over the budget reads this cache line.
        if self.oldest[index].load(Ordering::Relaxed) != nanos {
            self.oldest[index].store(nanos, Ordering::Relaxed);
        }
    }

    fn hash(&self, channel: &ChannelName) -> u64 {
        self.hasher.hash_one(channel.as_str())
    }

    fn shard(&self, hash: u64) -> (usize, MutexGuard<'_, Shard>) {
        let index = hash as usize % SHARDS;
        (index, self.shards[index].lock())
    }
}

/// The epoch of a channel without a stream, and of its next stream. It differs from all earlier epochs of the channel.
fn epoch(hash: u64, shard: &Shard) -> Epoch {
    Epoch::new(format!("{:08x}", (hash as u32).wrapping_add(shard.evictions(hash))))
}

fn after(at: Instant, duration: Duration) -> Instant {
    const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    at.checked_add(duration).unwrap_or(at + YEARS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread;

    use super::*;
    use crate::presence::ClientInfo;
    use crate::protocol::Data;

    /// Has subscribers for every third channel, and records the newest offset of each epoch.
    #[derive(Default)]
    struct Listener {
        newest: Mutex<HashMap<(ChannelName, String), u64>>,
    }

    impl Deliver for Listener {
        fn has_subscribers(&self, channel: &ChannelName) -> bool {
            channel.as_str().len().is_multiple_of(3)
        }

        fn publication(&self, channel: &ChannelName, publication: &Publication, epoch: Option<&Epoch>) {
            let stream = (channel.clone(), epoch.unwrap().as_str().to_owned());
            let mut newest = self.newest.lock();
            let newest = newest.entry(stream).or_default();
            assert_eq!(publication.offset, *newest + 1, "{channel}");
            *newest = publication.offset;
        }

        fn join(&self, _: &ChannelName, _: &ClientInfo) {}

        fn leave(&self, _: &ChannelName, _: &ClientInfo) {}
    }

    /// With concurrent threads, the offsets of each stream have no gap, no epoch occurs twice, and the accounted size is the
    /// actual one.
    #[test]
    fn concurrent_publish_read_and_sweep_are_consistent() {
        let limits = StreamLimits {
            count_max: 5,
            bytes_max: 8 << 10,
            ttl: Duration::from_micros(300),
        };
        let streams = Streams::new(limits, 24 << 10);
        let listener = Listener::default();
        let work = &|seed: u64| {
            for n in 0..3_000u64 {
                let number = (n * (2 * seed + 1) * 7_919) % 97;
                let channel = ChannelName::new(&format!("{}{number}", "c".repeat(number as usize % 4))).unwrap();
                let data = format!("\"{}\"", "x".repeat(number as usize * 10));
                match n % 8 {
                    0 => streams.sweep(&listener),
                    1 | 2 => {
                        let query = HistoryQuery {
                            limit: 9,
                            ..Default::default()
                        };
                        let history = streams.read(&channel, query);
                        assert!(history.publications.len() <= 5);
                    }
                    _ => {
                        let content = Content {
                            data: Data::json(data).unwrap(),
                            info: None,
                            tags: None,
                        };
                        streams.append(&channel, content, 0, |publication, epoch| {
                            listener.publication(&channel, publication, Some(epoch));
                        });
                    }
                }
            }
        };
        thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || work(seed));
            }
        });
        // The last publisher may have given up on locked streams.
        streams.enforce_budget();
        assert!(streams.bytes() <= 24 << 10);
        let mut weighed = 0;
        for index in 0..SHARDS {
            let mut shard = streams.shards[index].lock();
            while let Some(entry) = shard.oldest().cloned() {
                weighed += entry.stream.lock().bytes();
                let hash = streams.hash(&entry.name);
                shard.evict(&entry.name, hash);
            }
        }
        assert_eq!(streams.bytes(), weighed);
    }
}
