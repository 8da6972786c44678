//! A `Sender`'s view of its queue, and how it ends the connection.

mod common;

use std::pin::pin;
use std::time::Duration;

use common::wire::{close, text};
use common::{BOTH, Local, Peer, open, open_server, poll_once, run_until_idle, within};
use sockeye::{
    CloseCode, Compress, Limits, Message, Outbound, PreparedMessage, Receiver, Sender, Server, TrySendError,
};
use tokio::time::{Instant, advance};

/// A server's connection that can queue 20 bytes, to a peer that takes nothing.
async fn stalled() -> (Sender, Receiver, Peer) {
    let mut limits = Limits::default();
    limits.write_buffer_max = 20;
    let (ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
    peer.change_rules(|rules| rules.room = 0);
    let (sender, receiver) = ws.split();
    (sender, receiver, peer)
}

#[tokio::test(start_paused = true)]
async fn full_has_queued_bytes_and_since() {
    let (sender, _receiver, peer) = stalled().await;
    assert_eq!(sender.queued_bytes(), 0);
    sender.try_send("0123456789").unwrap();
    assert_eq!(sender.queued_bytes(), 12);
    let first = Instant::now().into_std();
    for waited in 0..3 {
        let refused = sender.try_send("0123456789".to_owned()).unwrap_err();
        assert!(refused.is_full());
        let TrySendError::Full {
            message,
            queued_bytes,
            since,
            ..
        } = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!(message.to_message(), Message::text("0123456789"));
        assert_eq!((queued_bytes, since), (12, first), "after {waited} s");
        advance(Duration::from_secs(1)).await;
    }
    // An accepted message resets it.
    sender.try_send("x").unwrap();
    let refused = sender.try_send("0123456789").unwrap_err();
    assert!(matches!(refused, TrySendError::Full { since, .. } if since == Instant::now().into_std()));
    peer.change_rules(|rules| rules.room = usize::MAX);
    run_until_idle().await;
    sender.flush().await.unwrap();
    assert_eq!(peer.take_frames(), [text("0123456789"), text("x")]);
    assert_eq!(sender.queued_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn start_close_sends_the_close_frame_after_queued_messages() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, receiver) = ws.split();
        sender.try_send("last").unwrap();
        sender.start_close(CloseCode::GOING_AWAY, "bye").unwrap();
        assert!(!sender.is_open());
        run_until_idle().await;
        assert_eq!(peer.take_frames(), [text("last"), close(1001, "bye")]);
        assert!(sender.send("late").await.unwrap_err().is_closed());
        drop(receiver);
    }
    let (ws, _peer) = open(Local::Server).await;
    let (sender, _receiver) = ws.split();
    assert!(sender.start_close(CloseCode(1006), "").unwrap_err().is_invalid_input());
    assert!(!sender.is_open());
}

#[tokio::test(start_paused = true)]
async fn abort_does_not_wait_for_queued_messages() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        peer.change_rules(|rules| rules.room = 0);
        let sending = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send("never").await }
        });
        let closed = tokio::spawn({
            let sender = sender.clone();
            async move { sender.closed().await }
        });
        peer.send([text("before")]);
        run_until_idle().await;
        sender.abort();
        assert!(peer.is_transport_closed());
        let error = within(1, sending).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), sockeye::ErrorKind::Closed);
        assert!(error.is_closed() && !error.is_retryable(), "{error}");
        within(1, closed).await.unwrap();
        assert!(sender.try_send("late").is_err());
        let received = receiver.recv().await;
        // The waiting sender has read ahead.
        assert_eq!(received.unwrap(), Some("before".into()));
        assert_eq!(receiver.recv().await.unwrap_err().to_string(), error.to_string());
        sender.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn closed_is_ready_only_at_the_end() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        let mut closed = pin!(sender.closed());
        assert!(poll_once(&mut closed).await.is_pending());
        peer.send([text("more")]);
        receiver.recv().await.unwrap();
        assert!(poll_once(&mut closed).await.is_pending());
        let waiting = tokio::spawn({
            let sender = sender.clone();
            async move { sender.closed().await }
        });
        run_until_idle().await;
        peer.send([close(1000, "")]);
        assert_eq!(receiver.recv().await.unwrap(), None);
        within(1, waiting).await.unwrap();
        within(1, closed).await;
        within(1, sender.closed()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_message_type_converts_into_outbound() {
    let (mut ws, peer) = open(Local::Server).await;
    let prepared = PreparedMessage::new("prepared");
    let outbound: [Outbound; 6] = [
        "str".into(),
        "String".to_owned().into(),
        Message::text("Message").into(),
        (&prepared).into(),
        prepared.clone().into(),
        Message::text("choice").compress(Compress::Never),
    ];
    let expected: Vec<_> = outbound.iter().map(Outbound::to_message).collect();
    for outbound in outbound {
        assert!(!outbound.is_empty());
        ws.feed(outbound).await.unwrap();
    }
    ws.flush().await.unwrap();
    let sent = ["str", "String", "Message", "prepared", "prepared", "choice"];
    assert_eq!(expected, sent.map(Message::text));
    assert_eq!(peer.take_frames(), sent.map(text));
}
