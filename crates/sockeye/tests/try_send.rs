//! What is queued without waiting on a connection that was split leaves by itself: in one write for a burst, and
//! without its receiver's task, unless that has something to do.

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::wire::{close, text, texts};
use common::{BOTH, Local, Peer, open, open_server, within};
use sockeye::{Client, CloseCode, Error, Limits, Message, PreparedMessage, Receiver, Sender, Server, TrySendError};
use tokio::io::duplex;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep};

/// Lets every other task run until it waits.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

/// Receives once in a task of its own; counts how often that was polled.
fn receive(mut receiver: Receiver) -> (JoinHandle<Result<Option<Message>, Error>>, Arc<AtomicUsize>) {
    let polls = Arc::<AtomicUsize>::default();
    let counter = polls.clone();
    let receiving = tokio::spawn(async move {
        let mut receiving = pin!(receiver.recv());
        poll_fn(|cx| {
            counter.fetch_add(1, Ordering::Relaxed);
            receiving.as_mut().poll(cx)
        })
        .await
    });
    (receiving, polls)
}

/// Both ways to queue `a` without waiting.
const SENDS: [fn(&Sender); 2] = [
    |sender| sender.try_send("a").unwrap(),
    |sender| sender.try_send_all(&[PreparedMessage::new("a")]).unwrap(),
];

async fn open_split() -> (Sender, Receiver, Peer) {
    let (ws, peer) = open(Local::Server).await;
    let (sender, receiver) = ws.split();
    (sender, receiver, peer)
}

