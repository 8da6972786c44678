//! Messages as byte streams, and connections as byte streams.

mod common;
#[path = "common/heap.rs"]
mod heap;

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use common::wire::{binary, continuation, ping, text};
use common::{BOTH, Local, open, pair, poll_once, text_of, within};
use heap::peak_during;
use sockeye::{
    Client, CloseCode, Compress, DeflateConfig, Limits, MessageKind, Server, Takeover, TrySendError, WebSocket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A connected pair, with or without compression, that limits whole messages to 100 KB.
async fn limited_pair(deflate: Option<Takeover>) -> (WebSocket, WebSocket) {
    let limits = Limits::default().message_size_max(100_000);
    let (mut client, mut server) = (
        Client::builder().limits(limits.clone()),
        Server::builder().limits(limits),
    );
    if let Some(takeover) = deflate {
        let mut config = DeflateConfig::default();
        (config.takeover, config.peer_takeover) = (takeover, takeover);
        client = client.compression(config.clone());
        server = server.compression(config);
    }
    pair(&client.build().unwrap(), &server.build()).await
}

const MODES: [Option<Takeover>; 3] = [None, Some(Takeover::Reset), Some(Takeover::Keep)];

/// Text that compresses, but is not constant.
fn numbers(len: usize) -> String {
    let mut numbers: String = (0..len / 2).map(|number| format!("{number}\u{b5}")).collect();
    while numbers.len() > len || !numbers.is_char_boundary(numbers.len()) {
        numbers.pop();
    }
    numbers
}

async fn read_all(ws: &mut WebSocket) -> (MessageKind, Vec<u8>) {
    let mut message = ws.recv_stream().await.unwrap().expect("a message");
    let mut bytes = Vec::new();
    message.read_to_end(&mut bytes).await.unwrap();
    assert!(message.is_finished());
    (message.kind(), bytes)
}

#[tokio::test(start_paused = true)]
async fn messages_of_any_size_cross_as_streams() {
    for deflate in MODES {
        let (mut client, mut server) = limited_pair(deflate).await;
        for len in [0, 1, 65_535, 65_536, 65_537, 300_000] {
            for write_len in [1000, 70_000, usize::MAX] {
                let sent = numbers(len);
                let sending = async {
                    let mut message = client.send_stream(MessageKind::Text);
                    for part in sent.as_bytes().chunks(write_len.min(len.max(1))) {
                        message.write_all(part).await.unwrap();
                    }
                    message.finish().await.unwrap();
                };
                let ((kind, received), ()) = within(60, async { tokio::join!(read_all(&mut server), sending) }).await;
                assert_eq!(kind, MessageKind::Text);
                assert!(
                    received == sent.as_bytes(),
                    "{deflate:?}: {len} bytes, written by {write_len}"
                );
            }
        }
        // Whole messages in between.
        client.send("after").await.unwrap();
        assert_eq!(text_of(server.recv().await), "after");
        client.feed("again").await.unwrap();
        client.send("and again").await.unwrap();
        assert_eq!(read_all(&mut server).await.1, b"again");
        assert_eq!(text_of(server.recv().await), "and again");
        assert_eq!(server.stats().received.messages, client.stats().sent.messages);
    }
}

#[tokio::test(start_paused = true)]
async fn small_message_is_one_frame_and_a_flush_ends_a_fragment() {
    let (mut ws, peer) = open(Local::Server).await;
    let mut message = ws.send_stream(MessageKind::Binary);
    message.write_all(b"a").await.unwrap();
    message.write_all(b"b").await.unwrap();
    message.shutdown().await.unwrap();
    drop(message);
    assert_eq!(peer.take_frames(), [binary("ab")]);

    let mut message = ws.send_stream(MessageKind::Text);
    message.write_all("a\u{20ac}".as_bytes().split_at(2).0).await.unwrap();
    message.flush().await.unwrap();
    assert_eq!(peer.take_frames(), [text("a").unfinished()]);
    // Nothing but half of a code point.
    message.flush().await.unwrap();
    assert_eq!(peer.take_frames(), []);
    message.write_all("\u{20ac}".as_bytes().split_at(1).1).await.unwrap();
    message.finish().await.unwrap();
    assert_eq!(peer.take_frames(), [continuation("\u{20ac}")]);
    assert!(ws.is_open());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_reader_discards_the_rest_of_its_message() {
    for deflate in MODES {
        let (mut client, mut server) = limited_pair(deflate).await;
        let long = numbers(1_000_000);
        let sending = async {
            for _ in 0..3 {
                let mut message = client.send_stream(MessageKind::Text);
                message.write_all(long.as_bytes()).await.unwrap();
                message.finish().await.unwrap();
                client.send("next").await.unwrap();
            }
        };
        let receiving = async {
            for read_len in [0, 1, 200_000] {
                let mut message = server.recv_stream().await.unwrap().unwrap();
                message.read_exact(&mut vec![0; read_len]).await.unwrap();
                drop(message);
                match read_len {
                    0 => assert_eq!(text_of(server.recv().await), "next"),
                    1 => assert_eq!(read_all(&mut server).await.1, b"next"),
                    _ => loop {
                        match server.try_recv() {
                            Ok(message) => break assert_eq!(message.as_text(), Some("next")),
                            Err(_) => tokio::task::yield_now().await,
                        }
                    },
                }
            }
        };
        within(60, async { tokio::join!(sending, receiving) }).await;
        assert!(server.is_open());
        // Split, with a sender that also reads.
        let (sender, mut receiver) = server.split();
        let sending = async {
            let mut message = client.send_stream(MessageKind::Text);
            message.write_all(long.as_bytes()).await.unwrap();
            message.finish().await.unwrap();
            client.send("next").await.unwrap();
            client.recv().await.unwrap()
        };
        let receiving = async {
            let mut message = receiver.recv_stream().await.unwrap().unwrap();
            message.read_exact(&mut [0; 10]).await.unwrap();
            drop(message);
            sender.send("reply").await.unwrap();
            assert_eq!(text_of(receiver.recv().await), "next");
        };
        let (reply, ()) = within(60, async { tokio::join!(sending, receiving) }).await;
        assert_eq!(reply.unwrap().as_text(), Some("reply"));
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_an_unfinished_writer_closes_with_1011() {
    for deflate in MODES {
        for is_split in [false, true] {
            let (mut client, server) = limited_pair(deflate).await;
            let part = numbers(100_000);
            let mut server = server;
            if is_split {
                let (sender, mut receiver) = server.split();
                let mut message = sender.send_stream(MessageKind::Text);
                message.write_all(part.as_bytes()).await.unwrap();
                drop(message);
                tokio::spawn(async move { while let Ok(Some(_)) = receiver.recv().await {} });
            } else {
                let mut message = server.send_stream(MessageKind::Text);
                message.write_all(part.as_bytes()).await.unwrap();
                drop(message);
                assert!(!server.is_open());
                tokio::spawn(async move { while let Ok(Some(_)) = server.recv().await {} });
            }
            let mut message = within(60, client.recv_stream()).await.unwrap().unwrap();
            let mut received = Vec::new();
            let error = within(60, message.read_to_end(&mut received)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
            assert!(part.as_bytes().starts_with(&received) && !received.is_empty());
            drop(message);
            let error = client.recv().await.unwrap_err();
            assert_eq!(error.close_code(), Some(CloseCode::INTERNAL_ERROR), "{error}");
        }
    }
    // Nothing was sent yet.
    let (mut ws, peer) = open(Local::Server).await;
    let mut message = ws.send_stream(MessageKind::Text);
    message.write_all(b"unsent").await.unwrap();
    drop(message);
    ws.send("other").await.unwrap();
    assert_eq!(peer.take_frames(), [text("other")]);
}

#[tokio::test(start_paused = true)]
async fn closing_cuts_off_a_streamed_message() {
    for deflate in MODES {
        let (client, mut server) = limited_pair(deflate).await;
        let part = numbers(100_000);
        // The peer closes and waits for the answer, which is sent although the message is not finished.
        let closing = async {
            let mut message = server.recv_stream().await.unwrap().unwrap();
            message.read_u8().await.unwrap();
            drop(message);
            server.close(CloseCode::NORMAL, "").await
        };
        let (sender, mut receiver) = client.split();
        let mut message = sender.send_stream(MessageKind::Text);
        let writing = async {
            loop {
                if let Err(error) = message.write_all(part.as_bytes()).await {
                    break error;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (closed, error, received) = within(60, async { tokio::join!(closing, writing, receiver.recv()) }).await;
        closed.unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
        assert_eq!(received.unwrap(), None);
        assert_eq!(server.close_info().unwrap().received().unwrap().code, CloseCode::NORMAL);
    }
}

#[tokio::test(start_paused = true)]
async fn other_senders_wait_for_the_end_of_a_streamed_message() {
    let (mut client, server) = limited_pair(None).await;
    let (sender, mut receiver) = server.split();
    let other = sender.clone();
    let mut message = sender.send_stream(MessageKind::Binary);
    // Before the first fragment, others are not affected.
    message.write_all(b"head").await.unwrap();
    other.send("before").await.unwrap();
    message.flush().await.unwrap();

    assert!(matches!(other.try_send("now"), Err(TrySendError::Full { .. })));
    let mut second = sender.send_stream(MessageKind::Text);
    second.write_all(b"second stream").await.unwrap();
    let mut waiting = Box::pin(async {
        other.send("waits").await.unwrap();
        second.finish().await.unwrap();
    });
    assert!(poll_once(&mut waiting).await.is_pending());
    let mut permit = Box::pin(other.reserve(10));
    assert!(poll_once(&mut permit).await.is_pending());
    drop(permit);
    // Control frames pass.
    other
        .send_ping(b"between")
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    client.send_ping(b"?").await.unwrap();
    assert!(poll_once(pin!(receiver.recv())).await.is_pending());

    let mut first = client.recv().await.unwrap();
    assert_eq!(first.take().unwrap().as_text(), Some("before"));
    assert!(poll_once(pin!(client.recv())).await.is_pending());
    assert!(client.rtt().is_some(), "the pong arrived");
    message.write_all(b", tail").await.unwrap();
    message.finish().await.unwrap();
    within(60, waiting).await;
    assert_eq!(client.recv().await.unwrap().unwrap().as_bytes(), b"head, tail");
    assert_eq!(text_of(client.recv().await), "waits");
    assert_eq!(text_of(client.recv().await), "second stream");
}

#[tokio::test(start_paused = true)]
async fn outbox_keeps_messages_behind_a_streamed_one() {
    let (mut client, server) = limited_pair(None).await;
    let (sender, mut receiver) = server.split();
    let outbox = sender.clone().with_overflow(sockeye::Overflow::DropOldest);
    let permit = sender.reserve(100).await.unwrap();
    let mut message = sender.send_stream(MessageKind::Binary);
    message.write_all(b"a").await.unwrap();
    message.flush().await.unwrap();
    outbox.send("kept").await.unwrap();
    permit.send("permitted").unwrap();
    // Does not spin, and answers.
    client.send_ping(b"?").await.unwrap();
    assert!(poll_once(pin!(receiver.recv())).await.is_pending());
    assert!(poll_once(pin!(client.recv())).await.is_pending());
    assert!(client.rtt().is_some());
    // Flushing waits for them, and so for the end of the message.
    let mut flushing = pin!(sender.flush());
    assert!(poll_once(&mut flushing).await.is_pending());
    message.finish().await.unwrap();
    within(60, flushing).await.unwrap();
    assert_eq!(client.recv().await.unwrap().unwrap().as_bytes(), b"a");
    let mut others = [text_of(client.recv().await), text_of(client.recv().await)];
    others.sort();
    assert_eq!(others, ["kept", "permitted"]);
}

#[tokio::test(start_paused = true)]
async fn invalid_text_is_an_error_on_both_sides() {
    // Received.
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([text("valid").unfinished(), continuation(b"\xff")]);
        let mut message = ws.recv_stream().await.unwrap().unwrap();
        let mut received = Vec::new();
        let error = message.read_to_end(&mut received).await.unwrap_err();
        assert_eq!((error.kind(), &received[..]), (ErrorKind::InvalidData, &b"valid"[..]));
        // Every later read fails too.
        assert!(message.read_u8().await.is_err());
        drop(message);
        assert!(ws.recv().await.unwrap_err().is_protocol());
        assert_eq!(
            peer.take_frames().last().unwrap().payload()[..2],
            1007_u16.to_be_bytes()
        );
    }
    // Sent.
    let (mut ws, peer) = open(Local::Server).await;
    let mut message = ws.send_stream(MessageKind::Text);
    message.write_all(b"a\xff").await.unwrap();
    assert_eq!(message.flush().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(message.finish().await.unwrap_err().is_invalid_input());
    let mut message = ws.send_stream(MessageKind::Text);
    message.write_all(b"a\xe2\x82").await.unwrap();
    assert!(message.finish().await.unwrap_err().is_invalid_input());
    // Nothing was sent, so the connection is open.
    ws.send("b").await.unwrap();
    assert_eq!(peer.take_frames(), [text("b")]);
    assert_eq!(
        ws.send_stream(MessageKind::Text).write(b"").await.unwrap(),
        0,
        "an empty write"
    );
}

#[tokio::test(start_paused = true)]
async fn beginning_received_by_a_cancelled_recv_is_not_lost() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([text("begun ").unfinished()]);
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        peer.send([ping("p"), continuation("and ended"), binary("next").unfinished()]);
        assert_eq!(
            read_all(&mut ws).await,
            (MessageKind::Text, b"begun and ended".to_vec())
        );
        // The beginning was received as a stream; the message is complete later.
        {
            let mut starting = Box::pin(ws.recv_stream());
            assert!(poll_once(&mut starting).await.is_ready());
        }
        // That reader was dropped, so its message is discarded.
        peer.send([continuation(""), text("whole").unfinished()]);
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        peer.send([continuation("!"), text("last")]);
        assert_eq!(text_of(ws.recv().await), "whole!");
        assert_eq!(text_of(ws.recv().await), "last");
    }
}

#[tokio::test(start_paused = true)]
async fn limit_applies_again_to_whole_messages() {
    let (mut client, mut server) = limited_pair(None).await;
    client.send(vec![1; 10]).await.unwrap();
    read_all(&mut server).await;
    let sending = async {
        let mut message = client.send_stream(MessageKind::Binary);
        message.write_all(&[1; 100_001]).await.unwrap();
        drop(message.finish().await);
        client.recv().await
    };
    let (closed, received) = within(60, async { tokio::join!(sending, server.recv()) }).await;
    assert!(received.unwrap_err().is_protocol());
    assert_eq!(closed.unwrap_err().close_code(), Some(CloseCode::MESSAGE_TOO_BIG));
}

#[tokio::test(start_paused = true)]
async fn end_of_the_connection_inside_a_message_is_an_error() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([binary("begun").unfinished()]);
        let mut message = ws.recv_stream().await.unwrap().unwrap();
        let mut bytes = [0; 5];
        message.read_exact(&mut bytes).await.unwrap();
        peer.send([common::wire::close(1000, "")]);
        let error = message.read(&mut bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
        drop(message);
        assert!(ws.recv_stream().await.unwrap().is_none());

        let (mut ws, peer) = open(local).await;
        peer.send([binary("begun").unfinished()]);
        let mut message = ws.recv_stream().await.unwrap().unwrap();
        peer.end();
        let mut bytes = Vec::new();
        assert!(message.read_to_end(&mut bytes).await.is_err());
        assert_eq!(bytes, b"begun");
    }
}

/// 64 MiB cross in a fixed amount of memory: the pipe of 1 MiB, a queue of at most 1 MiB, and buffers.
#[tokio::test(start_paused = true)]
async fn large_messages_use_constant_memory() {
    const MIB: u64 = 1024 * 1024;
    for (deflate, is_text, len_sent) in [
        (None, false, 64 * MIB),
        (None, true, 64 * MIB),
        // Compression takes long without optimization.
        (Some(Takeover::Keep), true, 16 * MIB),
    ] {
        let (mut client, mut server) = limited_pair(deflate).await;
        let part = numbers(50_000);
        let kind = if is_text {
            MessageKind::Text
        } else {
            MessageKind::Binary
        };
        let crossing = async {
            let sending = async {
                let mut message = client.send_stream(kind);
                let mut left = len_sent;
                while left > 0 {
                    let len = part.len().min(left as usize);
                    let len = part.floor_char_boundary(len).max(usize::from(left == 1));
                    let bytes = if len == 1 { b"a" } else { &part.as_bytes()[..len] };
                    message.write_all(bytes).await.unwrap();
                    left -= bytes.len() as u64;
                }
                message.finish().await.unwrap();
            };
            let receiving = async {
                let mut message = server.recv_stream().await.unwrap().unwrap();
                tokio::io::copy(&mut message, &mut tokio::io::sink()).await.unwrap()
            };
            tokio::join!(receiving, sending).0
        };
        let (received, peak) = peak_during(within(600, crossing)).await;
        println!("{deflate:?} {kind:?}: {peak} bytes");
        assert_eq!(received, len_sent);
        assert!(peak < 4 * 1024 * 1024, "{deflate:?} {kind:?}: {peak} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn both_directions_stream_at_once() {
    for deflate in MODES {
        let (client, server) = limited_pair(deflate).await;
        let long = numbers(2_500_000);
        let side = async |ws: WebSocket| {
            let (sender, mut receiver) = ws.split();
            let sending = async {
                let mut message = sender.send_stream(MessageKind::Text).compress(Compress::Always);
                message.write_all(long.as_bytes()).await.unwrap();
                message.finish().await.unwrap();
            };
            let receiving = async {
                let mut message = receiver.recv_stream().await.unwrap().unwrap();
                let mut received = Vec::new();
                // A small buffer: chunks that were inflated are larger.
                let mut bytes = [0; 777];
                while let len @ 1.. = message.read(&mut bytes).await.unwrap() {
                    received.extend_from_slice(&bytes[..len]);
                }
                received
            };
            let (received, ()) = tokio::join!(receiving, sending);
            assert!(received == long.as_bytes());
            (sender, receiver)
        };
        let _halves = within(600, async { tokio::join!(side(client), side(server)) }).await;
    }
}

/// Every future is dropped after its first poll, and the stream is complete anyway.
#[tokio::test(start_paused = true)]
async fn cancelled_reads_and_writes_lose_nothing() {
    for deflate in MODES {
        let (mut client, mut server) = limited_pair(deflate).await;
        let long = numbers(1_000_000);
        let sending = async {
            let mut message = client.send_stream(MessageKind::Text);
            let mut left = long.as_bytes();
            while !left.is_empty() {
                // `write` is cancel-safe: it takes bytes only when it is ready.
                let mut writing = Box::pin(message.write(left));
                match poll_once(&mut writing).await {
                    std::task::Poll::Ready(written) => {
                        drop(writing);
                        left = &left[written.unwrap()..];
                    }
                    std::task::Poll::Pending => drop(writing),
                }
                let mut flushing = Box::pin(message.flush());
                let _ = poll_once(&mut flushing).await;
                drop(flushing);
                tokio::task::yield_now().await;
            }
            loop {
                let mut ending = Box::pin(message.shutdown());
                if let std::task::Poll::Ready(ended) = poll_once(&mut ending).await {
                    ended.unwrap();
                    break;
                }
                drop(ending);
                tokio::task::yield_now().await;
            }
        };
        let receiving = async {
            let mut message = server.recv_stream().await.unwrap().unwrap();
            let mut received = Vec::new();
            while !message.is_finished() {
                let mut bytes = [0; 10_000];
                let mut reading = Box::pin(message.read(&mut bytes));
                match poll_once(&mut reading).await {
                    std::task::Poll::Ready(len) => {
                        drop(reading);
                        received.extend_from_slice(&bytes[..len.unwrap()]);
                    }
                    std::task::Poll::Pending => drop(reading),
                }
                tokio::task::yield_now().await;
            }
            received
        };
        let (received, ()) = within(600, async { tokio::join!(receiving, sending) }).await;
        assert!(received == long.as_bytes());
    }
}

// Connections as byte streams.

/// What a byte protocol does: it writes pieces of very different lengths, flushes now and then, ends its direction, and
/// reads until the other one ends. Returns the hash of what was received, and the length.
async fn talk<T: tokio::io::AsyncRead + tokio::io::AsyncWrite>(io: T, seed: u32, total: usize) -> (u64, usize) {
    let (mut reader, mut writer) = tokio::io::split(io);
    let writing = async {
        let (mut random, mut written) = (seed, 0);
        while written < total {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Key strokes, packets and files.
            let len = match random >> 30 {
                0 | 1 => 1 + (random >> 20) as usize % 40,
                2 => (random >> 16) as usize % 35_000,
                _ => (random >> 12) as usize % 700_000,
            };
            let len = len.min(total - written);
            let bytes: Vec<u8> = (written..written + len).map(|i| byte_at(seed, i)).collect();
            writer.write_all(&bytes).await.unwrap();
            if random & 0x300 == 0 {
                writer.flush().await.unwrap();
            }
            written += len;
        }
        writer.shutdown().await.unwrap();
    };
    let reading = async {
        let (mut hash, mut len) = (0, 0);
        let mut bytes = vec![0; 32_000];
        while let read @ 1.. = reader.read(&mut bytes).await.unwrap() {
            hash = bytes[..read].iter().fold(hash, |hash, byte| hash_of(hash, *byte));
            len += read;
        }
        (hash, len)
    };
    tokio::join!(reading, writing).0
}

fn byte_at(seed: u32, index: usize) -> u8 {
    (((index as u32) >> 3).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 27) as u8
}

fn hash_of(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

fn expected(seed: u32, total: usize) -> (u64, usize) {
    ((0..total).fold(0, |hash, i| hash_of(hash, byte_at(seed, i))), total)
}

#[tokio::test(start_paused = true)]
async fn byte_protocol_crosses_in_both_directions_with_half_close() {
    for deflate in MODES {
        let (client, server) = limited_pair(deflate).await;
        let (client, server) = (client.into_io().half_close(), server.into_io().half_close());
        // Whichever ends first, the other continues.
        let (here, there) = (3_000_000, 1_000_000);
        let both = async { tokio::join!(talk(client, 1, here), talk(server, 2, there)) };
        let (at_client, at_server) = within(600, both).await;
        assert_eq!(at_client, expected(2, there), "{deflate:?}");
        assert_eq!(at_server, expected(1, here), "{deflate:?}");
    }
}

#[tokio::test]
async fn byte_protocol_crosses_tcp_through_a_bridge() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // WebSocket on one side, TCP on the other, as websockify does it.
    let (near, mut far) = tokio::io::duplex(10_000);
    let bridge = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let ws = Server::default().accept(tcp).await.unwrap().accept().await.unwrap();
        let mut io = ws.into_io().half_close();
        tokio::io::copy_bidirectional(&mut io, &mut far).await.unwrap()
    });
    let client = sockeye::connect(&format!("ws://{address}/")).await.unwrap();
    let client = client.into_io().half_close();
    let both = async { tokio::join!(talk(client, 3, 2_000_000), talk(near, 4, 2_500_000)) };
    let (at_client, at_server) = within(60, both).await;
    assert_eq!(at_client, expected(4, 2_500_000));
    assert_eq!(at_server, expected(3, 2_000_000));
    assert_eq!(within(60, bridge).await.unwrap(), (2_000_000, 2_500_000));
}

#[tokio::test(start_paused = true)]
async fn shutdown_of_a_byte_stream_is_a_close_frame() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let mut io = ws.into_io();
        io.write_all(b"bytes").await.unwrap();
        // Written without a flush, because a socket would be.
        assert_eq!(peer.take_frames(), [binary("bytes")]);
        io.shutdown().await.unwrap();
        assert_eq!(peer.take_frames(), [common::wire::close(1000, "")]);
        assert_eq!(io.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        // What the peer sent before it answers is read. An empty message is nothing.
        peer.send([
            binary("in ").unfinished(),
            continuation("parts"),
            binary(""),
            binary(", late"),
        ]);
        peer.send([common::wire::close(1000, "")]);
        let mut received = String::new();
        io.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "in parts, late");
        assert_eq!(io.read(&mut [0; 9]).await.unwrap(), 0, "again");
        assert!(io.into_inner().close_info().unwrap().is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn byte_stream_reports_text_and_abnormal_ends() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let mut io = ws.into_io();
        peer.send([text("not bytes")]);
        assert_eq!(io.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);
        io.flush().await.ok();
        assert_eq!(
            peer.take_frames().last().unwrap().payload()[..2],
            1003_u16.to_be_bytes()
        );

        let (ws, peer) = open(local).await;
        let mut io = ws.into_io();
        peer.send([binary("cut").unfinished()]);
        peer.end();
        let mut received = Vec::new();
        assert!(io.read_to_end(&mut received).await.is_err());
        assert_eq!(received, b"cut");

        let (ws, peer) = open(local).await;
        let mut io = ws.into_io();
        peer.send([common::wire::close(1011, "broken")]);
        let error = io.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        let source = error.into_inner().unwrap().downcast::<sockeye::Error>().unwrap();
        assert_eq!(source.close_code(), Some(CloseCode::INTERNAL_ERROR));
    }
}
