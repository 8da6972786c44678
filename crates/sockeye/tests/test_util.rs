//! What `sockeye::test_util` offers for the tests of applications.
#![cfg(feature = "test-util")]

use std::time::Duration;

use sockeye::test_util::{self, Frame, ScriptedPeer};
use sockeye::{Client, CloseCode, DeflateConfig, Error, ErrorKind, Limits, Server, Timeouts, WebSocket};
use tokio::time::Instant;

/// The role of the code under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Local {
    Client,
    Server,
}

const BOTH: [Local; 2] = [Local::Client, Local::Server];

/// A connection of this role with these limits, and its scripted peer.
async fn scripted(local: Local, limits: Limits) -> (WebSocket, ScriptedPeer) {
    let timeouts = Timeouts::default()
        .write(Duration::from_secs(10))
        .close(Duration::from_secs(3));
    let opened = match local {
        Local::Client => {
            let client = Client::builder().limits(limits).timeouts(timeouts).build().unwrap();
            test_util::scripted_server(&client).await
        }
        Local::Server => {
            let server = Server::builder().limits(limits).timeouts(timeouts).build();
            test_util::scripted_client(&server).await
        }
    };
    opened.unwrap()
}

/// Checks that the connection fails with this close code after the peer has done something.
async fn check_failure(code: u16, limits: Limits, misbehave: impl AsyncFn(&mut ScriptedPeer)) {
    for local in BOTH {
        let (mut ws, mut peer) = scripted(local, limits.clone()).await;
        misbehave(&mut peer).await;
        let error = ws.recv().await.unwrap_err();
        assert!(error.is_protocol(), "{local:?} {error}");
        assert_eq!(peer.recv().await.unwrap().close_code(), Some(code), "{local:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_mask_fails_with_1002() {
    check_failure(1002, Limits::default(), async |peer| {
        peer.send_wrongly_masked("x").await
    })
    .await;
    // A correct mask does not.
    for local in BOTH {
        let (mut ws, mut peer) = scripted(local, Limits::default()).await;
        peer.send_text("x").await;
        assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("x"), "{local:?}");
        ws.send("y").await.unwrap();
        assert_eq!(peer.recv().await, Some(Frame::text("y")));
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_text_and_sizes_fail_with_1007_and_1009() {
    check_failure(1007, Limits::default(), ScriptedPeer::send_invalid_text).await;
    let limits = Limits::default().message_size_max(1000);
    check_failure(1009, limits.clone(), async |peer| peer.send_declared_len(1001).await).await;
    check_failure(1009, limits, async |peer| peer.send(Frame::binary([0; 1001])).await).await;
    check_failure(1002, Limits::default(), async |peer| peer.send(Frame::new(3, [])).await).await;
    let reserved_bit = || Frame {
        rsv: 4,
        ..Frame::text("x")
    };
    check_failure(1002, Limits::default(), async |peer| peer.send(reserved_bit()).await).await;
}

#[tokio::test(start_paused = true)]
async fn silent_peer_is_pinged_and_given_up() {
    for local in BOTH {
        let (mut ws, mut peer) = scripted(local, Limits::default()).await;
        let start = Instant::now();
        let error = ws.recv().await.unwrap_err();
        assert!(error.is_timeout(), "{local:?} {error}");
        // The defaults of the keepalive.
        assert_eq!(start.elapsed().as_secs(), 30, "{local:?}");
        assert_eq!(peer.recv().await.unwrap().opcode, 9, "{local:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn peer_that_does_not_answer_a_close_frame_is_given_up() {
    for local in BOTH {
        let (mut ws, mut peer) = scripted(local, Limits::default()).await;
        let start = Instant::now();
        let error = ws.close(CloseCode::NORMAL, "bye").await.unwrap_err();
        assert!(
            error.is_timeout() && start.elapsed().as_secs() == 3,
            "{local:?} {error}"
        );
        assert_eq!(peer.recv().await, Some(Frame::close(1000, "bye")), "{local:?}");
        assert_eq!(peer.recv().await, None, "{local:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn abrupt_end_is_an_error_also_within_a_message() {
    for in_message in [false, true] {
        for is_reset in [false, true] {
            for local in BOTH {
                let (mut ws, mut peer) = scripted(local, Limits::default()).await;
                if in_message {
                    peer.send(Frame {
                        fin: false,
                        ..Frame::text("not all")
                    })
                    .await;
                }
                match is_reset {
                    true => peer.reset(),
                    false => peer.abort(),
                }
                let error = ws.recv().await.unwrap_err();
                assert!(error.is_closed() && error.is_retryable(), "{local:?} {error}");
                assert_eq!(error.close_code(), None, "{local:?}");
                let reset = error.io_error().map(std::io::Error::kind);
                assert_eq!(
                    reset == Some(std::io::ErrorKind::ConnectionReset),
                    is_reset,
                    "{local:?} {error}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn slow_reader_is_disconnected_below_the_minimum_rate() {
    // The minimum is 1 KiB per second. The pipe has 16 KiB.
    for (bytes_per_second, is_fast_enough) in [(100, false), (4096, true)] {
        for local in BOTH {
            let (mut ws, mut peer) = scripted(local, Limits::default()).await;
            let start = Instant::now();
            let reading = tokio::spawn(async move { peer.read_slowly(bytes_per_second).await });
            let sent: Result<(), Error> = ws.send(vec![1; 100_000]).await;
            match is_fast_enough {
                true => {
                    sent.unwrap();
                    // What does not fit into the pipe was read at this rate.
                    let seconds = (100_000 - 16 * 1024) / 4096;
                    let elapsed = start.elapsed().as_secs();
                    assert!((seconds - 1..=seconds + 1).contains(&elapsed), "{local:?} {elapsed}");
                }
                false => {
                    let error = sent.unwrap_err();
                    assert!(error.is_timeout(), "{local:?} {error}");
                    assert!(start.elapsed().as_secs() >= 10, "{local:?}");
                }
            }
            // The end of the connection ends reading.
            drop(ws);
            reading.await.unwrap();
        }
    }
}

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
