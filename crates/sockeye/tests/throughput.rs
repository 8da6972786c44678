//! The work per message is the same for 1,000, 100,000 and 1,000,000 messages, for all ways to run a connection.
//!
//! Counts polls, transport operations, allocations, peak memory and peak number of wakers. Does not measure time:
//! `cargo run --release -p bench-micro --example throughput`, in `bench/`, does.

#[path = "common/allocations.rs"]
mod allocations;
mod common;
#[path = "common/usage_patterns.rs"]
mod usage_patterns;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::distinct_wakers::{DistinctWakers, WakerCounts};
use common::link::{Operations, link};
use common::{Local, within};
use sockeye::{Client, Limits, Server};
use tokio::io::AsyncWriteExt;
use tokio::runtime::{Builder, Runtime};
use usage_patterns::{Boxed, USAGE_PATTERNS, UsagePattern, Watch, echo, run};

/// How the connection's future is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Executor {
    /// `block_on` of a current-thread runtime.
    CurrentThread,
    /// A task on a current-thread runtime.
    CurrentThreadSpawned,
    /// `block_on` of a multi-thread runtime.
    MultiThread,
    /// A task on a multi-thread runtime.
    MultiThreadSpawned,
    /// An executor whose wakers are never equal for `will_wake`.
    DistinctWakers,
}

/// Counts the polls of a pattern's futures.
#[derive(Clone, Default)]
struct Counts {
    polls: Arc<AtomicUsize>,
    /// Set if the futures are polled with wakers that are never equal for `will_wake`.
    wakers: Option<Arc<WakerCounts>>,
}

impl Watch for Counts {
    fn watch<'a>(&self, mut future: Boxed<'a>) -> Boxed<'a> {
        let polls = self.polls.clone();
        let counted = poll_fn(move |cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            future.as_mut().poll(cx)
        });
        match self.wakers.clone() {
            Some(wakers) => Box::pin(DistinctWakers::new(counted, wakers).with_spurious_polls()),
            None => Box::pin(counted),
        }
    }
}

impl Executor {
    fn runtime(self) -> Runtime {
        match self {
            Self::MultiThread | Self::MultiThreadSpawned => {
                Builder::new_multi_thread().worker_threads(2).enable_time().build()
            }
            // A hang fails immediately.
            _ => Builder::new_current_thread().enable_time().start_paused(true).build(),
        }
        .unwrap()
    }

    fn has_one_thread(self) -> bool {
        !matches!(self, Self::MultiThread | Self::MultiThreadSpawned)
    }
}

/// The total work.
#[derive(Clone, Copy, Debug)]
struct Work {
    count: usize,
    polls: usize,
    operations: Operations,
    allocations: usize,
    memory_max: usize,
    wakers_max: usize,
}

fn measure(pattern: UsagePattern, executor: Executor, count: usize) -> Work {
    let runtime = executor.runtime();
    let counts = Counts {
        polls: Arc::default(),
        wakers: (executor == Executor::DistinctWakers).then(Arc::default),
    };
    let watch = counts.clone();
    let (work, operations) = {
        let main = async move {
            let (near, far) = link(64 * 1024);
            let meter = near.meter();
            let (client, server) = (Client::default(), Server::default());
            let accepting = async { server.accept(far).await?.accept().await };
            let (connected, accepted) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
            // It ends with an error, because the connection is finally dropped.
            let _echo = tokio::spawn(echo(accepted.unwrap()));
            let client = connected.unwrap().0;
            let before = meter.operations();
            let work = within(
                LIMIT_SECS,
                allocations::count_during(run(pattern, client, count, &watch)),
            )
            .await;
            let after = meter.operations();
            let operations = Operations {
                reads: after.reads - before.reads,
                writes: after.writes - before.writes,
            };
            (work, operations)
        };
        match executor {
            Executor::CurrentThreadSpawned | Executor::MultiThreadSpawned => {
                let main = runtime.spawn(main);
                runtime.block_on(main).unwrap()
            }
            _ => runtime.block_on(main),
        }
    };
    Work {
        count,
        polls: counts.polls.load(Ordering::Relaxed),
        operations,
        allocations: work.allocations,
        memory_max: work.memory_max,
        wakers_max: counts
            .wakers
            .map_or(0, |wakers| wakers.live_max.load(Ordering::Relaxed)),
    }
}

