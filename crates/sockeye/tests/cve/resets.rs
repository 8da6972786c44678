//! C11: peers that disconnect in every state. Every failure of a transport is a returned error, and closes it.

use std::pin::pin;

use sockeye::{Client, CloseCause, Error, Server, WebSocket};

use crate::common::script::transport;
use crate::common::wire::{binary, close, ping, text};
use crate::common::{BOTH, Local, Peer, REQUEST, answer, finish, open, poll_once, within};
use crate::echo;

/// Disconnects with a reset or an orderly end.
fn goes(peer: &Peer, resets: bool) {
    match resets {
        true => peer.reset(),
        false => peer.end(),
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_126343_end_at_any_byte_of_a_request_is_an_error() {
    for resets in [false, true] {
        for len in 0..REQUEST.len() {
            let (io, peer) = transport(true);
            peer.send_bytes(&REQUEST[..len]);
            goes(&peer, resets);
            let error = within(60, Server::default().accept(io)).await.unwrap_err();
            assert_eq!(error.is_io(), resets, "{len}: {error:?}");
            assert!(peer.is_transport_closed() && peer.take_bytes().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_126343_end_at_any_byte_of_a_response_is_an_error() {
    let client = Client::default();
    for resets in [false, true] {
        for len in 0.. {
            let (io, peer) = transport(false);
            let mut connecting = pin!(client.request("ws://localhost/").connect_over(io));
            assert!(poll_once(&mut connecting).await.is_pending());
            let response = answer(&peer.take_bytes());
            if len == response.len() {
                break;
            }
            peer.send_bytes(&response[..len]);
            goes(&peer, resets);
            let error = within(60, connecting).await.unwrap_err();
            assert_eq!(error.is_io(), resets, "{len}: {error:?}");
            assert!(peer.is_transport_closed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2022_41940_reset_at_any_byte_of_a_response_is_an_error() {
    for request in [REQUEST.to_owned(), REQUEST.replace("GET", "POST")] {
        for operation in 0.. {
            let (io, peer) = transport(true);
            peer.change_rules(|rules| rules.write_max = 1);
            peer.fail_after(operation);
            peer.send_bytes(&request);
            peer.end();
            let accepted = within(60, async { Server::default().accept(io).await?.accept().await }).await;
            if accepted.is_ok() {
                break;
            }
            assert!(peer.is_transport_closed(), "{operation}");
            if peer.take_bytes().ends_with(b"\r\n\r\n") && !request.starts_with("GET") {
                break;
            }
            assert!(operation < 1000, "neither answered nor failed");
        }
    }
}

/// An echo over a transport that fails at one of its operations.
async fn failing(local: Local, operation: usize) -> (WebSocket, Peer, Result<(), Error>) {
    let (mut ws, peer) = open(local).await;
    peer.change_rules(|rules| {
        rules.read_max = 3;
        rules.write_max = 3;
    });
    peer.fail_after(operation);
    peer.send([text("hello"), ping("there"), binary([0; 40]), close(1000, "")]);
    peer.end();
    let ended = within(60, echo(&mut ws)).await;
    (ws, peer, ended)
}

#[tokio::test(start_paused = true)]
async fn cve_2026_129500_failure_at_any_operation_closes_the_connection() {
    for local in BOTH {
        let mut failures = 0;
        for operation in 0..1000 {
            let (mut ws, peer, ended) = failing(local, operation).await;
            assert!(!ws.is_open(), "{operation}");
            if ended.is_ok() && peer.take_frames().contains(&close(1000, "")) {
                break;
            }
            failures += usize::from(ended.is_err());
            // Every later call fails too.
            assert!(ws.send("late").await.is_err() && ws.send_ping(b"late").await.is_err());
            let again = ws.recv().await;
            assert!(ended.is_ok() || again.is_err(), "{operation}: {ended:?}, {again:?}");
            finish(ws, &peer).await;
        }
        // 70 bytes and more in each direction, three at a time.
        assert!(failures > 40, "{failures}");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_129500_end_at_any_byte_of_a_frame_is_1006() {
    for local in BOTH {
        let wire = [text("first").unfinished(), ping("?"), binary([0; 130])];
        let wire: Vec<u8> = wire
            .into_iter()
            .flat_map(|frame| frame.bytes(local == Local::Server))
            .take(30)
            .collect();
        for len in 0..wire.len() {
            for resets in [false, true] {
                let (mut ws, peer) = open(local).await;
                peer.send_bytes(&wire[..len]);
                goes(&peer, resets);
                let error = within(60, ws.recv()).await.unwrap_err();
                assert!(error.is_closed(), "{len}: {error:?}");
                let close_info = ws.close_info().unwrap();
                assert!(
                    close_info.code().0 == 1006 || close_info.cause() != CloseCause::TransportEnd,
                    "{len}"
                );
                assert!(peer.is_transport_closed());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2022_21676_arbitrary_first_bytes_never_panic() {
    for first in 0..=u8::MAX {
        for second in [0, b' ', b'\r', b'\n', b'E', 0x80, 0xff] {
            let (io, peer) = transport(true);
            peer.send_bytes([first, second]);
            peer.send_bytes(&REQUEST.as_bytes()[2..]);
            peer.end();
            let accepted = within(60, Server::default().accept(io)).await;
            assert_eq!(accepted.is_ok(), [first, second] == *b"GE", "{first}, {second}");
            drop(accepted);
            assert!(peer.is_transport_closed());
            let response = peer.take_bytes();
            assert!(response.is_empty() || response.starts_with(b"HTTP/1.1 4"));
        }
    }
}
