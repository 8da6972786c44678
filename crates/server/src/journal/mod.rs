//! The durable log of the memory engine: an append-only journal of all channels with history, in one folder.
//!
//! The engine keeps all history in memory. It appends each publication here before it delivers it, and reads the log
//! back when it starts. The log is never read while the server runs, except by compaction.
//!
//! # Guarantees
//!
//! "Acknowledged" means that [`Permit::append`] reported success. [`Fsync`] decides when it does:
//!
//! | fsync | acknowledged after | `kill -9` costs | a power cut costs | epochs after a power cut |
//! |---|---|---|---|---|
//! | `Always` | fdatasync | nothing acknowledged | nothing acknowledged | stay |
//! | `Every(50 ms)` | write | nothing acknowledged | up to the last 50 ms, and the duration of one fdatasync | change |
//! | `Never` | write | nothing acknowledged | what the kernel had not written back, at most one segment | change |
//!
//! - A record that was not acknowledged may be in the log all the same.
//! - Records of one stream are stored without gaps: if one cannot be stored, neither are those after it, until its
//!   offset is appended again.
//! - Where acknowledged records may be missing, [`Replay::is_era_new`] is set. The caller makes [`Replay::era`] part of
//!   each epoch that clients see, so that no client recovers across the loss.
//! - [`Journal::close`] makes everything durable whatever the policy, then writes a frame that marks a clean end. After
//!   that, a power cut costs nothing.
//! - `kill -9` and power cuts are distinguished by the boot id of the operating system, which each segment contains.
//!   Where it is unknown (everywhere but on Linux), an end without `close` counts as a power cut.
//! - A folder that was restored from an old copy looks like one that was shut down in order. The first start after that
//!   needs [`JournalRepair::KeepValid`], which begins a new era.
//!
//! # Failures
//!
//! | what | outcome |
//! |---|---|
//! | torn or zeroed end of the newest segment | dropped, reported as [`Replay::cut`] |
//! | damage in what an fdatasync had covered, or a missing segment | [`OpenError::Damaged`], which names file and offset |
//! | the same with [`JournalRepair::KeepValid`] | every valid record is kept, the era changes, so all channels get new epochs |
//! | disk full, quota, [`JournalOptions::disk_bytes_max`] | [`AppendError::Full`] and [`State::Full`]; tried again every second |
//! | fdatasync or write fails otherwise | [`State::Poisoned`] for good: the kernel may have dropped the data |
//! | folder in use by another process | [`OpenError::Locked`] |
//! | folder cannot be written | [`OpenError::Io`] |
//!
//! # Structure
//!
//! A writer thread takes whatever is queued, up to 1 MiB, and writes it at once (group commit). Appenders wait while
//! more than [`JournalOptions::queue_bytes_max`] is queued. A second thread compacts: it rewrites sealed segments of
//! which less than half is live, merges small neighbors, and deletes the oldest segment when nothing in it is live.
//! Rewriting keeps the order of records, so the log needs no index.
//!
//! Segments are files `<first>-<last>.log`, numbered without gaps; `format.rs` describes their content.

mod check;
mod compact;
mod format;
mod fsync;
#[cfg(feature = "__fuzz")]
pub mod fuzzing;
mod recover;
mod segment;
mod storage;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

pub use check::JournalCheck;
pub(crate) use format::{Record, RecordKind};
pub use fsync::{Fsync, InvalidFsync, JournalRepair};
pub(crate) use recover::{Damage, End, Replay};

use compact::Compactor;
use storage::{Disk, DiskError, Storage};
pub(crate) use writer::SYNC_BUCKETS;
use writer::{Done, Entry, Shared, Writer};

/// The open log.
///
/// Dropping it without [`close`](Self::close) writes what is queued, and leaves no mark of a clean end. Dropping it
/// waits for its threads.
#[derive(Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
    storage: Arc<dyn Storage>,
    options: JournalOptions,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Where the log is, and how it is kept.
