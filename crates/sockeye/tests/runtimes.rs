//! Connections on smol. No tokio runtime exists in these tests.
#![cfg(feature = "futures-io")]

mod common;

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::Local;
use futures_util::future::join;
use smol::future::poll_once;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::net::{TcpListener, TcpStream};
use sockeye::{
    Client, CloseCode, Error, ErrorKind, FuturesIo, Keepalive, Message, MessageKind, Runtime, Server, Timeouts,
    WebSocket,
};

type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Smol {}

impl Runtime for Smol {
    fn sleep_until(deadline: Instant) -> Sleep {
        Box::pin(async move {
            smol::Timer::at(deadline).await;
        })
    }

    fn spawn(task: Task) {
        smol::spawn(task).detach();
    }
}

/// The limit of each test, so that a lost wake-up fails instead of hanging.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a test on smol, outside of tokio.
#[track_caller]
fn run(test: impl Future<Output = ()>) {
    assert!(tokio::runtime::Handle::try_current().is_err());
    let is_done = smol::block_on(smol::future::or(
        async {
            test.await;
            true
        },
        async {
            smol::Timer::after(TEST_TIMEOUT).await;
            false
        },
    ));
    assert!(is_done, "the test hangs");
}

const SHORT: Duration = Duration::from_millis(50);

fn keepalive() -> Keepalive {
    Keepalive::default().interval(SHORT).timeout(SHORT)
}

fn server() -> Server {
    Server::builder().runtime::<Smol>().build()
}

fn client() -> Client {
    Client::builder().runtime::<Smol>().build().unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = join(TcpStream::connect(address), listener.accept()).await;
    (near.unwrap(), far.unwrap().0)
}

async fn pair(client: &Client, server: &Server) -> (WebSocket, WebSocket) {
    let (near, far) = sockets().await;
    let accepting = async { server.accept(FuturesIo::new(far)).await?.accept().await };
    let connecting = client.request("ws://localhost/").connect_over(FuturesIo::new(near));
    let (connected, accepted) = join(connecting, accepting).await;
    (connected.unwrap().0, accepted.unwrap())
}

/// An open connection, and the socket of a peer that only performed the opening handshake.
async fn open_with_silent_peer(local: Local, keepalive: Keepalive) -> (WebSocket, TcpStream) {
    let (near, mut far) = sockets().await;
    let near = FuturesIo::new(near);
    match local {
        Local::Server => {
            far.write_all(common::REQUEST.as_bytes()).await.unwrap();
            let server = Server::builder().runtime::<Smol>().keepalive(keepalive).build();
            (server.accept(near).await.unwrap().accept().await.unwrap(), far)
        }
        Local::Client => {
            let client = Client::builder()
                .runtime::<Smol>()
                .keepalive(keepalive)
                .build()
                .unwrap();
            let answering = async {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    far.read_exact(&mut byte).await.unwrap();
                    request.push(byte[0]);
                }
                far.write_all(common::answer(&request).as_bytes()).await.unwrap();
            };
            let (connected, ()) = join(client.request("ws://localhost/").connect_over(near), answering).await;
            (connected.unwrap().0, far)
        }
    }
}

#[test]
fn messages_and_pings_are_exchanged_and_the_connection_closes_cleanly() {
    run(async {
        let (mut client, mut server) = pair(&client(), &server()).await;
        let echoing = smol::spawn(async move {
            while let Some(message) = server.recv().await? {
                server.feed(message).await?;
            }
            Ok::<_, Error>(server)
        });
        for len in [1, 1000, 1_000_000] {
            let message = Message::binary(vec![7; len]);
            client.send(message.clone()).await.unwrap();
            assert_eq!(client.recv().await.unwrap(), Some(message));
        }
        assert!(client.ping().await.unwrap() > Duration::ZERO);
        client.close(CloseCode::NORMAL, "").await.unwrap();
        let server = echoing.await.unwrap();
        assert!(server.close_info().unwrap().is_clean());
    });
}

#[cfg(feature = "tls")]
#[test]
fn tls_runs_over_a_socket_of_smol() {
    let certified = common::tls::certified();
    let server = Server::builder()
        .runtime::<Smol>()
        .tls_config(std::sync::Arc::new(common::tls::server_config(&certified)))
        .build();
    let client = Client::builder()
        .runtime::<Smol>()
        .tls_config(std::sync::Arc::new(common::tls::client_config(&certified)))
        .build()
        .unwrap();
    run(async {
        let (near, far) = sockets().await;
        let accepting = async { server.accept(FuturesIo::new(far)).await?.accept().await };
        let connecting = client.request("wss://localhost/").connect_over(FuturesIo::new(near));
        let (connected, accepted) = join(connecting, accepting).await;
        let (mut client, mut server) = (connected.unwrap().0, accepted.unwrap());
        client.send("secret").await.unwrap();
        assert_eq!(server.recv().await.unwrap().unwrap().as_text(), Some("secret"));
    });
}

