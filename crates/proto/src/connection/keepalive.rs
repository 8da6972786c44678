//! Liveness: when to ping, which pong answers, how long it took, and when the peer is gone.
//!
//! Progress in either direction is a sign of life: bytes that arrive, and bytes that a full transport takes again. A
//! ping goes out after [`Keepalive::interval`] without progress. The peer is gone after another
//! [`Keepalive::timeout`] without progress, counted from when the ping was written: a ping that waits behind our own
//! data, and a pong that waits behind the peer's, do not count as missing while that data moves.

use alloc::boxed::Box;
use core::num::NonZeroU64;
use core::time::Duration;

use crate::config::Keepalive;
use crate::time::Instant;

/// What a passed deadline means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is due.
    Wait,
    /// A ping is due.
    Ping,
    /// The peer is gone.
    Gone,
}

#[derive(Clone, Debug)]
pub(super) struct Liveness {
    last_progress: Instant,
    /// The one ping that matters: the newest. Boxed, for most of the time there is none.
    ping: Option<Box<Ping>>,
    /// When the oldest unanswered ping reached the peer, by estimate. A pong to a newer ping answers the older ones too. A
    /// newer ping does not move it: else a program that pings by itself would never see its peer go.
    unanswered_since: Option<Instant>,
    /// In nanoseconds.
    round_trip: Option<NonZeroU64>,
    /// How many pings were queued. Numbers our own pings, so that a pong is never taken for the answer to another ping.
    next_nonce: u32,
    /// The number of the newest ping that was answered, counted from 1.
    answered: u32,
}

#[derive(Clone, Debug)]
struct Ping {
    payload: Box<[u8]>,
    progress: PingProgress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PingProgress {
    /// To be appended to the caller's buffer as soon as there is room.
    Due,
    /// In the caller's buffer.
    Queued,
    /// Written to the transport, at this moment.
    Written(Instant),
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_progress: now,
            ping: None,
            unanswered_since: None,
            round_trip: None,
            next_nonce: 0,
            answered: 0,
        }
    }

    /// Notes progress: bytes arrived, or a full transport took some.
    pub(super) fn handle_progress(&mut self, now: Instant) {
        self.last_progress = now;
    }

    /// Notes that the ping in the caller's buffer, if there is one, was written, and reaches the peer after `delay`.
    pub(super) fn handle_transmitted(&mut self, now: Instant, delay: Duration) {
        if let Some(ping) = &mut self.ping
            && ping.progress == PingProgress::Queued
        {
            ping.progress = PingProgress::Written(now);
            self.unanswered_since.get_or_insert(now + delay);
        }
    }

    /// Notes a pong; one that answers no ping of ours is ignored (RFC 6455 §5.5.3).
    // [6455-5.5.3-3]
    pub(super) fn handle_pong(&mut self, now: Instant, answer: &[u8]) {
        if let Some(ping) = &self.ping
            && let PingProgress::Written(written_at) = ping.progress
            && *ping.payload == *answer
        {
            let nanoseconds = u64::try_from((now - written_at).as_nanos()).unwrap_or(u64::MAX);
            self.round_trip = NonZeroU64::new(nanoseconds.max(1));
            self.ping = None;
            self.unanswered_since = None;
            self.answered = self.next_nonce;
        }
    }

    /// Queues a ping; an earlier one that is not answered yet is forgotten.
    pub(super) fn ping(&mut self, payload: Box<[u8]>) {
        self.next_nonce = self.next_nonce.wrapping_add(1);
        let progress = PingProgress::Due;
        self.ping = Some(Box::new(Ping { payload, progress }));
    }

    /// Takes the ping to be appended to the caller's buffer, if one is due.
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

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
            .map(|nanoseconds| Duration::from_nanos(nanoseconds.get()))
    }

    /// When to call [`handle_timeout`](Self::handle_timeout). Moves later with all progress.
    pub(super) fn deadline(&self, keepalive: &Keepalive) -> Option<Instant> {
        match self.unanswered_since {
            Some(since) => Some(self.last_progress.max(since) + keepalive.timeout),
            // A ping that is not written yet waits for the transport, which has a deadline of the caller's.
            None if self.ping.is_some() => None,
            None => Some(self.last_progress + keepalive.interval),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, keepalive: &Keepalive) -> Verdict {
        match self.deadline(keepalive) {
            Some(deadline) if now >= deadline => {}
            _ => return Verdict::Wait,
        }
        if self.unanswered_since.is_some() {
            return Verdict::Gone;
        }
        self.ping(Box::from(self.next_nonce.to_be_bytes()));
        Verdict::Ping
    }

    /// Queues a ping with a payload of its own, unless one is not answered yet. Returns the number of the ping that is not.
    pub(super) fn probe(&mut self) -> u32 {
        if self.ping.is_none() {
            self.ping(Box::from(self.next_nonce.to_be_bytes()));
        }
        self.next_nonce
    }

    /// Whether this ping or a later one was answered.
    pub(super) fn is_answered(&self, ping: u32) -> bool {
        self.answered != 0 && self.answered.wrapping_sub(ping) < u32::MAX / 2
    }

    pub(super) fn answered(&self) -> u32 {
        self.answered
    }
}
