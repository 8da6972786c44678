//! Pairs of calls with volumes, rates or numbers that the table does not cover.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use sockeye::{Client, CloseCode, DeflateConfig, Limits, Message, Sender, Server, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::common::link::{Link, link};
use crate::common::{self, BOTH, Local, text_of, within};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A client and a server with default settings, over sockets with `capacity` bytes in each direction.
async fn both(capacity: usize) -> (WebSocket, WebSocket) {
    let (near, far) = link(capacity);
    let (client, server) = (Client::default(), Server::default());
    let accepting = async { server.accept(far).await?.accept().await };
    let (connected, accepted) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
    (connected.unwrap().0, accepted.unwrap())
}

/// An open connection with default settings, and the socket of the other side.
async fn one(local: Local, capacity: usize) -> (WebSocket, Link) {
    common::open_linked(local, capacity, Limits::default()).await
}

/// What a peer that reads at a limited rate has counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    /// The lengths of the complete data frames.
    messages: Vec<usize>,
    pings: usize,
    /// The code of the close frame; 1005 if it has none.
    close: Option<u16>,
}

/// Reads `step` bytes per `pause` until the end, and answers each ping and the close frame.
async fn read_slowly(far: Link, masks: bool, step: usize, pause: Duration) -> Counted {
    let (mut reader, mut writer): (ReadHalf<Link>, WriteHalf<Link>) = tokio::io::split(far);
    let mut counted = Counted::default();
    let mut bytes = Vec::new();
    // How much of a data frame is missing, and its length.
    let mut rest = 0;
    let mut block = vec![0; step];
    loop {
        let Ok(len @ 1..) = reader.read(&mut block).await else {
            return counted;
        };
        let mut block = &block[..len];
        loop {
            let skipped = rest.min(block.len());
            rest -= skipped;
            block = &block[skipped..];
            if block.is_empty() {
                break;
            }
            bytes.push(block[0]);
            block = &block[1..];
            let Some((header_len, len)) = header(&bytes) else {
                continue;
            };
            let opcode = bytes[0] & 0xf;
            if opcode < 8 {
                counted.messages.push(len);
                rest = len;
                bytes.clear();
            } else if bytes.len() == header_len + len {
                let mut payload = bytes.split_off(header_len);
                if bytes[1] & 0x80 != 0 {
                    let key: [u8; 4] = bytes[header_len - 4..].try_into().unwrap();
                    payload
                        .iter_mut()
                        .zip(key.iter().cycle())
                        .for_each(|(byte, key)| *byte ^= key);
                }
                bytes.clear();
                let answer = match opcode {
                    8 => {
                        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                        counted.close = Some(code);
                        8
                    }
                    9 => {
                        counted.pings += 1;
                        10
                    }
                    _ => continue,
                };
                let mut frame = vec![0x80 | answer, u8::from(masks) << 7 | payload.len() as u8];
                frame.extend(if masks { &[0; 4][..] } else { &[] });
                frame.extend(payload);
                let _ = writer.write_all(&frame).await;
                if answer == 8 {
                    let _ = writer.shutdown().await;
                }
            }
        }
        sleep(pause).await;
    }
}

/// The lengths of the header and of the payload, if the header is complete.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let [_, second, ..] = *bytes else { return None };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let header_len = 2 + extended + if second & 0x80 != 0 { 4 } else { 0 };
    let head = bytes.get(2..header_len)?;
    let len = match extended {
        0 => usize::from(second & 0x7f),
        _ => head[..extended]
            .iter()
            .fold(0, |len, byte| len << 8 | usize::from(*byte)),
    };
    Some((header_len, len))
}

/// How a large message is sent.
#[derive(Clone, Copy, Debug)]
enum SendMethod {
    Send,
    FeedAndFlush,
    FeedTwiceAndFlush,
    Sink,
}

const SEND_METHODS: [SendMethod; 4] = [
    SendMethod::Send,
    SendMethod::FeedAndFlush,
    SendMethod::FeedTwiceAndFlush,
    SendMethod::Sink,
];

