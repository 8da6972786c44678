//! One of two nodes is killed. Its clients connect to the other one, when and as often as the official SDKs do, and
//! recover, while publications go on.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::{
    Account, ChannelsPlan, Percentiles, Shares,
    client::{Line, Refused},
    command::{self, PUBLISH, SUBSCRIBE},
    crowd::Crowd,
    recovery::{self, BEFORE, PACE, Recovered, Seen, lost, publish_round, receive, wait_for_all},
};

/// The pauses of the SDKs before they connect again: a random time up to the first one, doubled with each attempt, up
/// to the second one; the first one is added.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// Clients that are not back by then have failed.
const BACK_MAX: Duration = Duration::from_secs(180);

/// The indices of the nodes.
const KILLED: usize = 0;
const SURVIVOR: usize = 1;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    clients: usize,
    channels: usize,
    /// Clients of the node that was killed.
    disconnected: usize,
    /// From the kill until the last client has recovered.
    all_back_ns: u64,
    /// From the kill until a client has recovered.
    back: Percentiles,
    /// Opening handshakes.
    attempts: u64,
    /// Handshakes that were refused with a status that allows another attempt, and those of them that say when.
    refused: u64,
    retry_after: u64,
    /// Connections that failed otherwise.
    failed: u64,
    /// Subscriptions that failed with a temporary error, and were repeated.
    temporary_errors: u64,
    /// Clients that the server told that they cannot recover.
    not_recovered: u64,
    recovered_publications: u64,
    /// Publications that a client did not receive although it was not told.
    lost: u64,
    /// From sending a publication during the storm until a client of the other node has read it.
    survivors: Percentiles,
    /// Processor time of the surviving node and of the engine per client that came back, in nanoseconds.
    cpu_ns: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_cpu_ns: Option<f64>,
    shares: Shares,
}

pub(super) fn run(plan: &ChannelsPlan) -> Result<Report> {
    let mut crowd = Crowd::new(plan)?;
    // The publisher is on the node that survives, as every client with an odd index.
    let (count, publisher) = (plan.clients, plan.clients + (plan.clients + 1) % 2);
    let is_lost = |idx: usize| idx < count && idx % 2 == KILLED;
    let mut seen = vec![Seen::default(); publisher + 1];
    recovery::open(&mut crowd, plan, publisher, &mut seen)?;
    let mut numbers = vec![0; plan.channels];
    for _ in 0..BEFORE {
        publish_round(&mut crowd, plan, publisher, &mut numbers, &mut seen)?;
    }
    wait_for_all(&mut crowd, plan, &numbers, &mut seen[..count])?;

    let account = Account::of(vec![plan.nodes[SURVIVOR].pid], plan.engine_pid)?;
    let pid = i32::try_from(plan.nodes[KILLED].pid).ok().and_then(Pid::from_raw);
    kill_process(pid.context("there is no such process")?, Signal::KILL).context("cannot kill the node")?;
    let began_at = Instant::now();
    let disconnected = count.div_ceil(2);

    let mut storm = Storm::new(count);
    let (mut back_times, mut survivors) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    let mut sent = HashMap::new();
    let mut recovered = Recovered::default();
    let (mut back, mut paced) = (0, 0_usize);
    while back < disconnected {
        ensure!(
            began_at.elapsed() < BACK_MAX,
            "{} of {disconnected} clients are not back after {BACK_MAX:?}",
            disconnected - back
        );
        while let Some(idx) = storm.due(Instant::now()) {
            crowd.connect_to(idx, SURVIVOR)?;
        }
        while let Some(idx) = storm.resubscription_due(Instant::now()) {
            // Its connection may have ended in the meantime.
            if let Ok(client) = crowd.client(idx) {
                let lines = commands(plan, idx, &seen);
                let subscribe = lines.rsplit(|byte| *byte == b'\n').next();
                client.send(subscribe.unwrap_or_default())?;
            }
        }
        if began_at.elapsed() > PACE * paced as u32 {
            let channel = paced % plan.channels;
            paced += 1;
            numbers[channel] += 1;
            let line = command::publish(PUBLISH, &plan.channel(channel), numbers[channel], plan.size);
            sent.insert((channel, numbers[channel]), Instant::now());
            crowd.client(publisher)?.send(line.as_bytes())?;
        }
        let mut repeated = Vec::new();
        crowd.turn_with_losses(
            Duration::from_millis(1),
            |idx, client, line| {
                match line {
                    Line::Open => {
                        client.send(&commands(plan, idx, &seen))?;
                    }
                    Line::Reply(reply)
                        if command::id(reply) == Some(SUBSCRIBE) && command::is_temporary_error(reply) =>
                    {
                        repeated.push(idx);
                    }
                    Line::Reply(reply) => {
                        command::check(reply)?;
                        if idx == publisher || command::id(reply) != Some(SUBSCRIBE) {
                            return Ok(());
                        }
                        recovered.add(&mut seen[idx], command::subscribed(reply)?)?;
                        seen[idx].is_back = true;
                        back += 1;
                        back_times.record(began_at.elapsed().as_nanos() as u64)?;
                    }
                    Line::Push(push) => {
                        receive(&mut seen[idx], push)?;
                        let publication = (plan.channel_of(idx), seen[idx].number.unwrap_or_default());
                        if let (false, Some(sent_at)) = (is_lost(idx), sent.get(&publication)) {
                            survivors.record(sent_at.elapsed().as_nanos() as u64)?;
                        }
                    }
                    Line::Ping => {}
                }
                Ok(())
            },
            |idx, error| {
                ensure!(is_lost(idx), "client {idx} of the other node: {error:#}");
                storm.lose(idx, &error);
                Ok(())
            },
        )?;
        for idx in repeated {
            storm.resubscribe(idx);
        }
        crowd.check_patience()?;
    }
    let all_back_ns = began_at.elapsed().as_nanos() as u64;
    let period = account.close()?;
    // What was published during the storm arrives too; a publication that does not is lost.
    wait_for_all(&mut crowd, plan, &numbers, &mut seen[..count])?;
    let lost = lost(plan, &numbers, &seen[..count]);
    Ok(Report {
        clients: count,
        channels: plan.channels,
        disconnected,
        all_back_ns,
        back: Percentiles::of(&back_times),
        attempts: storm.attempts,
        refused: storm.refused,
        retry_after: storm.retry_after,
        failed: storm.failed,
        temporary_errors: storm.temporary_errors,
        not_recovered: recovered.not_recovered,
        recovered_publications: recovered.publications,
        lost,
        survivors: Percentiles::of(&survivors),
        cpu_ns: period.nodes_ns(disconnected as u64),
        engine_cpu_ns: period.engine_ns(disconnected as u64),
        shares: period.shares,
    })
}

