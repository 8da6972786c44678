//! The writer thread, and the queue in front of it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::format::{self, Body, Header};
use super::recover::Unsealed;
use super::segment::{self, Segment};
use super::storage::{SegmentFile, Storage, is_full, write_all};
use super::{AppendError, Fsync, JournalOptions, JournalStats, RecordKind, State};

/// An encoded record on its way to the writer.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) body: Vec<u8>,
    pub(super) done: Done,
    /// Its share of the queue, returned when the entry is dropped.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// Who gets the result of an append.
#[derive(Debug)]
pub(super) struct Done(pub(super) oneshot::Sender<Result<(), AppendError>>);

impl Done {
    pub(super) fn call(self, result: Result<(), AppendError>) {
        // An appender that gave up wants no result.
        let _ = self.0.send(result);
    }
}

/// What the handle, the writer and the compactor share.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Notified when an entry comes into an empty queue, and at the end.
    queue_changed: Condvar,
    /// Room in the queue, in bytes.
    room: Arc<Semaphore>,
    room_max: u32,
    status: Mutex<Status>,
    pub(super) sealed: Mutex<Sealed>,
    /// Notified when a segment is sealed, and at the end.
    pub(super) sealed_changed: Condvar,
    active_bytes: AtomicU64,
    records: AtomicU64,
    failures: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
    pub(super) sync_seconds: Histogram,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    ending: Option<Ending>,
}

#[derive(Debug)]
enum Ending {
    Close(oneshot::Sender<Result<(), AppendError>>),
    Abandon,
}

#[derive(Debug)]
struct Status {
    state: State,
    reason: Option<Arc<str>>,
}

/// The segments that are not appended to any more, oldest first.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) segments: Vec<Segment>,
    /// Segments sealed since compaction last looked.
    pub(super) new: usize,
    pub(super) is_stopped: bool,
}

/// Upper bounds in seconds: from a page cache that lies to a disk that is about to fail.
pub(crate) const SYNC_BUCKETS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0];

/// What an entry weighs in the queue beside its payload.
const ENTRY_BYTES: usize = 512;

impl Shared {
    pub(super) fn new(sealed: Vec<Segment>, queue_bytes_max: usize) -> Self {
        let room_max = u32::try_from(queue_bytes_max.clamp(ENTRY_BYTES, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self {
            queue: Mutex::default(),
            queue_changed: Condvar::new(),
            room: Arc::new(Semaphore::new(room_max as usize)),
            room_max,
            status: Mutex::new(Status {
                state: State::Healthy,
                reason: None,
            }),
            sealed: Mutex::new(Sealed {
                new: sealed.len(),
                segments: sealed,
                is_stopped: false,
            }),
            sealed_changed: Condvar::new(),
            active_bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            sync_seconds: Histogram::new(SYNC_BUCKETS),
        }
    }

    pub(super) fn state(&self) -> State {
        self.status.lock().state
    }

    pub(super) fn reason(&self) -> Option<Arc<str>> {
        self.status.lock().reason.clone()
    }

    pub(super) fn check(&self) -> Result<(), AppendError> {
        match self.state() {
            State::Healthy => Ok(()),
            State::Full => Err(AppendError::Full),
            State::Poisoned => Err(AppendError::Poisoned),
            State::Closed => Err(AppendError::Closed),
        }
    }

    pub(super) fn stats(&self) -> JournalStats {
        let state = self.state();
        let sealed = self.sealed.lock();
        JournalStats {
            bytes: sealed.bytes() + self.active_bytes.load(Ordering::Relaxed),
            segments: sealed.segments.len() + 1,
            records: self.records.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            is_full: state == State::Full,
            is_poisoned: state == State::Poisoned,
        }
    }

    pub(super) async fn acquire(&self, payload_bytes: usize) -> Result<OwnedSemaphorePermit, AppendError> {
        let room = self.room.clone().acquire_many_owned(self.cost(payload_bytes));
        room.await.map_err(|_| AppendError::Closed)
    }

    /// Takes room in the queue, unless there is too little, or others wait for it.
    pub(super) fn try_acquire(&self, payload_bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_many_owned(self.cost(payload_bytes)).ok()
    }

    fn cost(&self, payload_bytes: usize) -> u32 {
        // A record larger than the queue has it to itself.
        let bytes = u32::try_from(payload_bytes.saturating_add(ENTRY_BYTES)).unwrap_or(u32::MAX);
        bytes.min(self.room_max)
    }

    pub(super) fn queue(&self, entry: Entry) {
        let mut queue = self.queue.lock();
        if queue.ending.is_some() {
            drop(queue);
            self.failures.fetch_add(1, Ordering::Relaxed);
            let error = self.check().err().unwrap_or(AppendError::Closed);
            return entry.done.call(Err(error));
        }
        queue.entries.push_back(entry);
        let was_empty = queue.entries.len() == 1;
        drop(queue);
        if was_empty {
            self.queue_changed.notify_one();
        }
    }

    pub(super) async fn close(&self) -> Result<(), AppendError> {
        let (sender, receiver) = oneshot::channel();
        if !self.end(Ending::Close(sender)) {
            return Err(AppendError::Closed);
        }
        receiver.await.unwrap_or(Err(AppendError::Poisoned))
    }

    /// Has the threads end once the queue is empty.
    pub(super) fn abandon(&self) {
        self.end(Ending::Abandon);
        self.sealed.lock().is_stopped = true;
        self.sealed_changed.notify_all();
    }

    /// Returns whether this is the first ending.
    fn end(&self, ending: Ending) -> bool {
        let mut queue = self.queue.lock();
        if queue.ending.is_some() {
            return false;
        }
        queue.ending = Some(ending);
        drop(queue);
        let mut status = self.status.lock();
        if status.state != State::Poisoned {
            status.state = State::Closed;
        }
        drop(status);
        // Appenders that wait for room see that at once.
        self.room.close();
        self.queue_changed.notify_one();
        true
    }

    fn set_state(&self, state: State, reason: Option<String>) {
        let mut status = self.status.lock();
        if status.state != State::Closed || state == State::Poisoned {
            status.state = state;
            status.reason = reason.map(Into::into);
        }
    }
}

impl Sealed {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len_bytes).sum()
    }
}

