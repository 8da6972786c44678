//! The state of a split connection when it was last unlocked.
//!
//! Tasks that find the connection locked decide with it whether a message fits and what to wait for. Only the lock
//! holder updates it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32};
use std::time::{Duration, Instant};

use sockeye_proto::Role;

use crate::endpoint::{Driver, PART_LEN, WakeFlags};
use crate::num::saturating_u32;
use crate::runtime::Runtime;

/// The state of the connection when it was last unlocked, for tasks that find it locked. Small, because every
/// connection has it.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The number of bytes that may still be queued, if the queue is not empty.
    pub(super) capacity: AtomicU32,
    /// The number of bytes that wait to be written.
    pub(super) queued: AtomicU32,
    /// When a message first found no capacity, in milliseconds of the connection's clock modulo 2^32; 0 while there is
    /// capacity.
    pub(super) full_since: AtomicU32,
    /// The round-trip time in microseconds plus 1; 0 if unknown.
    pub(super) rtt: AtomicU32,
    /// The number of the newest answered ping.
    pub(super) answered_ping: AtomicU32,
    /// The bits of a [`WakeFlags`] and of [`status`].
    pub(super) status: AtomicU8,
    /// A [`FlushedBy`]. Only used by the lock holder, but stored here, where it takes no additional memory.
    pub(super) flushed_by: AtomicU8,
    has_deflate: bool,
    is_server: bool,
}

/// The task that will flush the messages queued by `try_send`. While there is one, further messages schedule nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FlushedBy {
    /// No flush is needed.
    None,
    /// The tasks that wait for the connection. They were woken, and none has been polled yet.
    WaitingTasks,
    /// The task of a [batch](super::flush_batch).
    Batch,
}

impl Snapshot {
    pub(super) fn new(driver: &Driver) -> Self {
        let connection = driver.connection();
        Self {
            capacity: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            full_since: AtomicU32::new(0),
            rtt: AtomicU32::new(0),
            answered_ping: AtomicU32::new(0),
            status: AtomicU8::new(0),
            flushed_by: AtomicU8::new(FlushedBy::None as u8),
            has_deflate: connection.deflate_config().is_some(),
            is_server: matches!(connection.role(), Role::Server),
        }
    }

    /// Stores the state of the driver. Returns whether every pending operation must be polled again.
    #[inline]
    pub(super) fn update(&self, driver: &Driver) -> bool {
        let used_len = driver.used_len();
        let wake_flags = driver.wake_flags();
        let mut status = wake_flags.bits();
        if used_len == 0 {
            status |= status::EMPTY;
        }
        if driver.is_queue_blocked() {
            status |= status::BLOCKED;
        }
        let rtt = driver.connection().rtt().map_or(0, |time| {
            u32::try_from(time.as_micros()).unwrap_or(u32::MAX).saturating_add(1)
        });
        let capacity = saturating_u32(driver.write_buffer_max().saturating_sub(used_len));
        let before = WakeFlags::from_bits(self.status.load(Relaxed));
        self.capacity.store(capacity, Relaxed);
        self.queued.store(saturating_u32(driver.queued_len()), Relaxed);
        self.full_since.store(driver.full_since().map_or(0, millis), Relaxed);
        self.rtt.store(rtt, Relaxed);
        self.status.store(status, Relaxed);
        let answered = driver.connection().last_answered_ping();
        let is_new_pong = self.answered_ping.load(Relaxed) != answered;
        self.answered_ping.store(answered, Relaxed);
        wake_flags.must_wake_since(before) || is_new_pong
    }

    /// Records that the queue is full, unless that is recorded already. Returns since when.
    pub(super) fn record_queue_full(&self, runtime: Runtime) -> Instant {
        let now = runtime.now();
        let since = self.full_since.load(Relaxed);
        if since == 0 {
            self.full_since.store(millis(now), Relaxed);
            return runtime.to_std(now);
        }
        // Modulo 2^32 ms, so correct for 49 days.
        let elapsed = Duration::from_millis(millis(now).wrapping_sub(since).into());
        let now = runtime.to_std(now);
        now.checked_sub(elapsed).unwrap_or(now)
    }

    /// Reduces the capacity by the length of messages that are about to be queued.
    pub(super) fn reduce_capacity(&self, len: usize, is_blocked: bool) {
        let capacity = self.capacity.load(Relaxed).saturating_sub(saturating_u32(len));
        self.capacity.store(capacity, Relaxed);
        let mut status = self.status.load(Relaxed) & !status::EMPTY;
        if is_blocked {
            status |= status::BLOCKED;
        }
        self.status.store(status, Relaxed);
    }

    /// Whether a message of this size may be compressed in parts, so that nothing can be queued behind it.
    pub(super) fn is_compressed_in_parts(&self, len: usize, is_prepared: bool) -> bool {
        let is_framed_already = is_prepared && self.is_server;
        self.has_deflate && len > PART_LEN && !is_framed_already
    }
}

/// The bits of [`Snapshot::status`] in addition to those of [`WakeFlags`].
pub(super) mod status {
    /// Nothing is queued or reserved: there is capacity for one message of any size.
    pub(in crate::websocket) const EMPTY: u8 = 1 << 4;
    /// Nothing can be queued: a large message is being compressed, or tasks wait for a reservation.
    pub(in crate::websocket) const BLOCKED: u8 = 1 << 5;
}

/// Milliseconds of the connection's clock, modulo 2^32. 1 instead of 0, which means that the queue is not full.
fn millis(instant: sockeye_proto::Instant) -> u32 {
    (instant.since_origin().as_millis() as u32).max(1)
}
