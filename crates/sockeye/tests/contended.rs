//! A connection whose receiver is busy: it reads, and does not return. Nothing that another thread calls waits for it.

mod common;

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Results, Sender as Signal, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use common::{look, within};
use sockeye::{
    Client, CloseCode, Compress, DeflateConfig, Error, Limits, Message, PreparedMessage, Receiver, Sender, Server,
    TrySendError, WebSocket,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;

/// Longer than anything here takes, and short enough for a test that fails.
const STUCK: Duration = Duration::from_secs(20);

/// Blocks the thread that reads, when it is told to.
struct Blocking {
    io: DuplexStream,
    block: Arc<Block>,
}

#[derive(Default)]
struct Block {
    is_armed: AtomicBool,
    /// Whether the thread waited for as long as [`STUCK`].
    is_stuck: AtomicBool,
    panics: AtomicBool,
    /// Told when a thread is blocked, and what it waits for.
    ends: Mutex<Option<(Signal<()>, Results<()>)>>,
}

impl Blocking {
    fn block(&self) {
        if !self.block.is_armed.swap(false, Ordering::SeqCst) {
            return;
        }
        let (blocked, goes_on) = self.block.ends.lock().unwrap().take().unwrap();
        blocked.send(()).unwrap();
        if goes_on.recv_timeout(STUCK).is_err() {
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

/// A server's connection, and the client's end.
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

/// A receiver that is blocked, until it is released.
struct Busy {
    release: Signal<()>,
    receiving: JoinHandle<(Receiver, Result<Option<Message>, Error>)>,
    block: Arc<Block>,
}

impl Setup {
    /// Has the receiver read on another thread, and waits until that is blocked.
    fn make_busy(&mut self) -> Busy {
        let (blocked, is_blocked) = channel();
        let (release, goes_on) = channel();
        *self.block.ends.lock().unwrap() = Some((blocked, goes_on));
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
    /// Lets the receiver go on; fails if it has gone on before.
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
async fn sends_that_never_wait_do_not_wait_for_a_busy_receiver() {
    let mut setup = set_up(Limits::default(), None).await;
    setup.sender.try_send("0").unwrap();
    let busy = setup.make_busy();
    let sender = &setup.sender;
    sender.try_send("1").unwrap();
    sender.try_send(PreparedMessage::new("2")).unwrap();
    sender.try_send_all(&["3", "4"].map(PreparedMessage::new)).unwrap();
    sender.try_send_all(&[]).unwrap();
    assert!(look(pin!(sender.feed("5"))).await.is_ready());
    assert!(look(pin!(sender.feed(PreparedMessage::new("6")))).await.is_ready());
    sender.try_send("7").unwrap();
    assert!(sender.is_open());
    assert_eq!(sender.rtt(), None);
    assert_eq!(sender.close_info(), None);
    let _receiving = busy.release();
    let expected: Vec<_> = (0..8).map(|number| number.to_string()).collect();
    assert_eq!(receive(&mut setup.client, 8).await, expected);
}

/// They leave though the receiver does not receive again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_for_a_busy_receiver_leaves_though_it_receives_no_more() {
    let mut setup = set_up(Limits::default(), None).await;
    setup.client.send("to be received").await.unwrap();
    let busy = setup.make_busy();
    setup.sender.try_send("1").unwrap();
    let (_receiver, received) = within(30, busy.release()).await.unwrap();
    received.unwrap().unwrap();
    assert_eq!(receive(&mut setup.client, 1).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_wait_go_on_when_a_busy_receiver_is_done() {
    let mut setup = set_up(Limits::default(), None).await;
    let busy = setup.make_busy();
    let sender = setup.sender.clone();
    let (mut sending, mut pinging) = (pin!(sender.send("1")), pin!(sender.send_ping(b"2")));
    let mut flushing = pin!(sender.flush());
    assert!(look(&mut sending).await.is_pending());
    assert!(look(&mut flushing).await.is_pending());
    assert!(look(&mut pinging).await.is_pending());
    let _receiving = busy.release();
    let (sent, flushed, pinged, texts) = within(30, async {
        tokio::join!(sending, flushing, pinging, receive(&mut setup.client, 1))
    })
    .await;
    sent.and(flushed).and(pinged).unwrap();
    assert_eq!(texts, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_that_is_dropped_while_the_receiver_is_busy_has_begun() {
    let mut setup = set_up(Limits::default(), None).await;
    let busy = setup.make_busy();
    setup.sender.try_send("1").unwrap();
    assert!(
        look(pin!(setup.sender.close(CloseCode::GOING_AWAY, "bye")))
            .await
            .is_pending()
    );
    // Not polled, it has not begun.
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
async fn what_is_left_for_a_busy_receiver_is_bounded() {
    let mut limits = Limits::default();
    // Each message counts 64 bytes beside its length: three of 300 fit, and one of 40.
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
    let fed = look(pin!(sender.feed([b'x'; 101].as_slice()))).await;
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
    // One that is larger than all that may wait goes alone.
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

/// One that is compressed in parts: nothing can be queued behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_that_is_left_to_be_compressed_is_the_last() {
    let mut setup = set_up(Limits::default(), Some(DeflateConfig::default())).await;
    let busy = setup.make_busy();
    let large = "again ".repeat(50_000);
    setup.sender.try_send("1").unwrap();
    // A prepared message is compressed whole, and is in nobody's way.
    setup.sender.try_send(PreparedMessage::new(large.as_str())).unwrap();
    setup.sender.try_send(large.as_str()).unwrap();
    assert!(matches!(setup.sender.try_send("2"), Err(TrySendError::Full { .. })));
    assert!(
        look(pin!(setup.sender.feed(Message::from("2").compress(Compress::Never))))
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
async fn what_was_known_of_the_end_is_known_while_the_receiver_is_busy() {
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

/// The thread's panic ends its own task and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transport_that_panics_blocks_nobody() {
    let mut setup = set_up(Limits::default(), None).await;
    setup.block.panics.store(true, Ordering::SeqCst);
    let busy = setup.make_busy();
    setup.sender.try_send("1").unwrap();
    let sender = setup.sender.clone();
    let mut flushing = pin!(sender.flush());
    assert!(look(&mut flushing).await.is_pending());
    let receiving = busy.release();
    assert!(within(30, receiving).await.unwrap_err().is_panic());
    within(30, flushing).await.unwrap();
    setup.sender.try_send("2").unwrap();
    assert_eq!(receive(&mut setup.client, 2).await, ["1", "2"]);
    assert!(setup.sender.is_open());
}
