//! `cargo xtask fuzz`: builds the fuzz targets, runs them for a given time and reports the results.
//!
//! | file | contents |
//! |---|---|
//! | `targets` | the targets, and how each is built |
//! | `campaign` | running one target, and parsing its output |
//! | `corpus` | the corpus: all inputs during a run, a minimized set in the repository |
//! | `ledger` | the totals of all recorded runs |
//!
//! Only Rust and a C++ compiler are needed: the libFuzzer crate contains the C++ source, and the compiler flags for
//! coverage are stable. Only the address sanitizer, used for targets that reach `unsafe` code, needs an unstable flag.

mod campaign;
mod corpus;
mod ledger;
mod targets;

use std::{path::PathBuf, sync::Mutex, thread, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    process::{call, step},
    workspace::Workspace,
};
use campaign::{Outcome, Program, Run};
use targets::{TARGETS, Target};

/// Options of `cargo xtask fuzz`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How long to run each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Run only these targets.
    #[arg(long = "target", value_name = "TARGET", value_delimiter = ',')]
    targets: Vec<String>,
    /// How many targets to run in parallel.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Maximum length of an input, instead of each target's own.
    #[arg(long, value_name = "BYTES")]
    len_max: Option<usize>,
    /// Record the runs in docs/fuzz-ledger.tsv and update the totals in docs/fuzzing.md.
    #[arg(long)]
    ledger: bool,
    /// Afterwards, minimize the corpus and write it to fuzz/corpus.
    #[arg(long)]
    minimize: bool,
    /// Run one input instead, such as a crash input; needs --target.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ledger", "minimize"])]
    input: Option<PathBuf>,
}

/// Runs the targets; fails if an input made one fail.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let targets = options.chosen()?;
    let folders = Folders::of(workspace);
    let programs = step("build the fuzz targets", || {
        targets
            .iter()
            .map(|target| target.build(workspace))
            .collect::<Result<Vec<_>>>()
    })?;
    if let Some(input) = &options.input {
        return match &programs[..] {
            [program] => call(program.command().arg(input)),
            _ => bail!("say with --target which target is to run the input"),
        };
    }
    println!(
        "==> {} targets, {} s each, {} at a time",
        programs.len(),
        options.seconds,
        options.jobs
    );
    let runs = run_all(&programs, &folders, options)?;
    print_table(&runs);
    if options.ledger {
        ledger::append(&folders, &runs)?;
    }
    if options.minimize {
        for program in &programs {
            step(&format!("minimize the corpus of {}", program.target.name), || {
                corpus::minimize(program, &folders)
            })?;
        }
    }
    let failed: Vec<_> = runs.iter().filter_map(Run::failure).collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{}", failed.join("\n"))
}

/// Checks format and lints of the targets without building libFuzzer or running anything.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let manifest = ["--manifest-path", "fuzz/Cargo.toml"];
    call(workspace.cargo(["fmt", "--check"]).args(manifest))?;
    let mut clippy = workspace.cargo([
        "clippy",
        "--quiet",
        "--all-targets",
        "--no-default-features",
        "--features=server",
    ]);
    clippy.args(manifest).args(["--", "-D", "warnings"]);
    call(clippy.env("CARGO_TARGET_DIR", workspace.target.join("fuzz/check")))
}

/// The folders in use.
#[derive(Debug)]
pub(crate) struct Folders {
    /// The workspace of the fuzz targets.
    fuzz: PathBuf,
    /// Corpus and logs of the runs, which are not committed.
    work: PathBuf,
    docs: PathBuf,
}

impl Folders {
    fn of(workspace: &Workspace) -> Self {
        Self {
            fuzz: workspace.root.join("fuzz"),
            work: workspace.target.join("fuzz"),
            docs: workspace.root.join("docs"),
        }
    }
}

impl Options {
    fn chosen(&self) -> Result<Vec<&'static Target>> {
        if self.targets.is_empty() {
            return Ok(TARGETS.iter().collect());
        }
        let find = |name: &String| {
            let found = TARGETS.iter().find(|target| target.name == *name);
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            found.with_context(|| format!("there is no target {name}; there are {}", names.join(", ")))
        };
        self.targets.iter().map(find).collect()
    }
}

/// Runs so many at a time; the order of the results is that of the programs.
fn run_all(programs: &[Program], folders: &Folders, options: &Options) -> Result<Vec<Run>> {
    let next = Mutex::new(programs.iter().enumerate());
    let results = Mutex::new(Vec::new());
    let duration = Duration::from_secs(options.seconds);
    thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, programs.len()) {
            scope.spawn(|| {
                loop {
                    // Not in the condition of a `while let`, where the lock would be held for the whole run.
                    let taken = next.lock().ok().and_then(|mut next| next.next());
                    let Some((idx, program)) = taken else { break };
                    let run = program.run(folders, duration, options.len_max);
                    if let Ok(mut results) = results.lock() {
                        results.push((idx, run));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|(idx, _)| *idx);
    results.into_iter().map(|(_, run)| run).collect()
}

fn print_table(runs: &[Run]) {
    println!(
        "{:20} {:>14} {:>9} {:>7} {:>7}  outcome",
        "target", "executions", "per s", "corpus", "edges"
    );
    for run in runs {
        println!(
            "{:20} {:>14} {:>9} {:>7} {:>7}  {}",
            run.target.name,
            run.executions,
            run.executions / run.seconds.max(1),
            run.corpus,
            run.edges,
            match &run.outcome {
                Outcome::Fine => "ok",
                Outcome::Failed { .. } => "FAILED",
            }
        );
    }
    let total: u64 = runs.iter().map(|run| run.executions).sum();
    println!("{:20} {total:>14}", "total");
}
