//! Counters of the server in the format of Prometheus. docs/metrics.md lists them, which a test checks.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::api::ApiMethod;
use crate::codes::DisconnectCode;

/// The metrics of one server.
pub(crate) struct Metrics {
    registry: Registry,
    /// Publications through this server.
    publications: Family<SourceLabel, Counter>,
    commands: Counter,
    errors: Family<CodeLabel, Counter>,
    hook_failures: Family<HookLabel, Counter>,
    disconnects: Family<CodeLabel, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    handshakes: Counter,
    recoveries: Family<RecoveredLabel, Counter>,
    api_requests: Family<ApiLabel, Counter>,
    api_seconds: Histogram,
    gauges: Gauges,
}

/// Values that are read when the metrics are.
#[derive(Debug, Default)]
struct Gauges {
    connections: Gauge,
    clients: Gauge,
    users: Gauge,
    channels: Gauge,
    subscriptions: Gauge,
    ready: Gauge,
    uptime: Gauge,
    resident_memory: Gauge,
    open_files: Gauge,
    cpu_seconds: Counter<f64, std::sync::atomic::AtomicU64>,
    dropped: Counter,
}

/// The state of the server when the metrics are read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) connections: usize,
    pub(crate) clients: usize,
    pub(crate) users: usize,
    pub(crate) channels: usize,
    pub(crate) subscriptions: usize,
    pub(crate) is_ready: bool,
    pub(crate) uptime_seconds: u64,
    /// Publications that slow clients did not receive.
    pub(crate) dropped: u64,
}

