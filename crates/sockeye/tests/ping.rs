//! Round-trip times, unsolicited pongs, and control frames as events.

mod common;

use std::pin::pin;
use std::time::Duration;

use common::wire::{Frame, close, ping, pong, text};
use common::{BOTH, Local, Peer, open, open_server, poll_at_most, poll_once, run_until_idle, within};
use sockeye::{Event, Limits, Message, Server};
use tokio::time::sleep;

/// The payload of the only ping that the peer received.
#[track_caller]
fn payload_of_ping(peer: &Peer) -> Vec<u8> {
    let frames: Vec<Frame> = peer.take_frames();
    let [frame] = &frames[..] else { panic!("{frames:?}") };
    let payload = frame.payload().to_vec();
    assert_eq!(*frame, ping(payload.clone()));
    payload
}

#[tokio::test(start_paused = true)]
async fn ping_returns_the_round_trip_time_and_keeps_messages() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let rtt = {
            let mut pinging = pin!(ws.ping());
            assert!(poll_once(&mut pinging).await.is_pending());
            let payload = payload_of_ping(&peer);
            sleep(Duration::from_millis(70)).await;
            peer.send([text("before"), pong("another"), pong(payload)]);
            within(1, pinging).await.unwrap()
        };
        assert_eq!(rtt, Duration::from_millis(70));
        assert_eq!(ws.rtt(), Some(rtt));
        assert_eq!(ws.recv().await.unwrap(), Some(Message::text("before")));
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_ping_continues_with_the_next() {
    for local in BOTH {
        for polls in 1..20 {
            let (mut ws, peer) = open(local).await;
            peer.change_rules(|rules| {
                rules.write_max = 1;
                rules.stutters = true;
            });
            if poll_at_most(polls, ws.ping()).await.is_some() {
                // It has waited until the keepalive timeout.
                break;
            }
            ws.flush().await.unwrap();
            let payload = payload_of_ping(&peer);
            let mut pinging = pin!(ws.ping());
            assert!(poll_once(&mut pinging).await.is_pending());
            assert_eq!(peer.take_frames(), [], "one ping is enough");
            peer.send([pong(payload)]);
            within(1, pinging).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pings_of_senders_are_completed_by_the_receiver() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        let receiving = tokio::spawn(async move { receiver.recv().await });
        run_until_idle().await;
        let tasks = [0, 1].map(|_| {
            let sender = sender.clone();
            tokio::spawn(async move { sender.ping().await })
        });
        run_until_idle().await;
        let payload = payload_of_ping(&peer);
        sleep(Duration::from_millis(5)).await;
        peer.send([pong(payload)]);
        for task in tasks {
            assert_eq!(within(1, task).await.unwrap().unwrap(), Duration::from_millis(5));
        }
        let pinging = tokio::spawn(async move { sender.ping().await });
        run_until_idle().await;
        peer.send([close(1000, "")]);
        assert!(within(1, pinging).await.unwrap().unwrap_err().is_closed());
        assert_eq!(receiving.await.unwrap().unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn ping_behind_too_many_messages_is_an_error() {
    let mut limits = Limits::default();
    limits.read_ahead_max = 1000;
    let (mut ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
    peer.send((0..100).map(|_| text("x".repeat(100))));
    let error = within(1, ws.ping()).await.unwrap_err();
    assert!(error.is_invalid_input(), "{error:?}");
    for _ in 0..100 {
        ws.recv().await.unwrap().unwrap();
    }
    assert!(ws.is_open());
}

#[tokio::test(start_paused = true)]
async fn ping_fails_when_the_connection_ends() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([text("last"), close(1000, "")]);
        assert!(within(1, ws.ping()).await.unwrap_err().is_closed());
        assert_eq!(ws.recv().await.unwrap(), Some(Message::text("last")));
        assert_eq!(ws.recv().await.unwrap(), None);
        // A silent peer ends it too.
        let (mut ws, _peer) = open(local).await;
        assert!(within(60, ws.ping()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn unsolicited_pongs_are_sent() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        ws.send_pong(b"alive").await.unwrap();
        assert!(ws.send_pong(&[0; 126]).await.unwrap_err().is_invalid_input());
        assert_eq!(peer.take_frames(), [pong("alive")]);
        let (sender, _receiver) = ws.split();
        sender.send_pong(b"").await.unwrap();
        assert_eq!(peer.take_frames(), [pong("")]);
    }
}

fn frames() -> Vec<Frame> {
    vec![
        ping("a"),
        text("one"),
        text("tw").unfinished(),
        pong("b"),
        common::wire::continuation("o"),
        ping("c"),
        close(1000, ""),
    ]
}

fn events() -> Vec<Event> {
    let bytes = |text: &'static str| text.as_bytes().into();
    vec![
        Event::Ping(bytes("a")),
        Event::Message("one".into()),
        Event::Pong(bytes("b")),
        Event::Message("two".into()),
        Event::Ping(bytes("c")),
    ]
}

#[tokio::test(start_paused = true)]
async fn recv_event_returns_control_frames_in_order() {
    for local in BOTH {
        for read_max in [1, usize::MAX] {
            let (mut ws, peer) = open(local).await;
            peer.change_rules(|rules| rules.read_max = read_max);
            peer.send(frames());
            for expected in events() {
                assert_eq!(within(1, ws.recv_event()).await.unwrap(), Some(expected));
            }
            assert_eq!(ws.recv_event().await.unwrap(), None);
            assert_eq!(peer.take_frames(), [pong("a"), pong("c"), close(1000, "")]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_recv_event_loses_nothing() {
    for local in BOTH {
        for polls in 1..50 {
            let (ws, peer) = open(local).await;
            let (_sender, mut receiver) = ws.split();
            peer.change_rules(|rules| {
                rules.read_max = 1;
                rules.stutters = true;
            });
            peer.send(frames());
            let mut received = vec![];
            loop {
                match poll_at_most(polls, receiver.recv_event()).await {
                    Some(Ok(Some(event))) => received.push(event),
                    Some(end) => break assert_eq!(end.unwrap(), None),
                    None => {}
                }
            }
            assert_eq!(received, events(), "{local:?}, {polls} polls");
        }
    }
}

/// Events that a send reads ahead are in order too, and `recv` skips control frames.
#[tokio::test(start_paused = true)]
async fn control_frames_are_read_ahead_in_order() {
    let (mut ws, peer) = open(Local::Server).await;
    assert!(poll_once(pin!(ws.recv_event())).await.is_pending());
    peer.change_rules(|rules| rules.room = 0);
    peer.send([ping("a"), text("one"), pong("b"), text("two"), text("three")]);
    assert!(poll_once(pin!(ws.send("blocked"))).await.is_pending());
    peer.change_rules(|rules| rules.room = usize::MAX);
    assert_eq!(ws.recv_event().await.unwrap(), Some(Event::Ping("a".into())));
    assert_eq!(ws.recv_event().await.unwrap(), Some(Event::Message("one".into())));
    assert_eq!(ws.recv().await.unwrap(), Some("two".into()));
    assert_eq!(ws.try_recv().unwrap(), "three".into());
}
