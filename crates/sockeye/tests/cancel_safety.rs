//! Cancel safety: drops every future at every await point and calls it again.
//!
//! The transport reads and writes one byte at a time, and each operation is pending once before it succeeds, so a
//! future has about two await points for each byte. Each test repeats with 0, 1, 2, ... polls before the drop, until
//! nothing is dropped any more.

mod common;

use common::script::transport;
use common::wire::{Frame, close, continuation, ping, pong, text, texts};
use common::{BOTH, Local, Peer, REQUEST, answer, finish, open, open_server, poll_at_most, within};
use sockeye::{CloseCode, Limits, Message, Overflow, Receiver, Sender, Server, WebSocket};

/// More polls than any of these futures needs.
const POLLS_MAX: usize = 5000;

fn throttle(peer: &Peer) {
    peer.change_rules(|rules| {
        rules.read_max = 1;
        rules.write_max = 1;
        rules.stutters = true;
    });
}

/// Calls a future repeatedly, dropping it after `polls` polls, until it is ready. Counts the drops.
macro_rules! retry {
    ($polls:expr, $dropped:expr, $future:expr) => {
        loop {
            match poll_at_most($polls, $future).await {
                Some(output) => break output,
                None => $dropped += 1,
            }
        }
    };
}

fn peer_frames() -> Vec<Frame> {
    vec![
        text("one"),
        ping("first"),
        text("two, ").unfinished(),
        ping("second"),
        continuation("in parts"),
        text("3".repeat(130)),
        text(""),
        close(3000, "done"),
    ]
}

fn expected_messages() -> Vec<String> {
    ["one", "two, in parts", &"3".repeat(130), ""].map(str::to_owned).into()
}

#[track_caller]
fn check_answers(peer: &Peer) {
    assert_eq!(peer.take_frames(), [pong("first"), pong("second"), close(3000, "")]);
}

#[tokio::test(start_paused = true)]
async fn recv_loses_nothing() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            throttle(&peer);
            peer.send(peer_frames());
            peer.end();
            let (mut received, mut dropped) = (vec![], 0);
            let end = loop {
                match retry!(polls, dropped, ws.recv()) {
                    Ok(Some(message)) => received.push(message.as_text().unwrap().to_owned()),
                    end => break end,
                }
            };
            assert_eq!(received, expected_messages(), "{local:?}, {polls} polls");
            assert_eq!(end.unwrap_err().close_code(), Some(CloseCode(3000)));
            finish(ws, &peer).await;
            check_answers(&peer);
            if dropped == 0 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn receiver_recv_loses_nothing() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (ws, peer) = open(local).await;
            let (sender, mut receiver) = ws.split();
            throttle(&peer);
            peer.send(peer_frames());
            peer.end();
            let (mut received, mut dropped) = (vec![], 0);
            let end = loop {
                match retry!(polls, dropped, receiver.recv()) {
                    Ok(Some(message)) => received.push(message.as_text().unwrap().to_owned()),
                    end => break end,
                }
            };
            assert_eq!(received, expected_messages(), "{local:?}, {polls} polls");
            assert_eq!(end.unwrap_err().close_code(), Some(CloseCode(3000)));
            finish((sender, receiver), &peer).await;
            check_answers(&peer);
            if dropped == 0 {
                break;
            }
        }
    }
}

