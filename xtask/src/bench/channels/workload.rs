//! The measurements, and the figures that are compared.

use super::servers::Kind;

/// One measurement of several servers.
#[derive(Debug)]
pub(super) struct Workload {
    /// Name for `--only`, and of the result file.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// The scenario of the load generator, and its arguments.
    pub(super) scenario: &'static str,
    load: &'static str,
    /// The arguments of a run with `--quick`.
    quick: &'static str,
    pub(super) servers: &'static [Kind],
    pub(super) rounds: u16,
    pub(super) figures: &'static [Figure],
    pub(super) goals: &'static [Goal],
    pub(super) page: Page,
    /// Handshakes per second that a node of Sockeye admits.
    pub(super) handshakes_max: u32,
}

/// The page with the results of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// docs/performance-server.md: one node.
    Server,
    /// docs/performance-cluster.md: two nodes that share an engine.
    Cluster,
}

/// A number of the report.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) title: &'static str,
    /// JSON pointer to the number.
    pub(super) pointer: &'static str,
    /// What the number is divided by for display.
    pub(super) unit: f64,
    pub(super) decimals: usize,
}

/// A bound on a figure of the first server of a workload, which is Sockeye.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) text: &'static str,
    pub(super) pointer: &'static str,
    pub(super) bound: Bound,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// At most this value.
    Max(f64),
    /// At most this share of Centrifugo's value.
    OfCentrifugoMax(f64),
    /// At least this many times Centrifugo's value.
    OfCentrifugoMin(f64),
    /// With the log, at least this share of the value without.
    WithLogMin(f64),
}

const BOTH: &[Kind] = &[Kind::Sockeye, Kind::Centrifugo];

const fn figure(title: &'static str, pointer: &'static str, unit: f64, decimals: usize) -> Figure {
    Figure {
        title,
        pointer,
        unit,
        decimals,
    }
}

const fn goal(text: &'static str, pointer: &'static str, bound: Bound) -> Goal {
    Goal { text, pointer, bound }
}

/// Two nodes with Redis. Centrifugo has no history with NATS.
const CLUSTERS: &[Kind] = &[Kind::SockeyeRedis, Kind::CentrifugoRedis, Kind::SockeyeNats];

const SOCKEYE_CLUSTERS: &[Kind] = &[Kind::SockeyeRedis, Kind::SockeyeNats];

/// No limit that a measurement reaches.
const UNLIMITED: u32 = 1_000_000;

const KIB: f64 = 1024.0;
const MS: f64 = 1e6;
const US: f64 = 1e3;

const IDLE_FIGURES: &[Figure] = &[
    figure("memory per client (KiB)", "/open", KIB, 2),
    figure("after 25 s (KiB)", "/after", KIB, 2),
    figure(
        "CPU of 10,000 clients (% of a core)",
        "/idle_cpu_ns",
        1e9 / 10_000.0 / 100.0,
        2,
    ),
    figure("to open a client (µs)", "/open_cpu_ns", US, 0),
    figure("pings", "/pings", 1.0, 0),
];

const MEMORY_GOALS: &[Goal] = &[
    goal("memory per client at most 4 KiB", "/after", Bound::Max(4.0 * KIB)),
    goal(
        "memory per client at most 1/6 of Centrifugo's",
        "/after",
        Bound::OfCentrifugoMax(1.0 / 6.0),
    ),
    goal(
        "CPU of idle clients at most half of Centrifugo's",
        "/idle_cpu_ns",
        Bound::OfCentrifugoMax(0.5),
    ),
];

