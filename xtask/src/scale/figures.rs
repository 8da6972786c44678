//! The measured figures of the model. Times are in seconds of processor time, sizes in bytes.

/// A measured figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: f64,
    pub(super) unit: Unit,
    pub(super) source: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Microseconds,
    Bytes,
}

const fn us(name: &'static str, value: f64, source: &'static str) -> Figure {
    Figure {
        name,
        value: value * 1e-6,
        unit: Unit::Microseconds,
        source,
    }
}

const fn bytes(name: &'static str, value: f64, source: &'static str) -> Figure {
    Figure {
        name,
        value,
        unit: Unit::Bytes,
        source,
    }
}

/// A node passes a publication to one of its subscribers.
pub(super) const DELIVERY: Figure = us(
    "node: one delivery",
    6.2,
    "performance-server.md, broadcast to 10,000 clients",
);

/// A node keeps a client that does nothing, per second.
pub(super) const IDLE: Figure = us(
    "node: an idle client, per second",
    0.63,
    "performance-server.md, 10,000 idle clients",
);

/// The nodes take a publication, pass it to Redis, receive it and deliver it to one subscriber.
pub(super) const PUBLICATION: Figure = us(
    "nodes: one publication with one subscriber",
    23.6,
    "performance-cluster.md, publications",
);

/// A node takes back a client with one subscription.
pub(super) const RECONNECT: Figure = us(
    "node: a client that comes back, with one channel",
    134.0,
    "performance-cluster.md, loss of a node",
);

/// Redis numbers, stores and sends a publication to one node.
pub(super) const ENGINE_PUBLICATION: Figure = us(
    "Redis: one publication with history",
    22.3,
    "performance-cluster.md, publications",
);

/// Redis sends a publication to one more node.
pub(super) const ENGINE_FANOUT: Figure = us(
    "Redis: a publication to one more node",
    3.6,
    "by hand: PUBLISH of 200 B, one at a time, to 10, 50 and 100 connections",
);

/// Redis takes back a client with one subscription: position, recovery, presence.
pub(super) const ENGINE_RECONNECT: Figure = us(
    "Redis: a client that comes back, with one channel",
    45.0,
    "performance-cluster.md, loss of a node",
);

/// Redis answers one of many position checks in a pipeline.
pub(super) const ENGINE_POSITION: Figure = us(
    "Redis: one position check",
    3.0,
    "by hand: CPU time for 100,000 channels in calls of 512, on a busy machine",
);

/// Redis runs one script.
pub(super) const ENGINE_SCRIPT: Figure = us(
    "Redis: a script, one at a time",
    80.0,
    "by hand: 300 scripts per second that read a position, on a busy machine",
);

/// A client with one subscription on a node, in the process.
pub(super) const CLIENT: Figure = bytes(
    "node: a client with a channel of its own",
    3.46 * 1024.0,
    "performance-server.md, 10,000 idle clients",
);

/// The socket of a client, in the kernel.
pub(super) const SOCKET: Figure = bytes("kernel: a socket", 4096.0, "scaling.md");

/// The entry of presence, the subscription and the stream of a client with a channel of its own, in Redis.
pub(super) const ENGINE_CLIENT: Figure = bytes(
    "Redis: a client with a channel of its own, without publications",
    1605.0,
    "by hand: `used_memory` before and after 300 such clients",
);

/// All figures, for the page.
pub(super) const ALL: &[Figure] = &[
    DELIVERY,
    IDLE,
    PUBLICATION,
    RECONNECT,
    CLIENT,
    SOCKET,
    ENGINE_PUBLICATION,
    ENGINE_FANOUT,
    ENGINE_RECONNECT,
    ENGINE_POSITION,
    ENGINE_SCRIPT,
    ENGINE_CLIENT,
];
