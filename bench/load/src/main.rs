//! `load`: the load generator at the command line.

use std::{fmt, fs, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use load::{Check, Drive, IdlePlan, Kind, Plan, Protocol, Target, Verify};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

/// Measures a server, and itself.
#[derive(Debug, Parser)]
#[command(name = "load", disable_help_subcommand = true)]
struct Options {
    /// Print the report as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Run on this processor alone.
    #[arg(long, global = true, value_name = "CPU")]
    cpu: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A server that sends back what it is sent.
    Echo(EchoOptions),
    /// A server that gives each message to all connections but the one that it came from.
    Fanout(FanoutOptions),
    /// What connections cost that do nothing, in a server that sends back what it is sent.
    Idle(IdleOptions),
    /// Measure a server of known delays, to see whether they are reported.
    SelfCheck,
    /// Make a certificate for `localhost` that servers of TLS can show: cert.pem and key.pem.
    Certificate {
        /// Where to put them.
        folder: PathBuf,
    },
}

/// One read in so many is looked at. A prime, so that it is not always the turn of the same connections.
const SAMPLE: u32 = 61;

/// How a server is reached.
#[derive(Args, Debug)]
struct TargetOptions {
    /// Where it listens.
    address: SocketAddr,
    /// What it speaks.
    #[arg(long, value_enum, default_value_t = ProtocolName::Ws)]
    protocol: ProtocolName,
    /// TLS below that, trusting the certificates of this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The path of the request.
    #[arg(long, default_value = "/")]
    path: String,
    /// How many addresses connections come from, 127.0.0.1 and up; by default one for each 20,000 connections.
    #[arg(long, value_name = "N")]
    sources: Option<u8>,
    /// The server's process, to read what it uses.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolName {
    /// Bytes without framing.
    Raw,
    /// WebSocket.
    Ws,
    /// WebSocket with permessage-deflate, without context takeover.
    Deflate,
}

/// What is sent.
#[derive(Args, Debug)]
struct MessageOptions {
    /// Payload bytes of a message.
    #[arg(long, default_value_t = 20)]
    size: usize,
    /// What it is made of; all but binary go as text.
    #[arg(long, value_enum, default_value_t = KindName::Binary)]
    kind: KindName,
    /// How long it runs before it counts, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.25)]
    warm_up: f64,
    /// How long it counts, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    duration: f64,
    /// Compare every reply byte for byte, instead of those in one read of 61.
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
    /// Connections.
    #[arg(short, long, default_value_t = 100)]
    connections: usize,
    /// Closed loop: messages in flight on each connection.
    #[arg(short = 'd', long, default_value_t = 1)]
    in_flight: usize,
    /// Open loop: messages a second, of all connections together, whatever the server does.
    #[arg(short, long, conflicts_with = "in_flight")]
    rate: Option<f64>,
}

#[derive(Args, Debug)]
struct FanoutOptions {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    messages: MessageOptions,
    /// Who receives; one more publishes.
    #[arg(short, long, default_value_t = 1000)]
    subscribers: usize,
    /// Messages in flight: the next one leaves when all have one.
    #[arg(short = 'd', long, default_value_t = 1)]
    in_flight: usize,
}

#[derive(Args, Debug)]
struct IdleOptions {
    #[command(flatten)]
    target: TargetOptions,
    /// Connections.
    #[arg(short, long, default_value_t = 10_000)]
    connections: usize,
    /// Payload bytes of the message that each echoes.
    #[arg(long, default_value_t = 16 * 1024)]
    size: usize,
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
            sched_setaffinity(None, &cpus).with_context(|| format!("there is no processor {cpu} for this"))?;
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
                    pid: options.target.pid.context("say with --pid whose memory it is")?,
                })?;
                self.print(&report)?;
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
            "{} messages had no reply ten seconds after the end",
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

impl TargetOptions {
    fn target(&self, connections: usize) -> Result<Target> {
        let needed = u8::try_from(connections.div_ceil(20_000)).unwrap_or(u8::MAX);
        Ok(Target {
            protocol: match self.protocol {
                ProtocolName::Raw => Protocol::Raw,
                ProtocolName::Ws => Protocol::WebSocket,
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
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).context("no such duration");
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
