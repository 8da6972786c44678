//! One message for many connections.

mod common;

use std::pin::pin;
use std::time::Duration;

use common::wire::{binary, text};
use common::{BOTH, Local, open, open_server, pair, poll_once, within};
use sockeye::{
    Client, Compress, DeflateConfig, Limits, Message, PreparedMessage, Server, Takeover, TrySendError, WebSocket,
};

/// The ends of a server and a client that compress.
async fn deflating_pair(server: DeflateConfig, client: DeflateConfig) -> (WebSocket, WebSocket) {
    let server = Server::builder().compression(server).build();
    let client = Client::builder().compression(client).build().unwrap();
    let (client, server) = pair(&client, &server).await;
    (server, client)
}

fn deflate(takeover: Takeover, level: u8) -> DeflateConfig {
    let mut config = DeflateConfig::default();
    config.takeover = takeover;
    config.peer_takeover = takeover;
    config.level = level;
    config
}

#[tokio::test(start_paused = true)]
async fn prepared_message_is_received_like_any_other() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        for len in [0, 5, 125, 126, 20_000, 70_000] {
            let long = "x".repeat(len);
            let prepared = [
                PreparedMessage::new(long.as_str()),
                PreparedMessage::new(long.as_bytes()),
                PreparedMessage::with_compress(long.clone(), Compress::Always),
            ];
            assert_eq!(prepared[0].message().as_text(), Some(long.as_str()));
            for prepared in &prepared {
                ws.feed(prepared).await.unwrap();
                ws.try_send(prepared).unwrap();
            }
            ws.flush().await.unwrap();
            let expected = [text(&long), binary(&long), text(&long)];
            let expected: Vec<_> = expected.into_iter().flat_map(|frame| [frame.clone(), frame]).collect();
            assert_eq!(peer.take_frames(), expected, "{local:?} {len}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn large_and_small_frames_are_sent_in_order() {
    let large = PreparedMessage::new("l".repeat(20_000));
    for write_max in [1, 1000, usize::MAX] {
        let (mut ws, peer) = open(Local::Server).await;
        peer.change_rules(|rules| rules.write_max = write_max);
        ws.feed("first").await.unwrap();
        ws.feed(&large).await.unwrap();
        ws.feed("between").await.unwrap();
        ws.feed("m".repeat(16 * 1024)).await.unwrap();
        ws.feed(&large).await.unwrap();
        ws.feed("last").await.unwrap();
        ws.flush().await.unwrap();
        let (l, m) = ("l".repeat(20_000), "m".repeat(16 * 1024));
        let expected = ["first", &l, "between", &m, &l, "last"].map(text);
        assert_eq!(peer.take_frames(), expected);
        if write_max == usize::MAX {
            assert_eq!(peer.take_writes().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn broadcast_does_not_wait_for_a_slow_receiver() {
    let mut limits = Limits::default();
    limits.write_buffer_max = 1300;
    let (slow, peer) = open_server(&Server::builder().limits(limits).build()).await;
    peer.change_rules(|rules| rules.room = 0);
    let (sender, _receiver) = slow.split();
    let news = PreparedMessage::new("n".repeat(600));
    sender.try_send(&news).unwrap();
    sender.try_send(&news).unwrap();
    let refused = sender.try_send(&news).unwrap_err();
    assert!(matches!(refused, TrySendError::Full { message, .. } if message.to_message() == *news.message()));
    assert!(sender.is_open());
}

#[tokio::test(start_paused = true)]
async fn the_receivers_task_writes_what_a_sender_queued() {
    let (ws, peer) = open(Local::Server).await;
    let (sender, mut receiver) = ws.split();
    let receiving = tokio::spawn(async move { receiver.recv().await });
    tokio::task::yield_now().await;
    let news = PreparedMessage::new("news");
    for _ in 0..3 {
        sender.clone().try_send(&news).unwrap();
    }
    tokio::task::yield_now().await;
    assert_eq!(peer.take_frames(), [text("news"), text("news"), text("news")]);
    assert_eq!(peer.take_writes().len(), 1);
    receiving.abort();
}

#[tokio::test(start_paused = true)]
async fn prepared_message_is_compressed_for_each_set_of_parameters() {
    let news = PreparedMessage::new("{\"price\":1024.5,\"symbol\":\"SOCK\"}".repeat(100));
    let settings = [
        (deflate(Takeover::Reset, 1), deflate(Takeover::Reset, 1)),
        (deflate(Takeover::Keep, 1), deflate(Takeover::Keep, 1)),
        (deflate(Takeover::Reset, 9), deflate(Takeover::Reset, 1)),
        (deflate(Takeover::Reset, 1), {
            let mut narrow = deflate(Takeover::Reset, 1);
            narrow.peer_window_bits = sockeye::WindowBits::new(9).unwrap();
            narrow
        }),
    ];
    for (server, client) in settings {
        let (mut server, mut client) = deflating_pair(server, client).await;
        for _ in 0..3 {
            server.feed(&news).await.unwrap();
            server.feed("between").await.unwrap();
            server.flush().await.unwrap();
            for expected in [news.message(), &Message::from("between")] {
                let received = within(1, client.recv()).await.unwrap();
                assert_eq!(received.as_ref(), Some(expected));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closed_connection_rejects_prepared_messages() {
    let (mut ws, _peer) = open(Local::Server).await;
    let closing = tokio::time::timeout(Duration::ZERO, ws.close(sockeye::CloseCode::NORMAL, "")).await;
    assert!(closing.is_err(), "the peer has not answered");
    let news = PreparedMessage::new("news");
    assert!(matches!(ws.try_send(&news), Err(TrySendError::Closed(_))));
    assert!(matches!(
        poll_once(pin!(ws.feed(&news))).await,
        std::task::Poll::Ready(Err(_))
    ));
}
