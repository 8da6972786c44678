//! Publications into many channels with history: a closed loop with several publishers. Each channel has one
//! subscriber.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{
    Account, ChannelsPlan, Shares,
    client::Line,
    command::{self, CONNECT, PUBLISH, SUBSCRIBE},
    crowd::Crowd,
};

/// Number of channels that one subscriber has; servers limit it to 128 by default.
const CHANNELS_PER_CLIENT: usize = 100;

/// Publications that each publisher has in flight.
const IN_FLIGHT: usize = 16;

const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub(super) struct Report {
    publishers: usize,
    channels: usize,
    /// Acknowledged publications per second.
    rate: f64,
    publications: u64,
    /// Publications that subscribers received in the same time.
    deliveries: u64,
    /// Processor time of the nodes per publication, with its delivery, in nanoseconds.
    cpu_ns: f64,
    /// Processor time of the engine per publication, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_cpu_ns: Option<f64>,
    /// Publications per second of processor time, of the nodes and the engine together.
    rate_per_core: f64,
    shares: Shares,
}

pub(super) fn run(plan: &ChannelsPlan) -> Result<Report> {
    let mut crowd = Crowd::new(plan)?;
    let subscribers = plan.channels.div_ceil(CHANNELS_PER_CLIENT);
    let of = |subscriber: usize| {
        let start = subscriber * CHANNELS_PER_CLIENT;
        start..(start + CHANNELS_PER_CLIENT).min(plan.channels)
    };
    let total = subscribers + plan.clients;
    crowd.open(0..total, |idx, client, line| {
        let channels = if idx < subscribers { of(idx) } else { 0..0 };
        match line {
            Line::Open => {
                let channels = channels.map(|channel| (plan.channel(channel), None));
                client.send(&command::connect_and_subscribe(channels))?;
                Ok(false)
            }
            Line::Reply(reply) => {
                command::check(reply)?;
                let last = CONNECT + channels.len() as u32;
                Ok(command::id(reply) == Some(last))
            }
            Line::Push(_) | Line::Ping => Ok(false),
        }
    })?;

    let mut publishers: Vec<_> = (0..plan.clients)
        .map(|idx| Publisher { next: idx, replies: 0 })
        .collect();
    let mut numbers = vec![0; plan.channels];
    for (idx, publisher) in publishers.iter_mut().enumerate() {
        let lines = publisher.publish(IN_FLIGHT, plan, &mut numbers);
        crowd.client(subscribers + idx)?.send(lines.as_bytes())?;
    }
    let mut state = None;
    let (mut acknowledged, mut delivered) = (0, 0);
    let began_at = Instant::now();
    let (warm, end) = (began_at + WARM_UP, began_at + WARM_UP + plan.duration);
    let mut busy = Vec::new();
    loop {
        let now = Instant::now();
        if state.is_none() && now >= warm {
            state = Some((Account::open(plan)?, acknowledged, delivered));
        }
        if now >= end {
            break;
        }
        crowd.turn(Duration::from_millis(10), |idx, _, line| {
            match line {
                Line::Reply(reply) => {
                    command::check(reply)?;
                    ensure!(command::id(reply) >= Some(PUBLISH), "a reply that nobody waits for");
                    acknowledged += 1;
                    let publisher = &mut publishers[idx - subscribers];
                    if publisher.replies == 0 {
                        busy.push(idx);
                    }
                    publisher.replies += 1;
                }
                Line::Push(_) => delivered += 1,
                Line::Open | Line::Ping => {}
            }
            Ok(())
        })?;
        crowd.check_patience()?;
        for idx in busy.drain(..) {
            let publisher = &mut publishers[idx - subscribers];
            let count = std::mem::take(&mut publisher.replies);
            let lines = publisher.publish(count, plan, &mut numbers);
            crowd.client(idx)?.send(lines.as_bytes())?;
        }
    }
    let Some((account, acknowledged_before, delivered_before)) = state else {
        anyhow::bail!("the measurement has no duration");
    };
    let period = account.close()?;
    let publications = acknowledged - acknowledged_before;
    ensure!(publications > 0, "no publication was acknowledged");

    // Every publication reaches its subscriber.
    let published: u64 = numbers.iter().sum();
    let deliveries = delivered - delivered_before;
    while delivered < published || acknowledged < published {
        crowd.turn(Duration::from_millis(100), |_, _, line| {
            match line {
                Line::Reply(reply) => {
                    command::check(reply)?;
                    acknowledged += 1;
                }
                Line::Push(_) => delivered += 1,
                Line::Open | Line::Ping => {}
            }
            Ok(())
        })?;
        crowd.check_patience()?;
    }
    ensure!(
        delivered == published,
        "{delivered} deliveries of {published} publications"
    );
    Ok(Report {
        publishers: plan.clients,
        channels: plan.channels,
        rate: publications as f64 / period.took.as_secs_f64(),
        publications,
        deliveries,
        cpu_ns: period.nodes_ns(publications),
        engine_cpu_ns: period.engine_ns(publications),
        rate_per_core: 1e9 / (period.nodes_ns(publications) + period.engine_ns(publications).unwrap_or(0.0)),
        shares: period.shares,
    })
}

struct Publisher {
    /// The channel of the next publication.
    next: usize,
    /// Replies that are not followed by a new publication yet.
    replies: usize,
}

impl Publisher {
    /// The next publications, each in another channel.
    fn publish(&mut self, count: usize, plan: &ChannelsPlan, numbers: &mut [u64]) -> String {
        let mut lines = String::new();
        for _ in 0..count {
            let channel = self.next % plan.channels;
            // A step that shares no factor with the number of publishers, so that all channels are used.
            self.next += plan.clients + 1;
            numbers[channel] += 1;
            if !lines.is_empty() {
                lines.push('\n');
            }
            lines += &command::publish(PUBLISH, &plan.channel(channel), numbers[channel], plan.size);
        }
        lines
    }
}

const _: () = assert!(SUBSCRIBE == CONNECT + 1);
