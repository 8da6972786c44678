//! The model: what an installation costs, in processor time and memory. All costs are proportional; nothing queues, and
//! nothing is lost to contention. So the results are lower bounds.

use super::figures::{
    CLIENT, DELIVERY, ENGINE_CLIENT, ENGINE_FANOUT, ENGINE_POSITION, ENGINE_PUBLICATION, ENGINE_RECONNECT,
    ENGINE_SCRIPT, IDLE, PUBLICATION, RECONNECT, SOCKET,
};

/// Cores of a node.
pub(super) const NODE_CORES: f64 = 8.0;

/// The share of a core, or of a Redis server, that may be used on average: the rest is for bursts.
pub(super) const USE_MAX: f64 = 0.6;

/// Publications per second to the channel of all clients.
pub(super) const GLOBAL_RATE: f64 = 1.0;

/// Publications per second to the channel of each client. Each has one subscriber: the client.
pub(super) const CLIENT_RATE: f64 = 1.0 / 60.0;

/// Handshakes per second that a node admits (`limits.handshakes_per_second_max`), and the burst, in seconds of that
/// rate.
pub(super) const ADMISSION_RATE: f64 = 5_000.0;
pub(super) const ADMISSION_BURST: f64 = 2.0;

/// Time in which SDKs spread their first attempt to connect again, after a pause of the same length, in seconds.
pub(super) const SDK_SPREAD: f64 = 0.5;

/// A node compares this many channels per second with the engine, at most: 4,096 in each of 64 steps, in 40 s.
pub(super) const POSITION_CHECKS_MAX: f64 = 4_096.0 * 64.0 / 40.0;

/// The interval of position checks (`timeouts.position_check`), in seconds.
pub(super) const POSITION_CHECK: f64 = 40.0;

/// Interval in which each node renews its lease and looks for the leases of dead nodes, and of its delivery probe, in
/// seconds.
pub(super) const LEASE_INTERVAL: f64 = 2.0;
pub(super) const PROBE_INTERVAL: f64 = 1.0;

/// Bytes of a publication on the wire to a client, and from the engine to a node: 128 bytes of data, the envelope, TCP
/// and IP.
pub(super) const PUBLICATION_BYTES: f64 = 300.0;

/// An installation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Installation {
    pub(super) clients: f64,
    pub(super) nodes: f64,
}

/// What a publication to the channel of all clients costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broadcast {
    /// Processor time of all nodes, and of the engine.
    pub(super) nodes: f64,
    pub(super) engine: f64,
    /// Time until a node has written it to its last subscriber, with all cores.
    pub(super) time: f64,
    /// Bytes that a node sends.
    pub(super) node_bytes: f64,
    /// How many of them per second use all that a node may use.
    pub(super) rate_max: f64,
}

/// What limits the time of a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Sdks,
    Admission,
    Nodes,
    Engine,
}

/// The loss of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storm {
    pub(super) clients: f64,
    /// Clients for each of the other nodes.
    pub(super) per_node: f64,
    /// Processor time of each of the other nodes, and of the engine.
    pub(super) node: f64,
    pub(super) engine: f64,
    /// Time until all are back, and what limits it.
    pub(super) time: f64,
    pub(super) limit: Limit,
}

/// The use of the engine, in cores of Redis.
#[derive(Clone, Copy, Debug)]
pub(super) struct EngineLoad {
    pub(super) publications_per_second: f64,
    pub(super) publications: f64,
    pub(super) checks_per_second: f64,
    pub(super) checks: f64,
    /// Leases and probes.
    pub(super) nodes: f64,
    /// Subscriptions of nodes to channels.
    pub(super) subscriptions: f64,
    pub(super) memory: f64,
    /// Redis servers for the processor time, with hash slots distributed evenly.
    pub(super) servers: f64,
}

/// The use of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeLoad {
    pub(super) clients: f64,
    /// Cores for idle clients, for the channel of all clients, and for the channels of each.
    pub(super) idle: f64,
    pub(super) global: f64,
    pub(super) own: f64,
    pub(super) memory: f64,
}

impl Installation {
    fn per_node(self) -> f64 {
        self.clients / self.nodes
    }

    pub(super) fn broadcast(self) -> Broadcast {
        let per_node = self.per_node() * DELIVERY.value;
        Broadcast {
            nodes: self.clients * DELIVERY.value,
            engine: ENGINE_PUBLICATION.value + (self.nodes - 1.0) * ENGINE_FANOUT.value,
            time: per_node / NODE_CORES,
            node_bytes: self.per_node() * PUBLICATION_BYTES,
            rate_max: NODE_CORES * USE_MAX / per_node,
        }
    }

