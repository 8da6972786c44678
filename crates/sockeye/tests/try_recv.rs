//! Receiving messages that have arrived, without waiting.

mod common;

use std::pin::pin;
use std::time::Duration;

use common::wire::{close, ping, pong, text};
use common::{BOTH, Local, open, open_linked, poll_once, within};
use futures_util::StreamExt;
use sockeye::{CloseCause, CloseCode, Limits, Message, TryRecvError};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn try_recv_returns_arrived_messages_then_empty() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        assert!(ws.try_recv().unwrap_err().is_empty());
        peer.send([text("a"), ping("?"), text("b"), text("c".repeat(1000))]);
        for expected in ["a", "b", &"c".repeat(1000)] {
            assert_eq!(ws.try_recv().unwrap(), Message::text(expected));
        }
        ws.feed("queued").await.unwrap();
        assert!(ws.try_recv().unwrap_err().is_empty());
        assert_eq!(peer.take_frames(), [pong("?"), text("queued")]);
        // A message that arrives in pieces.
        peer.change_rules(|rules| rules.read_max = 1);
        peer.send([text("slow")]);
        let message = loop {
            match ws.try_recv() {
                Ok(message) => break message,
                Err(error) => assert!(error.is_empty()),
            }
        };
        assert_eq!(message, Message::text("slow"));
    }
}

#[tokio::test(start_paused = true)]
async fn try_recv_reports_the_end_like_recv() {
    for local in BOTH {
        for (code, is_normal) in [(1000, true), (4000, false)] {
            let (mut ws, peer) = open(local).await;
            peer.send([text("last"), close(code, "")]);
            peer.end();
            assert_eq!(ws.try_recv().unwrap(), Message::text("last"));
            for _ in 0..3 {
                match ws.try_recv().unwrap_err() {
                    TryRecvError::Ended => assert!(is_normal),
                    TryRecvError::Failed(error) => {
                        assert!(!is_normal);
                        assert_eq!(error.close_code(), Some(CloseCode(code)));
                    }
                    TryRecvError::Empty => panic!("not the end"),
                }
            }
            // `recv` reports it too, and lets other tasks run.
            assert_eq!(ws.recv().await.is_ok(), is_normal);
            assert!(!ws.try_recv().unwrap_err().is_empty());
            assert!(peer.take_frames().contains(&close(code, "")));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn try_recv_handles_keepalive_and_deadlines() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let start = Instant::now();
        let error = loop {
            match ws.try_recv() {
                Err(TryRecvError::Empty) => sleep(Duration::from_millis(100)).await,
                Err(TryRecvError::Failed(error)) => break error,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(error.close_info().unwrap().cause(), CloseCause::KeepaliveTimeout);
        assert!(start.elapsed() < Duration::from_secs(32), "{:?}", start.elapsed());
        assert_eq!(peer.take_frames().len(), 1, "one ping");
    }
}

#[tokio::test(start_paused = true)]
async fn recv_after_try_recv_is_woken() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let receiving = tokio::spawn(async move {
            assert!(ws.try_recv().unwrap_err().is_empty());
            let message = ws.recv().await.unwrap();
            (ws, message)
        });
        sleep(Duration::from_secs(1)).await;
        peer.send([text("now")]);
        let (_ws, message) = within(1, receiving).await.unwrap();
        assert_eq!(message, Some(Message::text("now")));
    }
}

#[tokio::test(start_paused = true)]
async fn pending_stream_is_woken_after_try_recv() {
    let (mut ws, peer) = open(Local::Server).await;
    assert!(poll_once(pin!(ws.next())).await.is_pending());
    assert!(ws.try_recv().unwrap_err().is_empty());
    peer.send([text("x")]);
    assert_eq!(within(1, ws.next()).await.unwrap().unwrap(), Message::text("x"));
}

#[tokio::test(start_paused = true)]
async fn receiver_try_recv_returns_arrived_messages() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        assert!(receiver.try_recv().unwrap_err().is_empty());
        peer.send([text("a"), text("b")]);
        sender.feed("queued").await.unwrap();
        assert_eq!(receiver.try_recv().unwrap(), Message::text("a"));
        assert_eq!(receiver.try_recv().unwrap(), Message::text("b"));
        assert!(receiver.try_recv().unwrap_err().is_empty());
        assert_eq!(peer.take_frames(), [text("queued")]);
        peer.send([close(1000, "")]);
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Ended)));
        assert!(!sender.is_open());
    }
}

/// A peer that never stops sending: the loop over `try_recv` ends, and `recv` then lets other tasks run.
#[tokio::test(start_paused = true)]
async fn try_recv_loop_does_not_starve_other_tasks() {
    let (mut ws, mut far) = open_linked(Local::Server, 1024 * 1024, Limits::default()).await;
    let frames = [0x82, 0x80, 0, 0, 0, 0].repeat(150_000);
    far.write_all(&frames).await.unwrap();
    let mut at_once = 0;
    while ws.try_recv().is_ok() {
        at_once += 1;
    }
    assert!((8_000..50_000).contains(&at_once), "{at_once}");
    assert!(poll_once(pin!(ws.recv())).await.is_pending(), "others have their turn");
    // A program that calls nothing else receives everything.
    let mut rest = 0;
    for _ in 0..100 {
        while ws.try_recv().is_ok() {
            rest += 1;
        }
    }
    assert_eq!(at_once + rest, 150_000);
}