/// Who published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Source {
    /// A client.
    #[expect(non_camel_case_types, reason = "the value of the label")]
    client,
    /// The HTTP API or the embedding program.
    #[expect(non_camel_case_types, reason = "the value of the label")]
    server,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabel {
    hook: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecoveredLabel {
    recovered: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabel {
    method: &'static str,
    status: u32,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("sockeye"),
            publications: Family::default(),
            commands: Counter::default(),
            errors: Family::default(),
            hook_failures: Family::default(),
            disconnects: Family::default(),
            refusals: Family::default(),
            handshakes: Counter::default(),
            recoveries: Family::default(),
            api_requests: Family::default(),
            // 0.1 ms to 1.6 s.
            api_seconds: Histogram::new(exponential_buckets(0.0001, 4.0, 8)),
            gauges: Gauges::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let gauges = &self.gauges;
        registry.register(
            "connections",
            "Open connections, HTTP and WebSocket",
            gauges.connections.clone(),
        );
        registry.register("clients", "Connected clients", gauges.clients.clone());
        registry.register("users", "Distinct users of the clients", gauges.users.clone());
        registry.register("channels", "Channels with subscribers", gauges.channels.clone());
        registry.register(
            "subscriptions",
            "Subscriptions of all clients",
            gauges.subscriptions.clone(),
        );
        registry.register(
            "ready",
            "Whether the last readiness check succeeded",
            gauges.ready.clone(),
        );
        registry.register_with_unit("uptime", "Time since the start", Unit::Seconds, gauges.uptime.clone());
        registry.register_with_unit(
            "resident_memory",
            "Resident memory of the process (Linux)",
            Unit::Bytes,
            gauges.resident_memory.clone(),
        );
        registry.register(
            "open_files",
            "Open file descriptors of the process (Linux)",
            gauges.open_files.clone(),
        );
        registry.register_with_unit(
            "cpu",
            "CPU time of the process, user and system (Linux)",
            Unit::Seconds,
            gauges.cpu_seconds.clone(),
        );
        registry.register(
            "dropped_publications",
            "Publications that slow clients did not receive, by the policies of their channels",
            gauges.dropped.clone(),
        );
        registry.register(
            "publications",
            "Publications through this server",
            self.publications.clone(),
        );
        registry.register("commands", "Commands of clients", self.commands.clone());
        registry.register("errors", "Error replies to clients, by code", self.errors.clone());
        registry.register(
            "hook_failures",
            "Events of clients that the backend or a handler did not decide about",
            self.hook_failures.clone(),
        );
        registry.register(
            "disconnects",
            "Clients disconnected by the server, by code",
            self.disconnects.clone(),
        );
        registry.register(
            "refusals",
            "Refused connections and upgrades, by reason",
            self.refusals.clone(),
        );
        registry.register(
            "handshakes",
            "Connections that became a WebSocket",
            self.handshakes.clone(),
        );
        registry.register(
            "recoveries",
            "Recoveries that clients asked for",
            self.recoveries.clone(),
        );
        registry.register("api_requests", "Requests of the HTTP API", self.api_requests.clone());
        registry.register_with_unit(
            "api_request_duration",
            "Time of requests of the HTTP API",
            Unit::Seconds,
            self.api_seconds.clone(),
        );
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let info = prometheus_client::metrics::info::Info::new(version);
        registry.register("build", "The version of the server", info);
    }

    pub(crate) fn publication(&self, source: Source) {
        self.publications.get_or_create(&SourceLabel { source }).inc();
    }

    pub(crate) fn command(&self) {
        self.commands.inc();
    }

    pub(crate) fn error(&self, code: u32) {
        self.errors.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts an event without a decision.
    pub(crate) fn hook_failure(&self, hook: &'static str) {
        self.hook_failures.get_or_create(&HookLabel { hook }).inc();
    }

    pub(crate) fn disconnect(&self, code: DisconnectCode) {
        let code = u32::from(code.code());
        self.disconnects.get_or_create(&CodeLabel { code }).inc();
    }

    pub(crate) fn refusal(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn handshake(&self) {
        self.handshakes.inc();
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

    /// Formats all metrics in the text format of OpenMetrics.
    pub(crate) fn encode(&self, snapshot: Snapshot) -> String {
        let gauges = &self.gauges;
        let set = |gauge: &Gauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&gauges.connections, snapshot.connections);
        set(&gauges.clients, snapshot.clients);
        set(&gauges.users, snapshot.users);
        set(&gauges.channels, snapshot.channels);
        set(&gauges.subscriptions, snapshot.subscriptions);
        set(&gauges.ready, snapshot.is_ready.into());
        set(&gauges.uptime, snapshot.uptime_seconds as usize);
        gauges
            .dropped
            .inner()
            .store(snapshot.dropped, std::sync::atomic::Ordering::Relaxed);
        let process = Process::read();
        set(&gauges.resident_memory, process.resident_bytes);
        set(&gauges.open_files, process.open_files);
        gauges
            .cpu_seconds
            .inner()
            .store(process.cpu_seconds.to_bits(), std::sync::atomic::Ordering::Relaxed);
        let mut encoded = String::new();
        if text::encode(&mut encoded, &self.registry).is_err() {
            let _ = encoded.write_str("# EOF\n");
        }
        encoded
    }
}

/// What the kernel tells about this process; zero if it does not.
#[derive(Clone, Copy, Debug, Default)]
struct Process {
    resident_bytes: usize,
    open_files: usize,
    cpu_seconds: f64,
}

impl Process {
    fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident_kib: usize = resident
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        let stat = read("/proc/self/stat");
        // The name of the program, in parentheses, may contain spaces. User and system time are fields 14 and 15.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Self {
            resident_bytes: resident_kib * 1024,
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1)),
            // Linux always reports 100 ticks per second to user space.
            cpu_seconds: ticks as f64 / 100.0,
        }
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
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn encoded() -> String {
        let metrics = Metrics::new();
        metrics.publication(Source::client);
        metrics.publication(Source::server);
        metrics.command();
        metrics.error(103);
        metrics.hook_failure("publish");
        metrics.disconnect(DisconnectCode::Slow);
        metrics.refusal("connections");
        metrics.handshake();
        metrics.recovery(true);
        metrics.api_request(Some(ApiMethod::Publish), 200, 0.001);
        metrics.encode(Snapshot {
            clients: 3,
            is_ready: true,
            ..Snapshot::default()
        })
    }

    #[test]
    fn metrics_are_encoded_with_their_labels() {
        let text = encoded();
        for line in [
            "sockeye_clients 3\n",
            "sockeye_ready 1\n",
            "sockeye_publications_total{source=\"client\"} 1\n",
            "sockeye_errors_total{code=\"103\"} 1\n",
            "sockeye_disconnects_total{code=\"3008\"} 1\n",
            "sockeye_api_requests_total{method=\"publish\",status=\"200\"} 1\n",
            "sockeye_recoveries_total{recovered=\"true\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_page_lists_all_metrics_and_no_others() {
        let text = encoded();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let existing: BTreeSet<String> = types
            .map(|line| {
                let (name, kind) = line.split_once(' ').unwrap();
                match kind {
                    "counter" => format!("{name}_total"),
                    "info" => format!("{name}_info"),
                    _ => name.to_owned(),
                }
            })
            .collect();
        let page = include_str!("../../../docs/metrics.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: BTreeSet<String> = rows
            .filter_map(|row| Some(row.split_once('`')?.0.split('{').next()?.to_owned()))
            .collect();
        assert_eq!(documented, existing);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_has_memory_and_files() {
        let process = Process::read();
        assert!(process.resident_bytes > 1 << 20, "{process:?}");
        assert!(process.open_files >= 3, "{process:?}");
    }
}
