//! Seeded crashes on the simulated disk, against a model of an engine.
//!
//! The model publishes to a few channels, several publications at once, removes histories, evicts streams, runs out of
//! space, fails to sync, is killed, loses power, and starts again. After each start, what the log gave back is compared
//! with what was acknowledged.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::sim::{Faults, SimDisk};
use super::*;

/// History of a channel.
const KEPT: u64 = 8;

/// A stream in the memory of the engine.
#[derive(Clone, Debug, Default)]
struct Stream {
    epoch: String,
    /// Newest offset that was given out.
    top: u64,
    /// Newest offset that was acknowledged.
    stored: u64,
    /// Offset up to which the history was removed.
    floor: u64,
}

impl Stream {
    fn oldest_kept(&self) -> u64 {
        (self.floor + 1).max((self.stored + 1).saturating_sub(KEPT))
    }
}

/// What a subscriber may have seen of a channel. Outlives eviction and restarts.
#[derive(Clone, Debug, Default)]
struct Seen {
    epoch: String,
    /// Newest offset that was acknowledged, in `epoch`.
    top: u64,
    floor: u64,
    /// Offset of a removal that was not acknowledged.
    floor_uncertain: u64,
    /// Epochs of which a record was appended and not acknowledged, so that it may be found or not.
    uncertain: HashSet<String>,
}

#[derive(Default)]
struct Memory {
    streams: BTreeMap<String, Stream>,
}

impl Retain for Mutex<Memory> {
    fn oldest_kept(&self, channel: &str, epoch: &str) -> Option<u64> {
        let memory = self.lock();
        let stream = memory.streams.get(channel)?;
        (stream.epoch == epoch).then(|| stream.oldest_kept())
    }
}

struct Model {
    rng: StdRng,
    memory: Arc<Mutex<Memory>>,
    seen: BTreeMap<String, Seen>,
    /// Payloads ever appended at a place.
    appended: HashMap<(String, String, u64), HashSet<Vec<u8>>>,
    epochs: u64,
    payloads: u64,
}

/// A channel as the replay leaves it.
#[derive(Debug, Default)]
struct Replayed {
    epoch: String,
    top: u64,
    floor: u64,
    publications: VecDeque<(u64, Vec<u8>)>,
}

