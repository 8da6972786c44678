//! Large messages that are compressed in parts: other tasks run in between, control frames are sent between the parts.

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use common::script::transport;
use common::wire::{Frame, close, ping, pong};
use common::{BOTH, Local, Peer, REQUEST, finish, pair, poll_at_most, poll_once, within};
use sockeye::{Client, CloseCode, Compress, DeflateConfig, Message, PreparedMessage, Server, TrySendError, WebSocket};
use tokio::time::Instant;

const MIB: usize = 1024 * 1024;

/// The size of one part.
const PART: usize = 64 * 1024;

fn json_like(len: usize) -> String {
    let mut text = String::new();
    for number in 0_u64.. {
        if text.len() >= len {
            break;
        }
        text += &format!("{{\"price\":{},\"symbol\":\"\u{20ac}\"}}", number * 7919 % 10_007);
    }
    text
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Two connected ends that compress, that of `local` first.
async fn deflating_pair(local: Local) -> (WebSocket, WebSocket) {
    let client = Client::builder().compression(DeflateConfig::default()).build().unwrap();
    let server = Server::builder().compression(DeflateConfig::default()).build();
    let (client, server) = pair(&client, &server).await;
    match local {
        Local::Server => (server, client),
        Local::Client => (client, server),
    }
}

/// The server's end of a connection that compresses, and a peer that sends raw frames.
async fn deflating_server() -> (WebSocket, Peer) {
    let (io, peer) = transport(true);
    let offer = "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    peer.send_bytes(REQUEST.replace("\r\n\r\n", offer));
    let server = Server::builder().compression(DeflateConfig::default()).build();
    let ws = server.accept(io).await.unwrap().accept().await.unwrap();
    peer.take_bytes();
    (ws, peer)
}

/// Counts how often other tasks run until a future is ready.
async fn yields_until<F: Future>(future: F) -> (usize, F::Output) {
    let mut future = pin!(future);
    let mut turns = 0;
    let output = poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        turns += usize::from(polled.is_pending());
        assert!(turns < 10_000, "no end");
        polled
    });
    let output = within(1, output).await;
    (turns, output)
}

#[tokio::test(start_paused = true)]
async fn compression_does_not_starve_other_tasks() {
    let text = json_like(2 * MIB);
    for local in BOTH {
        let (mut ws, mut peer) = deflating_pair(local).await;
        let receiving = tokio::spawn(async move { peer.recv().await.unwrap().unwrap() });
        let (turns, sent) = yields_until(ws.send(text.as_str())).await;
        sent.unwrap();
        assert!(turns >= text.len() / PART - 1, "{turns}");
        assert!(receiving.await.unwrap() == text.as_str().into());
    }
    // The same for an echo of many small messages.
    let (mut ws, peer) = deflating_server().await;
    let peer_sends: Vec<Frame> = (0..1000).map(|_| common::wire::binary([7; 1000])).collect();
    peer.send(peer_sends);
    let echoing = async {
        for _ in 0..1000 {
            let message = ws.recv().await.unwrap().unwrap();
            ws.feed(message).await.unwrap();
        }
    };
    let (turns, ()) = yields_until(echoing).await;
    assert!(turns >= 1000 * 1000 * 16 / (2 * MIB), "{turns}");
}

#[tokio::test(start_paused = true)]
async fn large_single_frame_message_is_inflated_completely() {
    // About 300 KiB on the wire, so that the end of it is read straight into the message buffer.
    let text = PreparedMessage::new(json_like(2 * MIB));
    let (mut server, mut client) = deflating_pair(Local::Server).await;
    for _ in 0..2 {
        let (sent, received) = within(1, async { tokio::join!(server.send(&text), client.recv()) }).await;
        sent.unwrap();
        assert!(received.unwrap().unwrap() == *text.message());
    }
}

#[tokio::test(start_paused = true)]
async fn large_message_is_sent_in_fragments_by_every_sending_method() {
    // checks [7692-6.1-1, 7692-6.1-5]
    let text = json_like(MIB);
    for with_recv in [false, true] {
        let (mut ws, peer) = deflating_server().await;
        ws.feed(text.as_str()).await.unwrap();
        if with_recv {
            let receiving = tokio::time::timeout(Duration::from_secs(1), ws.recv());
            receiving.await.unwrap_err();
        } else {
            ws.flush().await.unwrap();
        }
        let heads: Vec<_> = peer.take_frames().iter().map(Frame::head).collect();
        assert_eq!(heads.len(), text.len().div_ceil(PART));
        let (last, others) = heads.split_last().unwrap();
        assert_eq!((others[0], *last), ((false, true, 0x1), (true, false, 0x0)));
        assert!(others[1..].iter().all(|head| *head == (false, false, 0x0)));
    }
}

