//! One channel with all clients: a publication is sent when all have received the one before it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    Account, ChannelsPlan, Percentiles, Shares,
    client::Line,
    command::{self, PUBLISH, SUBSCRIBE},
    crowd::Crowd,
};

/// Publications before the measurement.
const WARM_UP: u64 = 3;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    clients: usize,
    publications: u64,
    deliveries: u64,
    /// From sending a publication until a subscriber has read it.
    latency: Percentiles,
    /// From sending a publication until the last subscriber has read it, on average.
    complete_ns: f64,
    /// Processor time of the server per delivery, in nanoseconds.
    cpu_ns: f64,
    shares: Shares,
}

pub(super) fn run(plan: &ChannelsPlan) -> Result<Report> {
    let mut crowd = Crowd::new(plan)?;
    let (count, publisher) = (plan.clients, plan.clients);
    crowd.open(0..count + 1, |idx, client, line| match line {
        Line::Open => {
            let channel = (idx != publisher).then(|| (plan.channel(0), None));
            client.send(&command::connect_and_subscribe(channel.into_iter()))?;
            Ok(false)
        }
        Line::Reply(reply) => {
            command::check(reply)?;
            let last = if idx == publisher { SUBSCRIBE - 1 } else { SUBSCRIBE };
            Ok(command::id(reply) == Some(last))
        }
        Line::Push(_) | Line::Ping => Ok(false),
    })?;

    // The number of the last publication that each client has received.
    let mut seen = vec![0; count];
    let mut times = Histogram::<u64>::new(3)?;
    let mut account = Account::open(plan)?;
    let mut end = Instant::now() + plan.duration;
    let mut number = 0;
    let mut complete = Duration::ZERO;
    while number < WARM_UP || Instant::now() < end {
        if number == WARM_UP {
            times.clear();
            complete = Duration::ZERO;
            account = Account::open(plan)?;
            end = Instant::now() + plan.duration;
        }
        number += 1;
        let line = command::publish(PUBLISH, &plan.channel(0), number, plan.size);
        let sent_at = Instant::now();
        crowd.client(publisher)?.send(line.as_bytes())?;
        let (mut waiting, mut is_acknowledged) = (count, false);
        while waiting > 0 || !is_acknowledged {
            crowd.turn(Duration::from_millis(100), |idx, _, line| {
                match line {
                    Line::Reply(reply) => {
                        command::check(reply)?;
                        is_acknowledged = true;
                    }
                    Line::Push(push) => {
                        let found = command::number(push).context("a push without a publication")?;
                        ensure!(found == seen[idx] + 1, "publication {found} after {}", seen[idx]);
                        seen[idx] = found;
                        times.record(sent_at.elapsed().as_nanos() as u64)?;
                        waiting -= 1;
                    }
                    Line::Open | Line::Ping => {}
                }
                Ok(())
            })?;
            crowd.check_patience()?;
        }
        complete += sent_at.elapsed();
    }
    let period = account.close()?;
    let publications = number - WARM_UP;
    Ok(Report {
        clients: count,
        publications,
        deliveries: times.len(),
        latency: Percentiles::of(&times),
        complete_ns: complete.as_nanos() as f64 / publications as f64,
        cpu_ns: period.nodes_ns(times.len()),
        shares: period.shares,
    })
}
