//! `cargo xtask hostile`: thousands of peers that misbehave, against the built `sockeye echo`, and what they cost it.
//!
//! Each behaviour meets a server process of its own, whose memory, processor time and descriptors are read from
//! outside, in `/proc`. Well-behaved neighbours on that server are timed in turns with neighbours on a server that is
//! left alone. Everything stays on the loopback interface, and is bounded in count and time.
//!
//! | file | holds |
//! |---|---|
//! | `behaviour` | the behaviours, as scripts, and the bound of each |
//! | `wire` | the bytes they send |
//! | `peer` | one connection that follows a script |
//! | `crowd` | many of them, on a thread |
//! | `place` | which processor they have |
//! | `target` | the server process, and what it uses |
//! | `neighbours` | well-behaved connections, timed |
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

/// How many peers, and which.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Connections of each behaviour.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u16).range(20..=15_000))]
    conns: u16,
    /// Run only these behaviours (names as in the table).
    #[arg(long, value_name = "BEHAVIOUR", value_delimiter = ',')]
    only: Vec<String>,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs every behaviour and prints a row for each; an error if a bound was broken.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let count = usize::from(options.conns);
    let has_compression = build(workspace)?;
    let binary = workspace.target.join("release/sockeye");
    let behaviours = choose(behaviour::all(), &options.only)?;

    let began_at = Instant::now();
    // Left alone by everyone but its neighbours: what the machine makes of them without hostile peers.
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
        bail!("beyond their bounds: {}", failed.join(", "));
    }
    Ok(())
}

/// Builds the server as people run it; tells whether it can compress.
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
        bail!("there is no behaviour {unknown}; there are {}", names.join(", "));
    }
    let is_chosen = |behaviour: &Behaviour| only.is_empty() || only.iter().any(|name| name == behaviour.name);
    Ok(all.into_iter().filter(is_chosen).collect())
}
