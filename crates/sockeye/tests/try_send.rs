//! Messages queued without waiting on a split connection are flushed automatically: in one write per burst, and without
//! waking the receiver's task unless it has something to do.

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::wire::{close, text, texts};
use common::{BOTH, Local, Peer, open, open_server, run_until_idle, within};
use sockeye::{Client, CloseCode, Error, Limits, Message, PreparedMessage, Receiver, Sender, Server, TrySendError};
use tokio::io::duplex;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Receives once in a separate task, and counts its polls.
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

/// Both methods that queue `a` without waiting.
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
async fn broadcast_makes_one_write_each_and_wakes_no_receiver() {
    let mut members = Vec::new();
    for _ in 0..300 {
        let (sender, receiver, peer) = open_split().await;
        members.push((sender, receive(receiver), peer));
    }
    run_until_idle().await;
    for burst in 0..3 {
        let messages = ["a", "b", "c"].map(|name| PreparedMessage::new(format!("{name}{burst}")));
        for message in &messages {
            for (sender, ..) in &members {
                sender.try_send(message).unwrap();
            }
        }
        run_until_idle().await;
        for (_, (_, polls), peer) in &members {
            let expect = ["a", "b", "c"].map(|name| format!("{name}{burst}"));
            assert_eq!(texts(&peer.take_frames()), expect);
            assert_eq!(peer.take_writes().len(), 1);
            assert_eq!(polls.load(Ordering::Relaxed), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn try_send_all_writes_before_other_tasks_run() {
    let mut members = Vec::new();
    // More than the cooperative budget of a task.
    for _ in 0..300 {
        let (sender, receiver, peer) = open_split().await;
        peer.change_rules(|rules| rules.write_costs = true);
        members.push((sender, receive(receiver), peer));
    }
    run_until_idle().await;
    let messages = ["a", "b", "c"].map(PreparedMessage::new);
    for (sender, _, peer) in &members {
        sender.try_send_all(&messages).unwrap();
        assert_eq!(texts(&peer.take_frames()), ["a", "b", "c"]);
        assert_eq!(peer.take_writes().len(), 1);
    }
    run_until_idle().await;
    for (_, (_, polls), _) in &members {
        assert_eq!(polls.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn try_send_all_writes_earlier_messages_once() {
    let (sender, receiver, peer) = open_split().await;
    let (_receiving, polls) = receive(receiver);
    run_until_idle().await;
    sender.try_send("a").unwrap();
    sender.try_send_all(&[PreparedMessage::new("b")]).unwrap();
    assert_eq!(texts(&peer.take_frames()), ["a", "b"]);
    sender.try_send("c").unwrap();
    sender.try_send_all(&[]).unwrap();
    assert_eq!(texts(&peer.take_frames()), ["c"]);
    run_until_idle().await;
    assert_eq!(peer.take_frames(), []);
    // The batch was taken, and a new one is started.
    sender.try_send("d").unwrap();
    run_until_idle().await;
    assert_eq!(texts(&peer.take_frames()), ["d"]);
    assert_eq!(polls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn try_send_all_may_exceed_the_queue_limit_while_the_peer_reads() {
    let mut limits = Limits::default();
    limits.write_buffer_max = 1300;
    let server = Server::builder().limits(limits).build();
    let messages: Vec<_> = (b'a'..=b'e').map(|byte| PreparedMessage::new(&[byte; 600])).collect();
    let payloads = |peer: &Peer| {
        peer.take_frames()
            .into_iter()
            .map(|frame| frame.payload()[0])
            .collect::<Vec<_>>()
    };

    let (ws, peer) = open_server(&server).await;
    let (sender, _receiver) = ws.split();
    sender.try_send_all(&messages).unwrap();
    assert_eq!(payloads(&peer), *b"abcde");
    // Writing what was queued before makes room too.
    sender.try_send(&[b'x'; 1200]).unwrap();
    sender.try_send_all(&messages[..1]).unwrap();
    assert_eq!(payloads(&peer), *b"xa");

    let (ws, peer) = open_server(&server).await;
    let (sender, receiver) = ws.split();
    peer.change_rules(|rules| rules.room = 1000);
    let error = sender.try_send_all(&messages).unwrap_err();
    assert_eq!(error.queued, 3);
    assert!(
        matches!(error.cause, TrySendError::Full { message, .. } if message.to_message() == *messages[3].message())
    );
    let (_receiving, _) = receive(receiver);
    peer.change_rules(|rules| rules.room = usize::MAX);
    run_until_idle().await;
    assert_eq!(payloads(&peer), *b"abc");
    assert!(sender.is_open());
}

#[tokio::test(start_paused = true)]
async fn message_is_sent_without_a_polled_receiver() {
    let (sender, _receiver, peer) = open_split().await;
    sender.try_send("a").unwrap();
    run_until_idle().await;
    assert_eq!(peer.take_frames(), [text("a")]);
}

#[tokio::test(start_paused = true)]
async fn message_is_sent_after_its_sender_is_dropped() {
    let (sender, receiver, peer) = open_split().await;
    let (_receiving, _) = receive(receiver);
    run_until_idle().await;
    sender.try_send("a").unwrap();
    drop(sender);
    run_until_idle().await;
    assert_eq!(peer.take_frames(), [text("a")]);
}

#[tokio::test(start_paused = true)]
async fn dropped_connection_closes_with_queued_messages() {
    let (sender, receiver, peer) = open_split().await;
    sender.try_send("a").unwrap();
    drop((sender, receiver));
    assert!(peer.is_transport_closed());
    run_until_idle().await;
    assert_eq!(peer.take_frames(), []);
}

#[tokio::test(start_paused = true)]
async fn fed_messages_are_flushed_with_try_send() {
    let (sender, receiver, peer) = open_split().await;
    let (_receiving, _) = receive(receiver);
    run_until_idle().await;
    sender.feed("a").await.unwrap();
    run_until_idle().await;
    assert_eq!(peer.take_frames(), []);
    sender.try_send("b").unwrap();
    run_until_idle().await;
    assert_eq!(texts(&peer.take_frames()), ["a", "b"]);
    assert_eq!(peer.take_writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn message_is_sent_before_the_close_frame() {
    let (sender, receiver, peer) = open_split().await;
    let (_receiving, _) = receive(receiver);
    run_until_idle().await;
    sender.try_send("a").unwrap();
    sender.close(CloseCode::NORMAL, "").await.unwrap();
    assert_eq!(peer.take_frames(), [text("a"), close(1000, "")]);
}

#[tokio::test(start_paused = true)]
async fn receiver_detects_a_stalled_peer() {
    for (room, send) in [0, 1].into_iter().flat_map(|room| SENDS.map(|send| (room, send))) {
        let (sender, receiver, peer) = open_split().await;
        let (receiving, _) = receive(receiver);
        run_until_idle().await;
        peer.change_rules(|rules| rules.room = room);
        run_until_idle().await;
        let start = Instant::now();
        send(&sender);
        let error = within(60, receiving).await.unwrap().unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 10);
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn receiver_writes_the_rest_when_there_is_room() {
    for room in [0, 1, 2] {
        let (sender, receiver, peer) = open_split().await;
        let (_receiving, polls) = receive(receiver);
        run_until_idle().await;
        peer.change_rules(|rules| rules.room = room);
        run_until_idle().await;
        sender.try_send("a").unwrap();
        run_until_idle().await;
        let polls_before = polls.load(Ordering::Relaxed);
        // A peer that is already stalled wakes no task.
        sender.try_send("b").unwrap();
        run_until_idle().await;
        assert_eq!(polls.load(Ordering::Relaxed), polls_before);
        sleep(Duration::from_secs(5)).await;
        peer.change_rules(|rules| rules.room = usize::MAX);
        run_until_idle().await;
        assert_eq!(texts(&peer.take_frames()), ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn write_failure_wakes_the_receiver() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, receiver) = ws.split();
        let (receiving, _) = receive(receiver);
        run_until_idle().await;
        peer.fail_after(0);
        run_until_idle().await;
        let start = Instant::now();
        sender.try_send("a").unwrap();
        let error = within(60, receiving).await.unwrap().unwrap_err();
        assert!(error.is_io(), "{error:?}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn panicking_transport_does_not_affect_the_batch() {
    let mut members = Vec::new();
    for _ in 0..10 {
        let (sender, receiver, peer) = open_split().await;
        members.push((sender, receive(receiver).0, peer));
    }
    run_until_idle().await;
    let (.., broken) = &members[3];
    broken.change_rules(|rules| rules.write_panics = true);
    run_until_idle().await;
    for (sender, ..) in &members {
        sender.try_send("a").unwrap();
    }
    run_until_idle().await;
    for (number, (_, receiving, peer)) in members.iter().enumerate() {
        let is_broken = number == 3;
        assert_eq!(peer.take_frames().len(), usize::from(!is_broken), "{number}");
        // Its own task has panicked too.
        assert_eq!(receiving.is_finished(), is_broken, "{number}");
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn runtime_that_is_no_longer_driven_keeps_nothing() {
    let (opener, driver) = (current_thread(), current_thread());
    let (sender, receiver, peer) = opener.block_on(async {
        let (sender, receiver, peer) = open_split().await;
        sender.try_send("a").unwrap();
        (sender, receiver, peer)
    });
    driver.block_on(async {
        let (_receiving, _) = receive(receiver);
        run_until_idle().await;
        assert_eq!(peer.take_frames(), [text("a")]);
        sender.try_send("b").unwrap();
        run_until_idle().await;
        assert_eq!(peer.take_frames(), [text("b")]);
    });
    drop(opener);
}

/// The connection has moved to another runtime after it began to receive on one that ends.
#[test]
fn runtime_shutdown_leaves_the_flush_to_the_receiver() {
    let (first, second) = (current_thread(), current_thread());
    let (sender, mut receiver, peer) = first.block_on(open_split());
    first.block_on(async {
        peer.send([text("x")]);
        receiver.recv().await.unwrap();
    });
    let (_receiving, _) = second.block_on(async {
        let receiving = receive(receiver);
        run_until_idle().await;
        receiving
    });
    sender.try_send("a").unwrap();
    second.block_on(run_until_idle());
    assert_eq!(peer.take_frames(), []);
    drop(first);
    second.block_on(run_until_idle());
    assert_eq!(peer.take_frames(), [text("a")]);
    // No runtime is left to spawn a task on.
    sender.try_send("b").unwrap();
    second.block_on(run_until_idle());
    assert_eq!(peer.take_frames(), [text("b")]);
}

#[test]
fn batch_contains_connections_of_one_runtime() {
    let (first, second) = (current_thread(), current_thread());
    let (one, _keep_one, peer_of_one) = first.block_on(open_split());
    let (two, _keep_two, peer_of_two) = second.block_on(open_split());
    one.try_send("a").unwrap();
    two.try_send("b").unwrap();
    one.try_send("c").unwrap();
    second.block_on(run_until_idle());
    assert_eq!(peer_of_one.take_frames(), []);
    assert_eq!(peer_of_two.take_frames(), [text("b")]);
    first.block_on(run_until_idle());
    assert_eq!(texts(&peer_of_one.take_frames()), ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_outside_the_runtime_send_complete_messages_in_order() {
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

/// A batch is written by a task of the runtime, however the connections' tasks are run.
#[tokio::test(start_paused = true)]
async fn message_is_sent_for_a_receiver_in_a_local_set() {
    let local = tokio::task::LocalSet::new();
    let (sender, mut receiver, peer) = open_split().await;
    local.spawn_local(async move { receiver.recv().await });
    local
        .run_until(async {
            run_until_idle().await;
            sender.try_send("a").unwrap();
            run_until_idle().await;
            assert_eq!(peer.take_frames(), [text("a")]);
        })
        .await;
}

/// More writes than the cooperative budget of a task allows.
#[tokio::test(start_paused = true)]
async fn exhausted_cooperative_budget_wakes_no_receiver() {
    let mut members = Vec::new();
    for _ in 0..50 {
        let (sender, receiver, peer) = open_split().await;
        peer.change_rules(|rules| (rules.write_max, rules.write_costs) = (1, true));
        members.push((sender, receive(receiver).1, peer));
    }
    run_until_idle().await;
    for (sender, ..) in &members {
        sender.try_send("twelve bytes").unwrap();
    }
    run_until_idle().await;
    for (_, polls, peer) in &members {
        assert_eq!(peer.take_frames(), [text("twelve bytes")]);
        assert_eq!(polls.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn messages_survive_the_exit_of_the_sending_thread() {
    for send in SENDS {
        let runtime = current_thread();
        let (sender, _receiver, peer) = runtime.block_on(open_split());
        std::thread::spawn(move || send(&sender)).join().unwrap();
        assert_eq!(peer.take_frames(), []);
        runtime.block_on(run_until_idle());
        assert_eq!(peer.take_frames(), [text("a")]);
    }
}

#[test]
fn message_sent_on_another_runtime_is_flushed_by_the_receivers_runtime() {
    for send in SENDS {
        let (first, second) = (current_thread(), current_thread());
        let (sender, _receiver, peer) = first.block_on(open_split());
        second.block_on(async {
            send(&sender);
            run_until_idle().await;
        });
        assert_eq!(peer.take_frames(), []);
        first.block_on(run_until_idle());
        assert_eq!(peer.take_frames(), [text("a")]);
    }
}