#[tokio::test(start_paused = true)]
async fn a_burst_to_many_makes_one_write_each_and_wakes_no_receiver() {
    let mut members = Vec::new();
    for _ in 0..300 {
        let (sender, receiver, peer) = open_split().await;
        members.push((sender, receive(receiver), peer));
    }
    settle().await;
    for burst in 0..3 {
        let messages = ["a", "b", "c"].map(|name| PreparedMessage::new(format!("{name}{burst}")));
        for message in &messages {
            for (sender, ..) in &members {
                sender.try_send(message).unwrap();
            }
        }
        settle().await;
        for (_, (_, polls), peer) in &members {
            let expect = ["a", "b", "c"].map(|name| format!("{name}{burst}"));
            assert_eq!(texts(&peer.takes()), expect);
            assert_eq!(peer.writes().len(), 1);
            assert_eq!(polls.load(Ordering::Relaxed), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_is_at_hand_leaves_before_anybody_else_runs() {
    let mut members = Vec::new();
    // More than the budget of a task.
    for _ in 0..300 {
        let (sender, receiver, peer) = open_split().await;
        peer.rule(|rules| rules.write_costs = true);
        members.push((sender, receive(receiver), peer));
    }
    settle().await;
    let messages = ["a", "b", "c"].map(PreparedMessage::new);
    for (sender, _, peer) in &members {
        sender.try_send_all(&messages).unwrap();
        assert_eq!(texts(&peer.takes()), ["a", "b", "c"]);
        assert_eq!(peer.writes().len(), 1);
    }
    settle().await;
    for (_, (_, polls), _) in &members {
        assert_eq!(polls.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_before_leaves_with_it_and_once() {
    let (sender, receiver, peer) = open_split().await;
    let (_receiving, polls) = receive(receiver);
    settle().await;
    sender.try_send("a").unwrap();
    sender.try_send_all(&[PreparedMessage::new("b")]).unwrap();
    assert_eq!(texts(&peer.takes()), ["a", "b"]);
    sender.try_send("c").unwrap();
    sender.try_send_all(&[]).unwrap();
    assert_eq!(texts(&peer.takes()), ["c"]);
    settle().await;
    assert_eq!(peer.takes(), []);
    // The list is gone, and a new one is begun.
    sender.try_send("d").unwrap();
    settle().await;
    assert_eq!(texts(&peer.takes()), ["d"]);
    assert_eq!(polls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn more_at_once_than_may_wait_fits_a_peer_that_takes_it() {
    let mut limits = Limits::default();
    limits.write_buffer_max = 1300;
    let server = Server::builder().limits(limits).build();
    let messages: Vec<_> = (b'a'..=b'e').map(|byte| PreparedMessage::new(&[byte; 600])).collect();
    let payloads = |peer: &Peer| {
        peer.takes()
            .into_iter()
            .map(|frame| frame.payload()[0])
            .collect::<Vec<_>>()
    };

    let (ws, peer) = open_server(&server).await;
    let (sender, _receiver) = ws.split();
    sender.try_send_all(&messages).unwrap();
    assert_eq!(payloads(&peer), *b"abcde");
    // What was queued before and leaves makes room too.
    sender.try_send(&[b'x'; 1200]).unwrap();
    sender.try_send_all(&messages[..1]).unwrap();
    assert_eq!(payloads(&peer), *b"xa");

    let (ws, peer) = open_server(&server).await;
    let (sender, receiver) = ws.split();
    peer.rule(|rules| rules.room = 1000);
    let error = sender.try_send_all(&messages).unwrap_err();
    assert_eq!(error.queued, 3);
    assert!(
        matches!(error.cause, TrySendError::Full { message, .. } if message.to_message() == *messages[3].message())
    );
    let (_receiving, _) = receive(receiver);
    peer.rule(|rules| rules.room = usize::MAX);
    settle().await;
    assert_eq!(payloads(&peer), *b"abc");
    assert!(sender.is_open());
}

#[tokio::test(start_paused = true)]
async fn it_leaves_though_nobody_receives() {
    for is_dropped in [false, true] {
        let (sender, receiver, peer) = open_split().await;
        let receiver = (!is_dropped).then_some(receiver);
        sender.try_send("a").unwrap();
        settle().await;
        assert_eq!(peer.takes(), [text("a")]);
        drop(receiver);
    }
}

#[tokio::test(start_paused = true)]
async fn it_leaves_though_its_sender_is_dropped() {
    let (sender, receiver, peer) = open_split().await;
    let (_receiving, _) = receive(receiver);
    settle().await;
    sender.try_send("a").unwrap();
    drop(sender);
    settle().await;
    assert_eq!(peer.takes(), [text("a")]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_dropped_is_closed_though_something_is_queued() {
    let (sender, receiver, peer) = open_split().await;
    sender.try_send("a").unwrap();
    drop((sender, receiver));
    assert!(peer.sees_end());
    settle().await;
    assert_eq!(peer.takes(), []);
}

#[tokio::test(start_paused = true)]
async fn what_is_fed_before_it_leaves_with_it() {
    let (sender, receiver, peer) = open_split().await;
    let (_receiving, _) = receive(receiver);
    settle().await;
    sender.feed("a").await.unwrap();
    settle().await;
    assert_eq!(peer.takes(), []);
    sender.try_send("b").unwrap();
    settle().await;
    assert_eq!(texts(&peer.takes()), ["a", "b"]);
    assert_eq!(peer.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_leaves_before_the_close_frame() {
    let (sender, receiver, peer) = open_split().await;
    let (_receiving, _) = receive(receiver);
    settle().await;
    sender.try_send("a").unwrap();
    sender.close(CloseCode::NORMAL, "").await.unwrap();
    assert_eq!(peer.takes(), [text("a"), close(1000, "")]);
}

#[tokio::test(start_paused = true)]
async fn the_receiver_notices_a_peer_that_takes_nothing_more() {
    for (room, send) in [0, 1].into_iter().flat_map(|room| SENDS.map(|send| (room, send))) {
        let (sender, receiver, peer) = open_split().await;
        let (receiving, _) = receive(receiver);
        settle().await;
        peer.rule(|rules| rules.room = room);
        settle().await;
        let start = Instant::now();
        send(&sender);
        let error = within(60, receiving).await.unwrap().unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 10);
        assert!(peer.sees_end());
    }
}

#[tokio::test(start_paused = true)]
async fn the_receiver_writes_the_rest_when_there_is_room() {
    for room in [0, 1, 2] {
        let (sender, receiver, peer) = open_split().await;
        let (_receiving, polls) = receive(receiver);
        settle().await;
        peer.rule(|rules| rules.room = room);
        settle().await;
        sender.try_send("a").unwrap();
        settle().await;
        let polls_before = polls.load(Ordering::Relaxed);
        // A peer that is slow already is no reason to wake anybody.
        sender.try_send("b").unwrap();
        settle().await;
        assert_eq!(polls.load(Ordering::Relaxed), polls_before);
        sleep(Duration::from_secs(5)).await;
        peer.rule(|rules| rules.room = usize::MAX);
        settle().await;
        assert_eq!(texts(&peer.takes()), ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_receivers_at_once() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, receiver) = ws.split();
        let (receiving, _) = receive(receiver);
        settle().await;
        peer.fails_after(0);
        settle().await;
        let start = Instant::now();
        sender.try_send("a").unwrap();
        let error = within(60, receiving).await.unwrap().unwrap_err();
        assert!(error.is_io(), "{error:?}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_keeps_nothing_from_others() {
    let mut members = Vec::new();
    for _ in 0..10 {
        let (sender, receiver, peer) = open_split().await;
        members.push((sender, receive(receiver).0, peer));
    }
    settle().await;
    let (.., broken) = &members[3];
    broken.rule(|rules| rules.write_panics = true);
    settle().await;
    for (sender, ..) in &members {
        sender.try_send("a").unwrap();
    }
    settle().await;
    for (number, (_, receiving, peer)) in members.iter().enumerate() {
        let is_broken = number == 3;
        assert_eq!(peer.takes().len(), usize::from(!is_broken), "{number}");
        // Its own task has met the same.
        assert_eq!(receiving.is_finished(), is_broken, "{number}");
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_runtime_that_nobody_drives_any_more_keeps_nothing() {
    let (opener, driver) = (current_thread(), current_thread());
    let (sender, receiver, peer) = opener.block_on(async {
        let (sender, receiver, peer) = open_split().await;
        sender.try_send("a").unwrap();
        (sender, receiver, peer)
    });
    driver.block_on(async {
        let (_receiving, _) = receive(receiver);
        settle().await;
        assert_eq!(peer.takes(), [text("a")]);
        sender.try_send("b").unwrap();
        settle().await;
        assert_eq!(peer.takes(), [text("b")]);
    });
    drop(opener);
}

/// Where a connection has moved to another runtime after it began to receive on one that ends.
#[test]
fn a_runtime_that_ends_leaves_it_to_the_receiver() {
    let (first, second) = (current_thread(), current_thread());
    let (sender, mut receiver, peer) = first.block_on(open_split());
    first.block_on(async {
        peer.sends([text("x")]);
        receiver.recv().await.unwrap();
    });
    let (_receiving, _) = second.block_on(async {
        let receiving = receive(receiver);
        settle().await;
        receiving
    });
    sender.try_send("a").unwrap();
    second.block_on(settle());
    assert_eq!(peer.takes(), []);
    drop(first);
    second.block_on(settle());
    assert_eq!(peer.takes(), [text("a")]);
    // There is no runtime any more which a task could be given to.
    sender.try_send("b").unwrap();
    second.block_on(settle());
    assert_eq!(peer.takes(), [text("b")]);
}

#[test]
fn a_list_of_one_runtime_takes_no_connection_of_another() {
    let (first, second) = (current_thread(), current_thread());
    let (one, _keep_one, peer_of_one) = first.block_on(open_split());
    let (two, _keep_two, peer_of_two) = second.block_on(open_split());
    one.try_send("a").unwrap();
    two.try_send("b").unwrap();
    one.try_send("c").unwrap();
    second.block_on(settle());
    assert_eq!(peer_of_one.takes(), []);
    assert_eq!(peer_of_two.takes(), [text("b")]);
    first.block_on(settle());
    assert_eq!(texts(&peer_of_one.takes()), ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_outside_of_the_runtime_send_whole_messages_in_order() {
    const COUNT: usize = 500;
    let (near, far) = duplex(256);
    let (server, client) = (Server::default(), Client::default());
    let accepting = async { server.accept(far).await?.accept().await };
    let (connected, accepted) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
    let (mut client, server) = (connected.unwrap().0, accepted.unwrap());
    let (sender, receiver) = server.split();
    let (_receiving, _) = receive(receiver);
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for number in 0..COUNT {
                    sender.try_send(format!("{thread} {number}")).unwrap();
                }
            })
        })
        .collect();
    drop(sender);
    let mut next = [0; 3];
    for _ in 0..3 * COUNT {
        let message = within(30, client.recv()).await.unwrap().unwrap();
        let (thread, number) = message.as_text().unwrap().split_once(' ').unwrap();
        let next = &mut next[thread.parse::<usize>().unwrap()];
        assert_eq!(number.parse::<usize>().unwrap(), *next);
        *next += 1;
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A list is written by a task of the runtime, however its connections' tasks are run.
#[tokio::test(start_paused = true)]
async fn it_leaves_where_the_receiver_is_in_a_local_set() {
    let local = tokio::task::LocalSet::new();
    let (sender, mut receiver, peer) = open_split().await;
    local.spawn_local(async move { receiver.recv().await });
    local
        .run_until(async {
            settle().await;
            sender.try_send("a").unwrap();
            settle().await;
            assert_eq!(peer.takes(), [text("a")]);
        })
        .await;
}

/// More writes than a task may make before tokio's transports have it wait.
#[tokio::test(start_paused = true)]
async fn the_budget_of_a_task_wakes_no_receiver() {
    let mut members = Vec::new();
    for _ in 0..50 {
        let (sender, receiver, peer) = open_split().await;
        peer.rule(|rules| (rules.write_max, rules.write_costs) = (1, true));
        members.push((sender, receive(receiver).1, peer));
    }
    settle().await;
    for (sender, ..) in &members {
        sender.try_send("twelve bytes").unwrap();
    }
    settle().await;
    for (_, polls, peer) in &members {
        assert_eq!(peer.takes(), [text("twelve bytes")]);
        assert_eq!(polls.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_thread_that_ends_takes_nothing_with_it() {
    for send in SENDS {
        let runtime = current_thread();
        let (sender, _receiver, peer) = runtime.block_on(open_split());
        std::thread::spawn(move || send(&sender)).join().unwrap();
        assert_eq!(peer.takes(), []);
        runtime.block_on(settle());
        assert_eq!(peer.takes(), [text("a")]);
    }
}

#[test]
fn on_another_runtime_it_leaves_with_the_receivers() {
    for send in SENDS {
        let (first, second) = (current_thread(), current_thread());
        let (sender, _receiver, peer) = first.block_on(open_split());
        second.block_on(async {
            send(&sender);
            settle().await;
        });
        assert_eq!(peer.takes(), []);
        first.block_on(settle());
        assert_eq!(peer.takes(), [text("a")]);
    }
}
