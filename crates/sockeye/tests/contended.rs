//! A connection whose receiver is blocked inside a read. No call on another thread may wait for it.

mod common;

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Results, Sender as Signal, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use common::{poll_once, within};
use futures_util::future::FutureExt;
use sockeye::{
    Client, CloseCode, Compress, DeflateConfig, Error, Limits, Message, Overflow, PreparedMessage, Receiver, Sender,
    Server, TrySendError, WebSocket,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;

/// Longer than any operation here takes, and short enough for a failing test.
const STUCK: Duration = Duration::from_secs(20);

/// A transport that can block the thread that reads.
struct Blocking {
    io: DuplexStream,
    block: Arc<Block>,
}

#[derive(Default)]
struct Block {
    is_armed: AtomicBool,
    /// Whether the thread was blocked for [`STUCK`].
    is_stuck: AtomicBool,
    panics: AtomicBool,
    /// Signals that a thread is blocked, and the channel that unblocks it.
    ends: Mutex<Option<(Signal<()>, Results<()>)>>,
}

impl Blocking {
    fn block(&self) {
        if !self.block.is_armed.swap(false, Ordering::SeqCst) {
            return;
        }
        let (blocked, released) = self.block.ends.lock().unwrap().take().unwrap();
        blocked.send(()).unwrap();
        if released.recv_timeout(STUCK).is_err() {
            self.block.is_stuck.store(true, Ordering::SeqCst);
        }
        assert!(!self.block.panics.load(Ordering::SeqCst), "as the test wants it");
    }
}

impl AsyncRead for Blocking {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.block();
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Blocking {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The connection of a server, and the client.
struct Setup {
    sender: Sender,
    receiver: Option<Receiver>,
    client: WebSocket,
    block: Arc<Block>,
}

async fn set_up(limits: Limits, compression: Option<DeflateConfig>) -> Setup {
    let (near, far) = duplex(64 * 1024);
    let block = Arc::<Block>::default();
    let io = Blocking {
        io: far,
        block: block.clone(),
    };
    let (mut server, mut client) = (Server::builder().limits(limits), Client::builder());
    if let Some(config) = compression {
        server = server.compression(config.clone());
        client = client.compression(config);
    }
    let (server, client) = (server.build(), client.build().unwrap());
    let accepting = async { server.accept(io).await?.accept().await };
    let (connected, accepted) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
    let (sender, receiver) = accepted.unwrap().split();
    Setup {
        sender,
        receiver: Some(receiver),
        client: connected.unwrap().0,
        block,
    }
}

/// A receiver that is blocked until it is released.
struct Busy {
    release: Signal<()>,
    receiving: JoinHandle<(Receiver, Result<Option<Message>, Error>)>,
    block: Arc<Block>,
}

impl Setup {
    /// Makes the receiver read on another thread, and waits until it is blocked.
    fn make_busy(&mut self) -> Busy {
        let (blocked, is_blocked) = channel();
        let (release, released) = channel();
        *self.block.ends.lock().unwrap() = Some((blocked, released));
        self.block.is_armed.store(true, Ordering::SeqCst);
        let mut receiver = self.receiver.take().unwrap();
        let receiving = tokio::spawn(async move {
            let received = receiver.recv().await;
            (receiver, received)
        });
        is_blocked.recv_timeout(STUCK).unwrap();
        Busy {
            release,
            receiving,
            block: self.block.clone(),
        }
    }
}

impl Busy {
    /// Unblocks the receiver. Fails if it was unblocked before.
    fn release(self) -> JoinHandle<(Receiver, Result<Option<Message>, Error>)> {
        let _ = self.release.send(());
        assert!(
            !self.block.is_stuck.load(Ordering::SeqCst),
            "something waited for the receiver"
        );
        self.receiving
    }
}

async fn receive(client: &mut WebSocket, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let message = within(30, client.recv()).await.unwrap().unwrap();
        texts.push(message.as_text().unwrap().to_owned());
    }
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn non_waiting_calls_do_not_wait_for_a_busy_receiver() {
    let mut setup = set_up(Limits::default(), None).await;
    setup.sender.try_send("0").unwrap();
    let busy = setup.make_busy();
    let sender = &setup.sender;
    sender.try_send("1").unwrap();
    sender.try_send(PreparedMessage::new("2")).unwrap();
    sender.try_send_all(&["3", "4"].map(PreparedMessage::new)).unwrap();
    sender.try_send_all(&[]).unwrap();
    assert!(poll_once(pin!(sender.feed("5"))).await.is_ready());
    assert!(poll_once(pin!(sender.feed(PreparedMessage::new("6")))).await.is_ready());
    sender.try_send("7").unwrap();
    assert!(sender.is_open());
    assert_eq!(sender.rtt(), None);
    assert_eq!(sender.close_info(), None);
    let _receiving = busy.release();
    let expected: Vec<_> = (0..8).map(|number| number.to_string()).collect();
    assert_eq!(receive(&mut setup.client, 8).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permits_and_outboxes_do_not_wait_for_a_busy_receiver() {
    let mut setup = set_up(Limits::default(), None).await;
    let sender = setup.sender.clone();
    let earlier = sender.reserve(10).await.unwrap();
    let unused = sender.reserve(10).await.unwrap();
    let busy = setup.make_busy();
    earlier.send("1").unwrap();
    drop(unused);
    sender.try_reserve(10).unwrap().send("2").unwrap();
    drop(sender.try_reserve(10).unwrap());
    // Longer than what was reserved.
    sender.try_reserve(1).unwrap().send("333").unwrap();
    for overflow in [Overflow::Wait, Overflow::DropNewest, Overflow::Close] {
        let outbox = sender.clone().with_overflow(overflow);
        outbox.send("4").now_or_never().expect("it does not wait").unwrap();
    }
    let mut reserving = pin!(sender.reserve(10));
    assert!(poll_once(&mut reserving).await.is_pending());
    let mut counting = pin!(sender.stats());
    assert!(poll_once(&mut counting).await.is_pending());
    let _receiving = busy.release();
    let mut texts = receive(&mut setup.client, 6).await;
    // The messages of outboxes may overtake others.
    texts.sort();
    assert_eq!(texts, ["1", "2", "333", "4", "4", "4"]);
    assert_eq!(within(30, counting).await.sent.messages, 6);
    within(30, reserving).await.unwrap().send("5").unwrap();
    assert_eq!(receive(&mut setup.client, 1).await, ["5"]);
    // All room was given back.
    let everything = sender.reserve(Limits::default().write_buffer_max);
    drop(within(30, everything).await.unwrap());
}

/// The limits apply while the receiver is busy, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_queue_of_permits_and_outboxes_is_bounded() {
    let mut limits = Limits::default();
    limits.write_buffer_max = 4000;
    let mut setup = set_up(limits, None).await;
    let sender = setup.sender.clone();
    let permit = sender.reserve(1000).await.unwrap();
    let busy = setup.make_busy();
    assert!(sender.try_reserve(3001).unwrap_err().is_full());
    let more = sender.try_reserve(2000).unwrap();
    assert!(sender.try_reserve(1001).unwrap_err().is_full());
    assert!(sender.try_send("x".repeat(1001)).unwrap_err().is_full());
    // Longer than what was reserved, and no room for the rest: the message is returned, and the room given back.
    let refused = sender.try_reserve(1).unwrap().send("x".repeat(3000)).unwrap_err();
    assert!(matches!(refused, TrySendError::Full { message, .. } if message.len() == 3000));
    permit.send("p".repeat(1000)).unwrap();
    more.send("m".repeat(2000)).unwrap();
    let newest = sender.clone().with_overflow(Overflow::DropNewest);
    let oldest = sender.clone().with_overflow(Overflow::DropOldest);
    for number in 0..10 {
        let message = format!("{number:01000}");
        newest.send(message.as_str()).now_or_never().unwrap().unwrap();
        oldest.send(message.as_str()).now_or_never().unwrap().unwrap();
    }
    assert!(sender.queued_bytes() < 3 * 4000 + 2000, "{}", sender.queued_bytes());
    let dropped = newest.dropped() + oldest.dropped();
    assert!(newest.dropped() > 0 && oldest.dropped() > 0);
    let _receiving = busy.release();
    let arrived = receive(&mut setup.client, 2 + 20 - dropped as usize).await;
    assert_eq!(newest.dropped() + oldest.dropped(), dropped);
    assert!(arrived.contains(&"p".repeat(1000)) && arrived.contains(&"m".repeat(2000)));
    assert!(arrived.contains(&format!("{:01000}", 9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbox_closes_while_the_receiver_is_busy() {
    let mut limits = Limits::default();
    limits.write_buffer_max = 1000;
    let mut setup = set_up(limits, None).await;
    let busy = setup.make_busy();
    let outbox = setup.sender.clone().with_overflow(Overflow::Close);
    outbox.send("x".repeat(800)).now_or_never().unwrap().unwrap();
    let error = outbox.send("x".repeat(800)).now_or_never().unwrap().unwrap_err();
    assert!(error.is_closed());
    let receiving = busy.release();
    assert_eq!(receive(&mut setup.client, 1).await, ["x".repeat(800)]);
    within(30, setup.client.recv()).await.unwrap_err();
    let close_info = setup.client.close_info().unwrap();
    assert_eq!(close_info.received().unwrap().code, CloseCode::TRY_AGAIN_LATER);
    within(30, receiving).await.unwrap().1.unwrap();
}

/// A message that was accepted before the connection began to close is sent before the close frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_follows_the_messages_of_outboxes() {
    let mut setup = set_up(Limits::default(), None).await;
    let busy = setup.make_busy();
    let outbox = setup.sender.clone().with_overflow(Overflow::DropOldest);
    outbox.send("last").now_or_never().unwrap().unwrap();
    setup.sender.start_close(CloseCode::NORMAL, "").unwrap();
    let _receiving = busy.release();
    assert_eq!(receive(&mut setup.client, 1).await, ["last"]);
    assert_eq!(within(30, setup.client.recv()).await.unwrap(), None);
}

/// The messages are sent although the receiver does not receive again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_queue_is_flushed_without_another_recv() {
    let mut setup = set_up(Limits::default(), None).await;
    setup.client.send("to be received").await.unwrap();
    let busy = setup.make_busy();
    setup.sender.try_send("1").unwrap();
    let (_receiver, received) = within(30, busy.release()).await.unwrap();
    received.unwrap().unwrap();
    assert_eq!(receive(&mut setup.client, 1).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_operations_continue_when_the_receiver_unlocks() {
    let mut setup = set_up(Limits::default(), None).await;
    let busy = setup.make_busy();
    let sender = setup.sender.clone();
    let (mut sending, mut pinging) = (pin!(sender.send("1")), pin!(sender.send_ping(b"2")));
    let mut flushing = pin!(sender.flush());
    assert!(poll_once(&mut sending).await.is_pending());
    assert!(poll_once(&mut flushing).await.is_pending());
    assert!(poll_once(&mut pinging).await.is_pending());
    let _receiving = busy.release();
    let (sent, flushed, pinged, texts) = within(30, async {
        tokio::join!(sending, flushing, pinging, receive(&mut setup.client, 1))
    })
    .await;
    sent.and(flushed).and(pinged).unwrap();
    assert_eq!(texts, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_dropped_while_the_receiver_is_busy_takes_effect() {
    let mut setup = set_up(Limits::default(), None).await;
    let busy = setup.make_busy();
    setup.sender.try_send("1").unwrap();
    assert!(
        poll_once(pin!(setup.sender.close(CloseCode::GOING_AWAY, "bye")))
            .await
            .is_pending()
    );
    // A future that was never polled has not begun.
    drop(setup.sender.close(CloseCode::NORMAL, ""));
    let receiving = busy.release();
    assert_eq!(receive(&mut setup.client, 1).await, ["1"]);
    within(30, setup.client.recv()).await.unwrap();
    let close_info = setup.client.close_info().unwrap();
    assert_eq!(close_info.received().unwrap().code, CloseCode::GOING_AWAY);
    within(30, receiving).await.unwrap().1.unwrap();
    assert!(!setup.sender.is_open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_queue_is_bounded() {
    let mut limits = Limits::default();
    // Each message costs 64 bytes in addition to its length: three of 300 bytes fit, and one of 40.
    limits.write_buffer_max = 1200;
    let mut setup = set_up(limits, None).await;
    let busy = setup.make_busy();
    let sender = &setup.sender;
    let messages: Vec<_> = (b'a'..=b'e')
        .map(|byte| PreparedMessage::new([byte; 300].as_slice()))
        .collect();
    let error = sender.try_send_all(&messages).unwrap_err();
    assert_eq!(error.queued, 3);
    assert!(
        matches!(error.cause, TrySendError::Full { message, .. } if message.to_message() == *messages[3].message())
    );
    assert!(matches!(
        sender.try_send([b'x'; 101].as_slice()),
        Err(TrySendError::Full { .. })
    ));
    let fed = poll_once(pin!(sender.feed([b'x'; 101].as_slice()))).await;
    assert!(fed.is_pending());
    sender.try_send([b'f'; 40].as_slice()).unwrap();
    let receiving = busy.release();
    for byte in [b'a', b'b', b'c', b'f'] {
        let message = within(30, setup.client.recv()).await.unwrap().unwrap();
        assert_eq!(message.as_bytes()[0], byte);
    }
    setup.client.send("done").await.unwrap();
    let (receiver, received) = within(30, receiving).await.unwrap();
    received.unwrap().unwrap();
    setup.receiver = Some(receiver);
    // A message that is larger than the limit is queued alone.
    let busy = setup.make_busy();
    sender_of(&setup).try_send([b'g'; 5000].as_slice()).unwrap();
    assert!(matches!(
        sender_of(&setup).try_send("h"),
        Err(TrySendError::Full { .. })
    ));
    let _receiving = busy.release();
    assert_eq!(within(30, setup.client.recv()).await.unwrap().unwrap().len(), 5000);
}

fn sender_of(setup: &Setup) -> &Sender {
    &setup.sender
}

/// A message that is compressed in parts: nothing can be queued behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_message_in_the_command_queue_is_the_last_one() {
    let mut setup = set_up(Limits::default(), Some(DeflateConfig::default())).await;
    let busy = setup.make_busy();
    let large = "again ".repeat(50_000);
    setup.sender.try_send("1").unwrap();
    // A prepared message is compressed whole and blocks nothing.
    setup.sender.try_send(PreparedMessage::new(large.as_str())).unwrap();
    setup.sender.try_send(large.as_str()).unwrap();
    assert!(matches!(setup.sender.try_send("2"), Err(TrySendError::Full { .. })));
    assert!(
        poll_once(pin!(setup.sender.feed(Message::from("2").compress(Compress::Never))))
            .await
            .is_pending()
    );
    let _receiving = busy.release();
    assert_eq!(receive(&mut setup.client, 3).await, ["1", &large, &large]);
    within(30, async {
        let sending = setup.sender.send("2");
        let (sent, texts) = tokio::join!(sending, receive(&mut setup.client, 1));
        sent.unwrap();
        assert_eq!(texts, ["2"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_info_is_available_while_the_receiver_is_busy() {
    let mut setup = set_up(Limits::default(), None).await;
    setup.sender.close(CloseCode::NORMAL, "").await.unwrap();
    let busy = setup.make_busy();
    assert!(!setup.sender.is_open());
    let close_info = setup.sender.close_info().unwrap();
    assert_eq!(close_info.sent().unwrap().code, CloseCode::NORMAL);
    assert!(matches!(setup.sender.try_send("x"), Err(TrySendError::Closed(error)) if error.is_closed()));
    assert!(matches!(
        setup.sender.try_send(PreparedMessage::new("x")),
        Err(TrySendError::Closed(_))
    ));
    let error = setup.sender.try_send_all(&[PreparedMessage::new("x")]).unwrap_err();
    assert!(matches!(error.cause, TrySendError::Closed(_)));
    drop(busy.release());
}

/// The panic ends the task in which it happens, and with its receiver the connection. Other tasks are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panicking_transport_blocks_no_other_task() {
    let mut setup = set_up(Limits::default(), None).await;
    setup.block.panics.store(true, Ordering::SeqCst);
    let busy = setup.make_busy();
    setup.sender.try_send("1").unwrap();
    let sender = setup.sender.clone();
    let mut flushing = pin!(sender.flush());
    assert!(poll_once(&mut flushing).await.is_pending());
    let receiving = busy.release();
    assert!(within(30, receiving).await.unwrap_err().is_panic());
    assert!(within(30, flushing).await.unwrap_err().is_closed());
    assert!(setup.sender.try_send("2").is_err());
    assert!(!setup.sender.is_open());
}
