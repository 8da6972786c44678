//! Development commands: `cargo xtask <command>`. Each command has a file of its own. `tools/` installs external
//! programs, `workspace.rs` and `process.rs` are shared by all commands.

mod api;
mod autobahn;
mod bench;
mod ci;
mod count;
mod deny;
mod faults;
mod fuzz;
mod hostile;
mod interop;
mod process;
mod scale;
mod spec;
mod suites;
mod test;
mod test_counts;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::workspace::Workspace;

/// Development commands of the Sockeye repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
enum Command {
    /// Run every check that a change must pass: format, lints, docs, public API, wasm32, feature combinations,
    /// dependencies, exhaustive tests, then `test`.
    Ci,
    /// Check the dependencies: licences, sources, duplicates, advisories.
    Deny,
    /// Compare the public API of the published crates with the listings in docs/api.
    Api(api::Options),
    /// Run all tests: first those that need only Rust, then those against external programs, which are installed as
    /// needed.
    Test(test::Options),
    /// Run Autobahn|Testsuite against the Sockeye server and client.
    Autobahn(autobahn::Options),
    /// Run the fuzz targets, a minute each.
    Fuzz(fuzz::Options),
    /// Attack `sockeye echo` with thousands of misbehaving peers and measure what they cost.
    Hostile(hostile::Options),
    /// Do to `sockeye serve` what happens in production (crashes, full disks, dead peers) and check what clients see.
    Faults(faults::Options),
    /// Compare Sockeye with other crates and raw TCP, or `sockeye serve` with Centrifugo: processor time, memory,
    /// latency.
    Bench(bench::Options),
    /// Count the instructions of the inner loops and compare them with a budget.
    Count(count::Options),
    /// Compute what 1 million and 10 million connections would take, and write docs/server/internet-scale.md.
    Scale,
    /// Check that every RFC requirement is marked in the code and in a test.
    Spec(spec::Options),
}

fn main() -> ExitCode {
    let command = Command::parse();
    let result = Workspace::find().and_then(|workspace| match command {
        Command::Ci => ci::run(&workspace),
        Command::Deny => deny::run(&workspace).map(drop),
        Command::Api(options) => api::run(&workspace, &options).map(drop),
        Command::Test(options) => test::run(&workspace, &options, Vec::new()),
        Command::Autobahn(options) => autobahn::run(&workspace, &options),
        Command::Fuzz(options) => fuzz::run(&workspace, &options),
        Command::Hostile(options) => hostile::run(&workspace, &options),
        Command::Faults(options) => faults::run(&workspace, &options),
        Command::Bench(options) => bench::run(&workspace, &options),
        Command::Count(options) => count::run(&workspace, &options),
        Command::Scale => scale::run(&workspace),
        Command::Spec(options) => spec::run(&workspace, &options),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
