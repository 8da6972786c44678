//! The work for a message does not grow with the number of earlier messages, for all combinations of tasks, wakers and
//! runtimes.

mod common;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use common::distinct_wakers::{DistinctWakers, WakerCounts};
use common::{BOTH, open, pair, poll_once, within};
use futures_util::{SinkExt, StreamExt};
use sockeye::{Client, Message, Server, WebSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// Maximum number of live wakers of one task: one for each direction, the timer, each pending operation, and the
/// current poll.
const LIVE_MAX: usize = 12;

/// The work for a number of messages.
#[derive(Debug)]
struct Work {
    polls: usize,
    clones: usize,
    wake_ups: usize,
}

/// Sends `count` messages and receives their echoes in one task, waiting for all echoes after each burst.
async fn exchange(ws: WebSocket, count: usize, counts: &Arc<WakerCounts>, pattern: UsagePattern) {
    const BURST: usize = 100;
    match pattern {
        UsagePattern::Split => {
            let (sender, mut receiver) = ws.split();
            let exchanging = async {
                for _ in 0..count / BURST {
                    let send = async {
                        for _ in 0..BURST {
                            sender.feed("m").await.unwrap();
                        }
                        sender.flush().await.unwrap();
                    };
                    let receive = async {
                        for _ in 0..BURST {
                            receiver.recv().await.unwrap().unwrap();
                        }
                    };
                    tokio::join!(send, receive);
                }
            };
            DistinctWakers::new(exchanging, counts.clone()).await;
        }
        UsagePattern::FuturesSplit => {
            let (mut sink, mut stream) = StreamExt::split(ws);
            let exchanging = async {
                for _ in 0..count / BURST {
                    let send = async {
                        for _ in 0..BURST {
                            sink.feed(Message::text("m")).await.unwrap();
                        }
                        sink.flush().await.unwrap();
                    };
                    let receive = async {
                        for _ in 0..BURST {
                            stream.next().await.unwrap().unwrap();
                        }
                    };
                    tokio::join!(send, receive);
                }
            };
            DistinctWakers::new(exchanging, counts.clone()).await;
        }
        UsagePattern::Whole => {
            let mut ws = ws;
            let exchanging = async {
                for _ in 0..count / BURST {
                    for _ in 0..BURST {
                        ws.feed("m").await.unwrap();
                    }
                    for _ in 0..BURST {
                        ws.recv().await.unwrap().unwrap();
                    }
                }
            };
            DistinctWakers::new(exchanging, counts.clone()).await;
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum UsagePattern {
    Whole,
    Split,
    FuturesSplit,
}

const USAGE_PATTERNS: [UsagePattern; 3] = [UsagePattern::Whole, UsagePattern::Split, UsagePattern::FuturesSplit];

async fn work_of(count: usize, pattern: UsagePattern) -> Work {
    let (client, mut server) = pair(&Client::default(), &Server::default()).await;
    tokio::spawn(async move {
        while let Ok(Some(message)) = server.recv().await {
            server.feed(message).await.unwrap();
        }
    });
    let counts = Arc::<WakerCounts>::default();
    exchange(client, count, &counts, pattern).await;
    let most = counts.live_max.load(Relaxed);
    assert!(
        most <= LIVE_MAX,
        "{pattern:?}, {count} messages: {most} wakers at the same time"
    );
    Work {
        polls: counts.polls.load(Relaxed),
        clones: counts.clones.load(Relaxed),
        wake_ups: counts.wake_ups.load(Relaxed),
    }
}

fn check(runtime: impl Fn() -> Runtime, is_spawned: bool) {
    for pattern in USAGE_PATTERNS {
        for count in [1_000, 100_000] {
            let work = async move { within(120, work_of(count, pattern)).await };
            let work = runtime().block_on(async {
                match is_spawned {
                    true => tokio::spawn(work).await.unwrap(),
                    false => work.await,
                }
            });
            println!("{pattern:?}, {count} messages: {work:?}");
            assert!(work.polls <= count, "{pattern:?}, {count} messages: {work:?}");
            assert!(work.clones <= count, "{pattern:?}, {count} messages: {work:?}");
            assert!(work.wake_ups <= count, "{pattern:?}, {count} messages: {work:?}");
        }
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn work_is_constant_in_block_on_of_a_current_thread_runtime() {
    check(current_thread, false);
}

#[test]
fn work_is_constant_in_a_task_of_a_current_thread_runtime() {
    check(current_thread, true);
}

#[test]
fn work_is_constant_in_block_on_of_a_multi_thread_runtime() {
    check(multi_thread, false);
}

#[test]
fn work_is_constant_in_a_task_of_a_multi_thread_runtime() {
    check(multi_thread, true);
}

/// Pending operations that are polled repeatedly.
#[tokio::test(start_paused = true)]
async fn repeated_pending_polls_leave_no_wakers() {
    for local in BOTH {
        let counts = Arc::<WakerCounts>::default();
        let (mut whole, _peer) = open(local).await;
        let (halves, peer) = open(local).await;
        let (sender, mut receiver) = halves.split();
        peer.change_rules(|rules| rules.room = 0);
        let receiving = DistinctWakers::new(async { whole.recv().await }, counts.clone());
        let both = DistinctWakers::new(
            async { tokio::join!(sender.send("x"), receiver.recv()) },
            counts.clone(),
        );
        let (mut receiving, mut both) = (pin!(receiving), pin!(both));
        for _ in 0..1_000 {
            assert!(poll_once(&mut receiving).await.is_pending());
            assert!(poll_once(&mut both).await.is_pending());
            yield_now().await;
        }
        let most = counts.live_max.load(Relaxed);
        assert!(most <= LIVE_MAX, "{most} wakers at the same time");
    }
}

/// Dropping an operation frees its slot, wherever it is.
#[tokio::test(start_paused = true)]
async fn dropped_operations_leave_no_wakers() {
    let counts = Arc::<WakerCounts>::default();
    let (ws, peer) = open(common::Local::Server).await;
    let (sender, mut receiver) = ws.split();
    peer.change_rules(|rules| rules.room = 0);
    for _ in 0..100 {
        let mut operations: Vec<_> = (0..10)
            .map(|_| Box::pin(DistinctWakers::new(sender.flush(), counts.clone())))
            .collect();
        sender.feed("x").await.unwrap();
        for operation in &mut operations {
            assert!(poll_once(operation).await.is_pending());
        }
        operations.remove(5);
        operations.drain(2..4);
    }
    assert!(
        poll_once(pin!(DistinctWakers::new(receiver.recv(), counts.clone())))
            .await
            .is_pending()
    );
    drop(receiver);
    // The transport and the timer keep the waker that wakes all slots, which is not counted.
    assert_eq!(counts.live.load(Relaxed), 0);
    assert!(counts.live_max.load(Relaxed) <= 11);
}
