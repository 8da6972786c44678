//! The results of a workload, as stored between measuring and rendering, and whether the goals are reached.

use std::{collections::BTreeMap, fmt::Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    super::{machine::Machine, results::median},
    servers::Kind,
    workload::{Bound, Figure, Goal, Workload},
};

/// The results of one workload for all servers.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Results {
    pub(super) workload: String,
    pub(super) commit: String,
    pub(super) machine: Machine,
    pub(super) date: String,
    pub(super) rounds: Vec<Round>,
}

/// One measurement of one server: a report, or the reason why there is none.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Round {
    pub(super) round: u16,
    pub(super) server: String,
    pub(super) report: Option<Value>,
    pub(super) failure: Option<String>,
    /// The load average of the minute before; older results have none.
    pub(super) load_average: Option<f64>,
}

/// A median with the smallest and the largest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// The measured value of a goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) value: Spread,
    pub(super) is_reached: bool,
    /// Whether it is reached in the round that other programs disturbed least.
    is_reached_when_quiet: bool,
}

impl Outcome {
    pub(super) fn verdict(&self) -> &'static str {
        match (self.is_reached, self.is_reached_when_quiet) {
            (true, true) => "reached",
            (true, false) => "reached; missed in the quietest round",
            (false, true) => "missed; reached in the quietest round",
            (false, false) => "missed",
        }
    }
}

impl Spread {
    pub(super) fn of(values: Vec<f64>) -> Option<Self> {
        Some(Self {
            min: values.iter().copied().reduce(f64::min)?,
            max: values.iter().copied().reduce(f64::max)?,
            median: median(values)?,
        })
    }

    pub(super) fn show(self, unit: f64, decimals: usize) -> String {
        let show = |value: f64| format!("{:.decimals$}", value / unit);
        match (show(self.min), show(self.median), show(self.max)) {
            (min, median, max) if min == max => median,
            (min, median, max) => format!("{median} ({min} to {max})"),
        }
    }
}

impl Round {
    fn number(&self, pointer: &str) -> Option<f64> {
        self.report.as_ref()?.pointer(pointer)?.as_f64()
    }

    /// Whether other programs kept the server or the load generator from its processor for more than a twentieth of the
    /// time, or, as several nodes wait for each other, used more than a tenth of a processor.
    fn is_disturbed(&self) -> bool {
        let is_alone = self.number("/shares/server_waited").is_some();
        if !is_alone && self.number("/shares/others").is_some_and(|others| others > 0.1) {
            return true;
        }
        self.waited().any(|share| share > 0.05)
    }

    /// The shares of the time in which the server and the load generator waited for their processors.
    fn waited(&self) -> impl Iterator<Item = f64> {
        let shares = ["/shares/server_waited", "/shares/generator_waited"];
        shares.into_iter().filter_map(|pointer| self.number(pointer))
    }

    /// The figures of one measurement, for the terminal.
    pub(super) fn line(&self, workload: &Workload) -> String {
        if let Some(failure) = &self.failure {
            return format!("{:20} FAILED: {failure}", self.server);
        }
        let mut line = format!("{:20}", self.server);
        for figure in workload.figures {
            if let Some(value) = self.number(figure.pointer) {
                let decimals = figure.decimals;
                let _ = write!(line, " {}: {:.decimals$};", figure.title, value / figure.unit);
            }
        }
        if self.is_disturbed() {
            line.push_str(" (disturbed)");
        }
        line
    }
}

impl Results {
    /// The values of a figure of one server.
    pub(super) fn spread(&self, server: Kind, pointer: &str) -> Option<Spread> {
        let rounds = self.rounds.iter().filter(|round| round.server == server.name());
        Spread::of(rounds.filter_map(|round| round.number(pointer)).collect())
    }

    /// Why a measurement of a server failed, if one did.
    pub(super) fn failure(&self, server: Kind) -> Option<&str> {
        let mut rounds = self.rounds.iter().filter(|round| round.server == server.name());
        rounds.find_map(|round| round.failure.as_deref())
    }

    pub(super) fn disturbed(&self) -> usize {
        self.rounds.iter().filter(|round| round.is_disturbed()).count()
    }

    /// The number of a server in a round.
    fn number(&self, round: u16, server: Kind, pointer: &str) -> Option<f64> {
        let mut rounds = self.rounds.iter();
        let found = rounds.find(|found| found.round == round && found.server == server.name());
        found?.number(pointer)
    }

    /// The rounds, the one that other programs disturbed least first.
    fn rounds_by_quiet(&self) -> Vec<u16> {
        let mut waited = BTreeMap::<u16, f64>::new();
        for round in &self.rounds {
            *waited.entry(round.round).or_default() += round.waited().sum::<f64>();
        }
        let mut rounds: Vec<_> = waited.into_iter().collect();
        rounds.sort_by(|a, b| a.1.total_cmp(&b.1));
        rounds.into_iter().map(|(round, _)| round).collect()
    }

