//! Heap memory of a connection.

mod common;
#[path = "common/heap.rs"]
mod heap;

use std::pin::pin;

use common::script::transport;
use common::wire::{Frame, binary, ping, text};
use common::{BOTH, Local, Peer, open, open_server, pair, poll_once};
use heap::{held_by, live};
use sockeye::{Client, DeflateConfig, Error, Limits, Server, Takeover, WebSocket, WindowBits};
use sockeye_proto::deflate::{Deflater, Inflater};

/// Echoes everything that the peer has sent. The keepalive timer is then set.
async fn echo(ws: &mut WebSocket, peer: &Peer, frames: impl IntoIterator<Item = Frame>) {
    peer.send(frames);
    let mut echoing = pin!(async {
        while let Some(message) = ws.recv().await.unwrap() {
            ws.feed(message).await.unwrap();
        }
    });
    assert!(poll_once(&mut echoing).await.is_pending());
    assert!(!peer.take_frames().is_empty());
}

/// The features `tracing` and `metrics`: the span, the counters and what was reported to them.
const OBSERVED: usize = if cfg!(any(feature = "metrics", feature = "tracing")) {
    152
} else {
    0
};

/// The goal is 1.2 KiB, including what the runtime needs for a socket and a task. The settings are included, because
/// each connection here has its own server; the runtime that they name takes 8 bytes with the feature `futures-io`.
const IDLE_MAX: usize = OBSERVED + if cfg!(feature = "futures-io") { 648 } else { 640 };

#[tokio::test(start_paused = true)]
async fn idle_connection_holds_no_buffers() {
    const COUNT: usize = 200;
    for local in BOTH {
        let mut connections = Vec::with_capacity(COUNT);
        let mut peers = Vec::with_capacity(COUNT);
        for _ in 0..COUNT {
            let (mut ws, peer) = open(local).await;
            echo(&mut ws, &peer, [text("small"), ping("?"), binary(vec![1; 16 * 1024])]).await;
            echo(&mut ws, &peer, (0..100).map(|_| text("one of a burst"))).await;
            connections.push(ws);
            peers.push(peer);
        }
        let each = held_by(connections) / COUNT;
        println!(
            "{local:?}: {each} bytes, of which {} are the WebSocket itself",
            size_of::<WebSocket>()
        );
        assert!(each <= IDLE_MAX, "{local:?}: {each} bytes");
    }
}

/// The histograms of [`latency_histograms`](sockeye::ServerBuilder::latency_histograms), and the state of a busy
/// connection, which then always exists.
const LATENCY_MAX: usize = 640;

#[tokio::test(start_paused = true)]
async fn histograms_cost_memory_only_if_they_are_asked_for() {
    let held = async |server: Server| {
        let (mut ws, peer) = common::open_server(&server).await;
        echo(&mut ws, &peer, [text("small"), ping("?")]).await;
        held_by(ws)
    };
    let without = held(Server::default()).await;
    let with = held(Server::builder().latency_histograms().build()).await;
    println!("{} bytes", with - without);
    assert!(
        (1..=LATENCY_MAX).contains(&(with - without)),
        "{with} instead of {without} bytes"
    );
}

/// The future of the README's echo server in a task that owns its connection. tokio adds 112 bytes and rounds up to a
/// multiple of 128: one byte more would cost every connection 128, as the features `tracing` and `metrics` do.
const ECHO_FUTURE_MAX: usize = if OBSERVED != 0 { 536 } else { 528 };

#[test]
fn echo_future_fits_its_task() {
    async fn echo(ws: &mut WebSocket) -> Result<(), Error> {
        while let Some(message) = ws.recv().await? {
            ws.feed(message).await?;
        }
        Ok(())
    }
    fn size_of_future<F: Future>(_: impl FnOnce(WebSocket) -> F) -> usize {
        size_of::<F>()
    }
    let size = size_of_future(|mut ws| async move { drop(echo(&mut ws).await) });
    assert!(size <= ECHO_FUTURE_MAX, "{size} bytes");
}

/// A split connection: the connection itself is on the heap, and so are the wakers of its tasks. The settings are
/// included, because each connection here has its own server. 24 bytes store the sink state of a sender, how much is
/// queued, since when the queue has been full, and the number of the newest answered ping. 8 bytes count what was
/// received; the other counters fit into padding. 8 bytes are the pointer to the waker of the timer. With the features
/// `blocking` or `futures-io`, the settings and the connection name the runtime.
const SPLIT_IDLE_MAX: usize = OBSERVED
    + match (cfg!(feature = "blocking"), cfg!(feature = "futures-io")) {
        (false, false) => 760,
        (true, false) => 768,
        (false, true) => 776,
        (true, true) => 792,
    };

