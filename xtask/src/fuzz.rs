//! `cargo xtask fuzz`: builds the fuzz targets, runs them for a while, and says what came of it.
//!
//! | file | holds |
//! |---|---|
//! | `targets` | the targets, and how each is built |
//! | `campaign` | running one of them, and reading what it prints |
//! | `corpus` | the inputs that are kept: many while working, few in the repository |
//! | `ledger` | how often each was executed, over all the runs there were |
//!
//! It takes nothing but Rust and a C++ compiler: libFuzzer comes with its crate, and the compiler's flags for coverage
//! are stable. Only the address sanitizer, on the targets that reach code with `unsafe` in it, needs a flag that is
//! not.

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

/// What to run, and for how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only these targets.
    #[arg(long = "target", value_name = "TARGET", value_delimiter = ',')]
    targets: Vec<String>,
    /// How many run at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Inputs may be so long, instead of what suits each target.
    #[arg(long, value_name = "BYTES")]
    len_max: Option<usize>,
    /// Add what was executed to docs/fuzz-ledger.tsv, and its sums to docs/fuzzing.md.
    #[arg(long)]
    ledger: bool,
    /// Then choose anew, from all inputs found so far, the few that fuzz/corpus keeps.
    #[arg(long)]
    minimize: bool,
    /// Run one input instead, such as one that made a target fail; takes --target.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ledger", "minimize"])]
    input: Option<PathBuf>,
}

/// Runs the targets; an error if an input made one fail.
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

/// Checks the targets as the other workspace is checked, without building libFuzzer and without running anything.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let manifest = ["--manifest-path", "fuzz/Cargo.toml"];
    call(workspace.cargo(["fmt", "--check"]).args(manifest))?;
    let mut clippy = workspace.cargo(["clippy", "--quiet", "--all-targets", "--no-default-features"]);
    clippy.args(manifest).args(["--", "-D", "warnings"]);
    call(clippy.env("CARGO_TARGET_DIR", workspace.target.join("fuzz/check")))
}

/// Where things are kept.
#[derive(Debug)]
pub(crate) struct Folders {
    /// The workspace of the targets.
    fuzz: PathBuf,
    /// What is found in runs and not committed.
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
