//! `cargo xtask hostile`: attacks the built `sockeye echo` with thousands of misbehaving peers and measures the cost.
//!
//! Each behaviour runs against a server process of its own, whose memory, processor time and descriptors are read from
//! `/proc`. The round trips of well-behaved neighbours on that server are compared with those on an idle control
//! server. All traffic stays on the loopback interface; connections and time are bounded.
//!
//! | file | contents |
//! |---|---|
//! | `behaviour` | the behaviours, as scripts, and the bounds of each |
//! | `wire` | the bytes they send |
//! | `peer` | one connection that follows a script |
//! | `crowd` | many peers on one thread |
//! | `place` | processor placement |
//! | `target` | the server process and its resource usage |
//! | `neighbours` | well-behaved connections and their round-trip times |
//! | `trial` | one behaviour against one server |
//! | `report` | the table, and the same as JSON |

mod behaviour;
mod crowd;
mod neighbours;
mod peer;
mod place;
mod report;
mod target;
mod trial;
mod wire;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use self::{behaviour::Behaviour, target::Target};
use crate::{
    process::{call, output, step},
    workspace::Workspace,
};

/// Options of `cargo xtask hostile`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Number of connections per behaviour.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u16).range(20..=15_000))]
    conns: u16,
    /// Run only these behaviours (names as in the table).
    #[arg(long, value_name = "BEHAVIOUR", value_delimiter = ',')]
    only: Vec<String>,
    /// Also write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the behaviours and prints a row for each; fails if a bound was exceeded.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let count = usize::from(options.conns);
    let has_compression = build(workspace)?;
    let binary = workspace.target.join("release/sockeye");
    let behaviours = choose(behaviour::all(), &options.only)?;

    let began_at = Instant::now();
    // The control server has only well-behaved connections, as a reference for their round-trip times.
    let control = Target::start(&binary, &[])?;
    println!("{count} connections of each behaviour");
    println!("{}", report::heading());
    let mut rows = Vec::new();
    for behaviour in &behaviours {
        let row = if behaviour.needs_compression && !has_compression {
            report::Row::skipped(behaviour, "`sockeye echo` has no --compression")
        } else {
            place::of_peers(|| trial::run(behaviour, count, &binary, &control))
                .with_context(|| format!("behaviour {}", behaviour.name))?
        };
        println!("{row}");
        rows.push(row);
    }
    println!("\n{}", report::LEGEND);
    println!("{} behaviours in {:.0} s", rows.len(), began_at.elapsed().as_secs_f64());

    if let Some(file) = &options.json {
        fs::write(file, report::to_json(count, &rows)).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let failed: Vec<_> = rows.iter().filter(|row| !row.passes()).map(|row| row.name).collect();
    if !failed.is_empty() {
        bail!("bounds exceeded: {}", failed.join(", "));
    }
    Ok(())
}

/// Builds the release binary; returns whether it supports compression.
fn build(workspace: &Workspace) -> Result<bool> {
    step("build", || {
        call(&mut workspace.cargo(["build", "--release", "--package=sockeye-cli", "--bin=sockeye"]))
    })?;
    let mut help = std::process::Command::new(workspace.target.join("release/sockeye"));
    Ok(output(help.args(["echo", "--help"]))?.contains("--compression"))
}

fn choose(all: Vec<Behaviour>, only: &[String]) -> Result<Vec<Behaviour>> {
    let names: Vec<_> = all.iter().map(|behaviour| behaviour.name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("unknown behaviour {unknown}; known: {}", names.join(", "));
    }
    let is_chosen = |behaviour: &Behaviour| only.is_empty() || only.iter().any(|name| name == behaviour.name);
    Ok(all.into_iter().filter(is_chosen).collect())
}
