//! Performance goals for Sockeye, and whether they are reached.

use std::fmt::Write;

use super::{
    render::figure,
    results::{Results, Row, short},
    servers::is_sockeye,
};

/// One goal in one workload.
struct Goal {
    workload: &'static str,
    bound: Bound,
    /// A server other than that with the library.
    server: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Bound {
    /// At least this many times as good as the server.
    Of(&'static str, f64),
    /// At least this many times as good as each of the other crates.
    OfBestRival(f64),
    /// Maximum bytes per connection; a tenth more after it has echoed.
    Memory(f64),
    /// Maximum per message.
    SystemCalls(f64),
}

const fn goal(workload: &'static str, bound: Bound) -> Goal {
    Goal {
        workload,
        bound,
        server: None,
    }
}

/// A goal of the program `sockeye echo`.
const fn echo_goal(workload: &'static str, bound: Bound) -> Goal {
    Goal {
        server: Some("sockeye-echo"),
        ..goal(workload, bound)
    }
}

const GOALS: &[Goal] = &[
    goal("20b-1", Bound::Of("raw-epoll", 0.95)),
    goal("20b-1", Bound::OfBestRival(1.0)),
    goal("20b-1", Bound::SystemCalls(2.05)),
    goal("1k-1", Bound::Of("raw-epoll", 0.95)),
    goal("1k-1", Bound::OfBestRival(1.0)),
    goal("1k-1", Bound::SystemCalls(2.05)),
    goal("16k-1", Bound::Of("raw-epoll", 0.90)),
    goal("16k-1", Bound::OfBestRival(1.0)),
    goal("16k-1", Bound::SystemCalls(2.05)),
    goal("20b-16", Bound::Of("raw-epoll", 0.90)),
    goal("20b-16", Bound::OfBestRival(1.0)),
    goal("1k-text-16", Bound::Of("raw-epoll", 0.80)),
    goal("1k-text-16", Bound::OfBestRival(1.0)),
    goal("1k-64", Bound::Of("raw-epoll", 0.75)),
    goal("1k-64", Bound::OfBestRival(1.3)),
    goal("1k-64", Bound::SystemCalls(0.035)),
    goal("20b-256", Bound::Of("raw-epoll", 0.70)),
    goal("20b-256", Bound::OfBestRival(1.3)),
    echo_goal("20b-256", Bound::Of("sockeye", 0.95)),
    goal("1m-1", Bound::Of("raw-epoll", 0.50)),
    goal("1m-1", Bound::OfBestRival(1.1)),
    goal("16m-1", Bound::Of("raw-epoll", 0.65)),
    goal("16m-1", Bound::OfBestRival(1.0)),
    goal("tls-1k-1", Bound::Of("raw-tokio-rustls", 0.95)),
    goal("tls-1k-16", Bound::Of("raw-tokio-rustls", 0.95)),
    goal("deflate-1k-1", Bound::OfBestRival(1.25)),
    goal("fanout-1", Bound::Of("fanout-raw", 0.91)),
    goal("fanout-1", Bound::Of("fanout-tungstenite", 1.9)),
    goal("fanout-16", Bound::Of("fanout-raw", 0.91)),
    goal("fanout-16", Bound::Of("fanout-tungstenite", 12.0)),
    goal("threads-20b-1", Bound::Of("blocking-tungstenite", 1.2)),
    goal("idle", Bound::Memory(1.2 * 1024.0)),
    echo_goal("idle", Bound::Memory(1.2 * 1024.0)),
    goal("idle-tls", Bound::OfBestRival(1.0)),
    goal("idle-deflate", Bound::OfBestRival(1.0)),
];

/// The measured value of a goal.
struct Outcome {
    value: f64,
    /// Minimum and maximum over the rounds; for memory, the values before and after an echo.
    range: Option<(f64, f64)>,
    is_reached: bool,
}

/// The goals of a workload with their outcomes. An outcome is `None` if Sockeye failed or there is nothing to compare
/// with.
///
/// With `instead`, the outcomes of that server.
fn outcomes(results: &Results, instead: Option<&str>) -> Vec<(&'static Goal, Option<Outcome>)> {
    let goals = GOALS.iter().filter(|goal| goal.workload == results.workload);
    let outcome = |goal: &Goal| {
        let server = instead.or(goal.server).unwrap_or(sockeye(results));
        let row = results.row(server).filter(|row| row.failure().is_none())?;
        goal.bound.judge(results, row)
    };
    goals.map(|goal| (goal, outcome(goal))).collect()
}

/// Name of the Sockeye server in a workload.
fn sockeye(results: &Results) -> &str {
    let row = results.rows.iter().find(|row| is_sockeye(&row.server));
    row.map_or("", |row| &row.server)
}

impl Goal {
    fn title(&self) -> String {
        match self.server {
            Some(server) => format!("{} by `{server}`", self.bound.title()),
            None => self.bound.title(),
        }
    }
}

impl Bound {
    fn judge(self, results: &Results, row: &Row) -> Option<Outcome> {
        match self {
            Self::Of(other, min) => Self::compare(results, row, results.row(other)?, min),
            Self::OfBestRival(min) => {
                let rivals = results
                    .rows
                    .iter()
                    .filter(|other| !other.is_baseline && !is_sockeye(&other.server));
                let outcomes = rivals.filter_map(|rival| Self::compare(results, row, rival, min));
                outcomes.min_by(|one, other| one.value.total_cmp(&other.value))
            }
            Self::Memory(max) => {
                let (open, after) = row.median("/open").zip(row.median("/after"))?;
                Some(Outcome {
                    value: open,
                    range: Some((open, after)),
                    is_reached: open <= max && after <= 1.1 * open,
                })
            }
            Self::SystemCalls(max) => row.syscalls.map(|calls| Outcome {
                value: calls,
                range: None,
                is_reached: calls <= max,
            }),
        }
    }

    fn compare(results: &Results, row: &Row, other: &Row, min: f64) -> Option<Outcome> {
        let value = row.ratio(other, results.metric)?;
        let ratios = row.ratios(other, results.metric);
        let least = ratios.iter().copied().min_by(f64::total_cmp);
        let most = ratios.iter().copied().max_by(f64::total_cmp);
        Some(Outcome {
            value,
            range: least.zip(most),
            is_reached: value >= min,
        })
    }

    fn title(self) -> String {
        match self {
            Self::Of(other, _) => format!("of `{other}`"),
            Self::OfBestRival(_) => "of the best other crate".into(),
            Self::Memory(_) => "bytes per connection, at most a tenth more after an echo".into(),
            Self::SystemCalls(_) => "system calls per message".into(),
        }
    }

    fn format(self, value: f64) -> String {
        match self {
            Self::Of(..) | Self::OfBestRival(_) => format!("{value:.2}"),
            Self::Memory(_) => figure(value),
            Self::SystemCalls(_) => format!("{value:.3}"),
        }
    }

    fn limit(self) -> String {
        match self {
            Self::Of(_, min) | Self::OfBestRival(min) => format!("≥ {}", self.format(min)),
            Self::Memory(max) | Self::SystemCalls(max) => format!("≤ {}", self.format(max)),
        }
    }

    fn describe(self, outcome: &Outcome) -> String {
        let value = self.format(outcome.value);
        match outcome.range {
            Some((open, after)) if matches!(self, Self::Memory(_)) => {
                format!("{} / {}", self.format(open), self.format(after))
            }
            Some((least, most)) => format!("{value} ({} to {})", self.format(least), self.format(most)),
            None => value,
        }
    }
}

/// The measured value as text, and the verdict.
fn verdict(bound: Bound, outcome: Option<&Outcome>) -> (String, &'static str) {
    match outcome {
        Some(outcome) if outcome.is_reached => (bound.describe(outcome), "reached"),
        Some(outcome) => (bound.describe(outcome), "missed"),
        None => ("–".into(), "not measured or failed"),
    }
}

/// All goals as a table, beside the values of the first of `bare` that was measured; then the number of goals reached.
pub(super) fn table(all: &[Results], bare: &[&str]) -> String {
    let names: Vec<_> = bare.iter().map(|name| format!("`{name}`")).collect();
    let (mut reached, mut count) = (0, 0);
    let mut text = format!(
        "| workload | measure | goal | Sockeye | | {} |\n|---|---|---:|---:|---|---:|\n",
        names.join(" or ")
    );
    for results in all {
        let bare = bare.iter().find(|name| results.row(name).is_some());
        let beside = outcomes(results, Some(bare.unwrap_or(&"")));
        for ((goal, outcome), (_, beside)) in outcomes(results, None).into_iter().zip(beside) {
            let bound = goal.bound;
            let (value, verdict) = verdict(bound, outcome.as_ref());
            count += 1;
            reached += usize::from(outcome.is_some_and(|outcome| outcome.is_reached));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {value} | {verdict} | {} |",
                short(&results.title),
                goal.title(),
                bound.limit(),
                beside.map_or_else(|| "–".into(), |beside| bound.format(beside.value)),
            );
        }
    }
    let _ = writeln!(text, "\n{reached} of {count} goals are reached.");
    text
}

/// The goals of one workload, for the terminal.
pub(super) fn lines(results: &Results) -> String {
    let line = |(goal, outcome): (&Goal, Option<Outcome>)| {
        let (value, verdict) = verdict(goal.bound, outcome.as_ref());
        format!("    goal {} {}: {value}, {verdict}\n", goal.bound.limit(), goal.title())
    };
    outcomes(results, None).into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{Bound, GOALS};
    use crate::bench::{servers::SERVERS, workload::WORKLOADS};

    #[test]
    fn goals_name_existing_workloads_and_servers() {
        for goal in GOALS {
            let is_of = WORKLOADS.iter().any(|workload| workload.name == goal.workload);
            assert!(is_of, "{}", goal.workload);
            let other = match goal.bound {
                Bound::Of(other, _) => Some(other),
                _ => None,
            };
            for name in goal.server.into_iter().chain(other) {
                assert!(SERVERS.iter().any(|server| server.name == name), "{name}");
            }
        }
    }
}
