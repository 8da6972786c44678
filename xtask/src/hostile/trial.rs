//! Runs one behaviour against one server.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    behaviour::{Behaviour, End},
    crowd::Crowd,
    neighbours::Neighbours,
    report::Row,
    target::{Target, Usage},
};

/// Interval between two measurements of the server.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum time for the crowd to get into position; then it is measured as it is.
const FILL_TIME_MAX: Duration = Duration::from_secs(10);

/// Number of consecutive measurements without growth that end the fill phase.
const STEADY_LOOKS: u32 = 5;

/// How long the server is observed with only the crowd connected.
const HELD_TIME: Duration = Duration::from_millis(500);

/// Number of window pairs in which neighbours are timed: first those of the idle control server, then those of the
/// attacked one.
const WINDOW_PAIRS: usize = 7;
const WINDOW: Duration = Duration::from_millis(100);

/// How long past its bound the server may take before the trial gives up.
const LATENESS_MAX: Duration = Duration::from_secs(8);

/// Runs `count` peers and measures.
pub(super) fn run(behaviour: &Behaviour, count: usize, binary: &Path, control: &Target) -> Result<Row> {
    let mut target = Target::start(binary, behaviour.arguments)?;
    let mut beside = Neighbours::connect(target.address)?;
    let mut apart = Neighbours::connect(control.address)?;
    // A warm-up, so that one-time allocations of the servers are not counted.
    beside.p99(WINDOW)?;
    apart.p99(WINDOW)?;
    let before = target.usage()?;

    let began_at = Instant::now();
    let crowd = Crowd::start(target.address, &behaviour.scripts, count)?;
    let mut watch = Watch {
        target: &target,
        peak: before,
    };
    fill(&mut watch, &crowd, count, began_at)?;
    let filled = watch.look()?;

    thread::sleep(HELD_TIME);
    let held = watch.look()?;
    let held_share = (held.cpu - filled.cpu).as_secs_f64() / HELD_TIME.as_secs_f64();

    let mut p99 = Vec::new();
    for _ in 0..WINDOW_PAIRS {
        p99.push((apart.p99(WINDOW)?, beside.p99(WINDOW)?));
        watch.look()?;
    }

    crowd.release();
    let mut since = began_at;
    let mut crowd = Some(crowd);
    let mut sent = Default::default();
    if behaviour.end == End::Peers
        && let Some(crowd) = crowd.take()
    {
        since = Instant::now();
        sent = crowd.end()?;
    }
    let mut exit = None;
    let (let_go, after) = if behaviour.end == End::Signal {
        let peak = watch.peak;
        let (status, took) = target.stop(behaviour.bounds.let_go + LATENESS_MAX)?;
        exit = Some(status);
        watch = Watch { target: &target, peak };
        (Some(took), None)
    } else {
        let let_go = watch.wait_until_rid(before.descriptors, since, behaviour.bounds.let_go + LATENESS_MAX)?;
        (let_go, Some(watch.look()?))
    };
    let peak = watch.peak;
    if let Some(crowd) = crowd {
        sent = crowd.end()?;
    }

    let per_connection = |bytes: u64| bytes.saturating_sub(before.memory) / count as u64;
    Ok(Row {
        name: behaviour.name,
        bounds: behaviour.bounds,
        skipped: None,
        memory: per_connection(peak.memory),
        memory_after: after.map(|after| per_connection(after.memory)),
        descriptors: peak.descriptors - before.descriptors,
        cpu: (filled.cpu - before.cpu) / count as u32,
        held_share,
        let_go,
        exit_ok: exit.is_none_or(|status| status.success()),
        sent_per_connection: sent.bytes / sent.connections.max(1),
        connections: sent.connections,
        p99_apart: median(p99.iter().map(|(apart, _)| *apart)),
        p99_beside: median(p99.iter().map(|(_, beside)| *beside)),
    })
}

/// Waits until all peers are in position and the server's memory stops growing.
fn fill(watch: &mut Watch<'_>, crowd: &Crowd, count: usize, began_at: Instant) -> Result<()> {
    let mut steady = 0;
    let mut last = watch.peak.memory;
    while steady < STEADY_LOOKS && began_at.elapsed() < FILL_TIME_MAX {
        thread::sleep(LOOK_INTERVAL);
        if crowd.has_failed() {
            bail!("the thread of the crowd stopped");
        }
        let memory = watch.look()?.memory;
        let has_grown = memory > last + last / 100;
        steady = if has_grown || crowd.settled() < count {
            0
        } else {
            steady + 1
        };
        last = last.max(memory);
    }
    Ok(())
}

/// Measures the server repeatedly and keeps the peak.
struct Watch<'a> {
    target: &'a Target,
    peak: Usage,
}

impl Watch<'_> {
    fn look(&mut self) -> Result<Usage> {
        let usage = self.target.usage()?;
        self.peak.memory = self.peak.memory.max(usage.memory);
        self.peak.descriptors = self.peak.descriptors.max(usage.descriptors);
        Ok(usage)
    }

    /// Waits until the server has at most this many descriptors open; `None` if that never happened.
    fn wait_until_rid(&mut self, descriptors: usize, since: Instant, within: Duration) -> Result<Option<Duration>> {
        while self.target.descriptors()? > descriptors {
            if since.elapsed() > within {
                return Ok(None);
            }
            self.look()?;
            thread::sleep(LOOK_INTERVAL / 4);
        }
        Ok(Some(since.elapsed()))
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}
