//! Samples of the server's statistics, one per second while somebody is signed in, for the plots of the console.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::metrics::{Process, Totals};
use crate::node::Node;

/// Time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Number of samples that are kept: ten minutes.
const SAMPLES_MAX: usize = 600;

/// The names of the columns of a sample. The first eight are values, the others are counted since the start.
const FIELDS: [&str; 16] = [
    "time",
    "clients",
    "users",
    "connections",
    "channels",
    "subscriptions",
    "memory",
    "history",
    "cpu",
    "publications",
    "deliveries",
    "dropped",
    "commands",
    "errors",
    "disconnects",
    "refusals",
];

type Sample = [f64; FIELDS.len()];

/// The newest samples.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// Number of the first of `samples`.
    first: u64,
    samples: VecDeque<Sample>,
    /// Whether a task adds samples.
    pub(super) is_running: bool,
}

/// A part of the samples.
#[derive(Debug, Serialize)]
pub(super) struct Page<'a> {
    fields: [&'static str; FIELDS.len()],
    /// Number of the first sample.
    first: u64,
    samples: Vec<&'a Sample>,
}

impl Samples {
    pub(super) fn add(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
            self.first += 1;
        }
        self.samples.push_back(sample);
    }

    /// The samples from a number on.
    pub(super) fn since(&self, number: u64) -> Page<'_> {
        let end = self.first + self.samples.len() as u64;
        // A number beyond the end is that of an earlier run of the server.
        let number = if number > end { 0 } else { number };
        let first = number.max(self.first);
        let skipped = usize::try_from(first - self.first).unwrap_or(usize::MAX);
        Page {
            fields: FIELDS,
            first,
            samples: self.samples.iter().skip(skipped).collect(),
        }
    }
}

/// Takes a sample.
pub(super) fn take(node: &Node) -> Sample {
    let time = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let clients = node.clients().stats();
    let hub = node.hub().stats();
    let process = Process::read();
    let engine = node.engine().stats();
    let Totals {
        publications,
        commands,
        errors,
        disconnects,
        refusals,
    } = node.metrics().totals();
    [
        time.as_secs_f64(),
        clients.clients as f64,
        clients.users as f64,
        node.connection_limiter().connections() as f64,
        hub.channels as f64,
        hub.subscriptions as f64,
        process.resident_bytes as f64,
        engine.history_bytes as f64,
        process.cpu_seconds,
        publications as f64,
        hub.deliveries as f64,
        hub.dropped.total() as f64,
        commands as f64,
        errors as f64,
        disconnects as f64,
        refusals as f64,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(page: &Page<'_>) -> Vec<u64> {
        page.samples.iter().map(|sample| sample[0] as u64).collect()
    }

    #[test]
    fn the_newest_samples_are_kept_and_read_from_a_number_on() {
        let mut samples = Samples::default();
        assert_eq!(numbers(&samples.since(0)), [0; 0]);
        for number in 0..SAMPLES_MAX + 5 {
            let mut sample = Sample::default();
            sample[0] = number as f64;
            samples.add(sample);
        }
        let all = samples.since(0);
        assert_eq!((all.first, all.samples.len()), (5, SAMPLES_MAX));
        assert_eq!(numbers(&samples.since(603)), [603, 604]);
        assert_eq!(numbers(&samples.since(605)), [0; 0]);
        // After a restart, the page asks for a number that does not exist yet.
        assert_eq!(samples.since(10_000).first, 5);
    }

    #[test]
    fn a_sample_has_the_figures_of_the_node() {
        let node = Node::new(crate::Config::default());
        let sample = take(&node);
        let of = |name: &str| sample[FIELDS.iter().position(|field| *field == name).unwrap()];
        assert!(of("time") > 1.7e9);
        assert_eq!((of("clients"), of("channels")), (0.0, 0.0));
        #[cfg(target_os = "linux")]
        assert!(of("memory") > 1e6);
    }
}
