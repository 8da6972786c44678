//! `stats()`.

mod common;

use std::pin::pin;

use common::wire::{binary, close, continuation, ping, text};
use common::{BOTH, open, pair, poll_once, within};
use futures_util::future::FutureExt;
use sockeye::{
    Client, CloseCode, Compress, ConnectionStats, DeflateConfig, Message, PreparedMessage, Server, WebSocket,
};

/// The number of messages sent and received.
fn messages(ws: &WebSocket) -> (u64, u64) {
    let ConnectionStats { sent, received, .. } = ws.stats();
    (sent.messages, received.messages)
}

fn bytes(ws: &WebSocket) -> (u64, u64) {
    let ConnectionStats { sent, received, .. } = ws.stats();
    (sent.bytes, received.bytes)
}

#[tokio::test(start_paused = true)]
async fn messages_and_bytes_of_both_directions_are_counted() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        assert_eq!(ws.stats(), ConnectionStats::default());
        let mask = match local {
            common::Local::Server => 0,
            common::Local::Client => 4,
        };
        let peer_mask = 4 - mask;
        ws.feed("12345").await.unwrap();
        assert_eq!((messages(&ws), bytes(&ws)), ((1, 0), (0, 0)), "encoded, not written");
        ws.flush().await.unwrap();
        assert_eq!(bytes(&ws), (7 + mask, 0));
        // Written from its own memory.
        ws.send(vec![0; 20_000]).await.unwrap();
        ws.send(PreparedMessage::new("prepared")).await.unwrap();
        ws.try_send("").unwrap();
        ws.flush().await.unwrap();
        let sent = 7 + 20_004 + 10 + 2 + 4 * mask;
        assert_eq!((messages(&ws), bytes(&ws)), ((4, 0), (sent, 0)));
        // Two messages, one of them fragmented, and a ping, which is answered.
        peer.send([text("abc"), text("de").unfinished(), ping("?"), continuation("fgh")]);
        for _ in 0..2 {
            ws.recv().await.unwrap().unwrap();
        }
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        let received = 5 + 4 + 3 + 5 + 4 * peer_mask;
        assert_eq!((messages(&ws), bytes(&ws)), ((4, 2), (sent + 3 + mask, received)));
        // Read into its own memory.
        peer.change_rules(|rules| rules.read_max = 64 * 1024);
        peer.send([binary(vec![1; 200_000])]);
        ws.recv().await.unwrap().unwrap();
        assert_eq!(messages(&ws), (4, 3));
        assert_eq!(bytes(&ws).1, received + 200_010 + peer_mask);
        assert_eq!(
            (
                ws.stats().sent.compressed_messages,
                ws.stats().received.compressed_messages
            ),
            (0, 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn counters_remain_after_the_end() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        ws.send("a").await.unwrap();
        peer.send([text("b"), close(1000, "")]);
        ws.recv().await.unwrap().unwrap();
        assert_eq!(ws.recv().await.unwrap(), None);
        assert_eq!(messages(&ws), (1, 1));
        assert!(bytes(&ws).0 >= 3 && bytes(&ws).1 >= 7);
    }
}

#[tokio::test(start_paused = true)]
async fn lost_output_is_not_counted_as_written() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        ws.send("a").await.unwrap();
        let before = bytes(&ws).0;
        peer.change_rules(|rules| rules.room = 0);
        ws.feed("lost").await.unwrap();
        peer.reset();
        ws.recv().await.unwrap_err();
        assert_eq!((messages(&ws), bytes(&ws)), ((2, 0), (before, 0)));
    }
}

#[tokio::test(start_paused = true)]
async fn payload_before_and_after_compression_is_counted() {
    let config = DeflateConfig::default();
    let server = Server::builder().compression(config.clone()).build();
    let client = Client::builder().compression(config).build().unwrap();
    let (mut client, mut server) = pair(&client, &server).await;
    let texts = ["again ".repeat(100), "large ".repeat(50_000), "prepared ".repeat(100)];
    let total: usize = texts.iter().map(String::len).sum();
    let sending = async {
        server.send("small").await.unwrap();
        server.send(texts[0].as_str()).await.unwrap();
        server.send(texts[1].as_str()).await.unwrap();
        server.send(PreparedMessage::new(texts[2].as_str())).await.unwrap();
        server
            .send(Message::from(texts[0].as_str()).compress(Compress::Never))
            .await
            .unwrap();
    };
    let receiving = async {
        for _ in 0..5 {
            client.recv().await.unwrap().unwrap();
        }
    };
    within(5, async { tokio::join!(sending, receiving) }).await;
    let (sent, received) = (server.stats().sent, client.stats().received);
    assert_eq!(sent, received);
    assert_eq!((sent.messages, sent.compressed_messages), (5, 3));
    assert_eq!(sent.payload_bytes_before_compression, total as u64);
    let after = sent.payload_bytes_after_compression;
    assert!(after > 0 && after < total as u64 / 50, "{after}");
    // The uncompressed ones with a header of 2 and of 4 bytes; the compressed ones with at least 2, and 10 at most for
    // each of the 5 parts of the large one.
    let others = (5 + 2) + (texts[0].len() + 4) as u64;
    assert!(
        (others + after + 3 * 2..=others + after + 7 * 10).contains(&sent.bytes),
        "{sent:?}"
    );
    // They remain when the rest of the end is left to a background task.
    client.start_close(CloseCode::NORMAL, "").unwrap();
    let closing = async { client.recv().await.unwrap() };
    let (end, other_end) = within(5, async {
        tokio::join!(closing, async { server.recv().await.unwrap() })
    })
    .await;
    assert_eq!((end, other_end), (None, None));
    assert_eq!(client.stats().received.compressed_messages, 3);
    assert_eq!(server.stats().sent.payload_bytes_after_compression, after);
    assert!(server.negotiated_deflate().is_some());
}

#[tokio::test(start_paused = true)]
async fn halves_have_the_counters_of_the_connection() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        ws.send("a").await.unwrap();
        let (sender, mut receiver) = ws.split();
        sender.send("b").await.unwrap();
        peer.send([text("c")]);
        receiver.recv().await.unwrap().unwrap();
        let stats = sender.stats().now_or_never().expect("nothing else uses the connection");
        assert_eq!((stats.sent.messages, stats.received.messages), (2, 1));
        assert_eq!(receiver.stats().await, stats);
    }
}