#[test]
fn peer_that_does_not_answer_pings_times_out() {
    for local in common::BOTH {
        run(async {
            let (mut ws, _peer) = open_with_silent_peer(local, keepalive()).await;
            let start = Instant::now();
            let error = ws.recv().await.unwrap_err();
            assert!(error.is_timeout(), "{local:?}: {error}");
            assert!(start.elapsed() >= 2 * SHORT, "{local:?}: {:?}", start.elapsed());
        });
    }
}

#[test]
fn split_connection_times_out() {
    run(async {
        let (ws, _peer) = open_with_silent_peer(Local::Server, keepalive()).await;
        let (sender, mut receiver) = ws.split();
        assert!(receiver.recv().await.unwrap_err().is_timeout());
        assert!(sender.send("late").await.unwrap_err().is_timeout());
    });
}

#[test]
fn peer_that_answers_pings_stays_connected() {
    run(async {
        let client = Client::builder()
            .runtime::<Smol>()
            .keepalive(keepalive())
            .build()
            .unwrap();
        let (mut client, mut server) = pair(&client, &server()).await;
        // It answers pings while it waits for a message.
        let answering = smol::spawn(async move { server.recv().await });
        let waiting = async {
            smol::Timer::after(6 * SHORT).await;
            Ok(None)
        };
        assert!(smol::future::or(client.recv(), waiting).await.unwrap().is_none());
        assert!(client.is_open() && client.rtt().is_some());
        client.close(CloseCode::NORMAL, "").await.unwrap();
        assert!(answering.await.unwrap().is_none());
    });
}

#[test]
fn server_limits_the_time_of_the_request() {
    let timeouts = Timeouts::default().handshake(SHORT);
    let server = Server::builder().runtime::<Smol>().timeouts(timeouts).build();
    for sent in ["", "GET / HTTP/1.1\r\nHost: localhost\r\n"] {
        run(async {
            let (mut near, far) = sockets().await;
            near.write_all(sent.as_bytes()).await.unwrap();
            let start = Instant::now();
            let reading = async {
                let mut response = String::new();
                near.read_to_string(&mut response).await.unwrap();
                drop(near);
                response
            };
            let (accepted, response) = join(server.accept(FuturesIo::new(far)), reading).await;
            let error = accepted.unwrap_err();
            assert!(error.is_timeout(), "{error}");
            assert!(start.elapsed() >= SHORT);
            let answers = !sent.is_empty();
            assert_eq!(response.starts_with("HTTP/1.1 408 "), answers, "{response}");
        });
    }
}

#[test]
fn client_limits_the_time_of_the_response() {
    let total = Duration::from_millis(30);
    for (timeouts, names) in [
        (Timeouts::default().handshake(SHORT), "Timeouts::handshake"),
        (Timeouts::default().connect_total(total), "Timeouts::connect_total"),
    ] {
        let client = Client::builder().runtime::<Smol>().timeouts(timeouts).build().unwrap();
        run(async {
            let (near, _far) = sockets().await;
            let start = Instant::now();
            let connecting = client.request("ws://localhost/").connect_over(FuturesIo::new(near));
            let error = connecting.await.unwrap_err();
            assert!(error.is_timeout() && error.to_string().contains(names), "{error}");
            assert!(start.elapsed() >= total);
        });
    }
}

#[cfg(feature = "tls")]
#[test]
fn client_limits_the_time_of_the_tls_handshake() {
    let certified = common::tls::certified();
    let client = Client::builder()
        .runtime::<Smol>()
        .tls_config(std::sync::Arc::new(common::tls::client_config(&certified)))
        .timeouts(Timeouts::default().handshake(SHORT))
        .build()
        .unwrap();
    run(async {
        let (near, _far) = sockets().await;
        let connecting = client.request("wss://localhost/").connect_over(FuturesIo::new(near));
        let error = connecting.await.unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("TLS"), "{error}");
    });
}

#[test]
fn peer_that_does_not_answer_the_close_frame_times_out() {
    run(async {
        let timeouts = Timeouts::default().close(SHORT);
        let (near, mut far) = sockets().await;
        far.write_all(common::REQUEST.as_bytes()).await.unwrap();
        let server = Server::builder().runtime::<Smol>().timeouts(timeouts).build();
        let mut ws = server
            .accept(FuturesIo::new(near))
            .await
            .unwrap()
            .accept()
            .await
            .unwrap();
        let error = ws.close(CloseCode::NORMAL, "").await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
    });
}

#[test]
fn connection_dropped_while_closing_finishes_in_a_task() {
    run(async {
        let (mut client, mut server) = pair(&client(), &server()).await;
        server.send("last").await.unwrap();
        server.start_close(CloseCode::NORMAL, "done").unwrap();
        drop(server);
        assert_eq!(client.recv().await.unwrap().unwrap().as_text(), Some("last"));
        assert!(client.recv().await.unwrap().is_none());
        assert_eq!(client.close_info().unwrap().received().unwrap().reason, "done");
    });
}

