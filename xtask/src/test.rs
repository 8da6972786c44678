//! `cargo xtask test`: runs all tests and ends with a one-line summary.

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    autobahn, interop,
    process::{call, judged_step, step, watch},
    suites::{AUTOBAHN, SUITES, Suite},
    test_counts::TestCounts,
    tools::Environment,
    workspace::{Profile, Workspace},
};

/// Options of `cargo xtask test`.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Do not fail if a suite was skipped because something is missing on this machine.
    #[arg(long)]
    allow_missing: bool,
    /// Run only these suites (file names in tests/tests), without the tests that need only Rust.
    #[arg(long, value_name = "SUITE", value_delimiter = ',')]
    only: Vec<String>,
}

/// Runs the tests that need only Rust, then each suite whose tools can be installed. `skipped` lists what earlier steps
/// skipped; it is printed at the end and does not make the run fail.
pub(crate) fn run(workspace: &Workspace, options: &Options, mut skipped: Vec<String>) -> Result<()> {
    let suites = options.suites()?;
    let mut total = TestCounts::with_skipped(skipped.len());
    step("build", || {
        // Includes dev-dependencies, so that the tests later find the same build.
        call(&mut workspace.cargo(["build", "--workspace", "--all-targets"]))
    })?;
    if options.only.is_empty() {
        let name = "tests that need Rust alone";
        total.add(name, judged_step(name, || rust_tests(workspace), TestCounts::is_good)?);
        for name in ["embedded", "frameworks"] {
            let run = || separate_tests(workspace, name);
            total.add(name, judged_step(name, run, TestCounts::is_good)?);
        }
    }

    let mut environment = Environment::new(workspace)?;
    interop::clear(workspace)?;
    let mut suites_missing = 0;
    let mut ran = vec![];
    for suite in suites {
        if let Err((tool, error)) = suite.prepare(workspace, &mut environment) {
            println!("skipped: {}: {error:#}", suite.name);
            // The whole error may be long; its first line says what to do.
            let error = error.to_string();
            skipped.push(format!("{}: {}", suite.name, error.lines().next().unwrap_or_default()));
            total.skipped += suite.count(workspace)?;
            suites_missing += usize::from(!tool.is_optional());
            continue;
        }
        let run = || suite.run(workspace, &environment, Profile::Debug, "");
        total.add(suite.name, judged_step(suite.name, run, TestCounts::is_good)?);
        ran.push(suite.name);
        if suite.name == AUTOBAHN.name {
            autobahn::print_tables(workspace)?;
        }
    }

    println!();
    total.failures().iter().for_each(|failure| println!("{failure}"));
    skipped.iter().for_each(|what| println!("skipped: {what}"));
    println!("{total}");
    if total.failed > 0 {
        bail!("{} tests failed", total.failed);
    }
    interop::check(workspace, &ran)?;
    if suites_missing > 0 && !options.allow_missing {
        bail!("{suites_missing} suites were skipped; install what they need, or pass --allow-missing");
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

/// The tests of a workspace of its own in the folder `tests`.
fn separate_tests(workspace: &Workspace, name: &str) -> Result<TestCounts> {
    let cargo = |arguments: [&str; 2]| workspace.separate_cargo(name, arguments);
    call(&mut cargo(["fmt", "--check"]))?;
    let mut counts = TestCounts::default();
    let ok = watch(&mut cargo(["test", "--locked"]), |line| counts.add_line(line))?;
    if !ok && counts.failed == 0 {
        bail!("the tests in tests/{name} do not build");
    }
    Ok(counts)
}

/// Seeds of the model test of recovery.
const MODEL_SEEDS: &str = "10000";

fn rust_tests(workspace: &Workspace) -> Result<TestCounts> {
    let mut counts = TestCounts::default();
    let ok = watch(
        workspace
            .cargo(["test", "--workspace", "--no-fail-fast"])
            .env("SOCKEYE_MODEL_SEEDS", MODEL_SEEDS),
        |line| counts.add_line(line),
    )?;
    if !ok && counts.failed == 0 {
        bail!("`cargo test --workspace` failed before it could run a test");
    }
    Ok(counts)
}
