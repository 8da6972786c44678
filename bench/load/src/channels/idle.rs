//! Idle clients: memory, and the processor time of pings.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::{
    Account, ChannelsPlan, Shares,
    client::Line,
    command::{self, SUBSCRIBE},
    crowd::Crowd,
};
use crate::account::{self, Memory};

/// How long the server settles after the last client is there.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub(super) struct Report {
    clients: usize,
    channels: usize,
    /// Bytes of anonymous memory per client, a second after the last one subscribed.
    open: f64,
    /// The same at the end of the idle time.
    after: f64,
    /// The same as `after`, for all resident pages.
    after_resident: f64,
    /// Processor time of the server to open one client, in nanoseconds.
    open_cpu_ns: f64,
    /// Processor time of the server per idle client and second, in nanoseconds.
    idle_cpu_ns: f64,
    /// Pings during the idle time.
    pings: u64,
    seconds: f64,
    shares: Shares,
}

pub(super) fn run(plan: &ChannelsPlan) -> Result<Report> {
    let mut crowd = Crowd::new(plan)?;
    let count = plan.clients;
    // The first client makes the server allocate what all clients share. It has the last index and a channel of its
    // own.
    open(&mut crowd, plan, count..count + 1)?;
    crowd.run_until(Instant::now() + SETTLE, |_, _, _| Ok(()))?;
    let pid = plan.nodes[0].pid;
    let before = account::memory(pid)?;

    let opening = Account::open(plan)?;
    open(&mut crowd, plan, 0..count)?;
    let opening = opening.close()?;
    crowd.run_until(Instant::now() + SETTLE, |_, _, _| Ok(()))?;
    let open = account::memory(pid)?;

    let account = Account::open(plan)?;
    let mut pings = 0;
    crowd.run_until(Instant::now() + plan.duration, |_, _, line| {
        pings += u64::from(line == Line::Ping);
        Ok(())
    })?;
    let period = account.close()?;
    let after = account::memory(pid)?;

    let each = |now: Memory, of: fn(Memory) -> u64| (of(now) as f64 - of(before) as f64) / count as f64;
    Ok(Report {
        clients: count,
        channels: plan.channels,
        open: each(open, |memory| memory.anonymous),
        after: each(after, |memory| memory.anonymous),
        after_resident: each(after, |memory| memory.resident),
        open_cpu_ns: opening.nodes_ns(count as u64),
        idle_cpu_ns: period.nodes_ns(count as u64) / period.took.as_secs_f64(),
        pings,
        seconds: period.took.as_secs_f64(),
        shares: period.shares,
    })
}

/// Opens clients with one subscription each.
fn open(crowd: &mut Crowd, plan: &ChannelsPlan, wanted: std::ops::Range<usize>) -> Result<()> {
    crowd.open(wanted, |idx, client, line| match line {
        Line::Open => {
            let channel = match idx < plan.clients {
                true => plan.channel(plan.channel_of(idx)),
                false => "warm-up".into(),
            };
            client.send(&command::connect_and_subscribe([(channel, None)].into_iter()))?;
            Ok(false)
        }
        Line::Reply(reply) => {
            command::check(reply)?;
            Ok(command::id(reply) == Some(SUBSCRIBE))
        }
        Line::Push(_) | Line::Ping => Ok(false),
    })
}
