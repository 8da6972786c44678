//! What `sockeye::test_util` offers for the tests of applications.
#![cfg(feature = "test-util")]

use sockeye::test_util::{self, Frame};
use sockeye::{Client, CloseCode, DeflateConfig, ErrorKind, Server};

#[tokio::test(start_paused = true)]
async fn pair_negotiates_what_both_configure() {
    let config = DeflateConfig::default();
    let client = Client::builder()
        .compression(config.clone())
        .subprotocols(["v1"])
        .build()
        .unwrap();
    let server = Server::builder().compression(config).subprotocols(["v1"]).build();
    let (mut client, mut server) = test_util::pair_with(&client, &server).await.unwrap();
    assert_eq!(server.subprotocol(), Some("v1"));
    assert!(client.negotiated_deflate().is_some());
    client.send("a".repeat(1000)).await.unwrap();
    assert_eq!(server.recv().await.unwrap().unwrap().len(), 1000);
    let (one, other) = tokio::join!(client.close(CloseCode::NORMAL, ""), server.recv());
    one.unwrap();
    assert_eq!(other.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn scripted_server_misbehaves_towards_a_client() {
    let client = Client::default();
    // A masked frame from a server.
    let (mut ws, mut peer) = test_util::scripted_server(&client).await.unwrap();
    peer.send_wrongly_masked("x").await;
    assert!(ws.recv().await.unwrap_err().is_protocol());
    assert_eq!(peer.recv().await.unwrap().close_code(), Some(1002));
    // It behaves until the connection is reset.
    let (mut ws, mut peer) = test_util::scripted_server(&client).await.unwrap();
    peer.send(Frame {
        fin: false,
        ..Frame::text("in ")
    })
    .await;
    peer.send(Frame::ping("?")).await;
    peer.send(Frame::new(0, "parts")).await;
    assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("in parts"));
    ws.send("bye").await.unwrap();
    assert_eq!(peer.recv().await, Some(Frame::pong("?")));
    assert_eq!(peer.recv().await.unwrap().as_text(), Some("bye"));
    peer.reset();
    let error = ws.recv().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::ConnectionReset);
    // The end of the connection ends reading.
    let (ws, mut peer) = test_util::scripted_server(&client).await.unwrap();
    drop(ws);
    peer.drain().await;
    peer.send_text("lost").await;
    assert_eq!(peer.recv().await, None);
}
