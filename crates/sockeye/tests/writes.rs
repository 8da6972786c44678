//! When bytes are written, in what order and in how many writes, and what happens if the peer does not take them.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::wire::{binary, close, ping, pong, text, texts};
use common::{BOTH, Local, Peer, finish, open, open_server, pair, poll_once, text_of, within};
use sockeye::{Client, CloseCode, Compress, DeflateConfig, Limits, Message, Server, Timeouts, TrySendError, WebSocket};
use std::pin::pin;
use tokio::time::Instant;

/// Payloads of this size or more are written from their own memory.
const LARGE: usize = 16 * 1024;

async fn open_with_write_buffer_max(bytes: usize) -> (WebSocket, Peer) {
    let mut limits = Limits::default();
    limits.write_buffer_max = bytes;
    open_server(&Server::builder().limits(limits).build()).await
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("message {number}")).collect()
}

#[tokio::test(start_paused = true)]
async fn echo_of_a_burst_is_one_read_and_one_write() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let reads = peer.read_count();
        peer.send(numbered(100).iter().map(text));
        for _ in 0..100 {
            let message = ws.recv().await.unwrap().unwrap();
            ws.feed(message).await.unwrap();
        }
        assert_eq!(peer.take_writes().len(), 0);
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        assert_eq!((peer.read_count() - reads, peer.take_writes().len()), (1, 1));
        assert_eq!(texts(&peer.take_frames()), numbered(100));
    }
}

#[tokio::test(start_paused = true)]
async fn echo_of_a_burst_on_split_connection_is_one_write() {
    let (ws, peer) = open(Local::Server).await;
    let (sender, mut receiver) = ws.split();
    peer.send(numbered(100).iter().map(text));
    for _ in 0..100 {
        let message = receiver.recv().await.unwrap().unwrap();
        sender.feed(message).await.unwrap();
    }
    assert!(poll_once(pin!(receiver.recv())).await.is_pending());
    assert_eq!(peer.take_writes().len(), 1);
    assert_eq!(texts(&peer.take_frames()), numbered(100));
}

#[tokio::test(start_paused = true)]
async fn recv_writes_queued_bytes_before_waiting() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        ws.feed("queued").await.unwrap();
        ws.try_send("too").unwrap();
        assert_eq!(peer.take_frames(), []);
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        assert_eq!(peer.take_frames(), [text("queued"), text("too")]);
    }
}

#[tokio::test(start_paused = true)]
async fn recv_writes_the_rest_when_there_is_room() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        ws.feed("queued").await.unwrap();
        let mut receiving = pin!(ws.recv());
        assert!(poll_once(&mut receiving).await.is_pending());
        peer.change_rules(|rules| rules.room = usize::MAX);
        assert!(poll_once(&mut receiving).await.is_pending());
        assert_eq!(peer.take_frames(), [text("queued")]);
    }
}

#[tokio::test(start_paused = true)]
async fn recv_receives_while_the_transport_is_full() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.room = 0);
    ws.feed("queued").await.unwrap();
    peer.send([text("arrived")]);
    assert_eq!(text_of(ws.recv().await), "arrived");
}

#[tokio::test(start_paused = true)]
async fn send_returns_when_its_bytes_are_written() {
    // checks [6455-6.1-7]
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 3);
        let mut sending = pin!(ws.send("whole"));
        assert!(poll_once(&mut sending).await.is_pending());
        assert_eq!(peer.take_frames(), []);
        peer.change_rules(|rules| rules.room = usize::MAX);
        sending.await.unwrap();
        assert_eq!(peer.take_frames(), [text("whole")]);
    }
}

#[tokio::test(start_paused = true)]
async fn send_flushes_a_buffering_transport() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| {
            rules.buffers = true;
            rules.flush_hangs = true;
        });
        let mut sending = pin!(ws.send("whole"));
        assert!(poll_once(&mut sending).await.is_pending());
        assert_eq!(peer.take_frames(), []);
        peer.change_rules(|rules| rules.flush_hangs = false);
        sending.await.unwrap();
        assert_eq!(peer.take_frames(), [text("whole")]);
    }
}

