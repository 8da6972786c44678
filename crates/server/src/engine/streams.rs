//! The streams of all channels, within one memory budget.
//!
//! The first publication creates the stream of a channel. Without a stream, reading the history does not create one:
//! the channel is at offset 0 of an epoch that is derived from its name and its number of evictions. The next
//! publication continues this epoch, so a client that has read the empty history can recover from it.
//!
//! Lock order: shard, then stream. A thread that holds the lock of a shard never waits for a stream, because the lock
//! of a stream is held during delivery. A bounded number of streams is examined per lock of a shard.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::epochs::{self, Epochs};
use super::shard::{Entry, Shard, SharedStream};
use super::stream::{STREAM_BYTES, Serial, Stream};
use super::{Content, Deliver, Epoch, History, HistoryLimits, HistoryQuery, Position, Publication, Version};
use crate::channel::ChannelName;

/// All streams; see the module documentation.
pub(super) struct Streams {
    shards: Box<[Mutex<Shard>]>,
    /// Last use of the least recently used stream of each shard, in nanoseconds since `started`; [`NONE`] if empty.
    oldest: Box<[AtomicU64]>,
    started: Instant,
    hasher: RandomState,
    epochs: Epochs,
    /// Accounted size of all streams.
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Number of streams evicted for the budget since it was last logged.
    evicted: AtomicU64,
    /// Number of streams evicted for the budget since the start.
    evicted_total: AtomicU64,
    evictions: Evictions,
}

/// Whether streams may be evicted: with a log, only after the log has a note of that (see [`epochs`]).
#[derive(Debug)]
struct Evictions {
    are_allowed: AtomicBool,
    /// An eviction was refused.
    are_wanted: AtomicBool,
}

/// A publication that was not published, because the channel has this version already.
#[derive(Debug)]
pub(super) struct Suppressed(pub(super) Position);

const SHARDS: usize = 64;

const NONE: u64 = u64::MAX;

/// Streams that the sweep examines per lock of a shard.
const SWEEP_BATCH: usize = 32;

/// Delay before the sweep examines a stream again that was locked, or that is empty and has subscribers.
const SWEEP_RETRY_DELAY: Duration = Duration::from_secs(30);

/// A publisher that finds this many locked streams in a row gives up; the publishers that hold them enforce the budget.
const BUSY_MAX: usize = 8;

