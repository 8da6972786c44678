//! `cargo xtask bench`: Sockeye beside its peers and beside raw TCP, on this machine.
//!
//! Each measurement is a fresh server process on one processor and the load generator of `bench/load` on another. In
//! each round all servers have their turn, in every other round in reverse; what is told is the median of the ratios
//! within rounds, which depends less than others on what else the machine does.
//!
//! | file | holds |
//! |---|---|
//! | `workload` | what is measured |
//! | `servers` | who is measured, and how each is built and started |
//! | `trial` | one measurement, and the rounds of a workload |
//! | `results` | what came of it, as kept in `target/bench/*.json` |
//! | `goals` | what ours is to reach, and whether it does |
//! | `machine` | where it was measured |
//! | `table` | the same for the terminal |
//! | `render`, `page.md` | the same as docs/performance.md |
//! | `charts`, `plot` | its plots: what is in them, and how they are drawn |

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

/// What to measure, and how often.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Two short rounds: to see that all works, not to quote from.
    #[arg(long)]
    quick: bool,
    /// Only these workloads.
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these servers, and what they are compared with.
    #[arg(long, value_name = "SERVER", value_delimiter = ',')]
    servers: Vec<String>,
    /// How many rounds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// The processor of the servers.
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    server_cpu: usize,
    /// The processor of the load.
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    load_cpu: usize,
    /// Say what there is, and measure nothing.
    #[arg(long)]
    list: bool,
    /// Measure nothing, and render docs/performance.md from what was measured last.
    #[arg(long)]
    render: bool,
}

/// Where things are kept.
#[derive(Debug)]
struct Folders {
    /// The workspace of load and servers.
    bench: PathBuf,
    /// Where it is built: not beside everything else, whose profile is another.
    build: PathBuf,
    /// The results.
    results: PathBuf,
}

/// Measures, prints a table for each workload, and keeps the figures.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
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
        step("the load finds known delays", || {
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
        print!("{}", table::of(&results));
        if !options.is_full() {
            // Two short rounds reach and miss nothing.
            continue;
        }
        print!("{}", goals::lines(&results));
        let file = folders.results.join(format!("{}.json", workload.name));
        fs::write(&file, serde_json::to_string_pretty(&results)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    match options.is_full() {
        true => println!("kept in {}", folders.results.display()),
        false => println!("not kept: only with all servers, and not with --quick"),
    }
    Ok(())
}

/// Builds the load and each server by itself, so that none gets the features that another asks of a dependency.
fn build(workspace: &Workspace, folders: &Folders, servers: &[&'static Server]) -> Result<()> {
    let packages = std::iter::once("load".to_owned()).chain(servers.iter().map(|server| server.package()));
    step("build", || {
        for package in packages {
            let mut command = workspace.cargo(["build", "--quiet", "--release", "--locked", "--package"]);
            command.arg(package).current_dir(&folders.bench);
            call(command.env("CARGO_TARGET_DIR", &folders.build))?;
        }
        Ok(())
    })
}

/// Checks load generator, inner loops and our own servers as the main workspace is checked. The other servers drag in
/// their dependencies, which is much for what they are.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let folders = Folders::of(workspace);
    let cargo = |arguments: [&str; 2]| {
        let mut command = workspace.cargo(arguments);
        command.current_dir(&folders.bench);
        command.env("CARGO_TARGET_DIR", workspace.target.join("bench/check"));
        command
    };
    call(cargo(["fmt", "--all"]).arg("--check"))?;
    for package in ["load", "bench-micro", "peer-ours", "peer-fanout-ours"] {
        // One at a time, as they are built.
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

    /// Whether what is measured may be quoted, and stand beside the other workloads.
    fn is_full(&self) -> bool {
        !self.quick && self.servers.is_empty()
    }

    fn workloads(&self) -> Result<Vec<&'static Workload>> {
        let all = workload::WORKLOADS;
        let known = |name: &String| all.iter().any(|workload| workload.name == *name);
        if let Some(unknown) = self.only.iter().find(|name| !known(name)) {
            let names = names(all.iter().map(|workload| workload.name));
            bail!("there is no workload {unknown}; there are {names}");
        }
        let is_chosen =
            |workload: &&Workload| self.only.is_empty() || self.only.iter().any(|name| name == workload.name);
        Ok(all.iter().filter(is_chosen).collect())
    }

    /// The chosen servers that there are, and always those that the others are compared with.
    fn servers(&self, folders: &Folders) -> Result<Vec<&'static Server>> {
        if let Some(unknown) = self
            .servers
            .iter()
            .find(|name| SERVERS.iter().all(|server| server.name != **name))
        {
            let names = names(SERVERS.iter().map(|server| server.name));
            bail!("there is no server {unknown}; there are {names}");
        }
        let is_chosen = |server: &&Server| {
            self.servers.is_empty() || server.is_baseline || self.servers.iter().any(|name| name == server.name)
        };
        let is_there = |server: &&Server| server.is_there(folders);
        let servers: Vec<_> = SERVERS.iter().filter(is_chosen).filter(is_there).collect();
        ensure!(!servers.is_empty(), "none of the servers is there");
        Ok(servers)
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
