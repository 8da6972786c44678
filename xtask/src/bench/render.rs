//! Renders `docs/performance.md` from the stored results.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Folders, charts, goals,
    results::{Results, Row, select, short},
    servers::{SERVERS, SOCKEYE, is_sockeye},
    workload::{Group, Metric, WORKLOADS, Workload},
};
use crate::{process::grouped, workspace::Workspace};

/// The text of the page, with placeholders for the figures.
const PAGE: &str = include_str!("page.md");

/// Replaces figures that were not measured.
const NOTHING: &str = "Not measured yet.";

pub(super) fn run(workspace: &Workspace, folders: &Folders) -> Result<()> {
    let all = read(folders)?;
    let docs = workspace.root.join("docs");
    let plots = docs.join("performance");
    fs::create_dir_all(&plots)?;
    for (name, svg) in [
        ("echo.svg", charts::echo(&all)?),
        ("memory.svg", charts::memory(&all)?),
        ("latency.svg", charts::latency(&all)?),
    ] {
        let file = plots.join(name);
        match svg {
            Some(svg) => fs::write(&file, svg)?,
            // Removes the chart of an earlier run.
            None if file.exists() => fs::remove_file(&file)?,
            None => {}
        }
    }
    let page = docs.join("performance.md");
    fs::write(&page, page_of(PAGE, &all, &plots)?)?;
    println!("rendered {} from {} workloads", page.display(), all.len());
    Ok(())
}

/// All results, in the order of the workloads.
fn read(folders: &Folders) -> Result<Vec<Results>> {
    let file = |workload: &Workload| folders.results.join(format!("{}.json", workload.name));
    let missing = WORKLOADS.iter().filter(|workload| !file(workload).exists());
    let missing: Vec<_> = missing.map(|workload| workload.name).collect();
    ensure!(
        missing.is_empty(),
        "some workloads have no results; run `cargo xtask bench --only {}`",
        missing.join(",")
    );
    let read = |workload: &Workload| {
        let file = file(workload);
        let text = fs::read_to_string(&file)?;
        serde_json::from_str(&text).with_context(|| format!("{} has another format; measure again", file.display()))
    };
    WORKLOADS.iter().map(read).collect()
}

/// The text with each placeholder `<!-- name -->` replaced by its figures.
fn page_of(text: &str, all: &[Results], plots: &Path) -> Result<String> {
    let mut page = String::new();
    for line in text.lines() {
        let name = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"));
        let plot = line
            .split_once("](performance/")
            .map(|(_, rest)| rest.trim_end_matches(')'));
        match (name, plot) {
            (Some(name), _) => {
                let figures = figures(all, name)?;
                let figures = figures.trim_end();
                if !figures.is_empty() {
                    page.push_str(figures);
                    page.push('\n');
                }
            }
            (None, Some(plot)) if !plots.join(plot).exists() => {}
            _ => {
                page.push_str(line);
                page.push('\n');
            }
        }
    }
    // Collapses empty lines where something was omitted.
    while page.contains("\n\n\n") {
        page = page.replace("\n\n\n", "\n\n");
    }
    Ok(page)
}

/// The figures for a placeholder.
fn figures(all: &[Results], name: &str) -> Result<String> {
    let echo = select(all, Group::Echo, |metric| matches!(metric, Metric::Cpu | Metric::Rate));
    let is_server = |name: &str| SERVERS.iter().any(|server| server.name == name);
    Ok(match name.split_once(": ").unwrap_or((name, "")) {
        ("notice", "") => notice(all),
        ("absolute", "") => table(&echo, value),
        ("outside", "") => outside_the_kernel(&echo),
        ("syscalls", "") => syscalls(&echo),
        ("memory", "") => memory_table(all),
        ("latency", "") => latency_tables(all),
        ("machine", "") => machine(all),
        ("group", "tls") => group_table(all, Group::Tls),
        ("group", "deflate") => group_table(all, Group::Deflate),
        ("group", "fanout") => group_table(all, Group::Fanout),
        ("group", "threads") => group_table(all, Group::Threads),
        ("group", "streams") => group_table(all, Group::Streams),
        ("ratios", base) if is_server(base) => ratios(&echo, base),
        ("goals", bare) if bare.split(", ").all(is_server) => goals::table(all, &bare.split(", ").collect::<Vec<_>>()),
        _ => bail!("page.md has an unknown placeholder `{name}`"),
    })
}

fn notice(all: &[Results]) -> String {
    let mut text = String::new();
    let rows = || all.iter().flat_map(|results| &results.rows);
    let disturbed: usize = rows().map(Row::disturbed).sum();
    let count: usize = rows().map(|row| row.rounds.len()).sum();
    if disturbed > 0 {
        let _ = writeln!(
            text,
            "In {disturbed} of {count} measurements, other programs kept the server or the load generator from its \
             processor for more than a twentieth of the time."
        );
    }
    text
}

