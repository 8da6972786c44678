//! Runs one measurement, or the rounds of a workload.

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

/// Settings that all measurements of a run share.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    pub(super) folders: &'a Folders,
    pub(super) certificate: &'a Certificate,
    pub(super) rounds: u16,
    pub(super) is_quick: bool,
    /// The processors of the servers and of the load generator.
    pub(super) cpus: (usize, usize),
}

/// PEM files with a certificate for `localhost` and its key.
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
    // Without rates the loop is closed.
    let rates: Vec<_> = match workload.rates {
        [] => vec![None],
        rates => rates.iter().map(|rate| Some(*rate)).collect(),
    };
    println!("==> {}: {} ({} servers)", workload.name, workload.title, servers.len());
    for round in 0..setting.rounds.min(workload.rounds_max) {
        for rate in &rates {
            // The order alternates, so that other load of the machine affects the first and the last server equally.
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
    // System calls per message are only comparable in a closed loop.
    if workload.group == Group::Echo && workload.metric == Metric::Cpu && can_count() {
        for (row, server) in rows.iter_mut().zip(&servers) {
            match syscalls(workload, server, setting) {
                Ok(count) => row.syscalls = Some(count),
                // Recorded like the failure of a round.
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

/// The kernel event to count.
const SYSCALL: &str = "raw_syscalls:sys_enter";

/// Whether `perf` is installed and may count system calls.
fn can_count() -> bool {
    output(Command::new("perf").args(["stat", "-e", SYSCALL, "--", "true"])).is_ok()
}

/// System calls of the server per message, including the opening handshakes. Counting makes each call slower, so it has
/// a run of its own.
fn syscalls(workload: &Workload, server: &Server, setting: &Setting<'_>) -> Result<f64> {
    let file = setting.folders.results.join("syscalls.csv");
    let report = measure_under(workload, server, None, setting, Some(&file))?;
    let text = fs::read_to_string(&file).context("perf wrote nothing")?;
    let line = text.lines().find(|line| line.contains(SYSCALL));
    let count = line.and_then(|line| line.split(',').next()?.parse::<f64>().ok());
    let total = report["total"]
        .as_f64()
        .context("the report of the load generator has no total")?;
    Ok(count.with_context(|| format!("perf counted nothing: {text}"))? / total)
}

/// Starts a server, runs the load generator, and returns its report.
fn measure(workload: &Workload, server: &Server, rate: Option<u32>, setting: &Setting<'_>) -> Result<Value> {
    measure_under(workload, server, rate, setting, None)
}

/// Like `measure`; if `counts` is given, `perf` writes the server's system calls to this file.
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
    let ended = load
        .stdin(Stdio::null())
        .output()
        .context("cannot run the load generator")?;
    let stderr = String::from_utf8_lossy(&ended.stderr);
    anyhow::ensure!(
        ended.status.success(),
        "{}",
        stderr.trim().trim_start_matches("error: ")
    );
    serde_json::from_slice(&ended.stdout).context("the report of the load generator is not JSON")
}
