//! Metrics of the server in the format of Prometheus. docs/metrics.md lists them, generated from the registry.

mod labels;
mod process;

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::api::ApiMethod;
use crate::channel::HubStats;
use crate::codes::DisconnectCode;
use crate::engine::{ClusterStats, EngineStats};
use crate::journal;
use crate::protocol::Encoding;
use labels::TransportLabel;
use labels::{
    ApiLabel, CodeLabel, ConsoleLabel, HookFailureLabel, HookLabel, PolicyLabel, ReasonLabel, RecoveredLabel,
    SourceLabel,
};
pub(crate) use labels::{Source, Transport};
pub(crate) use process::Process;

/// The metrics of one server.
pub(crate) struct Metrics {
    registry: Registry,
    publications: Family<SourceLabel, Counter>,
    commands: Counter,
    errors: Family<CodeLabel, Counter>,
    hook_failures: Family<HookFailureLabel, Counter>,
    disconnects: Family<CodeLabel, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    handshakes: Counter,
    connects: Family<TransportLabel, Counter>,
    transports: Family<TransportLabel, Gauge>,
    panics: Counter,
    recoveries: Family<RecoveredLabel, Counter>,
    api_requests: Family<ApiLabel, Counter>,
    api_seconds: Histogram,
    hook_calls: Family<HookLabel, Counter>,
    console_logins: Family<ConsoleLabel, Counter>,
    snapshot: SnapshotMetrics,
    sums: Sums,
}

/// Metrics whose values are read when the page is.
#[derive(Debug, Default)]
struct SnapshotMetrics {
    connections: Gauge,
    clients: Gauge,
    users: Gauge,
    channels: Gauge,
    subscriptions: Gauge,
    deliveries: Counter,
    gaps: Counter,
    dropped: Family<PolicyLabel, Counter>,
    history_bytes: Gauge,
    history_evictions: Counter,
    journal_records: Counter,
    journal_failures: Counter,
    journal_written: Counter,
    journal_bytes: Gauge,
    journal_segments: Gauge,
    journal_full: Gauge,
    journal_poisoned: Gauge,
    engine_connected: Gauge,
    engine_catch_ups: Counter,
    engine_overflows: Counter,
    engine_waiting: Gauge,
    ready: Gauge,
    uptime: Gauge,
    resident_memory: Gauge,
    open_files: Gauge,
    cpu_seconds: Counter<f64, AtomicU64>,
}

/// Sums over all labels, which a [`Family`] does not provide.
#[derive(Debug, Default)]
struct Sums {
    publications: AtomicU64,
    errors: AtomicU64,
    disconnects: AtomicU64,
    refusals: AtomicU64,
}

/// Some counters, each over all labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) publications: u64,
    pub(crate) commands: u64,
    pub(crate) errors: u64,
    pub(crate) disconnects: u64,
    pub(crate) refusals: u64,
}

/// The state of the server when the metrics are read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) connections: usize,
    pub(crate) clients: usize,
    pub(crate) users: usize,
    pub(crate) hub: HubStats,
    pub(crate) engine: EngineStats,
    pub(crate) is_ready: bool,
    pub(crate) uptime_seconds: u64,
}