/// A table with a row per server, in the order of the list, and a column per workload.
fn table(columns: &[&Results], cell: impl Fn(&Results, &Row) -> String) -> String {
    if columns.is_empty() {
        return NOTHING.into();
    }
    let titles: Vec<_> = columns.iter().map(|results| short(&results.title)).collect();
    let mut text = format!(
        "| server | {} |\n|---|{}\n",
        titles.join(" | "),
        "---:|".repeat(columns.len())
    );
    for server in SERVERS {
        let rows: Vec<_> = columns.iter().map(|results| results.row(server.name)).collect();
        if rows.iter().all(Option::is_none) {
            continue;
        }
        let cells: Vec<_> = rows
            .iter()
            .zip(columns)
            .map(|(row, results)| row.map_or_else(|| "–".into(), |row| cell(results, row)))
            .collect();
        let name = if is_sockeye(server.name) {
            format!("**{}**", server.name)
        } else {
            server.name.into()
        };
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text
}

fn ratios(columns: &[&Results], base: &str) -> String {
    table(columns, |results, row| {
        let ratio = results.row(base).and_then(|base| row.ratio(base, results.metric));
        cell_text(ratio.map(|ratio| format!("{ratio:.2}")), row)
    })
}

/// The median, in the unit of the metric.
fn value(results: &Results, row: &Row) -> String {
    let text = match results.metric {
        Metric::Rate => row
            .median("/bytes_per_second")
            .map(|bytes| format!("{} MB/s", figure(bytes / 1e6))),
        metric => row.median(metric.pointer()).map(figure),
    };
    cell_text(text, row)
}

/// The user part of the processor time.
fn outside_the_kernel(columns: &[&Results]) -> String {
    let of_time = |results: &&Results| results.metric == Metric::Cpu;
    let columns: Vec<_> = columns.iter().copied().filter(of_time).collect();
    table(&columns, |_, row| {
        cell_text(row.median(Metric::UserCpu.pointer()).map(figure), row)
    })
}

/// System calls per message, for the workloads where they were counted.
fn syscalls(columns: &[&Results]) -> String {
    let has_any = |results: &&Results| results.rows.iter().any(|row| row.syscalls.is_some());
    let columns: Vec<_> = columns.iter().copied().filter(has_any).collect();
    table(&columns, |_, row| {
        row.syscalls.map_or_else(|| "–".into(), |count| format!("{count:.3}"))
    })
}

/// Values, with the ratio to the baseline of the group; for compression, with the length of a reply instead.
fn group_table(all: &[Results], group: Group) -> String {
    let columns = select(all, group, |metric| {
        matches!(metric, Metric::Cpu | Metric::UserCpu | Metric::Rate)
    });
    table(&columns, |results, row| {
        let mut text = value(results, row);
        let base = match group {
            Group::Streams => results.row(SOCKEYE),
            Group::Threads => results.row("blocking-tungstenite"),
            _ => results.baselines().next(),
        };
        if let Some(ratio) = base.and_then(|base| row.ratio(base, results.metric)) {
            let _ = write!(text, " · {ratio:.2}");
        }
        if group == Group::Deflate
            && let (Some(bytes), Some(count)) = (row.median("/bytes"), row.median("/messages"))
        {
            let _ = write!(text, " · {:.0} B", bytes / count);
        }
        text
    })
}

fn memory_table(all: &[Results]) -> String {
    let columns: Vec<_> = all.iter().filter(|results| results.metric == Metric::Memory).collect();
    table(&columns, |_, row| {
        let both = row.median("/open").zip(row.median("/after"));
        cell_text(
            both.map(|(open, after)| format!("{} / {}", figure(open), figure(after))),
            row,
        )
    })
}

/// One table per workload, with a column per rate.
fn latency_tables(all: &[Results]) -> String {
    let mut text = String::new();
    for results in all.iter().filter(|results| results.metric == Metric::Latency) {
        let rates = results.rates();
        let heads: Vec<_> = rates
            .iter()
            .map(|rate| format!("{}k/s", f64::from(*rate) / 1000.0))
            .collect();
        let _ = writeln!(
            text,
            "{}; p99 in milliseconds:\n\n| server | {} |\n|---|{}",
            results.title,
            heads.join(" | "),
            "---:|".repeat(rates.len())
        );
        for row in &results.rows {
            let cell = |rate: &u32| match row.median_at(*rate, Metric::Latency.pointer()) {
                Some(ns) if row.is_late_at(*rate) => format!("({:.3})", ns / 1e6),
                Some(ns) => format!("{:.3}", ns / 1e6),
                None => "–".into(),
            };
            let cells: Vec<_> = rates.iter().map(cell).collect();
            let _ = writeln!(text, "| {} | {} |", row.server, cells.join(" | "));
        }
        let late: usize = results.rows.iter().map(|row| row.verdicts("late")).sum();
        let count: usize = results.rows.iter().map(|row| row.rounds.len()).sum();
        if late > 0 {
            let _ = writeln!(
                text,
                "\nIn {late} of {count} measurements, the lateness of the load generator exceeded a tenth of the latency \
                 that it reported."
            );
        }
        text.push('\n');
    }
    if text.is_empty() { NOTHING.into() } else { text }
}

fn machine(all: &[Results]) -> String {
    let mut machines = BTreeMap::new();
    for results in all {
        let machine = &results.machine;
        let line = format!(
            "{}, {} processors{}, {} GiB, {}; {}",
            machine.processor,
            machine.processors,
            if machine.is_virtual {
                " of a virtual machine"
            } else {
                ""
            },
            machine.memory_gib,
            machine.kernel,
            machine.rustc
        );
        let found: &mut Vec<_> = machines.entry((line, results.commit.clone())).or_default();
        found.push(format!("{}: {}", results.workload, results.rounds()));
    }
    let mut text = String::new();
    for ((line, commit), workloads) in machines {
        let workloads = workloads.join(", ");
        let _ = writeln!(text, "- Measured at commit {commit} on {line}. Rounds: {workloads}.");
    }
    let rows = all.iter().flat_map(|results| &results.rows);
    let versions: BTreeMap<_, _> = rows
        .filter(|row| !row.version.is_empty())
        .map(|row| (row.server.as_str(), row.version.as_str()))
        .collect();
    let versions: Vec<_> = versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    if !versions.is_empty() {
        let _ = writeln!(text, "- Versions of the crates: {}.", versions.join(", "));
    }
    text
}

/// Rounded for display, with commas between groups of three digits.
pub(super) fn figure(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.1}");
    }
    let text = grouped(value.abs().round() as u64);
    if value < 0.0 { format!("-{text}") } else { text }
}