fn apply(channels: &mut BTreeMap<String, Replayed>, record: &Owned) {
    let channel = channels.entry(record.channel.clone()).or_default();
    let follows = channel.epoch == record.epoch && channel.top + 1 == record.offset;
    if record.is_position || !follows {
        channel.publications.clear();
        channel.floor = if record.is_position {
            record.offset
        } else {
            record.offset - 1
        };
    }
    channel.epoch.clone_from(&record.epoch);
    channel.top = record.offset;
    if !record.is_position {
        channel.publications.push_back((record.offset, record.payload.clone()));
    }
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            memory: Arc::default(),
            seen: BTreeMap::new(),
            appended: HashMap::new(),
            epochs: 0,
            payloads: 0,
        }
    }

    fn channel(&mut self) -> String {
        format!("channel-{}", self.rng.random_range(0..6))
    }

    /// Gives out the next offset of a channel, as an engine does under the lock of the stream.
    fn number(&mut self, channel: &str) -> Owned {
        let mut memory = self.memory.lock();
        let stream = memory.streams.entry(channel.to_owned()).or_insert_with(|| {
            self.epochs += 1;
            Stream {
                epoch: format!("epoch-{}", self.epochs),
                ..Default::default()
            }
        });
        stream.top += 1;
        self.payloads += 1;
        let mut payload = format!("{} ", self.payloads).into_bytes();
        payload.resize(self.rng.random_range(8..300), b'x');
        let owned = Owned {
            is_position: false,
            channel: channel.to_owned(),
            epoch: stream.epoch.clone(),
            offset: stream.top,
            payload,
        };
        let place = (channel.to_owned(), owned.epoch.clone(), owned.offset);
        self.appended.entry(place).or_default().insert(owned.payload.clone());
        owned
    }

    /// Publishes several times to one channel without waiting in between. Returns whether all were stored.
    async fn publish(&mut self, journal: &Journal, context: &str) -> bool {
        let channel = self.channel();
        let mut acks = Vec::new();
        for _ in 0..self.rng.random_range(1..6) {
            let Ok(permit) = journal.reserve(300).await else { break };
            let owned = self.number(&channel);
            self.seen
                .entry(channel.clone())
                .or_default()
                .uncertain
                .insert(owned.epoch.clone());
            let ack = permit.append(&owned.record());
            match self.rng.random_bool(0.1) {
                // The publisher is gone, and nobody waits.
                true => drop(tokio::spawn(ack)),
                false => acks.push((owned, ack)),
            }
        }
        let mut failed = None;
        for (owned, ack) in acks {
            match ack.await {
                Ok(()) => {
                    assert_eq!(failed, None, "{context}: stored behind a failure");
                    let seen = self.seen.get_mut(&channel).expect("entered above");
                    if seen.epoch != owned.epoch {
                        (seen.floor, seen.floor_uncertain) = (0, 0);
                        seen.epoch.clone_from(&owned.epoch);
                    }
                    seen.top = owned.offset;
                    if let Some(stream) = self.memory.lock().streams.get_mut(&channel) {
                        stream.stored = owned.offset;
                    }
                }
                Err(_) => {
                    failed.get_or_insert(owned.offset);
                }
            }
        }
        if let Some(failed) = failed {
            // An engine takes the offsets back; nobody saw them.
            if let Some(stream) = self.memory.lock().streams.get_mut(&channel) {
                stream.top = failed - 1;
            }
        }
        failed.is_none()
    }

    async fn remove_history(&mut self, journal: &Journal) {
        let channel = self.channel();
        let Some(stream) = self.memory.lock().streams.get(&channel).cloned() else {
            return;
        };
        let position = Owned {
            is_position: true,
            channel: channel.clone(),
            epoch: stream.epoch.clone(),
            offset: stream.top,
            payload: Vec::new(),
        };
        let result = journal.append(&position.record()).await;
        let seen = self.seen.entry(channel.clone()).or_default();
        if result.is_err() {
            seen.floor_uncertain = stream.top;
            return;
        }
        self.memory.lock().streams.get_mut(&channel).expect("found above").floor = stream.top;
        (seen.epoch, seen.top, seen.floor) = (stream.epoch, stream.top, stream.top);
    }

    fn evict(&mut self) {
        let channel = self.channel();
        self.memory.lock().streams.remove(&channel);
    }

    /// Compares what was replayed with what had been acknowledged, and goes on from there.
    fn check(&mut self, replay: &Replay, records: &[Owned], context: &str) {
        let mut channels = BTreeMap::new();
        for record in records {
            apply(&mut channels, record);
            if !record.is_position {
                let place = (record.channel.clone(), record.epoch.clone(), record.offset);
                let payloads = self.appended.get(&place);
                assert!(
                    payloads.is_some_and(|payloads| payloads.contains(&record.payload)),
                    "{context}: {record:?} was never appended"
                );
            }
        }
        if !replay.is_era_new {
            for (name, seen) in &self.seen {
                let streams = &self.memory.lock().streams;
                let evicted = streams.get(name).is_none_or(|stream| stream.epoch != seen.epoch);
                match channels.get(name) {
                    Some(replayed) => check_channel(seen, evicted, replayed, &format!("{context}, {name}")),
                    None => assert!(seen.epoch.is_empty() || evicted, "{context}: {name} is lost: {seen:?}"),
                }
            }
        }
        self.seen.clear();
        let mut memory = self.memory.lock();
        memory.streams.clear();
        for (name, replayed) in channels {
            let (epoch, top, floor) = (replayed.epoch, replayed.top, replayed.floor);
            let seen = Seen {
                epoch: epoch.clone(),
                top,
                floor,
                floor_uncertain: 0,
                uncertain: HashSet::new(),
            };
            self.seen.insert(name.clone(), seen);
            let stream = Stream {
                epoch,
                top,
                stored: top,
                floor,
            };
            memory.streams.insert(name, stream);
        }
    }
}

