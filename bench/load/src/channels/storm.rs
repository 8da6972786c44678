//! All clients lose their connections, miss publications, connect again at once and recover, while publications go on.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    Account, ChannelsPlan, Percentiles, Shares,
    client::Line,
    command::{self, PUBLISH, SUBSCRIBE},
    crowd::Crowd,
    recovery::{self, BEFORE, PACE, Recovered, Seen, lost, publish_round, receive, wait_for_all},
};

/// Publications in each channel while the connections are lost.
const MISSED: u64 = 10;

/// How many clients connect at a time: the backlog of a listener is limited, by default to 4,096.
const OPENING_MAX: usize = 2000;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    clients: usize,
    channels: usize,
    /// From the first new connection until the last client has recovered.
    all_back_ns: u64,
    /// From the first new connection until a client has recovered.
    back: Percentiles,
    /// Clients that the server told that they cannot recover.
    not_recovered: u64,
    /// Publications that clients received by recovery.
    recovered_publications: u64,
    /// Publications that a client did not receive although it was not told.
    lost: u64,
    /// Processor time of the server per client, in nanoseconds.
    cpu_ns: f64,
    shares: Shares,
}

pub(super) fn run(plan: &ChannelsPlan) -> Result<Report> {
    let mut crowd = Crowd::new(plan)?;
    let (count, publisher) = (plan.clients, plan.clients);
    let mut seen = vec![Seen::default(); count];
    recovery::open(&mut crowd, plan, publisher, &mut seen)?;

    let mut numbers = vec![0; plan.channels];
    for _ in 0..BEFORE {
        publish_round(&mut crowd, plan, publisher, &mut numbers, &mut seen)?;
    }
    wait_for_all(&mut crowd, plan, &numbers, &mut seen)?;
    crowd.reset(0..count)?;
    for _ in 0..MISSED {
        publish_round(&mut crowd, plan, publisher, &mut numbers, &mut seen)?;
    }

    let account = Account::open(plan)?;
    let began_at = Instant::now();
    let mut times = Histogram::<u64>::new(3)?;
    let mut recovered = Recovered::default();
    let (mut next, mut back, mut paced) = (0, 0, 0_usize);
    while back < count {
        // As many at a time as the backlog of the listener takes.
        while next < count && next - back < OPENING_MAX {
            crowd.connect(next)?;
            next += 1;
        }
        if began_at.elapsed() > PACE * paced as u32 {
            let channel = paced % plan.channels;
            paced += 1;
            numbers[channel] += 1;
            let line = command::publish(PUBLISH, &plan.channel(channel), numbers[channel], plan.size);
            crowd.client(publisher)?.send(line.as_bytes())?;
        }
        crowd.turn(Duration::from_millis(1), |idx, client, line| {
            match line {
                Line::Open => {
                    let channel = (plan.channel(plan.channel_of(idx)), Some(&seen[idx].position));
                    client.send(&command::connect_and_subscribe([channel].into_iter()))?;
                }
                Line::Reply(reply) => {
                    command::check(reply)?;
                    if idx == publisher || command::id(reply) != Some(SUBSCRIBE) {
                        return Ok(());
                    }
                    recovered.add(&mut seen[idx], command::subscribed(reply)?)?;
                    seen[idx].is_back = true;
                    back += 1;
                    times.record(began_at.elapsed().as_nanos() as u64)?;
                }
                Line::Push(push) => receive(&mut seen[idx], push)?,
                Line::Ping => {}
            }
            Ok(())
        })?;
        crowd.check_patience()?;
    }
    let all_back_ns = began_at.elapsed().as_nanos() as u64;
    let period = account.close()?;
    // What was published during the storm arrives too; a publication that does not is lost.
    wait_for_all(&mut crowd, plan, &numbers, &mut seen)?;
    let lost = lost(plan, &numbers, &seen);
    Ok(Report {
        clients: count,
        channels: plan.channels,
        all_back_ns,
        back: Percentiles::of(&times),
        not_recovered: recovered.not_recovered,
        recovered_publications: recovered.publications,
        lost,
        cpu_ns: period.nodes_ns(count as u64),
        shares: period.shares,
    })
}
