//! The commands of the house: `cargo xtask <command>`. One file per command; `tools/` prepares what they need from
//! outside, `workspace.rs` and `process.rs` are what they share.

mod api;
mod autobahn;
mod bench;
mod ci;
mod count;
mod deny;
mod fuzz;
mod hostile;
mod process;
mod spec;
mod suites;
mod tally;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::workspace::Workspace;

/// The commands of the house.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
enum Command {
    /// Everything a change must pass: format, lints, docs, wasm32, feature combinations, dependencies, all that can be
    /// enumerated, then `test`.
    Ci,
    /// The dependencies: their licences, where they come from, those there twice, known faults of theirs.
    Deny,
    /// Compare the public API of the published crates with the listings in docs/api.
    Api(api::Options),
    /// All tests: with Rust alone, then against programs nobody here wrote, which are installed as needed.
    Test(test::Options),
    /// Autobahn|Testsuite against our server and our client.
    Autobahn(autobahn::Options),
    /// The fuzz targets, for a minute each.
    Fuzz(fuzz::Options),
    /// Thousands of peers that misbehave, against `sockeye echo`, and what they cost it.
    Hostile(hostile::Options),
    /// Sockeye beside its peers and raw TCP: processor time, memory and latency.
    Bench(bench::Options),
    /// What the inner loops cost in instructions, against a budget.
    Count(count::Options),
    /// What the RFCs ask for, and where it is obeyed and checked.
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
        Command::Bench(options) => bench::run(&workspace, &options),
        Command::Count(options) => count::run(&workspace, &options),
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
