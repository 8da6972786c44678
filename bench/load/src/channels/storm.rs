//! All clients lose their connections, miss publications, connect again at once and recover, while publications go on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    Account, ChannelsPlan, Percentiles, Shares,
    client::Line,
    command::{self, CONNECT, PUBLISH, Position, SUBSCRIBE},
    crowd::Crowd,
};

/// Publications in each channel before the connections are lost, and while they are lost.
const BEFORE: u64 = 5;
const MISSED: u64 = 10;

/// One publication is sent per this time during the storm, each in another channel.
const PACE: Duration = Duration::from_millis(10);

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

/// What a client has received.
#[derive(Clone, Debug, Default)]
struct Seen {
    position: Position,
    is_back: bool,
}

pub(super) fn run(plan: &ChannelsPlan) -> Result<Report> {
    let mut crowd = Crowd::new(plan)?;
    let (count, publisher) = (plan.clients, plan.clients);
    let mut seen = vec![Seen::default(); count];
    crowd.open(0..count + 1, |idx, client, line| match line {
        Line::Open => {
            let channel = (idx != publisher).then(|| (plan.channel(plan.channel_of(idx)), None));
            client.send(&command::connect_and_subscribe(channel.into_iter()))?;
            Ok(false)
        }
        Line::Reply(reply) if command::id(reply) == Some(CONNECT) => {
            command::check(reply)?;
            Ok(idx == publisher)
        }
        Line::Reply(reply) => {
            let subscribed = command::subscribed(reply)?;
            seen[idx].position = Position {
                epoch: subscribed.epoch,
                offset: subscribed.offset,
            };
            Ok(true)
        }
        Line::Push(_) | Line::Ping => Ok(false),
    })?;

    let mut numbers = vec![0; plan.channels];
    for _ in 0..BEFORE {
        publish_round(&mut crowd, plan, publisher, &mut numbers, &mut seen)?;
    }
    wait_for_all(&mut crowd, plan, &numbers, &mut seen)?;
    crowd.reset(0..count)?;
    for _ in 0..MISSED {
        publish_round(&mut crowd, plan, publisher, &mut numbers, &mut seen)?;
    }

    let account = Account::open(plan.pid)?;
    let began_at = Instant::now();
    let mut times = Histogram::<u64>::new(3)?;
    let (mut not_recovered, mut recovered_publications) = (0, 0);
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
                    let subscribed = command::subscribed(reply)?;
                    let position = &mut seen[idx].position;
                    if subscribed.recovered {
                        for publication in &subscribed.publications {
                            ensure!(
                                publication.offset == position.offset + 1 && publication.data.n == publication.offset,
                                "recovered offset {} after {}",
                                publication.offset,
                                position.offset
                            );
                            position.offset = publication.offset;
                            recovered_publications += 1;
                        }
                    } else {
                        not_recovered += 1;
                        position.offset = subscribed.offset;
                    }
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
    let (_, cpu, shares) = account.close()?;
    // What was published during the storm arrives too; a publication that does not is lost.
    wait_for_all(&mut crowd, plan, &numbers, &mut seen)?;
    let lost = lost(plan, &numbers, &seen);
    Ok(Report {
        clients: count,
        channels: plan.channels,
        all_back_ns,
        back: Percentiles::of(&times),
        not_recovered,
        recovered_publications,
        lost,
        cpu_ns: cpu.as_nanos() as f64 / count as f64,
        shares,
    })
}

/// Checks the order of a publication.
fn receive(seen: &mut Seen, push: &[u8]) -> Result<()> {
    let number = command::number(push).context("a push without a publication")?;
    let offset = &mut seen.position.offset;
    ensure!(number == *offset + 1, "publication {number} after {offset}");
    *offset = number;
    Ok(())
}

/// Publishes once in each channel and waits for the replies.
fn publish_round(
    crowd: &mut Crowd,
    plan: &ChannelsPlan,
    publisher: usize,
    numbers: &mut [u64],
    seen: &mut [Seen],
) -> Result<()> {
    // Fewer at a time than servers allow to queue.
    for channels in (0..plan.channels).collect::<Vec<_>>().chunks(20) {
        let lines: Vec<_> = channels
            .iter()
            .map(|&channel| {
                numbers[channel] += 1;
                command::publish(PUBLISH, &plan.channel(channel), numbers[channel], plan.size)
            })
            .collect();
        crowd.client(publisher)?.send(lines.join("\n").as_bytes())?;
        let mut waiting = channels.len();
        while waiting > 0 {
            crowd.turn(Duration::from_millis(100), |idx, _, line| match line {
                Line::Reply(reply) => {
                    waiting -= 1;
                    command::check(reply)
                }
                Line::Push(push) => receive(&mut seen[idx], push),
                Line::Open | Line::Ping => Ok(()),
            })?;
            crowd.check_patience()?;
        }
    }
    Ok(())
}

/// Waits until every client has every publication, or nothing more arrives for two seconds.
fn wait_for_all(crowd: &mut Crowd, plan: &ChannelsPlan, numbers: &[u64], seen: &mut [Seen]) -> Result<()> {
    let mut quiet_since = Instant::now();
    while lost(plan, numbers, seen) > 0 && quiet_since.elapsed() < Duration::from_secs(2) {
        crowd.turn(Duration::from_millis(100), |idx, _, line| match line {
            Line::Reply(reply) => command::check(reply),
            Line::Push(push) => {
                quiet_since = Instant::now();
                receive(&mut seen[idx], push)
            }
            Line::Open | Line::Ping => Ok(()),
        })?;
    }
    Ok(())
}

/// The number of publications that clients have not received.
fn lost(plan: &ChannelsPlan, numbers: &[u64], seen: &[Seen]) -> u64 {
    let missing = |(idx, seen): (usize, &Seen)| numbers[plan.channel_of(idx)].saturating_sub(seen.position.offset);
    seen.iter().enumerate().map(missing).sum()
}