#[tokio::test(start_paused = true)]
async fn server_writes_large_payload_without_a_copy() {
    let (mut ws, peer) = open(Local::Server).await;
    let payload = Bytes::from(vec![7; LARGE]);
    let place = payload.as_ptr() as usize;
    ws.feed("before").await.unwrap();
    ws.send(payload).await.unwrap();
    let writes = peer.take_writes();
    assert_eq!(writes.len(), 1);
    // "before" with its header, then a header with a 16-bit length.
    assert_eq!(writes[0].slices[0].1, 2 + 6 + 4);
    assert_eq!(writes[0].slices[1], (place, LARGE));
    assert_eq!(peer.take_frames(), [text("before"), binary(vec![7; LARGE])]);
}

#[tokio::test(start_paused = true)]
async fn small_payload_is_copied_behind_its_header() {
    let (mut ws, peer) = open(Local::Server).await;
    ws.send(vec![7; LARGE - 1]).await.unwrap();
    assert_eq!(peer.take_writes()[0].slices.len(), 1);
    assert_eq!(peer.take_frames(), [binary(vec![7; LARGE - 1])]);
}

#[tokio::test(start_paused = true)]
async fn large_small_and_control_frames_are_sent_in_order() {
    for (local, write_max) in [
        (Local::Server, 1000),
        (Local::Server, usize::MAX),
        (Local::Client, 1000),
    ] {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| {
            rules.write_max = write_max;
            rules.stutters = true;
        });
        let large = "L".repeat(3 * LARGE);
        ws.feed("a").await.unwrap();
        ws.feed(large.as_str()).await.unwrap();
        ws.send_ping(b"p").await.unwrap();
        ws.feed(large.as_str()).await.unwrap();
        ws.feed(large.as_str()).await.unwrap();
        ws.feed("b").await.unwrap();
        peer.send([ping("q"), close(1000, "")]);
        ws.start_close(CloseCode::NORMAL, "").unwrap();
        assert!(ws.recv().await.unwrap().is_none());
        peer.end();
        finish(ws, &peer).await;
        let expected = [
            text("a"),
            text(&large),
            ping("p"),
            text(&large),
            text(&large),
            text("b"),
            // Its ping arrived after the close frame was sent, so there is no pong.
            close(1000, ""),
        ];
        assert_eq!(peer.take_frames(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn pong_waits_only_for_the_large_message_being_written() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.room = 1000);
    let large = vec![1; LARGE];
    ws.feed(large.clone()).await.unwrap();
    peer.send([ping("now")]);
    assert!(poll_once(pin!(ws.recv())).await.is_pending());
    peer.change_rules(|rules| rules.room = usize::MAX);
    ws.feed("next").await.unwrap();
    ws.flush().await.unwrap();
    assert_eq!(peer.take_frames(), [binary(large), pong("now"), text("next")]);
}

#[tokio::test(start_paused = true)]
async fn feed_waits_while_the_queue_is_full() {
    let (mut ws, peer) = open_with_write_buffer_max(150).await;
    peer.change_rules(|rules| rules.room = 0);
    let message = "m".repeat(60);
    // A header of two bytes each: 62, then 124, and no room for 60 more.
    ws.feed(message.as_str()).await.unwrap();
    ws.feed(message.as_str()).await.unwrap();
    let mut feeding = Box::pin(ws.feed(message.as_str()));
    assert!(poll_once(&mut feeding).await.is_pending());
    peer.change_rules(|rules| rules.room = 33);
    assert!(poll_once(&mut feeding).await.is_pending(), "91 bytes are left");
    peer.change_rules(|rules| rules.room = 1);
    feeding.await.unwrap();
    peer.change_rules(|rules| rules.room = usize::MAX);
    ws.flush().await.unwrap();
    assert_eq!(texts(&peer.take_frames()), [message.as_str(); 3]);
}

#[tokio::test(start_paused = true)]
async fn single_message_may_exceed_the_queue_limit() {
    let (mut ws, peer) = open_with_write_buffer_max(100).await;
    let message = "m".repeat(10_000);
    ws.feed(message.as_str()).await.unwrap();
    ws.send("after").await.unwrap();
    assert_eq!(texts(&peer.take_frames()), [message.as_str(), "after"]);
}

#[tokio::test(start_paused = true)]
async fn continuous_feed_sends_each_message_once() {
    let (mut ws, peer) = open_with_write_buffer_max(1000).await;
    peer.change_rules(|rules| {
        rules.write_max = 700;
        rules.stutters = true;
    });
    let mut arrived = vec![];
    for number in 0..5000 {
        ws.feed(format!("message {number}")).await.unwrap();
        arrived.extend(peer.take_frames());
    }
    ws.flush().await.unwrap();
    arrived.extend(peer.take_frames());
    assert_eq!(texts(&arrived), numbered(5000));
}

#[tokio::test(start_paused = true)]
async fn try_send_returns_the_message_when_full() {
    let (mut ws, peer) = open_with_write_buffer_max(10).await;
    peer.change_rules(|rules| rules.room = 0);
    ws.try_send("0123456789").unwrap();
    let Err(TrySendError::Full { message, .. }) = ws.try_send("more") else {
        panic!("there is no room");
    };
    assert_eq!(message.to_message(), Message::text("more"));
    peer.change_rules(|rules| rules.room = usize::MAX);
    ws.flush().await.unwrap();
    ws.try_send(message).unwrap();
    ws.flush().await.unwrap();
    assert_eq!(texts(&peer.take_frames()), ["0123456789", "more"]);
}

#[tokio::test(start_paused = true)]
async fn try_send_after_the_end_returns_closed() {
    let (mut ws, peer) = open(Local::Client).await;
    peer.end();
    ws.recv().await.unwrap_err();
    let Err(TrySendError::Closed(error)) = ws.try_send("late") else {
        panic!("it is closed");
    };
    assert!(error.is_closed());
}

#[tokio::test(start_paused = true)]
async fn stalled_peer_is_disconnected_after_ten_seconds() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        let start = Instant::now();
        let error = within(60, ws.send("never")).await.unwrap_err();
        assert!(error.is_timeout() && error.is_closed(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 10);
        assert!(peer.is_transport_closed());
        assert!(!ws.is_open());
        assert!(ws.recv().await.unwrap_err().is_timeout());
        assert!(ws.feed("more").await.unwrap_err().is_timeout());
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_peer_is_disconnected_by_recv_and_feed() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.room = 0);
    ws.feed("never").await.unwrap();
    let error = within(60, ws.recv()).await.unwrap_err();
    assert!(error.is_timeout() && peer.is_transport_closed(), "{error:?}");

    let (mut ws, peer) = open_with_write_buffer_max(1).await;
    peer.change_rules(|rules| rules.room = 0);
    ws.feed("never").await.unwrap();
    let error = within(60, ws.feed("neither")).await.unwrap_err();
    assert!(error.is_timeout() && peer.is_transport_closed(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn transport_that_does_not_flush_times_out() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.flush_hangs = true);
    let error = within(60, ws.send("never")).await.unwrap_err();
    assert!(error.is_timeout() && peer.is_transport_closed(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn peer_with_regular_progress_stays_connected() {
    let mut timeouts = Timeouts::default();
    timeouts.write = Duration::from_secs(7);
    let mut limits = Limits::default();
    limits.write_rate_min = 0;
    let server = Server::builder()
        .timeouts(timeouts)
        .limits(limits)
        .keepalive(None)
        .build();
    let (mut ws, peer) = open_server(&server).await;
    peer.change_rules(|rules| rules.room = 0);
    ws.feed("a message of some length").await.unwrap();
    for _ in 0..10 {
        let waiting = tokio::time::timeout(Duration::from_secs(6), ws.flush());
        assert!(waiting.await.is_err(), "it is not flushed yet");
        peer.change_rules(|rules| rules.room = 1);
    }
    let start = Instant::now();
    let error = within(60, ws.flush()).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!((7..=14).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

/// Makes the peer take `taken` bytes at each interval `every` until the connection ends or all is written. Returns the
/// elapsed seconds.
async fn seconds_of_a_peer_that_takes(taken: usize, every: Duration, len: usize) -> (u64, Result<(), sockeye::Error>) {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.room = 0);
    ws.feed(vec![0; len]).await.unwrap();
    let start = Instant::now();
    let taking = async {
        loop {
            tokio::time::sleep(every).await;
            peer.change_rules(|rules| rules.room = taken);
        }
    };
    let flushed = tokio::select! {
        flushed = within(1000, ws.flush()) => flushed,
        () = taking => unreachable!(),
    };
    (start.elapsed().as_secs(), flushed)
}

#[tokio::test(start_paused = true)]
async fn peer_taking_one_byte_every_nine_seconds_is_disconnected() {
    let (secs, flushed) = seconds_of_a_peer_that_takes(1, Duration::from_secs(9), 1000).await;
    assert!(flushed.unwrap_err().is_timeout());
    assert_eq!(secs, 10);
}

#[tokio::test(start_paused = true)]
async fn peer_taking_1_kib_per_second_stays_connected() {
    // Keepalive is enabled: the peer sends nothing in all that time, and answers no ping.
    let (secs, flushed) = seconds_of_a_peer_that_takes(6000, Duration::from_secs(4), 1 << 18).await;
    flushed.unwrap();
    assert!(secs > 160, "{secs}");
    let (secs, flushed) = seconds_of_a_peer_that_takes(4000, Duration::from_secs(4), 1 << 18).await;
    assert!(flushed.unwrap_err().is_timeout());
    assert!(secs <= 20, "{secs}");
}

#[tokio::test(start_paused = true)]
async fn peers_that_both_send_first_succeed() {
    const LEN: usize = 4 << 20;
    for flushes_once in [false, true] {
        for piece in [LEN, LEN / 2, 64 * 1024, 1024] {
            let (client, server) = pair(&Client::default(), &Server::default()).await;
            let talk = async |mut ws: WebSocket| {
                for _ in 0..LEN / piece {
                    ws.feed(vec![7; piece]).await?;
                    if !flushes_once {
                        ws.flush().await?;
                    }
                }
                ws.flush().await?;
                let mut received = 0;
                while received < LEN {
                    received += ws.recv().await?.expect("more").len();
                }
                Ok::<_, sockeye::Error>(ws)
            };
            let (client, server) = within(60, async { tokio::join!(talk(client), talk(server)) }).await;
            client.unwrap();
            server.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn message_inflated_in_steps_is_read_ahead_in_order() {
    const LARGE_LEN: usize = 2 << 20;
    let server = Server::builder().compression(DeflateConfig::default()).build();
    let client = Client::builder().compression(DeflateConfig::default()).build().unwrap();
    let (mut client, mut server) = pair(&client, &server).await;
    let small = |number: usize| format!("{number:05} {}", "x".repeat(1500));
    let noise: Vec<u8> = (0..4_u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let sending_both = async {
        server.feed("a".repeat(LARGE_LEN)).await.unwrap();
        for number in 0..200 {
            server.feed(small(number)).await.unwrap();
        }
        server.flush().await.unwrap();
        server.recv().await.unwrap().unwrap()
    };
    let receiving = async {
        client
            .feed(Message::from(noise.clone()).compress(Compress::Never))
            .await
            .unwrap();
        client.flush().await.unwrap();
        assert_eq!(client.recv().await.unwrap().unwrap().len(), LARGE_LEN);
        for number in 0..200 {
            assert_eq!(text_of(client.recv().await), small(number));
        }
    };
    let (received, ()) = within(60, async { tokio::join!(sending_both, receiving) }).await;
    assert!(received.as_bytes() == noise);
}

#[tokio::test(start_paused = true)]
async fn order_is_kept_when_no_more_may_be_read_ahead() {
    for read_ahead_max in [0, 1000, 10_000, 1 << 20] {
        let mut limits = Limits::default();
        limits.read_ahead_max = read_ahead_max;
        let (mut ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
        peer.send((0..100).map(|number| binary(vec![number; 500])));
        assert_eq!(ws.recv().await.unwrap().unwrap().as_bytes(), [0; 500]);
        peer.change_rules(|rules| rules.room = 0);
        for number in 1..100 {
            let _ = tokio::time::timeout(Duration::from_millis(1), ws.send("waits")).await;
            assert_eq!(
                ws.recv().await.unwrap().unwrap().as_bytes(),
                [number; 500],
                "{read_ahead_max}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn read_ahead_is_bounded_and_ends_with_the_write_timeout() {
    let mut limits = Limits::default();
    limits.read_ahead_max = 10_000;
    let server = Server::builder().limits(limits).build();
    let (mut ws, peer) = open_server(&server).await;
    peer.change_rules(|rules| rules.room = 0);
    peer.send((0..100).map(|number| binary(vec![number; 1000])));
    let error = within(60, ws.send("never")).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(error.to_string().contains("read_ahead_max"), "{error}");
    let unread = peer.unread_len();
    assert!((80_000..95_000).contains(&unread), "{unread}");
    // What was read is received.
    let mut received = 0;
    while let Ok(message) = ws.recv().await {
        assert_eq!(message.unwrap().as_bytes(), [received; 1000]);
        received += 1;
    }
    assert!((5..20).contains(&received), "{received}");
}

#[tokio::test(start_paused = true)]
async fn write_of_zero_bytes_is_an_error() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.write_max = 0);
    let error = ws.send("never").await.unwrap_err();
    assert!(error.is_io() && error.is_closed(), "{error:?}");
}
