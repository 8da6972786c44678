//! C2, C10, C12, C14, C15 and C20 during the opening handshake.

use std::pin::pin;
use std::time::Duration;

use sockeye::http::StatusCode;
use sockeye::{Client, Limits, Server};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::common::script::transport;
use crate::common::wire::{close, ping, text};
use crate::common::{REQUEST, answer, poll_once, text_of, within};
use crate::heap::{held_by, live};
use crate::{ASLEEP, IDLE, watched};

/// The handshake timeout, and one second for a rejected client to read the response.
const HANDSHAKE_SECS: u64 = 10;
const LINGER_SECS: u64 = 1;

/// How long a client waits for the rest of a rejection.
const REJECTION_BODY_SECS: u64 = 1;

/// The size of the future that reads a request, and its timer; and its span with the feature `tracing`.
const WAITING: usize = if cfg!(feature = "tracing") { 1600 } else { 1536 };

#[tokio::test(start_paused = true)]
async fn cve_ghsa_8j3g_f24p_4mpw_a_byte_every_9_s_does_not_extend_the_timeout() {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..500 {
        let (io, peer) = transport(true);
        tasks.spawn(async move {
            let server = Server::default();
            let dripping = async {
                for byte in REQUEST.bytes() {
                    peer.send_bytes([byte]);
                    sleep(Duration::from_secs(9)).await;
                }
            };
            tokio::select! {
                accepted = server.accept(io) => assert!(accepted.unwrap_err().is_timeout()),
                () = dripping => unreachable!(),
            }
            assert!(peer.is_transport_closed());
            assert!(peer.take_bytes().starts_with(b"HTTP/1.1 408 "));
        });
    }
    tasks.join_all().await;
    assert!(start.elapsed().as_secs() <= HANDSHAKE_SECS + LINGER_SECS);
}

#[tokio::test(start_paused = true)]
async fn cve_ghsa_8j3g_f24p_4mpw_silent_client_costs_no_polls_and_little_memory() {
    let server = Server::default();
    let (io, peer) = transport(true);
    let mut accepting = Box::pin(server.accept(io));
    assert!(poll_once(&mut accepting).await.is_pending());
    let held = held_by(accepting);
    assert!(held <= WAITING, "{held}");
    assert!(peer.is_transport_closed(), "dropped");
    let (io, _peer) = transport(true);
    let (accepted, secs, polls) = watched(server.accept(io)).await;
    assert!(accepted.is_err());
    assert_eq!(secs, HANDSHAKE_SECS);
    assert!(polls <= ASLEEP, "{polls}");
}

/// The seconds that a client waits for a server that answers with `head` and then with endless single bytes of `drip`,
/// and its error.
async fn wait_for_dripping_server(head: &str, drip: &str) -> (u64, sockeye::Error) {
    let (io, peer) = transport(false);
    let start = Instant::now();
    peer.send_bytes(head);
    let dripping = async {
        for byte in drip.bytes().cycle() {
            peer.send_bytes([byte]);
            sleep(Duration::from_millis(130)).await;
        }
    };
    let client = Client::default();
    let error = tokio::select! {
        connected = client.request("ws://localhost/").connect_over(io) => connected.unwrap_err(),
        () = dripping => unreachable!(),
    };
    assert!(peer.is_transport_closed());
    (start.elapsed().as_secs(), error)
}