impl Metrics {
    /// Creates the metrics. `sync_seconds` are the durations of fdatasync, if there is a log.
    pub(crate) fn new(sync_seconds: Option<Histogram>) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("sockeye"),
            publications: Family::default(),
            commands: Counter::default(),
            errors: Family::default(),
            hook_failures: Family::default(),
            disconnects: Family::default(),
            refusals: Family::default(),
            handshakes: Counter::default(),
            connects: Family::default(),
            transports: Family::default(),
            panics: Counter::default(),
            recoveries: Family::default(),
            api_requests: Family::default(),
            // 0.1 ms to 1.6 s.
            api_seconds: Histogram::new(exponential_buckets(0.0001, 4.0, 8)),
            hook_calls: Family::default(),
            console_logins: Family::default(),
            snapshot: SnapshotMetrics::default(),
            sums: Sums::default(),
        };
        metrics.register_clients();
        metrics.register_channels();
        metrics.register_journal(sync_seconds);
        metrics.register_engine();
        metrics.register_server();
        metrics
    }

    fn register_clients(&mut self) {
        let (values, mut to) = (&self.snapshot, Register(&mut self.registry));
        to.add(
            "connections",
            "Open connections, HTTP and WebSocket",
            &values.connections,
        );
        to.add("clients", "Connected clients", &values.clients);
        to.add(
            "transport_clients",
            "Connected clients, by `websocket`, `sse` or `http_stream`, and by `json` or `protobuf`",
            &self.transports,
        );
        to.add(
            "connects",
            "Client connections opened, by transport and format as in `sockeye_transport_clients`",
            &self.connects,
        );
        to.add(
            "users",
            "Distinct users of the clients; all anonymous clients count as one",
            &values.users,
        );
        to.add("handshakes", "Connections that became a WebSocket", &self.handshakes);
        to.add(
            "refusals",
            "Refused connections and handshakes: over the limits `connections`, `address` (connections of one address) or \
             `rate` (handshakes per second), while `draining`, of another `origin` or `host`, and `invalid` handshakes",
            &self.refusals,
        );
        to.add(
            "disconnects",
            "Clients that the server disconnected, by code",
            &self.disconnects,
        );
        to.add(
            "panics",
            "Panics in a client's task (a bug). Only that client's connection ends",
            &self.panics,
        );
        to.add("commands", "Commands of clients", &self.commands);
        to.add("errors", "Error replies to clients, by code", &self.errors);
        to.add(
            "recoveries",
            "Recoveries that clients asked for, by whether they succeeded",
            &self.recoveries,
        );
    }

    fn register_channels(&mut self) {
        let (values, mut to) = (&self.snapshot, Register(&mut self.registry));
        to.add("channels", "Channels with subscribers", &values.channels);
        to.add("subscriptions", "Subscriptions of all clients", &values.subscriptions);
        to.add(
            "publications",
            "Publications, by `client` or `server` (the HTTP API, the console and the embedding program)",
            &self.publications,
        );
        to.add(
            "deliveries",
            "Publications passed to subscribers: one for each publication and subscriber",
            &values.deliveries,
        );
        to.add(
            "dropped_publications",
            "Publications that slow subscribers did not receive, by the policy of the channel: `drop_oldest` or `latest`",
            &values.dropped,
        );
        to.add(
            "gaps",
            "Gaps detected in positioned subscriptions: one per channel when all its subscribers missed a publication, \
             and one per slow subscriber from which `drop_oldest` dropped one",
            &values.gaps,
        );
        to.bytes("history", "Memory of all histories", &values.history_bytes);
        to.add(
            "history_evictions",
            "Histories that were evicted because all of them exceeded `limits.history_bytes_max`",
            &values.history_evictions,
        );
    }

    fn register_journal(&mut self, sync_seconds: Option<Histogram>) {
        let (values, mut to) = (&self.snapshot, Register(&mut self.registry));
        to.add(
            "journal_records",
            "Records stored in the log (`--data`)",
            &values.journal_records,
        );
        to.add(
            "journal_failures",
            "Records that could not be stored; each is a publication that failed",
            &values.journal_failures,
        );
        to.add("journal_segments", "Files of the log", &values.journal_segments);
        to.add(
            "journal_full",
            "1 while the log has no room. Publications to channels with history fail, until there is room",
            &values.journal_full,
        );
        to.add(
            "journal_poisoned",
            "1 after a failed write or fdatasync. Publications to channels with history fail until a restart",
            &values.journal_poisoned,
        );
        to.bytes("journal_size", "Size of the log on disk", &values.journal_bytes);
        to.bytes(
            "journal_written",
            "Bytes written to the log, without those that compaction rewrites",
            &values.journal_written,
        );
        to.seconds(
            "journal_sync_duration",
            "Time of calls of fdatasync",
            &sync_seconds.unwrap_or_else(|| Histogram::new(journal::SYNC_BUCKETS)),
        );
    }

    fn register_engine(&mut self) {
        let (values, mut to) = (&self.snapshot, Register(&mut self.registry));
        to.add(
            "engine_connected",
            "1 while the engine is reachable: always with the embedded engine, and with Redis or NATS while the node is connected and probes are stored and delivered",
            &values.engine_connected,
        );
        to.add(
            "engine_catch_ups",
            "How often the stream of a channel was read again, because messages of Redis or NATS may have been missing",
            &values.engine_catch_ups,
        );
        to.add(
            "engine_overflows",
            "Messages of Redis or NATS that found no room in this node. Publications of a history are then read again",
            &values.engine_overflows,
        );
        to.bytes(
            "engine_waiting",
            "Publications that wait until Redis or NATS is reachable (`outage_buffer`)",
            &values.engine_waiting,
        );
    }

    fn register_server(&mut self) {
        let (values, mut to) = (&self.snapshot, Register(&mut self.registry));
        to.add(
            "api_requests",
            "Requests of the HTTP API, by method and HTTP status",
            &self.api_requests,
        );
        to.add(
            "hook_failures",
            "Client events for which the hook or handler gave no valid answer (timeout, circuit open, invalid reply)",
            &self.hook_failures,
        );
        to.add(
            "hook_calls",
            "Calls of the backend, by hook and outcome: `ok`, `failed`, `timeout`, or `paused` after failures",
            &self.hook_calls,
        );
        to.add(
            "console_logins",
            "Attempts to sign in to the console: `ok`, `wrong`, or `limited`",
            &self.console_logins,
        );
        to.add(
            "ready",
            "1 if the last readiness check succeeded: a request to `/health/ready`, or without requests the server's own \
             check, every 15 s",
            &values.ready,
        );
        to.add(
            "open_files",
            "Open file descriptors of the process (Linux)",
            &values.open_files,
        );
        to.seconds(
            "api_request_duration",
            "Time of requests of the HTTP API",
            &self.api_seconds,
        );
        to.seconds("uptime", "Time since the start", &values.uptime);
        to.bytes(
            "resident_memory",
            "Resident memory of the process (Linux)",
            &values.resident_memory,
        );
        to.seconds(
            "cpu",
            "CPU time of the process, user and system (Linux)",
            &values.cpu_seconds,
        );
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        self.registry
            .register("build", "The version of the server", Info::new(version));
    }

    pub(crate) fn publication(&self, source: Source) {
        self.sums.publications.fetch_add(1, Ordering::Relaxed);
        self.publications.get_or_create(&SourceLabel { source }).inc();
    }

    pub(crate) fn command(&self) {
        self.commands.inc();
    }

    pub(crate) fn error(&self, code: u32) {
        self.sums.errors.fetch_add(1, Ordering::Relaxed);
        self.errors.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts an event without a decision.
    pub(crate) fn hook_failure(&self, hook: &'static str) {
        self.hook_failures.get_or_create(&HookFailureLabel { hook }).inc();
    }

    pub(crate) fn disconnect(&self, code: DisconnectCode) {
        self.sums.disconnects.fetch_add(1, Ordering::Relaxed);
        let code = u32::from(code.code());
        self.disconnects.get_or_create(&CodeLabel { code }).inc();
    }

    pub(crate) fn refusal(&self, reason: &'static str) {
        self.sums.refusals.fetch_add(1, Ordering::Relaxed);
        self.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a panic in the task of a client.
    pub(crate) fn panic(&self) {
        self.panics.inc();
    }

    pub(crate) fn handshake(&self) {
        self.handshakes.inc();
    }

    pub(crate) fn client_opened(&self, transport: Transport, encoding: Encoding) {
        let label = TransportLabel::new(transport, encoding);
        self.connects.get_or_create(&label).inc();
        self.transports.get_or_create(&label).inc();
    }

    pub(crate) fn client_closed(&self, transport: Transport, encoding: Encoding) {
        let label = TransportLabel::new(transport, encoding);
        self.transports.get_or_create(&label).dec();
    }

    pub(crate) fn recovery(&self, recovered: bool) {
        let recovered = if recovered { "true" } else { "false" };
        self.recoveries.get_or_create(&RecoveredLabel { recovered }).inc();
    }

    /// Counts a request of the HTTP API. `method` is `None` if it was refused before the method was known.
    pub(crate) fn api_request(&self, method: Option<ApiMethod>, status: u16, seconds: f64) {
        let label = ApiLabel {
            method: method.map_or("unknown", ApiMethod::name),
            status: status.into(),
        };
        self.api_requests.get_or_create(&label).inc();
        self.api_seconds.observe(seconds);
    }

    /// Counts a call of the backend.
    pub(crate) fn hook_call(&self, hook: &'static str, outcome: &'static str) {
        self.hook_calls.get_or_create(&HookLabel { hook, outcome }).inc();
    }

    /// Counts an attempt to sign in to the console.
    pub(crate) fn console_login(&self, result: &'static str) {
        self.console_logins.get_or_create(&ConsoleLabel { result }).inc();
    }

    pub(crate) fn totals(&self) -> Totals {
        let load = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Totals {
            publications: load(&self.sums.publications),
            commands: self.commands.get(),
            errors: load(&self.sums.errors),
            disconnects: load(&self.sums.disconnects),
            refusals: load(&self.sums.refusals),
        }
    }

    /// Formats all metrics in the text format of OpenMetrics.
    pub(crate) fn encode(&self, snapshot: Snapshot) -> String {
        self.snapshot.set(snapshot);
        let mut encoded = String::new();
        if text::encode(&mut encoded, &self.registry).is_err() {
            let _ = encoded.write_str("# EOF\n");
        }
        encoded
    }
}

/// Adds metrics to a registry.
struct Register<'a>(&'a mut Registry);