impl Streams {
    pub(super) fn new(bytes_max: usize, epochs: Epochs) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect(),
            oldest: (0..SHARDS).map(|_| AtomicU64::new(NONE)).collect(),
            started: Instant::now(),
            hasher: RandomState::new(),
            epochs,
            bytes: AtomicUsize::new(0),
            bytes_max,
            evicted: AtomicU64::new(0),
            evicted_total: AtomicU64::new(0),
            evictions: Evictions {
                are_allowed: AtomicBool::new(true),
                are_wanted: AtomicBool::new(false),
            },
        }
    }

    /// Numbers, stores and delivers a publication, then enforces the budget.
    pub(super) fn append(
        &self,
        channel: &ChannelName,
        content: Content,
        version: Option<Version>,
        time_ms: u64,
        limits: HistoryLimits,
        deliver: impl FnOnce(&Publication, &Epoch),
    ) -> Result<Position, Suppressed> {
        let now = Instant::now();
        let result = self.with_new(channel, limits, now, |_, stream| {
            if version.as_ref().is_some_and(|version| stream.has_version(version)) {
                return Err(Suppressed(stream.top()));
            }
            let publication = stream.append(content, version, time_ms, now);
            deliver(&publication, stream.epoch());
            Ok(stream.top())
        });
        self.enforce_budget();
        result
    }

    /// Numbers a publication, and has it logged by `log`, which gets the epoch in the log and the offset. It is pending
    /// until [`commit`](Self::commit) or [`abort`](Self::abort).
    pub(super) fn begin<T>(
        &self,
        channel: &ChannelName,
        content: Content,
        version: Option<Version>,
        time_ms: u64,
        limits: HistoryLimits,
        log: impl FnOnce(&str, u64) -> T,
    ) -> Result<(PendingChange, T), Suppressed> {
        self.with_new(channel, limits, Instant::now(), |shared, stream| {
            if version.as_ref().is_some_and(|version| stream.has_version(version)) {
                return Err(Suppressed(stream.top()));
            }
            let (serial, offset) = stream.begin(content, version, time_ms);
            let logged = log(epochs::logged(stream.epoch()), offset);
            Ok((PendingChange::new(shared, stream, serial, offset), logged))
        })
    }

    /// Begins to remove the history of a channel, as [`begin`](Self::begin) does with a publication. Returns `None` if
    /// the channel has no stream.
    pub(super) fn begin_removal<T>(
        &self,
        channel: &ChannelName,
        log: impl FnOnce(&str, u64) -> T,
    ) -> Option<(PendingChange, T)> {
        self.with_existing(channel, |shared, stream| {
            let (serial, offset) = stream.begin_removal();
            let logged = log(epochs::logged(stream.epoch()), offset);
            (PendingChange::new(shared, stream, serial, offset), logged)
        })
        .ok()
    }

    /// Applies a pending change that is in the log, and all before it. Then enforces the budget.
    pub(super) fn commit(&self, pending: &PendingChange, deliver: impl FnMut(&Publication, &Epoch)) {
        {
            // Streams with pending changes are not evicted.
            let mut stream = pending.stream.lock();
            let before = stream.bytes();
            stream.commit(pending.serial, Instant::now(), deliver);
            self.account(before, stream.bytes());
        }
        self.enforce_budget();
    }

    /// Takes back a pending change that is not in the log.
    pub(super) fn abort(&self, pending: &PendingChange) {
        pending.stream.lock().abort(pending.serial);
    }

    /// Reads a part of a channel's history.
    pub(super) fn read(&self, channel: &ChannelName, query: HistoryQuery) -> History {
        let read = self.with_existing(channel, |_, stream| stream.read(query, Instant::now()));
        read.unwrap_or_else(|epoch| History {
            publications: Vec::new(),
            top: Position { epoch, offset: 0 },
        })
    }

    /// Removes the history of a channel. Its position stays.
    pub(super) fn remove_history(&self, channel: &ChannelName) {
        // Nothing to do without a stream.
        let _ = self.with_existing(channel, |_, stream| stream.remove_all());
    }

    /// The position of the newest publication. Does not count as use.
    pub(super) fn position(&self, channel: &ChannelName) -> Position {
        loop {
            let hash = self.hash(channel);
            let (_, shard) = self.shard(hash);
            let Some(shared) = shard.peek(channel.as_str()).cloned() else {
                let epoch = self.epochs.of(channel.as_str(), shard.evictions(hash));
                return Position { epoch, offset: 0 };
            };
            drop(shard);
            let stream = shared.lock();
            if !stream.is_evicted() {
                return stream.top();
            }
        }
    }

    /// Applies a record of the log at the start.
    pub(super) fn restore(
        &self,
        channel: &ChannelName,
        logged_epoch: &str,
        offset: u64,
        publication: Option<(Instant, Publication, Option<Version>)>,
        limits: HistoryLimits,
    ) {
        self.with_new(channel, limits, Instant::now(), |_, stream| {
            stream.restore(logged_epoch, offset, publication);
        });
        self.enforce_budget();
    }

    /// Ends the restoration from the log. Returns the number of evicted streams.
    pub(super) fn finish_restoring(&mut self, epochs: &Epochs) -> u64 {
        let now = Instant::now();
        for shard in &self.shards {
            for entry in shard.lock().entries() {
                let mut stream = entry.stream.lock();
                let before = stream.bytes();
                stream.expire(now);
                self.account(before, stream.bytes());
                let epoch = epochs.with_era(stream.epoch().as_str());
                stream.set_epoch(epoch);
            }
        }
        self.epochs = epochs.clone();
        self.evicted.load(Ordering::Relaxed)
    }

    /// Sets the names of the epochs of channels without a stream. Evictions are counted from zero, as by the next
    /// process, which may use the same seed: otherwise its first eviction could lead to an epoch of this one.
    pub(super) fn set_epochs(&mut self, epochs: Epochs) {
        self.epochs = epochs;
        for shard in &self.shards {
            shard.lock().forget_evictions();
        }
    }

    /// Offset of the oldest publication that is kept of a stream, by the epoch in the log; `None` if it does not exist.
    pub(super) fn oldest_kept(&self, channel: &str, logged_epoch: &str) -> Option<u64> {
        let stream = self.shard(self.hasher.hash_one(channel)).1.peek(channel)?.clone();
        let stream = stream.lock();
        let exists = !stream.is_evicted() && epochs::logged(stream.epoch()) == logged_epoch;
        exists.then(|| stream.oldest_offset())
    }

    /// Refuses evictions until [`allow_evictions`](Self::allow_evictions).
    pub(super) fn refuse_evictions(&self) {
        self.evictions.are_allowed.store(false, Ordering::Release);
    }

    /// Allows evictions, and evicts what exceeds the budget.
    pub(super) fn allow_evictions(&self) {
        self.evictions.are_allowed.store(true, Ordering::Release);
        self.enforce_budget();
    }

    /// Whether an eviction was refused, and still is.
    pub(super) fn wants_evictions(&self) -> bool {
        self.evictions.are_wanted.load(Ordering::Relaxed) && !self.may_evict()
    }

    fn may_evict(&self) -> bool {
        self.evictions.are_allowed.load(Ordering::Acquire)
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

    /// Number of streams evicted for the budget since the start.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted_total.load(Ordering::Relaxed)
    }

    /// Accounted size of all streams.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether a channel has a stream. Does not count as use.
    #[cfg(test)]
    pub(super) fn has(&self, channel: &ChannelName) -> bool {
        self.shard(self.hash(channel)).1.peek(channel.as_str()).is_some()
    }

    /// Calls `f` with the locked stream of a channel. Returns the epoch of the channel if it has no stream.
    fn with_existing<T>(
        &self,
        channel: &ChannelName,
        f: impl FnOnce(&SharedStream, &mut Stream) -> T,
    ) -> Result<T, Epoch> {
        let now = Instant::now();
        loop {
            let shared = self.find(channel, now)?;
            let mut stream = shared.lock();
            if !stream.is_evicted() {
                return Ok(self.with_locked(&shared, &mut stream, f));
            }
        }
    }

    /// Calls `f` with the locked stream of a channel, which is created if there is none.
    fn with_new<T>(
        &self,
        channel: &ChannelName,
        limits: HistoryLimits,
        now: Instant,
        f: impl FnOnce(&SharedStream, &mut Stream) -> T,
    ) -> T {
        loop {
            let shared = self.find_or_create(channel, limits, now);
            let mut stream = shared.lock();
            if !stream.is_evicted() {
                stream.set_limits(limits);
                return self.with_locked(&shared, &mut stream, f);
            }
        }
    }

    fn with_locked<T>(
        &self,
        shared: &SharedStream,
        stream: &mut Stream,
        f: impl FnOnce(&SharedStream, &mut Stream) -> T,
    ) -> T {
        let before = stream.bytes();
        let result = f(shared, stream);
        self.account(before, stream.bytes());
        result
    }

    /// Returns the stream of a channel, or the epoch if there is none.
    fn find(&self, channel: &ChannelName, now: Instant) -> Result<SharedStream, Epoch> {
        let hash = self.hash(channel);
        let (index, mut shard) = self.shard(hash);
        let found = shard.find(channel, now);
        self.update_oldest(index, &shard);
        let evictions = shard.evictions(hash);
        drop(shard);
        found.ok_or_else(|| self.epochs.of(channel.as_str(), evictions))
    }

    fn find_or_create(&self, channel: &ChannelName, limits: HistoryLimits, now: Instant) -> SharedStream {
        let hash = self.hash(channel);
        let (index, mut shard) = self.shard(hash);
        let stream = shard.find(channel, now).unwrap_or_else(|| {
            let epoch = self.epochs.of(channel.as_str(), shard.evictions(hash));
            let stream = Arc::new(Mutex::new(Stream::new(epoch, limits)));
            self.account(0, STREAM_BYTES);
            let due = after(now, limits.ttl);
            shard.insert(channel.clone(), stream.clone(), now, due);
            stream
        });
        self.update_oldest(index, &shard);
        stream
    }

    /// Evicts the least recently used streams until the rest fit the budget. Without a low-water mark, each publisher
    /// only evicts as much as it has added.
    fn enforce_budget(&self) {
        let mut busy = 0;
        if self.bytes.load(Ordering::Relaxed) > self.bytes_max && !self.may_evict() {
            self.evictions.are_wanted.store(true, Ordering::Relaxed);
            return;
        }
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
        self.evicted_total
            .fetch_add(u64::from(evicted.is_some()), Ordering::Relaxed);
        evicted.is_some()
    }

    /// Evicts a stream. Returns its publications, to be dropped without the lock, or `None` if the stream is in use.
    fn evict(&self, shard: &mut Shard, entry: &Entry) -> Option<impl Sized + use<>> {
        let mut stream = entry.stream.try_lock()?;
        if stream.has_pending() {
            return None;
        }
        if !self.may_evict() {
            self.evictions.are_wanted.store(true, Ordering::Relaxed);
            return None;
        }
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
            garbage.push(stream.expire(now));
            self.account(before, stream.bytes());
            let ttl = stream.ttl();
            let next = stream.oldest_at().map(|at| after(at, ttl));
            drop(stream);
            let unused_at = after(entry.used_at, ttl);
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

/// A change of a stream that is not in the log yet.
#[derive(Debug)]
pub(super) struct PendingChange {
    stream: SharedStream,
    serial: Serial,
    /// Where the stream is after the change.
    pub(super) position: Position,
}

impl PendingChange {
    fn new(shared: &SharedStream, stream: &Stream, serial: Serial, offset: u64) -> Self {
        Self {
            stream: shared.clone(),
            serial,
            position: Position {
                epoch: stream.epoch().clone(),
                offset,
            },
        }
    }
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

    /// With concurrent threads, the offsets of each stream have no gap, no epoch occurs twice, and the accounted size
    /// is the actual one.
    #[test]
    fn concurrent_publish_read_and_sweep_are_consistent() {
        let limits = HistoryLimits {
            count_max: 5,
            bytes_max: 8 << 10,
            ttl: Duration::from_micros(300),
        };
        let streams = Streams::new(24 << 10, Epochs::new([0; 16], None));
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
                        let deliver = |publication: &Publication, epoch: &Epoch| {
                            listener.publication(&channel, publication, Some(epoch));
                        };
                        streams.append(&channel, content, None, 0, limits, deliver).unwrap();
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
