//! The results of a workload, for the terminal.

use std::fmt::Write;

use super::{
    results::{Results, Row},
    workload::Metric,
};

pub(super) fn render(results: &Results) -> String {
    match results.metric {
        Metric::Memory => memory(results),
        Metric::Latency => latency(results),
        _ => ratios(results),
    }
}

fn memory(results: &Results) -> String {
    let mut text = format!(
        "    {:20} {:>12} {:>12}  bytes for each connection\n",
        "server", "open", "after 16 KiB"
    );
    for row in &results.rows {
        let (open, after) = (row.median("/open"), row.median("/after"));
        let (open, after) = (number(open, 0), number(after, 0));
        let _ = writeln!(text, "    {:20} {open:>12} {after:>12}  {}", row.server, remark(row));
    }
    text
}

/// p99 from the due time in milliseconds, one column per rate.
fn latency(results: &Results) -> String {
    let mut text = format!("    {:20}", "p99 ms at a rate of");
    for rate in results.rates() {
        let _ = write!(text, " {rate:>9}");
    }
    text.push('\n');
    for row in &results.rows {
        let _ = write!(text, "    {:20}", row.server);
        for rate in results.rates() {
            let p99 = row.median_at(rate, results.metric.pointer());
            let _ = write!(text, " {:>9}", number(p99.map(|ns| ns / 1e6), 3));
        }
        let _ = writeln!(text, "  {}", remark(row));
    }
    text
}

fn ratios(results: &Results) -> String {
    let mut text = String::new();
    let baselines: Vec<_> = results.baselines().collect();
    let _ = write!(
        text,
        "    {:20} {:>12} {:>12}",
        "server",
        heading(results.metric),
        "per second"
    );
    for base in &baselines {
        let _ = write!(text, " {:>16}", format!("of {}", base.server));
    }
    let _ = writeln!(text, "  syscalls  load");
    for row in &results.rows {
        let _ = write!(
            text,
            "    {:20} {:>12} {:>12}",
            row.server,
            match results.metric {
                Metric::Rate => number(row.median("/bytes_per_second").map(|bytes| bytes / 1e6), 1),
                metric => number(row.median(metric.pointer()), 0),
            },
            number(row.median("/rate"), 0)
        );
        for base in &baselines {
            let _ = write!(text, " {:>16}", number(row.ratio(base, results.metric), 2));
        }
        let _ = writeln!(text, "  {:>8}  {}", number(row.syscalls, 3), remark(row));
    }
    text
}

fn heading(metric: Metric) -> &'static str {
    match metric {
        Metric::Cpu => "CPU ns each",
        Metric::UserCpu => "user ns each",
        _ => "MB/s",
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

/// Reasons to doubt the figures of a row.
fn remark(row: &Row) -> String {
    if let Some(failure) = row.failure() {
        return format!("FAILED: {failure}");
    }
    let remarks = [
        (row.verdicts("generator"), "the limit"),
        (row.verdicts("late"), "late"),
        (row.disturbed(), "disturbed"),
    ];
    let present = remarks.iter().filter(|(count, _)| *count > 0);
    let present: Vec<_> = present
        .map(|(count, what)| format!("{what} in {count} of {}", row.rounds.len()))
        .collect();
    present.join(", ")
}
