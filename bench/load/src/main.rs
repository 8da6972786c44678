//! The command line of the load generator.

use std::{fmt, fs, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use load::{ChannelsPlan, Check, Drive, IdlePlan, Kind, Node, Plan, Protocol, Scenario, Target, Verify};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

/// Measures a WebSocket server and the load generator itself.
#[derive(Debug, Parser)]
#[command(name = "load", disable_help_subcommand = true)]
struct Options {
    /// Print the report as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Run on this processor only.
    #[arg(long, global = true, value_name = "CPU")]
    cpu: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure a server that echoes.
    Echo(EchoOptions),
    /// Measure a server that forwards each message to all other connections.
    Fanout(FanoutOptions),
    /// Measure the memory of idle connections in a server that echoes.
    Idle(IdleOptions),
    /// Measure a server of the Centrifugo client protocol. The report is JSON.
    Channels(ChannelsOptions),
    /// Measure a server with known delays, and check that they are reported.
    SelfCheck,
    /// Create a self-signed certificate for `localhost`: cert.pem and key.pem.
    Certificate {
        /// The folder to write to.
        folder: PathBuf,
    },
}

/// Compare one read out of this many. A prime, so that it is not always the same connections.
const SAMPLE: u32 = 61;

/// How to reach a server.
#[derive(Args, Debug)]
struct TargetOptions {
    /// The address of the server.
    address: SocketAddr,
    /// The protocol of the server.
    #[arg(long, value_enum, default_value_t = ProtocolName::Ws)]
    protocol: ProtocolName,
    /// Use TLS, and trust the certificates in this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Path of the request.
    #[arg(long, default_value = "/")]
    path: String,
    /// Number of source addresses, from 127.0.0.1 up; by default one per 20,000 connections.
    #[arg(long, value_name = "N")]
    sources: Option<u8>,
    /// Process id of the server, to measure its processor time and memory.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolName {
    /// Bytes without framing.
    Raw,
    /// WebSocket.
    Ws,
    /// WebSocket, with replies in fragments of 64 KiB.
    Fragments,
    /// WebSocket with permessage-deflate, without context takeover.
    Deflate,
}

/// What to send.
#[derive(Args, Debug)]
struct MessageOptions {
    /// Payload size of a message in bytes.
    #[arg(long, default_value_t = 20)]
    size: usize,
    /// Content of the payload; all but binary are sent as text.
    #[arg(long, value_enum, default_value_t = KindName::Binary)]
    kind: KindName,
    /// Warm-up time in seconds, which is not measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.25)]
    warm_up: f64,
    /// Measured time in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    duration: f64,
    /// Compare every reply byte for byte, instead of those in one read out of 61.
    #[arg(long)]
    verify_all: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindName {
    Binary,
    Text,
    Json,
}

#[derive(Args, Debug)]
struct EchoOptions {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    messages: MessageOptions,
    /// Number of connections.
    #[arg(short, long, default_value_t = 100)]
    connections: usize,
    /// Closed loop: messages in flight on each connection.
    #[arg(short = 'd', long, default_value_t = 1)]
    in_flight: usize,
    /// Open loop: messages per second of all connections together, independent of the server.
    #[arg(short, long, conflicts_with = "in_flight")]
    rate: Option<f64>,
}

#[derive(Args, Debug)]
struct FanoutOptions {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    messages: MessageOptions,
    /// Number of subscribers; one more connection publishes.
    #[arg(short, long, default_value_t = 1000)]
    subscribers: usize,
    /// Messages in flight: the next one is sent when all subscribers have received one.
    #[arg(short = 'd', long, default_value_t = 1)]
    in_flight: usize,
}

#[derive(Args, Debug)]
struct IdleOptions {
    #[command(flatten)]
    target: TargetOptions,
    /// Number of connections.
    #[arg(short, long, default_value_t = 10_000)]
    connections: usize,
    /// Payload size of the message that each connection echoes.
    #[arg(long, default_value_t = 16 * 1024)]
    size: usize,
}

#[derive(Args, Debug)]
struct ChannelsOptions {
    /// What to measure.
    #[arg(value_enum)]
    scenario: ScenarioName,
    /// The addresses of the nodes.
    #[arg(required = true, value_delimiter = ',')]
    addresses: Vec<SocketAddr>,
    /// Process ids of the nodes, in the same order.
    #[arg(long, required = true, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,
    /// Process id of the engine that the nodes share.
    #[arg(long, value_name = "PID")]
    engine_pid: Option<u32>,
    /// Number of clients; of `publish`, the number of publishers; of `relay`, of publishers and of subscribers.
    #[arg(short, long, default_value_t = 10_000)]
    clients: usize,
    /// Number of channels.
    #[arg(long, default_value_t = 1)]
    channels: usize,
    /// Bytes of JSON in a publication.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Measured time in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    duration: f64,
    /// Publications per second of `relay`.
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// Number of source addresses, from 127.0.0.1 up.
    #[arg(long, value_name = "N", default_value_t = 4)]
    sources: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScenarioName {
    /// Memory of idle clients, and the processor time of their pings.
    Idle,
    /// One publication after the other to all clients.
    Broadcast,
    /// As many publications as the server takes, into many channels.
    Publish,
    /// All clients connect again at once and recover.
    Storm,
    /// Publications through one node to subscribers of another.
    Relay,
    /// Kill the first node; its clients connect to the second and recover.
    NodeLoss,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn run(&self) -> Result<ExitCode> {
        if let Some(cpu) = self.cpu {
            let mut cpus = CpuSet::new();
            cpus.set(cpu);
            sched_setaffinity(None, &cpus).with_context(|| format!("cannot run on processor {cpu}"))?;
        }
        match &self.command {
            Command::Echo(options) => {
                let drive = match options.rate {
                    Some(rate) => Drive::Open { rate },
                    None => Drive::Closed {
                        in_flight: options.in_flight,
                    },
                };
                self.measure(&options.messages.plan(&options.target, options.connections, drive)?)
            }
            Command::Idle(options) => {
                let report = load::idle(&IdlePlan {
                    target: options.target.target(options.connections)?,
                    connections: options.connections,
                    size: options.size,
                    pid: options
                        .target
                        .pid
                        .context("--pid is needed: the process id of the server")?,
                })?;
                self.print(&report)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Channels(options) => {
                println!("{}", load::channels(&options.plan()?)?);
                Ok(ExitCode::SUCCESS)
            }
            Command::SelfCheck => {
                let checks = load::self_check()?;
                for check in &checks {
                    println!("{check}");
                }
                Ok(if checks.iter().all(Check::passes) {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                })
            }
            Command::Certificate { folder } => {
                let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
                fs::write(folder.join("cert.pem"), made.cert.pem())?;
                fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Fanout(options) => {
                let drive = Drive::Fanout {
                    in_flight: options.in_flight,
                };
                self.measure(&options.messages.plan(&options.target, options.subscribers, drive)?)
            }
        }
    }

    fn measure(&self, plan: &Plan) -> Result<ExitCode> {
        let report = load::run(plan)?;
        self.print(&report)?;
        ensure!(
            report.unanswered == 0,
            "{} messages were still unanswered ten seconds after the end",
            report.unanswered
        );
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, report: &(impl Serialize + fmt::Display)) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(report)?);
        } else {
            println!("{report}");
        }
        Ok(())
    }
}

impl ChannelsOptions {
    fn plan(&self) -> Result<ChannelsPlan> {
        ensure!(
            self.addresses.len() == self.pid.len(),
            "each node needs an address and a process id"
        );
        let nodes = self.addresses.iter().zip(&self.pid);
        let nodes = nodes.map(|(&address, &pid)| Node { address, pid }).collect();
        Ok(ChannelsPlan {
            scenario: match self.scenario {
                ScenarioName::Idle => Scenario::Idle,
                ScenarioName::Broadcast => Scenario::Broadcast,
                ScenarioName::Publish => Scenario::Publish,
                ScenarioName::Storm => Scenario::Storm,
                ScenarioName::Relay => Scenario::Relay,
                ScenarioName::NodeLoss => Scenario::NodeLoss,
            },
            nodes,
            engine_pid: self.engine_pid,
            clients: self.clients,
            channels: self.channels,
            size: self.size,
            duration: Duration::try_from_secs_f64(self.duration).context("invalid duration")?,
            rate: self.rate,
            sources: self.sources,
        })
    }
}

impl TargetOptions {
    fn target(&self, connections: usize) -> Result<Target> {
        let needed = u8::try_from(connections.div_ceil(20_000)).unwrap_or(u8::MAX);
        Ok(Target {
            protocol: match self.protocol {
                ProtocolName::Raw => Protocol::Raw,
                ProtocolName::Ws => Protocol::WebSocket,
                ProtocolName::Fragments => Protocol::Fragments,
                ProtocolName::Deflate => Protocol::Deflate,
            },
            tls: self.ca.as_deref().map(load::trust).transpose()?,
            path: self.path.clone(),
            sources: self.sources.unwrap_or(needed),
            ..Target::new(self.address)
        })
    }
}

impl MessageOptions {
    fn plan(&self, target: &TargetOptions, connections: usize, drive: Drive) -> Result<Plan> {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).context("invalid duration");
        Ok(Plan {
            target: target.target(connections)?,
            kind: match self.kind {
                KindName::Binary => Kind::Binary,
                KindName::Text => Kind::Text,
                KindName::Json => Kind::Json,
            },
            size: self.size,
            connections,
            drive,
            warm_up: seconds(self.warm_up)?,
            duration: seconds(self.duration)?,
            verify: if self.verify_all {
                Verify::All
            } else {
                Verify::OneIn(SAMPLE)
            },
            pid: target.pid,
        })
    }
}