    /// The loss of a node, with so many Redis servers.
    pub(super) fn storm(self, servers: f64) -> Storm {
        let clients = self.per_node();
        let per_node = clients / (self.nodes - 1.0);
        let node = per_node * RECONNECT.value;
        let engine = clients * ENGINE_RECONNECT.value;
        let sdks = 2.0 * SDK_SPREAD;
        // The burst arrives while the SDKs spread.
        let beyond_burst = (per_node - ADMISSION_RATE * ADMISSION_BURST).max(0.0);
        let limits = [
            (sdks, Limit::Sdks),
            (SDK_SPREAD + beyond_burst / ADMISSION_RATE, Limit::Admission),
            (SDK_SPREAD + node / NODE_CORES, Limit::Nodes),
            (SDK_SPREAD + engine / servers, Limit::Engine),
        ];
        let (time, limit) = limits
            .into_iter()
            .reduce(|longest, limit| if limit.0 > longest.0 { limit } else { longest })
            .unwrap_or((0.0, Limit::Sdks));
        Storm {
            clients,
            per_node,
            node,
            engine,
            time,
            limit,
        }
    }

    pub(super) fn engine(self) -> EngineLoad {
        let own = self.clients * CLIENT_RATE;
        let publications = own * ENGINE_PUBLICATION.value + GLOBAL_RATE * self.broadcast().engine;
        // Each client has a channel of its own.
        let checks_per_second = self.nodes * (self.per_node() / POSITION_CHECK).min(POSITION_CHECKS_MAX);
        let checks = checks_per_second * ENGINE_POSITION.value;
        // A lease is two scripts per interval; a probe is a message to one node.
        let nodes =
            self.nodes * (2.0 * ENGINE_SCRIPT.value / LEASE_INTERVAL + ENGINE_PUBLICATION.value / PROBE_INTERVAL);
        EngineLoad {
            publications_per_second: own + GLOBAL_RATE,
            publications,
            checks_per_second,
            checks,
            nodes,
            subscriptions: self.clients + self.nodes,
            memory: self.clients * ENGINE_CLIENT.value,
            servers: ((publications + checks + nodes) / USE_MAX).ceil().max(1.0),
        }
    }

    pub(super) fn node(self) -> NodeLoad {
        let clients = self.per_node();
        NodeLoad {
            clients,
            idle: clients * IDLE.value,
            global: clients * DELIVERY.value * GLOBAL_RATE,
            own: clients * PUBLICATION.value * CLIENT_RATE,
            memory: clients * (CLIENT.value + SOCKET.value),
        }
    }

    /// The time until all clients are back after all nodes were restarted, if only the engine limits it.
    pub(super) fn cold_start(self, servers: f64) -> f64 {
        self.clients * ENGINE_RECONNECT.value / servers
    }
}

impl NodeLoad {
    pub(super) fn cores(self) -> f64 {
        self.idle + self.global + self.own
    }
}

/// The number of clients for which one Redis server suffices, with so many clients per node.
pub(super) fn clients_of_one_server(per_node: f64) -> f64 {
    let fits = |clients: f64| {
        let installation = Installation {
            clients,
            nodes: (clients / per_node).ceil(),
        };
        let load = installation.engine();
        load.publications + load.checks + load.nodes <= USE_MAX
    };
    let (mut low, mut high) = (per_node, 1e9);
    while high - low > 1e3 {
        let middle = (low + high) / 2.0;
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::{ADMISSION_RATE, Installation, Limit, NODE_CORES, USE_MAX, clients_of_one_server};

    const MILLION: Installation = Installation {
        clients: 1e6,
        nodes: 20.0,
    };

    #[test]
    fn a_broadcast_costs_each_delivery_once_however_many_nodes_there_are() {
        let many = Installation { nodes: 40.0, ..MILLION };
        assert_eq!(MILLION.broadcast().nodes, many.broadcast().nodes);
        assert!(many.broadcast().time < MILLION.broadcast().time);
        assert!(many.broadcast().engine > MILLION.broadcast().engine);
    }

    #[test]
    fn a_storm_is_limited_by_the_slowest_part() {
        // With endless engines and two nodes, the admission of the other one is the limit.
        let two = Installation { nodes: 2.0, ..MILLION };
        let storm = two.storm(1e9);
        assert_eq!(storm.limit, Limit::Admission);
        assert!((storm.time - (0.5 + (500_000.0 - 2.0 * ADMISSION_RATE) / ADMISSION_RATE)).abs() < 1e-6);
        // One client per node does not notice.
        let few = Installation {
            clients: 20.0,
            nodes: 20.0,
        };
        assert_eq!(few.storm(1.0).limit, Limit::Sdks);
        assert_eq!(few.storm(1.0).time, 1.0);
    }

    #[test]
    fn one_redis_suffices_up_to_a_number_of_clients() {
        let clients = clients_of_one_server(50_000.0);
        let of = |clients: f64| Installation {
            clients,
            nodes: (clients / 50_000.0).ceil(),
        };
        assert_eq!(of(clients).engine().servers, 1.0);
        assert!(of(clients * 1.2).engine().servers > 1.0);
    }

    #[test]
    fn position_checks_are_bounded_per_node() {
        let crowded = Installation { nodes: 1.0, ..MILLION };
        assert_eq!(crowded.engine().checks_per_second, 6_553.6);
        assert_eq!(MILLION.engine().checks_per_second, 25_000.0);
    }

    #[test]
    fn a_node_has_a_bound_for_broadcasts() {
        let broadcast = MILLION.broadcast();
        assert!((broadcast.rate_max * broadcast.nodes / MILLION.nodes - NODE_CORES * USE_MAX).abs() < 1e-6);
    }
}