#[derive(Clone, Debug)]
pub(crate) struct JournalOptions {
    pub(crate) folder: PathBuf,
    pub(crate) fsync: Fsync,
    pub(crate) repair: JournalRepair,
    /// Size of a segment, from 4 KiB to 1 GiB. Compaction reads up to two segments into memory.
    pub(crate) segment_bytes: u64,
    /// Size of the whole log, at least four segments. At this size appending fails with [`AppendError::Full`] until
    /// compaction has made an eighth of it free. A rewrite takes up to one segment more for a moment.
    pub(crate) disk_bytes_max: u64,
    /// Bytes of records that wait to be written. Appenders wait beyond that.
    pub(crate) queue_bytes_max: usize,
    /// Interval at which a full disk is tried again.
    pub(crate) full_retry_interval: Duration,
    /// Interval at which compaction examines one more segment while nothing is written.
    pub(crate) compaction_interval: Duration,
}

impl JournalOptions {
    /// The defaults: fdatasync every 50 ms, segments of 32 MiB, 4 GiB in all, a queue of 4 MiB.
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            fsync: Fsync::Every(Duration::from_millis(50)),
            repair: JournalRepair::Refuse,
            segment_bytes: 32 << 20,
            disk_bytes_max: 4 << 30,
            queue_bytes_max: 4 << 20,
            full_retry_interval: Duration::from_secs(1),
            compaction_interval: Duration::from_secs(30),
        }
    }
}

/// Which records of the log the caller still needs. Compaction asks from its own thread.
pub(crate) trait Retain: Send + Sync {
    /// Offset of the oldest publication that the channel's stream keeps, or the offset after its newest if it keeps
    /// none; `None` if the channel has no stream, or one of another epoch.
    ///
    /// Publications from that offset on stay in the log, those that are not acknowledged yet included. Two rules
    /// follow:
    ///
    /// - A stream exists before the first record of its epoch is appended.
    /// - Publications that are not acknowledged do not displace older ones: they may fail, and the older ones would be
    ///   gone.
    fn oldest_kept(&self, channel: &str, epoch: &str) -> Option<u64>;
}

impl<F: Fn(&str, &str) -> Option<u64> + Send + Sync> Retain for F {
    fn oldest_kept(&self, channel: &str, epoch: &str) -> Option<u64> {
        self(channel, epoch)
    }
}

/// Whether the log can be appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Healthy,
    /// There is no room. The log becomes healthy by itself when there is.
    Full,
    /// A write or an fdatasync failed. Only a restart helps.
    Poisoned,
    /// Closed, or about to be.
    Closed,
}

/// Statistics for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JournalStats {
    /// Size of all segments.
    pub(crate) bytes: u64,
    pub(crate) segments: usize,
    /// Records stored since the start.
    pub(crate) records: u64,
    /// Records that could not be stored since the start.
    pub(crate) failures: u64,
    /// Bytes written since the start, without what compaction rewrites.
    pub(crate) written_bytes: u64,
    /// Calls of fdatasync by the writer since the start.
    pub(crate) syncs: u64,
    /// Whether the log is [`State::Full`].
    pub(crate) is_full: bool,
    /// Whether the log is [`State::Poisoned`].
    pub(crate) is_poisoned: bool,
}