/// All measurements, in the order of the page.
pub(super) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "idle",
        title: "10,000 idle clients, one channel each",
        scenario: "idle",
        load: "--clients 10000 --channels 10000 --duration 25",
        quick: "--clients 1000 --channels 1000 --duration 2",
        servers: BOTH,
        rounds: 3,
        figures: IDLE_FIGURES,
        goals: MEMORY_GOALS,
        page: Page::Server,
        handshakes_max: UNLIMITED,
    },
    Workload {
        name: "idle-shared",
        title: "10,000 idle clients in 100 channels",
        scenario: "idle",
        load: "--clients 10000 --channels 100 --duration 25",
        quick: "--clients 1000 --channels 10 --duration 2",
        servers: BOTH,
        rounds: 3,
        figures: IDLE_FIGURES,
        goals: MEMORY_GOALS,
        page: Page::Server,
        handshakes_max: UNLIMITED,
    },
    Workload {
        name: "broadcast",
        title: "128 B to 10,000 clients, one publication at a time",
        scenario: "broadcast",
        load: "--clients 10000 --duration 5",
        quick: "--clients 1000 --duration 1",
        servers: BOTH,
        rounds: 5,
        figures: &[
            figure("p50 (ms)", "/latency/p50", MS, 1),
            figure("p99 (ms)", "/latency/p99", MS, 1),
            figure("until all have it (ms)", "/complete_ns", MS, 1),
            figure("CPU per delivery (µs)", "/cpu_ns", US, 2),
        ],
        goals: &[
            goal(
                "p50 latency at most half of Centrifugo's",
                "/latency/p50",
                Bound::OfCentrifugoMax(0.5),
            ),
            goal(
                "p99 latency at most half of Centrifugo's",
                "/latency/p99",
                Bound::OfCentrifugoMax(0.5),
            ),
            goal(
                "CPU per delivery at most half of Centrifugo's",
                "/cpu_ns",
                Bound::OfCentrifugoMax(0.5),
            ),
        ],
        page: Page::Server,
        handshakes_max: UNLIMITED,
    },
    Workload {
        name: "publish",
        title: "100 publishers with 16 publications in flight each, 1,000 channels with history and one subscriber each",
        scenario: "publish",
        load: "--clients 100 --channels 1000 --duration 5",
        quick: "--clients 20 --channels 1000 --duration 1",
        servers: &[Kind::Sockeye, Kind::SockeyeLog, Kind::Centrifugo],
        rounds: 5,
        figures: &[
            figure("publications per second", "/rate", 1.0, 0),
            figure("CPU per publication (µs)", "/cpu_ns", US, 2),
        ],
        goals: &[
            goal(
                "publications per second at least twice Centrifugo's",
                "/rate",
                Bound::OfCentrifugoMin(2.0),
            ),
            goal(
                "publications per second with the log at least 0.7 of without",
                "/rate",
                Bound::WithLogMin(0.7),
            ),
        ],
        page: Page::Server,
        handshakes_max: UNLIMITED,
    },
    Workload {
        name: "storm",
        title: "10,000 clients in 100 channels lose their connections, miss 10 publications, and recover",
        scenario: "storm",
        load: "--clients 10000 --channels 100",
        quick: "--clients 1000 --channels 10",
        servers: BOTH,
        rounds: 5,
        figures: &[
            figure("until all are back (ms)", "/all_back_ns", MS, 0),
            figure("median client (ms)", "/back/p50", MS, 0),
            figure("CPU per client (µs)", "/cpu_ns", US, 0),
            figure("publications recovered", "/recovered_publications", 1.0, 0),
            figure("clients not recovered", "/not_recovered", 1.0, 0),
            figure("publications lost", "/lost", 1.0, 0),
        ],
        goals: &[
            goal("no publication lost", "/lost", Bound::Max(0.0)),
            goal("every client recovers", "/not_recovered", Bound::Max(0.0)),
        ],
        page: Page::Server,
        handshakes_max: UNLIMITED,
    },
    Workload {
        name: "relay",
        title: "two nodes: 1,000 publications per second through one node, to subscribers of the other",
        scenario: "relay",
        load: "--clients 10 --channels 100 --rate 1000 --duration 10",
        quick: "--clients 10 --channels 100 --rate 1000 --duration 1",
        servers: CLUSTERS,
        rounds: 5,
        figures: &[
            figure("p50 (ms)", "/latency/p50", MS, 2),
            figure("p99 (ms)", "/latency/p99", MS, 2),
            figure("p99 of the reply (ms)", "/acknowledged/p99", MS, 2),
            figure("CPU of the nodes per publication (µs)", "/cpu_ns", US, 1),
            figure("CPU of the engine per publication (µs)", "/engine_cpu_ns", US, 1),
        ],
        goals: &[goal(
            "p99 at most Centrifugo's",
            "/latency/p99",
            Bound::OfCentrifugoMax(1.0),
        )],
        page: Page::Cluster,
        handshakes_max: UNLIMITED,
    },
    Workload {
        name: "cluster-publish",
        title: "two nodes: 100 publishers with 16 publications in flight each, 1,000 channels with history",
        scenario: "publish",
        load: "--clients 100 --channels 1000 --duration 5",
        quick: "--clients 20 --channels 1000 --duration 1",
        servers: CLUSTERS,
        rounds: 5,
        figures: &[
            figure("publications per second", "/rate", 1.0, 0),
            figure("CPU of the nodes per publication (µs)", "/cpu_ns", US, 1),
            figure("CPU of the engine per publication (µs)", "/engine_cpu_ns", US, 1),
            figure("publications per core and second", "/rate_per_core", 1.0, 0),
        ],
        goals: &[goal(
            "publications per core and second at least 1.5 times Centrifugo's",
            "/rate_per_core",
            Bound::OfCentrifugoMin(1.5),
        )],
        page: Page::Cluster,
        handshakes_max: UNLIMITED,
    },
    Workload {
        name: "node-loss",
        title: "10,000 clients on two nodes; one node is killed, and its clients recover on the other",
        scenario: "node-loss",
        load: "--clients 10000 --channels 100",
        quick: "--clients 1000 --channels 10",
        servers: CLUSTERS,
        rounds: 3,
        figures: NODE_LOSS_FIGURES,
        goals: NODE_LOSS_GOALS,
        page: Page::Cluster,
        handshakes_max: UNLIMITED,
    },
    Workload {
        name: "node-loss-paced",
        title: "the same, where the other node admits 1,000 handshakes per second",
        scenario: "node-loss",
        load: "--clients 10000 --channels 100",
        quick: "--clients 1000 --channels 10",
        servers: SOCKEYE_CLUSTERS,
        rounds: 3,
        figures: NODE_LOSS_FIGURES,
        goals: NODE_LOSS_GOALS,
        page: Page::Cluster,
        handshakes_max: 1_000,
    },
];

const NODE_LOSS_FIGURES: &[Figure] = &[
    figure("until all are back (ms)", "/all_back_ns", MS, 0),
    figure("median client (ms)", "/back/p50", MS, 0),
    figure("handshakes refused", "/refused", 1.0, 0),
    figure("subscriptions repeated", "/temporary_errors", 1.0, 0),
    figure("p99 for the clients of the other node (ms)", "/survivors/p99", MS, 0),
    figure("CPU of the node per client (µs)", "/cpu_ns", US, 0),
    figure("CPU of the engine per client (µs)", "/engine_cpu_ns", US, 0),
    figure("publications recovered", "/recovered_publications", 1.0, 0),
    figure("clients not recovered", "/not_recovered", 1.0, 0),
    figure("publications lost", "/lost", 1.0, 0),
];

const NODE_LOSS_GOALS: &[Goal] = &[
    goal("nothing lost", "/lost", Bound::Max(0.0)),
    goal("every client recovers", "/not_recovered", Bound::Max(0.0)),
];

impl Workload {
    pub(super) fn arguments(&self, is_quick: bool) -> impl Iterator<Item = &'static str> {
        if is_quick { self.quick } else { self.load }.split(' ')
    }
}
