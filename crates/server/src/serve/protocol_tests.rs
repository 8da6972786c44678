//! Features of the client protocol over a real socket.

use std::sync::atomic::Ordering;

use sockeye::WebSocket;

use super::tests::{Fixture, TIMEOUT};
use super::*;
use crate::channel::lossy::lossy;

async fn text(ws: &mut WebSocket) -> String {
    let message = timeout(TIMEOUT, ws.recv()).await.expect("no message").unwrap();
    message.expect("closed").as_text().unwrap().to_owned()
}

#[tokio::test]
async fn a_client_recovers_deltas_and_follows_a_channel_by_its_id() {
    let server = Fixture::start(Config::default()).await;
    let mut ada = server.join().await;
    let publish = |n: u32| {
        let data = format!("\"{}{n}\"", "x".repeat(300));
        format!(r#"{{"id":3,"publish":{{"channel":"room","data":{data}}}}}"#)
    };
    for n in 1..=2 {
        ada.send(publish(n)).await.unwrap();
        while !text(&mut ada).await.contains("\"publish\":{}") {}
    }
    let mut bob = server.connect().await;
    let subscribe = r#"{"id":2,"subscribe":{"channel":"room","recover":true,"delta":"fossil","flag":1}}"#;
    bob.send(format!("{{\"id\":1,\"connect\":{{}}}}\n{subscribe}"))
        .await
        .unwrap();
    let mut reply = text(&mut bob).await;
    if !reply.contains("\"subscribe\"") {
        reply = text(&mut bob).await;
    }
    assert_eq!(reply.matches("\"delta\":true").count(), 2, "{reply}");
    assert!(reply.ends_with(r#""delta":true,"id":1}}"#), "{reply}");
    ada.send(publish(3)).await.unwrap();
    let push = text(&mut bob).await;
    assert!(push.starts_with(r#"{"push":{"id":1,"pub":{"data":""#), "{push}");
    assert!(push.contains("\"delta\":true") && push.len() < 300, "{push}");
}

#[tokio::test]
async fn a_client_that_missed_a_publication_is_told_so_by_a_running_server() {
    let mut config = Config::default();
    config.timeouts.position_check = Duration::from_millis(64);
    let (node, lossy) = lossy(config);
    let server = Server {
        node,
        shutdown: std::future::pending(),
    };
    let handle = server.handle();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve(listener));
    let mut ws = sockeye::connect(&format!("ws://{address}/connection/websocket"))
        .await
        .unwrap();
    ws.send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"room\",\"positioned\":true}}")
        .await
        .unwrap();
    assert!(text(&mut ws).await.contains("\"positioned\":true"));
    lossy.is_losing.store(true, Ordering::Relaxed);
    handle.publish("room", crate::PublishOptions::new("1")).await.unwrap();
    // No later publication shows the gap: only the check does, after its grace of five seconds.
    assert!(text(&mut ws).await.contains(r#""unsubscribe":{"code":2500,"#));
}

#[tokio::test]
async fn slow_bodies_of_http_streams_and_emulation_get_408() {
    let mut config = Config::default();
    config.timeouts.connect = Duration::from_millis(200);
    let server = Fixture::start(config).await;
    for path in ["/emulation", "/connection/http_stream", "/connection/sse"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 100\r\n\r\n{{",
            server.address
        );
        let response = server.http(&request).await;
        assert!(response.starts_with("HTTP/1.1 408 "), "{path}: {response}");
        assert!(response.ends_with("the request took too long\n"), "{path}: {response}");
    }
    let request = format!(
        "GET /connection/sse HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.address
    );
    let response = server.http(&request).await;
    assert!(
        response.starts_with("HTTP/1.1 400 ") && response.contains("cf_connect"),
        "{response}"
    );
}
