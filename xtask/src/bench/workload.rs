//! The workloads.

use serde::{Deserialize, Serialize};

use super::servers::{SOCKEYE, Server, Speaks};

/// A workload, measured for several servers.
#[derive(Debug)]
pub(super) struct Workload {
    /// Name for `--only`, and of the result file.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) group: Group,
    pub(super) metric: Metric,
    /// Arguments of the load generator, besides address, protocol and time.
    pub(super) load: &'static str,
    /// The rates of an open loop, one after the other.
    pub(super) rates: &'static [u32],
    /// Maximum number of rounds; more would not add information.
    pub(super) rounds_max: u16,
}

/// The servers that take part, and the transport.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Group {
    Echo,
    Tls,
    Deflate,
    Fanout,
    /// A thread for each connection.
    Threads,
    /// Byte streams, beside whole messages.
    Streams,
}

/// The figure that is compared.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Metric {
    /// Processor time of the server per message.
    Cpu,
    /// The user part of it, because an idle client makes the kernel's part grow.
    UserCpu,
    /// Messages per second, where much of the work is not charged to the server.
    Rate,
    /// User memory of an idle connection.
    Memory,
    /// Latency at a given rate.
    Latency,
}

impl Group {
    /// Whether a server takes part.
    pub(super) fn takes(self, server: &Server) -> bool {
        let is_raw = matches!(server.speaks, Speaks::Raw | Speaks::RawTls);
        match self {
            Self::Echo => matches!(server.speaks, Speaks::Raw | Speaks::WebSocket),
            Self::Tls => server.has_tls,
            Self::Deflate => server.has_deflate && !is_raw,
            Self::Fanout => server.speaks == Speaks::Fanout,
            Self::Threads => server.speaks == Speaks::Threads,
            Self::Streams => server.speaks == Speaks::Streams || server.name == SOCKEYE,
        }
    }
}

impl Metric {
    /// JSON pointer to the figure in the load generator's report.
    pub(super) fn pointer(self) -> &'static str {
        match self {
            Self::Cpu => "/server/cpu_ns",
            Self::UserCpu => "/server/user_ns",
            Self::Rate => "/rate",
            Self::Memory => "/open",
            Self::Latency => "/latency/p99",
        }
    }

    /// How many times better `value` is than `base`: 2 is twice as good, for costs as for rates.
    pub(super) fn ratio(self, value: f64, base: f64) -> f64 {
        match self {
            Self::Rate => value / base,
            _ => base / value,
        }
    }
}

const fn echo(name: &'static str, title: &'static str, load: &'static str, metric: Metric) -> Workload {
    Workload {
        name,
        title,
        group: Group::Echo,
        metric,
        load,
        rates: &[],
        rounds_max: u16::MAX,
    }
}

/// Memory of idle connections, with two rounds because it hardly varies.
const fn idle(name: &'static str, title: &'static str, group: Group) -> Workload {
    Workload {
        group,
        rounds_max: 2,
        ..echo(name, title, "idle", Metric::Memory)
    }
}

/// Latency at increasing rates, up to more than the servers can serve.
const fn open_loop(name: &'static str, title: &'static str, load: &'static str) -> Workload {
    Workload {
        rates: &[5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 120_000],
        rounds_max: 3,
        ..echo(name, title, load, Metric::Latency)
    }
}

