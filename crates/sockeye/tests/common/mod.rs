//! Shared by the tests of this crate: a scripted transport, frames, and helpers that open connections.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod distinct_wakers;
pub(crate) mod link;
pub(crate) mod script;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod wire;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use sockeye::handshake::Key;
use sockeye::{Client, Error, Limits, Message, RequestBuilder, Server, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) use script::Peer;

/// The minimal request.
pub(crate) const REQUEST: &str = "GET / HTTP/1.1\r\n\
    Host: localhost\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// The side under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    Server,
    Client,
}

pub(crate) const BOTH: [Local; 2] = [Local::Server, Local::Client];

/// An open connection with default settings.
pub(crate) async fn open(local: Local) -> (WebSocket, Peer) {
    match local {
        Local::Server => open_server(&Server::default()).await,
        Local::Client => open_client(&Client::default()).await,
    }
}

pub(crate) async fn open_server(server: &Server) -> (WebSocket, Peer) {
    let (io, peer) = script::transport(true);
    peer.send_bytes(REQUEST);
    let ws = server.accept(io).await.unwrap().accept().await.unwrap();
    peer.take_bytes();
    peer.take_writes();
    (ws, peer)
}

pub(crate) async fn open_client(client: &Client) -> (WebSocket, Peer) {
    open_request(client.request("ws://localhost/")).await
}

pub(crate) async fn open_request(request: RequestBuilder) -> (WebSocket, Peer) {
    let (io, peer) = script::transport(false);
    let mut connecting = pin!(request.connect_over(io));
    assert!(poll_once(&mut connecting).await.is_pending());
    peer.send_bytes(answer(&peer.take_bytes()));
    let (ws, _) = connecting.await.unwrap();
    peer.take_writes();
    (ws, peer)
}

/// A client and a server, connected in memory.
pub(crate) async fn pair(client: &Client, server: &Server) -> (WebSocket, WebSocket) {
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let accepting = async { server.accept(far).await?.accept().await };
    let (connected, accepted) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
    (connected.unwrap().0, accepted.unwrap())
}

/// The response that accepts `request`.
pub(crate) fn answer(request: &[u8]) -> String {
    let request = std::str::from_utf8(request).unwrap();
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let key = Key::parse(key.unwrap().as_bytes()).unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        key.accept().as_str()
    )
}

/// An open connection, and the other end of its pair of sockets, which have `capacity` bytes in each direction.
pub(crate) async fn open_linked(local: Local, capacity: usize, limits: Limits) -> (WebSocket, link::Link) {
    let (near, mut far) = link::link(capacity);
    match local {
        Local::Server => {
            far.write_all(REQUEST.as_bytes()).await.unwrap();
            let server = Server::builder().limits(limits).build();
            let ws = server.accept(near).await.unwrap().accept().await.unwrap();
            read_head(&mut far).await;
            (ws, far)
        }
        Local::Client => {
            let client = Client::builder().limits(limits).build().unwrap();
            let answering = async {
                let request = read_head(&mut far).await;
                far.write_all(answer(&request).as_bytes()).await.unwrap();
            };
            let (connected, ()) = tokio::join!(client.request("ws://localhost/").connect_over(near), answering);
            (connected.unwrap().0, far)
        }
    }
}

/// Reads the head of a request or response.
pub(crate) async fn read_head(far: &mut link::Link) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(far.read_u8().await.unwrap());
    }
    head
}

/// Polls a future once, without dropping it.
pub(crate) async fn poll_once<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut future).poll(cx))).await
}

/// Polls a future at most `polls` times, each time that it is woken, and then drops it.
pub(crate) async fn poll_at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut done = 0;
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        done += 1;
        if done < polls { Poll::Pending } else { Poll::Ready(None) }
    })
    .await
}

/// Runs all other tasks until they are idle.
pub(crate) async fn run_until_idle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Drops a connection, and waits until its background task has closed the transport.
pub(crate) async fn finish<T>(connection: T, peer: &Peer) {
    drop(connection);
    within(60, async {
        while !peer.is_transport_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Fails instead of hanging. Paused time advances when all tasks are idle.
#[track_caller]
pub(crate) fn within<F: Future>(secs: u64, future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        let limit = Duration::from_secs(secs);
        match tokio::time::timeout(limit, future).await {
            Ok(output) => output,
            Err(_) => panic!("nothing within {secs} s: {caller}"),
        }
    }
}

/// The result of `recv` as text.
#[track_caller]
pub(crate) fn text_of(received: Result<Option<Message>, Error>) -> String {
    let message = received.unwrap().expect("a message, not the end");
    message.as_text().expect("text").to_owned()
}
