//! The tables of cancel safety, row by row: every future is dropped at every await point, and made again.
//!
//! The transport gives and takes one byte at a time and makes every operation wait first, so a future has about two
//! await points for each byte. For each number of polls up to the one that drops nothing any more, a fresh connection
//! has each of its futures dropped after that many polls.

mod common;

use common::script::transport;
use common::wire::{Frame, close, continuation, ping, pong, text, texts};
use common::{BOTH, Local, Peer, REQUEST, answer, finish, open, open_server, polled, within};
use sockeye::{CloseCode, Limits, Message, Receiver, Sender, Server, WebSocket};

/// More polls than any of the futures here needs.
const POLLS_MAX: usize = 5000;

fn starve(peer: &Peer) {
    peer.rule(|rules| {
        rules.read_max = 1;
        rules.write_max = 1;
        rules.stutters = true;
    });
}

/// Makes a future again and again, dropping each after `polls` polls, until one is ready. Counts those dropped.
macro_rules! insist {
    ($polls:expr, $dropped:expr, $future:expr) => {
        loop {
            match polled($polls, $future).await {
                Some(output) => break output,
                None => $dropped += 1,
            }
        }
    };
}

fn what_a_peer_sends() -> Vec<Frame> {
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

fn what_is_received() -> Vec<String> {
    ["one", "two, in parts", &"3".repeat(130), ""].map(str::to_owned).into()
}

#[track_caller]
fn check_answers(peer: &Peer) {
    assert_eq!(peer.takes(), [pong("first"), pong("second"), close(3000, "")]);
}

#[tokio::test(start_paused = true)]
async fn recv_loses_nothing() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            starve(&peer);
            peer.sends(what_a_peer_sends());
            peer.ends();
            let (mut received, mut dropped) = (vec![], 0);
            let end = loop {
                match insist!(polls, dropped, ws.recv()) {
                    Ok(Some(message)) => received.push(message.as_text().unwrap().to_owned()),
                    end => break end,
                }
            };
            assert_eq!(received, what_is_received(), "{local:?}, {polls} polls");
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
async fn recv_of_a_receiver_loses_nothing() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (ws, peer) = open(local).await;
            let (sender, mut receiver) = ws.split();
            starve(&peer);
            peer.sends(what_a_peer_sends());
            peer.ends();
            let (mut received, mut dropped) = (vec![], 0);
            let end = loop {
                match insist!(polls, dropped, receiver.recv()) {
                    Ok(Some(message)) => received.push(message.as_text().unwrap().to_owned()),
                    end => break end,
                }
            };
            assert_eq!(received, what_is_received(), "{local:?}, {polls} polls");
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
async fn a_dropped_send_had_queued_its_message_which_leaves_whole_and_once() {
    // checks [6455-10.3-2]
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            starve(&peer);
            let mut dropped = 0;
            for message in messages() {
                dropped += usize::from(polled(polls, ws.send(message)).await.is_none());
            }
            ws.flush().await.unwrap();
            assert_eq!(texts(&peer.takes()), messages(), "{local:?}, {polls} polls");
            if dropped == 0 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_send_of_a_sender_had_queued_its_message_which_leaves_whole_and_once() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (ws, peer) = open(local).await;
            let (sender, _receiver) = ws.split();
            starve(&peer);
            let mut dropped = 0;
            for message in messages() {
                // Another sender each time: what one has begun, any other finishes.
                dropped += usize::from(polled(polls, sender.clone().send(message)).await.is_none());
            }
            sender.flush().await.unwrap();
            assert_eq!(texts(&peer.takes()), messages(), "{local:?}, {polls} polls");
            if dropped == 0 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_send_of_a_large_message_leaves_whole() {
    for polls in 1..POLLS_MAX {
        let (mut ws, peer) = open(Local::Server).await;
        peer.rule(|rules| {
            rules.write_max = 1000;
            rules.stutters = true;
        });
        let large = "l".repeat(20_000);
        let is_sent = polled(polls, ws.send(large.as_str())).await.is_some();
        ws.send("after").await.unwrap();
        assert_eq!(texts(&peer.takes()), [large.as_str(), "after"], "{polls} polls");
        if is_sent {
            break;
        }
    }
}

/// A server whose connections have no room for a second message while one waits.
fn narrow_server() -> Server {
    let mut limits = Limits::default();
    limits.write_buffer_max = 1;
    Server::builder().limits(limits).build()
}

#[tokio::test(start_paused = true)]
async fn a_feed_dropped_for_want_of_room_has_not_queued_its_message() {
    for polls in 1..POLLS_MAX {
        let (mut ws, peer) = open_server(&narrow_server()).await;
        starve(&peer);
        let mut dropped = 0;
        for message in messages() {
            insist!(polls, dropped, ws.feed(message.as_str())).unwrap();
        }
        ws.flush().await.unwrap();
        assert_eq!(texts(&peer.takes()), messages(), "{polls} polls");
        if dropped == 0 {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_of_a_sender_dropped_for_want_of_room_has_not_queued_its_message() {
    for polls in 1..POLLS_MAX {
        let (ws, peer) = open_server(&narrow_server()).await;
        let (sender, _receiver) = ws.split();
        starve(&peer);
        let mut dropped = 0;
        for message in messages() {
            insist!(polls, dropped, sender.feed(message.as_str())).unwrap();
        }
        sender.flush().await.unwrap();
        assert_eq!(texts(&peer.takes()), messages(), "{polls} polls");
        if dropped == 0 {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sends_dropped_for_want_of_room_leave_whole_or_not_at_all() {
    for polls in 1..POLLS_MAX {
        let (mut ws, peer) = open_server(&narrow_server()).await;
        starve(&peer);
        let mut finished = vec![];
        for message in messages() {
            if polled(polls, ws.send(message.as_str())).await.is_some() {
                finished.push(message);
            }
        }
        ws.flush().await.unwrap();
        let arrived = texts(&peer.takes());
        // In order, none twice: what arrived is what remains of all after some are struck out.
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
            starve(&peer);
            for message in messages() {
                ws.feed(message).await.unwrap();
            }
            let mut dropped = 0;
            insist!(polls, dropped, ws.flush()).unwrap();
            assert_eq!(texts(&peer.takes()), messages(), "{local:?}, {polls} polls");
            if dropped == 0 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_ping_leaves_once_with_the_next_call() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            starve(&peer);
            let is_sent = polled(polls, ws.send_ping(b"there?")).await.is_some();
            ws.flush().await.unwrap();
            assert_eq!(peer.takes(), [ping("there?")], "{local:?}, {polls} polls");

            let (sender, _receiver) = ws.split();
            let was_sent = polled(polls, sender.send_ping(b"still?")).await.is_some();
            sender.flush().await.unwrap();
            assert_eq!(peer.takes(), [ping("still?")], "{local:?}, {polls} polls");
            if is_sent && was_sent {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn close_goes_on_when_it_is_called_again() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            starve(&peer);
            peer.sends([text("late"), close(1000, "")]);
            peer.ends();
            let mut dropped = 0;
            insist!(polls, dropped, ws.close(CloseCode::NORMAL, "bye")).unwrap();
            assert!(ws.close_info().unwrap().is_clean());
            finish(ws, &peer).await;
            assert_eq!(peer.takes(), [close(1000, "bye")], "{local:?}, {polls} polls");
            if dropped == 0 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_close_goes_on_with_recv() {
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (mut ws, peer) = open(local).await;
            starve(&peer);
            let answers = async {
                while peer.takes().is_empty() {
                    tokio::task::yield_now().await;
                }
                peer.sends([close(1000, "")]);
                peer.ends();
            };
            let closing = async {
                let is_closed = polled(polls, ws.close(CloseCode::NORMAL, "")).await.is_some();
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
async fn a_dropped_close_of_a_sender_goes_on_with_the_receiver() {
    async fn close_both(polls: usize, sender: Sender, mut receiver: Receiver) -> usize {
        let mut dropped = 0;
        dropped += usize::from(polled(polls, sender.close(CloseCode::NORMAL, "bye")).await.is_none());
        while insist!(polls, dropped, receiver.recv()).unwrap().is_some() {}
        dropped
    }
    for local in BOTH {
        for polls in 1..POLLS_MAX {
            let (ws, peer) = open(local).await;
            let (sender, receiver) = ws.split();
            starve(&peer);
            peer.sends([text("late"), close(1000, "")]);
            peer.ends();
            let dropped = close_both(polls, sender.clone(), receiver).await;
            assert_eq!(peer.takes(), [close(1000, "bye")], "{local:?}, {polls} polls");
            assert!(sender.close_info().unwrap().is_clean());
            if dropped == 0 {
                break;
            }
        }
    }
}

/// All of them at once, as a program with `select!` has it: an echo whose every future is dropped after a few polls.
#[tokio::test(start_paused = true)]
async fn an_echo_of_dropped_futures_echoes_each_message_once_and_in_order() {
    async fn echo(polls: usize, ws: &mut WebSocket) {
        let mut dropped = 0;
        while let Some(message) = insist!(polls, dropped, ws.recv()).unwrap() {
            if polls.is_multiple_of(2) {
                polled(polls, ws.send_ping(b"?")).await;
            }
            insist!(polls, dropped, ws.feed(message.clone())).unwrap();
            polled(polls, ws.flush()).await;
        }
        assert!(dropped > 0);
    }
    for local in BOTH {
        for polls in [1, 2, 3, 5, 8, 9] {
            let (mut ws, peer) = open(local).await;
            starve(&peer);
            let sent: Vec<String> = (0..40).map(|number| format!("message {number}")).collect();
            peer.sends(sent.iter().map(text).chain([close(1000, "")]));
            peer.ends();
            echo(polls, &mut ws).await;
            finish(ws, &peer).await;
            let mut frames = peer.takes();
            assert_eq!(frames.pop(), Some(close(1000, "")));
            frames.retain(|frame| !frame.is_ping());
            assert_eq!(texts(&frames), sent, "{local:?}, {polls} polls");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connect_closes_the_transport() {
    for polls in 1..POLLS_MAX {
        let (io, peer) = transport(false);
        starve(&peer);
        let client = sockeye::Client::default();
        let mut request = vec![];
        let connecting = async {
            // The peer answers as soon as it has the whole request.
            let answering = async {
                while !request.ends_with(b"\r\n\r\n") {
                    tokio::task::yield_now().await;
                    request.extend(peer.takes_bytes());
                }
                peer.sends_bytes(answer(&request));
                std::future::pending().await
            };
            tokio::select! {
                connected = client.request("ws://localhost/").connect_over(io) => connected,
                () = answering => unreachable!(),
            }
        };
        match polled(polls, connecting).await {
            None => assert!(peer.sees_end(), "{polls} polls"),
            Some(connected) => {
                connected.unwrap();
                return;
            }
        }
    }
    unreachable!("more polls than needed");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_accept_closes_the_transport() {
    for polls in 1..POLLS_MAX {
        let (io, peer) = transport(true);
        starve(&peer);
        peer.sends_bytes(REQUEST);
        let server = Server::default();
        let accepting = async { server.accept(io).await?.accept().await };
        match polled(polls, accepting).await {
            None => assert!(peer.sees_end(), "{polls} polls"),
            Some(accepted) => {
                let mut ws = accepted.unwrap();
                ws.send(Message::text("open")).await.unwrap();
                return;
            }
        }
    }
    unreachable!("more polls than needed");
}