impl Journal {
    /// Opens the log of a folder, which is created if it does not exist, and hands all its records to `replay`, oldest
    /// first.
    ///
    /// Records that compaction has not dropped yet are among them: the caller applies its own limits of count, size and
    /// age. For each channel, a record replaces what came before it if it is a [`RecordKind::Position`], if its epoch
    /// is another one, or if its offset does not follow the one before: then the older publications are not needed any
    /// more, or what was between them is lost.
    ///
    /// Blocks while it reads the whole log. `replay` has seen a part of the records when an error is returned. A disk
    /// without any room is no error here; the log starts as [`State::Full`].
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn open(
        options: &JournalOptions,
        mut replay: impl FnMut(&Record<'_>),
    ) -> Result<(Self, Replay), OpenError> {
        let disk = Disk::open(&options.folder).map_err(|error| match error {
            DiskError::Locked => OpenError::Locked {
                folder: options.folder.clone(),
            },
            DiskError::Io(error) => OpenError::Io {
                path: options.folder.clone(),
                error,
            },
        })?;
        Self::open_storage(Arc::new(disk), options, &mut replay)
    }

    /// Checks that the log can be opened, and leaves its folder as it was.
    ///
    /// # Errors
    /// [`OpenError`], as of [`open`](Self::open).
    pub(crate) fn check(options: &JournalOptions) -> Result<JournalCheck, OpenError> {
        check::check(options)
    }

    /// Opens a log on a simulated disk.
    #[cfg(test)]
    pub(crate) fn open_simulated(
        disk: &tests::sim::SimDisk,
        options: &JournalOptions,
        mut replay: impl FnMut(&Record<'_>),
    ) -> Result<(Self, Replay), OpenError> {
        Self::open_storage(disk.storage(), options, &mut replay)
    }

    fn open_storage(
        storage: Arc<dyn Storage>,
        options: &JournalOptions,
        replay: &mut dyn FnMut(&Record<'_>),
    ) -> Result<(Self, Replay), OpenError> {
        let recovered = recover::recover(&*storage, options.repair, replay)?;
        let shared = Arc::new(Shared::new(recovered.sealed, options.queue_bytes_max));
        let mut writer = Writer::new(
            storage.clone(),
            shared.clone(),
            options,
            recovered.replay.era,
            recovered.unsealed,
            recovered.next,
        );
        writer.start().map_err(|error| OpenError::io(&*storage, error))?;
        let journal = Self {
            shared,
            storage,
            options: options.clone(),
            threads: Mutex::default(),
        };
        journal
            .spawn("journal-writer", || writer.run())
            .map_err(|error| OpenError::io(&*journal.storage, error))?;
        Ok((journal, recovered.replay))
    }

    /// Starts compaction, which asks `retain` from its own thread what is live.
    ///
    /// To be called once, when all streams of the replay are in memory: compaction drops the records of streams that do
    /// not exist.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(crate) fn start_compaction(&self, retain: Arc<dyn Retain>) -> io::Result<()> {
        let compactor = Compactor::new(self.storage.clone(), self.shared.clone(), retain, &self.options);
        self.spawn("journal-compact", || compactor.run())
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Waits until there is room in the queue for a record with a payload of this size.
    ///
    /// # Errors
    /// [`AppendError`], at once, if the log is not healthy.
    ///
    /// # Cancel safety
    /// Nothing is lost. A caller that calls again queues up anew.
    pub(crate) async fn reserve(&self, payload_bytes: usize) -> Result<Permit, AppendError> {
        self.shared.check()?;
        let permit = self.shared.acquire(payload_bytes).await?;
        // It may have waited for long.
        self.shared.check()?;
        Ok(Permit {
            shared: self.shared.clone(),
            permit,
        })
    }

    /// Takes room in the queue for a record with a payload of this size, if there is any and the log is healthy.
    pub(crate) fn try_reserve(&self, payload_bytes: usize) -> Option<Permit> {
        self.shared.check().ok()?;
        Some(Permit {
            permit: self.shared.try_acquire(payload_bytes)?,
            shared: self.shared.clone(),
        })
    }

    /// Reserves room, appends a record and waits until it is stored.
    ///
    /// # Errors
    /// [`AppendError`]
    ///
    /// # Cancel safety
    /// The record is stored or not. Use [`reserve`](Self::reserve) and [`Permit::append`] where that matters.
    pub(crate) async fn append(&self, record: &Record<'_>) -> Result<(), AppendError> {
        self.reserve(record.payload.len()).await?.append(record).await
    }

    /// Whether the log can be appended to.
    pub(crate) fn state(&self) -> State {
        self.shared.state()
    }

    /// The error that led to [`State::Full`] or [`State::Poisoned`].
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.shared.reason()
    }

    /// Statistics for metrics.
    pub(crate) fn stats(&self) -> JournalStats {
        self.shared.stats()
    }

    /// Durations of the writer's calls of fdatasync, in seconds.
    pub(crate) fn sync_seconds(&self) -> Histogram {
        self.shared.sync_seconds.clone()
    }

    /// Stores what is queued, makes everything durable and marks a clean end. Appending fails from now on.
    ///
    /// # Errors
    /// [`AppendError`] if the mark could not be written: the next start takes this for a crash.
    ///
    /// # Cancel safety
    /// The log is closed all the same.
    pub(crate) async fn close(&self) -> Result<(), AppendError> {
        self.shared.close().await
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.abandon();
        for thread in self.threads.lock().drain(..) {
            // A panic of the writer has poisoned the log already.
            let _ = thread.join();
        }
    }
}

/// Room in the queue for one record.
#[derive(Debug)]
pub(crate) struct Permit {
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
}

impl Permit {
    /// Queues a record. The log has records in the order of these calls, so the caller may hold the lock under which it
    /// assigned the offset.
    ///
    /// The record is stored even if the [`Ack`] is dropped.
    pub(crate) fn append(self, record: &Record<'_>) -> Ack {
        let (sender, receiver) = oneshot::channel();
        let done = Done(sender);
        let mut body = Vec::new();
        match record.encode(&mut body) {
            Ok(()) => self.shared.queue(Entry {
                body,
                done,
                _permit: self.permit,
            }),
            Err(format::TooLarge) => done.call(Err(AppendError::TooLarge)),
        }
        Ack(receiver)
    }
}

/// Resolves when the record is stored as [`Fsync`] promises.
#[derive(Debug)]
#[must_use = "an append that failed has to be handled"]
pub(crate) struct Ack(oneshot::Receiver<Result<(), AppendError>>);

impl Future for Ack {
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender is dropped without a result only if the writer panicked.
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|result| result.unwrap_or(Err(AppendError::Poisoned)))
    }
}

