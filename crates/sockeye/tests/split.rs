//! One connection used by several tasks.

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::wire::{close, text, texts};
use common::{BOTH, Local, open, open_server, poll_once, run_until_idle, text_of, within};
use futures_util::{Sink, SinkExt};
use sockeye::{
    Client, CloseCause, CloseCode, DeflateConfig, Error, Limits, Message, Receiver, Sender, Server, WebSocket,
};
use tokio::io::duplex;
use tokio::net::TcpListener;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep};

/// A client and a server, connected by a pipe with `len` bytes in each direction.
async fn pair(len: usize, limits: Limits) -> (WebSocket, WebSocket) {
    let (near, far) = duplex(len);
    let server = Server::builder().limits(limits.clone()).build();
    let client = Client::builder().limits(limits).build().unwrap();
    let accepting = async { server.accept(far).await?.accept().await };
    let (connected, accepted) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
    (connected.unwrap().0, accepted.unwrap())
}

async fn send_numbered(sender: Sender, name: usize, count: usize) {
    for number in 0..count {
        // Different sizes, so that messages end at all positions of the pipe.
        let padding = "-".repeat((name * 7 + number * 13) % 300);
        let message = format!("{name} {number} {padding}");
        match number % 3 {
            0 => sender.feed(message).await.unwrap(),
            _ => sender.send(message).await.unwrap(),
        }
    }
    sender.flush().await.unwrap();
}

/// Receives `count` messages of each sender, and checks that each is complete and in its sender's order.
async fn receive_numbered(receiver: &mut Receiver, senders: usize, count: usize) {
    let mut next = vec![0; senders];
    for _ in 0..senders * count {
        let received = text_of(receiver.recv().await);
        let mut parts = received.split(' ');
        let mut part = || parts.next().unwrap();
        let (name, number): (usize, usize) = (part().parse().unwrap(), part().parse().unwrap());
        assert_eq!(part(), "-".repeat((name * 7 + number * 13) % 300));
        assert_eq!(number, next[name], "of sender {name}");
        next[name] += 1;
    }
    assert!(next.iter().all(|next| *next == count));
}

