//! `Sender::reserve` and `Permit`.

mod common;

use std::pin::pin;

use common::wire::{close, text, texts};
use common::{Peer, open_server, poll_once, run_until_idle, within};
use futures_util::future::{FutureExt, join_all};
use sockeye::{Client, CloseCode, DeflateConfig, Limits, Permit, Receiver, Sender, Server, TryReserveError};

const WRITE_BUFFER_MAX: usize = 1000;

/// A server's connection that can queue 1000 bytes, to a peer that takes `room` bytes.
async fn connection(room: usize) -> (Sender, Receiver, Peer) {
    let mut limits = Limits::default();
    limits.write_buffer_max = WRITE_BUFFER_MAX;
    let (ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
    peer.change_rules(|rules| rules.room = room);
    let (sender, receiver) = ws.split();
    (sender, receiver, peer)
}

#[tokio::test(start_paused = true)]
async fn reserved_room_is_not_available_to_others() {
    let (sender, _receiver, peer) = connection(0).await;
    let permit = sender.reserve(900).await.unwrap();
    assert_eq!(permit.reserved_bytes(), 900);
    let error = sender.try_send("x".repeat(101)).unwrap_err();
    assert!(
        error.is_full() && error.to_string().ends_with("reserved for other messages"),
        "{error}"
    );
    let error = sender.try_reserve(101).unwrap_err();
    assert!(
        error.is_full() && error.to_string().ends_with("reserved for other messages"),
        "{error}"
    );
    assert_eq!(format!("{permit:?}"), "Permit { reserved_bytes: 900, .. }");
    assert_eq!(format!("{sender:?}"), "Sender { is_open: true, .. }");
    sender.try_send("y".repeat(50)).unwrap();
    let mut feeding = pin!(sender.feed("z".repeat(100)));
    assert!(poll_once(&mut feeding).await.is_pending());
    permit.send("p".repeat(900)).unwrap();
    assert!(poll_once(&mut feeding).await.is_pending());
    peer.change_rules(|rules| rules.room = usize::MAX);
    within(1, feeding).await.unwrap();
    sender.flush().await.unwrap();
    assert_eq!(
        texts(&peer.take_frames()),
        ["y".repeat(50), "p".repeat(900), "z".repeat(100)]
    );
    // Everything was given back.
    drop(sender.try_reserve(WRITE_BUFFER_MAX).unwrap());
}

#[tokio::test(start_paused = true)]
async fn dropped_permit_wakes_the_tasks_that_wait_for_its_room() {
    // Whether or not the peer takes anything: an empty queue does not help.
    for room in [0, usize::MAX] {
        let (sender, _receiver, _peer) = connection(room).await;
        let permit = sender.reserve(WRITE_BUFFER_MAX).await.unwrap();
        let feeding = tokio::spawn(feed_owned(sender.clone(), "x".repeat(10)));
        let reserving = tokio::spawn({
            let sender = sender.clone();
            async move { sender.reserve(20).await.map(drop) }
        });
        run_until_idle().await;
        assert!(!feeding.is_finished() && !reserving.is_finished());
        drop(permit);
        within(1, feeding).await.unwrap();
        within(1, reserving).await.unwrap().unwrap();
    }
}

async fn feed_owned(sender: Sender, text: String) {
    sender.feed(text).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn smaller_message_gives_the_rest_back() {
    let (sender, _receiver, _peer) = connection(0).await;
    sender.try_send("first").unwrap();
    let permit = sender.reserve(900).await.unwrap();
    let mut waiting = pin!(sender.reserve(500));
    assert!(poll_once(&mut waiting).await.is_pending());
    permit.send("small").unwrap();
    within(1, waiting).await.unwrap().send("s".repeat(500)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn longer_message_needs_room_for_the_rest() {
    let (sender, _receiver, peer) = connection(0).await;
    sender.try_send("q".repeat(500)).unwrap();
    let long = "l".repeat(400);
    sender.try_reserve(10).unwrap().send(long.as_str()).unwrap();
    let refused = sender.try_reserve(10).unwrap().send(long.as_str()).unwrap_err();
    let sockeye::TrySendError::Full { message, .. } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(message.to_message(), long.as_str().into());
    // The permit gave its room back.
    drop(sender.try_reserve(50).unwrap());
    peer.change_rules(|rules| rules.room = usize::MAX);
    sender.flush().await.unwrap();
    assert_eq!(texts(&peer.take_frames()), ["q".repeat(500), long]);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_limit_can_be_reserved_alone() {
    let (sender, _receiver, peer) = connection(0).await;
    let permit = sender.reserve(usize::MAX).await.unwrap();
    assert!(sender.try_reserve(0).unwrap_err().is_full());
    assert!(sender.try_send("").unwrap_err().is_full());
    permit.send("x".repeat(5000)).unwrap();
    assert!(sender.try_reserve(0).unwrap_err().is_full());
    peer.change_rules(|rules| rules.room = usize::MAX);
    sender.flush().await.unwrap();
    assert_eq!(texts(&peer.take_frames()), ["x".repeat(5000)]);
    drop(sender.reserve(usize::MAX).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn tasks_get_their_permits_in_order() {
    let (sender, mut receiver, peer) = connection(0).await;
    sender.try_send("x".repeat(900)).unwrap();
    let order = std::sync::Mutex::new(vec![]);
    // The large ones are not overtaken by the small ones.
    let lens = [800, 10, 900, 20, 30, 700];
    let reserving = lens.map(async |len| {
        let permit: Permit = sender.reserve(len).await.unwrap();
        order.lock().unwrap().push(len);
        permit.send("y".repeat(len)).unwrap();
    });
    // They are first polled in this order, and then in another one.
    let mut reserving: Vec<_> = reserving.into_iter().map(Box::pin).collect();
    for task in &mut reserving {
        assert!(poll_once(task).await.is_pending());
    }
    assert!(sender.try_send("").unwrap_err().is_full(), "tasks wait");
    reserving.reverse();
    let mut pending_permits = pin!(join_all(reserving));
    peer.change_rules(|rules| rules.room = usize::MAX);
    let receiving = async {
        // Without a receiver that writes, nothing else would make room.
        let _ = receiver.recv().await;
    };
    within(5, async {
        tokio::select! {
            _ = &mut pending_permits => {}
            () = receiving => panic!("nothing is received"),
        }
    })
    .await;
    assert_eq!(*order.lock().unwrap(), lens);
}

#[tokio::test(start_paused = true)]
async fn cancelled_reserve_lets_others_continue() {
    let (sender, _receiver, _peer) = connection(0).await;
    let permit = sender.reserve(WRITE_BUFFER_MAX).await.unwrap();
    {
        let mut first = pin!(sender.reserve(WRITE_BUFFER_MAX));
        assert!(poll_once(&mut first).await.is_pending());
        drop(permit);
        // The room is for the first task.
        assert!(sender.try_reserve(1).unwrap_err().is_full());
        let second = tokio::spawn({
            let sender = sender.clone();
            async move { sender.reserve(1).await.map(drop) }
        });
        run_until_idle().await;
        assert!(!second.is_finished());
        let third = tokio::spawn(feed_owned(sender.clone(), "x".into()));
        run_until_idle().await;
        assert!(!third.is_finished());
    }
    // Dropping it wakes the others.
    run_until_idle().await;
    drop(sender.try_reserve(1).unwrap());
}

/// `feed` waits behind a task that waits for a reservation, although there is room for its message.
#[tokio::test(start_paused = true)]
async fn feed_continues_after_the_waiting_reserve_completes_or_is_dropped() {
    for gives_up in [false, true] {
        for room in [0, usize::MAX] {
            let (sender, _receiver, _peer) = connection(room).await;
            let permits = [300, 300].map(|len| sender.try_reserve(len).unwrap());
            let mut reserving = Box::pin(sender.reserve(600));
            assert!(poll_once(&mut reserving).await.is_pending());
            let feeding = tokio::spawn(feed_owned(sender.clone(), "x".into()));
            run_until_idle().await;
            assert!(!feeding.is_finished());
            if gives_up {
                drop(reserving);
            } else {
                let [_first, second] = permits;
                drop(second);
                // Only now the task that waits first is polled.
                drop(within(1, reserving).await.unwrap());
            }
            within(1, feeding).await.unwrap();
        }
    }
}

/// How a connection ends.
#[derive(Clone, Copy)]
enum End {
    PeerCloses,
    Reset,
    Abort,
}

#[tokio::test(start_paused = true)]
async fn reserve_fails_when_the_connection_ends() {
    for end in [End::PeerCloses, End::Reset, End::Abort] {
        let (sender, mut receiver, peer) = connection(0).await;
        let permit = sender.reserve(WRITE_BUFFER_MAX).await.unwrap();
        let waiting = tokio::spawn({
            let sender = sender.clone();
            async move { sender.reserve(1).await.map(drop) }
        });
        run_until_idle().await;
        match end {
            End::PeerCloses => {
                peer.send([close(1000, "")]);
                assert_eq!(receiver.recv().await.unwrap(), None);
            }
            End::Reset => {
                peer.reset();
                assert!(receiver.recv().await.is_err());
            }
            End::Abort => sender.abort(),
        }
        assert!(within(1, waiting).await.unwrap().unwrap_err().is_closed());
        let error = sender.try_reserve(1).unwrap_err();
        assert!(matches!(error, TryReserveError::Closed(_)), "{error:?}");
        assert!(!permit.send("late").unwrap_err().is_full());
    }
}

/// A permit that is used while a large message is being compressed, before and after the connection is closed.
#[tokio::test(start_paused = true)]
async fn permit_can_be_used_while_a_large_message_is_compressed() {
    const LARGE: usize = 300 * 1024;
    let config = DeflateConfig::default();
    for closes in [false, true] {
        let server = Server::builder().compression(config.clone()).build();
        let client = Client::builder().compression(config.clone()).build().unwrap();
        let (mut client, server) = common::pair(&client, &server).await;
        let (sender, receiver) = server.split();
        let permits = [
            sender.reserve(100).await.unwrap(),
            sender.reserve(200 * 1024).await.unwrap(),
        ];
        sender.feed("large ".repeat(LARGE / 6)).await.unwrap();
        // Only the first part is compressed.
        assert!(sender.try_send("x").unwrap_err().is_full());
        let [small, medium] = permits;
        small.send("small").unwrap();
        medium.send("medium ".repeat(20 * 1024)).unwrap();
        if closes {
            sender.start_close(CloseCode::NORMAL, "").unwrap();
        } else {
            let mut flushing = pin!(sender.flush());
            // It waits for the messages behind the large one, too.
            assert!(poll_once(&mut flushing).await.is_pending());
            let sent = tokio::spawn(async move {
                for len in [LARGE / 6 * 6, 5, 7 * 20 * 1024] {
                    assert_eq!(client.recv().await.unwrap().unwrap().len(), len);
                }
                client
            });
            within(5, flushing).await.unwrap();
            client = within(5, sent).await.unwrap();
            assert!(client.recv().now_or_never().is_none());
            continue;
        }
        let mut receiver = receiver;
        let receiving = async move { while receiver.recv().await.unwrap().is_some() {} };
        let sent = async {
            for len in [LARGE / 6 * 6, 5, 7 * 20 * 1024] {
                assert_eq!(client.recv().await.unwrap().unwrap().len(), len);
            }
            assert_eq!(client.recv().await.unwrap(), None);
        };
        within(5, async { tokio::join!(receiving, sent) }).await;
    }
}

/// An idle receiver flushes what a permit queued.
#[tokio::test(start_paused = true)]
async fn permit_schedules_a_flush() {
    let (sender, _receiver, peer) = connection(usize::MAX).await;
    sender.reserve(10).await.unwrap().send("at once").unwrap();
    run_until_idle().await;
    assert_eq!(peer.take_frames(), [text("at once")]);
}

/// Many tasks on several threads, which give up at random: no task waits forever, everything accepted arrives in order,
/// and at last all room is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn random_calls_of_many_tasks_leak_no_room() {
    const TASKS: usize = 6;
    const CALLS: usize = 150;
    let mut limits = Limits::default();
    limits.write_buffer_max = WRITE_BUFFER_MAX;
    for seed in 0..8 {
        let server = Server::builder().limits(limits.clone()).build();
        let (near, far) = tokio::io::duplex(512);
        let accepting = async { server.accept(far).await?.accept().await };
        let client = Client::default();
        let (client, accepted) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
        let (mut client, (sender, mut receiver)) = (client.unwrap().0, accepted.unwrap().split());
        let receiving = tokio::spawn(async move { receiver.recv().await });
        let arriving = tokio::spawn(async move {
            let mut arrived = vec![];
            while let Some(message) = client.recv().await.unwrap() {
                arrived.push(message.as_text().unwrap().trim_end().to_owned());
            }
            arrived
        });
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let sender = sender.clone();
                tokio::spawn(send_at_random(sender, task, CALLS, (seed * TASKS + task) as u64))
            })
            .collect();
        let mut accepted = vec![];
        for task in tasks {
            accepted.push(within(60, task).await.unwrap());
        }
        drop(within(60, sender.reserve(WRITE_BUFFER_MAX)).await.unwrap());
        sender.start_close(CloseCode::NORMAL, "").unwrap();
        let arrived = within(60, arriving).await.unwrap();
        within(60, receiving).await.unwrap().unwrap();
        for (task, accepted) in accepted.into_iter().enumerate() {
            let of_task = arrived.iter().filter(|text| text.starts_with(&format!("{task} ")));
            assert_eq!(of_task.cloned().collect::<Vec<_>>(), accepted, "seed {seed}");
        }
    }
}

/// Returns the messages that were accepted.
async fn send_at_random(sender: Sender, task: usize, calls: usize, mut random: u64) -> Vec<String> {
    let mut accepted = vec![];
    for call in 0..calls {
        // Knuth's linear congruential generator.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (kind, len) = ((random >> 33) % 6, (random >> 40) as usize % 700 + 20);
        let text = format!("{task} {call}");
        let message = format!("{text:len$}");
        let is_accepted = match kind {
            0 => sender.reserve(len).await.unwrap().send(message).is_ok(),
            // Shorter than what was reserved.
            1 => sender.reserve(2 * len).await.unwrap().send(message).is_ok(),
            2 => sender.try_reserve(len).is_ok_and(|permit| permit.send(message).is_ok()),
            // Gives up, or drops the permit.
            3 => {
                drop(common::poll_at_most(call % 3 + 1, sender.reserve(len)).await);
                false
            }
            4 => sender.feed(message).await.is_ok(),
            _ => sender.try_send(message).is_ok(),
        };
        if is_accepted {
            accepted.push(text);
        }
    }
    accepted
}
