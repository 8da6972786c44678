//! `cargo xtask autobahn`: the conformance suite, with a table of what it found.

mod page;
mod summary;

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    process::{call, judged_step, step},
    suites::AUTOBAHN,
    tally::Tally,
    tools::Environment,
    workspace::{Profile, Workspace},
};
use summary::{RUNS, Summary};

const ALL_CASES: &str = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*,12.*,13.*";

/// Which cases, in which role.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Test our server alone.
    #[arg(long, conflicts_with = "client")]
    server: bool,
    /// Test our client alone.
    #[arg(long)]
    client: bool,
    /// The cases to run, such as `1.*,9.1.*`; sections 1 to 7, 9 and 10 unless given.
    #[arg(long, value_name = "PATTERNS", conflicts_with = "all")]
    cases: Option<String>,
    /// All 517 cases, with the compression of sections 12 and 13, in a release build: many minutes.
    #[arg(long)]
    all: bool,
    /// Write what came of it to docs/conformance.md, if no case failed.
    #[arg(long, requires = "all", conflicts_with_all = ["server", "client"])]
    report: bool,
}

/// Installs the suite, runs it, prints the table.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut environment = Environment::new(workspace)?;
    step("install Autobahn|Testsuite", || {
        AUTOBAHN.prepare(workspace, &mut environment)
    })?;
    let all = options.all.then_some(ALL_CASES);
    if let Some(cases) = options.cases.as_deref().or(all) {
        environment.set("SOCKEYE_AUTOBAHN_CASES", cases);
    }
    // Sections 12 and 13 echo 10 GB in each run, through the codecs of both sides.
    let profile = if options.all { Profile::Release } else { Profile::Debug };
    step("build", || call(&mut build(workspace, profile)))?;
    let filter = match (options.server, options.client) {
        (true, _) => "autobahn_server",
        (_, true) => "autobahn_client",
        _ => "",
    };
    Summary::forget_all(workspace);
    let tally = judged_step(
        "autobahn",
        || AUTOBAHN.run(workspace, &environment, profile, filter),
        Tally::is_good,
    )?;
    print_tables(workspace)?;
    if tally.failed > 0 || tally.passed == 0 {
        bail!(
            "not every case was OK; the reports are in {}",
            workspace.target.join("autobahn").display()
        );
    }
    if options.report {
        write_report(workspace)?;
    }
    Ok(())
}

/// With the test itself, so that it finds what is built here as it would build it.
fn build(workspace: &Workspace, profile: Profile) -> Command {
    let mut command = workspace.cargo(["build", "--workspace", "--bins", "--test", AUTOBAHN.name]);
    command.args(profile.arguments());
    command
}

/// Prints what the tests wrote: per run and section, how many cases ended how.
pub(crate) fn print_tables(workspace: &Workspace) -> Result<()> {
    for run in RUNS {
        // One that was not asked for, or died, has none.
        let Some(summary) = Summary::read(workspace, run)? else {
            continue;
        };
        println!("\nAutobahn, {run}\nsection  cases     OK   informational  failed");
        let total = ("all".to_owned(), summary.total());
        for (name, counts) in summary.sections.iter().chain([&total]) {
            println!(
                "{name:>7}  {:>5}  {:>5}  {:>14}  {:>6}",
                counts.cases, counts.ok, counts.informational, counts.failed
            );
        }
        for case in summary.failed {
            println!("  not OK: {case}");
        }
    }
    Ok(())
}

/// Writes docs/conformance.md.
fn write_report(workspace: &Workspace) -> Result<()> {
    let read = |run| Summary::read(workspace, run)?.with_context(|| format!("{run} wrote no summary"));
    let [a, b, c, d] = RUNS.map(read);
    let page = page::render(
        &[a?, b?, c?, d?],
        &suite_version(workspace)?,
        workspace.version("sockeye")?,
    )?;
    let path = workspace.root.join("docs/conformance.md");
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// The version of the suite, as it is pinned.
fn suite_version(workspace: &Workspace) -> Result<String> {
    let pins = fs::read_to_string(workspace.peer_sources().join("autobahn-requirements.txt"))?;
    let version = pins.lines().find_map(|line| line.strip_prefix("autobahntestsuite=="));
    version.map(str::to_owned).context("the suite is not pinned")
}
