//! The metrics of connections. Their names are listed in docs/guide/observability.md.

use std::time::Duration;

use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::labels::{EndCause, Role};
use crate::error::{Error, ErrorKind};
use crate::stats::{ConnectionStats, DirectionStats};

const CONNECTIONS_OPEN: &str = "sockeye_ws_connections_open";
const CONNECTIONS: &str = "sockeye_ws_connections_total";
const HANDSHAKE_FAILURES: &str = "sockeye_ws_handshake_failures_total";
const MESSAGES: &str = "sockeye_ws_messages_total";
const BYTES: &str = "sockeye_ws_bytes_total";
const CLOSES: &str = "sockeye_ws_closes_total";
const ROUND_TRIP: &str = "sockeye_ws_round_trip_seconds";
const QUEUE_WAIT: &str = "sockeye_ws_queue_wait_seconds";

/// Registers the descriptions and units of all metrics of this crate with the recorder of the process, for exporters
/// that show them. Call it once, after the recorder is installed. The metrics are recorded without it.
pub fn describe_metrics() {
    describe_gauge!(CONNECTIONS_OPEN, "Open connections.");
    describe_counter!(CONNECTIONS, "Connections whose opening handshake succeeded.");
    describe_counter!(HANDSHAKE_FAILURES, "Opening handshakes that failed.");
    describe_counter!(MESSAGES, "Messages that were encoded, or received completely.");
    describe_counter!(
        BYTES,
        Unit::Bytes,
        "Bytes of frames written to and read from the transport."
    );
    describe_counter!(CLOSES, "Connections that ended.");
    describe_histogram!(ROUND_TRIP, Unit::Seconds, "Round-trip times of answered pings.");
    describe_histogram!(
        QUEUE_WAIT,
        Unit::Seconds,
        "Time from queuing a message until it is written to the transport."
    );
}

/// The counters of a connection, looked up once.
pub(super) struct Connection {
    role: Role,
    sent: Direction,
    received: Direction,
    /// The number of the newest ping whose round trip was reported.
    answered_ping: u32,
}

/// The counters of one direction, and what was reported to them.
struct Direction {
    messages: Counter,
    bytes: Counter,
    reported_messages: u64,
    reported_bytes: u64,
}

impl Connection {
    pub(super) fn open(role: Role) -> Self {
        let name = role.as_str();
        counter!(CONNECTIONS, "role" => name).increment(1);
        gauge!(CONNECTIONS_OPEN, "role" => name).increment(1.0);
        Self {
            role,
            sent: Direction::new(name, "sent"),
            received: Direction::new(name, "received"),
            answered_ping: 0,
        }
    }

    pub(super) fn record_counts(&mut self, stats: &ConnectionStats) {
        self.sent.record(&stats.sent);
        self.received.record(&stats.received);
    }

    pub(super) fn record_round_trip(&mut self, ping: u32, time: Duration) {
        if std::mem::replace(&mut self.answered_ping, ping) == ping {
            return;
        }
        histogram!(ROUND_TRIP, "role" => self.role.as_str()).record(time.as_secs_f64());
    }

    pub(super) fn record_queue_wait(&self, time: Duration) {
        histogram!(QUEUE_WAIT, "role" => self.role.as_str()).record(time.as_secs_f64());
    }

    pub(super) fn close(mut self, stats: &ConnectionStats, cause: EndCause) {
        self.record_counts(stats);
        let role = self.role.as_str();
        counter!(CLOSES, "role" => role, "cause" => cause.as_str()).increment(1);
        gauge!(CONNECTIONS_OPEN, "role" => role).decrement(1.0);
    }
}

impl Direction {
    fn new(role: &'static str, direction: &'static str) -> Self {
        Self {
            messages: counter!(MESSAGES, "role" => role, "direction" => direction),
            bytes: counter!(BYTES, "role" => role, "direction" => direction),
            reported_messages: 0,
            reported_bytes: 0,
        }
    }

    fn record(&mut self, stats: &DirectionStats) {
        report(&self.messages, &mut self.reported_messages, stats.messages);
        report(&self.bytes, &mut self.reported_bytes, stats.bytes);
    }
}

fn report(counter: &Counter, reported: &mut u64, total: u64) {
    if total > *reported {
        counter.increment(total - *reported);
        *reported = total;
    }
}

pub(super) fn record_handshake_failure(role: Role, error: &Error) {
    let kind = match error.kind() {
        ErrorKind::Resolve => "resolve",
        ErrorKind::Connect => "connect",
        ErrorKind::Proxy => "proxy",
        ErrorKind::Tls => "tls",
        ErrorKind::Handshake => "handshake",
        ErrorKind::Denied => "denied",
        ErrorKind::Rejected => "rejected",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Io => "io",
        ErrorKind::Closed => "closed",
        ErrorKind::InvalidInput => "invalid_input",
        ErrorKind::Protocol | ErrorKind::Other => "other",
    };
    counter!(HANDSHAKE_FAILURES, "role" => role.as_str(), "kind" => kind).increment(1);
}
