//! The log of the memory engine: what goes into the journal, and how streams are restored from it.
//!
//! Two channels of the log are not channels of clients. Their names start with a control character, which no channel
//! name contains: [`SEED`] has the seed of the epochs, [`PROBE`] what readiness checks write.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::epochs::{Epochs, Seed};
use super::idempotency::Keys;
use super::streams::Streams;
use super::{EngineError, HistoryLimits, HistoryLimitsOf, JournalConfig, Position, Publication, record, unix_time_ms};
use crate::channel::ChannelName;
use crate::engine::Epoch;
use crate::journal::{self, AppendError, Journal, OpenError, Record, RecordKind, Replay, Retain};
#[cfg(test)]
use crate::journal::{JournalOptions, tests::sim::SimDisk};

/// The open log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) journal: Journal,
    /// Offset of the newest record of [`SEED`].
    seed_offset: Arc<AtomicU64>,
    probe_offset: AtomicU64,
}

/// What was restored from the log.
pub(super) struct Restored {
    pub(super) streams: Arc<Streams>,
    pub(super) keys: Arc<Keys>,
    pub(super) log: Log,
}

/// Seeds of epochs. The newest record counts; without a payload, the next process draws a new seed.
const SEED: &str = "\u{1}seed";
const PROBE: &str = "\u{1}probe";

/// Maximum size of a payload. The log accepts 64 MiB with the names of channel and epoch.
pub(super) const PAYLOAD_BYTES_MAX: usize = 60 << 20;

/// Limits of a channel whose namespace has no history any more: it keeps its position only, until it is evicted.
const NO_HISTORY: HistoryLimits = HistoryLimits {
    count_max: 0,
    bytes_max: 0,
    ttl: Duration::ZERO,
};

/// Opens the log and restores all streams from it. Blocks while it reads the log.
///
/// # Errors
/// [`OpenError`]
pub(super) fn open(
    config: &JournalConfig,
    limits: Arc<HistoryLimitsOf>,
    bytes_max: usize,
) -> Result<Restored, OpenError> {
    let options = config.journal_options();
    open_with(limits, bytes_max, |restorer| {
        Journal::open(&options, |record| restorer.restore(record))
    })
}

/// Opens a log on a simulated disk.
#[cfg(test)]
pub(super) fn open_simulated(
    disk: &SimDisk,
    options: &JournalOptions,
    limits: Arc<HistoryLimitsOf>,
    bytes_max: usize,
) -> Result<Restored, OpenError> {
    open_with(limits, bytes_max, |restorer| {
        Journal::open_simulated(disk, options, |record| restorer.restore(record))
    })
}

fn open_with(
    limits: Arc<HistoryLimitsOf>,
    bytes_max: usize,
    open: impl FnOnce(&mut Restorer) -> Result<(Journal, Replay), OpenError>,
) -> Result<Restored, OpenError> {
    let mut restorer = Restorer::new(limits, bytes_max);
    let (journal, replay) = open(&mut restorer)?;
    log_replay(&replay);
    let Restorer {
        mut streams,
        keys,
        mut seed,
        seed_offset,
        ..
    } = restorer;
    let drawn: Seed = rand::random();
    let epochs = Epochs::new(seed.unwrap_or(drawn), Some(replay.era));
    if streams.finish_restoring(&epochs) > 0 {
        // An epoch of an evicted stream must not be derived again.
        seed = None;
    }
    keys.map_positions(|position| position.epoch = epochs.with_era(position.epoch.as_str()));
    let log = Log {
        journal,
        seed_offset: Arc::new(AtomicU64::new(seed_offset)),
        probe_offset: AtomicU64::new(0),
    };
    let is_seed_logged = match seed {
        Some(_) => true,
        None => {
            streams.set_epochs(Epochs::new(drawn, Some(replay.era)));
            block_on(log.append_seed(&drawn)).is_ok()
        }
    };
    if is_seed_logged {
        streams.refuse_evictions();
    }
    let streams = Arc::new(streams);
    log.journal
        .start_compaction(Arc::new(Kept {
            streams: streams.clone(),
            seed_offset: log.seed_offset.clone(),
        }))
        .map_err(|error| OpenError::Io { path: "".into(), error })?;
    Ok(Restored { streams, keys, log })
}

