//! What ours is to reach, and whether it does.

use std::fmt::Write;

use super::{
    results::{Results, Row, short},
    servers::is_ours,
    workload::Metric,
};

/// One goal for our server in one workload.
struct Goal {
    workload: &'static str,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    /// Times as good as this server, at least.
    Of(&'static str, f64),
    /// Times as good as each of the rivals, at least.
    OfBestRival(f64),
    /// Bytes of a connection, at most, and a tenth more after it has echoed.
    Memory(f64),
    /// For each message, at most.
    SystemCalls(f64),
}

const fn goal(workload: &'static str, bound: Bound) -> Goal {
    Goal { workload, bound }
}

const GOALS: &[Goal] = &[
    goal("20b-1", Bound::Of("raw-epoll", 0.97)),
    goal("20b-1", Bound::OfBestRival(1.03)),
    goal("20b-1", Bound::SystemCalls(2.05)),
    goal("1k-1", Bound::Of("raw-epoll", 0.96)),
    goal("1k-1", Bound::OfBestRival(1.15)),
    goal("16k-1", Bound::Of("raw-epoll", 0.90)),
    goal("16k-1", Bound::OfBestRival(1.15)),
    goal("20b-16", Bound::Of("raw-epoll", 0.95)),
    goal("20b-16", Bound::OfBestRival(1.7)),
    goal("1k-text-16", Bound::Of("raw-epoll", 0.82)),
    goal("1k-text-16", Bound::OfBestRival(1.8)),
    goal("1k-64", Bound::Of("raw-epoll", 0.78)),
    goal("1k-64", Bound::OfBestRival(1.9)),
    goal("1k-64", Bound::SystemCalls(0.035)),
    goal("20b-256", Bound::Of("raw-epoll", 0.70)),
    goal("20b-256", Bound::OfBestRival(5.0)),
    goal("1m-1", Bound::Of("raw-epoll", 0.50)),
    goal("1m-1", Bound::OfBestRival(1.1)),
    goal("16m-1", Bound::Of("raw-epoll", 0.65)),
    goal("16m-1", Bound::OfBestRival(1.0)),
    goal("tls-1k-1", Bound::Of("raw-tokio-rustls", 0.95)),
    goal("tls-1k-16", Bound::Of("raw-tokio-rustls", 0.95)),
    goal("deflate-1k-1", Bound::OfBestRival(1.0 / 0.8)),
    goal("fanout-1", Bound::Of("fanout-raw", 1.0 / 1.1)),
    goal("fanout-1", Bound::Of("fanout-tungstenite", 1.9)),
    goal("fanout-16", Bound::Of("fanout-raw", 1.0 / 1.1)),
    goal("fanout-16", Bound::Of("fanout-tungstenite", 12.0)),
    goal("idle", Bound::Memory(1.2 * 1024.0)),
    goal("idle-tls", Bound::OfBestRival(1.0)),
    goal("idle-deflate", Bound::OfBestRival(1.0)),
];

/// What came of a goal.
struct Outcome {
    bound: Bound,
    value: f64,
    /// Of the rounds, the least and the most.
    range: Option<(f64, f64)>,
    is_reached: bool,
}

/// The goals of a workload, as far as it was measured.
fn outcomes(results: &Results) -> Vec<Outcome> {
    let Some(ours) = results.rows.iter().find(|row| is_ours(&row.server)) else {
        return Vec::new();
    };
    let goals = GOALS.iter().filter(|goal| goal.workload == results.workload);
    goals.filter_map(|goal| goal.bound.judge(results, ours)).collect()
}

impl Bound {
    fn judge(self, results: &Results, row: &Row) -> Option<Outcome> {
        match self {
            Self::Of(other, min) => self.compare(results, row, results.row(other)?, min),
            Self::OfBestRival(min) => {
                let rivals = results
                    .rows
                    .iter()
                    .filter(|other| !other.is_baseline && !is_ours(&other.server));
                let outcomes = rivals.filter_map(|rival| self.compare(results, row, rival, min));
                outcomes.min_by(|one, other| one.value.total_cmp(&other.value))
            }
            Self::Memory(max) => {
                let (open, after) = row.median("/open").zip(row.median("/after"))?;
                Some(self.outcome(open, open <= max && after <= 1.1 * open))
            }
            Self::SystemCalls(max) => row.syscalls.map(|calls| self.outcome(calls, calls <= max)),
        }
    }

