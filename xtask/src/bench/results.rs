//! The results of a workload, as stored between measuring and rendering.

use std::{collections::BTreeSet, fmt::Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    machine::Machine,
    workload::{Group, Metric},
};

/// The results of one workload for all servers.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Results {
    pub(super) workload: String,
    pub(super) title: String,
    pub(super) group: Group,
    pub(super) metric: Metric,
    pub(super) commit: String,
    pub(super) machine: Machine,
    pub(super) rows: Vec<Row>,
}

/// The results of one server.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Row {
    pub(super) server: String,
    pub(super) version: String,
    pub(super) is_baseline: bool,
    pub(super) rounds: Vec<Round>,
    /// System calls of the server per message, if they were counted.
    pub(super) syscalls: Option<f64>,
}

/// One measurement: a report, or the reason why there is none.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Round {
    pub(super) round: u16,
    /// The requested rate of an open loop.
    pub(super) rate: Option<u32>,
    pub(super) report: Option<Value>,
    pub(super) failure: Option<String>,
}

impl Results {
    pub(super) fn row(&self, server: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.server == server)
    }

    /// The rows that the others are compared with.
    pub(super) fn baselines(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.is_baseline)
    }

    pub(super) fn rounds(&self) -> usize {
        let all = self.rows.iter().flat_map(|row| &row.rounds);
        all.map(|round| usize::from(round.round) + 1).max().unwrap_or(0)
    }

    /// The rates of an open loop, in ascending order.
    pub(super) fn rates(&self) -> Vec<u32> {
        let all = self.rows.iter().flat_map(|row| &row.rounds);
        let rates: BTreeSet<_> = all.filter_map(|round| round.rate).collect();
        rates.into_iter().collect()
    }
}

impl Row {
    /// The median of a number in the reports at one rate; `None` if a round at that rate failed.
    pub(super) fn median_at(&self, rate: u32, pointer: &str) -> Option<f64> {
        let rounds = self.rounds.iter().filter(|round| round.rate == Some(rate));
        median(rounds.map(|round| round.number(pointer)).collect::<Option<_>>()?)
    }

    /// The median of a number in the reports.
    pub(super) fn median(&self, pointer: &str) -> Option<f64> {
        median(self.rounds.iter().filter_map(|round| round.number(pointer)).collect())
    }

    /// Whether the load generator was late in most measurements at one rate, so that they do not show the server's
    /// latency.
    pub(super) fn is_late_at(&self, rate: u32) -> bool {
        let rounds = || self.rounds.iter().filter(|round| round.rate == Some(rate));
        let late = rounds().filter(|round| round.verdict() == Some("late")).count();
        late * 2 > rounds().count()
    }

    /// How many times better the row is than another: the median of the ratios within rounds.
    pub(super) fn ratio(&self, base: &Self, metric: Metric) -> Option<f64> {
        median(self.ratios(base, metric))
    }

    /// How many times better the row is than another, in each round.
    pub(super) fn ratios(&self, base: &Self, metric: Metric) -> Vec<f64> {
        let within = |round: &Round| {
            let other = base
                .rounds
                .iter()
                .find(|other| (other.round, other.rate) == (round.round, round.rate))?;
            Some(metric.ratio(round.number(metric.pointer())?, other.number(metric.pointer())?))
        };
        self.rounds.iter().filter_map(within).collect()
    }

    /// Why a measurement failed, if one did.
    pub(super) fn failure(&self) -> Option<&str> {
        self.rounds.iter().find_map(|round| round.failure.as_deref())
    }

    /// Number of measurements that other programs disturbed: the server or the load generator waited for its processor
    /// for more than a twentieth of the time.
    pub(super) fn disturbed(&self) -> usize {
        let is_it = |round: &&Round| {
            let waited = ["/server/cpu/waited", "/generator/cpu/waited"].map(|pointer| round.number(pointer));
            waited.into_iter().flatten().any(|share| share > 0.05)
        };
        self.rounds.iter().filter(is_it).count()
    }

    /// Number of measurements with this verdict of the load generator.
    pub(super) fn verdicts(&self, verdict: &str) -> usize {
        let is_it = |round: &&Round| round.verdict() == Some(verdict);
        self.rounds.iter().filter(is_it).count()
    }
}

impl Round {
    /// What limited the measurement, according to the load generator.
    fn verdict(&self) -> Option<&str> {
        self.report.as_ref()?["verdict"].as_str()
    }

    /// A number of the report, by its JSON pointer.
    pub(super) fn number(&self, pointer: &str) -> Option<f64> {
        self.report.as_ref()?.pointer(pointer)?.as_f64()
    }
}

/// The median: the middle value, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// The results of a group with certain metrics.
pub(super) fn select(all: &[Results], group: Group, is_wanted: impl Fn(Metric) -> bool) -> Vec<&Results> {
    all.iter()
        .filter(|results| results.group == group && is_wanted(results.metric))
        .collect()
}

/// Shortens a title: `20 B, 16 in flight, 100 connections` becomes `20 B ×16, 100 conns`.
pub(super) fn short(title: &str) -> String {
    let mut text = String::new();
    for part in title.split(", ") {
        match part.strip_suffix(" in flight") {
            Some(count) => {
                let _ = write!(text, " ×{count}");
            }
            None if text.is_empty() => text.push_str(part),
            None => {
                let _ = write!(text, ", {}", part.replace(" connections", " conns"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Round, Row, median};
    use crate::bench::workload::Metric;

    fn row(cpu_ns: &[f64]) -> Row {
        let round = |(idx, cpu_ns): (usize, &f64)| Round {
            round: idx as u16,
            rate: None,
            report: Some(json!({ "server": { "cpu_ns": cpu_ns } })),
            failure: None,
        };
        Row {
            server: "a".into(),
            version: String::new(),
            is_baseline: false,
            rounds: cpu_ns.iter().enumerate().map(round).collect(),
            syscalls: None,
        }
    }

    #[test]
    fn median_of_odd_and_even_counts() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn rate_is_late_if_most_of_its_rounds_are() {
        let mut row = row(&[1.0, 1.0, 1.0]);
        for (round, verdict) in row.rounds.iter_mut().zip(["late", "server", "late"]) {
            round.rate = Some(5);
            round.report = Some(json!({ "verdict": verdict }));
        }
        assert!(row.is_late_at(5));
        row.rounds[0].report = Some(json!({ "verdict": "server" }));
        assert!(!row.is_late_at(5));
    }

    #[test]
    fn disturbed_rounds_are_counted() {
        let mut row = row(&[1.0, 1.0]);
        assert_eq!(row.disturbed(), 0);
        row.rounds[1].report = Some(json!({ "generator": { "cpu": { "waited": 0.06 } } }));
        assert_eq!(row.disturbed(), 1);
    }

    #[test]
    fn ratios_compare_within_rounds() {
        // Twice as good in each round, although the machine was ten times slower in the last.
        let (ours, base) = (row(&[1.0, 2.0, 30.0]), row(&[2.0, 4.0, 60.0]));
        assert_eq!(ours.ratio(&base, Metric::Cpu), Some(2.0));
        assert_eq!(base.ratio(&ours, Metric::Cpu), Some(0.5));
    }
}
