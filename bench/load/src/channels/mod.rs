//! Measurements of a server that speaks the Centrifugo client protocol in JSON.
//!
//! | file | contents |
//! |---|---|
//! | `client` | one connection: its opening handshake, its frames and their lines |
//! | `crowd` | many connections on one epoll loop |
//! | `command` | the commands that clients send, and what is read from the replies |
//! | `account` | processor time of the nodes, of their engine, and of other programs |
//! | `recovery` | what clients that lost their connections have received, and what is missing |
//! | `idle`, `broadcast`, `publish`, `storm`, `relay`, `node_loss` | the measurements |

mod account;
mod broadcast;
mod client;
mod command;
mod crowd;
mod idle;
mod node_loss;
mod publish;
mod recovery;
mod relay;
mod storm;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::Value;

use self::account::{Account, Shares};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Memory of idle clients with one subscription each, and the processor time of their pings.
    Idle,
    /// One publication after the other to a channel with all clients.
    Broadcast,
    /// As many publications as the server takes, into many channels with history.
    Publish,
    /// All clients lose their connections, connect again at once and recover.
    Storm,
    /// Publications through one node to subscribers of another, at a fixed rate.
    Relay,
    /// One of two nodes is killed; its clients connect to the other and recover.
    NodeLoss,
}

/// A process of the measured server.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process id.
    pub pid: u32,
}

/// One measurement of a server of channels.
#[derive(Clone, Debug)]
pub struct ChannelsPlan {
    /// What to measure.
    pub scenario: Scenario,
    /// The nodes. Clients are spread over them evenly.
    pub nodes: Vec<Node>,
    /// Process id of the engine that the nodes share.
    pub engine_pid: Option<u32>,
    /// Number of clients.
    pub clients: usize,
    /// Number of channels, over which the clients are spread evenly.
    pub channels: usize,
    /// Bytes of JSON in a publication, at least 32.
    pub size: usize,
    /// Measured time.
    pub duration: Duration,
    /// Publications per second of [`Scenario::Relay`].
    pub rate: f64,
    /// Number of source addresses, from 127.0.0.1 up.
    pub sources: u8,
}

/// Runs a measurement and returns its report.
///
/// # Errors
/// If a connection cannot be opened or ends, a reply is an error, a publication is lost or repeated, or nothing arrives
/// for thirty seconds.
pub fn channels(plan: &ChannelsPlan) -> Result<Value> {
    ensure!(
        (1..=19_000).contains(&plan.clients),
        "the number of clients must be between 1 and 19,000"
    );
    ensure!(
        (1..=plan.clients.max(1000)).contains(&plan.channels),
        "there must be at least one channel, and no more than clients or 1,000"
    );
    ensure!(
        (32..=32 << 10).contains(&plan.size),
        "the size of a publication must be between 32 bytes and 32 KiB"
    );
    ensure!(!plan.nodes.is_empty(), "there must be a node");
    ensure!(
        !plan.scenario.needs_two_nodes() || plan.nodes.len() == 2,
        "this scenario needs two nodes"
    );
    Ok(match plan.scenario {
        Scenario::Idle => serde_json::to_value(idle::run(plan)?)?,
        Scenario::Broadcast => serde_json::to_value(broadcast::run(plan)?)?,
        Scenario::Publish => serde_json::to_value(publish::run(plan)?)?,
        Scenario::Storm => serde_json::to_value(storm::run(plan)?)?,
        Scenario::Relay => serde_json::to_value(relay::run(plan)?)?,
        Scenario::NodeLoss => serde_json::to_value(node_loss::run(plan)?)?,
    })
}

impl Scenario {
    fn needs_two_nodes(self) -> bool {
        matches!(self, Self::Relay | Self::NodeLoss)
    }
}

impl ChannelsPlan {
    /// The name of a channel.
    fn channel(&self, idx: usize) -> String {
        format!("bench{idx}")
    }

    /// The channel of a client.
    fn channel_of(&self, client: usize) -> usize {
        client % self.channels
    }
}

/// Percentiles of a set of times, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Percentiles {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Percentiles {
    fn of(times: &hdrhistogram::Histogram<u64>) -> Self {
        Self {
            p50: times.value_at_quantile(0.5),
            p99: times.value_at_quantile(0.99),
            max: times.max(),
        }
    }
}