    /// The value of a goal; `None` if a server failed in every round.
    pub(super) fn outcome(&self, workload: &Workload, goal: &Goal) -> Option<Outcome> {
        let subject = workload.servers[0];
        let rival = workload.servers.iter().copied().find(|server| server.is_centrifugo());
        let number = |round, server| self.number(round, server, goal.pointer);
        let ratio = |round, server, other| Some(number(round, server)? / number(round, other)?);
        let in_round = |round| match goal.bound {
            Bound::Max(_) => number(round, subject),
            Bound::OfCentrifugoMax(_) | Bound::OfCentrifugoMin(_) => ratio(round, subject, rival?),
            Bound::WithLogMin(_) => ratio(round, Kind::SockeyeLog, Kind::Sockeye),
        };
        let is_reached = |value: f64| match goal.bound {
            Bound::Max(max) | Bound::OfCentrifugoMax(max) => value <= max,
            Bound::OfCentrifugoMin(min) | Bound::WithLogMin(min) => value >= min,
        };
        // Medians of ratios within rounds, which a machine that slows down does not change.
        let values: Vec<_> = self.rounds_by_quiet().into_iter().filter_map(in_round).collect();
        let quietest = *values.first()?;
        let value = Spread::of(values)?;
        let is_complete = self.failure(subject).is_none();
        Some(Outcome {
            value,
            is_reached: is_reached(value.median) && is_complete,
            is_reached_when_quiet: is_reached(quietest) && is_complete,
        })
    }

    /// The goals with their outcomes, for the terminal.
    pub(super) fn summary(&self, workload: &Workload) -> String {
        let mut text = String::new();
        for goal in workload.goals {
            let _ = match self.outcome(workload, goal) {
                Some(outcome) => writeln!(
                    text,
                    "    goal {}: {} {}",
                    goal.text,
                    show(goal, &outcome),
                    outcome.verdict()
                ),
                None => writeln!(text, "    goal {}: not measured", goal.text),
            };
        }
        text
    }
}

/// The value of an outcome: in the unit of the figure, or a ratio.
pub(super) fn show(goal: &Goal, outcome: &Outcome) -> String {
    match goal.bound {
        Bound::Max(max) if max >= 1024.0 => format!("{} KiB", outcome.value.show(1024.0, 2)),
        Bound::Max(_) => outcome.value.show(1.0, 0),
        _ => outcome.value.show(1.0, 2),
    }
}

/// The values of a figure of one server, for display.
pub(super) fn cell(results: &Results, server: Kind, figure: &Figure) -> String {
    match (results.failure(server), results.spread(server, figure.pointer)) {
        (Some(_), _) => "failed".into(),
        (None, Some(spread)) => spread.show(figure.unit, figure.decimals),
        (None, None) => "–".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::workload::WORKLOADS, Bound, Goal, Kind, Results, Round, Spread};
    use crate::bench::machine;

    fn results(values: &[(u16, Kind, f64)]) -> Results {
        let rounds = values.iter().map(|(round, server, value)| Round {
            round: *round,
            server: server.name().into(),
            report: Some(json!({ "value": value, "shares": { "server_waited": 0.06 } })),
            failure: None,
            load_average: None,
        });
        Results {
            workload: "idle".into(),
            commit: "abc".into(),
            machine: machine::describe(),
            date: "2026-11-30".into(),
            rounds: rounds.collect(),
        }
    }

    #[test]
    fn goals_compare_within_rounds_and_can_be_missed() {
        // Half in each round, although the machine was ten times slower in the last.
        let results = results(&[
            (0, Kind::Sockeye, 1.0),
            (0, Kind::Centrifugo, 2.0),
            (1, Kind::Centrifugo, 20.0),
            (1, Kind::Sockeye, 10.0),
        ]);
        let outcome = |bound| {
            let goal = Goal {
                text: "",
                pointer: "/value",
                bound,
            };
            results.outcome(&WORKLOADS[0], &goal)
        };
        let reached = |bound| outcome(bound).expect("it was measured").is_reached;
        assert!(reached(Bound::OfCentrifugoMax(0.5)));
        assert!(!reached(Bound::OfCentrifugoMax(0.49)));
        assert!(reached(Bound::OfCentrifugoMin(0.5)));
        assert!(!reached(Bound::OfCentrifugoMin(0.51)));
        assert!(reached(Bound::Max(5.5)));
        assert!(!reached(Bound::Max(5.4)));
        assert!(outcome(Bound::WithLogMin(0.7)).is_none());
        assert_eq!(results.disturbed(), 4);
    }

    #[test]
    fn the_quietest_round_is_judged_too() {
        let mut results = results(&[
            (0, Kind::Sockeye, 1.0),
            (1, Kind::Sockeye, 1.0),
            (2, Kind::Sockeye, 9.0),
        ]);
        let goal = Goal {
            text: "",
            pointer: "/value",
            bound: Bound::Max(5.0),
        };
        let verdict = |results: &Results| {
            results
                .outcome(&WORKLOADS[0], &goal)
                .expect("it was measured")
                .verdict()
        };
        assert_eq!(verdict(&results), "reached");
        results.rounds[2].report = Some(json!({ "value": 9.0, "shares": { "server_waited": 0.01 } }));
        assert_eq!(verdict(&results), "reached; missed in the quietest round");
    }

    #[test]
    fn a_failure_is_no_success() {
        let mut results = results(&[(0, Kind::Sockeye, 1.0), (1, Kind::Sockeye, 1.0)]);
        let goal = Goal {
            text: "",
            pointer: "/value",
            bound: Bound::Max(5.0),
        };
        assert!(
            results
                .outcome(&WORKLOADS[0], &goal)
                .expect("it was measured")
                .is_reached
        );
        results.rounds[0].report = None;
        results.rounds[0].failure = Some("it ended".into());
        assert!(
            !results
                .outcome(&WORKLOADS[0], &goal)
                .expect("it was measured")
                .is_reached
        );
    }

    #[test]
    fn spreads_are_shown_with_their_range() {
        let spread = Spread::of(vec![2048.0, 1024.0, 4096.0]).expect("there are values");
        assert_eq!(spread.show(1024.0, 1), "2.0 (1.0 to 4.0)");
        assert_eq!(spread.show(1e9, 1), "0.0");
        assert_eq!(Spread::of(vec![]), None);
    }
}
