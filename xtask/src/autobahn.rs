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
    /// All 517 cases, with the compression of sections 12 and 13: many minutes.
    #[arg(long)]
    all: bool,
    /// Write what came of it to docs/conformance.md.
    #[arg(long, requires = "all")]
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
    if options.report {
        write_report(workspace)?;
    }
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
        // A role that was not asked for, or whose run died, has none.
        let Some(summary) = Summary::read(workspace, role)? else {
            continue;
        };
        println!("\nAutobahn, our {role}\nsection  cases     OK   informational  failed");
        for (name, [cases, ok, informational, failed]) in summary.rows {
            println!("{name:>7}  {cases:>5}  {ok:>5}  {informational:>14}  {failed:>6}");
        }
        for case in summary.failed {
            println!("  not OK: {case}");
        }
    }
    Ok(())
}

/// Writes the tables of both roles for readers of the repository.
fn write_report(workspace: &Workspace) -> Result<()> {
    let mut page = String::from(
        "# Conformance\n\n\
         Autobahn|Testsuite 25.10.1, all of it: `sockeye echo --compression=takeover` as the server,\n\
         `autobahn_client` of the tests as the client, over TCP. Written by `cargo xtask autobahn --all --report`.\n\n\
         OK is strict: a case that the suite calls NON-STRICT or UNIMPLEMENTED counts as failed. Informational are 7.1.6,\n\
         7.13.1 and 7.13.2, which leave the choice open.\n",
    );
    for role in ROLES {
        let Some(summary) = Summary::read(workspace, role)? else {
            continue;
        };
        page +=
            &format!("\n## Our {role}\n\n| section | cases | OK | informational | failed |\n|---|---|---|---|---|\n");
        for (name, [cases, ok, informational, failed]) in summary.rows {
            page += &format!("| {name} | {cases} | {ok} | {informational} | {failed} |\n");
        }
        for case in summary.failed {
            page += &format!("\nNot OK: {case}\n");
        }
    }
    let path = workspace.root.join("docs/conformance.md");
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// What the tests wrote about one role.
struct Summary {
    /// Section, or `all`, with the numbers of cases, of those OK, informational and failed.
    rows: Vec<(String, [u64; 4])>,
    failed: Vec<String>,
}

impl Summary {
    fn read(workspace: &Workspace, role: &str) -> Result<Option<Self>> {
        let path = workspace.target.join("autobahn").join(role).join("summary.json");
        let Ok(text) = fs::read_to_string(path) else {
            return Ok(None);
        };
        let summary: Value = serde_json::from_str(&text).context("the summary is not JSON")?;
        let mut rows = Vec::new();
        let mut total = [0; 4];
        for section in summary["sections"].as_array().into_iter().flatten() {
            let columns = ["expected", "ok", "informational", "failed"].map(|name| section[name].as_u64().unwrap_or(0));
            total.iter_mut().zip(columns).for_each(|(sum, column)| *sum += column);
            rows.push((section["section"].to_string(), columns));
        }
        rows.push(("all".to_owned(), total));
        let failed = summary["failed"].as_array().into_iter().flatten();
        let failed = failed.map(|case| case.as_str().unwrap_or("?").to_owned()).collect();
        Ok(Some(Self { rows, failed }))
    }
}

/// Removes the summaries of earlier runs, so that none is taken for this run's.
fn forget_tables(workspace: &Workspace) {
    for role in ROLES {
        // There is none the first time.
        let _ = fs::remove_file(workspace.target.join("autobahn").join(role).join("summary.json"));
    }
}
