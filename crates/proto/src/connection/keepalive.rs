//! Liveness: when to ping, which pong answers, how long it took, and when the peer is gone.
//!
//! Anything received is a sign of life. A ping goes out after [`Keepalive::interval`] of silence, and the peer is gone
//! after [`Keepalive::timeout`] more of it: a pong that waits behind a large message does not count as missing while
//! that message is arriving.

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
    last_received: Instant,
    /// The one ping that matters: the newest. Boxed, for most of the time there is none.
    ping: Option<Box<Ping>>,
    /// When the oldest ping left that is not answered, by its own pong or by that of a newer ping. A newer ping does
    /// not move it: else a program that pings by itself would never see its peer go.
    unanswered_since: Option<Instant>,
    /// In nanoseconds.
    round_trip: Option<NonZeroU64>,
    /// Numbers our own pings, so that a pong is never taken for the answer to another ping.
    next_nonce: u32,
}

#[derive(Clone, Debug)]
struct Ping {
    payload: Box<[u8]>,
    /// Since when it is on its way; `None` if it is to be sent as soon as there is room.
    sent_at: Option<Instant>,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_received: now,
            ping: None,
            unanswered_since: None,
            round_trip: None,
            next_nonce: 0,
        }
    }

    /// Notes that bytes arrived.
    pub(super) fn handle_received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// Notes a pong; one that answers no ping of ours is ignored (RFC 6455 §5.5.3).
    // [6455-5.5.3-3]
    pub(super) fn handle_pong(&mut self, now: Instant, answer: &[u8]) {
        if let Some(ping) = &self.ping
            && let Some(sent_at) = ping.sent_at
            && *ping.payload == *answer
        {
            let nanoseconds = u64::try_from((now - sent_at).as_nanos()).unwrap_or(u64::MAX);
            self.round_trip = NonZeroU64::new(nanoseconds.max(1));
            self.ping = None;
            self.unanswered_since = None;
        }
    }

    /// Queues a ping; an earlier one that is not answered yet is forgotten.
    pub(super) fn ping(&mut self, payload: Box<[u8]>) {
        let sent_at = None;
        self.ping = Some(Box::new(Ping { payload, sent_at }));
    }

    /// Takes the ping to be sent now, if there is one.
    pub(super) fn poll_ping(&mut self, now: Instant) -> Option<&[u8]> {
        let ping = self.ping.as_mut().filter(|ping| ping.sent_at.is_none())?;
        ping.sent_at = Some(now);
        self.unanswered_since.get_or_insert(now);
        Some(&ping.payload)
    }

    pub(super) fn is_ping_due(&self) -> bool {
        self.ping.as_ref().is_some_and(|ping| ping.sent_at.is_none())
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
            .map(|nanoseconds| Duration::from_nanos(nanoseconds.get()))
    }

    /// When to call [`handle_timeout`](Self::handle_timeout). Moves later with each byte that arrives.
    pub(super) fn deadline(&self, keepalive: &Keepalive) -> Option<Instant> {
        match self.unanswered_since {
            Some(since) => Some(self.last_received.max(since) + keepalive.timeout),
            // A ping that cannot be written is the business of the write deadline.
            None if self.is_ping_due() => None,
            None => Some(self.last_received + keepalive.interval),
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
        self.next_nonce = self.next_nonce.wrapping_add(1);
        Verdict::Ping
    }
}
