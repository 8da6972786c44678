//! `cargo xtask bench`: compares Sockeye with other crates and with raw TCP on this machine.
//!
//! Each measurement runs a new server process on one processor and the load generator of `bench/load` on another. Each
//! round measures all servers, every other round in reverse order. Reported is the median of the ratios within rounds,
//! which depends little on other load of the machine.
//!
//! | file | contents |
//! |---|---|
//! | `channels` | `--server`: `sockeye serve` beside Centrifugo |
//! | `workload` | the workloads |
//! | `servers` | the servers, and how each is built and started |
//! | `trial` | one measurement, and the rounds of a workload |
//! | `results` | the results, as stored in `target/bench/*.json` |
//! | `goals` | the performance goals |
//! | `machine` | the machine and the versions |
//! | `table` | the results for the terminal |
//! | `render`, `page.md` | the results as docs/performance.md |
//! | `charts`, `plot` | its charts: their figures, and how they are drawn |

mod channels;
mod charts;
mod goals;
mod machine;
mod plot;
mod render;
mod results;
mod servers;
mod table;
mod trial;
mod workload;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use self::{
    servers::{SERVERS, Server},
    workload::Workload,
};
use crate::{
    process::{call, step},
    workspace::Workspace,
};

/// Options of `cargo xtask bench`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Compare `sockeye serve` with Centrifugo instead, which needs Go.
    #[arg(long, conflicts_with = "servers")]
    server: bool,
    /// Two short rounds: to check that everything runs, not to quote.
    #[arg(long)]
    quick: bool,
    /// Measure only these workloads.
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',')]
    only: Vec<String>,
    /// Measure only these servers and the baselines.
    #[arg(long, value_name = "SERVER", value_delimiter = ',')]
    servers: Vec<String>,
    /// Number of rounds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// The processor that runs the servers.
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    server_cpu: usize,
    /// The processor that runs the load generator.
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    load_cpu: usize,
    /// List the workloads and servers without measuring.
    #[arg(long)]
    list: bool,
    /// Render docs/performance.md, or docs/performance-server.md, from the last results without measuring.
    #[arg(long)]
    render: bool,
}

/// The folders in use.
#[derive(Debug)]
struct Folders {
    /// The workspace of the load generator and the servers.
    bench: PathBuf,
    /// Target folder of that workspace, separate because its profile differs.
    build: PathBuf,
    /// Target folder of `sockeye echo`.
    program_build: PathBuf,
    /// The folder of the results.
    results: PathBuf,
}

