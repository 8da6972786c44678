//! Keepalive: sends pings, matches pongs, measures the round-trip time and detects dead peers.
//!
//! Progress in either direction proves that the peer is alive: received bytes, or bytes accepted by a transport whose
//! buffers were full. After [`Keepalive::interval`] without progress a ping is sent. The peer is considered dead after
//! another [`Keepalive::timeout`] without progress, counted from when the ping was written. A ping queued behind our
//! own data, or a pong queued behind the peer's data, therefore does not time out while that data is moving.

use alloc::boxed::Box;
use core::num::NonZeroU64;
use core::time::Duration;

use crate::config::Keepalive;
use crate::time::Instant;

/// What to do when the deadline was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepaliveAction {
    /// The deadline has not passed.
    None,
    /// Send a ping.
    SendPing,
    /// The peer is considered dead.
    TimedOut,
}

#[derive(Clone, Debug)]
pub(super) struct Liveness {
    last_progress: Instant,
    /// The newest unanswered ping. Boxed because most of the time there is none.
    ping: Option<Box<Ping>>,
    /// Estimated time at which the oldest unanswered ping reached the peer. A pong to a newer ping also answers older
    /// ones. A newer ping does not move this: otherwise, an application that sends its own pings would never detect a
    /// dead peer.
    unanswered_since: Option<Instant>,
    /// Round-trip time in nanoseconds. `NonZeroU64` keeps the `Option` small.
    rtt: Option<NonZeroU64>,
    /// The number of pings queued so far. It is the payload of keepalive pings, so that a late pong does not match a
    /// newer ping.
    ping_count: u32,
    /// The number of the newest ping that was answered, counted from 1.
    last_answered: u32,
}

#[derive(Clone, Debug)]
struct Ping {
    payload: Box<[u8]>,
    progress: PingProgress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PingProgress {
    /// To be appended to the caller's buffer by `poll_transmit`.
    Due,
    /// Appended to the caller's buffer.
    Queued,
    /// Written to the transport at this time.
    Written(Instant),
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_progress: now,
            ping: None,
            unanswered_since: None,
            rtt: None,
            ping_count: 0,
            last_answered: 0,
        }
    }

    /// Records progress: bytes were received, or a full transport accepted bytes.
    pub(super) fn handle_progress(&mut self, now: Instant) {
        self.last_progress = now;
    }

    /// Records that the queued ping, if any, was written and reaches the peer after `delay`.
    pub(super) fn handle_transmitted(&mut self, now: Instant, delay: Duration) {
        if let Some(ping) = &mut self.ping
            && ping.progress == PingProgress::Queued
        {
            ping.progress = PingProgress::Written(now);
            self.unanswered_since.get_or_insert(now + delay);
        }
    }

    /// Handles a pong. Ignores unsolicited pongs (RFC 6455 §5.5.3).
    // [6455-5.5.3-3]
    pub(super) fn handle_pong(&mut self, now: Instant, answer: &[u8]) {
        if let Some(ping) = &self.ping
            && let PingProgress::Written(written_at) = ping.progress
            && *ping.payload == *answer
        {
            let nanoseconds = u64::try_from((now - written_at).as_nanos()).unwrap_or(u64::MAX);
            self.rtt = NonZeroU64::new(nanoseconds.max(1));
            self.ping = None;
            self.unanswered_since = None;
            self.last_answered = self.ping_count;
        }
    }

    /// Queues a ping, replacing an unanswered one.
    pub(super) fn ping(&mut self, payload: Box<[u8]>) {
        self.ping_count = self.ping_count.wrapping_add(1);
        let progress = PingProgress::Due;
        self.ping = Some(Box::new(Ping { payload, progress }));
    }

    /// Returns the payload of the ping to append to the caller's buffer, if one is due.
    pub(super) fn poll_ping(&mut self) -> Option<&[u8]> {
        let ping = self.ping.as_mut().filter(|ping| ping.progress == PingProgress::Due)?;
        ping.progress = PingProgress::Queued;
        Some(&ping.payload)
    }

    pub(super) fn is_ping_due(&self) -> bool {
        self.ping
            .as_ref()
            .is_some_and(|ping| ping.progress == PingProgress::Due)
    }

    pub(super) fn is_awaiting_pong(&self) -> bool {
        self.unanswered_since.is_some()
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|nanoseconds| Duration::from_nanos(nanoseconds.get()))
    }

    /// The time at which to call [`handle_timeout`](Self::handle_timeout). Moves later with any progress.
    pub(super) fn deadline(&self, keepalive: &Keepalive) -> Option<Instant> {
        match self.unanswered_since {
            Some(since) => Some(self.last_progress.max(since) + keepalive.timeout),
            // The ping is not written yet. The caller has its own timeout for a transport that accepts no bytes.
            None if self.ping.is_some() => None,
            None => Some(self.last_progress + keepalive.interval),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, keepalive: &Keepalive) -> KeepaliveAction {
        match self.deadline(keepalive) {
            Some(deadline) if now >= deadline => {}
            _ => return KeepaliveAction::None,
        }
        if self.unanswered_since.is_some() {
            return KeepaliveAction::TimedOut;
        }
        self.ping(Box::from(self.ping_count.to_be_bytes()));
        KeepaliveAction::SendPing
    }

    /// Queues a keepalive ping unless one is unanswered. Returns the number of the ping to wait for.
    pub(super) fn start_ping(&mut self) -> u32 {
        if self.ping.is_none() {
            self.ping(Box::from(self.ping_count.to_be_bytes()));
        }
        self.ping_count
    }

    /// Whether this ping or a later one was answered.
    pub(super) fn is_ping_answered(&self, ping: u32) -> bool {
        self.last_answered != 0 && self.last_answered.wrapping_sub(ping) < u32::MAX / 2
    }

    pub(super) fn last_answered(&self) -> u32 {
        self.last_answered
    }
}
