//! Tests of the Sockeye client against any server.
//!
//! Each function panics if anything unexpected happens.

use sockeye::{Client, CloseCode, DeflateConfig, Error, Limits, Message, WebSocket};
use tokio::{process::Command, time::timeout};

use crate::interop::{self, Role};
use crate::{Certificate, ForeignServer, SIZES, patience, trusting};

/// Exchanges messages of all sizes and kinds and a burst, then closes; the server must see the close code and reason.
pub async fn talks(server: Command) {
    talks_to(ForeignServer::start(server).await, Client::builder()).await;
}

/// The same over TLS.
pub async fn talks_over_tls(server: Command) {
    let certificate = Certificate::generate();
    let server = ForeignServer::start_tls(server, &certificate).await;
    talks_to(
        server,
        Client::builder().tls_config(trusting(certificate.der.clone().into())),
    )
    .await;
    interop::record(Role::Server, &["TLS"]);
}

async fn talks_to(mut server: ForeignServer, client: sockeye::ClientBuilder) {
    let client = client
        .subprotocols(["superchat", "chat"])
        .build()
        .expect("the names are tokens");
    in_time(async {
        let mut ws = client.connect(&server.url("/echo")).await?;
        assert_eq!(ws.subprotocol(), Some("chat"));
        exchanges(&mut ws).await?;
        ws.close(CloseCode::from(3001), "done here").await
    })
    .await;
    assert_eq!(server.closed().await, (3001, "done here".to_owned()));
    interop::record(Role::Server, &["text", "binary", "1 MiB", "close"]);
}

/// Exchanges messages of all sizes and kinds and a burst with an echo server.
///
/// # Errors
/// Those of the connection.
pub async fn exchanges(ws: &mut WebSocket) -> Result<(), Error> {
    for size in SIZES {
        let text: String = ('a'..='z').cycle().take(size).collect();
        comes_back(ws, Message::text(text)).await?;
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + (at >> 8)) as u8).collect();
        comes_back(ws, Message::binary(bytes)).await?;
    }
    comes_back(ws, Message::text("Grüße, 世界 🐟")).await?;
    for at in 0..200 {
        ws.feed(format!("message {at}")).await?;
    }
    for at in 0..200 {
        assert_eq!(ws.recv().await?, Some(Message::text(format!("message {at}"))));
    }
    Ok(())
}

/// Exchanges compressed messages of up to 1 MiB with an echo server.
///
/// # Errors
/// Those of the connection.
pub async fn exchanges_compressed(ws: &mut WebSocket) -> Result<(), Error> {
    assert!(ws.negotiated_deflate().is_some(), "compression was not negotiated");
    // Some libraries compress no message below 1,024 bytes.
    for size in [2000, 65_536, 1 << 20] {
        let text: String = "compressible ".chars().cycle().take(size).collect();
        // Twice: the second may refer to the first.
        comes_back(ws, Message::text(text.as_str())).await?;
        comes_back(ws, Message::text(text)).await?;
    }
    let stats = ws.stats();
    for direction in [stats.sent, stats.received] {
        assert_eq!((direction.messages, direction.compressed_messages), (6, 6), "{stats:?}");
    }
    Ok(())
}

/// Exchanges compressed messages of up to 1 MiB, in both directions. The server gets `PEER_COMPRESS`.
pub async fn compresses(mut server: Command) {
    server.env("PEER_COMPRESS", "1");
    let server = ForeignServer::start(server).await;
    let client = Client::builder().compression(DeflateConfig::default());
    let client = client.build().expect("the settings are valid");
    in_time(async {
        let mut ws = client.connect(&server.url("/echo")).await?;
        exchanges_compressed(&mut ws).await?;
        ws.close(CloseCode::NORMAL, "").await
    })
    .await;
    interop::record(Role::Server, &["compression"]);
}

/// Pings in both directions: the client answers the server's ping, and measures the round-trip time of its own.
pub async fn pings(server: Command) {
    let server = ForeignServer::start(server).await;
    in_time(async {
        let mut ws = sockeye::connect(&server.url("/ping")).await?;
        assert_eq!(ws.rtt(), None);
        ws.send_ping(b"are you there").await?;
        ws.send("payload of the ping").await?;
        assert_eq!(ws.recv().await?, Some(Message::text("pong payload of the ping")));
        // The client's pong was sent before that message.
        assert!(ws.rtt().is_some());
        ws.close(CloseCode::NORMAL, "").await
    })
    .await;
    interop::record(Role::Server, &["ping"]);
}

