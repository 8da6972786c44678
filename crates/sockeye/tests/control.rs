//! Pings, pongs, and dead peers. Time is paused: it advances when all tasks are idle.

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use common::wire::{Frame, close, ping, pong, text};
use common::{BOTH, Local, open, open_client, open_server, pair, poll_once, text_of, within};
use sockeye::{Client, CloseCause, CloseCode, Compress, DeflateConfig, Keepalive, Message, Server};
use tokio::time::{Instant, advance, sleep};

fn numbered_pings(range: std::ops::Range<u32>) -> impl Iterator<Item = Frame> {
    range.map(|number| ping(format!("{number:0120}")))
}

#[tokio::test(start_paused = true)]
async fn each_ping_of_a_burst_gets_its_pong_in_one_write() {
    // checks [6455-5.5.2-1, 6455-5.5.3-1]
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send((0..50).map(|number| ping(format!("{number}"))));
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        assert_eq!(peer.take_writes().len(), 1);
        let pongs: Vec<Frame> = (0..50).map(|number| pong(format!("{number}"))).collect();
        assert_eq!(peer.take_frames(), pongs);
    }
}

#[tokio::test(start_paused = true)]
async fn unread_ping_flood_queues_2_kib_and_the_newest_pong() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        for batch in 0..100 {
            peer.send(numbered_pings(batch * 100..(batch + 1) * 100));
            assert!(poll_once(pin!(ws.recv())).await.is_pending());
        }
        peer.change_rules(|rules| rules.room = usize::MAX);
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        let written: usize = peer.take_writes().iter().map(|write| write.len).sum();
        // 2 KiB, the frame that exceeded it, and the newest: 120 bytes and a header of 2 or 6.
        assert!(written <= 2048 + 2 * 126, "{local:?}: {written} bytes");
        let newest = numbered_pings(9999..10_000).next().unwrap();
        assert_eq!(peer.take_frames().last(), Some(&pong(newest.payload())));
    }
}

#[tokio::test(start_paused = true)]
async fn peer_that_pings_without_reading_is_disconnected_after_ten_seconds() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.room = 0);
    let start = Instant::now();
    let flooding = async {
        loop {
            peer.send(numbered_pings(0..100));
            sleep(Duration::from_millis(100)).await;
        }
    };
    let error = tokio::select! {
        received = ws.recv() => received.unwrap_err(),
        () = flooding => unreachable!(),
    };
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(peer.is_transport_closed());
}

/// Advances time by one second at a time, beside tasks that are never idle.
async fn pass(secs: u64) {
    for _ in 0..secs {
        advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn endless_input_does_not_starve_tasks_or_delay_deadlines() {
    for local in BOTH {
        let flood: Vec<u8> = numbered_pings(0..100)
            .flat_map(|ping| ping.bytes(local == Local::Server))
            .collect();
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.endless = flood.clone());
        tokio::select! {
            received = ws.recv() => panic!("{received:?}"),
            () = pass(100) => {}
        }

        // The peer does not read the pongs.
        peer.change_rules(|rules| rules.room = 0);
        tokio::select! {
            received = ws.recv() => assert!(received.unwrap_err().is_timeout()),
            () = pass(20) => panic!("not dropped"),
        }

        let messages: Vec<u8> = (0..100)
            .flat_map(|_| text("more").bytes(local == Local::Server))
            .collect();
        for flood in [flood, messages] {
            let (mut ws, peer) = open(local).await;
            peer.change_rules(|rules| rules.endless = flood);
            tokio::select! {
                closed = ws.close(CloseCode::NORMAL, "") => assert!(closed.unwrap_err().is_timeout()),
                () = pass(20) => panic!("not closed"),
            }
        }
    }
}

/// Counts how often other tasks run until `count` compressed messages with these bytes are received.
async fn yields_until_received(count: usize, message: &[u8]) -> usize {
    let client = Client::builder().compression(DeflateConfig::default()).build().unwrap();
    let server = Server::builder().compression(DeflateConfig::default()).build();
    let (mut client, mut server) = pair(&client, &server).await;
    for _ in 0..count {
        client
            .feed(Message::from(message).compress(Compress::Always))
            .await
            .unwrap();
    }
    client.flush().await.unwrap();
    let mut turns = 0;
    for _ in 0..count {
        let mut receiving = pin!(server.recv());
        let received = poll_fn(|cx| {
            let polled = receiving.as_mut().poll(cx);
            turns += usize::from(polled.is_pending());
            polled
        });
        assert_eq!(within(1, received).await.unwrap().unwrap(), message.into());
    }
    turns
}

#[tokio::test(start_paused = true)]
async fn inflation_does_not_starve_other_tasks() {
    const MIB: usize = 1024 * 1024;
    // About 8 KiB on the wire.
    let turns = yields_until_received(1, &vec![0; 8 * MIB]).await;
    assert!(turns >= 8 * MIB / (512 * 1024), "{turns}");
    // About 30 KiB on the wire.
    let turns = yields_until_received(1000, &[0; 15 * 1024]).await;
    assert!(turns >= 15 * 1000 * 1024 / (2 * MIB), "{turns}");
}

#[tokio::test(start_paused = true)]
async fn pong_is_sent_with_a_full_queue() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.room = 0);
    let mut queued = 0;
    while ws.try_send("m".repeat(1000)).is_ok() {
        queued += 1;
    }
    peer.send([ping("now")]);
    assert!(poll_once(pin!(ws.recv())).await.is_pending());
    peer.change_rules(|rules| rules.room = usize::MAX);
    assert!(poll_once(pin!(ws.recv())).await.is_pending());
    let frames = peer.take_frames();
    assert_eq!(frames.len(), queued + 1);
    assert_eq!(frames.last(), Some(&pong("now")));
}

