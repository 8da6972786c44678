//! Publications through one node to subscribers of another, at a fixed rate: how long one takes.
//!
//! Clients with even indices are on the first node and publish; those with odd indices are on the second and subscribe.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    Account, ChannelsPlan, Percentiles, Shares,
    client::Line,
    command::{self, CONNECT, PUBLISH},
    crowd::Crowd,
};

const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub(super) struct Report {
    publishers: usize,
    channels: usize,
    publications: u64,
    /// From sending a publication until its subscriber has read it.
    latency: Percentiles,
    /// From sending a publication until its publisher has read the reply.
    acknowledged: Percentiles,
    /// Processor time of the nodes per publication, in nanoseconds.
    cpu_ns: f64,
    /// Processor time of the engine per publication, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_cpu_ns: Option<f64>,
    shares: Shares,
}

pub(super) fn run(plan: &ChannelsPlan) -> Result<Report> {
    ensure!(plan.rate >= 1.0, "the rate must be at least one publication per second");
    let mut crowd = Crowd::new(plan)?;
    let pairs = plan.clients;
    let is_subscriber = |idx: usize| idx % 2 == 1;
    let channels_of = |idx: usize| {
        let count = if is_subscriber(idx) { plan.channels } else { 0 };
        (idx / 2..count).step_by(pairs)
    };
    crowd.open(0..2 * pairs, |idx, client, line| match line {
        Line::Open => {
            let channels = channels_of(idx).map(|channel| (plan.channel(channel), None));
            client.send(&command::connect_and_subscribe(channels))?;
            Ok(false)
        }
        Line::Reply(reply) => {
            command::check(reply)?;
            Ok(command::id(reply) == Some(CONNECT + channels_of(idx).count() as u32))
        }
        Line::Push(_) | Line::Ping => Ok(false),
    })?;

    // When each publication was sent. Publication n goes to channel n modulo their number.
    let mut sent: Vec<Instant> = Vec::new();
    let mut newest: Vec<Option<u64>> = vec![None; plan.channels];
    let (mut times, mut replies) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    let (mut delivered, mut acknowledged) = (0_u64, 0_u64);
    let (mut account, mut measured_from) = (None, 0);
    let mut period = None;
    let began_at = Instant::now();
    let end = WARM_UP + plan.duration;
    loop {
        let now = began_at.elapsed();
        if account.is_none() && now >= WARM_UP {
            account = Some(Account::open(plan)?);
            measured_from = sent.len();
        }
        let is_over = now >= end;
        if is_over && period.is_none() {
            period = account.as_ref().map(Account::close).transpose()?;
        }
        let due = if is_over {
            0
        } else {
            (now.as_secs_f64() * plan.rate) as usize
        };
        while sent.len() < due {
            let number = sent.len();
            let line = command::publish(
                PUBLISH + number as u32,
                &plan.channel(number % plan.channels),
                number as u64,
                plan.size,
            );
            sent.push(Instant::now());
            crowd.client(2 * (number % pairs))?.send(line.as_bytes())?;
        }
        if is_over && delivered == sent.len() as u64 && acknowledged == delivered {
            break;
        }
        // Until the next publication is due.
        let next = Duration::from_secs_f64((sent.len() + 1) as f64 / plan.rate);
        let within = next.saturating_sub(began_at.elapsed()).min(Duration::from_millis(100));
        crowd.turn(within, |_, _, line| {
            match line {
                Line::Reply(reply) => {
                    command::check(reply)?;
                    let id = command::id(reply).context("a reply without an id")?;
                    let number = id.checked_sub(PUBLISH).context("a reply that nobody waits for")? as usize;
                    let sent_at = sent.get(number).context("a reply that nobody waits for")?;
                    acknowledged += 1;
                    if number >= measured_from && account.is_some() {
                        replies.record(sent_at.elapsed().as_nanos() as u64)?;
                    }
                }
                Line::Push(push) => {
                    let number = command::number(push).context("a push without a publication")?;
                    let sent_at = sent.get(number as usize).context("a publication that was not sent")?;
                    delivered += 1;
                    // The publications of a channel have different publishers, so their order is that of the engine.
                    let newest = &mut newest[number as usize % plan.channels];
                    ensure!(*newest != Some(number), "publication {number} arrived twice");
                    *newest = Some(number);
                    if number as usize >= measured_from && account.is_some() {
                        times.record(sent_at.elapsed().as_nanos() as u64)?;
                    }
                }
                Line::Open | Line::Ping => {}
            }
            Ok(())
        })?;
        crowd.check_patience()?;
    }
    let period = period.context("the measurement has no duration")?;
    let publications = times.len();
    ensure!(publications > 0, "nothing was published");
    Ok(Report {
        publishers: pairs,
        channels: plan.channels,
        publications,
        latency: Percentiles::of(&times),
        acknowledged: Percentiles::of(&replies),
        cpu_ns: period.nodes_ns(publications),
        engine_cpu_ns: period.engine_ns(publications),
        shares: period.shares,
    })
}