/// All workloads, in the order of the page.
pub(super) const WORKLOADS: &[Workload] = &[
    echo(
        "20b-1",
        "20 B, 1 in flight, 100 connections",
        "echo --size 20 -d 1 -c 100",
        Metric::Cpu,
    ),
    echo(
        "1k-1",
        "1 KiB, 1 in flight, 500 connections",
        "echo --size 1024 -d 1 -c 500",
        Metric::Cpu,
    ),
    echo(
        "16k-1",
        "16 KiB, 1 in flight, 100 connections",
        "echo --size 16384 -d 1 -c 100",
        Metric::Cpu,
    ),
    echo(
        "20b-16",
        "20 B, 16 in flight, 100 connections",
        "echo --size 20 -d 16 -c 100",
        Metric::Cpu,
    ),
    echo(
        "1k-text-16",
        "1 KiB of text, 16 in flight, 100 connections",
        "echo --size 1024 --kind text -d 16 -c 100",
        Metric::Cpu,
    ),
    echo(
        "1k-64",
        "1 KiB, 64 in flight, 10 connections",
        "echo --size 1024 -d 64 -c 10",
        Metric::Cpu,
    ),
    echo(
        "20b-256",
        "20 B, 256 in flight, 10 connections",
        "echo --size 20 -d 256 -c 10",
        Metric::Cpu,
    ),
    echo(
        "1m-1",
        "1 MiB, 1 in flight, 10 connections",
        "echo --size 1048576 -d 1 -c 10",
        Metric::Rate,
    ),
    echo(
        "16m-1",
        "16 MiB, 1 in flight, 2 connections",
        "echo --size 16777216 -d 1 -c 2",
        Metric::Rate,
    ),
    Workload {
        group: Group::Tls,
        ..echo(
            "tls-1k-1",
            "TLS, 1 KiB, 1 in flight, 100 connections",
            "echo --size 1024 -d 1 -c 100",
            Metric::Cpu,
        )
    },
    Workload {
        group: Group::Tls,
        ..echo(
            "tls-1k-16",
            "TLS, 1 KiB, 16 in flight, 100 connections",
            "echo --size 1024 -d 16 -c 100",
            Metric::Cpu,
        )
    },
    Workload {
        group: Group::Deflate,
        ..echo(
            "deflate-1k-1",
            "permessage-deflate without takeover, 1 KiB of JSON, 1 in flight, 50 connections",
            "echo --size 1024 --kind json -d 1 -c 50",
            Metric::UserCpu,
        )
    },
    Workload {
        group: Group::Fanout,
        ..echo(
            "fanout-1",
            "64 B to 1,000 subscribers, 1 in flight",
            "fanout --path /fanout --size 64 -d 1 -s 1000",
            Metric::Cpu,
        )
    },
    Workload {
        group: Group::Fanout,
        ..echo(
            "fanout-16",
            "64 B to 1,000 subscribers, 16 in flight",
            "fanout --path /fanout --size 64 -d 16 -s 1000",
            Metric::Cpu,
        )
    },
    Workload {
        group: Group::Threads,
        ..echo(
            "threads-20b-1",
            "20 B, 1 in flight, 1 connection",
            "echo --size 20 -d 1 -c 1",
            Metric::Cpu,
        )
    },
    Workload {
        group: Group::Threads,
        ..echo(
            "threads-1k-1",
            "1 KiB, 1 in flight, 1 connection",
            "echo --size 1024 -d 1 -c 1",
            Metric::Cpu,
        )
    },
    Workload {
        group: Group::Threads,
        ..echo(
            "threads-1k-16",
            "1 KiB, 16 in flight, 1 connection",
            "echo --size 1024 -d 16 -c 1",
            Metric::Cpu,
        )
    },
    Workload {
        group: Group::Streams,
        ..echo(
            "streams-64k-1",
            "64 KiB, 1 in flight, 10 connections",
            "echo --size 65536 -d 1 -c 10",
            Metric::Cpu,
        )
    },
    Workload {
        group: Group::Streams,
        ..echo(
            "streams-1m-1",
            "1 MiB, 1 in flight, 10 connections",
            "echo --size 1048576 -d 1 -c 10",
            Metric::Rate,
        )
    },
    Workload {
        group: Group::Streams,
        ..echo(
            "streams-16m-1",
            "16 MiB, 1 in flight, 2 connections",
            "echo --size 16777216 -d 1 -c 2",
            Metric::Rate,
        )
    },
    idle("idle", "10,000 idle connections", Group::Echo),
    idle("idle-tls", "10,000 idle connections over TLS", Group::Tls),
    idle(
        "idle-deflate",
        "10,000 idle connections with permessage-deflate",
        Group::Deflate,
    ),
    open_loop(
        "open-20b",
        "20 B on 100 connections, at given rates",
        "echo --size 20 -c 100",
    ),
    open_loop(
        "open-1k",
        "1 KiB on 100 connections, at given rates",
        "echo --size 1024 -c 100",
    ),
];

impl Workload {
    /// Whether this measures the memory of idle connections.
    pub(super) fn is_idle(&self) -> bool {
        self.metric == Metric::Memory
    }
}
