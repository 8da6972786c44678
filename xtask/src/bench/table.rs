//! A workload's results for the terminal.

use std::fmt::Write;

use super::{
    results::{Results, Row},
    workload::Metric,
};

pub(super) fn of(results: &Results) -> String {
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
    let _ = writeln!(text, "  load");
    for row in &results.rows {
        let _ = write!(
            text,
            "    {:20} {:>12} {:>12}",
            row.server,
            value(results.metric, row.median(results.metric.pointer())),
            number(row.median("/rate"), 0)
        );
        for base in &baselines {
            let _ = write!(text, " {:>16}", number(row.ratio(base, results.metric), 2));
        }
        let _ = writeln!(text, "  {}", remark(row));
    }
    text
}

fn heading(metric: Metric) -> &'static str {
    match metric {
        Metric::Cpu => "CPU ns each",
        Metric::UserCpu => "user ns each",
        Metric::Rate => "MB/s",
        Metric::Memory => "B each",
        Metric::Latency => "p99 ms",
    }
}

/// A median, in the unit of the heading.
fn value(metric: Metric, median: Option<f64>) -> String {
    match metric {
        Metric::Rate => String::new(),
        Metric::Latency => number(median.map(|ns| ns / 1e6), 3),
        _ => number(median, 0),
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

/// What is to be known before believing it.
fn remark(row: &Row) -> String {
    if let Some(failure) = row.failure() {
        return format!("FAILED: {failure}");
    }
    match (row.verdicts("generator"), row.verdicts("late")) {
        (0, 0) => String::new(),
        (limit, 0) => format!("the limit in {limit} of {}", row.rounds.len()),
        (_, late) => format!("late in {late} of {}", row.rounds.len()),
    }
}
