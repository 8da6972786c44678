//! `cargo xtask autobahn`: runs the conformance suite and prints a table of the results.

mod page;
mod summary;

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    process::{call, judged_step, step},
    suites::AUTOBAHN,
    test_counts::TestCounts,
    tools::Environment,
    workspace::{Profile, Workspace},
};
use summary::{RUNS, Summary};

const ALL_CASES: &str = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*,12.*,13.*";

/// Options of `cargo xtask autobahn`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Test only the server.
    #[arg(long, conflicts_with = "client")]
    server: bool,
    /// Test only the client.
    #[arg(long)]
    client: bool,
    /// The cases to run, such as `1.*,9.1.*`. Default: sections 1 to 7, 9 and 10.
    #[arg(long, value_name = "PATTERNS", conflicts_with = "all")]
    cases: Option<String>,
    /// Run all 517 cases, including compression (sections 12 and 13), in a release build. Takes many minutes.
    #[arg(long)]
    all: bool,
    /// Write the results to docs/conformance.md if no case failed.
    #[arg(long, requires = "all", conflicts_with_all = ["server", "client"])]
    report: bool,
}

/// Installs the suite, runs it and prints the tables.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut environment = Environment::new(workspace)?;
    step("install Autobahn|Testsuite", || {
        AUTOBAHN
            .prepare(workspace, &mut environment)
            .map_err(|(_, error)| error)
    })?;
    let all = options.all.then_some(ALL_CASES);
    if let Some(cases) = options.cases.as_deref().or(all) {
        environment.set("SOCKEYE_AUTOBAHN_CASES", cases);
    }
    // Sections 12 and 13 echo 10 GB per run through both codecs.
    let profile = if options.all { Profile::Release } else { Profile::Debug };
    step("build", || call(&mut build(workspace, profile)))?;
    let filter = match (options.server, options.client) {
        (true, _) => "autobahn_server",
        (_, true) => "autobahn_client",
        _ => "",
    };
    Summary::forget_all(workspace);
    let counts = judged_step(
        "autobahn",
        || AUTOBAHN.run(workspace, &environment, profile, filter),
        TestCounts::is_good,
    )?;
    print_tables(workspace)?;
    if counts.failed > 0 || counts.passed == 0 {
        bail!(
            "some cases failed; see the reports in {}",
            workspace.target.join("autobahn").display()
        );
    }
    if options.report {
        write_report(workspace)?;
    }
    Ok(())
}

/// Includes the test itself, so that the test later finds the same build.
fn build(workspace: &Workspace, profile: Profile) -> Command {
    let mut command = workspace.cargo(["build", "--workspace", "--bins", "--test", AUTOBAHN.name]);
    command.args(profile.arguments());
    command
}

/// Prints the summaries that the tests wrote: results per run and section.
pub(crate) fn print_tables(workspace: &Workspace) -> Result<()> {
    for run in RUNS {
        // Missing if the run was not selected or crashed.
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

/// The pinned version of the suite.
fn suite_version(workspace: &Workspace) -> Result<String> {
    let pins = fs::read_to_string(workspace.peer_sources().join("autobahn-requirements.txt"))?;
    let version = pins.lines().find_map(|line| line.strip_prefix("autobahntestsuite=="));
    version
        .map(str::to_owned)
        .context("autobahn-requirements.txt does not pin the suite")
}
