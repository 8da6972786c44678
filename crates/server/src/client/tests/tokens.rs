//! Tokens whose keys an identity provider has.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::events::client;
use super::*;
use crate::auth::tests::{ed_token, key_set};

/// A node whose identity provider answers one request, when the test tells it to.
async fn slow_provider() -> (Arc<Node>, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::default();
    config.tokens.jwks_url = Some(format!("http://{}/keys", listener.local_addr().unwrap()));
    let (release, released) = oneshot::channel();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(tcp.read_u8().await.unwrap());
        }
        released.await.unwrap();
        let keys = key_set();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", keys.len());
        tcp.write_all((head + &keys).as_bytes()).await.unwrap();
    });
    (Node::new(config), release)
}

fn subscribe(id: u32, channel: &str) -> String {
    let token = ed_token(&json!({"sub": "", "channel": channel}));
    format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}","token":"{token}"}}}}"#)
}

#[tokio::test]
async fn a_key_that_is_fetched_delays_only_the_channel_of_its_token() {
    let (node, release) = slow_provider().await;
    let mut peer = client(&node).await;
    let commands = [
        subscribe(2, "$a"),
        r#"{"id":3,"ping":{}}"#.to_owned(),
        r#"{"id":4,"publish":{"channel":"b","data":1}}"#.to_owned(),
        // Waits for the subscription.
        r#"{"id":5,"publish":{"channel":"$a","data":1}}"#.to_owned(),
    ];
    let heard = peer.feed(&commands.join("\n")).await;
    assert_eq!(heard, [r#"{"id":3,"ping":{}}"#, r#"{"id":4,"publish":{}}"#]);
    release.send(()).unwrap();
    let heard = peer.hear(3).await;
    assert!(heard[0].starts_with(r#"{"id":2,"subscribe":{"#), "{heard:?}");
    assert!(heard[1].contains("\"pub\":{\"data\":1"), "{heard:?}");
    assert_eq!(heard[2], r#"{"id":5,"publish":{}}"#);
    // The key is known now.
    let heard = peer.feed(&subscribe(6, "$b")).await;
    assert!(heard[0].starts_with(r#"{"id":6,"subscribe":{"#), "{heard:?}");
}

#[tokio::test]
async fn all_commands_wait_for_the_key_of_the_connection_token() {
    let (node, release) = slow_provider().await;
    let mut peer = Peer::new(&node);
    let token = ed_token(&json!({"sub": "42"}));
    let commands = format!("{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}\n{{\"id\":2,\"ping\":{{}}}}");
    assert_eq!(peer.feed(&commands).await, [""; 0]);
    release.send(()).unwrap();
    let heard = peer.hear(2).await;
    assert!(heard[0].starts_with(r#"{"id":1,"connect":{"#), "{heard:?}");
    assert_eq!(heard[1], r#"{"id":2,"ping":{}}"#);
    assert_eq!(&*peer.0.session.info().unwrap().user, "42");
}

#[tokio::test]
async fn the_server_cancels_a_subscription_whose_key_is_being_fetched() {
    let (node, release) = slow_provider().await;
    let mut peer = client(&node).await;
    assert_eq!(peer.feed(&subscribe(2, "$a")).await, [""; 0]);
    let channel = ChannelName::new("$a").unwrap();
    let cancel = ServerCommand::CancelSubscribe(channel);
    peer.0.queue().push(Item::Command(cancel.into()));
    let refused = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
    assert_eq!(peer.hear(1).await, [refused]);
    // Needs the same key, so its reply shows that the key has arrived.
    assert_eq!(peer.feed(&subscribe(3, "$b")).await, [""; 0]);
    release.send(()).unwrap();
    let heard = peer.hear(1).await;
    assert!(heard[0].starts_with(r#"{"id":3,"subscribe":{"#), "{heard:?}");
    assert_eq!(peer.run_until_idle().await.unwrap(), [""; 0]);
    assert_eq!(node.hub().stats().subscriptions, 1);
}