#[tokio::test(start_paused = true)]
async fn incompressible_messages_are_sent_uncompressed_and_small_ones_in_one_frame() {
    let (mut ws, peer) = deflating_server().await;
    let noise = noise(MIB);
    ws.send(noise.as_slice()).await.unwrap();
    assert_eq!(peer.take_frames(), [common::wire::binary(&noise)]);
    ws.send(vec![0; PART]).await.unwrap();
    let heads: Vec<_> = peer.take_frames().iter().map(Frame::head).collect();
    assert_eq!(heads, [(true, true, 0x2)]);
}

#[tokio::test(start_paused = true)]
async fn send_dropped_at_any_poll_sends_the_complete_message() {
    let text = json_like(5 * PART);
    for local in BOTH {
        let mut polls = 1;
        loop {
            let (mut ws, mut peer) = deflating_pair(local).await;
            let receiving = tokio::spawn(async move {
                let first = peer.recv().await.unwrap().unwrap();
                let second = peer.recv().await.unwrap().unwrap();
                (first, second)
            });
            let is_sent = poll_at_most(polls, ws.send(text.as_str())).await.is_some();
            within(1, ws.send("behind")).await.unwrap();
            let (first, second) = within(1, receiving).await.unwrap();
            assert!(
                first == text.as_str().into() && second == "behind".into(),
                "after {polls} polls"
            );
            if is_sent {
                break;
            }
            polls += 1;
        }
        assert!(polls >= text.len() / PART, "{polls}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_sender_send_continues_with_the_receiver() {
    let text = json_like(MIB);
    for local in BOTH {
        let (ws, mut peer) = deflating_pair(local).await;
        let (sender, mut receiver) = ws.split();
        let receiving = tokio::spawn(async move { receiver.recv().await });
        assert!(poll_at_most(3, sender.send(text.as_str())).await.is_none());
        let received = within(1, peer.recv()).await.unwrap().unwrap();
        assert!(received == text.as_str().into());
        receiving.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn try_send_of_large_message_is_flushed_in_the_background() {
    let text = json_like(MIB);
    for local in BOTH {
        let (ws, mut peer) = deflating_pair(local).await;
        let (sender, mut receiver) = ws.split();
        let receiving = tokio::spawn(async move { receiver.recv().await });
        tokio::task::yield_now().await;
        sender.try_send(text.as_str()).unwrap();
        let received = within(1, peer.recv()).await.unwrap().unwrap();
        assert!(received == text.as_str().into());
        receiving.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn messages_behind_a_compression_wait() {
    for local in BOTH {
        let (mut ws, mut peer) = deflating_pair(local).await;
        let receiving = tokio::spawn(async move {
            for len in [MIB, 3, MIB, 3] {
                assert_eq!(peer.recv().await.unwrap().unwrap().len(), len);
            }
        });
        for _ in 0..2 {
            ws.try_send(vec![0; MIB]).unwrap();
            let full = ws.try_send("too").unwrap_err();
            assert!(matches!(full, TrySendError::Full { message, .. } if message.to_message() == "too".into()));
            within(1, ws.send("too")).await.unwrap();
        }
        within(1, receiving).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn pong_is_sent_between_fragments() {
    // checks [6455-5.4-1]
    let (mut ws, peer) = deflating_server().await;
    ws.feed(vec![0; MIB]).await.unwrap();
    for _ in 0..3 {
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
    }
    peer.send([ping("now")]);
    for _ in 0..3 {
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
    }
    let frames = peer.take_frames();
    assert!(frames.contains(&pong("now")), "{frames:?}");
    assert!(
        frames.iter().all(|frame| frame.head() != (true, false, 0x0)),
        "not whole"
    );
}

#[tokio::test(start_paused = true)]
async fn messages_are_received_during_compression() {
    for local in BOTH {
        let (mut ws, mut peer) = deflating_pair(local).await;
        peer.send("news").await.unwrap();
        ws.feed(vec![0; 16 * MIB]).await.unwrap();
        let (turns, received) = yields_until(ws.recv()).await;
        assert!(received.unwrap().unwrap() == "news".into());
        assert!(turns < 5, "{turns}");
    }
}

#[tokio::test(start_paused = true)]
async fn close_frame_is_sent_after_the_compressed_message() {
    // checks [6455-5.5.1-4]
    for peer_closes in [false, true] {
        let (mut ws, peer) = deflating_server().await;
        ws.feed(vec![0; MIB]).await.unwrap();
        if peer_closes {
            peer.send([close(1000, "")]);
            peer.end();
        } else {
            ws.start_close(CloseCode::NORMAL, "").unwrap();
        }
        let received = tokio::time::timeout(Duration::from_millis(100), ws.recv()).await;
        match peer_closes {
            true => assert!(received.unwrap().unwrap().is_none(), "at once"),
            false => assert!(received.is_err(), "the peer has not answered"),
        }
        match peer_closes {
            true => finish(ws, &peer).await,
            false => drop(ws),
        }
        let frames = peer.take_frames();
        assert_eq!(frames.len(), MIB / PART + 1, "{frames:?}");
        let [.., last, closing] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!((last.head(), closing), ((true, false, 0x0), &close(1000, "")));
    }
}

#[tokio::test(start_paused = true)]
async fn both_ends_close_normally_behind_large_messages() {
    let text = json_like(MIB);
    for local in BOTH {
        for split in [false, true] {
            let (mut ws, mut peer) = deflating_pair(local).await;
            let receiving = async {
                let message = peer.recv().await.unwrap().unwrap();
                assert!(message == text.as_str().into());
                assert!(peer.recv().await.unwrap().is_none());
            };
            let sending = async {
                if split {
                    let (sender, mut receiver) = ws.split();
                    sender.feed(text.as_str()).await.unwrap();
                    let (closed, end) = tokio::join!(sender.close(CloseCode::NORMAL, ""), receiver.recv());
                    assert!(closed.is_ok() && end.unwrap().is_none());
                } else {
                    ws.feed(text.as_str()).await.unwrap();
                    ws.close(CloseCode::NORMAL, "").await.unwrap();
                }
            };
            within(4, async { tokio::join!(receiving, sending) }).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn protocol_violation_drops_the_rest_of_the_message() {
    let (mut ws, peer) = deflating_server().await;
    ws.feed(vec![0; MIB]).await.unwrap();
    peer.send([common::wire::continuation("of nothing")]);
    peer.end();
    let received = within(1, ws.recv()).await;
    assert!(received.unwrap_err().is_protocol());
    let frames = peer.take_frames();
    assert!(frames.len() < 5, "{frames:?}");
    assert_eq!(frames.last().unwrap().head().2, 0x8);
}

#[tokio::test(start_paused = true)]
async fn send_of_a_message_cut_off_by_a_protocol_violation_fails() {
    let (ws, peer) = deflating_server().await;
    let (sender, mut receiver) = ws.split();
    let mut sending = pin!(sender.send(vec![0; MIB]));
    assert!(poll_once(sending.as_mut()).await.is_pending());
    peer.send([common::wire::continuation("of nothing")]);
    assert!(within(1, receiver.recv()).await.unwrap_err().is_protocol());
    assert!(within(1, sending).await.unwrap_err().is_protocol());
    assert!(within(1, sender.flush()).await.unwrap_err().is_protocol());
    assert_eq!(peer.take_frames().last().unwrap().head().2, 0x8);
}

#[tokio::test(start_paused = true)]
async fn large_message_is_sent_without_receiving() {
    let text = json_like(2 * MIB);
    let (ws, mut peer) = deflating_pair(Local::Server).await;
    let (sender, _receiver) = ws.split();
    for _ in 0..2 {
        sender.try_send(text.as_str()).unwrap();
        let (turns, received) = yields_until(peer.recv()).await;
        assert!(received.unwrap().unwrap() == text.as_str().into());
        assert!(turns >= 3, "{turns}");
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_peer_is_disconnected_during_compression() {
    for by_recv in [false, true] {
        let (mut ws, peer) = deflating_server().await;
        ws.feed(json_like(MIB)).await.unwrap();
        peer.change_rules(|rules| rules.room = 20_000);
        let start = Instant::now();
        let error = match by_recv {
            false => within(60, ws.flush()).await.unwrap_err(),
            true => within(60, ws.recv()).await.unwrap_err(),
        };
        assert!(error.is_timeout());
        assert_eq!(start.elapsed().as_secs(), 10);
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn transport_failure_during_compression_ends_the_message() {
    for local in BOTH {
        let (mut ws, peer) = deflating_pair(local).await;
        ws.feed(vec![0; MIB]).await.unwrap();
        drop(peer);
        within(1, ws.send("more")).await.unwrap_err();
        assert!(!ws.is_open());
    }
}

#[tokio::test(start_paused = true)]
async fn flush_does_not_wait_for_later_large_messages_of_other_senders() {
    for local in BOTH {
        let (ws, mut peer) = deflating_pair(local).await;
        let (sender, mut receiver) = ws.split();
        let endless = sender.clone();
        let feeding = tokio::spawn(async move { while endless.feed(vec![0; MIB]).await.is_ok() {} });
        let draining = tokio::spawn(async move { while let Ok(Some(_)) = peer.recv().await {} });
        let receiving = tokio::spawn(async move { receiver.recv().await });
        for _ in 0..5 {
            let (turns, sent) = yields_until(sender.flush()).await;
            sent.unwrap();
            assert!(turns < 200, "{turns}");
            tokio::task::yield_now().await;
        }
        for task in [feeding, draining] {
            task.abort();
        }
        receiving.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn uncompressed_large_messages_are_sent_immediately() {
    let (mut ws, peer) = deflating_server().await;
    ws.feed(Message::from(vec![0; MIB]).compress(Compress::Never))
        .await
        .unwrap();
    ws.flush().await.unwrap();
    assert_eq!(peer.take_frames(), [common::wire::binary(vec![0; MIB])]);
}
