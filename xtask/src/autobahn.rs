//! `cargo xtask autobahn`: the conformance suite, with a table of what it found.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    process::{call, judged_step, step},
    suites::AUTOBAHN,
    tally::Tally,
    tools::Environment,
    workspace::Workspace,
};

const ROLES: [&str; 2] = ["server", "client"];

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
    #[arg(long, value_name = "PATTERNS")]
    cases: Option<String>,
}

/// Installs the suite, runs it, prints the table.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut environment = Environment::new(workspace)?;
    step("install Autobahn|Testsuite", || {
        AUTOBAHN.prepare(workspace, &mut environment)
    })?;
    if let Some(cases) = &options.cases {
        environment.set("SOCKEYE_AUTOBAHN_CASES", cases);
    }
    step("build", || {
        call(&mut workspace.cargo(["build", "--workspace", "--all-targets"]))
    })?;
    let filter = match (options.server, options.client) {
        (true, _) => "autobahn_server",
        (_, true) => "autobahn_client",
        _ => "",
    };
    forget_tables(workspace);
    let tally = judged_step(
        "autobahn",
        || AUTOBAHN.run(workspace, &environment, filter),
        Tally::is_good,
    )?;
    print_tables(workspace)?;
    if tally.failed > 0 || tally.passed == 0 {
        bail!(
            "not every case was OK; the reports are in {}",
            workspace.target.join("autobahn").display()
        );
    }
    Ok(())
}

/// Prints what the tests wrote: per role and section, how many cases ended how.
pub(crate) fn print_tables(workspace: &Workspace) -> Result<()> {
    for role in ROLES {
        let path = workspace.target.join("autobahn").join(role).join("summary.json");
        // A role that was not asked for, or whose run died, has none.
        let Ok(text) = fs::read_to_string(path) else { continue };
        let summary: Value = serde_json::from_str(&text).context("the summary is not JSON")?;
        println!("\nAutobahn, our {role}\nsection  cases     OK   informational  failed");
        let mut total = [0; 4];
        for section in summary["sections"].as_array().into_iter().flatten() {
            let columns = ["expected", "ok", "informational", "failed"].map(|name| section[name].as_u64().unwrap_or(0));
            print_row(&section["section"].to_string(), columns);
            total.iter_mut().zip(columns).for_each(|(sum, column)| *sum += column);
        }
        print_row("all", total);
        for case in summary["failed"].as_array().into_iter().flatten() {
            println!("  not OK: {}", case.as_str().unwrap_or("?"));
        }
    }
    Ok(())
}

fn print_row(name: &str, [cases, ok, informational, failed]: [u64; 4]) {
    println!("{name:>7}  {cases:>5}  {ok:>5}  {informational:>14}  {failed:>6}");
}

/// Removes the summaries of earlier runs, so that none is taken for this run's.
fn forget_tables(workspace: &Workspace) {
    for role in ROLES {
        // There is none the first time.
        let _ = fs::remove_file(workspace.target.join("autobahn").join(role).join("summary.json"));
    }
}
