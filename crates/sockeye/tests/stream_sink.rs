//! Two tasks that use one unsplit connection as `Stream` and `Sink`, such as the halves of `futures`'
//! `StreamExt::split`.

mod common;

use std::time::Duration;

use common::wire::{close, text};
use common::{BOTH, open, pair, poll_once, run_until_idle, within};
use futures_util::{SinkExt, StreamExt};
use sockeye::{Client, CloseCause, Message, Server};
use tokio::time::{Instant, sleep};

async fn send_much_while_receiving() {
    const LEN: usize = 12 * 1024 * 1024;
    let (client, mut server) = pair(&Client::default(), &Server::default()).await;
    let (mut sink, stream) = StreamExt::split(client);
    let receiving = tokio::spawn(stream.take(2).collect::<Vec<_>>());
    run_until_idle().await;
    let sending = tokio::spawn(async move { sink.send(Message::binary(vec![7; LEN])).await });
    run_until_idle().await;
    // The stream is polled while the sink waits for room.
    server.send("some").await.unwrap();
    run_until_idle().await;
    let received = within(30, server.recv()).await.unwrap().unwrap();
    assert_eq!(received.len(), LEN);
    within(30, sending).await.unwrap().unwrap();
    server.send("all").await.unwrap();
    let answers = within(30, receiving).await.unwrap();
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, ["some", "all"].map(Message::text));
}

#[tokio::test(start_paused = true)]
async fn large_message_is_sent_while_the_other_half_receives() {
    send_much_while_receiving().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_message_is_sent_while_the_other_half_receives_on_another_thread() {
    send_much_while_receiving().await;
}

/// Both directions are full, in both pairs of tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_progress_when_full() {
    const COUNT: usize = 2_000;
    let (client, server) = pair(&Client::default(), &Server::default()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for ws in [client, server] {
        let (mut sink, mut stream) = StreamExt::split::<Message>(ws);
        tasks.spawn(async move {
            for number in 0..COUNT {
                let message = Message::text(format!("{number} {}", "-".repeat(number % 3_000)));
                match number % 3 {
                    0 => sink.send(message).await.unwrap(),
                    _ => sink.feed(message).await.unwrap(),
                }
            }
            sink.flush().await.unwrap();
        });
        tasks.spawn(async move {
            for number in 0..COUNT {
                let message = stream.next().await.unwrap().unwrap();
                let (first, _) = message.as_text().unwrap().split_once(' ').unwrap();
                assert_eq!(first, number.to_string());
            }
        });
    }
    within(60, async {
        while let Some(joined) = tasks.join_next().await {
            joined.unwrap();
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn sink_close_leaves_messages_to_the_stream() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (mut sink, stream) = StreamExt::split::<Message>(ws);
        let receiving = tokio::spawn(stream.collect::<Vec<_>>());
        run_until_idle().await;
        sink.feed(Message::text("first")).await.unwrap();
        within(1, sink.close()).await.unwrap();
        assert_eq!(peer.take_frames(), [text("first"), close(1000, "")]);
        peer.send([text("a"), text("b")]);
        run_until_idle().await;
        peer.send([text("c"), close(1000, "")]);
        peer.end();
        let received = within(60, receiving).await.unwrap();
        let received: Vec<_> = received.into_iter().map(Result::unwrap).collect();
        assert_eq!(received, ["a", "b", "c"].map(Message::text), "{local:?}");
        // Closing again is harmless.
        within(1, sink.close()).await.unwrap();
        assert!(sink.send(Message::text("late")).await.unwrap_err().is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn sink_close_waits_until_the_close_frame_is_written() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (mut sink, stream) = StreamExt::split::<Message>(ws);
        let _receiving = tokio::spawn(stream.collect::<Vec<_>>());
        run_until_idle().await;
        peer.change_rules(|rules| rules.room = 0);
        let closing = tokio::spawn(async move { sink.close().await });
        run_until_idle().await;
        assert!(!closing.is_finished());
        peer.change_rules(|rules| rules.room = usize::MAX);
        within(1, closing).await.unwrap().unwrap();
        assert_eq!(peer.take_frames(), [close(1000, "")]);
    }
}

#[tokio::test(start_paused = true)]
async fn sink_close_sets_the_timer_of_the_stream() {
    for local in BOTH {
        let (ws, _peer) = open(local).await;
        let (mut sink, mut stream) = StreamExt::split::<Message>(ws);
        let receiving = tokio::spawn(async move { stream.next().await });
        sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        sink.close().await.unwrap();
        let error = within(60, receiving).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.close_info().unwrap().cause(), CloseCause::CloseTimeout);
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn half_is_woken_when_the_other_detects_a_lost_connection() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (mut sink, mut stream) = StreamExt::split::<Message>(ws);
        let receiving = tokio::spawn(async move { stream.next().await });
        run_until_idle().await;
        peer.fail_after(0);
        run_until_idle().await;
        let start = Instant::now();
        assert!(sink.send(Message::text("x")).await.unwrap_err().is_io());
        let error = within(60, receiving).await.unwrap().unwrap().unwrap_err();
        assert!(error.is_io(), "{error:?}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

/// The stream's task is never polled, so the sink's task must be woken by the transport.
#[tokio::test(start_paused = true)]
async fn sink_is_woken_although_the_stream_was_polled_later() {
    let (ws, peer) = open(common::Local::Server).await;
    let (mut sink, mut stream) = StreamExt::split::<Message>(ws);
    peer.change_rules(|rules| rules.room = 0);
    let sending = tokio::spawn(async move { sink.send(Message::text("x")).await });
    run_until_idle().await;
    // Registers another waker for the same direction, of a task that is never polled again.
    assert!(poll_once(Box::pin(stream.next())).await.is_pending());
    peer.change_rules(|rules| rules.room = usize::MAX);
    within(1, sending).await.unwrap().unwrap();
    assert_eq!(peer.take_frames(), [text("x")]);
}