    fn compare(self, results: &Results, row: &Row, other: &Row, min: f64) -> Option<Outcome> {
        let value = row.ratio(other, results.metric)?;
        let ratios = row.ratios(other, results.metric);
        let least = ratios.iter().copied().min_by(f64::total_cmp);
        let most = ratios.iter().copied().max_by(f64::total_cmp);
        Some(Outcome {
            range: least.zip(most),
            ..self.outcome(value, value >= min)
        })
    }

    fn outcome(self, value: f64, is_reached: bool) -> Outcome {
        Outcome {
            bound: self,
            value,
            range: None,
            is_reached,
        }
    }

    fn title(self, metric: Metric) -> String {
        match self {
            Self::Of(other, _) => format!("of `{other}`"),
            Self::OfBestRival(_) if metric == Metric::Memory => "memory of the best other crate".into(),
            Self::OfBestRival(_) => "of the best other crate".into(),
            Self::Memory(_) => "bytes, and no more after an echo".into(),
            Self::SystemCalls(_) => "system calls".into(),
        }
    }

    fn told(self, value: f64) -> String {
        match self {
            Self::Of(..) | Self::OfBestRival(_) => format!("{value:.2}"),
            Self::Memory(_) => format!("{value:.0}"),
            Self::SystemCalls(_) => format!("{value:.3}"),
        }
    }

    fn limit(self) -> String {
        match self {
            Self::Of(_, min) | Self::OfBestRival(min) => format!("≥ {}", self.told(min)),
            Self::Memory(max) | Self::SystemCalls(max) => format!("≤ {}", self.told(max)),
        }
    }
}

/// All goals as a table; beside ours `floor`, a server without a protocol that is made as ours is.
pub(super) fn table(all: &[Results], floor: &str) -> String {
    let mut text = format!("| workload | measure | goal | ours | | {floor} |\n|---|---|---:|---:|---|---:|\n");
    for results in all {
        for outcome in outcomes(results) {
            let bound = outcome.bound;
            let floor = results.row(floor).and_then(|row| bound.judge(results, row));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                short(&results.title),
                bound.title(results.metric),
                bound.limit(),
                outcome.told(),
                outcome.verdict(),
                floor.map_or_else(|| "–".into(), |floor| bound.told(floor.value)),
            );
        }
    }
    text
}

/// The goals of one workload, for the terminal.
pub(super) fn lines(results: &Results) -> String {
    let line = |outcome: Outcome| {
        let title = outcome.bound.title(results.metric);
        let (limit, told) = (outcome.bound.limit(), outcome.told());
        format!("    goal {limit} {title}: {told}, {}\n", outcome.verdict())
    };
    outcomes(results).into_iter().map(line).collect()
}

impl Outcome {
    fn told(&self) -> String {
        let value = self.bound.told(self.value);
        match self.range {
            Some((least, most)) => {
                let (least, most) = (self.bound.told(least), self.bound.told(most));
                format!("{value} ({least} to {most})")
            }
            None => value,
        }
    }

    fn verdict(&self) -> &'static str {
        if self.is_reached { "reached" } else { "missed" }
    }
}

#[cfg(test)]
mod tests {
    use super::GOALS;
    use crate::bench::workload::WORKLOADS;

    #[test]
    fn every_goal_is_of_a_workload() {
        for goal in GOALS {
            let is_of = WORKLOADS.iter().any(|workload| workload.name == goal.workload);
            assert!(is_of, "{}", goal.workload);
        }
    }
}