/// The commands of a client that comes back: `connect`, and on a line of its own `subscribe`.
fn commands(plan: &ChannelsPlan, idx: usize, seen: &[Seen]) -> Vec<u8> {
    let channel = (plan.channel(plan.channel_of(idx)), Some(&seen[idx].position));
    command::connect_and_subscribe([channel].into_iter())
}

/// When clients try to connect or to subscribe again.
#[derive(Debug)]
struct Storm {
    waiting: BinaryHeap<Reverse<(Instant, usize)>>,
    resubscriptions: BinaryHeap<Reverse<(Instant, usize)>>,
    temporary_errors: u64,
    /// Attempts of each client.
    attempts_of: Vec<u32>,
    random: u64,
    attempts: u64,
    refused: u64,
    retry_after: u64,
    failed: u64,
}

impl Storm {
    fn new(clients: usize) -> Self {
        Self {
            waiting: BinaryHeap::new(),
            resubscriptions: BinaryHeap::new(),
            temporary_errors: 0,
            attempts_of: vec![0; clients],
            // Any number but zero; the same in each run.
            random: 0x9e37_79b9_7f4a_7c15,
            attempts: 0,
            refused: 0,
            retry_after: 0,
            failed: 0,
        }
    }

    /// Takes a client whose connection ended, or could not be opened.
    fn lose(&mut self, idx: usize, error: &anyhow::Error) {
        match error.downcast_ref::<Refused>() {
            Some(refused) if refused.is_temporary() => {
                self.refused += 1;
                self.retry_after += u64::from(refused.retry_after().is_some());
            }
            // The first end is that of the node.
            _ => self.failed += u64::from(self.attempts_of[idx] > 0),
        }
        let pause = pause(self.attempts_of[idx], self.next_random());
        self.attempts_of[idx] += 1;
        self.waiting.push(Reverse((Instant::now() + pause, idx)));
    }

    /// Takes a client whose subscription failed with a temporary error.
    fn resubscribe(&mut self, idx: usize) {
        self.temporary_errors += 1;
        let pause = pause(self.attempts_of[idx], self.next_random());
        self.attempts_of[idx] += 1;
        self.resubscriptions.push(Reverse((Instant::now() + pause, idx)));
    }

    /// The next client that connects now.
    fn due(&mut self, now: Instant) -> Option<usize> {
        let idx = pop_due(&mut self.waiting, now)?;
        self.attempts += 1;
        Some(idx)
    }

    /// The next client that subscribes now.
    fn resubscription_due(&mut self, now: Instant) -> Option<usize> {
        pop_due(&mut self.resubscriptions, now)
    }

    /// A number from 0 up to 1 (xorshift).
    fn next_random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn pop_due(waiting: &mut BinaryHeap<Reverse<(Instant, usize)>>, now: Instant) -> Option<usize> {
    let Reverse((at, idx)) = *waiting.peek()?;
    if at > now {
        return None;
    }
    waiting.pop();
    Some(idx)
}

/// The pause before an attempt, the first one being 0.
fn pause(attempt: u32, random: f64) -> Duration {
    let range = (PAUSE_MIN * 2_u32.pow(attempt.min(10))).min(PAUSE_MAX);
    (PAUSE_MIN + range.mul_f64(random)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Storm, pause};

    #[test]
    fn pauses_grow_and_are_bounded() {
        let ms = Duration::from_millis;
        assert_eq!(pause(0, 0.0), ms(500));
        assert_eq!(pause(0, 1.0), ms(1000));
        assert_eq!(pause(3, 0.5), ms(2500));
        assert_eq!(pause(40, 1.0), ms(20_000));
    }

    #[test]
    fn clients_connect_in_the_order_of_their_times() {
        let mut storm = Storm::new(2);
        let now = Instant::now();
        storm.lose(0, &anyhow::anyhow!("the end"));
        storm.lose(1, &anyhow::anyhow!("the end"));
        assert_eq!(storm.due(now), None);
        let later = now + Duration::from_secs(2);
        let mut due = [storm.due(later), storm.due(later)];
        due.sort();
        assert_eq!(due, [Some(0), Some(1)]);
        assert_eq!((storm.attempts, storm.failed, storm.due(later)), (2, 0, None));
        storm.lose(0, &anyhow::anyhow!("refused"));
        assert_eq!(storm.failed, 1);
    }
}
