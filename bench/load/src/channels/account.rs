//! Processor time of a period: of the nodes, of the engine that they share, of this generator, and of all other
//! programs.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::ChannelsPlan;
use crate::account::{Used, of_process, of_this_thread};

/// How the processors were used in a period.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Shares {
    /// Share of one processor that the nodes used together.
    pub(super) server: f64,
    /// Share of the time in which the server could run and another process did. Only of a single process: several nodes
    /// on one processor wait for each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_waited: Option<f64>,
    /// Share of one processor that the engine used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) engine: Option<f64>,
    /// Number of processors that other programs used.
    pub(super) others: f64,
    /// Share of one processor that this generator used.
    pub(super) generator: f64,
    /// Share of the time in which this generator could run and another process did.
    pub(super) generator_waited: f64,
}

/// The processor time of a period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period {
    pub(super) took: Duration,
    /// Of the nodes together.
    pub(super) nodes: Duration,
    pub(super) engine: Option<Duration>,
    pub(super) shares: Shares,
}

/// Measures the processor time of a period.
#[derive(Debug)]
pub(super) struct Account {
    pids: Vec<u32>,
    engine_pid: Option<u32>,
    began_at: Instant,
    before: Reading,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    nodes: Used,
    engine: Option<Used>,
    generator: Used,
    /// Of all programs on all processors.
    all: Duration,
}

impl Account {
    /// Starts a period for all nodes.
    pub(super) fn open(plan: &ChannelsPlan) -> Result<Self> {
        Self::of(plan.nodes.iter().map(|node| node.pid).collect(), plan.engine_pid)
    }

    /// Starts a period for these nodes.
    pub(super) fn of(pids: Vec<u32>, engine_pid: Option<u32>) -> Result<Self> {
        Ok(Self {
            before: Reading::take(&pids, engine_pid)?,
            began_at: Instant::now(),
            pids,
            engine_pid,
        })
    }

    pub(super) fn close(&self) -> Result<Period> {
        let took = self.began_at.elapsed();
        let (after, before) = (Reading::take(&self.pids, self.engine_pid)?, self.before);
        let (nodes, generator) = (after.nodes - before.nodes, after.generator - before.generator);
        let engine = after.engine.zip(before.engine).map(|(after, before)| after - before);
        let own = nodes.cpu + generator.cpu + engine.unwrap_or_default().cpu;
        let others = after.all.saturating_sub(before.all).saturating_sub(own);
        let share = |time: Duration| time.as_secs_f64() / took.as_secs_f64();
        Ok(Period {
            took,
            nodes: nodes.cpu,
            engine: engine.map(|engine| engine.cpu),
            shares: Shares {
                server: share(nodes.cpu),
                server_waited: (self.pids.len() == 1 && engine.is_none()).then(|| share(nodes.waited)),
                engine: engine.map(|engine| share(engine.cpu)),
                others: share(others),
                generator: share(generator.cpu),
                generator_waited: share(generator.waited),
            },
        })
    }
}

impl Period {
    /// Processor time of the nodes per item, in nanoseconds.
    pub(super) fn nodes_ns(&self, items: u64) -> f64 {
        self.nodes.as_nanos() as f64 / items as f64
    }

    /// Processor time of the engine per item, in nanoseconds.
    pub(super) fn engine_ns(&self, items: u64) -> Option<f64> {
        self.engine.map(|engine| engine.as_nanos() as f64 / items as f64)
    }
}

impl Reading {
    fn take(pids: &[u32], engine_pid: Option<u32>) -> Result<Self> {
        let mut nodes = Used::default();
        for pid in pids {
            nodes = nodes + of_process(*pid)?;
        }
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Ok(Self {
            nodes,
            engine: engine_pid.map(of_process).transpose()?,
            generator: of_this_thread()?,
            all: busy(&stat).context("/proc/stat has no numbers")?,
        })
    }
}

/// The time that all processors were not idle, from the first line of /proc/stat, in hundredths of a second on every
/// Linux: user, nice, system, idle, iowait, irq, softirq and steal. Guests are contained in user.
fn busy(stat: &str) -> Option<Duration> {
    let numbers: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = numbers[..] else {
        return None;
    };
    Some(Duration::from_millis(
        10 * (user + nice + system + irq + softirq + steal),
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Account, busy};

    #[test]
    fn the_time_of_all_programs_is_read() {
        let stat = "cpu  10 1 5 1000 50 2 3 4 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy(stat), Some(Duration::from_millis(250)));
        assert_eq!(busy("cpu  1 2 3\n"), None);
        assert_eq!(busy("intr 1\n"), None);
    }

    #[test]
    fn a_single_process_knows_how_long_it_waited() {
        let own = std::process::id();
        let alone = Account::of(vec![own], None)
            .expect("this runs")
            .close()
            .expect("this runs");
        assert!(alone.shares.server_waited.is_some() && alone.shares.engine.is_none());
        assert!(alone.engine_ns(1).is_none());
        let both = Account::of(vec![own], Some(own))
            .expect("this runs")
            .close()
            .expect("this runs");
        assert!(both.shares.server_waited.is_none() && both.shares.engine.is_some());
    }
}