impl SendMethod {
    async fn send(self, ws: &mut WebSocket, len: usize) {
        let message = || Message::binary(vec![7; len]);
        match self {
            Self::Send => ws.send(message()).await.unwrap(),
            Self::FeedAndFlush => {
                ws.feed(message()).await.unwrap();
                ws.flush().await.unwrap();
            }
            Self::FeedTwiceAndFlush => {
                ws.feed(Message::binary(vec![7; len / 2])).await.unwrap();
                ws.feed(Message::binary(vec![7; len - len / 2])).await.unwrap();
                ws.flush().await.unwrap();
            }
            Self::Sink => SinkExt::send(ws, message()).await.unwrap(),
        }
    }
}

async fn receive(ws: &mut WebSocket, mut len: usize) {
    while len > 0 {
        len -= ws.recv().await.unwrap().expect("a message").len();
    }
}

/// B03: programs that first send and then receive, as clients of python-websockets do.
#[tokio::test(start_paused = true)]
async fn peers_that_send_4_mib_before_receiving_succeed() {
    for (near_method, far_method) in SEND_METHODS.into_iter().flat_map(|a| SEND_METHODS.map(|b| (a, b))) {
        let (mut client, mut server) = both(64 * KIB).await;
        let near = async {
            near_method.send(&mut client, 4 * MIB).await;
            receive(&mut client, 4 * MIB).await;
        };
        let far = async {
            far_method.send(&mut server, 4 * MIB).await;
            receive(&mut server, 4 * MIB).await;
        };
        within(5, async { tokio::join!(near, far) }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn split_peers_that_send_4_mib_before_receiving_succeed() {
    let (client, server) = both(64 * KIB).await;
    let side = async |ws: WebSocket| {
        let (sender, mut receiver) = ws.split();
        sender.send(vec![7; 4 * MIB]).await.unwrap();
        let received = receiver.recv().await.unwrap().expect("a message");
        assert_eq!(received.len(), 4 * MIB);
    };
    within(5, async { tokio::join!(side(client), side(server)) }).await;
}

#[tokio::test(start_paused = true)]
async fn peers_that_exchange_many_messages_send_first_succeed() {
    let (mut client, mut server) = both(4 * KIB).await;
    let side = async |ws: &mut WebSocket| {
        for number in 0..50 {
            ws.send(format!("{number} {}", "-".repeat(20 * KIB))).await.unwrap();
        }
        for number in 0..50 {
            let received = text_of(ws.recv().await);
            assert!(received.starts_with(&format!("{number} ")));
        }
    };
    within(5, async { tokio::join!(side(&mut client), side(&mut server)) }).await;
}

/// B06: the close timeout starts when the close frame has been written.
#[tokio::test(start_paused = true)]
async fn close_behind_12_mib_delivers_everything_at_1_mib_per_second() {
    for local in BOTH {
        let (mut ws, far) = one(local, 64 * KIB).await;
        let reading = read_slowly(far, local == Local::Server, 64 * KIB, Duration::from_micros(62_500));
        let closing = async {
            ws.feed(vec![7; 12 * MIB]).await.unwrap();
            ws.close(CloseCode::NORMAL, "").await.unwrap();
            drop(ws);
        };
        let (counted, ()) = within(20, async { tokio::join!(reading, closing) }).await;
        assert_eq!(counted.messages, [12 * MIB]);
        assert_eq!(counted.close, Some(1000));
    }
}

#[tokio::test(start_paused = true)]
async fn sender_close_behind_12_mib_delivers_everything_to_a_slow_peer() {
    for local in BOTH {
        let (ws, far) = one(local, 64 * KIB).await;
        let (sender, mut receiver) = ws.split();
        let reading = read_slowly(far, local == Local::Server, 64 * KIB, Duration::from_micros(62_500));
        let closing = async move {
            sender.feed(vec![7; 12 * MIB]).await.unwrap();
            sender.close(CloseCode::NORMAL, "").await.unwrap();
        };
        let receiving = async move { assert!(receiver.recv().await.unwrap().is_none()) };
        let (counted, (), ()) = within(20, async { tokio::join!(reading, closing, receiving) }).await;
        assert_eq!(counted.messages, [12 * MIB]);
        assert_eq!(counted.close, Some(1000));
    }
}

/// B01: a peer that takes bytes continuously is alive, however long queued data delays the ping.
#[tokio::test(start_paused = true)]
async fn download_of_a_minute_completes_while_the_peer_reads() {
    for local in BOTH {
        let (mut ws, far) = one(local, 64 * KIB).await;
        let reading = read_slowly(far, local == Local::Server, 16 * KIB, Duration::from_micros(62_500));
        let sending = async {
            ws.send(vec![7; 16 * MIB]).await.unwrap();
            ws.close(CloseCode::NORMAL, "").await.unwrap();
            drop(ws);
        };
        let (counted, ()) = within(90, async { tokio::join!(reading, sending) }).await;
        assert_eq!(counted.messages, [16 * MIB]);
        assert_eq!(counted.close, Some(1000));
    }
}

#[tokio::test(start_paused = true)]
async fn download_of_a_minute_completes_while_the_receiver_waits() {
    for local in BOTH {
        let (ws, far) = one(local, 64 * KIB).await;
        let (sender, mut receiver) = ws.split();
        let reading = read_slowly(far, local == Local::Server, 16 * KIB, Duration::from_micros(62_500));
        let sending = async move {
            sender.send(vec![7; 16 * MIB]).await.unwrap();
            // With queued output, and then without any.
            sender.feed(vec![7; MIB]).await.unwrap();
            sender.send_ping(b"").await.unwrap();
            sender.close(CloseCode::NORMAL, "").await.unwrap();
        };
        let receiving = async move { assert!(receiver.recv().await.unwrap().is_none()) };
        let (counted, (), ()) = within(90, async { tokio::join!(reading, sending, receiving) }).await;
        assert_eq!(counted.messages, [16 * MIB, MIB]);
        assert_eq!(counted.close, Some(1000));
    }
}

/// The deadline of a ping behind a minute's worth of messages starts when it has been written.
#[tokio::test(start_paused = true)]
async fn ping_deadline_starts_when_the_ping_is_written() {
    for local in BOTH {
        let (ws, far) = one(local, 64 * KIB).await;
        let (sender, mut receiver) = ws.split();
        let reading = read_slowly(far, local == Local::Server, 4 * KIB, Duration::from_micros(62_500));
        let sending = async move {
            sender.feed(vec![7; MIB]).await.unwrap();
            sender.send_ping(b"there?").await.unwrap();
            sleep(Duration::from_secs(20)).await;
            assert!(sender.is_open(), "{:?}", sender.close_info());
            assert!(sender.rtt().is_some(), "the pong has come");
            sender.close(CloseCode::NORMAL, "").await.unwrap();
        };
        let receiving = async move { assert!(receiver.recv().await.unwrap().is_none()) };
        let (counted, (), ()) = within(60, async { tokio::join!(reading, sending, receiving) }).await;
        assert_eq!(counted.messages, [MIB]);
        assert!(counted.pings >= 1);
        assert_eq!(counted.close, Some(1000));
    }
}

/// One byte every nine seconds is progress, but too slow to keep the connection.
#[tokio::test(start_paused = true)]
async fn peer_taking_a_byte_every_nine_seconds_is_disconnected() {
    for local in BOTH {
        let (mut ws, far) = one(local, 4 * KIB).await;
        let reading = read_slowly(far, local == Local::Server, 1, Duration::from_secs(9));
        let start = Instant::now();
        let sending = async {
            // The second call fails once it is clear that the first does not progress.
            let sent = ws.send(vec![7; 64 * KIB]).await;
            assert!(sent.as_ref().is_err_and(|error| error.is_timeout()), "{sent:?}");
            drop(ws);
        };
        let mut reading = pin!(reading);
        within(120, async {
            tokio::select! {
                () = sending => {}
                counted = &mut reading => panic!("{counted:?}"),
            }
        })
        .await;
        assert!(
            start.elapsed() <= Duration::from_secs(60),
            "after {:?}",
            start.elapsed()
        );
    }
}

/// A message that takes a minute to arrive at a steady rate.
#[tokio::test(start_paused = true)]
async fn upload_of_a_minute_completes() {
    for local in BOTH {
        let (mut ws, mut far) = one(local, 64 * KIB).await;
        let mut head = vec![0x82, 127];
        head.extend((MIB as u64).to_be_bytes());
        if local == Local::Server {
            head[1] |= 0x80;
            head.extend([0; 4]);
        }
        let sending = async {
            far.write_all(&head).await.unwrap();
            for _ in 0..64 {
                far.write_all(&[7; 16 * KIB]).await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
        };
        let (received, ()) = within(70, async { tokio::join!(ws.recv(), sending) }).await;
        assert_eq!(received.unwrap().unwrap().len(), MIB);
    }
}

async fn send_numbered(sender: Sender, name: usize, count: usize) {
    for number in 0..count {
        let message = format!("{name} {number} {}", "-".repeat((name * 37 + number * 13) % 700));
        match number % 4 {
            0 => sender.feed(message).await.unwrap(),
            1 => {
                sender.feed(message).await.unwrap();
                sender.flush().await.unwrap();
            }
            2 => {
                while sender.try_send(message.clone()).is_err() {
                    sender.flush().await.unwrap();
                }
            }
            _ => sender.send(message).await.unwrap(),
        }
    }
    sender.flush().await.unwrap();
}

async fn receive_numbered(ws: impl StreamExt<Item = Result<Message, sockeye::Error>>, senders: usize, count: usize) {
    let mut ws = pin!(ws);
    let mut next = vec![0; senders];
    for _ in 0..senders * count {
        let received = ws.next().await.expect("a message").unwrap();
        let mut parts = received.as_text().unwrap().split(' ');
        let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
        let (name, number) = (number(), number());
        assert_eq!(number, next[name], "of sender {name}");
        assert_eq!(parts.next().unwrap().len(), (name * 37 + number * 13) % 700);
        next[name] += 1;
    }
}

/// A hundred tasks, or a hundred futures of one task, on each side, over sockets that are always full.
#[tokio::test(start_paused = true)]
async fn hundred_concurrent_senders_lose_nothing() {
    for is_one_task in [false, true] {
        let (client, server) = both(2 * KIB).await;
        let side = async |ws: WebSocket| {
            let (sender, mut receiver) = ws.split();
            let sending = (0..100).map(|name| send_numbered(sender.clone(), name, 12));
            let sending = async {
                match is_one_task {
                    true => _ = join_all(sending).await,
                    false => {
                        for task in sending.map(tokio::spawn).collect::<Vec<_>>() {
                            task.await.unwrap();
                        }
                    }
                }
            };
            tokio::join!(sending, receive_numbered(&mut receiver, 100, 12));
        };
        within(60, async { tokio::join!(side(client), side(server)) }).await;
    }
}

/// Each time the socket takes bytes, each waiting sender is polled at most once.
#[tokio::test(start_paused = true)]
async fn waiting_senders_are_polled_once_for_each_write_of_the_others() {
    let mut polls = Vec::new();
    for senders in [10, 100] {
        let (client, server) = both(2 * KIB).await;
        let (sender, _receiver) = client.split();
        let count = Arc::new(AtomicUsize::new(0));
        let sending = (0..senders).map(|name| {
            let (sender, count) = (sender.clone(), count.clone());
            tokio::spawn(async move {
                let mut sending = pin!(send_numbered(sender, name, 12));
                poll_fn(|cx| {
                    count.fetch_add(1, Ordering::Relaxed);
                    sending.as_mut().poll(cx)
                })
                .await;
            })
        });
        let sending: Vec<_> = sending.collect();
        within(60, receive_numbered(server, senders, 12)).await;
        for task in sending {
            task.await.unwrap();
        }
        polls.push(count.load(Ordering::Relaxed) as f64 / (senders * 12) as f64);
    }
    assert!(
        polls[1] <= polls[0] * 12.0,
        "polls per message with 10 and 100 senders: {polls:?}"
    );
}

/// The sender is dropped; the receiver still gets everything, and pings are still answered.
#[tokio::test(start_paused = true)]
async fn receiver_continues_after_dropping_the_senders() {
    for point in 0..20 {
        let (client, server) = both(KIB).await;
        let (sender, mut receiver) = client.split();
        let (far_sender, mut far_receiver) = server.split();
        let mut sending = tokio::spawn(async move {
            for number in 0..point {
                sender.feed(format!("{number}")).await.unwrap();
                if number % 3 == 0 {
                    sender.flush().await.unwrap();
                }
            }
        });
        let far = async {
            for number in 0..30 {
                far_sender.send(format!("{number} {}", "-".repeat(100))).await.unwrap();
                if number % 10 == 0 {
                    far_sender.send_ping(b"").await.unwrap();
                }
            }
            far_sender.close(CloseCode::NORMAL, "").await.unwrap();
        };
        let receiving = async {
            for number in 0..30 {
                assert!(text_of(receiver.recv().await).starts_with(&format!("{number} ")));
            }
            assert!(receiver.recv().await.unwrap().is_none());
        };
        let far_receiving = async {
            for number in 0..point {
                assert_eq!(text_of(far_receiver.recv().await), format!("{number}"));
            }
            assert!(far_receiver.recv().await.unwrap().is_none());
        };
        within(10, async { tokio::join!(far, receiving, far_receiving) }).await;
        (&mut sending).await.unwrap();
    }
}

/// The receiver is no longer polled; messages are still sent.
#[tokio::test(start_paused = true)]
async fn sender_continues_while_the_receiver_is_not_polled() {
    for point in 0..12 {
        let (client, server) = both(KIB).await;
        let (sender, mut receiver) = client.split();
        let (far_sender, mut far_receiver) = server.split();
        let far = async {
            // Less than the sockets hold, because nothing is read.
            for number in 0..point {
                far_sender.send(format!("{number}")).await.unwrap();
            }
            for number in 0..50 {
                assert!(text_of(far_receiver.recv().await).starts_with(&format!("{number} ")));
            }
        };
        let receiving = async move {
            for _ in 0..point {
                receiver.recv().await.unwrap().unwrap();
            }
            receiver
        };
        let sending = async {
            for number in 0..50 {
                sender.send(format!("{number} {}", "-".repeat(200))).await.unwrap();
            }
        };
        within(10, async { tokio::join!(far, receiving, sending) }).await;
    }
}

/// A `send` that waits when the peer closes ends immediately, and `recv` returns what came before the close frame.
#[tokio::test(start_paused = true)]
async fn waiting_send_fails_when_the_peer_closes() {
    for is_split in [false, true] {
        let (mut client, mut server) = both(KIB).await;
        let closing = async {
            server.send("last words").await.unwrap();
            sleep(Duration::from_secs(1)).await;
            server.close(CloseCode::NORMAL, "").await.unwrap();
        };
        let sending = async {
            let (sent, received, end) = match is_split {
                true => {
                    let (sender, mut receiver) = client.split();
                    let sending = sender.send(vec![7; 8 * MIB]);
                    let receiving = async { (receiver.recv().await, receiver.recv().await) };
                    let (sent, (received, end)) = tokio::join!(sending, receiving);
                    (sent, received, end)
                }
                false => {
                    let sent = client.send(vec![7; 8 * MIB]).await;
                    (sent, client.recv().await, client.recv().await)
                }
            };
            // Messages that were not written are lost with the connection, or arrived while the peer waited for our
            // close frame.
            assert!(
                sent.is_ok() || sent.as_ref().is_err_and(|error| error.is_closed()),
                "{sent:?}"
            );
            assert_eq!(text_of(received), "last words");
            assert!(end.unwrap().is_none());
        };
        let start = Instant::now();
        within(60, async { tokio::join!(closing, sending) }).await;
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }
}

/// Messages that arrive after our close frame belong to the stream, whichever half closes.
#[tokio::test(start_paused = true)]
async fn stream_receives_messages_after_the_sink_has_closed() {
    let (client, server) = both(64 * KIB).await;
    let (mut sink, mut stream) = StreamExt::split::<sockeye::Message>(client);
    let (far_sender, mut far_receiver) = server.split();
    let reading = tokio::spawn(async move {
        let mut received = Vec::new();
        while let Some(message) = stream.next().await {
            received.push(message.unwrap().as_text().unwrap().to_owned());
        }
        received
    });
    let far = tokio::spawn(async move {
        assert!(text_of(far_receiver.recv().await) == "request");
        // The close frame has arrived, and is not read yet.
        sleep(Duration::from_secs(1)).await;
        for number in 0..100 {
            far_sender.feed(format!("answer {number}")).await.unwrap();
        }
        far_sender.flush().await.unwrap();
        assert!(far_receiver.recv().await.unwrap().is_none());
    });
    within(10, async {
        sink.send("request".into()).await.unwrap();
        sink.close().await.unwrap();
        far.await.unwrap();
        let expected: Vec<_> = (0..100).map(|number| format!("answer {number}")).collect();
        assert_eq!(reading.await.unwrap(), expected);
    })
    .await;
}

/// B02: each half of futures' split in its own task, both sides sending much at the same time.
#[tokio::test(start_paused = true)]
async fn halves_of_futures_carry_12_mib_in_both_directions_at_once() {
    let (client, server) = both(64 * KIB).await;
    let side = async |ws: WebSocket| {
        let (mut sink, mut stream) = StreamExt::split::<sockeye::Message>(ws);
        let sending = tokio::spawn(async move {
            sink.send(vec![7; 12 * MIB].into()).await.unwrap();
            sink
        });
        let receiving = tokio::spawn(async move {
            let received = stream.next().await.unwrap().unwrap();
            assert_eq!(received.len(), 12 * MIB);
            stream
        });
        // Both halves exist until both sides are done.
        (sending.await.unwrap(), receiving.await.unwrap())
    };
    let _halves = within(5, async { tokio::join!(side(client), side(server)) }).await;
}

/// A loop over `recv` that ignores the end lets other tasks run.
#[tokio::test]
async fn recv_loop_after_the_end_yields() {
    for is_split in [false, true] {
        let (mut client, server) = both(KIB).await;
        drop(server);
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        if is_split {
            let (_sender, mut receiver) = client.split();
            for _ in 0..1000 {
                let _ = receiver.recv().await;
            }
        } else {
            for _ in 0..1000 {
                let _ = client.recv().await;
            }
        }
        other.abort();
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns >= 900, "others had {turns} turns in 1,000 calls");
    }
}

/// Polls a future once with a no-op waker, as if by a task that no longer exists.
async fn poll_elsewhere<F: Future>(future: F) {
    let mut future = pin!(future);
    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
}

/// A result that one task polled for and dropped is received by another task.
#[tokio::test(start_paused = true)]
async fn wake_up_goes_to_the_task_that_polled_last() {
    let answer = async |mut far: WebSocket| {
        sleep(Duration::from_secs(1)).await;
        far.send("here").await.unwrap();
        let received = far.recv().await.unwrap().expect("a message");
        assert_eq!(received.len(), MIB);
        far
    };
    for is_futures in [false, true] {
        let (near, far) = both(KIB).await;
        let far = tokio::spawn(answer(far));
        within(5, async {
            if is_futures {
                let (mut sink, mut stream) = StreamExt::split::<sockeye::Message>(near);
                poll_elsewhere(stream.next()).await;
                assert!(stream.next().await.is_some());
                sink.feed(vec![7; MIB].into()).await.unwrap();
                poll_elsewhere(sink.flush()).await;
                sink.flush().await.unwrap();
                _ = far.await.unwrap();
            } else {
                let (sender, mut receiver) = near.split();
                poll_elsewhere(receiver.recv()).await;
                assert_eq!(text_of(receiver.recv().await), "here");
                sender.feed(vec![7; MIB]).await.unwrap();
                poll_elsewhere(sender.flush()).await;
                sender.flush().await.unwrap();
                _ = far.await.unwrap();
            }
        })
        .await;
    }
    let (mut near, far) = both(KIB).await;
    let far = tokio::spawn(answer(far));
    within(5, async {
        poll_elsewhere(near.recv()).await;
        assert_eq!(text_of(near.recv().await), "here");
        near.feed(vec![7; MIB]).await.unwrap();
        poll_elsewhere(near.flush()).await;
        near.flush().await.unwrap();
        _ = far.await.unwrap();
    })
    .await;
}

/// A receiver that is no longer polled does not block senders, and vice versa.
#[tokio::test(start_paused = true)]
async fn half_that_is_no_longer_polled_does_not_block_the_other() {
    for is_futures in [false, true] {
        let (near, far) = both(KIB).await;
        let (far_sender, mut far_receiver) = far.split();
        let far = async {
            for _ in 0..20 {
                assert_eq!(far_receiver.recv().await.unwrap().expect("a message").len(), 10 * KIB);
                far_sender.send(vec![7; 3 * KIB]).await.unwrap();
            }
            // So that the waiting half is polled last.
            sleep(Duration::from_secs(1)).await;
            far_sender.send("last").await.unwrap();
        };
        let near = async {
            if is_futures {
                let (mut sink, mut stream) = StreamExt::split::<sockeye::Message>(near);
                for _ in 0..20 {
                    poll_elsewhere(stream.next()).await;
                    sink.send(vec![7; 10 * KIB].into()).await.unwrap();
                    assert_eq!(stream.next().await.unwrap().unwrap().len(), 3 * KIB);
                }
                drop(sink);
                assert_eq!(text_of(stream.next().await.transpose()), "last");
            } else {
                let (sender, mut receiver) = near.split();
                for _ in 0..20 {
                    poll_elsewhere(receiver.recv()).await;
                    sender.send(vec![7; 10 * KIB]).await.unwrap();
                    assert_eq!(receiver.recv().await.unwrap().expect("a message").len(), 3 * KIB);
                }
                drop(sender);
                assert_eq!(text_of(receiver.recv().await), "last");
            }
        };
        within(10, async { tokio::join!(far, near) }).await;
    }
}

/// A dropped operation that waited for room or for a flush does not consume a wake-up of the others.
#[tokio::test(start_paused = true)]
async fn dropped_waiting_operation_takes_no_wake_up() {
    for (dropped, of_receiver) in (0..4).flat_map(|dropped| [(dropped, false), (dropped, true)]) {
        let (near, far) = both(KIB).await;
        let (sender, mut receiver) = near.split();
        let (far_sender, mut far_receiver) = far.split();
        // The sockets and the write buffer are full.
        sender.feed(vec![7; MIB]).await.unwrap();
        let waiting: Vec<_> = (0..4)
            .map(|name| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    match name % 2 {
                        0 => sender.send(vec![8; 10 + name]).await.unwrap(),
                        _ => sender.flush().await.unwrap(),
                    }
                })
            })
            .collect();
        let stop = Arc::new(Notify::new());
        let receiving = tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::select! {
                    received = receiver.recv() => drop(received.unwrap()),
                    () = stop.notified() => {}
                }
                receiver
            }
        });
        sleep(Duration::from_secs(1)).await;
        // The dropped one waited last, or the others did.
        waiting[dropped].abort();
        if of_receiver {
            stop.notify_one();
        }
        sleep(Duration::from_secs(1)).await;
        within(5, async {
            let mut received = Vec::new();
            received.push(far_receiver.recv().await.unwrap().expect("a message").len());
            let left = if dropped % 2 == 0 { 1 } else { 2 };
            for _ in 0..left {
                received.push(far_receiver.recv().await.unwrap().expect("a message").len());
            }
            for (name, waiting) in waiting.into_iter().enumerate() {
                assert!(waiting.await.is_ok() || name == dropped, "{name} of {dropped}");
            }
            assert_eq!(received.len(), 1 + left);
            if !of_receiver {
                far_sender.send("done").await.unwrap();
            }
            drop(receiving.await.unwrap());
        })
        .await;
    }
}