/// Waits for a future that needs no runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(result) => return result,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn log_replay(replay: &Replay) {
    let Replay {
        end,
        is_era_new,
        records,
        segments,
        bytes,
        ..
    } = replay;
    tracing::info!(
        ?end,
        is_era_new,
        records,
        segments,
        bytes,
        "restored the history from the log"
    );
    if let Some(cut) = &replay.cut {
        tracing::warn!(
            file = %cut.file.display(),
            offset = cut.offset,
            bytes = cut.bytes,
            "dropped the incomplete end of the log"
        );
    }
    for damage in &replay.damages {
        tracing::warn!(%damage, "repaired the log");
    }
    if *is_era_new && *end != journal::End::New {
        tracing::warn!("publications may be lost: all channels have new epochs, and clients cannot recover");
    }
}

/// Builds the streams from the records of the log.
struct Restorer {
    limits: Arc<HistoryLimitsOf>,
    streams: Streams,
    keys: Arc<Keys>,
    seed: Option<Seed>,
    seed_offset: u64,
    now: Instant,
    now_ms: u64,
}

impl Restorer {
    fn new(limits: Arc<HistoryLimitsOf>, bytes_max: usize) -> Self {
        Self {
            limits,
            // Replaced at the end, when the era is known.
            streams: Streams::new(bytes_max, Epochs::new(rand::random(), None)),
            keys: Arc::new(Keys::new()),
            seed: None,
            seed_offset: 0,
            now: Instant::now(),
            now_ms: unix_time_ms(),
        }
    }

    fn restore(&mut self, record: &Record<'_>) {
        if record.channel == SEED {
            self.seed = record.payload.try_into().ok();
            self.seed_offset = record.offset;
            return;
        }
        // The names of other records are no channel names.
        let Ok(channel) = ChannelName::new(record.channel) else {
            return;
        };
        let stored = match record.kind {
            RecordKind::Publication => record::decode(record.payload),
            RecordKind::Position => None,
        };
        let age = Duration::from_millis(self.now_ms.saturating_sub(record.time_ms));
        let publication = stored.map(|stored| {
            if let Some(key) = stored.idempotency_key {
                let position = Position {
                    epoch: Epoch::new(record.epoch),
                    offset: record.offset,
                };
                self.keys.restore(&channel, &key, position, age);
            }
            let publication = Publication {
                content: stored.content,
                offset: record.offset,
                previous: record.offset.saturating_sub(1),
                time_ms: record.time_ms,
            };
            // Where the clock cannot express the time, the publication is kept for longer.
            let at = self.now.checked_sub(age).unwrap_or(self.now);
            (at, publication, stored.version)
        });
        let limits = (self.limits)(&channel).unwrap_or(NO_HISTORY);
        self.streams
            .restore(&channel, record.epoch, record.offset, publication, limits);
    }
}

/// Tells compaction what is still needed.
struct Kept {
    streams: Arc<Streams>,
    seed_offset: Arc<AtomicU64>,
}

impl Retain for Kept {
    fn oldest_kept(&self, channel: &str, epoch: &str) -> Option<u64> {
        match channel {
            SEED => Some(self.seed_offset.load(Ordering::Acquire)),
            PROBE => None,
            _ => self.streams.oldest_kept(channel, epoch),
        }
    }
}

impl Log {
    /// Notes that streams are evicted, so that the next process draws a new seed. Must succeed before the first
    /// eviction.
    pub(super) async fn note_evictions(&self) -> Result<(), EngineError> {
        self.append_seed(&[]).await
    }

    async fn append_seed(&self, seed: &[u8]) -> Result<(), EngineError> {
        let offset = self.seed_offset.load(Ordering::Acquire) + 1;
        self.append_internal(SEED, offset, seed).await?;
        // Only now may compaction drop the record before it.
        self.seed_offset.fetch_max(offset, Ordering::AcqRel);
        Ok(())
    }

    /// Appends a record that no client sees.
    pub(super) async fn probe(&self) -> Result<(), EngineError> {
        let offset = self.probe_offset.fetch_add(1, Ordering::Relaxed) + 1;
        self.append_internal(PROBE, offset, &[]).await
    }

    async fn append_internal(&self, channel: &str, offset: u64, payload: &[u8]) -> Result<(), EngineError> {
        // A new epoch each time, because a failed append would block later ones of the same epoch.
        let epoch = format!("{:016x}", rand::random::<u64>());
        let record = Record {
            kind: RecordKind::Publication,
            channel,
            epoch: &epoch,
            offset,
            time_ms: unix_time_ms(),
            payload,
        };
        Ok(self.journal.append(&record).await?)
    }
}

impl From<AppendError> for EngineError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full => Self::Full,
            AppendError::Poisoned | AppendError::Closed => Self::Unavailable,
            AppendError::TooLarge => Self::TooLarge,
        }
    }
}