impl Work {
    /// The counters that could grow with the number of messages, per message.
    fn per_message(&self) -> [(&'static str, f64); 4] {
        let each = |number: usize| number as f64 / self.count as f64;
        [
            ("polls", each(self.polls)),
            ("reads", each(self.operations.reads)),
            ("writes", each(self.operations.writes)),
            ("allocations", each(self.allocations)),
        ]
    }
}

/// Upper bound for the time of a run.
const LIMIT_SECS: u64 = 30;

/// How much more memory may be in use than for the smallest number of messages: a write buffer of 1 MiB, and the echo's
/// data behind it.
const MEMORY_MORE_MAX: usize = 3 * 1024 * 1024;

/// The same if both sides run in parallel: both may copy their buffer to a larger one, and a waiting sender reads ahead
/// of a late receiver.
const MEMORY_MORE_MAX_OF_THREADS: usize = 24 * 1024 * 1024;

/// Maximum number of live wakers: each of the two sides has a few slots.
const WAKERS_MAX: usize = 8;

fn check(pattern: UsagePattern, executor: Executor, counts: &[usize]) -> Vec<String> {
    let mut faults = Vec::new();
    // The first run allocates what is kept.
    measure(pattern, executor, 100);
    let works: Vec<Work> = counts.iter().map(|count| measure(pattern, executor, *count)).collect();
    let few = works[0];
    for work in &works {
        println!("{pattern:?}, {executor:?}, {work:?}");
        for ((name, of_few), (_, of_many)) in few.per_message().into_iter().zip(work.per_message()) {
            // With several threads, the number of messages per poll varies.
            let slack = match name {
                // Beyond a backlog, each `feed` tries to write.
                "writes" => 1.0,
                // Cloning these wakers allocates.
                "allocations" if executor == Executor::DistinctWakers => 2.0,
                _ if executor.has_one_thread() => 0.1,
                _ => 2.0,
            };
            if of_many > of_few * 1.25 + slack {
                let count = work.count;
                faults.push(format!(
                    "{pattern:?}, {executor:?}, {count} messages: {name} {of_few} -> {of_many}"
                ));
            }
        }
        let more_max = match executor.has_one_thread() {
            true => MEMORY_MORE_MAX,
            false => MEMORY_MORE_MAX_OF_THREADS,
        };
        if work.memory_max > few.memory_max + more_max {
            faults.push(format!(
                "{pattern:?}, {executor:?}: memory {} -> {}",
                few.memory_max, work.memory_max
            ));
        }
        if work.wakers_max > WAKERS_MAX {
            faults.push(format!(
                "{pattern:?}, {executor:?}: {} wakers live at one time",
                work.wakers_max
            ));
        }
    }
    faults
}

fn check_executor(executor: Executor) {
    // One at a time, because allocations are counted for the whole process.
    let _lock = allocations::lock_counters();
    let counts: &[usize] = match cfg!(debug_assertions) {
        true => &[1_000, 100_000],
        false => &[1_000, 100_000, 1_000_000],
    };
    let faults: Vec<String> = USAGE_PATTERNS
        .into_iter()
        .flat_map(|pattern| check(pattern, executor, counts))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn work_per_message_is_constant_on_one_thread() {
    check_executor(Executor::CurrentThread);
}

#[test]
fn work_per_message_is_constant_in_a_task_on_one_thread() {
    check_executor(Executor::CurrentThreadSpawned);
}

#[test]
fn work_per_message_is_constant_on_several_threads() {
    check_executor(Executor::MultiThread);
}

#[test]
fn work_per_message_is_constant_in_a_task_on_several_threads() {
    check_executor(Executor::MultiThreadSpawned);
}

#[test]
fn work_per_message_is_constant_with_a_new_waker_for_each_poll() {
    check_executor(Executor::DistinctWakers);
}

/// Upper bound for what a connection may hold while `send` waits: well beyond the largest message.
const READ_AHEAD_MAX: usize = 64 * 1024 * 1024;

/// How much a peer sends that does not stop by itself.
const FLOOD_LEN: usize = 256 * 1024 * 1024;

/// A peer that sends without reading costs a bounded amount of memory, and its deadline passes.
#[test]
fn waiting_send_reads_a_bounded_amount_ahead() {
    let _lock = allocations::lock_counters();
    for payload_len in [0_usize, 100, 256 * 1024] {
        let runtime = Executor::CurrentThread.runtime();
        let work = runtime.block_on(async {
            let (mut ws, mut far) = common::open_linked(Local::Client, 64 * 1024, Limits::default()).await;
            tokio::spawn(async move {
                let frame = common::wire::binary(vec![0; payload_len]).bytes(false);
                let frames = frame.repeat((64 * 1024 / frame.len()).max(1));
                let mut sent = 0;
                while sent < FLOOD_LEN && far.write_all(&frames).await.is_ok() {
                    sent += frames.len();
                }
                std::future::pending::<()>().await;
            });
            let sending = async {
                let sent = ws.send(vec![7; 4 * 1024 * 1024]).await;
                assert!(sent.as_ref().is_err_and(sockeye::Error::is_timeout), "{sent:?}");
            };
            within(30, allocations::count_during(sending)).await
        });
        assert!(
            work.memory_max < READ_AHEAD_MAX,
            "{payload_len}: {} bytes",
            work.memory_max
        );
    }
}

/// Endless input does not prevent sending, and a sender does not prevent receiving.
#[test]
fn endless_input_does_not_block_sending() {
    // Its allocations must not be counted by another test.
    let _lock = allocations::lock_counters();
    for is_split in [false, true] {
        let runtime = Executor::CurrentThread.runtime();
        runtime.block_on(async {
            let (near, far) = link(64 * 1024);
            let (client, server) = (Client::default(), Server::default());
            let accepting = async { server.accept(far).await?.accept().await };
            let (connected, accepted) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
            let (mut client, (far_sender, mut far_receiver)) = (connected.unwrap().0, accepted.unwrap().split());
            let flood = tokio::spawn(async move {
                loop {
                    far_sender.feed("again and again").await.unwrap();
                }
            });
            let counting = tokio::spawn(async move {
                for _ in 0..1000 {
                    far_receiver.recv().await.unwrap().unwrap();
                }
            });
            // Only a few messages are received for each one sent.
            let mut received = 0;
            if is_split {
                let (sender, mut receiver) = client.split();
                let sending = tokio::spawn(async move {
                    for _ in 0..1000 {
                        sender.send("once").await.unwrap();
                    }
                    counting.await.unwrap();
                });
                while !sending.is_finished() && received < FLOOD_COUNT {
                    receiver.recv().await.unwrap();
                    received += 1;
                }
            } else {
                for _ in 0..1000 {
                    client.send("once").await.unwrap();
                    client.recv().await.unwrap();
                    received += 1;
                }
                counting.await.unwrap();
            }
            assert!(received < FLOOD_COUNT, "sending does not end");
            flood.abort();
        });
    }
}

const FLOOD_COUNT: usize = 20_000_000;