/// Several concurrent senders on each side, over a very small pipe, until both sides have received everything.
async fn talk(pipe_len: usize, write_buffer_max: usize, senders: usize, count: usize) {
    let mut limits = Limits::default();
    limits.write_buffer_max = write_buffer_max;
    let (client, server) = pair(pipe_len, limits).await;
    let (near, mut near_receiver) = client.split();
    let (far, mut far_receiver) = server.split();
    let mut tasks = JoinSet::new();
    for name in 0..senders {
        tasks.spawn(send_numbered(near.clone(), name, count));
        tasks.spawn(send_numbered(far.clone(), name, count));
    }
    tokio::join!(
        receive_numbered(&mut near_receiver, senders, count),
        receive_numbered(&mut far_receiver, senders, count),
    );
    while let Some(joined) = tasks.join_next().await {
        joined.unwrap();
    }
    let closing = near.close(CloseCode::NORMAL, "");
    let (closed, near_end, far_end) = tokio::join!(closing, near_receiver.recv(), far_receiver.recv());
    closed.unwrap();
    assert!(near_end.unwrap().is_none() && far_end.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_of_many_senders_arrive_complete_and_in_order() {
    within(60, talk(64, 1024 * 1024, 8, 200)).await;
    within(60, talk(4096, 1000, 8, 200)).await;
}

/// A lost wake-up shows as a test that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost() {
    for round in 0..300 {
        within(30, talk(1 + round % 17, 1 + round % 50, 3, 4)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn sender_ping_resets_the_receivers_timer() {
    for local in BOTH {
        let (ws, _peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        let start = Instant::now();
        let pinging = async {
            sleep(Duration::from_secs(1)).await;
            sender.send_ping(b"there?").await.unwrap();
        };
        let (received, ()) = within(60, async { tokio::join!(receiver.recv(), pinging) }).await;
        assert_eq!(
            received.unwrap_err().close_info().unwrap().cause(),
            CloseCause::KeepaliveTimeout
        );
        assert_eq!(start.elapsed().as_secs(), 11);
    }
}

#[tokio::test(start_paused = true)]
async fn sender_close_resets_the_receivers_timer() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        let receiving = tokio::spawn(async move { receiver.recv().await });
        let start = Instant::now();
        sleep(Duration::from_secs(1)).await;
        sender.close(CloseCode::GOING_AWAY, "").await.unwrap();
        assert_eq!(peer.take_frames(), [close(1001, "")]);
        let error = within(60, receiving).await.unwrap().unwrap_err();
        assert_eq!(error.close_info().unwrap().cause(), CloseCause::CloseTimeout);
        assert_eq!(start.elapsed().as_secs(), 6);
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn receiver_writes_what_try_send_queued() {
    let (ws, peer) = open(Local::Server).await;
    let (sender, mut receiver) = ws.split();
    let receiving = tokio::spawn(async move { receiver.recv().await });
    run_until_idle().await;
    sender.try_send("now").unwrap();
    assert_eq!(peer.take_frames(), []);
    run_until_idle().await;
    assert_eq!(peer.take_frames(), [text("now")]);
    receiving.abort();
}

#[tokio::test(start_paused = true)]
async fn senders_waiting_for_room_are_woken_by_any_task() {
    let mut limits = Limits::default();
    limits.write_buffer_max = 1;
    let (ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
    let (sender, mut receiver) = ws.split();
    peer.change_rules(|rules| rules.room = 0);
    sender.feed("0").await.unwrap();
    let mut tasks = JoinSet::new();
    for number in 1..5 {
        let sender = sender.clone();
        tasks.spawn(async move { sender.feed(format!("{number}")).await.unwrap() });
    }
    let receiving = tokio::spawn(async move { receiver.recv().await });
    run_until_idle().await;
    let start = Instant::now();
    peer.change_rules(|rules| rules.room = usize::MAX);
    while let Some(joined) = tasks.join_next().await {
        joined.unwrap();
    }
    sender.flush().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(texts(&peer.take_frames()).len(), 5);
    receiving.abort();
}

#[tokio::test(start_paused = true)]
async fn receiver_is_woken_when_a_sender_detects_a_lost_connection() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        let receiving = tokio::spawn(async move { receiver.recv().await });
        peer.fail_after(0);
        run_until_idle().await;
        let start = Instant::now();
        assert!(sender.send("x").await.unwrap_err().is_io());
        let error = within(60, receiving).await.unwrap().unwrap_err();
        assert!(error.is_io(), "{error:?}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn senders_are_woken_when_the_receiver_detects_a_lost_connection() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        peer.change_rules(|rules| rules.room = 0);
        let sending = tokio::spawn(async move { sender.send("x").await });
        run_until_idle().await;
        let start = Instant::now();
        peer.end();
        assert!(receiver.recv().await.unwrap_err().is_closed());
        let error = within(60, sending).await.unwrap().unwrap_err();
        assert!(error.is_closed(), "{error:?}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_peer_fails_all_tasks() {
    let (ws, peer) = open(Local::Server).await;
    let (sender, mut receiver) = ws.split();
    peer.change_rules(|rules| rules.room = 0);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let sender = sender.clone();
        tasks.spawn(async move { sender.send("x").await.unwrap_err() });
    }
    tasks.spawn(async move { receiver.recv().await.unwrap_err() });
    while let Some(error) = within(60, tasks.join_next()).await {
        assert!(error.unwrap().is_timeout());
    }
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(peer.is_transport_closed());
}

struct Nothing;

impl Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}

#[tokio::test(start_paused = true)]
async fn finished_task_is_freed() {
    let (ws, _peer) = open(Local::Server).await;
    let (sender, mut receiver) = ws.split();
    assert!(poll_once(pin!(receiver.recv())).await.is_pending());
    let task = Arc::new(Nothing);
    let waker = Waker::from(task.clone());
    let mut cx = Context::from_waker(&waker);
    for _ in 0..10 {
        assert!(pin!(sender.send("x")).poll(&mut cx).is_ready());
        assert!(pin!(sender.flush()).poll(&mut cx).is_ready());
    }
    // This one, and the one in `waker`.
    assert_eq!(Arc::strong_count(&task), 2);
}

#[tokio::test(start_paused = true)]
async fn receiver_in_the_same_task_as_a_sender_is_woken() {
    let (ws, peer) = open(Local::Server).await;
    let (sender, mut receiver) = ws.split();
    let both = async {
        tokio::join!(receiver.recv(), async {
            sender.send("a").await.unwrap();
            yield_now().await;
            sender.send("b").await.unwrap();
        })
    };
    let speaking = async {
        run_until_idle().await;
        peer.send([text("c")]);
    };
    let start = Instant::now();
    let ((received, ()), ()) = within(60, async { tokio::join!(both, speaking) }).await;
    assert_eq!(text_of(received), "c");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn send_returns_although_another_sender_never_stops() {
    let mut limits = Limits::default();
    limits.write_buffer_max = 10_000;
    let (ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
    let (sender, _receiver) = ws.split();
    peer.change_rules(|rules| rules.room = 0);
    let feeder = sender.clone();
    let feeding = tokio::spawn(async move {
        loop {
            feeder.feed("f".repeat(100)).await.unwrap();
        }
    });
    run_until_idle().await;
    let sending = tokio::spawn(async move { sender.send("s").await });
    run_until_idle().await;
    for _ in 0..30 {
        peer.change_rules(|rules| rules.room = 500);
        run_until_idle().await;
    }
    assert!(peer.take_frames().contains(&text("s")));
    assert!(sending.is_finished());
    feeding.abort();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_receiver_closes_the_connection() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, receiver) = ws.split();
        sender.send("x").await.unwrap();
        let closed = tokio::spawn({
            let sender = sender.clone();
            async move { sender.closed().await }
        });
        run_until_idle().await;
        drop(receiver);
        assert!(peer.is_transport_closed() && !sender.is_open());
        assert_eq!(peer.take_frames(), [text("x")]);
        within(1, closed).await.unwrap();
        assert!(sender.try_send("y").is_err());
        let error = sender.send("z").await.unwrap_err();
        assert!(error.is_closed() && !error.is_retryable(), "{error}");
    }
}

/// The handler of a server panics or is aborted while a sender is left in a registry.
#[tokio::test(start_paused = true)]
async fn aborted_receiving_task_closes_the_connection() {
    let (ws, peer) = open(Local::Server).await;
    let (sender, mut receiver) = ws.split();
    let receiving = tokio::spawn(async move { receiver.recv().await });
    run_until_idle().await;
    receiving.abort();
    run_until_idle().await;
    assert!(peer.is_transport_closed() && !sender.is_open());
}

#[tokio::test(start_paused = true)]
async fn receiver_dropped_after_the_close_began_does_not_cut_it_off() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, receiver) = ws.split();
        sender.try_send("last").unwrap();
        sender.start_close(CloseCode::NORMAL, "").unwrap();
        drop(receiver);
        run_until_idle().await;
        assert_eq!(peer.take_frames(), [text("last"), close(1000, "")]);
        assert!(!peer.is_transport_closed());
        peer.send([close(1000, "")]);
        sender.close(CloseCode::NORMAL, "").await.unwrap();
    }
}

/// Only a sink: otherwise the methods of `Sender` take precedence over those of `SinkExt`.
fn sink_of(sender: &Sender) -> impl Sink<Message, Error = Error> + Unpin + Send + use<> {
    sender.clone()
}

#[tokio::test(start_paused = true)]
async fn sender_is_a_sink() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, mut receiver) = ws.split();
        let receiving = tokio::spawn(async move { receiver.recv().await.unwrap() });
        run_until_idle().await;
        let mut sink = sink_of(&sender);
        sink.feed(Message::text("a")).await.unwrap();
        run_until_idle().await;
        assert_eq!(peer.take_frames(), [], "fed, and not flushed");
        sink.send(Message::text("b")).await.unwrap();
        assert_eq!(texts(&peer.take_frames()), ["a", "b"]);
        peer.change_rules(|rules| rules.room = 0);
        sink.feed(Message::text("c")).await.unwrap();
        assert!(poll_once(Box::pin(sink.flush())).await.is_pending());
        {
            let mut closing = pin!(SinkExt::close(&mut sink));
            assert!(poll_once(&mut closing).await.is_pending());
            peer.change_rules(|rules| rules.room = usize::MAX);
            within(1, closing).await.unwrap();
        }
        assert_eq!(peer.take_frames(), [text("c"), close(1000, "")]);
        assert!(sink.send(Message::text("d")).await.unwrap_err().is_closed());
        peer.send([text("e")]);
        assert_eq!(within(1, receiving).await.unwrap(), Some(Message::text("e")));
    }
}