#[tokio::test(start_paused = true)]
async fn idle_split_connection_holds_no_buffers() {
    const COUNT: usize = 100;
    for local in BOTH {
        let mut connections = Vec::with_capacity(COUNT);
        let mut peers = Vec::with_capacity(COUNT);
        for _ in 0..COUNT {
            let (ws, peer) = open(local).await;
            let (sender, mut receiver) = ws.split();
            sender.send("a").await.unwrap();
            sender.try_send("b").unwrap();
            tokio::task::yield_now().await;
            peer.send([text("small"), ping("?")]);
            receiver.recv().await.unwrap();
            assert!(poll_once(pin!(receiver.recv())).await.is_pending());
            connections.push((sender, receiver));
            peers.push(peer);
        }
        let each = held_by(connections) / COUNT;
        println!("{local:?}: {each} bytes");
        assert!(each <= SPLIT_IDLE_MAX, "{local:?}: {each} bytes");
    }
}

/// The state of a busy connection, which exists while a permit does.
const PERMIT_MAX: usize = 304;

#[tokio::test(start_paused = true)]
async fn permit_costs_memory_only_while_it_exists() {
    let (ws, _peer) = open(Local::Server).await;
    let (sender, _receiver) = ws.split();
    let before = live();
    let permit = sender.reserve(1000).await.unwrap();
    let held = live() - before;
    drop(permit);
    let left = live() - before;
    assert!((1..=PERMIT_MAX as isize).contains(&held), "{held} bytes");
    assert_eq!(left, 0);
}

/// The compression state and the counters of both directions, without their windows.
const DEFLATE_MAX: usize = 256;

/// The heap memory of a server's connection after many messages in both directions, compressed or not.
async fn held_after_messages(config: Option<&DeflateConfig>) -> usize {
    let (mut server, mut client) = (Server::builder(), Client::builder());
    if let Some(config) = config {
        server = server.compression(config.clone());
        client = client.compression(config.clone());
    }
    let (mut client, mut server) = pair(&client.build().unwrap(), &server.build()).await;
    for number in 0..200 {
        let message = format!("{number:05} {}", "again ".repeat(170));
        client.send(message.as_str()).await.unwrap();
        let received = server.recv().await.unwrap().unwrap();
        assert_eq!(received.as_text(), Some(message.as_str()));
        server.send(received).await.unwrap();
        client.recv().await.unwrap();
    }
    // The keepalive timer is then set.
    assert!(poll_once(pin!(server.recv())).await.is_pending());
    held_by(server)
}

#[tokio::test(start_paused = true)]
async fn compressed_connection_holds_its_windows_and_no_codec() {
    let plain = held_after_messages(None).await;
    for takeover in [Takeover::Reset, Takeover::Keep] {
        for bits in [9, 12, 15] {
            let mut config = DeflateConfig::default();
            (config.takeover, config.peer_takeover) = (takeover, takeover);
            config.window_bits = WindowBits::new(bits).unwrap();
            config.peer_window_bits = config.window_bits;
            let more = held_after_messages(Some(&config)).await - plain;
            println!("{takeover:?}, {bits} bits: {more} bytes more");
            let windows = match takeover {
                Takeover::Reset => 0,
                Takeover::Keep => 2 * config.window_bits.size(),
            };
            assert!(
                (windows..=windows + DEFLATE_MAX).contains(&more),
                "{takeover:?}, {bits} bits: {more} bytes"
            );
        }
    }
}

/// The cost of a client whose request never ends, in addition to its bytes: a future and its timer, and its span with
/// the feature `tracing`.
const WAIT_FOR_REQUEST_MAX: usize = if cfg!(feature = "tracing") { 1600 } else { 1536 };

#[tokio::test(start_paused = true)]
async fn unfinished_request_costs_the_bytes_that_arrived() {
    let server = Server::default();
    let head_size_max = Limits::default().head_size_max;
    for len in [0, 500, 8000, head_size_max - 1] {
        let (io, peer) = transport(true);
        let mut accepting = Box::pin(server.accept(io));
        let bytes: Vec<u8> = b"GET / HTTP/1.1\r\na: "
            .iter()
            .copied()
            .chain([b'a'; 20_000])
            .take(len)
            .collect();
        for piece in bytes.chunks(1500) {
            peer.send_bytes(piece);
            assert!(poll_once(&mut accepting).await.is_pending());
        }
        assert!(poll_once(&mut accepting).await.is_pending());
        let held = held_by(accepting);
        println!("{len} bytes of a request: {held} bytes");
        assert!(
            held <= WAIT_FOR_REQUEST_MAX + (2 * len).min(head_size_max),
            "{len}: {held}"
        );
    }
}

/// The cost of a rejected client that stays connected, for the second in which it can read the response: as above, and
/// the response.
const REJECTED_CLIENT_MAX: usize = 2304;

