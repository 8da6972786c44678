//! `cargo xtask count`: counts the instructions of the inner loops with callgrind and compares them with a budget.
//!
//! Unlike time, the number of instructions does not depend on the load of the machine. It does not measure speed; it
//! detects added work.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    process::{call, output},
    tools,
    workspace::Workspace,
};

/// Options of `cargo xtask count`.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Write the counts as the new budget.
    #[arg(long)]
    write: bool,
    /// Count only these cases.
    cases: Vec<String>,
}

/// Number of repetitions. Each case also runs with twice as many; the difference excludes the setup. A multiple of
/// every burst size.
const COUNT: u64 = 1024;

/// Tolerance over the budget in percent, because another C library or processor copies memory in a different way.
const TOLERANCE_PERCENT: f64 = 5.0;

/// Instructions per case.
type Counts = BTreeMap<String, f64>;

/// Counts and prints all cases; fails if one exceeds its budget.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let valgrind = tools::valgrind()?;
    let program = build(workspace)?;
    let names = output(&mut Command::new(&program))?;
    let names: Vec<_> = names.lines().collect();
    let budget_path = workspace.root.join("bench/micro/budget.toml");
    let budget: Counts = match fs::read_to_string(&budget_path) {
        Ok(text) => {
            toml::from_str(&text).with_context(|| format!("{} is not a valid budget", budget_path.display()))?
        }
        Err(_) if options.write => Counts::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", budget_path.display())),
    };
    check_names(&names, options, &budget)?;
    let mut counts = budget.clone();
    let mut exceeded = Vec::new();
    println!("    {:20} {:>12} {:>12}", "instructions of", "counted", "budget");
    for name in names.iter().copied() {
        if !options.cases.is_empty() && !options.cases.iter().any(|wanted| wanted == name) {
            continue;
        }
        let counted = count(&valgrind, &program, name)?;
        let allowed = budget.get(name).copied();
        let shown = allowed.map_or("none".to_owned(), |allowed| format!("{allowed:.1}"));
        println!("    {name:20} {counted:12.1} {shown:>12}");
        if allowed.is_none_or(|allowed| counted > allowed * (1.0 + TOLERANCE_PERCENT / 100.0)) {
            exceeded.push(name.to_owned());
        }
        counts.insert(name.to_owned(), (counted * 10.0).round() / 10.0);
    }
    if options.write {
        counts.retain(|name, _| names.contains(&name.as_str()));
        return write(&budget_path, &counts);
    }
    if !exceeded.is_empty() {
        bail!(
            "over the budget by more than {TOLERANCE_PERCENT} %: {}; to accept this, run `cargo xtask count --write` \
             and give the reason in the commit",
            exceeded.join(", ")
        );
    }
    Ok(())
}

/// Fails for an unknown case name, which would otherwise pass without being counted.
fn check_names(known: &[&str], options: &Options, budget: &Counts) -> Result<()> {
    let is_unknown = |name: &&String| !known.contains(&name.as_str());
    if let Some(unknown) = options.cases.iter().find(is_unknown) {
        bail!("unknown case {unknown}; known: {}", known.join(", "));
    }
    // Writing a new budget removes them.
    if !options.write
        && let Some(unknown) = budget.keys().find(is_unknown)
    {
        bail!("the budget has an unknown case {unknown}; `cargo xtask count --write` removes it");
    }
    Ok(())
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("bench/build");
    let mut command = workspace.cargo(["build", "--quiet", "--locked", "--release", "-p", "bench-micro"]);
    command
        .args(["--manifest-path", "bench/Cargo.toml", "--target-dir"])
        .arg(&folder);
    call(&mut command)?;
    Ok(folder.join("release/bench-micro"))
}

/// Instructions of one repetition.
fn count(valgrind: &Path, program: &Path, case: &str) -> Result<f64> {
    let total = |count: u64| -> Result<u64> {
        let mut command = Command::new(valgrind);
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-fd=1"])
            .arg(program)
            .args([case, &count.to_string()]);
        let printed = output(&mut command)?;
        let collected = printed.lines().find_map(|line| line.split_once("Collected : "));
        let (_, total) = collected.context("callgrind printed no count")?;
        total.trim().parse().context("callgrind printed an invalid count")
    };
    let (once, twice) = (total(COUNT)?, total(2 * COUNT)?);
    Ok((twice as f64 - once as f64) / COUNT as f64)
}

fn write(path: &Path, counts: &Counts) -> Result<()> {
    let mut text = String::from(
        "# What one of each costs in instructions, as counted by `cargo xtask count --write`. `cargo xtask count`, \
         which CI\n# runs, fails where more is spent.\n",
    );
    for (name, count) in counts {
        text += &format!("{name:?} = {count:?}\n");
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Counts, Options, check_names};

    fn check(cases: &[&str], write: bool, budget: &[&str]) -> Result<(), String> {
        let options = Options {
            write,
            cases: cases.iter().copied().map(String::from).collect(),
        };
        let budget: Counts = budget.iter().map(|name| (String::from(*name), 1.0)).collect();
        check_names(&["echo", "mask"], &options, &budget).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_case_is_an_error() {
        assert_eq!(check(&["mask"], false, &[]), Ok(()));
        let message = "unknown case ecoh; known: echo, mask".to_owned();
        assert_eq!(check(&["mask", "ecoh"], false, &[]), Err(message.clone()));
        assert_eq!(check(&["ecoh"], true, &[]), Err(message));
    }

    #[test]
    fn removed_case_fails_until_the_budget_is_rewritten() {
        assert_eq!(check(&[], false, &["echo", "mask"]), Ok(()));
        check(&[], false, &["echo", "ecoh"]).expect_err("unknown case in the budget");
        check(&["mask"], false, &["ecoh"]).expect_err("unknown case in the budget, although not selected");
        assert_eq!(check(&[], true, &["ecoh"]), Ok(()));
    }
}