fn check_channel(seen: &Seen, evicted: bool, replayed: &Replayed, context: &str) {
    if replayed.epoch != seen.epoch {
        // Only a record that was not acknowledged can have begun another epoch.
        assert!(
            seen.uncertain.contains(&replayed.epoch),
            "{context}: {seen:?}, {replayed:?}"
        );
        return;
    }
    assert!(
        replayed.top >= seen.top,
        "{context}: offsets would be used again: {seen:?}, {replayed:?}"
    );
    let oldest = (seen.floor + 1).max((replayed.top + 1).saturating_sub(KEPT));
    let expected: Vec<u64> = (oldest..=replayed.top).collect();
    let found: Vec<u64> = replayed
        .publications
        .iter()
        .map(|(offset, _)| *offset)
        .filter(|offset| *offset >= oldest)
        .collect();
    // Compaction may have dropped a part of what was evicted; and a removal may have come through.
    let is_removed = seen.floor_uncertain > 0 && replayed.floor >= seen.floor_uncertain;
    assert!(
        evicted || is_removed || found == expected,
        "{context}: {found:?} for {expected:?}, {seen:?}"
    );
    let oldest_found = replayed.publications.front().map_or(u64::MAX, |(offset, _)| *offset);
    assert!(
        oldest_found > seen.floor,
        "{context}: removed history came back: {seen:?}"
    );
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Close,
    Drop,
    Kill,
    PowerCut,
}

async fn run(seed: u64) {
    let mut model = Model::new(seed);
    let disk = SimDisk::new(seed);
    let fsync = match seed % 3 {
        0 => Fsync::Always,
        1 => Fsync::Every(Duration::from_micros(300)),
        _ => Fsync::Never,
    };
    let options = JournalOptions {
        fsync,
        segment_bytes: 4096,
        queue_bytes_max: 8 << 10,
        full_retry_interval: Duration::from_micros(200),
        compaction_interval: Duration::from_micros(500),
        ..JournalOptions::new("")
    };
    let mut last = Crash::Close;
    for life in 0..6 {
        let context = format!("seed {seed}, life {life}, {fsync:?}, after {last:?}");
        let mut records = Vec::new();
        let opened = Journal::open_storage(disk.storage(), &options, &mut |record| {
            records.push(Owned::of(record));
        });
        let (journal, replay) = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
        if last != Crash::PowerCut || fsync == Fsync::Always {
            let is_ambiguous = replay.cut.as_ref().is_some_and(|cut| cut.has_valid_records);
            assert!(!replay.is_era_new || life == 0 || is_ambiguous, "{context}: {replay:?}");
        }
        if last == Crash::Close && life > 0 {
            assert_eq!((replay.end, &replay.cut), (End::Clean, &None), "{context}");
        }
        model.check(&replay, &records, &context);
        journal.start_compaction(model.memory.clone()).unwrap();
        for _ in 0..model.rng.random_range(5..60) {
            match model.rng.random_range(0..100) {
                0..80 => drop(model.publish(&journal, &context).await),
                80..88 => model.remove_history(&journal).await,
                88..93 => model.evict(),
                93..96 => disk.set_faults(Faults {
                    capacity: Some(disk.used_bytes() + model.rng.random_range(0..2000)),
                    is_writing_short: true,
                    ..Default::default()
                }),
                96..99 => disk.set_faults(Faults::default()),
                _ => disk.set_faults(Faults {
                    is_sync_failing: model.rng.random_bool(0.5),
                    ..Default::default()
                }),
            }
        }
        // A log with a fault cannot be closed in order.
        last = match model.rng.random_range(0..4) {
            0 if journal.state() == State::Healthy => {
                disk.set_faults(Faults::default());
                match journal.close().await {
                    Ok(()) => Crash::Close,
                    Err(_) => Crash::Drop,
                }
            }
            0 | 1 => Crash::Drop,
            2 => Crash::Kill,
            _ => Crash::PowerCut,
        };
        match last {
            Crash::Kill => disk.kill(),
            Crash::PowerCut => disk.cut_power(),
            Crash::Close | Crash::Drop => {}
        }
        drop(journal);
        disk.set_faults(Faults::default());
    }
}

/// `JOURNAL_SEEDS` runs more seeds, and `JOURNAL_SEED` a single one.
#[tokio::test]
async fn crashes_lose_nothing_that_was_promised() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("JOURNAL_SEED") {
        return run(seed).await;
    }
    for seed in 0..number("JOURNAL_SEEDS").unwrap_or(150) {
        run(seed).await;
    }
}
