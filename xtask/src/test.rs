//! `cargo xtask test`: all tests, and one line at the end that says how it went.

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    autobahn,
    process::{call, judged_step, step, watch},
    suites::{AUTOBAHN, SUITES, Suite},
    tally::Tally,
    tools::Environment,
    workspace::{Profile, Workspace},
};

/// What to run, and how to judge what could not be.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Do not fail because a suite was skipped for something that is missing on this machine.
    #[arg(long)]
    allow_missing: bool,
    /// Run only these suites (the names of the files in tests/tests), and not the tests that need Rust alone.
    #[arg(long, value_name = "SUITE", value_delimiter = ',')]
    only: Vec<String>,
}

/// Runs the tests that need Rust alone, then each suite that can be prepared. What was `skipped` before is told at the
/// end, and is not held against it.
pub(crate) fn run(workspace: &Workspace, options: &Options, mut skipped: Vec<String>) -> Result<()> {
    let suites = options.suites()?;
    let skipped_before = skipped.len();
    let mut total = Tally {
        skipped: skipped_before,
        ..Tally::default()
    };
    step("build", || {
        // With the tests' own dependencies, so that the tests find what is built here as they would build it.
        call(&mut workspace.cargo(["build", "--workspace", "--all-targets"]))
    })?;
    if options.only.is_empty() {
        total.add(judged_step(
            "tests that need Rust alone",
            || rust_tests(workspace),
            Tally::is_good,
        )?);
    }

    let mut environment = Environment::new(workspace)?;
    for suite in suites {
        if let Err(error) = suite.prepare(workspace, &mut environment) {
            println!("skipped: {}: {error:#}", suite.name);
            // The whole error may be pages; its first line says what to do.
            let error = error.to_string();
            skipped.push(format!("{}: {}", suite.name, error.lines().next().unwrap_or_default()));
            total.skipped += suite.count(workspace)?;
            continue;
        }
        total.add(judged_step(
            suite.name,
            || suite.run(workspace, &environment, Profile::Debug, ""),
            Tally::is_good,
        )?);
        if suite.name == AUTOBAHN.name {
            autobahn::print_tables(workspace)?;
        }
    }

    println!();
    skipped.iter().for_each(|what| println!("skipped: {what}"));
    println!("{total}");
    if total.failed > 0 {
        bail!("{} tests failed", total.failed);
    }
    let suites_skipped = skipped.len() - skipped_before;
    if suites_skipped > 0 && !options.allow_missing {
        bail!("{suites_skipped} suites were skipped; install what they need, or pass --allow-missing");
    }
    Ok(())
}

impl Options {
    fn suites(&self) -> Result<Vec<&'static Suite>> {
        if let Some(name) = self
            .only
            .iter()
            .find(|name| SUITES.iter().all(|suite| suite.name != *name))
        {
            let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
            bail!("there is no suite {name}; there are {}", names.join(", "));
        }
        let chosen = |suite: &&Suite| self.only.is_empty() || self.only.iter().any(|name| name == suite.name);
        Ok(SUITES.iter().filter(chosen).collect())
    }
}

fn rust_tests(workspace: &Workspace) -> Result<Tally> {
    let mut tally = Tally::default();
    let ok = watch(
        &mut workspace.cargo(["test", "--workspace", "--no-fail-fast"]),
        |line| tally.look(line),
    )?;
    if !ok && tally.failed == 0 {
        bail!("`cargo test --workspace` failed before it could run a test");
    }
    Ok(tally)
}