#[tokio::test(start_paused = true)]
async fn silent_peer_is_pinged_after_20_s_and_fails_after_30_s() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let start = Instant::now();
        let watching = async {
            sleep(Duration::from_millis(19_900)).await;
            assert_eq!(peer.take_frames(), []);
            sleep(Duration::from_millis(200)).await;
            let frames = peer.take_frames();
            assert!(matches!(&frames[..], [frame] if frame.is_ping()), "{frames:?}");
        };
        let (received, ()) = within(60, async { tokio::join!(ws.recv(), watching) }).await;
        let error = received.unwrap_err();
        assert!(error.is_timeout() && error.is_closed(), "{error:?}");
        assert_eq!(error.close_info().unwrap().cause(), CloseCause::KeepaliveTimeout);
        assert_eq!(start.elapsed().as_secs(), 30);
        assert!(peer.is_transport_closed() && !ws.is_open());
    }
}

#[tokio::test(start_paused = true)]
async fn silent_peer_fails_for_a_receiver_without_senders() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        let start = Instant::now();
        let error = within(60, receiver.recv()).await.unwrap_err();
        assert_eq!(error.close_info().unwrap().cause(), CloseCause::KeepaliveTimeout);
        assert_eq!(start.elapsed().as_secs(), 30);
        assert!(peer.is_transport_closed() && !sender.is_open());
    }
}

#[tokio::test(start_paused = true)]
async fn peer_that_answers_pings_stays_connected() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let answering = async {
            let mut pings = 0;
            for _ in 0..36_000 {
                sleep(Duration::from_millis(100)).await;
                for frame in peer.take_frames() {
                    assert!(frame.is_ping());
                    pings += 1;
                    peer.send([pong(frame.payload())]);
                }
            }
            pings
        };
        let pings = tokio::select! {
            received = ws.recv() => panic!("{received:?}"),
            pings = answering => pings,
        };
        // An hour, in steps of 20 s and the 100 ms that the answer takes.
        assert!((175..=180).contains(&pings), "{pings}");
    }
}

