//! `cargo xtask faults`: does to the built `sockeye serve` what happens in production, and checks what clients see.
//!
//! Clients keep account of every publication: an acknowledged one must arrive once and in order, or the client must be
//! told that it cannot recover. All traffic stays on the loopback interface.
//!
//! | file | contents |
//! |---|---|
//! | `server` | the server process: signals, resources, HTTP answers |
//! | `wire` | frames and commands of the client protocol |
//! | `subscribers`, `publisher` | subscribers and publishers, and the audit of what they saw |
//! | `crash`, `disk` | F1 and F8: `kill -9`, damaged logs; a full disk, other folders, other sinks of the log lines |
//! | `engine` | Redis and NATS: servers that die, lose writes, are full, slow or cut off; nodes that are replaced |
//! | `earlier` | the program of an earlier version |
//! | `peers`, `process` | F5, F10, F12: slow and dead peers; F7, F9, F11, F15: descriptors, clocks, draining, panics |

mod crash;
mod disk;
mod earlier;
mod engine;
mod peers;
mod process;
mod publisher;
mod server;
mod subscribers;
mod wire;

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{
    bench,
    process::{call, step},
    tools,
    workspace::Workspace,
};

/// Options of `cargo xtask faults`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Try the faults of a shared engine, with two nodes, instead of those of a single node.
    #[arg(long, value_name = "ENGINE")]
    engine: Option<EngineKind>,
    /// Run only these faults (names as in the table).
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    only: Vec<String>,
    /// How often the server is killed in F1.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// How many times as many clients F5, F11 and F12 have as the table says. Above 5, run a release build of this
    /// program, which otherwise falls behind the server.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=30))]
    scale: u16,
    /// Write the table to docs/faults.md. Needs a run of all faults.
    #[arg(long, conflicts_with_all = ["only", "scale"])]
    write: bool,
    /// Print the names of the faults.
    #[arg(long)]
    list: bool,
    /// Run F10 in this network namespace; used by the command itself.
    #[arg(long, hide = true)]
    inside_namespace: bool,
}

/// An engine that several nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EngineKind {
    Redis,
    Nats,
}

/// What faults need.
struct Environment {
    binary: PathBuf,
    /// The program with a way to make it panic, built when it is needed.
    panicking: Box<dyn Fn() -> Result<PathBuf>>,
    /// The program of an earlier version, built when it is needed; `None` if the repository does not contain it.
    earlier: Box<dyn Fn() -> Result<Option<PathBuf>>>,
    /// Installs nats-server when it is needed.
    nats_server: Box<dyn Fn() -> Result<PathBuf>>,
    /// A folder for the files of the fault.
    work: PathBuf,
    rounds: u16,
    scale: usize,
    inside_namespace: bool,
}

/// A fault and how to survive it.
struct Fault {
    name: &'static str,
    what: &'static str,
    /// When it counts as survived.
    rule: &'static str,
    run: fn(&Environment) -> Result<Outcome>,
}

/// What happened.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Outcome {
    /// What clients saw.
    clients: String,
    /// What was lost.
    lost: String,
    /// How long until the server did its work again.
    ready: String,
    /// What was violated.
    violations: Vec<String>,
    /// Why the fault could not be tried on this machine.
    skipped: Option<String>,
}

impl Outcome {
    fn skipped(reason: impl Into<String>) -> Self {
        Self {
            skipped: Some(reason.into()),
            ..Self::default()
        }
    }

    /// Notes a violation unless the condition holds.
    fn require(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.violations.push(what.into());
        }
    }
}

const FAULTS: &[&[Fault]] = &[crash::FAULTS, peers::FAULTS, process::FAULTS, disk::FAULTS];