/// The text for a cell. A server with a failure always shows it.
fn cell_text(text: Option<String>, row: &Row) -> String {
    match (text, row.failure()) {
        (_, Some(_)) => "failed".into(),
        (Some(text), None) => text,
        (None, None) => "–".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{PAGE, Path, Results, figure, page_of, short};
    use crate::bench::{
        machine,
        results::{Round, Row},
        workload::{Group, Metric},
    };

    fn results() -> Results {
        let row = |server: &str, cpu_ns: Option<f64>| Row {
            server: server.into(),
            version: String::new(),
            is_baseline: server.starts_with("raw"),
            rounds: vec![Round {
                round: 0,
                rate: None,
                report: cpu_ns.map(|cpu_ns| json!({ "server": { "cpu_ns": cpu_ns } })),
                failure: cpu_ns.is_none().then(|| "it ended".into()),
            }],
            syscalls: (server == "sockeye").then_some(2.0),
        };
        Results {
            workload: "20b-1".into(),
            title: "20 B, 1 in flight, 100 connections".into(),
            group: Group::Echo,
            metric: Metric::Cpu,
            commit: "abc".into(),
            machine: machine::describe(),
            rows: vec![
                row("raw-epoll", Some(3000.0)),
                row("raw-tokio", Some(2000.0)),
                row("sockeye", Some(4000.0)),
                row("soketto", None),
            ],
        }
    }

    #[test]
    fn page_contains_ratios_and_failures() {
        let page = page_of(PAGE, &[results()], Path::new("nowhere")).expect("every place is known");
        assert!(page.contains("| **sockeye** | 0.75 |"), "{page}");
        assert!(page.contains("| **sockeye** | 4,000 |"), "{page}");
        assert!(page.contains("| soketto | failed |"), "{page}");
        assert!(
            page.contains("| of `raw-epoll` | ≥ 0.95 | 0.75 (0.75 to 0.75) | missed | 1.50 |"),
            "{page}"
        );
        assert!(
            page.contains("| system calls per message | ≤ 2.050 | 2.000 | reached | – |"),
            "{page}"
        );
        assert!(page.contains("| **sockeye** | 2.000 |"), "{page}");
        assert!(page.contains("1 of 3 goals are reached."), "{page}");
        assert!(!page.contains("<!--"), "every place is filled: {page}");
        assert!(!page.contains("![Memory"), "there is no plot of what was not measured");
    }

    #[test]
    fn unknown_placeholder_is_an_error() {
        let page = |text| page_of(text, &[results()], Path::new("nowhere"));
        page("<!-- ratios: raw-epoll -->").expect("that is measured");
        for text in [
            "<!-- ratio: raw-epoll -->",
            "<!-- ratios: raw-epol -->",
            "<!-- goals: raw-epoll, raw-epol -->",
            "<!-- group: echo -->",
        ] {
            page(text).expect_err(text);
        }
    }

    #[test]
    fn titles_are_short() {
        assert_eq!(short("20 B, 16 in flight, 100 connections"), "20 B ×16, 100 conns");
        assert_eq!(short("10,000 idle connections"), "10,000 idle connections");
    }

    #[test]
    fn figures_are_grouped() {
        assert_eq!(figure(1_234_567.0), "1,234,567");
        assert_eq!(figure(123.4), "123");
        assert_eq!(figure(-1234.0), "-1,234");
        assert_eq!(figure(7.25), "7.2");
    }
}