fn messages() -> [String; 5] {
    ["", "a", "bcd", &"e".repeat(40), "f"].map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn dropped_send_sends_its_queued_message_completely_and_once() {
    // checks [6455-10.3-2]
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            throttle(&peer);
            let mut dropped = 0;
            for message in messages() {
                dropped += usize::from(poll_at_most(polls, ws.send(message)).await.is_none());
            }
            ws.flush().await.unwrap();
            assert_eq!(texts(&peer.take_frames()), messages(), "{local:?}, {polls} polls");
            if dropped == 0 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_sender_send_sends_its_queued_message_completely_and_once() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (ws, peer) = open(local).await;
            let (sender, _receiver) = ws.split();
            throttle(&peer);
            let mut dropped = 0;
            for message in messages() {
                // A different clone each time: what one began, any other finishes.
                dropped += usize::from(poll_at_most(polls, sender.clone().send(message)).await.is_none());
            }
            sender.flush().await.unwrap();
            assert_eq!(texts(&peer.take_frames()), messages(), "{local:?}, {polls} polls");
            if dropped == 0 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_send_of_large_message_sends_it_completely() {
    for polls in 1..POLLS_MAX {
        let (mut ws, peer) = open(Local::Server).await;
        peer.change_rules(|rules| {
            rules.write_max = 1000;
            rules.stutters = true;
        });
        let large = "l".repeat(20_000);
        let is_sent = poll_at_most(polls, ws.send(large.as_str())).await.is_some();
        ws.send("after").await.unwrap();
        assert_eq!(texts(&peer.take_frames()), [large.as_str(), "after"], "{polls} polls");
        if is_sent {
            break;
        }
    }
}

/// A server whose connections have room for only one message.
fn narrow_server() -> Server {
    let mut limits = Limits::default();
    limits.write_buffer_max = 1;
    Server::builder().limits(limits).build()
}

#[tokio::test(start_paused = true)]
async fn feed_dropped_while_waiting_for_room_queues_nothing() {
    for polls in 1..POLLS_MAX {
        let (mut ws, peer) = open_server(&narrow_server()).await;
        throttle(&peer);
        let mut dropped = 0;
        for message in messages() {
            retry!(polls, dropped, ws.feed(message.as_str())).unwrap();
        }
        ws.flush().await.unwrap();
        assert_eq!(texts(&peer.take_frames()), messages(), "{polls} polls");
        if dropped == 0 {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sender_feed_dropped_while_waiting_for_room_queues_nothing() {
    for polls in 1..POLLS_MAX {
        let (ws, peer) = open_server(&narrow_server()).await;
        let (sender, _receiver) = ws.split();
        throttle(&peer);
        let mut dropped = 0;
        for message in messages() {
            retry!(polls, dropped, sender.feed(message.as_str())).unwrap();
        }
        sender.flush().await.unwrap();
        assert_eq!(texts(&peer.take_frames()), messages(), "{polls} polls");
        if dropped == 0 {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_reserve_reserves_nothing() {
    for polls in 1..POLLS_MAX {
        let (ws, peer) = open_server(&narrow_server()).await;
        let (sender, _receiver) = ws.split();
        throttle(&peer);
        let mut dropped = 0;
        for message in messages() {
            let permit = retry!(polls, dropped, sender.reserve(message.len())).unwrap();
            permit.send(message).unwrap();
        }
        sender.flush().await.unwrap();
        assert_eq!(texts(&peer.take_frames()), messages(), "{polls} polls");
        drop(sender.try_reserve(usize::MAX).unwrap());
        if dropped == 0 {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn outbox_send_dropped_while_waiting_for_room_queues_nothing() {
    for polls in 1..POLLS_MAX {
        let (ws, peer) = open_server(&narrow_server()).await;
        let (sender, _receiver) = ws.split();
        let outbox = sender.with_overflow(Overflow::Wait);
        throttle(&peer);
        let mut dropped = 0;
        for message in messages() {
            retry!(polls, dropped, outbox.send(message.as_str())).unwrap();
        }
        outbox.sender().flush().await.unwrap();
        assert_eq!(texts(&peer.take_frames()), messages(), "{polls} polls");
        if dropped == 0 {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sends_dropped_while_waiting_for_room_send_all_or_nothing() {
    for polls in 1..POLLS_MAX {
        let (mut ws, peer) = open_server(&narrow_server()).await;
        throttle(&peer);
        let mut finished = vec![];
        for message in messages() {
            if poll_at_most(polls, ws.send(message.as_str())).await.is_some() {
                finished.push(message);
            }
        }
        ws.flush().await.unwrap();
        let arrived = texts(&peer.take_frames());
        // The received messages are a subsequence of the sent ones: in order, without duplicates.
        let mut all = messages().into_iter();
        assert!(
            arrived.iter().all(|text| all.any(|message| message == *text)),
            "{arrived:?}"
        );
        let mut rest = arrived.iter();
        assert!(
            finished.iter().all(|message| rest.any(|text| text == message)),
            "{arrived:?}"
        );
        if finished.len() == messages().len() {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn flush_loses_nothing() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            throttle(&peer);
            for message in messages() {
                ws.feed(message).await.unwrap();
            }
            let mut dropped = 0;
            retry!(polls, dropped, ws.flush()).unwrap();
            assert_eq!(texts(&peer.take_frames()), messages(), "{local:?}, {polls} polls");
            if dropped == 0 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_ping_is_sent_once_by_the_next_call() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            throttle(&peer);
            let is_sent = poll_at_most(polls, ws.send_ping(b"there?")).await.is_some();
            ws.flush().await.unwrap();
            assert_eq!(peer.take_frames(), [ping("there?")], "{local:?}, {polls} polls");

            let (sender, _receiver) = ws.split();
            let was_sent = poll_at_most(polls, sender.send_ping(b"still?")).await.is_some();
            sender.flush().await.unwrap();
            assert_eq!(peer.take_frames(), [ping("still?")], "{local:?}, {polls} polls");
            if is_sent && was_sent {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_close_continues_when_called_again() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            throttle(&peer);
            peer.send([text("late"), close(1000, "")]);
            peer.end();
            let mut dropped = 0;
            retry!(polls, dropped, ws.close(CloseCode::NORMAL, "bye")).unwrap();
            assert!(ws.close_info().unwrap().is_clean());
            finish(ws, &peer).await;
            assert_eq!(peer.take_frames(), [close(1000, "bye")], "{local:?}, {polls} polls");
            if dropped == 0 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_close_continues_with_recv() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            throttle(&peer);
            let answers = async {
                while peer.take_frames().is_empty() {
                    tokio::task::yield_now().await;
                }
                peer.send([close(1000, "")]);
                peer.end();
            };
            let closing = async {
                let is_closed = poll_at_most(polls, ws.close(CloseCode::NORMAL, "")).await.is_some();
                assert!(ws.recv().await.unwrap().is_none());
                is_closed
            };
            let (is_closed, ()) = within(20, async { tokio::join!(closing, answers) }).await;
            assert!(ws.close_info().unwrap().is_clean());
            if is_closed {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_sender_close_continues_with_the_receiver() {
    async fn close_both(polls: usize, sender: Sender, mut receiver: Receiver) -> usize {
        let mut dropped = 0;
        dropped += usize::from(
            poll_at_most(polls, sender.close(CloseCode::NORMAL, "bye"))
                .await
                .is_none(),
        );
        while retry!(polls, dropped, receiver.recv()).unwrap().is_some() {}
        dropped
    }
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (ws, peer) = open(local).await;
            let (sender, receiver) = ws.split();
            throttle(&peer);
            peer.send([text("late"), close(1000, "")]);
            peer.end();
            let dropped = close_both(polls, sender.clone(), receiver).await;
            assert_eq!(peer.take_frames(), [close(1000, "bye")], "{local:?}, {polls} polls");
            assert!(sender.close_info().unwrap().is_clean());
            if dropped == 0 {
                break;
            }
        }
    }
}

/// All futures at once, as in a program with `select!`: an echo whose futures are all dropped after a few polls.
#[tokio::test(start_paused = true)]
async fn echo_with_dropped_futures_echoes_each_message_once_in_order() {
    async fn echo(polls: usize, ws: &mut WebSocket) {
        let mut dropped = 0;
        while let Some(message) = retry!(polls, dropped, ws.recv()).unwrap() {
            if polls.is_multiple_of(2) {
                poll_at_most(polls, ws.send_ping(b"?")).await;
            }
            retry!(polls, dropped, ws.feed(message.clone())).unwrap();
            poll_at_most(polls, ws.flush()).await;
        }
        assert!(dropped > 0);
    }
    for local in BOTH {
        for polls in [1, 2, 3, 5, 8, 9] {
            let (mut ws, peer) = open(local).await;
            throttle(&peer);
            let sent: Vec<String> = (0..40).map(|number| format!("message {number}")).collect();
            peer.send(sent.iter().map(text).chain([close(1000, "")]));
            peer.end();
            echo(polls, &mut ws).await;
            finish(ws, &peer).await;
            let mut frames = peer.take_frames();
            assert_eq!(frames.pop(), Some(close(1000, "")));
            frames.retain(|frame| !frame.is_ping());
            assert_eq!(texts(&frames), sent, "{local:?}, {polls} polls");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_connect_closes_the_transport() {
    for polls in 1..POLLS_MAX {
        let (io, peer) = transport(false);
        throttle(&peer);
        let client = sockeye::Client::default();
        let mut request = vec![];
        let connecting = async {
            // The peer answers once it has the complete request.
            let answering = async {
                while !request.ends_with(b"\r\n\r\n") {
                    tokio::task::yield_now().await;
                    request.extend(peer.take_bytes());
                }
                peer.send_bytes(answer(&request));
                std::future::pending().await
            };
            tokio::select! {
                connected = client.request("ws://localhost/").connect_over(io) => connected,
                () = answering => unreachable!(),
            }
        };
        match poll_at_most(polls, connecting).await {
            None => assert!(peer.is_transport_closed(), "{polls} polls"),
            Some(connected) => {
                connected.unwrap();
                return;
            }
        }
    }
    unreachable!("more polls than needed");
}

#[tokio::test(start_paused = true)]
async fn dropped_accept_closes_the_transport() {
    for polls in 1..POLLS_MAX {
        let (io, peer) = transport(true);
        throttle(&peer);
        peer.send_bytes(REQUEST);
        let server = Server::default();
        let accepting = async { server.accept(io).await?.accept().await };
        match poll_at_most(polls, accepting).await {
            None => assert!(peer.is_transport_closed(), "{polls} polls"),
            Some(accepted) => {
                let mut ws = accepted.unwrap();
                ws.send(Message::text("open")).await.unwrap();
                return;
            }
        }
    }
    unreachable!("more polls than needed");
}
