//! `cargo xtask bench --server`: compares `sockeye serve` with Centrifugo, which speaks the same client protocol: one
//! node, and two nodes that share an engine.
//!
//! Each measurement starts new server processes on one processor and the load generator on another. Each round measures
//! all servers, every other round in reverse order. A goal compares the median of the ratios within rounds.
//!
//! | file | contents |
//! |---|---|
//! | `servers` | the servers, their configuration, and how each is started |
//! | `engines` | Redis and NATS, which the nodes of a server share |
//! | `workload` | the measurements, and the figures that are compared |
//! | `results` | the results, as stored in `target/bench/channels/*.json`, and the goals |
//! | `render`, `page.md`, `cluster.md` | the results as docs/performance-server.md and docs/performance-cluster.md |

mod engines;
mod render;
mod results;
mod servers;
mod workload;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::{
    engines::{Engine, Programs},
    results::{Results, Round},
    servers::{Deployment, Kind, Process},
    workload::{WORKLOADS, Workload},
};
use super::{Options, machine};
use crate::{
    process::{call, on_cpu, step},
    tools,
    workspace::Workspace,
};

/// The programs and folders in use.
#[derive(Debug)]
pub(super) struct Places {
    sockeye: PathBuf,
    centrifugo: PathBuf,
    engines: Programs,
    load: PathBuf,
    /// Configuration files and logs of the servers.
    work: PathBuf,
    results: PathBuf,
}

/// Measures, prints the figures of each workload, and stores the results.
pub(super) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let results = workspace.target.join("bench/channels");
    if options.render {
        return render::run(workspace, &results);
    }
    let workloads = chosen(&options.only)?;
    if options.list {
        for workload in workloads {
            println!("{:12} {}", workload.name, workload.title);
        }
        return Ok(());
    }
    fs::create_dir_all(&results)?;
    let mut places = build(workspace, results)?;
    let has = |is_wanted: fn(Kind) -> bool| {
        let mut servers = workloads.iter().flat_map(|workload| workload.servers);
        servers.any(|server| is_wanted(*server))
    };
    if has(Kind::is_centrifugo) {
        places.centrifugo = step("Centrifugo", || tools::centrifugo::prepare(workspace))?;
    }
    if has(|server| server.engine() == Some(Engine::Redis)) {
        places.engines.redis = step("Redis", tools::redis)?;
    }
    if has(|server| server.engine() == Some(Engine::Nats)) {
        places.engines.nats = step("NATS", || tools::nats_server(workspace))?;
    }
    let machine = machine::describe();
    let commit = machine::commit(workspace)?;
    for workload in workloads {
        println!("==> {}: {}", workload.name, workload.title);
        let rounds = options
            .rounds
            .unwrap_or(if options.quick { 1 } else { workload.rounds });
        let mut measured = Results {
            workload: workload.name.into(),
            commit: commit.clone(),
            machine: machine.clone(),
            date: today()?,
            rounds: Vec::new(),
        };
        for round in 0..rounds {
            // The order alternates, so that other load of the machine affects the first and the last server equally.
            let mut servers = workload.servers.to_vec();
            if round % 2 == 1 {
                servers.reverse();
            }
            for server in servers {
                let load_average = machine::load_average();
                let (report, failure) = match measure(workload, server, &places, options) {
                    Ok(report) => (Some(report), None),
                    Err(error) => (None, Some(format!("{error:#}"))),
                };
                let round = Round {
                    round,
                    server: server.name().into(),
                    report,
                    failure,
                    load_average,
                };
                println!("    {}", round.line(workload));
                measured.rounds.push(round);
            }
        }
        print!("{}", measured.summary(workload));
        if options.quick {
            continue;
        }
        let file = places.results.join(format!("{}.json", workload.name));
        fs::write(&file, serde_json::to_string_pretty(&measured)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    match options.quick {
        false => println!(
            "results stored in {}; render them with --server --render",
            places.results.display()
        ),
        true => println!("results not stored: that needs a run without --quick"),
    }
    Ok(())
}

fn chosen(only: &[String]) -> Result<Vec<&'static Workload>> {
    let known = |name: &String| WORKLOADS.iter().any(|workload| workload.name == *name);
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        let names = super::names(WORKLOADS.iter().map(|workload| workload.name));
        bail!("unknown workload {unknown}; known: {names}");
    }
    let is_chosen = |workload: &&Workload| only.is_empty() || only.iter().any(|name| name == workload.name);
    Ok(WORKLOADS.iter().filter(is_chosen).collect())
}

/// Builds the load generator and `sockeye serve`, as users build it.
fn build(workspace: &Workspace, results: PathBuf) -> Result<Places> {
    let folders = super::Folders::of(workspace);
    step("build", || {
        let mut load = workspace.cargo(["build", "--quiet", "--release", "--locked", "--package=load"]);
        call(load.current_dir(&folders.bench).env("CARGO_TARGET_DIR", &folders.build))?;
        call(&mut workspace.cargo([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--package=sockeye-cli",
            "--bin=sockeye",
        ]))
    })?;
    let work = results.join("work");
    fs::create_dir_all(&work)?;
    Ok(Places {
        sockeye: workspace.target.join("release/sockeye"),
        centrifugo: PathBuf::new(),
        engines: Programs::default(),
        load: folders.binary("load"),
        work,
        results,
    })
}

/// Starts a server, runs the load generator, and returns its report.
fn measure(workload: &Workload, server: Kind, places: &Places, options: &Options) -> Result<Value> {
    let server = on_cpu(options.server_cpu, || {
        Deployment::start(server, workload.handshakes_max, places)
    })?;
    let list = |of: fn(&Process) -> String| server.nodes.iter().map(of).collect::<Vec<_>>().join(",");
    let engine = server.engine.as_ref().map(|engine| engine.pid().to_string());
    let load = on_cpu(options.load_cpu, || {
        Command::new(&places.load)
            .arg("channels")
            .arg(workload.scenario)
            .arg(list(|node| node.address.clone()))
            .args(["--pid", &list(|node| node.pid().to_string())])
            .args(["--cpu", &options.load_cpu.to_string()])
            .args(engine.iter().flat_map(|pid| ["--engine-pid", pid]))
            .args(workload.arguments(options.quick))
            .stdin(Stdio::null())
            .output()
            .context("cannot run the load generator")
    })?;
    let stderr = String::from_utf8_lossy(&load.stderr);
    ensure!(
        load.status.success(),
        "{}{}",
        stderr.trim().trim_start_matches("error: "),
        server.last_words()
    );
    serde_json::from_slice(&load.stdout).context("the report of the load generator is not JSON")
}

/// The date of the measurement, in UTC.
pub(super) fn today() -> Result<String> {
    let date = crate::process::output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    Ok(date.trim().to_owned())
}

/// The last lines of a file, for messages.
fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}
