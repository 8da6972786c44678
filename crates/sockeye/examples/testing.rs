//! The test of an application: a price server, its rules, and peers that break them.
//!
//! Time is paused: the timeouts of half a minute pass at once. This program calls the checks one by one; in an
//! application, each of them is a `#[tokio::test(start_paused = true)]`.

use std::time::Duration;

use sockeye::test_util::{self, Frame};
use sockeye::{CloseCode, Error, Limits, Server, WebSocket};

/// The application: answers `price SYMBOL`, and closes with 4000 on anything else. Clients that say nothing for a
/// minute are disconnected with 4001.
async fn serve(mut ws: WebSocket) -> Result<(), Error> {
    loop {
        let received = tokio::time::timeout(Duration::from_secs(60), ws.recv()).await;
        let Ok(message) = received else {
            return ws.close(CloseCode(4001), "idle").await;
        };
        let Some(message) = message? else { return Ok(()) };
        match message.as_text().and_then(|text| text.strip_prefix("price ")) {
            Some(symbol) => ws.send(format!("{symbol} 42.00")).await?,
            None => return ws.close(CloseCode(4000), "unknown command").await,
        }
    }
}

fn server() -> Server {
    Server::builder()
        .limits(Limits::default().message_size_max(1024))
        .build()
}

async fn prices_are_answered() -> Result<(), Error> {
    let (mut client, ws) = test_util::pair().await;
    let serving = tokio::spawn(serve(ws));
    client.send("price SOCK").await?;
    assert_eq!(client.recv().await?.unwrap().as_text(), Some("SOCK 42.00"));
    client.send("sell SOCK").await?;
    assert_eq!(client.recv().await.unwrap_err().close_code(), Some(CloseCode(4000)));
    serving.await.unwrap()
}

async fn idle_client_is_disconnected() -> Result<(), Error> {
    let (ws, mut peer) = test_util::scripted_client(&server()).await?;
    let serving = tokio::spawn(serve(ws));
    // It answers pings, but says nothing.
    let close = loop {
        let frame = peer.recv().await.expect("a ping or a close frame");
        match frame.opcode {
            9 => peer.send(Frame::pong(frame.payload)).await,
            _ => break frame,
        }
    };
    assert_eq!(close.close_code(), Some(4001));
    // It does not answer the close frame either: the server gives up after 5 s.
    assert!(serving.await.unwrap().unwrap_err().is_timeout());
    Ok(())
}

async fn dead_and_slow_clients_are_noticed() -> Result<(), Error> {
    // No pong for the ping after 20 s.
    let (ws, silent) = test_util::scripted_client(&server()).await?;
    assert!(serve(ws).await.unwrap_err().is_timeout());
    drop(silent);
    // Killed in the middle of a message.
    let (ws, mut killed) = test_util::scripted_client(&server()).await?;
    killed.send_bytes([0x81, 0x85, 1, 2, 3, 4, b'h']).await;
    killed.abort();
    assert!(serve(ws).await.unwrap_err().is_closed());
    // Reads too slowly what it asks for.
    let (ws, mut slow) = test_util::scripted_client(&server()).await?;
    let serving = tokio::spawn(serve(ws));
    let asking = async {
        for _ in 0..2000 {
            slow.send_text(format!("price {}", "x".repeat(1000))).await;
        }
        slow.read_slowly(100).await;
    };
    tokio::select! {
        served = serving => assert!(served.unwrap().unwrap_err().is_timeout()),
        () = asking => panic!("the server waited for ever"),
    }
    Ok(())
}

async fn invalid_frames_are_rejected() -> Result<(), Error> {
    for (number, code) in [(0, 1002), (1, 1007), (2, 1009)] {
        let (ws, mut peer) = test_util::scripted_client(&server()).await?;
        let serving = tokio::spawn(serve(ws));
        match number {
            0 => peer.send_wrongly_masked("price SOCK").await,
            1 => peer.send_invalid_text().await,
            _ => peer.send_declared_len(1 << 40).await,
        }
        assert_eq!(peer.recv().await.unwrap().close_code(), Some(code));
        assert!(serving.await.unwrap().unwrap_err().is_protocol());
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Error> {
    prices_are_answered().await?;
    idle_client_is_disconnected().await?;
    dead_and_slow_clients_are_noticed().await?;
    invalid_frames_are_rejected().await?;
    println!("all rules hold");
    Ok(())
}
