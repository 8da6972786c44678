//! The charts of `docs/performance.md`: which figures they show. A chart without figures is omitted.

use anyhow::Result;

use super::{
    plot::{Bar, BarChart, Curve, CurveChart, Panel, Role},
    results::{Results, Row, select, short},
    servers::is_sockeye,
    workload::{Group, Metric},
};

/// Efficiency of the echo compared with raw TCP, one panel per workload.
pub(super) fn echo(all: &[Results]) -> Result<Option<String>> {
    let echo = select(all, Group::Echo, |metric| matches!(metric, Metric::Cpu | Metric::Rate));
    let panel = |results: &&Results| {
        let base = results.row("raw-epoll")?;
        let ratio = |row: &Row| row.ratio(base, results.metric);
        let title = match results.metric {
            Metric::Rate => format!("{} (rate)", short(&results.title)),
            _ => short(&results.title),
        };
        Some(Panel {
            title,
            bars: bars(results, |row| Some((ratio(row)?, None)), true),
        })
    };
    let panels: Vec<_> = echo.iter().filter_map(panel).collect();
    let chart = BarChart {
        title: "Echo: efficiency against raw TCP (orange: Sockeye, blue: no protocol, grey: other crates; longer is better)"
            .into(),
        axis: "share of raw-epoll: processor time per message, or rate".into(),
        panels,
        mark: Some(1.0),
        columns: 3,
        format: |value| format!("{value:.2}"),
    };
    if chart.panels.is_empty() {
        return Ok(None);
    }
    chart.to_svg().map(Some)
}

/// Memory per connection, one panel per kind of connection.
pub(super) fn memory(all: &[Results]) -> Result<Option<String>> {
    let idle = all.iter().filter(|results| results.metric == Metric::Memory);
    let panel = |results: &Results| Panel {
        title: results.title.clone(),
        bars: bars(
            results,
            |row| Some((row.median("/open")? / 1024.0, Some(row.median("/after")? / 1024.0))),
            false,
        ),
    };
    let chart = BarChart {
        title: "Memory per connection: idle / after an echo of 16 KiB (orange: Sockeye; shorter is better)".into(),
        axis: "KiB of user memory per connection".into(),
        panels: idle.map(panel).filter(|panel| !panel.bars.is_empty()).collect(),
        mark: None,
        columns: 3,
        format: |value| {
            if value < 10.0 {
                format!("{value:.1}")
            } else {
                format!("{value:.0}")
            }
        },
    };
    if chart.panels.is_empty() {
        return Ok(None);
    }
    chart.to_svg().map(Some)
}

/// Latency at increasing rates, for the first open-loop workload.
pub(super) fn latency(all: &[Results]) -> Result<Option<String>> {
    let Some(results) = all.iter().find(|results| results.metric == Metric::Latency) else {
        return Ok(None);
    };
    let curve = |row: &Row| Curve {
        label: row.server.clone(),
        role: role(row),
        points: results
            .rates()
            .into_iter()
            .filter(|rate| !row.is_late_at(*rate))
            .filter_map(|rate| Some((f64::from(rate), row.median_at(rate, Metric::Latency.pointer())? / 1e6)))
            .collect(),
    };
    let chart = CurveChart {
        title: format!("Latency in an open loop: {} (lower is better)", short(&results.title)),
        x_axis: "requested messages per second".into(),
        y_axis: "p99 from the due time, ms".into(),
        curves: results.rows.iter().map(curve).collect(),
    };
    if chart.curves.iter().all(|curve| curve.points.is_empty()) {
        return Ok(None);
    }
    chart.to_svg().map(Some)
}

/// Sorts from best to worst.
fn bars(results: &Results, values: impl Fn(&Row) -> Option<(f64, Option<f64>)>, is_more_better: bool) -> Vec<Bar> {
    let bar = |row: &Row| {
        let (value, second) = values(row)?;
        Some(Bar {
            label: row.server.clone(),
            role: role(row),
            value: value.max(0.0),
            second: second.map(|second| second.max(0.0)),
        })
    };
    let mut bars: Vec<_> = results.rows.iter().filter_map(bar).collect();
    bars.sort_by(|one, other| one.value.total_cmp(&other.value));
    if is_more_better {
        bars.reverse();
    }
    bars
}

fn role(row: &Row) -> Role {
    match row.is_baseline {
        _ if is_sockeye(&row.server) => Role::Sockeye,
        true => Role::Baseline,
        false => Role::Peer,
    }
}
