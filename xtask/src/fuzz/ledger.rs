//! The record of all fuzz runs: one line per run in an append-only file, and the totals in docs/fuzzing.md.

use std::{collections::BTreeMap, fmt::Write as _, fs, time::SystemTime};

use anyhow::{Context, Result};

use super::{Folders, campaign::Run, targets::TARGETS};
use crate::process::grouped;

const HEADING: &str = "date\ttarget\tseconds\texecutions\tcorpus\tedges\n";

/// The lines of the page that enclose the totals.
const BEGIN: &str = "<!-- ledger: written by cargo xtask fuzz --ledger -->\n";
const END: &str = "<!-- end of ledger -->";

/// Records the runs.
pub(crate) fn append(folders: &Folders, runs: &[Run]) -> Result<()> {
    let path = folders.docs.join("fuzz-ledger.tsv");
    let mut ledger = fs::read_to_string(&path).unwrap_or_else(|_| HEADING.to_owned());
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let (date, _) = now.split_once('T').context("RFC 3339 has a T after the date")?;
    for run in runs {
        let (
            name,
            Run {
                seconds,
                executions,
                corpus,
                edges,
                ..
            },
        ) = (run.target.name, run);
        writeln!(ledger, "{date}\t{name}\t{seconds}\t{executions}\t{corpus}\t{edges}")?;
    }
    fs::write(&path, &ledger)?;

    let path = folders.docs.join("fuzzing.md");
    let page = fs::read_to_string(&path)?;
    let (before, rest) = page.split_once(BEGIN).context("docs/fuzzing.md has no ledger marker")?;
    let (_, after) = rest
        .split_once(END)
        .context("docs/fuzzing.md has no end marker of the ledger")?;
    fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", summary(&ledger)))?;
    Ok(())
}

/// Totals of all runs of one target.
#[derive(Default)]
struct Totals<'a> {
    executions: u64,
    seconds: u64,
    /// From the latest run.
    date: &'a str,
    corpus: &'a str,
    edges: &'a str,
}

/// The table in docs/fuzzing.md.
fn summary(ledger: &str) -> String {
    let mut sums = BTreeMap::<&str, Totals<'_>>::new();
    for line in ledger.lines().skip(1) {
        let [date, target, seconds, executions, corpus, edges] = line.split('\t').collect::<Vec<_>>()[..] else {
            continue;
        };
        let sum = sums.entry(target).or_default();
        sum.executions += executions.parse().unwrap_or(0);
        sum.seconds += seconds.parse().unwrap_or(0);
        (sum.date, sum.corpus, sum.edges) = (date, corpus, edges);
    }
    let mut table = String::from("\n| target | executions | hours | corpus inputs | edges | last run |\n");
    table += "|---|---:|---:|---:|---:|---|\n";
    let mut total = Totals::default();
    for target in &TARGETS {
        let Some(sum) = sums.get(target.name) else { continue };
        total.executions += sum.executions;
        total.seconds += sum.seconds;
        table += &format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            target.name,
            grouped(sum.executions),
            hours(sum.seconds),
            sum.corpus,
            sum.edges,
            sum.date
        );
    }
    table += &format!(
        "| all | {} | {} | | | |\n\n",
        grouped(total.executions),
        hours(total.seconds)
    );
    table
}

fn hours(seconds: u64) -> String {
    format!("{:.1}", seconds as f64 / 3600.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_target_are_added_up() {
        let ledger = format!(
            "{HEADING}2026-11-22\tpair\t1800\t1000000\t7\t50\n2026-11-23\tpair\t1800\t234567\t9\t60\n\
            2026-11-23\trequest\t3600\t5\t1\t2\n"
        );
        let table = summary(&ledger);
        assert!(
            table.contains("| pair | 1,234,567 | 1.0 | 9 | 60 | 2026-11-23 |"),
            "{table}"
        );
        assert!(table.contains("| all | 1,234,572 | 2.0 |"), "{table}");
    }
}
