//! Measurements of a server that speaks the Centrifugo client protocol in JSON.
//!
//! | file | contents |
//! |---|---|
//! | `client` | one connection: its opening handshake, its frames and their lines |
//! | `crowd` | many connections on one epoll loop |
//! | `command` | the commands that clients send, and what is read from the replies |
//! | `idle`, `broadcast`, `publish`, `storm` | the measurements |

mod broadcast;
mod client;
mod command;
mod crowd;
mod idle;
mod publish;
mod storm;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::account::{self, Used};

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
}

/// One measurement of a server of channels.
#[derive(Clone, Debug)]
pub struct ChannelsPlan {
    /// What to measure.
    pub scenario: Scenario,
    /// Address of the server.
    pub address: SocketAddr,
    /// Process id of the server.
    pub pid: u32,
    /// Number of clients.
    pub clients: usize,
    /// Number of channels, over which the clients are spread evenly.
    pub channels: usize,
    /// Bytes of JSON in a publication, at least 32.
    pub size: usize,
    /// Measured time.
    pub duration: Duration,
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
    Ok(match plan.scenario {
        Scenario::Idle => serde_json::to_value(idle::run(plan)?)?,
        Scenario::Broadcast => serde_json::to_value(broadcast::run(plan)?)?,
        Scenario::Publish => serde_json::to_value(publish::run(plan)?)?,
        Scenario::Storm => serde_json::to_value(storm::run(plan)?)?,
    })
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

/// Processor time that a server and this generator used in a period.
#[derive(Clone, Copy, Debug, Serialize)]
struct Shares {
    /// Share of one processor that the server used.
    server: f64,
    /// Share of the time in which the server could run and another process did.
    server_waited: f64,
    /// The same two of this generator.
    generator: f64,
    generator_waited: f64,
}

/// Measures the processor time of a period.
struct Account {
    pid: u32,
    began_at: std::time::Instant,
    server: Used,
    generator: Used,
}

impl Account {
    fn open(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            server: account::of_process(pid)?,
            generator: account::of_this_thread()?,
            began_at: std::time::Instant::now(),
        })
    }

    /// The length of the period, the time that the server used, and all shares.
    fn close(&self) -> Result<(Duration, Duration, Shares)> {
        let took = self.began_at.elapsed();
        let server = account::of_process(self.pid)? - self.server;
        let generator = account::of_this_thread()? - self.generator;
        let share = |time: Duration| time.as_secs_f64() / took.as_secs_f64();
        let shares = Shares {
            server: share(server.cpu),
            server_waited: share(server.waited),
            generator: share(generator.cpu),
            generator_waited: share(generator.waited),
        };
        Ok((took, server.cpu, shares))
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