impl Register<'_> {
    fn add(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.0.register(name, help, metric.clone());
    }

    fn bytes(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.0.register_with_unit(name, help, Unit::Bytes, metric.clone());
    }

    fn seconds(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.0.register_with_unit(name, help, Unit::Seconds, metric.clone());
    }
}

impl SnapshotMetrics {
    fn set(&self, snapshot: Snapshot) {
        let Snapshot { hub, engine, .. } = snapshot;
        let journal = engine.journal;
        // The embedded engine is always there.
        let cluster = engine.cluster.unwrap_or(ClusterStats {
            is_connected: true,
            ..ClusterStats::default()
        });
        let process = Process::read();
        for (gauge, value) in [
            (&self.connections, snapshot.connections),
            (&self.clients, snapshot.clients),
            (&self.users, snapshot.users),
            (&self.channels, hub.channels),
            (&self.subscriptions, hub.subscriptions),
            (&self.history_bytes, engine.history_bytes),
            (&self.journal_bytes, journal.bytes as usize),
            (&self.journal_segments, journal.segments),
            (&self.journal_full, journal.is_full.into()),
            (&self.journal_poisoned, journal.is_poisoned.into()),
            (&self.engine_connected, cluster.is_connected.into()),
            (&self.engine_waiting, cluster.waiting_bytes),
            (&self.ready, snapshot.is_ready.into()),
            (&self.uptime, snapshot.uptime_seconds as usize),
            (&self.resident_memory, process.resident_bytes),
            (&self.open_files, process::open_files()),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let dropped = |policy| self.dropped.get_or_create_owned(&PolicyLabel { policy });
        for (counter, value) in [
            (&self.deliveries, hub.deliveries),
            (&dropped("drop_oldest"), hub.dropped.oldest),
            (&dropped("latest"), hub.dropped.replaced),
            (&self.gaps, hub.gaps),
            (&self.history_evictions, engine.evictions),
            (&self.engine_catch_ups, cluster.catch_ups),
            (&self.engine_overflows, cluster.overflows),
            (&self.journal_records, journal.records),
            (&self.journal_failures, journal.failures),
            (&self.journal_written, journal.written_bytes),
        ] {
            counter.inner().store(value, Ordering::Relaxed);
        }
        let cpu_seconds = process.cpu_seconds.to_bits();
        self.cpu_seconds.inner().store(cpu_seconds, Ordering::Relaxed);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Metrics shared by all parts of a server.
pub(crate) type SharedMetrics = Arc<Metrics>;

#[cfg(test)]
mod tests;
