//! `Outbox`: what happens to a message for which there is no room.

mod common;

use std::pin::pin;

use common::wire::{Frame, close, ping, pong, text, texts};
use common::{Local, Peer, open, open_server, poll_once, run_until_idle, within};
use futures_util::future::FutureExt;
use sockeye::{
    Client, CloseCode, DeflateConfig, Error, ErrorKind, Limits, Outbox, Overflow, PreparedMessage, Receiver, Sender,
    Server, TrySendError, WebSocket,
};

const WRITE_BUFFER_MAX: usize = 20_000;

/// Each message with its cost in the queue takes about a tenth of the limit.
const LEN: usize = 1800;

/// A server's connection to a peer that takes nothing.
async fn connection() -> (Sender, Receiver, Peer) {
    let mut limits = Limits::default();
    limits.write_buffer_max = WRITE_BUFFER_MAX;
    let (ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
    peer.change_rules(|rules| rules.room = 0);
    let (sender, receiver) = ws.split();
    (sender, receiver, peer)
}

/// A message that begins with its number.
fn message(number: usize) -> String {
    format!("{number:0LEN$}")
}

#[track_caller]
fn numbers(frames: &[Frame]) -> Vec<usize> {
    texts(frames).iter().map(|text| text.parse().unwrap()).collect()
}

/// Sends without waiting.
fn send(outbox: &Outbox, number: usize) -> Result<(), Error> {
    outbox.send(message(number)).now_or_never().expect("it never waits")
}

#[tokio::test(start_paused = true)]
async fn overflow_wait_delivers_everything() {
    let (sender, mut receiver, peer) = connection().await;
    let outbox = sender.with_overflow(Overflow::Wait);
    let sending = tokio::spawn({
        let outbox = outbox.clone();
        async move {
            for number in 0..50 {
                outbox.send(message(number)).await.unwrap();
            }
        }
    });
    let receiving = tokio::spawn(async move { receiver.recv().await });
    run_until_idle().await;
    assert!(!sending.is_finished());
    peer.change_rules(|rules| rules.room = usize::MAX);
    within(1, sending).await.unwrap();
    run_until_idle().await;
    assert_eq!(numbers(&peer.take_frames()), Vec::from_iter(0..50));
    assert_eq!(outbox.dropped(), 0);
    receiving.abort();
}

#[tokio::test(start_paused = true)]
async fn try_send_never_waits() {
    for overflow in [
        Overflow::Wait,
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Close,
    ] {
        let (sender, _receiver, _peer) = connection().await;
        let outbox = sender.with_overflow(overflow);
        let failed = (0..50).find_map(|number| outbox.try_send(message(number)).err());
        match (overflow, failed) {
            (Overflow::Wait, Some(TrySendError::Full { .. })) => assert_eq!(outbox.dropped(), 0),
            (Overflow::Close, Some(TrySendError::Closed(error))) => assert!(error.is_closed()),
            (Overflow::DropNewest | Overflow::DropOldest, None) => assert!(outbox.dropped() > 20),
            (_, failed) => panic!("{overflow:?}: {failed:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn overflow_drop_newest_keeps_what_was_queued() {
    let (sender, _receiver, peer) = connection().await;
    let outbox = sender.with_overflow(Overflow::DropNewest);
    for number in 0..50 {
        send(&outbox, number).unwrap();
    }

    assert!(outbox.sender().queued_bytes() <= WRITE_BUFFER_MAX);
    peer.change_rules(|rules| rules.room = usize::MAX);
    run_until_idle().await;
    outbox.sender().flush().await.unwrap();
    let arrived = numbers(&peer.take_frames());
    assert!(arrived.len() >= 9);
    assert_eq!(arrived, Vec::from_iter(0..arrived.len()));
    assert_eq!(outbox.dropped(), 50 - arrived.len() as u64);
    assert_eq!(outbox.clone().dropped(), outbox.dropped());
}

#[tokio::test(start_paused = true)]
async fn overflow_drop_oldest_keeps_the_newest() {
    const COUNT: usize = 200;
    let (sender, _receiver, peer) = connection().await;
    let outbox = sender.with_overflow(Overflow::DropOldest);
    for number in 0..COUNT {
        send(&outbox, number).unwrap();
        run_until_idle().await;
        // What is encoded, and as much again.
        assert!(outbox.sender().queued_bytes() <= 2 * WRITE_BUFFER_MAX);
    }
    peer.change_rules(|rules| rules.room = usize::MAX);
    run_until_idle().await;
    outbox.sender().flush().await.unwrap();
    let arrived = numbers(&peer.take_frames());
    assert!(arrived.is_sorted_by(|a, b| a < b), "{arrived:?}");
    // The encoded ones, then the newest.
    assert_eq!(arrived[0], 0);
    let newest: Vec<usize> = (COUNT - 9..COUNT).collect();
    assert_eq!(arrived[arrived.len() - 9..], newest);
    assert_eq!(outbox.dropped(), (COUNT - arrived.len()) as u64);
}

/// A message of the sender overtakes the messages that are not encoded.
#[tokio::test(start_paused = true)]
async fn only_overflow_drop_oldest_leaves_messages_unencoded() {
    const LARGE_LEN: usize = 16 * 1024;
    const COUNT: usize = 40;
    let mut limits = Limits::default();
    limits.write_buffer_max = 1024 * 1024;
    for (overflow, encoded_count) in [
        (Overflow::DropNewest, COUNT),
        (Overflow::Close, COUNT),
        (Overflow::DropOldest, 4),
    ] {
        let (ws, peer) = open_server(&Server::builder().limits(limits.clone()).build()).await;
        peer.change_rules(|rules| rules.room = 0);
        let (sender, _receiver) = ws.split();
        let outbox = sender.clone().with_overflow(overflow);
        for number in 0..COUNT {
            let message = format!("{number:0LARGE_LEN$}");
            outbox.send(message).now_or_never().expect("it never waits").unwrap();
        }
        sender.try_send("overtakes").unwrap();
        peer.change_rules(|rules| rules.room = usize::MAX);
        sender.flush().await.unwrap();
        run_until_idle().await;
        let arrived = texts(&peer.take_frames());
        assert_eq!(arrived.len(), COUNT + 1);
        let pos = arrived.iter().position(|text| text == "overtakes");
        assert_eq!(pos, Some(encoded_count), "{overflow:?}");
        assert_eq!(outbox.dropped(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn overflow_drop_oldest_limits_unencoded_messages_separately() {
    const LARGE_LEN: usize = 16 * 1024;
    const LIMIT: usize = 1024 * 1024;
    let mut limits = Limits::default();
    limits.write_buffer_max = LIMIT;
    let (ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
    peer.change_rules(|rules| rules.room = 0);
    let (sender, _receiver) = ws.split();
    let outbox = sender.with_overflow(Overflow::DropOldest);
    for _ in 0..100 {
        outbox.send("x".repeat(LARGE_LEN)).await.unwrap();
    }
    let queued = outbox.sender().queued_bytes();
    // At most one message more than 64 KiB is encoded.
    assert!((LIMIT + 1..=LIMIT + 5 * LARGE_LEN).contains(&queued), "{queued}");
    assert!(outbox.dropped() > 0);
}

#[tokio::test(start_paused = true)]
async fn message_longer_than_the_limit_replaces_all_others() {
    let (sender, _receiver, peer) = connection().await;
    let outbox = sender.with_overflow(Overflow::DropOldest);
    // Too large for the rest of the queue, so not encoded.
    for number in 0..20 {
        send(&outbox, number).unwrap();
    }
    let long = "1".repeat(3 * WRITE_BUFFER_MAX);
    outbox.send(long.as_str()).await.unwrap();
    peer.change_rules(|rules| rules.room = usize::MAX);
    outbox.sender().flush().await.unwrap();
    run_until_idle().await;
    let arrived = texts(&peer.take_frames());
    assert_eq!(arrived.last(), Some(&long));
    assert_eq!(outbox.dropped(), 21 - arrived.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn overflow_close_closes_with_1013() {
    let (sender, mut receiver, peer) = connection().await;
    let outbox = sender.clone().with_overflow(Overflow::Close);
    let mut queued = 0;
    let error = loop {
        match send(&outbox, queued) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
    };
    assert!(queued >= 9);
    assert_eq!(
        (error.kind(), error.is_closed(), error.is_retryable()),
        (ErrorKind::Closed, true, false)
    );
    assert!(error.to_string().contains("1013"), "{error}");
    assert_eq!(outbox.dropped(), 1);
    let later = send(&outbox, 0).unwrap_err();
    assert_eq!(
        later.close_info().unwrap().sent().unwrap().code,
        CloseCode::TRY_AGAIN_LATER
    );
    assert_eq!(outbox.dropped(), 1, "the connection is closed");
    peer.change_rules(|rules| rules.room = usize::MAX);
    peer.send([close(1013, "")]);
    assert_eq!(receiver.recv().await.unwrap(), None);
    run_until_idle().await;
    let frames = peer.take_frames();
    let (last, messages) = frames.split_last().unwrap();
    assert_eq!(*last, close(1013, ""));
    assert_eq!(numbers(messages), Vec::from_iter(0..queued));
}

/// `DropNewest` and `DropOldest`: a ping is answered, and the close frame follows everything that was accepted.
#[tokio::test(start_paused = true)]
async fn control_frames_are_not_dropped() {
    for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
        let (sender, mut receiver, peer) = connection().await;
        let outbox = sender.with_overflow(overflow);
        for number in 0..100 {
            send(&outbox, number).unwrap();
        }
        peer.send([ping("?")]);
        assert!(poll_once(pin!(receiver.recv())).await.is_pending());
        for number in 100..200 {
            send(&outbox, number).unwrap();
        }
        outbox.sender().start_close(CloseCode::NORMAL, "").unwrap();
        peer.change_rules(|rules| rules.room = usize::MAX);
        run_until_idle().await;
        let frames = peer.take_frames();
        let control: Vec<_> = frames.iter().filter(|frame| frame.head().2 >= 8).cloned().collect();
        assert_eq!(control, [pong("?"), close(1000, "")], "{overflow:?}");
        assert_eq!(frames.last(), Some(&close(1000, "")));
        let messages: Vec<_> = frames.into_iter().filter(|frame| frame.head().2 < 8).collect();
        let arrived = numbers(&messages);
        assert_eq!(outbox.dropped() as usize, 200 - arrived.len(), "{overflow:?}");
        if overflow == Overflow::DropOldest {
            assert_eq!(arrived.last(), Some(&199));
        }
        drop(receiver);
    }
}

/// The count is that of the outbox whose message was dropped.
#[tokio::test(start_paused = true)]
async fn outboxes_of_one_connection_drop_the_oldest_of_both() {
    let (sender, _receiver, peer) = connection().await;
    let a = sender.clone().with_overflow(Overflow::DropOldest);
    let b = sender.clone().with_overflow(Overflow::DropOldest);
    for number in 0..40 {
        send(&a, number).unwrap();
    }
    let of_a = a.dropped();
    for number in 40..60 {
        send(&b, number).unwrap();
    }
    assert!(a.dropped() > of_a && b.dropped() > 0);
    peer.change_rules(|rules| rules.room = usize::MAX);
    sender.flush().await.unwrap();
    let arrived = numbers(&peer.take_frames());
    assert_eq!(a.dropped() + b.dropped(), 60 - arrived.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn messages_are_written_without_further_sends() {
    for overflow in [
        Overflow::Wait,
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Close,
    ] {
        let (ws, peer) = open(Local::Server).await;
        let (sender, _receiver) = ws.split();
        let outbox = sender.with_overflow(overflow);
        assert_eq!(outbox.overflow(), overflow);
        outbox.send("a").await.unwrap();
        outbox.send(&PreparedMessage::new("b")).await.unwrap();
        run_until_idle().await;
        assert_eq!(peer.take_frames(), [text("a"), text("b")], "{overflow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn large_message_being_compressed_does_not_count_as_a_full_queue() {
    let config = DeflateConfig::default();
    for overflow in [Overflow::DropNewest, Overflow::DropOldest, Overflow::Close] {
        let server = Server::builder().compression(config.clone()).build();
        let client = Client::builder().compression(config.clone()).build().unwrap();
        let (mut client, server): (WebSocket, WebSocket) = common::pair(&client, &server).await;
        let (sender, mut receiver) = server.split();
        let outbox = sender.with_overflow(overflow);
        let large = "large ".repeat(50 * 1024);
        for message in [&large, "small", &large, "last"] {
            outbox.send(message).now_or_never().unwrap().unwrap();
        }
        let receiving = async { receiver.recv().await };
        let sent = async {
            for message in [&large, "small", &large, "last"] {
                assert_eq!(client.recv().await.unwrap().unwrap().as_text(), Some(message));
            }
        };
        within(5, async {
            tokio::select! {
                () = sent => {}
                received = receiving => panic!("{received:?}"),
            }
        })
        .await;
        assert_eq!(outbox.dropped(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn lost_connection_is_an_error() {
    for overflow in [
        Overflow::Wait,
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Close,
    ] {
        let (sender, mut receiver, peer) = connection().await;
        let outbox = sender.with_overflow(overflow);
        for number in 0..9 {
            send(&outbox, number).unwrap();
        }
        peer.reset();
        assert!(receiver.recv().await.is_err());
        assert!(send(&outbox, 9).unwrap_err().is_closed());
        assert_eq!(outbox.dropped(), 0, "{overflow:?}: lost is not dropped");
    }
}