#[test]
fn messages_of_try_send_are_written_by_a_task() {
    run(async {
        let (mut client, server) = pair(&client(), &server()).await;
        // The receiver is not polled.
        let (sender, _receiver) = server.split();
        for number in 0..100 {
            sender.try_send(format!("{number}")).unwrap();
        }
        for number in 0..100 {
            let message = client.recv().await.unwrap().unwrap();
            assert_eq!(message.as_text(), Some(format!("{number}").as_str()));
        }
    });
}

#[test]
fn connecting_without_a_socket_is_an_error() {
    run(async {
        let error = client().connect("ws://127.0.0.1:9/").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("connect_over"), "{error}");
    });
}

#[test]
fn messages_are_streamed_with_the_traits_of_futures_io() {
    run(async {
        let (mut client, mut server) = pair(&client(), &server()).await;
        let receiving = smol::spawn(async move {
            let mut received = Vec::new();
            let mut message = server.recv_stream().await.unwrap().unwrap();
            message.read_to_end(&mut received).await.unwrap();
            drop(message);
            (received, server)
        });
        let sent = vec![5; 300_000];
        let mut message = client.send_stream(MessageKind::Binary);
        message.write_all(&sent).await.unwrap();
        message.close().await.unwrap();
        drop(message);
        let (received, server) = receiving.await;
        assert!(received == sent);

        let (mut near, mut far) = (client.into_io(), server.into_io());
        near.write_all(b"bytes").await.unwrap();
        near.flush().await.unwrap();
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"bytes");
        near.close().await.unwrap();
        assert_eq!(far.read(&mut bytes).await.unwrap(), 0);
    });
}

/// A runtime whose timers are always ready, and which drops all tasks.
enum Hasty {}

static HASTY_TIMERS: AtomicUsize = AtomicUsize::new(0);

impl Runtime for Hasty {
    fn sleep_until(_: Instant) -> Sleep {
        HASTY_TIMERS.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(()))
    }

    fn spawn(task: Task) {
        drop(task);
    }
}

#[test]
fn timer_that_is_ready_too_early_neither_blocks_nor_ends_the_connection() {
    run(async {
        let server = Server::builder().runtime::<Hasty>().build();
        let (mut client, mut server) = pair(&client(), &server).await;
        assert!(poll_once(server.recv()).await.is_none());
        let before = HASTY_TIMERS.load(Ordering::Relaxed);
        assert!(poll_once(server.recv()).await.is_none());
        assert!(HASTY_TIMERS.load(Ordering::Relaxed) - before <= 2);
        client.send("still there").await.unwrap();
        assert_eq!(server.recv().await.unwrap().unwrap().as_text(), Some("still there"));
        assert!(server.is_open());
    });
}

#[test]
fn dropped_tasks_leave_their_work_to_the_receiver() {
    run(async {
        let server = Server::builder().runtime::<Hasty>().build();
        let (mut client, server) = pair(&client(), &server).await;
        let (sender, mut receiver) = server.split();
        sender.try_send("queued").unwrap();
        let receiving = smol::spawn(async move { receiver.recv().await });
        assert_eq!(client.recv().await.unwrap().unwrap().as_text(), Some("queued"));
        client.close(CloseCode::NORMAL, "").await.unwrap();
        assert!(receiving.await.unwrap().is_none());
    });
}

#[test]
fn dropped_task_of_a_closing_connection_closes_its_transport() {
    run(async {
        let server = Server::builder().runtime::<Hasty>().build();
        let (mut client, mut server) = pair(&client(), &server).await;
        server.start_close(CloseCode::NORMAL, "").unwrap();
        drop(server);
        // The close frame was not written.
        let error = client.recv().await.unwrap_err();
        assert!(error.is_closed() || error.is_io(), "{error}");
    });
}

/// A transport that claims to have read or written more than the buffer holds.
struct Lying;

impl smol::io::AsyncRead for Lying {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buffer.len() + 1))
    }
}

impl smol::io::AsyncWrite for Lying {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len() + 1))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn transport_that_lies_about_a_length_is_an_error() {
    run(async {
        let error = server().accept(FuturesIo::new(Lying)).await.unwrap_err();
        assert!(error.is_io(), "{error}");
        let connecting = client().request("ws://localhost/").connect_over(FuturesIo::new(Lying));
        assert!(connecting.await.unwrap_err().is_io());
        let mut io = FuturesIo::new(Lying);
        let slices = [IoSlice::new(b"ab"), IoSlice::new(b"")];
        let written =
            std::future::poll_fn(|cx| tokio::io::AsyncWrite::poll_write_vectored(Pin::new(&mut io), cx, &slices));
        assert!(written.await.is_err());
    });
}
