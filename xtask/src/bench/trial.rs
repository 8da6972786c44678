//! One measurement, and the rounds of a workload.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Folders,
    machine::version,
    results::{Round, Row},
    servers::{Process, Server},
    workload::{Group, Metric, Workload},
};
use crate::process::{call, on_cpu, output};

/// What all measurements of a run share.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    pub(super) folders: &'a Folders,
    pub(super) certificate: &'a Certificate,
    pub(super) rounds: u16,
    pub(super) is_quick: bool,
    /// Of the servers, and of the load.
    pub(super) cpus: (usize, usize),
}

/// A certificate for `localhost`, and its key, as PEM files.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificate {
    pub(super) fn make(folders: &Folders) -> Result<Self> {
        call(
            Command::new(folders.binary("load"))
                .arg("certificate")
                .arg(&folders.results),
        )?;
        Ok(Self {
            cert: folders.results.join("cert.pem"),
            key: folders.results.join("key.pem"),
        })
    }
}

/// Measures all servers of a workload, in rounds.
pub(super) fn run(workload: &Workload, servers: &[&'static Server], setting: &Setting<'_>) -> Result<Vec<Row>> {
    let servers: Vec<_> = servers.iter().filter(|server| workload.group.takes(server)).collect();
    let mut rows: Vec<_> = servers
        .iter()
        .map(|server| Row {
            server: server.name.into(),
            version: version(setting.folders, server),
            is_baseline: server.is_baseline,
            rounds: Vec::new(),
            syscalls: None,
        })
        .collect();
    // Without a rate the loop is closed.
    let rates: Vec<_> = match workload.rates {
        [] => vec![None],
        rates => rates.iter().map(|rate| Some(*rate)).collect(),
    };
    println!("==> {}: {} ({} servers)", workload.name, workload.title, servers.len());
    for round in 0..setting.rounds.min(workload.rounds_max) {
        for rate in &rates {
            // What the machine is doing beside hits the first of a round and the last in turns.
            let forward = 0..servers.len();
            let order: Vec<_> = if round % 2 == 0 {
                forward.collect()
            } else {
                forward.rev().collect()
            };
            for idx in order {
                let measured = measure(workload, servers[idx], *rate, setting);
                let (report, failure) = match measured {
                    Ok(report) => (Some(report), None),
                    Err(error) => (None, Some(format!("{error:#}"))),
                };
                rows[idx].rounds.push(Round {
                    round,
                    rate: *rate,
                    report,
                    failure,
                });
            }
        }
    }
    // Calls for each message say something of those that leave in turns, one after the other or in bursts.
    if workload.group == Group::Echo && workload.metric == Metric::Cpu && can_count() {
        for (row, server) in rows.iter_mut().zip(&servers) {
            match syscalls(workload, server, setting) {
                Ok(count) => row.syscalls = Some(count),
                // A server that fails here has failed as in any round.
                Err(error) => row.rounds.push(Round {
                    round: setting.rounds,
                    rate: None,
                    report: None,
                    failure: Some(format!("{error:#}")),
                }),
            }
        }
    }
    Ok(rows)
}

/// The event that the kernel counts.
const SYSCALL: &str = "raw_syscalls:sys_enter";

/// Whether `perf` is there and may count system calls.
fn can_count() -> bool {
    output(Command::new("perf").args(["stat", "-e", SYSCALL, "--", "true"])).is_ok()
}

/// How many system calls the server makes for each message, the opening of the connections included. By the kernel's
/// count, which makes each dearer, and so in a run of its own.
fn syscalls(workload: &Workload, server: &Server, setting: &Setting<'_>) -> Result<f64> {
    let file = setting.folders.results.join("syscalls.csv");
    let report = measure_under(workload, server, None, setting, Some(&file))?;
    let text = fs::read_to_string(&file).context("perf wrote nothing")?;
    let line = text.lines().find(|line| line.contains(SYSCALL));
    let count = line.and_then(|line| line.split(',').next()?.parse::<f64>().ok());
    let total = report["total"]
        .as_f64()
        .context("the load does not say how many messages there were")?;
    Ok(count.with_context(|| format!("perf counted nothing: {text}"))? / total)
}

/// Starts a server, lets the load loose on it, and gives the load's report.
fn measure(workload: &Workload, server: &Server, rate: Option<u32>, setting: &Setting<'_>) -> Result<Value> {
    measure_under(workload, server, rate, setting, None)
}

/// As `measure`; where there is a file, the server's system calls are counted into it.
fn measure_under(
    workload: &Workload,
    server: &Server,
    rate: Option<u32>,
    setting: &Setting<'_>,
    counts: Option<&Path>,
) -> Result<Value> {
    let process = on_cpu(setting.cpus.0, || {
        Process::start(server, workload.group, setting.folders, setting.certificate)
    })?;
    let mut words = workload.load.split(' ');
    let program = setting.folders.binary("load");
    let mut load = match counts {
        None => Command::new(program),
        Some(file) => {
            let mut perf = Command::new("perf");
            perf.args(["stat", "-x,", "-e", SYSCALL, "-o"]).arg(file);
            perf.args(["-p", &process.pid().to_string(), "--"]).arg(program);
            perf
        }
    };
    load.arg(words.next().unwrap_or_default())
        .arg(&process.address)
        .args(words);
    load.args(["--protocol", server.protocol(workload.group)]);
    if workload.group == Group::Tls {
        load.arg("--ca").arg(&setting.certificate.cert);
    }
    if let Some(rate) = rate {
        load.args(["--rate", &rate.to_string()]);
    }
    let is_quick = setting.is_quick;
    if workload.is_idle() {
        load.args(["-c", if is_quick { "1000" } else { "10000" }]);
    } else {
        load.args(["--warm-up", if is_quick { "0.1" } else { "0.25" }]);
        load.args(["--duration", if is_quick { "0.3" } else { "1" }]);
    }
    load.args(["--json", "--cpu", &setting.cpus.1.to_string()]);
    load.args(["--pid", &process.pid().to_string()]);
    let ended = load.stdin(Stdio::null()).output().context("cannot run the load")?;
    let stderr = String::from_utf8_lossy(&ended.stderr);
    anyhow::ensure!(
        ended.status.success(),
        "{}",
        stderr.trim().trim_start_matches("error: ")
    );
    serde_json::from_slice(&ended.stdout).context("the load's report is not JSON")
}