/// Large messages compressed in parts, in both directions at once, beside other calls.
#[tokio::test(start_paused = true)]
async fn peers_that_send_compressed_messages_before_receiving_succeed() {
    let text = |seed: u32| {
        // Compresses to about a third.
        let mut number = seed;
        let mut text = String::with_capacity(2 * MIB);
        while text.len() < 2 * MIB {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push_str(&format!("{:08x} and so on, ", number));
        }
        text
    };
    for is_split in [false, true] {
        let (near, far) = link(16 * KIB);
        let client = Client::builder().compression(DeflateConfig::default()).build().unwrap();
        let server = Server::builder().compression(DeflateConfig::default()).build();
        let accepting = async { server.accept(far).await?.accept().await };
        let (connected, accepted) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
        let side = async |mut ws: WebSocket, sent: String, expected: String| {
            let received = match is_split {
                false => {
                    ws.send(sent).await.unwrap();
                    ws.send("after").await.unwrap();
                    let received = text_of(ws.recv().await);
                    assert_eq!(text_of(ws.recv().await), "after");
                    received
                }
                true => {
                    let (sender, mut receiver) = ws.split();
                    let other = sender.clone();
                    let sending = async {
                        sender.feed(sent).await.unwrap();
                        tokio::join!(async { sender.flush().await.unwrap() }, async {
                            other.send("after").await.unwrap();
                        });
                    };
                    let receiving = async {
                        let received = text_of(receiver.recv().await);
                        assert_eq!(text_of(receiver.recv().await), "after");
                        received
                    };
                    tokio::join!(sending, receiving).1
                }
            };
            assert!(received == expected, "{} bytes", received.len());
        };
        let near = side(connected.unwrap().0, text(1), text(2));
        let far = side(accepted.unwrap(), text(2), text(1));
        within(5, async { tokio::join!(near, far) }).await;
    }
}
