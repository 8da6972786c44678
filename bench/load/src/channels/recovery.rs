//! Clients that lose their connections and recover: what each has received, and what is missing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{
    ChannelsPlan,
    client::Line,
    command::{self, CONNECT, PUBLISH, Position, Subscribed},
    crowd::Crowd,
};

/// Publications in each channel before connections are lost.
pub(super) const BEFORE: u64 = 5;

/// One publication is sent per this time during the storm, each in another channel.
pub(super) const PACE: Duration = Duration::from_millis(10);

/// What a client has received.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) position: Position,
    /// The number of the newest publication; `None` after the server told the client that it cannot recover. Offsets
    /// are not numbers: those of NATS have gaps.
    pub(super) number: Option<u64>,
    pub(super) is_back: bool,
}

impl Seen {
    fn take(&mut self, number: u64, offset: u64) -> Result<()> {
        let newest = &mut self.position.offset;
        if let Some(last) = self.number {
            ensure!(
                number == last + 1 && offset > *newest,
                "publication {number} with offset {offset} after {last} with {newest}"
            );
        }
        self.number = Some(number);
        *newest = offset;
        Ok(())
    }
}

/// What clients received by recovery.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recovered {
    /// Clients that the server told that they cannot recover.
    pub(super) not_recovered: u64,
    pub(super) publications: u64,
}

impl Recovered {
    /// Checks the reply to a subscription with recovery, and moves the position of the client.
    pub(super) fn add(&mut self, seen: &mut Seen, subscribed: Subscribed) -> Result<()> {
        if !subscribed.recovered {
            self.not_recovered += 1;
            seen.number = None;
        }
        for publication in &subscribed.publications {
            seen.take(publication.data.n, publication.offset)?;
            self.publications += u64::from(subscribed.recovered);
        }
        seen.position = Position {
            epoch: subscribed.epoch,
            offset: subscribed.offset,
        };
        Ok(())
    }
}

/// Opens all clients and the publisher, which has the highest index and subscribes to nothing.
pub(super) fn open(crowd: &mut Crowd, plan: &ChannelsPlan, publisher: usize, seen: &mut [Seen]) -> Result<()> {
    let mut handle = |idx: usize, client: &mut super::client::Client, line: Line<'_>| match line {
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
            seen[idx].number = Some(0);
            seen[idx].position = Position {
                epoch: subscribed.epoch,
                offset: subscribed.offset,
            };
            Ok(true)
        }
        Line::Push(_) | Line::Ping => Ok(false),
    };
    crowd.open(0..plan.clients, &mut handle)?;
    crowd.open(publisher..publisher + 1, &mut handle)
}

/// Checks the order of a publication.
pub(super) fn receive(seen: &mut Seen, push: &[u8]) -> Result<()> {
    let number = command::number(push).context("a push without a publication")?;
    let offset = command::offset(push).context("a publication without an offset")?;
    seen.take(number, offset)
}

/// Publishes once in each channel and waits for the replies.
pub(super) fn publish_round(
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
pub(super) fn wait_for_all(crowd: &mut Crowd, plan: &ChannelsPlan, numbers: &[u64], seen: &mut [Seen]) -> Result<()> {
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
pub(super) fn lost(plan: &ChannelsPlan, numbers: &[u64], seen: &[Seen]) -> u64 {
    let missing = |(idx, seen): (usize, &Seen)| Some(numbers[plan.channel_of(idx)].saturating_sub(seen.number?));
    seen.iter().enumerate().filter_map(missing).sum()
}