/// Measures, prints a table per workload, and stores the results.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if options.server {
        return channels::run(workspace, options);
    }
    let folders = Folders::of(workspace);
    if options.render {
        return render::run(workspace, &folders);
    }
    let servers = options.servers(&folders)?;
    let workloads = options.workloads()?;
    if options.list {
        println!("workloads: {}", names(workloads.iter().map(|workload| workload.name)));
        println!("servers:   {}", names(servers.iter().map(|server| server.name)));
        return Ok(());
    }
    let wanted: Vec<_> = servers
        .into_iter()
        .filter(|server| workloads.iter().any(|workload| workload.group.takes(server)))
        .collect();
    build(workspace, &folders, &wanted)?;
    fs::create_dir_all(&folders.results)?;
    if !options.quick {
        step("self-check of the load generator", || {
            call(Command::new(folders.binary("load")).arg("self-check"))
        })?;
    }
    let certificate = trial::Certificate::make(&folders)?;
    let machine = machine::describe();
    let commit = machine::commit(workspace)?;
    for workload in &workloads {
        let setting = trial::Setting {
            folders: &folders,
            certificate: &certificate,
            rounds: options.rounds(),
            is_quick: options.quick,
            cpus: (options.server_cpu, options.load_cpu),
        };
        let rows = trial::run(workload, &wanted, &setting).with_context(|| format!("workload {}", workload.name))?;
        let results = results::Results {
            workload: workload.name.into(),
            title: workload.title.into(),
            group: workload.group,
            metric: workload.metric,
            commit: commit.clone(),
            machine: machine.clone(),
            rows,
        };
        print!("{}", table::render(&results));
        if !options.is_full() {
            // Two short rounds are not enough for a verdict.
            continue;
        }
        print!("{}", goals::lines(&results));
        let file = folders.results.join(format!("{}.json", workload.name));
        fs::write(&file, serde_json::to_string_pretty(&results)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    match options.is_full() {
        true => println!("results stored in {}", folders.results.display()),
        false => println!("results not stored: that needs all servers, without --quick"),
    }
    Ok(())
}

/// The machine and the date in one line, for other pages.
pub(crate) fn machine_line() -> Result<(String, String)> {
    let machine = machine::describe();
    let line = format!(
        "{}, {} processors, {} GiB, {}",
        machine.processor, machine.processors, machine.memory_gib, machine.kernel
    );
    Ok((line, channels::today()?))
}

/// Builds the load generator and each server separately, so that cargo does not unify features across servers.
fn build(workspace: &Workspace, folders: &Folders, servers: &[&'static Server]) -> Result<()> {
    step("build", || {
        let mut load = workspace.cargo(["build", "--quiet", "--release", "--locked", "--package=load"]);
        call(load.current_dir(&folders.bench).env("CARGO_TARGET_DIR", &folders.build))?;
        servers.iter().try_for_each(|server| server.build(workspace, folders))
    })
}

/// Checks the load generator, the inner loops and the Sockeye servers like the main workspace. The other servers are
/// left out because of the build time of their dependencies.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let folders = Folders::of(workspace);
    let cargo = |arguments: [&str; 2]| {
        let mut command = workspace.cargo(arguments);
        command.current_dir(&folders.bench);
        command.env("CARGO_TARGET_DIR", workspace.target.join("bench/check"));
        command
    };
    call(cargo(["fmt", "--all"]).arg("--check"))?;
    for package in [
        "load",
        "bench-micro",
        "peer-sockeye",
        "peer-fanout-sockeye",
        "peer-blocking-sockeye",
        "peer-streams-sockeye",
    ] {
        // One package at a time, as in `build`.
        let lints = [
            "--locked",
            "--all-targets",
            "--package",
            package,
            "--",
            "-D",
            "warnings",
        ];
        call(cargo(["clippy", "--quiet"]).args(lints))?;
    }
    call(cargo(["test", "--quiet"]).args(["--package", "load"]))
}

impl Folders {
    fn of(workspace: &Workspace) -> Self {
        Self {
            bench: workspace.root.join("bench"),
            build: workspace.target.join("bench/build"),
            program_build: workspace.target.join("bench/program"),
            results: workspace.target.join("bench"),
        }
    }

    fn binary(&self, name: &str) -> PathBuf {
        self.build.join("release").join(name)
    }
}

impl Options {
    fn rounds(&self) -> u16 {
        self.rounds.unwrap_or(if self.quick { 2 } else { 7 })
    }

    /// Whether the results cover all servers and may be quoted.
    fn is_full(&self) -> bool {
        !self.quick && self.servers.is_empty()
    }

    fn workloads(&self) -> Result<Vec<&'static Workload>> {
        let all = workload::WORKLOADS;
        let known = |name: &String| all.iter().any(|workload| workload.name == *name);
        if let Some(unknown) = self.only.iter().find(|name| !known(name)) {
            let names = names(all.iter().map(|workload| workload.name));
            bail!("unknown workload {unknown}; known: {names}");
        }
        let is_chosen =
            |workload: &&Workload| self.only.is_empty() || self.only.iter().any(|name| name == workload.name);
        Ok(all.iter().filter(is_chosen).collect())
    }

    /// The selected servers that exist, and always the baselines.
    fn servers(&self, folders: &Folders) -> Result<Vec<&'static Server>> {
        if let Some(unknown) = self
            .servers
            .iter()
            .find(|name| SERVERS.iter().all(|server| server.name != **name))
        {
            let names = names(SERVERS.iter().map(|server| server.name));
            bail!("unknown server {unknown}; known: {names}");
        }
        let is_chosen = |server: &&Server| {
            self.servers.is_empty() || server.is_baseline || self.servers.iter().any(|name| name == server.name)
        };
        let is_there = |server: &&Server| server.is_there(folders);
        let servers: Vec<_> = SERVERS.iter().filter(is_chosen).filter(is_there).collect();
        ensure!(!servers.is_empty(), "none of the selected servers exists");
        Ok(servers)
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
