//! The printed table: one row per behaviour.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use super::behaviour::{Behaviour, Bounds};

/// Factor by which a neighbour's round trip may be longer beside the crowd than apart from it before the row is marked.
const LATENCY_RATIO_MAX: f64 = 1.5;

/// Explains the columns.
pub(super) const LEGEND: &str = "\
memory: peak user memory (Pss_Anon) of the server per connection, and its bound; after: memory that the allocator keeps
        when the connections are gone. Kernel socket buffers are not included.
cpu:    processor time of the server per connection until all peers are in position, and its bound
held:   share of one core that the server uses afterwards
gone:   time until the server had closed the connections, and its bound
p99:    of neighbours' echoes on the idle control server / on this one (medians of alternating windows); `!` marks a
        ratio above 1.5. It has no bound, because other programs on the machine affect it.
PASS:   memory, cpu and gone are within their bounds";

/// The measurements of one behaviour.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) bounds: Bounds,
    /// Why it was not run.
    pub(super) skipped: Option<&'static str>,
    /// Peak bytes per connection.
    pub(super) memory: u64,
    /// Bytes per connection after the connections are gone; `None` if the process has ended.
    pub(super) memory_after: Option<u64>,
    /// Peak number of descriptors of the crowd.
    pub(super) descriptors: usize,
    /// Per connection.
    pub(super) cpu: Duration,
    /// Share of one core.
    pub(super) held_share: f64,
    /// `None` if never.
    pub(super) let_go: Option<Duration>,
    /// Whether a server that was told to stop exited with status 0.
    pub(super) exit_ok: bool,
    pub(super) sent_per_connection: u64,
    pub(super) connections: u64,
    pub(super) p99_apart: Duration,
    pub(super) p99_beside: Duration,
}

impl Row {
    pub(super) fn skipped(behaviour: &Behaviour, why: &'static str) -> Self {
        Self {
            name: behaviour.name,
            bounds: behaviour.bounds,
            skipped: Some(why),
            memory: 0,
            memory_after: None,
            descriptors: 0,
            cpu: Duration::ZERO,
            held_share: 0.0,
            let_go: None,
            exit_ok: true,
            sent_per_connection: 0,
            connections: 0,
            p99_apart: Duration::ZERO,
            p99_beside: Duration::ZERO,
        }
    }

    /// Whether every figure that has a bound is within it. A skipped behaviour passes.
    pub(super) fn passes(&self) -> bool {
        self.skipped.is_some()
            || (self.memory <= self.bounds.memory
                && self.cpu <= self.bounds.cpu
                && self.let_go.is_some_and(|took| took <= self.bounds.let_go)
                && self.exit_ok)
    }

    fn latency_ratio(&self) -> f64 {
        self.p99_beside.as_secs_f64() / self.p99_apart.as_secs_f64().max(1e-9)
    }

    fn to_json(&self) -> Value {
        if let Some(why) = self.skipped {
            return json!({ "behaviour": self.name, "skipped": why });
        }
        json!({
            "behaviour": self.name,
            "passes": self.passes(),
            "memory_bytes": self.memory,
            "memory_bytes_max": self.bounds.memory,
            "memory_after_bytes": self.memory_after,
            "descriptors": self.descriptors,
            "cpu_us": self.cpu.as_micros() as u64,
            "cpu_us_max": self.bounds.cpu.as_micros() as u64,
            "held_share": self.held_share,
            "gone_s": self.let_go.map(|took| took.as_secs_f64()),
            "gone_s_max": self.bounds.let_go.as_secs_f64(),
            "exit_ok": self.exit_ok,
            "connections": self.connections,
            "received_bytes_per_connection": self.sent_per_connection,
            "p99_apart_us": self.p99_apart.as_micros() as u64,
            "p99_beside_us": self.p99_beside.as_micros() as u64,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = self.skipped {
            return write!(f, "| {:17} | not run: {why} |", self.name);
        }
        let after = self.memory_after.map_or_else(|| "-".into(), bytes);
        let gone = self
            .let_go
            .map_or_else(|| "never".into(), |took| format!("{:.1}", took.as_secs_f64()));
        let mark = if self.latency_ratio() > LATENCY_RATIO_MAX {
            "!"
        } else {
            ""
        };
        write!(
            f,
            "| {:17} | {:>9} | {:>8} <= {:>8} | {:>8} | {:>6} <= {:>6} us | {:>4.0} % | {:>5} <= {:>2} s | \
             {:>5} / {:>5} us {:1} | {} |",
            self.name,
            bytes(self.sent_per_connection),
            bytes(self.memory),
            bytes(self.bounds.memory),
            after,
            self.cpu.as_micros(),
            self.bounds.cpu.as_micros(),
            self.held_share * 100.0,
            gone,
            self.bounds.let_go.as_secs(),
            self.p99_apart.as_micros(),
            self.p99_beside.as_micros(),
            mark,
            if self.passes() { "PASS" } else { "FAIL" },
        )
    }
}

/// The header of the table.
pub(super) fn heading() -> String {
    let names = format!(
        "| {:17} | {:>9} | {:>20} | {:>8} | {:>19} | {:>6} | {:>13} | {:>18} |      |",
        "behaviour", "each sent", "memory", "after", "cpu", "held", "gone", "p99 apart / beside",
    );
    let lines: String = names.chars().map(|c| if c == '|' { '|' } else { '-' }).collect();
    format!("{names}\n{lines}")
}

/// All rows as JSON.
pub(super) fn to_json(count: usize, rows: &[Row]) -> String {
    let rows: Vec<_> = rows.iter().map(Row::to_json).collect();
    format!("{:#}\n", json!({ "connections": count, "behaviours": rows }))
}

fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}
