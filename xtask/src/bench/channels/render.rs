//! Renders `docs/performance-server.md` and `docs/performance-cluster.md` from the stored results.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

use super::{
    results::{Results, Spread, cell, show},
    servers::{CENTRIFUGO_CONFIG, SOCKEYE_CONFIG},
    workload::{Page, WORKLOADS, Workload},
};
use crate::{tools::centrifugo, workspace::Workspace};

/// The pages: their files, and their texts with placeholders for the figures.
const PAGES: &[(Page, &str, &str)] = &[
    (Page::Server, "docs/performance-server.md", include_str!("page.md")),
    (Page::Cluster, "docs/performance-cluster.md", include_str!("cluster.md")),
];

/// Renders the pages whose workloads were measured on this machine. A page without any results stays as it is.
pub(super) fn run(workspace: &Workspace, folder: &Path) -> Result<()> {
    for (page, file, text) in PAGES {
        render(*page, &workspace.root.join(file), text, folder)?;
    }
    Ok(())
}

fn render(page: Page, target: &Path, text: &str, folder: &Path) -> Result<()> {
    let mut all = Vec::new();
    let mut missing = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| workload.page == page) {
        let file = folder.join(format!("{}.json", workload.name));
        if !file.exists() {
            missing.push(workload.name);
            continue;
        }
        let stored = fs::read_to_string(&file)?;
        let results: Results = serde_json::from_str(&stored)
            .with_context(|| format!("{} has another format; measure again", file.display()))?;
        all.push((workload, results));
    }
    if all.is_empty() {
        println!("left {} as it is: no results are stored", target.display());
        return Ok(());
    }
    ensure!(
        missing.is_empty(),
        "some workloads have no results; run `cargo xtask bench --server --only {}`",
        missing.join(",")
    );
    fs::write(target, page_of(text, &all)?)?;
    println!("rendered {}", target.display());
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
                None => bail!("the page has an unknown placeholder `{name}`"),
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
            let (value, verdict) = match results.outcome(workload, goal) {
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
    let rounds = || all.iter().flat_map(|(_, results)| &results.rounds);
    if disturbed > 0 {
        let _ = writeln!(
            text,
            "- In {disturbed} of {} measurements, other programs kept the server or the load generator from its processor for \
             more than a twentieth of the time.",
            rounds().count()
        );
    }
    if let Some(load) = Spread::of(rounds().filter_map(|round| round.load_average).collect()) {
        let _ = writeln!(text, "- Load average before a measurement: {}.", load.show(1.0, 1));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            results::{Results, Round},
            workload::{Page, WORKLOADS, Workload},
        },
        PAGES, page_of,
    };
    use crate::bench::machine;

    fn results_of(workload: &Workload) -> Results {
        let report = json!({
            "open": 3072, "after": 5120, "lost": 1, "cpu_ns": 1500, "engine_cpu_ns": 2500, "shares": { "others": 0.5 }
        });
        Results {
            workload: workload.name.into(),
            commit: "abc".into(),
            machine: machine::describe(),
            date: "2026-11-30".into(),
            rounds: vec![Round {
                round: 0,
                server: workload.servers[0].name().into(),
                report: Some(report),
                failure: None,
                load_average: Some(1.25),
            }],
        }
    }

    fn rendered(page: Page) -> String {
        let all: Vec<_> = WORKLOADS
            .iter()
            .filter(|workload| workload.page == page)
            .map(|workload| (workload, results_of(workload)))
            .collect();
        let (.., text) = PAGES.iter().find(|(found, ..)| *found == page).expect("it has a text");
        let rendered = page_of(text, &all).expect("every place is known");
        assert!(!rendered.contains("<!--"), "every place is filled: {rendered}");
        for (workload, _) in &all {
            assert!(
                text.contains(&format!("<!-- {} -->", workload.name)),
                "{}",
                workload.name
            );
        }
        rendered
    }

    #[test]
    fn the_page_of_one_node_has_a_table_for_every_workload() {
        let page = rendered(Page::Server);
        assert!(page.contains("| sockeye | 3.00 | 5.00 |"), "{page}");
        assert!(
            page.contains("| idle | memory per client at most 4 KiB | 5.00 KiB | missed |"),
            "{page}"
        );
        assert!(page.contains("| storm | no publication lost | 1 | missed |"), "{page}");
    }

    #[test]
    fn the_page_of_two_nodes_has_a_table_for_every_workload() {
        let page = rendered(Page::Cluster);
        assert!(page.contains("| sockeye, redis | – | – | – | 1.5 | 2.5 |"), "{page}");
        assert!(page.contains("| node-loss | nothing lost | 1 | missed |"), "{page}");
        assert!(page.contains("In 4 of 4 measurements"), "{page}");
        assert!(page.contains("before a measurement: 1.2"), "{page}");
    }

    #[test]
    fn unknown_placeholders_are_errors() {
        page_of("<!-- nothing -->", &[]).expect_err("that is unknown");
    }
}