/// Why a record was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum AppendError {
    /// There is no room, or an earlier record of the same stream failed and was not appended again.
    Full,
    /// The log is poisoned. The record may be found at the next start.
    Poisoned,
    /// The log is closed.
    Closed,
    /// The record exceeds 64 MiB, its channel 65,535 bytes or its epoch 255 bytes.
    TooLarge,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the log has no room: free disk space or raise its limit",
            Self::Poisoned => "the log failed to write and is read-only: check the disk, then restart",
            Self::Closed => "the log is closed",
            Self::TooLarge => "the record is too large for the log",
        })
    }
}

impl std::error::Error for AppendError {}

/// Why a log could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum OpenError {
    /// Another process, or another journal of this one, uses the folder.
    Locked { folder: PathBuf },
    /// The log is damaged, in a way that no crash explains.
    Damaged(Damage),
    /// The folder or a file in it cannot be read or written.
    Io { path: PathBuf, error: io::Error },
}

impl OpenError {
    fn io(storage: &dyn Storage, error: io::Error) -> Self {
        Self::Io {
            path: storage.path(""),
            error,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { folder } => write!(
                f,
                "cannot open the log in {}: another process uses this folder; stop it or choose another folder",
                folder.display()
            ),
            Self::Damaged(damage) => write!(
                f,
                "{damage}, and no crash explains that; restore a backup, or start once with repair \
                 (SOCKEYE_REPAIR_JOURNAL=true), which keeps all valid records and makes clients load their channels anew"
            ),
            Self::Io { path, error } => write!(f, "cannot use the log in {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Locked { .. } | Self::Damaged(_) => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