/// Runs the faults and prints a row for each; fails if one was not survived.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let faults = match options.engine {
        None => FAULTS,
        Some(EngineKind::Redis) => &[engine::redis::FAULTS],
        Some(EngineKind::Nats) => &[engine::nats::FAULTS],
    };
    let mut faults: Vec<_> = faults.iter().copied().flatten().collect();
    // F10 after F9.
    faults.sort_by_key(|fault| number(fault.name));
    if options.list {
        faults
            .iter()
            .for_each(|fault| println!("{:14} {}", fault.name, fault.what));
        return Ok(());
    }
    if let Some(unknown) = options
        .only
        .iter()
        .find(|name| faults.iter().all(|fault| fault.name != **name))
    {
        bail!("unknown fault {unknown}; --list shows all");
    }
    faults.retain(|fault| options.only.is_empty() || options.only.iter().any(|name| name == fault.name));

    if !options.inside_namespace {
        step("build", || {
            call(&mut workspace.cargo([
                "build",
                "--quiet",
                "--release",
                "--package=sockeye-cli",
                "--bin=sockeye",
            ]))
        })?;
    }
    let work = workspace.target.join("faults");
    fs::create_dir_all(&work)?;
    let (root, target) = (workspace.root.clone(), workspace.target.clone());
    let (earlier_root, earlier_target) = (root.clone(), target.clone());
    let environment = Environment {
        binary: workspace.target.join("release/sockeye"),
        panicking: Box::new(move || build_panicking(&root, &target)),
        earlier: Box::new(move || earlier::build(&earlier_root, &earlier_target)),
        nats_server: Box::new(|| tools::nats_server(&Workspace::find()?)),
        work,
        rounds: options.rounds,
        scale: options.scale.into(),
        inside_namespace: options.inside_namespace,
    };
    let began_at = Instant::now();
    let mut rows = String::new();
    let mut failed = Vec::new();
    for fault in &faults {
        let outcome = (fault.run)(&environment).unwrap_or_else(|error| Outcome {
            violations: vec![format!("{error:#}")],
            ..Outcome::default()
        });
        let row = row(fault, &outcome);
        print!("{row}");
        rows += &row;
        for violation in &outcome.violations {
            println!("    {}: {violation}", fault.name);
            failed.push(fault.name);
        }
    }
    println!("{} faults in {:.0} s", faults.len(), began_at.elapsed().as_secs_f64());
    if options.write {
        write_page(workspace, options.engine, &rows, began_at.elapsed())?;
    }
    failed.dedup();
    if !failed.is_empty() {
        bail!("not survived: {}", failed.join(", "));
    }
    Ok(())
}

/// The number in a name such as `F10-dead`.
fn number(name: &str) -> u32 {
    let digits: String = name.chars().skip(1).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

fn row(fault: &Fault, outcome: &Outcome) -> String {
    let verdict = match (&outcome.skipped, outcome.violations.is_empty()) {
        (Some(reason), _) => {
            return format!(
                "| {} | {} | not run: {reason} | | | {} | – |\n",
                fault.name, fault.what, fault.rule
            );
        }
        (None, true) => "PASS",
        (None, false) => "FAIL",
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {verdict} |\n",
        fault.name, fault.what, outcome.clients, outcome.lost, outcome.ready, fault.rule
    )
}

/// Builds the program with the feature that lets a client make its task panic.
fn build_panicking(root: &Path, target: &Path) -> Result<PathBuf> {
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--package=sockeye-cli",
        "--bin=sockeye",
        "--features=__faults",
    ]);
    call(cargo.current_dir(root))?;
    Ok(target.join("debug/sockeye"))
}

fn write_page(workspace: &Workspace, engine: Option<EngineKind>, rows: &str, took: Duration) -> Result<()> {
    let page = workspace.root.join("docs/faults.md");
    let text = fs::read_to_string(&page)?;
    let (name, option) = match engine {
        None => ("faults", ""),
        Some(EngineKind::Redis) => ("redis faults", " --engine redis"),
        Some(EngineKind::Nats) => ("nats faults", " --engine nats"),
    };
    // The lines around the table.
    let start = format!("<!-- {name}: written by cargo xtask faults{option} --write -->");
    let end = format!("<!-- end of {name} -->");
    let (before, rest) = text
        .split_once(&start)
        .with_context(|| format!("docs/faults.md has no place for the table of {name}"))?;
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("docs/faults.md has no end of the table of {name}"))?;
    let (machine, date) = bench::machine_line()?;
    let mut table = format!(
        "{start}\n\n| fault | what happens | what clients saw | what was lost | until ready | survived if | |\n\
         |---|---|---|---|---|---|---|\n{rows}\n"
    );
    let _ = writeln!(table, "{date}, {machine}; {:.0} s for all.\n", took.as_secs_f64());
    fs::write(&page, format!("{before}{table}{end}{after}"))?;
    println!("wrote {}", page.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FAULTS, Outcome, number, row};

    #[test]
    fn a_violation_fails_the_row() {
        let fault = &FAULTS[0][0];
        let mut outcome = Outcome::default();
        outcome.require(true, "no");
        assert!(row(fault, &outcome).ends_with("| PASS |\n"));
        outcome.require(false, "a publication was lost");
        assert!(row(fault, &outcome).ends_with("| FAIL |\n"));
        assert!(row(fault, &Outcome::skipped("no nft")).contains("not run: no nft"));
    }

    #[test]
    fn names_are_unique_and_numbered() {
        let faults = FAULTS.iter().copied().flatten().chain(super::engine::redis::FAULTS);
        let faults = faults.chain(super::engine::nats::FAULTS);
        let mut names: Vec<_> = faults.map(|fault| fault.name).collect();
        assert!(names.iter().all(|name| number(name) > 0));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