/// The only one that appends.
pub(super) struct Writer {
    storage: Arc<dyn Storage>,
    shared: Arc<Shared>,
    fsync: Fsync,
    segment_bytes: u64,
    disk_bytes_max: u64,
    full_retry_interval: Duration,
    era: u32,
    boot_id: [u8; 16],
    /// Number of the next segment.
    next: u64,
    unsealed: Option<Unsealed>,
    active: Option<Active>,
    health: Health,
    /// Streams with a record that could not be stored, by channel, with the first failure.
    blocked: HashMap<Box<str>, Blocked>,
    buffer: Vec<u8>,
}

/// The segment that is appended to.
struct Active {
    segment: Segment,
    magic: [u8; 4],
    file: Box<dyn SegmentFile>,
    /// Bytes that are known to be on disk.
    synced_bytes: u64,
    /// When the oldest byte that is not was written.
    dirty_since: Option<Instant>,
}

/// As the writer sees it; [`Shared::state`] also knows of the shutdown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Healthy,
    /// Try again then.
    Full(Instant),
    Poisoned,
}

struct Blocked {
    epoch: Box<str>,
    offset: u64,
    since: Instant,
}

enum Step {
    Write(Vec<Entry>),
    Timer,
    End(Ending),
}

/// How much is written at once.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// What has to fit on a disk that was full. More than a file system may have left in a block that it gave us already.
const PROBE_BYTES: usize = 64 << 10;
/// How long an appender may take to see that a record failed before it appends the next one of the stream.
const BLOCKED_MAX: Duration = Duration::from_secs(60);
/// Frame of [`Body::Sealed`], for which each segment has room.
const SEAL_BYTES: u64 = (format::FRAME_FIELDS_BYTES + format::BODY_SEALED.len()) as u64;

