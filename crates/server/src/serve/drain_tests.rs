//! Clients that connect while the shutdown begins.

use tokio::io::DuplexStream;

use super::tests::TIMEOUT;
use super::*;

/// Reads until `end`, and returns everything.
async fn read_until(stream: &mut DuplexStream, end: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    while !received.ends_with(end) {
        let byte = timeout(TIMEOUT, stream.read_u8()).await.expect("nothing came");
        let text = String::from_utf8_lossy(&received);
        received.push(byte.unwrap_or_else(|error| panic!("{error} after {text}")));
    }
    received
}

/// Serves one connection of a node. Returns the client's end.
fn serve_one(node: &Arc<Node>, buffer_bytes: usize) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let service = Arc::new(HttpService::new(node.clone(), true));
    let (client, stream) = tokio::io::duplex(buffer_bytes);
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let permit = node.connection_limiter().admit(peer.ip(), 1).unwrap();
    let serving = tokio::spawn(http::serve_connection(service, stream, peer, permit));
    (client, serving)
}

/// Starts the drain, and lets all other tasks see that.
async fn start_drain(node: &Arc<Node>, over: Duration) -> tokio::task::JoinHandle<()> {
    let draining = tokio::spawn({
        let node = node.clone();
        async move { node.drain(over).await }
    });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(node.is_draining());
    draining
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_upgrade_is_not_complete_is_part_of_the_drain() {
    let node = Node::new(Config::default());
    // So small that the response to the upgrade waits for the client.
    let (mut client, serving) = serve_one(&node, 16);
    let request = b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";
    client.write_all(request).await.unwrap();
    read_until(&mut client, b"HTTP/1.1 101").await;

    let started = Instant::now();
    let over = Duration::from_secs(4);
    let draining = start_drain(&node, over).await;
    assert!(!draining.is_finished());

    read_until(&mut client, b"\r\n\r\n").await;
    // Not at once: the client is disconnected in its share of the time, the second half for an only client.
    let close = read_until(&mut client, b"shutdown").await;
    assert_eq!(close[..4], [0x88, 10, 0x0b, 0xb9], "{close:?}");
    assert!(
        (over / 2..=over).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    drop(client);
    draining.await.unwrap();
    serving.await.unwrap();
    timeout(TIMEOUT, node.connection_limiter().wait_until_idle())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_completes_its_upgrade_delays_the_drain_by_a_second() {
    let node = Node::new(Config::default());
    let arrival = node.arrive().unwrap();
    let queue = Arc::new(crate::queue::Queue::new(1024, None));
    node.register(crate::ids::ClientId::from_random(1), &queue);
    let started = Instant::now();
    let draining = tokio::spawn({
        let node = node.clone();
        async move { node.drain(Duration::from_secs(4)).await }
    });
    assert_eq!(queue.closed().await, crate::codes::DisconnectCode::Shutdown);
    assert!(
        started.elapsed() <= Duration::from_millis(4100),
        "{:?}",
        started.elapsed()
    );
    assert!(node.arrive().is_none());
    // A client that arrives after that is disconnected at once.
    let late = Arc::new(crate::queue::Queue::new(1024, None));
    node.register(crate::ids::ClientId::from_random(2), &late);
    assert_eq!(late.closed().await, crate::codes::DisconnectCode::Shutdown);
    node.unregister(crate::ids::ClientId::from_random(1), Vec::new());
    node.unregister(crate::ids::ClientId::from_random(2), Vec::new());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!draining.is_finished());
    drop(arrival);
    draining.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_request_of_a_connection_is_answered() {
    let node = Node::new(Config::default());
    let (mut client, serving) = serve_one(&node, 4096);
    tokio::task::yield_now().await;
    let draining = start_drain(&node, Duration::ZERO).await;
    let request = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("connection: close"),
        "{answer}"
    );
    serving.await.unwrap();
    draining.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_does_not_delay_the_shutdown() {
    let node = Node::new(Config::default());
    let (_client, serving) = serve_one(&node, 4096);
    tokio::task::yield_now().await;
    let started = Instant::now();
    start_drain(&node, Duration::ZERO).await;
    serving.await.unwrap();
    assert!(
        started.elapsed() < Duration::from_millis(300),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_over_http_lives_until_its_share_of_the_drain() {
    let node = Node::new(Config::default());
    let (mut client, serving) = serve_one(&node, 4096);
    let request =
        b"POST /connection/sse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 21\r\n\r\n{\"id\":1,\"connect\":{}}";
    client.write_all(request).await.unwrap();
    read_until(&mut client, b"\"connect\":").await;
    // The only client leaves after 8 s at the earliest, which is later than the timeout of idle connections.
    let over = Duration::from_secs(16);
    let started = Instant::now();
    let draining = start_drain(&node, over).await;
    read_until(&mut client, b"\"code\":3001,\"reason\":\"shutdown\"").await;
    assert!(
        (over / 2..=over).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    draining.await.unwrap();
    drop(client);
    serving.await.unwrap();
}