#[tokio::test(start_paused = true)]
async fn any_received_byte_resets_keepalive() {
    let (mut ws, peer) = open(Local::Server).await;
    let message = text("one byte at a time").bytes(true);
    let trickling = async {
        for byte in message {
            // Its pings get no pong.
            sleep(Duration::from_secs(9)).await;
            peer.send_bytes([byte]);
        }
        std::future::pending().await
    };
    tokio::select! {
        received = ws.recv() => assert_eq!(text_of(received), "one byte at a time"),
        () = trickling => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn rtt_is_that_of_the_newest_answered_ping() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        assert_eq!(ws.rtt(), None);
        for ms in [250, 30] {
            ws.send_ping(b"timed").await.unwrap();
            assert_eq!(peer.take_frames(), [ping("timed")]);
            advance(Duration::from_millis(ms)).await;
            // Not the payload of the ping.
            peer.send([pong("other"), pong("timed")]);
            assert!(poll_once(pin!(ws.recv())).await.is_pending());
            assert_eq!(ws.rtt(), Some(Duration::from_millis(ms)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ping_of_126_bytes_is_invalid_input() {
    let (mut ws, peer) = open(Local::Client).await;
    assert!(ws.send_ping(&[0; 126]).await.unwrap_err().is_invalid_input());
    ws.send_ping(&[0; 125]).await.unwrap();
    assert_eq!(peer.take_frames(), [ping([0; 125])]);
}

#[tokio::test(start_paused = true)]
async fn suspended_process_receives_earlier_input_before_timing_out() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        peer.send([text("meanwhile")]);
        advance(Duration::from_secs(60)).await;
        assert_eq!(text_of(ws.recv().await), "meanwhile");
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
    }
}

#[tokio::test(start_paused = true)]
async fn suspended_process_finds_the_pong_of_its_ping() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        advance(Duration::from_secs(21)).await;
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        let frames = peer.take_frames();
        let [sent] = &frames[..] else { panic!("{frames:?}") };
        peer.send([pong(sent.payload()), text("and more")]);
        advance(Duration::from_secs(60)).await;
        assert_eq!(text_of(ws.recv().await), "and more");
    }
}

#[tokio::test(start_paused = true)]
async fn suspended_process_with_a_stalled_write_continues() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.room = 0);
    ws.feed("queued").await.unwrap();
    assert!(poll_once(pin!(ws.recv())).await.is_pending());
    advance(Duration::from_secs(60)).await;
    peer.change_rules(|rules| rules.room = usize::MAX);
    peer.send([text("meanwhile")]);
    assert_eq!(text_of(ws.recv().await), "meanwhile");
    assert_eq!(peer.take_frames(), [text("queued")]);
}

/// Two or three polls are needed in these cases; a timer may fire a fraction of a millisecond early.
const AWAKE_MAX: usize = 8;

/// Counts the polls of a future until it is ready or the time limit expires.
async fn polls(limit: Duration, future: impl Future) -> usize {
    let mut future = pin!(future);
    let mut polls = 0;
    let counted = poll_fn(|cx| {
        polls += 1;
        future.as_mut().poll(cx)
    });
    // One poll belongs to the timeout.
    let _ = tokio::time::timeout(limit, counted).await;
    polls
}

#[tokio::test(start_paused = true)]
async fn waiting_does_not_poll_repeatedly() {
    for local in BOTH {
        let hour = Duration::from_secs(60 * 60);
        // Starts to wait; a ping is due; the peer is dead.
        let (mut ws, _peer) = open(local).await;
        assert!(polls(hour, ws.recv()).await <= AWAKE_MAX);

        // Cannot write, and then times out.
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        assert!(polls(hour, ws.send("x")).await <= AWAKE_MAX);

        // Cannot write while it closes, and then times out.
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        assert!(polls(hour, ws.close(CloseCode::NORMAL, "")).await <= AWAKE_MAX);

        // Can neither answer a close frame nor half-close.
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| {
            rules.room = 0;
            rules.shutdown_hangs = true;
        });
        peer.send([close(1000, "")]);
        peer.end();
        assert!(polls(hour, ws.recv()).await <= AWAKE_MAX);

        // The peer closes but keeps TCP open.
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.shutdown_hangs = true);
        peer.send([close(1000, "")]);
        assert!(polls(hour, ws.recv()).await <= AWAKE_MAX);

        let (ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        let (sender, mut receiver) = ws.split();
        let both = async { tokio::join!(receiver.recv(), sender.send("x")) };
        assert!(polls(hour, both).await <= AWAKE_MAX);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_peer_stays_connected_without_keepalive() {
    let (mut ws, peer) = open_server(&Server::builder().keepalive(None).build()).await;
    let waiting = tokio::time::timeout(Duration::from_secs(24 * 60 * 60), ws.recv());
    assert!(waiting.await.is_err());
    assert_eq!(peer.take_frames(), []);
}

#[tokio::test(start_paused = true)]
async fn maximum_durations_mean_never() {
    let mut timeouts = sockeye::Timeouts::default();
    timeouts.connect = Duration::MAX;
    timeouts.handshake = Duration::MAX;
    timeouts.write = Duration::MAX;
    timeouts.close = Duration::MAX;
    let keepalive = || Keepalive::default().interval(Duration::MAX).timeout(Duration::MAX);
    let server = Server::builder().timeouts(timeouts.clone()).keepalive(keepalive());
    let client = Client::builder().timeouts(timeouts).keepalive(keepalive());
    for (mut ws, peer) in [
        open_server(&server.build()).await,
        open_client(&client.build().unwrap()).await,
    ] {
        peer.change_rules(|rules| rules.room = 0);
        ws.feed("queued").await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_secs(60 * 60), ws.recv());
        assert!(waiting.await.is_err());
    }
}