#[tokio::test(start_paused = true)]
async fn rejected_client_costs_little() {
    let server = Server::default();
    let (io, peer) = transport(true);
    let mut accepting = Box::pin(server.accept(io));
    peer.send_bytes("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(poll_once(&mut accepting).await.is_pending());
    assert!(peer.take_bytes().starts_with(b"HTTP/1.1 405 "));
    let held = held_by(accepting);
    println!("turned away: {held} bytes");
    assert!(held <= REJECTED_CLIENT_MAX, "{held}");
}

#[tokio::test(start_paused = true)]
async fn declared_length_costs_nothing() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let header = binary("a few bytes").declaring(16 * 1024 * 1024);
        peer.send([header]);
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        let held = held_by(ws);
        assert!(held <= 2 * IDLE_MAX, "{local:?}: {held} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn unfinished_message_costs_at_most_twice_its_received_bytes() {
    const ARRIVED: usize = 1024 * 1024;
    for local in BOTH {
        for piece in [1000, 64 * 1024, ARRIVED] {
            let (mut ws, peer) = open(local).await;
            peer.change_rules(|rules| rules.read_max = piece);
            peer.send([binary(vec![1; ARRIVED]).declaring(16 * 1024 * 1024)]);
            while peer.unread_len() > 0 {
                assert!(poll_once(pin!(ws.recv())).await.is_pending());
            }
            let held = held_by(ws);
            assert!(held >= ARRIVED, "{held} bytes");
            assert!(
                held <= 2 * ARRIVED + 4096,
                "{local:?}, {piece} bytes a read: {held} bytes"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn empty_fragments_cost_nothing() {
    let (mut ws, peer) = open(Local::Server).await;
    peer.send((0..1000).map(|number| {
        if number == 0 {
            binary("")
        } else {
            common::wire::continuation("")
        }
        .unfinished()
    }));
    assert!(poll_once(pin!(ws.recv())).await.is_pending());
    let held = held_by(ws);
    assert!(held <= 2 * IDLE_MAX, "{held} bytes");
}

#[tokio::test(start_paused = true)]
async fn ping_flood_from_a_peer_that_does_not_read_costs_little() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        for _ in 0..100 {
            peer.send((0..100).map(|number| ping(format!("{number:0120}"))));
            assert!(poll_once(pin!(ws.recv())).await.is_pending());
        }
        let before = live();
        peer.send((0..100).map(|number| ping(format!("{number:0120}"))));
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        assert!(live() - before <= 0, "more at each round");
        let held = held_by(ws);
        assert!(held <= 16 * 1024, "{local:?}: {held} bytes");
    }
}

/// A peer that reads slightly slower than the program writes: the queue never becomes empty, but must not grow.
#[tokio::test(start_paused = true)]
async fn queue_that_is_never_empty_stays_within_its_limit() {
    const WRITE_BUFFER_MAX: usize = 64 * 1024;
    let mut limits = Limits::default();
    limits.write_buffer_max = WRITE_BUFFER_MAX;
    let (mut ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
    peer.change_rules(|rules| rules.room = 0);
    // The thread now has its read buffer.
    assert!(poll_once(pin!(ws.recv())).await.is_pending());
    let mut most = 0;
    let begin = live();
    for _ in 0..50_000 {
        // 98 bytes and a header of 2.
        if ws.try_send("m".repeat(98)).is_err() {
            peer.change_rules(|rules| rules.room = 1000);
            assert!(poll_once(pin!(ws.recv())).await.is_pending());
            peer.take_frames();
            peer.take_writes();
        }
        most = most.max(live() - begin);
    }
    let limit = 4 * WRITE_BUFFER_MAX as isize;
    assert!(most <= limit, "{most} bytes at the most");
}

/// A peer that sends without reading: the limit bounds the queue and its capacity.
#[tokio::test(start_paused = true)]
async fn unread_echoes_cost_the_queue_limit() {
    const WRITE_BUFFER_MAX: usize = 512 * 1024;
    const MESSAGE_LEN: usize = 8 * 1024;
    let mut limits = Limits::default();
    limits.write_buffer_max = WRITE_BUFFER_MAX;
    limits.read_ahead_max = 0;
    let server = Server::builder().limits(limits).build();
    // Whether or not the peer takes a part of the first messages.
    for taken in [0, 30_000] {
        let (mut ws, peer) = open_server(&server).await;
        {
            let mut echoing = pin!(async {
                while let Some(message) = ws.recv().await.unwrap() {
                    ws.feed(message).await.unwrap();
                }
            });
            for room in [0, taken] {
                peer.change_rules(|rules| rules.room = room);
                peer.send((0..50).map(|_| binary(vec![1; MESSAGE_LEN])));
                // Let other tasks run in between.
                for _ in 0..100 {
                    assert!(poll_once(&mut echoing).await.is_pending());
                }
            }
        }
        let held = held_by(ws);
        println!("{held} bytes");
        assert!(held > WRITE_BUFFER_MAX, "it did not come to that");
        assert!(held <= WRITE_BUFFER_MAX + MESSAGE_LEN + 8 * 1024, "{held} bytes");
    }
}

/// The sizes that the documentation states, in KiB: to compress with the default configuration, and to inflate.
const CODEC_KIB: (usize, usize) = (371, 62);

#[test]
fn codecs_have_the_documented_sizes() {
    let deflater = held_by(Deflater::new(&DeflateConfig::default()));
    let inflater = held_by(Inflater::new());
    println!("to compress: {deflater} bytes, to inflate: {inflater} bytes");
    assert_eq!((deflater / 1024, inflater / 1024), CODEC_KIB);
}
