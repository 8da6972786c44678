//! Receiving what has arrived, without waiting.

mod common;

use std::pin::pin;
use std::time::Duration;

use common::wire::{close, ping, pong, text};
use common::{BOTH, Local, look, open, open_linked, within};
use futures_util::StreamExt;
use sockeye::{CloseCause, CloseCode, Limits, Message, TryRecvError};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn it_gives_what_has_arrived_and_then_nothing() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        assert!(ws.try_recv().unwrap_err().is_empty());
        peer.sends([text("a"), ping("?"), text("b"), text("c".repeat(1000))]);
        for expected in ["a", "b", &"c".repeat(1000)] {
            assert_eq!(ws.try_recv().unwrap(), Message::text(expected));
        }
        ws.feed("queued").await.unwrap();
        assert!(ws.try_recv().unwrap_err().is_empty());
        assert_eq!(peer.takes(), [pong("?"), text("queued")]);
        // A message that comes in pieces.
        peer.rule(|rules| rules.read_max = 1);
        peer.sends([text("slow")]);
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
async fn it_gives_the_end_as_recv_does() {
    for local in BOTH {
        for (code, is_normal) in [(1000, true), (4000, false)] {
            let (mut ws, peer) = open(local).await;
            peer.sends([text("last"), close(code, "")]);
            peer.ends();
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
            // `recv` gives it too, and lets other tasks run.
            assert_eq!(ws.recv().await.is_ok(), is_normal);
            assert!(!ws.try_recv().unwrap_err().is_empty());
            assert!(peer.takes().contains(&close(code, "")));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_enough_for_keepalive_and_deadlines() {
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
        assert_eq!(peer.takes().len(), 1, "one ping");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recv_behind_it_waits_and_is_woken() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let receiving = tokio::spawn(async move {
            assert!(ws.try_recv().unwrap_err().is_empty());
            let message = ws.recv().await.unwrap();
            (ws, message)
        });
        sleep(Duration::from_secs(1)).await;
        peer.sends([text("now")]);
        let (_ws, message) = within(1, receiving).await.unwrap();
        assert_eq!(message, Some(Message::text("now")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_is_woken_after_it() {
    let (mut ws, peer) = open(Local::Server).await;
    assert!(look(pin!(ws.next())).await.is_pending());
    assert!(ws.try_recv().unwrap_err().is_empty());
    peer.sends([text("x")]);
    assert_eq!(within(1, ws.next()).await.unwrap().unwrap(), Message::text("x"));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_gives_what_has_arrived() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        assert!(receiver.try_recv().unwrap_err().is_empty());
        peer.sends([text("a"), text("b")]);
        sender.feed("queued").await.unwrap();
        assert_eq!(receiver.try_recv().unwrap(), Message::text("a"));
        assert_eq!(receiver.try_recv().unwrap(), Message::text("b"));
        assert!(receiver.try_recv().unwrap_err().is_empty());
        assert_eq!(peer.takes(), [text("queued")]);
        peer.sends([close(1000, "")]);
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Ended)));
        assert!(!sender.is_open());
    }
}

/// A peer that never stops sending: the loop over `try_recv` ends, and `recv` then lets other tasks run.
#[tokio::test(start_paused = true)]
async fn a_loop_over_it_cannot_starve_other_tasks() {
    let (mut ws, mut far) = open_linked(Local::Server, 1024 * 1024, Limits::default()).await;
    let frames = [0x82, 0x80, 0, 0, 0, 0].repeat(150_000);
    far.write_all(&frames).await.unwrap();
    let mut at_once = 0;
    while ws.try_recv().is_ok() {
        at_once += 1;
    }
    assert!((8_000..50_000).contains(&at_once), "{at_once}");
    assert!(look(pin!(ws.recv())).await.is_pending(), "others have their turn");
    // A program that calls nothing else gets all of it.
    let mut rest = 0;
    for _ in 0..100 {
        while ws.try_recv().is_ok() {
            rest += 1;
        }
    }
    assert_eq!(at_once + rest, 150_000);
}
