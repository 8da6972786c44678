//! The end of a connection, in all variants.

mod common;

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use common::wire::{Frame, binary, close, continuation, frame, ping, text};
use common::{BOTH, Local, finish, open, poll_once, text_of, within};
use futures_util::{SinkExt, StreamExt};
use sockeye::{CloseCause, CloseCode, Message, ProtocolError, Side};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn peer_closes_and_gets_an_answer() {
    // checks [6455-5.5.1-8, 6455-5.5.1-9, 6455-5.5.1-10, 6455-7.1.1-1, 6455-7.1.5-1, 6455-7.1.6-1]
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([text("before"), close(4001, "enough"), text("after")]);
        assert_eq!(text_of(ws.recv().await), "before");
        // The end is reported immediately, and the answer has been sent.
        let Poll::Ready(Err(error)) = poll_once(pin!(ws.recv())).await else {
            panic!("an error, for the code is none of a normal close");
        };
        assert!(error.is_closed() && !error.is_normal_close(), "{error:?}");
        assert_eq!(error.close_code(), Some(CloseCode(4001)));
        assert_eq!(peer.take_frames(), [close(4001, "")]);
        // RFC 6455 §7.1.1: the server closes TCP first, the client waits for it.
        assert_eq!(peer.is_half_closed(), local == Local::Server);
        assert!(!peer.is_transport_closed());

        let close_info = ws.close_info().unwrap().clone();
        assert_eq!((close_info.code(), close_info.reason()), (CloseCode(4001), "enough"));
        assert_eq!(
            (close_info.initiator(), close_info.cause()),
            (Side::Peer, CloseCause::Peer)
        );
        assert_eq!(close_info.sent().unwrap().code, CloseCode(4001));
        assert!(close_info.is_clean() && !ws.is_open());
        assert_eq!(ws.send("late").await.unwrap_err().close_code(), Some(CloseCode(4001)));
        ws.close(CloseCode::NORMAL, "it is closed already").await.unwrap();
        peer.end();
        finish(ws, &peer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn local_side_closes_and_waits_for_the_answer() {
    // checks [6455-7.1.2-1, 6455-7.1.2-2, 6455-7.3-2]
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        ws.feed("before").await.unwrap();
        let mut closing = Box::pin(ws.close(CloseCode::GOING_AWAY, "restart"));
        assert!(poll_once(&mut closing).await.is_pending());
        assert_eq!(peer.take_frames(), [text("before"), close(1001, "restart")]);
        assert!(!peer.is_half_closed(), "the peer has not closed yet");
        peer.send([text("crossing"), close(1001, "")]);
        let Poll::Ready(closed) = poll_once(&mut closing).await else {
            panic!("both close frames were exchanged");
        };
        closed.unwrap();
        drop(closing);
        assert_eq!(peer.is_half_closed(), local == Local::Server);

        let close_info = ws.close_info().unwrap();
        assert_eq!((close_info.code(), close_info.reason()), (CloseCode::GOING_AWAY, ""));
        assert_eq!(
            (close_info.initiator(), close_info.cause()),
            (Side::Local, CloseCause::Local)
        );
        assert_eq!(close_info.sent().unwrap().reason, "restart");
        // Closing again changes nothing.
        ws.close(CloseCode::NORMAL, "").await.unwrap();
        assert_eq!(peer.take_frames(), []);
        peer.end();
        finish(ws, &peer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn simultaneous_closes_send_one_close_frame_each() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        ws.start_close(CloseCode::NORMAL, "here").unwrap();
        peer.send([close(3001, "there")]);
        peer.end();
        assert!(ws.recv().await.unwrap().is_none());
        assert_eq!(peer.take_frames(), [close(1000, "here")]);
        let close_info = ws.close_info().unwrap();
        assert!(close_info.is_clean());
        assert_eq!(
            (close_info.code(), close_info.initiator()),
            (CloseCode(3001), Side::Local)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn close_frame_without_code_is_1005() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([frame(0x8, "")]);
        peer.end();
        assert!(ws.recv().await.unwrap().is_none());
        assert_eq!(peer.take_frames(), [frame(0x8, "")]);
        assert_eq!(ws.close_info().unwrap().code(), CloseCode::NO_STATUS);
    }
}

#[tokio::test(start_paused = true)]
async fn background_close_takes_one_second_on_servers_and_five_on_clients() {
    for (local, secs) in [(Local::Server, 1), (Local::Client, 5)] {
        for is_split in [false, true] {
            let (mut ws, peer) = open(local).await;
            let start = Instant::now();
            peer.send([close(1000, "")]);
            assert!(ws.recv().await.unwrap().is_none());
            assert_eq!(start.elapsed(), Duration::ZERO);
            match is_split {
                true => drop(ws.split()),
                false => drop(ws),
            }
            assert!(!peer.is_transport_closed());
            finish((), &peer).await;
            assert_eq!(start.elapsed().as_secs(), secs, "{local:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn queued_messages_are_sent_in_the_background_before_the_close_frame() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        ws.feed("queued").await.unwrap();
        ws.start_close(CloseCode::GOING_AWAY, "").unwrap();
        drop(ws);
        tokio::time::sleep(Duration::from_secs(9)).await;
        peer.change_rules(|rules| rules.room = usize::MAX);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(peer.take_frames(), [text("queued"), close(1001, "")]);
        assert!(!peer.is_transport_closed(), "the peer has not answered");
        peer.send([close(1001, "")]);
        peer.end();
        finish((), &peer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn background_close_drops_output_of_slow_peer_after_a_minute() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.room = 0);
    ws.feed(vec![7; 1 << 20]).await.unwrap();
    ws.start_close(CloseCode::NORMAL, "").unwrap();
    drop(ws);
    let start = Instant::now();
    while !peer.is_transport_closed() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        peer.change_rules(|rules| rules.room = 2000);
    }
    assert!((60..=61).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn abort_ends_the_closing_handshake() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        ws.start_close(CloseCode::NORMAL, "").unwrap();
        ws.abort();
        assert!(peer.is_transport_closed());
    }
}

#[test]
fn connection_dropped_outside_a_runtime_closes_immediately() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut ws, peer) = runtime.block_on(open(Local::Server));
    ws.start_close(CloseCode::NORMAL, "").unwrap();
    drop(ws);
    assert!(peer.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn peer_that_ends_tcp_after_our_close_frame_closed_normally() {
    for local in BOTH {
        for is_reset in [false, true] {
            let (mut ws, peer) = open(local).await;
            let mut closing = Box::pin(ws.close(CloseCode::NORMAL, "bye"));
            assert!(poll_once(&mut closing).await.is_pending());
            match is_reset {
                true => peer.reset(),
                false => peer.end(),
            }
            closing.await.unwrap();
            assert!(ws.recv().await.unwrap().is_none());
            let close_info = ws.close_info().unwrap();
            assert_eq!((close_info.received(), close_info.cause()), (None, CloseCause::Local));
            assert!(close_info.is_normal() && !close_info.is_clean());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn recv_after_the_end_yields() {
    for (code, is_normal) in [(1000, true), (1011, false)] {
        let (mut ws, peer) = open(Local::Server).await;
        peer.send([close(code, "")]);
        peer.end();
        assert_eq!(ws.recv().await.is_ok(), is_normal);
        let mut turns_of_others = 0;
        let calls = async {
            for _ in 0..100 {
                assert_eq!(ws.recv().await.is_ok(), is_normal);
            }
        };
        let others = async {
            loop {
                turns_of_others += 1;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = calls => {}
            () = others => unreachable!(),
        }
        assert!(turns_of_others >= 100, "{turns_of_others}");
    }
}

#[tokio::test(start_paused = true)]
async fn send_after_the_end_yields_now_and_then() {
    for is_split in [false, true] {
        let (mut ws, peer) = open(Local::Server).await;
        peer.send([close(1000, "")]);
        peer.end();
        assert!(ws.recv().await.unwrap().is_none());
        let mut turns_of_others = 0;
        let calls = async {
            match is_split {
                false => {
                    for _ in 0..2000 {
                        assert!(ws.send("late").await.is_err() && ws.feed("late").await.is_err());
                    }
                }
                true => {
                    let (sender, _receiver) = ws.split();
                    for _ in 0..2000 {
                        assert!(sender.send("late").await.is_err() && sender.feed("late").await.is_err());
                    }
                }
            }
        };
        let others = async {
            loop {
                turns_of_others += 1;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = calls => {}
            () = others => unreachable!(),
        }
        assert!(turns_of_others >= 10, "{turns_of_others}");
    }
}

#[tokio::test(start_paused = true)]
async fn recv_and_send_report_the_same_end() {
    // The result does not depend on which of the two detects the end first, nor on how the peer ends.
    for local in BOTH {
        for (code, is_normal) in [(1000, true), (1001, true), (4001, false), (1011, false)] {
            for sends_first in [false, true] {
                for is_broken in [false, true] {
                    let (mut ws, peer) = open(local).await;
                    peer.send([text("before"), close(code, "")]);
                    if is_broken {
                        peer.fail_writes_and_end();
                    }
                    let sent = match sends_first {
                        true => ws.send("tick").await,
                        false => Ok(()),
                    };
                    if let Err(error) = &sent {
                        assert_eq!(error.is_normal_close(), is_normal, "{error:?}");
                        assert_eq!(error.close_code(), Some(CloseCode(code)));
                    }
                    assert_eq!(text_of(ws.recv().await), "before");
                    match ws.recv().await {
                        Ok(end) => assert!(is_normal && end.is_none()),
                        Err(error) => {
                            assert!(!is_normal);
                            assert_eq!(error.close_code(), Some(CloseCode(code)));
                        }
                    }
                    let late = ws.send("late").await.unwrap_err();
                    assert_eq!(
                        (late.is_normal_close(), late.close_code()),
                        (is_normal, Some(CloseCode(code)))
                    );
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn close_times_out_after_five_seconds_without_answer() {
    // checks [6455-5.5.1-11]
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let start = Instant::now();
        let error = within(60, ws.close(CloseCode::NORMAL, "")).await.unwrap_err();
        assert!(error.is_timeout() && error.is_closed(), "{error:?}");
        assert_eq!(error.close_info().unwrap().cause(), CloseCause::CloseTimeout);
        assert_eq!(start.elapsed().as_secs(), 5);
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn data_after_our_close_frame_does_not_extend_the_timeout() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let start = Instant::now();
        let talking = async {
            loop {
                peer.send([text("still"), ping("here")]);
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        let error = tokio::select! {
            closed = ws.close(CloseCode::NORMAL, "") => closed.unwrap_err(),
            () = talking => unreachable!(),
        };
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn close_to_a_peer_that_takes_nothing_ends_after_the_write_timeout() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        ws.feed("queued").await.unwrap();
        let start = Instant::now();
        let error = within(60, ws.close(CloseCode::NORMAL, "")).await.unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        // The write timeout, because the close frame has not been written.
        assert_eq!(start.elapsed().as_secs(), 10);
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn close_behind_backlog_delivers_everything_to_a_slow_peer() {
    const MESSAGE_LEN: usize = 12 << 20;
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        ws.feed(vec![7; MESSAGE_LEN]).await.unwrap();
        let start = Instant::now();
        let mut taken = 0;
        let reading = async {
            while taken < MESSAGE_LEN + 4 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                peer.change_rules(|rules| rules.room = 100_000);
                tokio::task::yield_now().await;
                taken += peer.take_bytes().len();
            }
            peer.change_rules(|rules| rules.room = usize::MAX);
            peer.send([close(1000, "")]);
        };
        let (closed, ()) = tokio::join!(ws.close(CloseCode::NORMAL, ""), reading);
        closed.unwrap();
        assert!(start.elapsed().as_secs() >= 12);
    }
}

#[tokio::test(start_paused = true)]
async fn transport_that_cannot_half_close_is_closed_after_the_linger() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.change_rules(|rules| rules.shutdown_hangs = true);
    let start = Instant::now();
    peer.send([close(1000, "")]);
    assert!(ws.recv().await.unwrap().is_none());
    finish(ws, &peer).await;
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn discarded_input_after_close_is_limited() {
    // checks [6455-7.1.1-1]
    let (mut ws, peer) = open(Local::Server).await;
    peer.send([close(1000, "")]);
    peer.send_bytes(vec![0; 65 << 20]);
    let start = Instant::now();
    assert!(within(60, ws.recv()).await.unwrap().is_none());
    assert_eq!(start.elapsed().as_secs(), 0);
    assert!(peer.unread_len() >= 512 * 1024, "{} left", peer.unread_len());
}

#[tokio::test(start_paused = true)]
async fn reset_after_closing_handshake_is_a_normal_end() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([close(1000, "")]);
        peer.reset();
        assert!(ws.recv().await.unwrap().is_none());
        assert!(ws.close_info().unwrap().is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn reset_before_closing_handshake_is_an_error() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([text("before")]);
        peer.reset();
        assert_eq!(text_of(ws.recv().await), "before");
        let error = ws.recv().await.unwrap_err();
        assert!(error.is_io() && error.is_closed(), "{error:?}");
        assert_eq!(ws.close_info().unwrap().cause(), CloseCause::TransportEnd);
    }
}

#[tokio::test(start_paused = true)]
async fn end_without_close_frame_is_a_permanent_error() {
    // checks [6455-7.2.1-1]
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([text("before")]);
        peer.end();
        assert_eq!(text_of(ws.recv().await), "before");
        for _ in 0..3 {
            let error = ws.recv().await.unwrap_err();
            assert!(error.is_closed() && !error.is_io() && !error.is_timeout(), "{error:?}");
            assert_eq!(error.close_info().unwrap().cause(), CloseCause::TransportEnd);
            assert_eq!(error.close_info().unwrap().code(), CloseCode::ABNORMAL);
        }
        assert!(ws.send("late").await.unwrap_err().is_closed());
        assert!(ws.send_ping(b"late").await.unwrap_err().is_closed());
        assert!(ws.close(CloseCode::NORMAL, "").await.unwrap_err().is_closed());
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn truncated_message_is_never_delivered() {
    let cut = |frame: Frame, mask: bool| {
        let mut bytes = frame.bytes(mask);
        bytes.pop();
        bytes
    };
    for local in BOTH {
        let mask = local == Local::Server;
        for rest in [
            cut(text("some text"), mask),
            cut(binary(vec![0; 200_000]), mask),
            text("first part").unfinished().bytes(mask),
            [text("a").unfinished().bytes(mask), cut(continuation("bc"), mask)].concat(),
        ] {
            let (mut ws, peer) = open(local).await;
            peer.send_bytes(rest);
            peer.end();
            assert!(ws.recv().await.unwrap_err().is_closed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn recv_returns_none_after_normal_close() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([close(1000, "")]);
        peer.end();
        for _ in 0..3 {
            assert!(ws.recv().await.unwrap().is_none());
        }
        let error = ws.send("late").await.unwrap_err();
        assert!(error.is_closed() && error.close_info().unwrap().is_clean(), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_after_start_close_are_received() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        ws.start_close(CloseCode::NORMAL, "").unwrap();
        assert!(!ws.is_open());
        assert!(ws.feed("late").await.unwrap_err().is_closed());
        peer.send([text("one"), text("two"), close(1000, "")]);
        peer.end();
        assert_eq!(text_of(ws.recv().await), "one");
        assert_eq!(text_of(ws.recv().await), "two");
        assert!(ws.recv().await.unwrap().is_none());
        assert_eq!(peer.take_frames(), [close(1000, "")]);
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_code_or_reason_is_an_error_and_still_closes() {
    let cases = [0, 999, 1004, 1005, 1006, 1015, 2999, 5000].map(|code| (code, "no".to_owned()));
    for (code, reason) in cases.into_iter().chain([(1000, "r".repeat(124))]) {
        let (mut ws, peer) = open(Local::Client).await;
        peer.send([close(1000, "")]);
        peer.end();
        let error = ws.close(CloseCode(code), &reason).await.unwrap_err();
        assert!(error.is_invalid_input() && !error.is_closed(), "{code}: {error:?}");
        let sent = match code {
            1000 | 1005 => CloseCode::NORMAL,
            _ => CloseCode::INTERNAL_ERROR,
        };
        assert_eq!(peer.take_frames(), [close(sent.0, &reason[..reason.len().min(123)])]);
        assert!(ws.recv().await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn protocol_violation_sends_close_frame_and_is_returned() {
    // checks [6455-7.1.7-1, 6455-7.1.7-2, 6455-7.1.7-4, 6455-7.4.1-5, 6455-10.7-2]
    for local in BOTH {
        for (bytes, fault, code) in [
            // A frame with a mask bit that this side does not expect.
            (
                text("x").bytes(local == Local::Client),
                match local {
                    Local::Server => ProtocolError::UnmaskedFrame,
                    Local::Client => ProtocolError::MaskedFrame,
                },
                1002,
            ),
            (
                text(b"\xff").bytes(local == Local::Server),
                ProtocolError::InvalidUtf8,
                1007,
            ),
            (
                binary("").declaring(16 * 1024 * 1024 + 1).bytes(local == Local::Server),
                ProtocolError::MessageTooBig,
                1009,
            ),
        ] {
            let (mut ws, peer) = open(local).await;
            let start = Instant::now();
            peer.send([text("before")]);
            peer.send_bytes(bytes);
            assert_eq!(text_of(ws.recv().await), "before");
            let error = ws.recv().await.unwrap_err();
            assert!(error.is_protocol() && error.is_closed(), "{error:?}");
            assert_eq!(error.close_info().unwrap().cause(), CloseCause::ProtocolError(fault));
            assert_eq!(peer.take_frames(), [close(code, fault.reason())]);
            assert!(peer.is_half_closed() && !peer.is_transport_closed());
            assert_eq!(start.elapsed(), Duration::ZERO);
            finish(ws, &peer).await;
            assert_eq!(
                start.elapsed().as_secs(),
                5,
                "it reads on so that the peer gets to see why"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn earlier_input_is_received_after_a_write_failure() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([text("one"), text("two"), close(1008, "you talk too much")]);
        assert_eq!(text_of(ws.recv().await), "one");
        // This side learns that the peer is gone when it writes.
        peer.fail_after(0);
        let error = ws.send("echo").await.unwrap_err();
        // The input that had arrived explains the end better than the broken pipe.
        assert_eq!(error.close_code(), Some(CloseCode(1008)));
        assert!(!ws.is_open());
        assert_eq!(text_of(ws.recv().await), "two");
        assert_eq!(ws.recv().await.unwrap_err().close_code(), Some(CloseCode(1008)));
        let close_info = ws.close_info().unwrap();
        assert_eq!(
            (close_info.code(), close_info.reason()),
            (CloseCode(1008), "you talk too much")
        );
        assert_eq!(ws.send("echo").await.unwrap_err().close_code(), Some(CloseCode(1008)));
    }
}

#[tokio::test(start_paused = true)]
async fn failure_at_any_operation_is_an_error_and_closes_the_transport() {
    for local in BOTH {
        for operation in 0.. {
            let (mut ws, peer) = open(local).await;
            peer.change_rules(|rules| {
                rules.read_max = 5;
                rules.write_max = 5;
            });
            peer.fail_after(operation);
            peer.send([text("hello"), ping("there"), close(1000, "")]);
            peer.end();
            let echo = async {
                while let Some(message) = ws.recv().await? {
                    ws.send(message).await?;
                }
                Ok::<(), sockeye::Error>(())
            };
            let result = within(60, echo).await;
            // Until both close frames are exchanged, it is an error. Later calls return the same.
            let again = ws.recv().await;
            assert!(again.is_err() || result.is_ok(), "{operation}: {result:?}, {again:?}");
            assert!(ws.close_info().is_some() && !ws.is_open());
            finish(ws, &peer).await;
            if result.is_ok() && peer.take_frames().last() == Some(&close(1000, "")) {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stream_yields_an_error_once_and_ends() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([text("one")]);
        peer.end();
        assert_eq!(ws.next().await.unwrap().unwrap(), Message::text("one"));
        assert!(ws.next().await.unwrap().is_err());
        assert!(ws.next().await.is_none());
        assert!(ws.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn stream_ends_after_normal_close() {
    let (ws, peer) = open(Local::Server).await;
    let (_sender, receiver) = ws.split();
    peer.send([text("one"), text("two"), close(1000, "")]);
    peer.end();
    let messages: Vec<_> = receiver.map(Result::unwrap).collect().await;
    assert_eq!(messages, [Message::text("one"), Message::text("two")]);
}

#[tokio::test(start_paused = true)]
async fn sink_sends_and_closes() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        SinkExt::feed(&mut ws, Message::text("a")).await.unwrap();
        assert_eq!(peer.take_frames(), []);
        SinkExt::send(&mut ws, Message::text("b")).await.unwrap();
        assert_eq!(peer.take_frames(), [text("a"), text("b")]);
        peer.send([text("not read away"), close(1000, "")]);
        peer.end();
        SinkExt::<Message>::close(&mut ws).await.unwrap();
        assert_eq!(peer.take_frames(), [close(1000, "")]);
        assert_eq!(text_of(ws.next().await.unwrap().map(Some)), "not read away");
        assert!(ws.next().await.is_none());
        assert!(
            SinkExt::send(&mut ws, Message::text("late"))
                .await
                .unwrap_err()
                .is_closed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_connection_ends_tcp() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        drop(ws);
        assert!(peer.is_transport_closed());
        assert!(peer.take_bytes().is_empty());

        let (ws, peer) = open(local).await;
        ws.abort();
        assert!(peer.is_transport_closed());

        let (ws, peer) = open(local).await;
        let (sender, receiver) = ws.split();
        drop(sender);
        assert!(!peer.is_transport_closed(), "the receiver is left");
        drop(receiver);
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_connection_leaves_no_timer() {
    let (mut ws, _peer) = open(Local::Server).await;
    assert!(poll_once(pin!(ws.recv())).await.is_pending());
    drop(ws);
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(start.elapsed().as_secs(), 60);
}