/// Another sender may use the capacity that `poll_ready` reported.
#[tokio::test(start_paused = true)]
async fn sink_keeps_a_message_when_its_capacity_was_taken() {
    let mut limits = Limits::default();
    limits.write_buffer_max = 20;
    let (ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
    let (sender, _receiver) = ws.split();
    peer.change_rules(|rules| rules.room = 0);
    let mut sink = sink_of(&sender);
    poll_fn(|cx| sink.poll_ready_unpin(cx)).await.unwrap();
    sender.feed("0123456789").await.unwrap();
    sink.start_send_unpin(Message::text("behind it")).unwrap();
    // Without `poll_ready`: the pending message is neither replaced nor overtaken.
    let error = sink.start_send_unpin(Message::text("x")).unwrap_err();
    assert!(error.is_invalid_input() && !error.is_closed(), "{error:?}");
    let mut flushing = pin!(sink.flush());
    assert!(poll_once(&mut flushing).await.is_pending());
    peer.change_rules(|rules| rules.room = usize::MAX);
    within(1, flushing).await.unwrap();
    assert_eq!(texts(&peer.take_frames()), ["0123456789", "behind it"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sinks_of_many_tasks_lose_no_wake_up() {
    const COUNT: usize = 50;
    for round in 0..20 {
        let mut limits = Limits::default();
        limits.write_buffer_max = 1 + 100 * (round % 3);
        let (client, server) = pair(1 + round * 7, limits).await;
        let (sender, _keep) = client.split();
        let (_far, mut receiver) = server.split();
        let mut tasks = JoinSet::new();
        for name in 0..3 {
            let mut sink = sink_of(&sender);
            tasks.spawn(async move {
                for number in 0..COUNT {
                    let message = Message::text(format!(
                        "{name} {number} {}",
                        "-".repeat((name * 7 + number * 13) % 300)
                    ));
                    match number % 3 {
                        0 => sink.send(message).await.unwrap(),
                        _ => sink.feed(message).await.unwrap(),
                    }
                }
                sink.flush().await.unwrap();
            });
        }
        within(30, receive_numbered(&mut receiver, 3, COUNT)).await;
        while let Some(joined) = tasks.join_next().await {
            joined.unwrap();
        }
    }
}

#[tokio::test]
async fn halves_have_the_addresses_and_the_compression_of_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().compression(DeflateConfig::default()).build();
    let accepting = async {
        let (tcp, _) = listener.accept().await.unwrap();
        server.accept(tcp).await.unwrap().accept().await
    };
    let client = Client::builder().compression(DeflateConfig::default()).build().unwrap();
    let url = format!("ws://{address}/");
    let (client, server) = tokio::join!(client.connect(&url), accepting);
    let (client, server) = (client.unwrap(), server.unwrap());
    let negotiated = client.negotiated_deflate();
    assert!(negotiated.is_some());
    let own = client.local_addr();
    let (sender, receiver) = client.split();
    assert_eq!(
        (sender.peer_addr().await, sender.local_addr().await),
        (Some(address), own)
    );
    assert_eq!(
        (receiver.peer_addr().await, receiver.local_addr().await),
        (Some(address), own)
    );
    assert_eq!(sender.negotiated_deflate().await, negotiated);
    assert_eq!(receiver.negotiated_deflate().await, negotiated);
    assert!(sender.is_open() && receiver.is_open());

    // The clones of a sender belong to one connection.
    let (other, _receiver) = server.split();
    assert!(sender.same_connection(&sender.clone()) && !sender.same_connection(&other));

    sender.abort();
    assert_eq!((sender.peer_addr().await, receiver.local_addr().await), (None, None));
    assert!(!receiver.is_open());
}