#[tokio::test(start_paused = true)]
async fn cve_2026_47073_no_response_keeps_a_client_for_more_than_10_s() {
    for (head, drip) in [
        ("", "HTTP/1.1 101 Switching Protocols "),
        ("HTTP/1.1 101 Switching Protocols\r\n", "X: y\r\n"),
        ("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
    ] {
        let (secs, error) = wait_for_dripping_server(head, drip).await;
        assert!(error.is_timeout(), "{head:?}, {drip:?}: {error:?}");
        assert_eq!(secs, HANDSHAKE_SECS);
    }
    // A rejection is reported within a second of its head, with the part of its body that has arrived.
    for framing in ["", "Content-Length: 9999\r\n", "Transfer-Encoding: chunked\r\n"] {
        let head = format!("HTTP/1.1 403 Forbidden\r\n{framing}\r\n");
        let (secs, error) = wait_for_dripping_server(&head, "1\r\nb\r\n").await;
        let rejection = error.response().unwrap();
        assert_eq!(rejection.status(), StatusCode::FORBIDDEN);
        assert!(
            error.is_response_truncated() && !rejection.body().is_empty(),
            "{framing}"
        );
        assert_eq!(secs, REJECTION_BODY_SECS, "{framing}");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_47073_body_of_a_rejection_costs_16_kib() {
    let (io, peer) = transport(false);
    peer.send_bytes("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 99999999\r\n\r\n");
    peer.change_rules(|rules| rules.endless = vec![b'x'; 10_000]);
    let client = Client::default();
    let error = within(60, client.request("ws://localhost/").connect_over(io))
        .await
        .unwrap_err();
    assert_eq!(error.response().unwrap().body().len(), 16 * 1024);
    assert!(peer.is_transport_closed());
    let held = held_by(error);
    assert!(held <= 2 * 16 * 1024, "{held}");
}

#[tokio::test(start_paused = true)]
async fn cve_2026_15565_endless_request_head_is_rejected_at_16_kib() {
    let head_size_max = Limits::default().head_size_max;
    let server = Server::default();
    let (io, peer) = transport(true);
    let mut accepting = Box::pin(server.accept(io));
    peer.send_bytes("GET / HTTP/1.1\r\nHost: ");
    peer.send_bytes(vec![b'a'; head_size_max - 22]);
    assert!(poll_once(&mut accepting).await.is_pending());
    let before = live();
    drop(accepting);
    let held = usize::try_from(before - live()).unwrap();
    assert!(held <= head_size_max + WAITING, "{held}");

    let (io, peer_again) = transport(true);
    peer_again.change_rules(|rules| rules.endless = b"GET / HTTP/1.1\r\nHost: ".repeat(7));
    let (accepted, secs, _) = watched(server.accept(io)).await;
    assert!(accepted.unwrap_err().is_protocol());
    assert!(secs <= LINGER_SECS);
    assert!(peer.is_transport_closed() && peer_again.is_transport_closed());
    let response = peer_again.take_bytes();
    assert!(
        response.starts_with(b"HTTP/1.1 4"),
        "{}",
        String::from_utf8_lossy(&response)
    );
}

#[tokio::test(start_paused = true)]
async fn cve_2026_15565_endless_response_head_costs_16_kib() {
    let (io, peer) = transport(false);
    peer.send_bytes("HTTP/1.1 101 Switching Protocols\r\nX: ");
    peer.change_rules(|rules| rules.endless = vec![b'x'; 1000]);
    let client = Client::default();
    let error = within(60, client.request("ws://localhost/").connect_over(io))
        .await
        .unwrap_err();
    assert!(error.is_protocol() && peer.is_transport_closed(), "{error:?}");
    // A step may read 4 KiB.
    assert!(
        peer.read_count() <= 16 + 5,
        "{} reads of 1,000 bytes",
        peer.read_count()
    );
}

#[tokio::test(start_paused = true)]
async fn cve_rustsec_2023_0065_a_head_in_single_bytes_is_read_once() {
    let (io, peer) = transport(true);
    peer.change_rules(|rules| {
        rules.read_max = 1;
        rules.endless = vec![b'a'; 100];
    });
    peer.send_bytes("GET / HTTP/1.1\r\nHost: ");
    let server = Server::default();
    let (accepted, secs, _) = watched(server.accept(io)).await;
    assert!(accepted.unwrap_err().is_protocol());
    assert!(secs <= LINGER_SECS);
    // The head, and what is read afterwards so that the client gets its 431.
    let most = Limits::default().head_size_max + 1 + 64 * 1024;
    assert!(peer.read_count() <= most, "{} reads", peer.read_count());
    assert!(peer.take_bytes().starts_with(b"HTTP/1.1 431 "));
}

#[tokio::test(start_paused = true)]
async fn cve_2024_37890_101_headers_are_rejected() {
    let (io, peer) = transport(true);
    peer.send_bytes("GET / HTTP/1.1\r\n");
    peer.change_rules(|rules| rules.endless = b"a: b\r\n".to_vec());
    let error = within(60, Server::default().accept(io)).await.unwrap_err();
    assert!(error.is_protocol());
    assert!(peer.take_bytes().starts_with(b"HTTP/1.1 431 "));
    assert!(peer.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn cve_2026_2833_bytes_behind_a_rejected_request_are_not_a_request() {
    for refused in [
        REQUEST.replace("GET", "POST"),
        REQUEST.replace("Host: localhost\r\n", "Host: localhost\r\nContent-Length: 5\r\n"),
        REQUEST.replace(
            "Host: localhost\r\n",
            "Host: localhost\r\nTransfer-Encoding: chunked\r\n",
        ),
        REQUEST.replace("Version: 13", "Version: 12"),
    ] {
        let (io, peer) = transport(true);
        peer.send_bytes(&refused);
        peer.change_rules(|rules| rules.endless = REQUEST.as_bytes().to_vec());
        let (accepted, secs, _) = watched(Server::default().accept(io)).await;
        assert!(accepted.is_err() && secs <= LINGER_SECS);
        let response = String::from_utf8(peer.take_bytes()).unwrap();
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
        assert!(
            ["HTTP/1.1 4", "HTTP/1.1 501 "]
                .iter()
                .any(|status| response.starts_with(status))
        );
        assert!(response.contains("Connection: close"), "{response}");
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_100658_pipelined_requests_are_parsed_as_frames_and_fail() {
    let (io, peer) = transport(true);
    peer.send_bytes(REQUEST.repeat(100));
    let mut ws = Server::default().accept(io).await.unwrap().accept().await.unwrap();
    let response = String::from_utf8(peer.take_bytes()).unwrap();
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1);
    // A `G` is a frame with reserved bits.
    assert!(within(60, ws.recv()).await.unwrap_err().is_protocol());
    assert!(matches!(&peer.take_frames()[..], [frame] if frame.payload().starts_with(&1002_u16.to_be_bytes())));
}

#[tokio::test(start_paused = true)]
async fn cve_2024_23326_frames_behind_a_200_are_not_delivered() {
    for status in ["200 OK", "100 Continue", "204 No Content", "426 Upgrade Required"] {
        let (io, peer) = transport(false);
        let client = Client::default();
        let mut connecting = pin!(client.request("ws://localhost/").connect_over(io));
        assert!(poll_once(&mut connecting).await.is_pending());
        let response = answer(&peer.take_bytes()).replace("101 Switching Protocols", status);
        peer.send_bytes(response);
        peer.send([text("smuggled"), ping("?")]);
        peer.end();
        assert!(within(60, connecting).await.is_err(), "{status}");
        assert!(peer.is_transport_closed() && peer.take_bytes().is_empty(), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_69243_frames_before_the_response_are_delivered_after_it() {
    let (io, peer) = transport(true);
    peer.send_bytes(REQUEST);
    peer.send([text("early"), close(1000, "")]);
    let server = Server::default();
    let pending = server.accept(io).await.unwrap();
    assert!(peer.take_bytes().is_empty(), "nobody has said yes");
    let mut ws = pending.accept().await.unwrap();
    assert!(peer.take_bytes().starts_with(b"HTTP/1.1 101 "));
    assert_eq!(text_of(ws.recv().await), "early");

    // Frames behind a rejected request are discarded.
    let (io, peer) = transport(true);
    peer.send_bytes(REQUEST);
    peer.send([ping("early"), close(1000, "")]);
    let pending = server.accept(io).await.unwrap();
    within(60, pending.reject(StatusCode::FORBIDDEN)).await;
    let response = peer.take_bytes();
    assert!(response.starts_with(b"HTTP/1.1 403 "));
    assert!(
        !response.contains(&0x8a) && !response.contains(&0x88),
        "no pong, no close frame"
    );
}

#[tokio::test(start_paused = true)]
async fn cve_2026_42498_a_redirect_is_not_followed_and_gets_no_second_request() {
    for status in [
        "301 Moved",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
        "401 No",
    ] {
        let (io, peer) = transport(false);
        let client = Client::builder()
            .header("Authorization", "Bearer s3cret")
            .build()
            .unwrap();
        let mut connecting = pin!(client.request("ws://localhost/").connect_over(io));
        assert!(poll_once(&mut connecting).await.is_pending());
        assert_eq!(
            peer.take_bytes().windows(6).filter(|bytes| bytes == b"s3cret").count(),
            1
        );
        peer.send_bytes(format!(
            "HTTP/1.1 {status}\r\nLocation: ws://evil.example/\r\nContent-Length: 0\r\n\r\n"
        ));
        let error = within(60, connecting).await.unwrap_err();
        assert_eq!(error.response().unwrap().status().as_u16().to_string(), status[..3]);
        assert!(
            !format!("{error:?} {error} {client:?}").contains("s3cret"),
            "in what is logged"
        );
        assert!(peer.take_bytes().is_empty() && peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn cve_ghsa_9mqv_5hh9_4cgg_failed_handshakes_leak_no_memory() {
    let server = Server::default();
    let client = Client::default();
    let failed = async |count: usize| {
        for _ in 0..count {
            for request in [REQUEST.replace("ZQ==", ""), REQUEST.replace("GET", "PUT"), "G".into()] {
                let (io, peer) = transport(true);
                peer.send_bytes(request);
                peer.end();
                assert!(within(60, server.accept(io)).await.is_err());
            }
            for response in [
                "HTTP/1.1 101 Switching Protocols\r\n\r\n",
                "HTTP/1.1 404 No\r\n\r\nno",
                "H",
            ] {
                let (io, peer) = transport(false);
                peer.send_bytes(response);
                peer.end();
                let connected = within(60, client.request("ws://localhost/").connect_over(io)).await;
                assert!(connected.is_err());
            }
        }
        live()
    };
    let before = failed(10).await;
    let after = failed(1000).await;
    assert!(after - before <= IDLE as isize, "{} bytes", after - before);
}
