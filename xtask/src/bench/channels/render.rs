//! Renders `docs/performance-server.md` from the stored results.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

use super::{
    results::{Results, cell, show},
    servers::{CENTRIFUGO_CONFIG, SOCKEYE_CONFIG},
    workload::{WORKLOADS, Workload},
};
use crate::{tools::centrifugo, workspace::Workspace};

/// The text of the page, with placeholders for the figures.
const PAGE: &str = include_str!("page.md");

pub(super) fn run(workspace: &Workspace, folder: &Path) -> Result<()> {
    let mut all = Vec::new();
    let mut missing = Vec::new();
    for workload in WORKLOADS {
        let file = folder.join(format!("{}.json", workload.name));
        if !file.exists() {
            missing.push(workload.name);
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let results: Results = serde_json::from_str(&text)
            .with_context(|| format!("{} has another format; measure again", file.display()))?;
        all.push((workload, results));
    }
    ensure!(
        missing.is_empty(),
        "some workloads have no results; run `cargo xtask bench --server --only {}`",
        missing.join(",")
    );
    let page = workspace.root.join("docs/performance-server.md");
    fs::write(&page, page_of(PAGE, &all)?)?;
    println!("rendered {}", page.display());
    Ok(())
}

/// The text with each placeholder `<!-- name -->` replaced by its figures.
fn page_of(text: &str, all: &[(&'static Workload, Results)]) -> Result<String> {
    let mut page = String::new();
    for line in text.lines() {
        match line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")) {
            Some("goals") => page += &goals(all),
            Some("machine") => page += &machine(all),
            Some("sockeye-config") => page += SOCKEYE_CONFIG,
            Some("centrifugo-config") => page += CENTRIFUGO_CONFIG,
            Some(name) => match all.iter().find(|(workload, _)| workload.name == name) {
                Some((workload, results)) => page += &table(workload, results),
                None => bail!("page.md has an unknown placeholder `{name}`"),
            },
            None => {
                page += line;
                page.push('\n');
            }
        }
    }
    Ok(page)
}

fn table(workload: &Workload, results: &Results) -> String {
    let titles: Vec<_> = workload.figures.iter().map(|figure| figure.title).collect();
    let mut text = format!(
        "| server | {} |\n|---|{}\n",
        titles.join(" | "),
        "---:|".repeat(titles.len())
    );
    for server in workload.servers {
        let cells: Vec<_> = workload
            .figures
            .iter()
            .map(|figure| cell(results, *server, figure))
            .collect();
        let _ = writeln!(text, "| {} | {} |", server.name(), cells.join(" | "));
    }
    text
}

fn goals(all: &[(&'static Workload, Results)]) -> String {
    let mut text = String::from("| workload | goal | measured | |\n|---|---|---:|---|\n");
    for (workload, results) in all {
        for goal in workload.goals {
            let (value, verdict) = match results.outcome(goal) {
                Some(outcome) => (show(goal, &outcome), outcome.verdict()),
                None => ("–".into(), "not measured"),
            };
            let _ = writeln!(text, "| {} | {} | {value} | {verdict} |", workload.name, goal.text);
        }
    }
    text
}

fn machine(all: &[(&'static Workload, Results)]) -> String {
    let mut machines = BTreeMap::new();
    for (workload, results) in all {
        let machine = &results.machine;
        let line = format!(
            "Measured on {} at commit {} on {}, {} processors{}, {} GiB, {}; {}; Centrifugo {}",
            results.date,
            results.commit,
            machine.processor,
            machine.processors,
            if machine.is_virtual {
                " of a virtual machine"
            } else {
                ""
            },
            machine.memory_gib,
            machine.kernel,
            machine.rustc,
            centrifugo::VERSION,
        );
        let rounds = results.rounds.iter().map(|round| round.round + 1).max().unwrap_or(0);
        let found: &mut Vec<_> = machines.entry(line).or_default();
        found.push(format!("{}: {rounds}", workload.name));
    }
    let mut text = String::new();
    for (line, rounds) in machines {
        let _ = writeln!(text, "- {line}. Rounds: {}.", rounds.join(", "));
    }
    let disturbed: usize = all.iter().map(|(_, results)| results.disturbed()).sum();
    let count: usize = all.iter().map(|(_, results)| results.rounds.len()).sum();
    if disturbed > 0 {
        let _ = writeln!(
            text,
            "- In {disturbed} of {count} measurements, other programs kept the server or the load generator from its \
             processor for more than a twentieth of the time."
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            results::{Results, Round},
            servers::Kind,
            workload::WORKLOADS,
        },
        PAGE, page_of,
    };
    use crate::bench::machine;

    #[test]
    fn the_page_has_a_table_for_every_workload() {
        let all: Vec<_> = WORKLOADS
            .iter()
            .map(|workload| {
                let report = json!({ "open": 3072, "after": 5120, "lost": 1, "cpu_ns": 1500 });
                let results = Results {
                    workload: workload.name.into(),
                    commit: "abc".into(),
                    machine: machine::describe(),
                    date: "2026-11-30".into(),
                    rounds: vec![Round {
                        round: 0,
                        server: Kind::Sockeye.name().into(),
                        report: Some(report),
                        failure: None,
                    }],
                };
                (workload, results)
            })
            .collect();
        let page = page_of(PAGE, &all).expect("every place is known");
        assert!(page.contains("| sockeye | 3.00 | 5.00 |"), "{page}");
        assert!(
            page.contains("| idle | memory per client at most 4 KiB | 5.00 KiB | missed |"),
            "{page}"
        );
        assert!(page.contains("| storm | no publication lost | 1 | missed |"), "{page}");
        assert!(!page.contains("<!--"), "every place is filled: {page}");
        page_of("<!-- nothing -->", &all).expect_err("that is unknown");
    }
}