/// Receives messages that the server sends in fragments with a ping in between.
pub async fn receives_fragments(server: Command) {
    let server = ForeignServer::start(server).await;
    in_time(async {
        let mut ws = sockeye::connect(&server.url("/fragments")).await?;
        for size in SIZES {
            comes_back(&mut ws, Message::binary(vec![0x5a; size])).await?;
        }
        comes_back(&mut ws, Message::text("one, two, three")).await?;
        ws.close(CloseCode::NORMAL, "").await
    })
    .await;
    interop::record(Role::Server, &["fragments"]);
}

/// The server closes with an application code. `recv` returns an error, code and reason are available, and the server
/// gets its code back.
pub async fn receives_close(server: Command) {
    let mut server = ForeignServer::start(server).await;
    in_time(async {
        let mut ws = sockeye::connect(&server.url("/close")).await?;
        ws.send("go").await?;
        let error = ws.recv().await.expect_err("the server closes with 3005");
        assert_eq!(error.close_code(), Some(CloseCode::from(3005)));
        let received = ws
            .close_info()
            .and_then(|close_info| close_info.received().cloned())
            .expect("the server closed");
        assert_eq!(received.code, CloseCode::from(3005));
        assert_eq!(received.reason, "that is all");
        Ok(())
    })
    .await;
    assert_eq!(server.closed().await.0, 3005);
}

/// A message over the limit ends the connection with 1009, which the server receives.
pub async fn rejects_message_over_the_limit(server: Command) {
    let mut server = ForeignServer::start(server).await;
    let mut limits = Limits::default();
    limits.message_size_max = 1 << 16;
    let client = Client::builder().limits(limits).build().expect("the limits are valid");
    in_time(async {
        let mut ws = client.connect(&server.url("/echo")).await?;
        comes_back(&mut ws, Message::binary(vec![1; 1 << 16])).await?;
        ws.send(vec![1; (1 << 16) + 1]).await?;
        let error = ws.recv().await.expect_err("the message is too big");
        let sent = error
            .close_info()
            .and_then(|close_info| close_info.sent().cloned())
            .expect("we closed");
        assert_eq!(sent.code, CloseCode::MESSAGE_TOO_BIG);
        Ok(())
    })
    .await;
    assert_eq!(server.closed().await.0, 1009);
}

/// The server rejects the handshake; its status and body are available.
pub async fn reports_the_rejection(server: Command) {
    let server = ForeignServer::start(server).await;
    in_time(async {
        let error = sockeye::connect(&server.url("/refuse"))
            .await
            .expect_err("the server refuses");
        let refusal = error.response().expect("the server answered");
        assert_eq!(refusal.status().as_u16(), 403);
        assert_eq!(&refusal.body()[..], b"not here, thank you\n");
        Ok(())
    })
    .await;
}

/// The server is killed; the client reports an error instead of a clean close.
pub async fn notices_that_the_server_died(server: Command) {
    let mut server = ForeignServer::start(server).await;
    in_time(async {
        let mut ws = sockeye::connect(&server.url("/echo")).await?;
        comes_back(&mut ws, Message::text("still here")).await?;
        server.kill().await;
        let error = ws.recv().await.expect_err("the server is gone");
        assert!(error.is_closed(), "{error:?}");
        Ok(())
    })
    .await;
}

#[track_caller]
fn same(received: Option<Message>, sent: &Message) {
    let received = received.expect("the connection is open");
    assert_eq!(received.is_text(), sent.is_text());
    assert!(
        received.as_bytes() == sent.as_bytes(),
        "{} bytes differ from {} sent",
        received.len(),
        sent.len()
    );
}

async fn comes_back(ws: &mut WebSocket, message: Message) -> Result<(), Error> {
    ws.send(message.clone()).await?;
    same(ws.recv().await?, &message);
    Ok(())
}

async fn in_time(exchange: impl Future<Output = Result<(), Error>>) {
    match timeout(patience(), exchange).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:?}"),
        Err(_) => panic!("the exchange did not end in time"),
    }
}