impl Writer {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        shared: Arc<Shared>,
        options: &JournalOptions,
        era: u32,
        unsealed: Option<Unsealed>,
        next: u64,
    ) -> Self {
        let segment_bytes = options.segment_bytes.clamp(4 << 10, 1 << 30);
        Self {
            boot_id: storage.boot_id().unwrap_or_default(),
            storage,
            shared,
            fsync: options.fsync,
            segment_bytes,
            // Compaction needs sealed segments to work on.
            disk_bytes_max: options.disk_bytes_max.max(4 * segment_bytes),
            full_retry_interval: options.full_retry_interval,
            era,
            next,
            unsealed,
            active: None,
            health: Health::Healthy,
            blocked: HashMap::new(),
            buffer: Vec::new(),
        }
    }

    /// Creates the first segment. A disk without room is no error.
    pub(super) fn start(&mut self) -> io::Result<()> {
        match self.active() {
            Ok(_) => Ok(()),
            Err(error) if is_full(&error) => {
                self.fail(&error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes until the log is closed.
    pub(super) fn run(mut self) {
        let _guard = PanicGuard(self.shared.clone());
        loop {
            match self.wait() {
                Step::Write(batch) => self.write(batch),
                Step::Timer => {}
                Step::End(ending) => return self.end(ending),
            }
            self.handle_timers(Instant::now());
        }
    }

    fn wait(&self) -> Step {
        let mut queue = self.shared.queue.lock();
        loop {
            if !queue.entries.is_empty() {
                return Step::Write(take_batch(&mut queue.entries));
            }
            if let Some(ending) = queue.ending.take() {
                // Appending fails from now on.
                queue.ending = Some(Ending::Abandon);
                return Step::End(ending);
            }
            match self.deadline() {
                None => self.shared.queue_changed.wait(&mut queue),
                Some(deadline) => {
                    if deadline <= Instant::now() {
                        return Step::Timer;
                    }
                    self.shared.queue_changed.wait_until(&mut queue, deadline);
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.health {
            Health::Full(retry_at) => Some(retry_at),
            Health::Healthy => self.sync_due(),
            Health::Poisoned => None,
        }
    }

    fn sync_due(&self) -> Option<Instant> {
        match self.fsync {
            Fsync::Every(interval) => self.active.as_ref()?.dirty_since?.checked_add(interval),
            Fsync::Always | Fsync::Never => None,
        }
    }

    fn handle_timers(&mut self, now: Instant) {
        if let Health::Full(retry_at) = self.health
            && retry_at <= now
        {
            self.retry();
        }
        if self.health == Health::Healthy && self.sync_due().is_some_and(|due| due <= now) {
            match self.sync() {
                Ok(()) => self.mark_synced(),
                Err(error) => self.fail_for_good(&error),
            }
        }
    }

    fn write(&mut self, mut batch: Vec<Entry>) {
        match self.health {
            Health::Healthy => {}
            Health::Full(_) => return self.fail_batch(batch, AppendError::Full),
            Health::Poisoned => return self.fail_batch(batch, AppendError::Poisoned),
        }
        if !self.blocked.is_empty() {
            let (stored, blocked) = batch.into_iter().partition(|entry| !self.is_blocked(&entry.body));
            self.fail_batch(blocked, AppendError::Full);
            batch = stored;
        }
        match self.store(&batch) {
            Ok(()) => {
                self.shared.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
                for entry in batch {
                    entry.done.call(Ok(()));
                }
                if self.fsync == Fsync::Always && self.shared.queue.lock().entries.is_empty() {
                    self.mark_synced();
                }
            }
            Err(error) => {
                let error = self.fail(&error);
                self.fail_batch(batch, error);
            }
        }
    }

    /// Stores all entries as the policy asks, or none.
    fn store(&mut self, batch: &[Entry]) -> io::Result<()> {
        let frames = batch.iter().map(|entry| entry.body.len() + format::FRAME_FIELDS_BYTES);
        let len = frames.sum::<usize>() as u64;
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.segment.len_bytes + len + SEAL_BYTES > self.segment_bytes)
        {
            self.seal_if_used()?;
        }
        self.check_limit(len)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let active = self.active()?;
        for entry in batch {
            format::encode_frame(&mut buffer, active.magic, active.synced_bytes as u32, &entry.body);
        }
        let result = active.append(&buffer);
        // A large record is not worth keeping its buffer.
        buffer.shrink_to(2 * BATCH_BYTES_MAX);
        self.buffer = buffer;
        result?;
        self.shared.written_bytes.fetch_add(len, Ordering::Relaxed);
        self.note_len();
        match self.fsync {
            Fsync::Always => self.sync().map_err(Fatal::wrap),
            Fsync::Every(_) | Fsync::Never => Ok(()),
        }
    }

    /// The segment to append to, created if needed.
    fn active(&mut self) -> io::Result<&mut Active> {
        if let Some(unsealed) = &self.unsealed {
            let segment = unsealed.seal(&*self.storage, self.era)?;
            self.unsealed = None;
            self.add_sealed(segment);
        }
        if self.active.is_none() {
            self.active = Some(self.create()?);
            self.next += 1;
            self.note_len();
        }
        Ok(self.active.as_mut().expect("created above"))
    }

    fn create(&self) -> io::Result<Active> {
        let segment = Segment {
            first: self.next,
            last: self.next,
            len_bytes: format::HEADER_BYTES as u64,
        };
        let header = Header {
            magic: segment::random_magic(),
            era: self.era,
            boot_id: self.boot_id,
            is_always_synced: self.fsync == Fsync::Always,
        };
        let name = segment.name();
        let mut file = self.storage.create(&name)?;
        if let Err(error) = write_all(&mut *file, &header.encode()) {
            // An incomplete header is ignored at the next start, and overwritten by the next attempt.
            let _ = self.storage.remove(&name);
            return Err(error);
        }
        // The header must be on disk before the first record: it decides how a torn end is judged.
        file.sync().map_err(Fatal::wrap)?;
        self.storage.sync_folder().map_err(Fatal::wrap)?;
        Ok(Active {
            synced_bytes: segment.len_bytes,
            segment,
            magic: header.magic,
            file,
            dirty_since: None,
        })
    }

    /// Ends the active segment. The next one is created when it is needed, and then this one is on disk.
    fn seal_if_used(&mut self) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.segment.len_bytes == format::HEADER_BYTES as u64 {
            return Ok(());
        }
        active.append_control(format::BODY_SEALED)?;
        self.sync().map_err(Fatal::wrap)?;
        if let Some(active) = self.active.take() {
            self.add_sealed(active.segment);
        }
        self.note_len();
        Ok(())
    }

    fn add_sealed(&self, segment: Segment) {
        let mut sealed = self.shared.sealed.lock();
        sealed.segments.push(segment);
        sealed.new += 1;
        drop(sealed);
        self.shared.sealed_changed.notify_all();
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let started = Instant::now();
        active.file.sync()?;
        self.shared.sync_seconds.observe(started.elapsed().as_secs_f64());
        active.synced_bytes = active.segment.len_bytes;
        active.dirty_since = None;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Says in the log how much of it is on disk, so that damage there is never taken for a torn end. It need not be on
    /// disk itself.
    fn mark_synced(&mut self) {
        let Some(active) = &mut self.active else { return };
        match active.append_control(format::BODY_SYNCED) {
            Ok(()) => active.dirty_since = None,
            // Nothing of worth was lost. The next record meets the same disk.
            Err(error) if is_full(&error) => {}
            Err(error) => self.fail_for_good(&error),
        }
        self.note_len();
    }

    /// Whether there is room again.
    fn retry(&mut self) {
        let result = match self.check_limit(self.disk_bytes_max / 8) {
            Ok(()) => self.active().and_then(Active::probe),
            // Compaction makes room, and can only do so in sealed segments.
            Err(error) => self.seal_if_used().and(Err(error)),
        };
        match result {
            Ok(()) => {
                self.health = Health::Healthy;
                self.shared.set_state(State::Healthy, None);
                tracing::info!("the log has room again");
            }
            Err(error) => {
                self.fail(&error);
            }
        }
    }

    fn check_limit(&self, len: u64) -> io::Result<()> {
        let bytes = self.shared.stats().bytes + len;
        if bytes > self.disk_bytes_max {
            let text = format!("the log would exceed its limit of {} bytes", self.disk_bytes_max);
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
        }
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) -> AppendError {
        if !is_full(error) {
            self.fail_for_good(error);
            return AppendError::Poisoned;
        }
        let now = Instant::now();
        self.blocked
            .retain(|_, blocked| now.duration_since(blocked.since) < BLOCKED_MAX);
        if self.health == Health::Healthy {
            tracing::error!(%error, "the log has no room; publications to channels with history fail until it has");
        }
        self.health = Health::Full(now + self.full_retry_interval);
        self.shared.sealed.lock().new += 1;
        self.shared.sealed_changed.notify_all();
        self.shared.set_state(State::Full, Some(error.to_string()));
        AppendError::Full
    }

    fn fail_for_good(&mut self, error: &io::Error) {
        tracing::error!(%error, "the log failed to write; publications to channels with history fail until a restart");
        self.health = Health::Poisoned;
        self.shared.set_state(State::Poisoned, Some(error.to_string()));
    }

    fn fail_batch(&mut self, batch: Vec<Entry>, error: AppendError) {
        self.shared.failures.fetch_add(batch.len() as u64, Ordering::Relaxed);
        for entry in batch {
            self.block(&entry.body);
            entry.done.call(Err(error));
        }
    }

    fn block(&mut self, body: &[u8]) {
        if self.health == Health::Poisoned {
            return;
        }
        let Some(Body::Record(record)) = Body::decode(body) else {
            return;
        };
        // Publications may follow a removal that failed: there is no gap between them.
        if record.kind == RecordKind::Position {
            return;
        }
        let known = self.blocked.get(record.channel);
        if known.is_none_or(|known| *known.epoch != *record.epoch || record.offset < known.offset) {
            let blocked = Blocked {
                epoch: record.epoch.into(),
                offset: record.offset,
                since: Instant::now(),
            };
            self.blocked.insert(record.channel.into(), blocked);
        }
    }

    /// Whether a record continues a stream behind a record that failed. Appending the one that failed again, or
    /// beginning another epoch, ends that.
    fn is_blocked(&mut self, body: &[u8]) -> bool {
        let Some(Body::Record(record)) = Body::decode(body) else {
            return false;
        };
        let Some(blocked) = self.blocked.get(record.channel) else {
            return false;
        };
        let is_behind = match record.kind {
            RecordKind::Publication => record.offset > blocked.offset,
            RecordKind::Position => record.offset >= blocked.offset,
        };
        let is_blocked = *blocked.epoch == *record.epoch && is_behind;
        if !is_blocked {
            self.blocked.remove(record.channel);
        }
        is_blocked
    }

    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::Close(sender) => {
                let result = self.mark_clean_end().map_err(|error| self.fail(&error));
                self.shared.sealed.lock().is_stopped = true;
                self.shared.sealed_changed.notify_all();
                let _ = sender.send(result);
            }
            Ending::Abandon => {
                if self.fsync != Fsync::Never && self.health != Health::Poisoned {
                    // No caller is left to receive an error, and the next start finds no clean end.
                    let _ = self.sync();
                }
            }
        }
    }

    fn mark_clean_end(&mut self) -> io::Result<()> {
        if self.health == Health::Poisoned {
            return Err(io::ErrorKind::Other.into());
        }
        self.active()?;
        self.sync().map_err(Fatal::wrap)?;
        let active = self.active()?;
        let len = active.segment.len_bytes;
        active.append_control(format::BODY_CLEAN_END)?;
        if let Err(error) = active.file.sync() {
            // The next start must not believe a mark that may exist in the page cache only.
            active.file.truncate(len).map_err(Fatal::wrap)?;
            return Err(Fatal::wrap(error));
        }
        self.note_len();
        Ok(())
    }

    fn note_len(&self) {
        let len = self.active.as_ref().map_or(0, |active| active.segment.len_bytes);
        self.shared.active_bytes.store(len, Ordering::Relaxed);
    }
}

impl Active {
    /// Appends all bytes or none.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = write_all(&mut *self.file, bytes) {
            // A part of the bytes must not stay in front of what comes next.
            self.file.truncate(self.segment.len_bytes).map_err(Fatal::wrap)?;
            return Err(error);
        }
        self.segment.len_bytes += bytes.len() as u64;
        self.dirty_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn append_control(&mut self, body: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        format::encode_frame(&mut frame, self.magic, self.synced_bytes as u32, body);
        self.append(&frame)
    }

    /// Writes as much as a disk with room takes, and removes it again. Zeros: a crash in between leaves what looks like
    /// a torn end.
    fn probe(&mut self) -> io::Result<()> {
        let result = write_all(&mut *self.file, &vec![0; PROBE_BYTES]);
        self.file.truncate(self.segment.len_bytes).map_err(Fatal::wrap)?;
        result
    }
}

/// Marks errors that are never a matter of room, whatever the kernel calls them: after them it is unknown what is on
/// disk.
struct Fatal;

impl Fatal {
    fn wrap(error: io::Error) -> io::Error {
        io::Error::other(error)
    }
}

/// Poisons the log if the writer panics, so that no caller waits forever.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.0
            .set_state(State::Poisoned, Some("the writer panicked".to_owned()));
        let mut queue = self.0.queue.lock();
        queue.ending = Some(Ending::Abandon);
        // Dropping them resolves each Ack.
        let entries = std::mem::take(&mut queue.entries);
        drop(queue);
        drop(entries);
    }
}

fn take_batch(entries: &mut VecDeque<Entry>) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += entry.body.len() + format::FRAME_FIELDS_BYTES;
        bytes <= BATCH_BYTES_MAX
    };
    // At least one, however large.
    let count = entries.iter().take_while(fits).count().clamp(1, entries.len());
    entries.drain(..count).collect()
}

/// Waits for news of sealed segments.
pub(super) fn wait_sealed(shared: &Shared, timeout: Duration) -> MutexGuard<'_, Sealed> {
    let mut sealed = shared.sealed.lock();
    shared
        .sealed_changed
        .wait_while_for(&mut sealed, |sealed| sealed.new == 0 && !sealed.is_stopped, timeout);
    sealed
}
