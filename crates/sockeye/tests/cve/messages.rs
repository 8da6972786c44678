//! C2 to C5 on an open connection: declared lengths, fragments, pieces and decompression bombs.

use std::pin::pin;

use sockeye::{Client, CloseCause, Compress, DeflateConfig, Limits, Message, ProtocolError, Server, WebSocket};

use crate::common::wire::{binary, continuation, frame, text};
use crate::common::{BOTH, Local, Peer, finish, open, open_client, open_server, pair, poll_once, within};
use crate::heap::{held_by, peak_during};
use crate::{IDLE, READ_BUFFER, watched};

const LIMIT: usize = 64 * 1024;

/// A connection with a message size limit of 64 KiB.
async fn open_limited(local: Local) -> (WebSocket, Peer) {
    let mut limits = Limits::default();
    limits.message_size_max = LIMIT as u64;
    match local {
        Local::Server => open_server(&Server::builder().limits(limits).build()).await,
        Local::Client => open_client(&Client::builder().limits(limits).build().unwrap()).await,
    }
}

/// The protocol error of a connection whose peer sends `first` and then `more` endlessly, and its cost in bytes.
async fn flooded(local: Local, first: Vec<u8>, more: Vec<u8>) -> (ProtocolError, usize) {
    let (mut ws, peer) = open_limited(local).await;
    peer.send_bytes(first);
    // The thread now has its read buffer.
    assert!(poll_once(pin!(ws.recv())).await.is_pending());
    peer.change_rules(|rules| rules.endless = more);
    let mut cause = None;
    let (((), secs, _), most) = peak_during(watched(async {
        assert!(ws.recv().await.is_err());
        cause = Some(ws.close_info().unwrap().cause());
        finish(ws, &peer).await;
    }))
    .await;
    assert!(secs <= 5, "{secs}");
    match cause {
        Some(CloseCause::ProtocolError(fault)) => (fault, most),
        cause => panic!("{cause:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn cve_rustsec_2022_0035_header_without_payload_costs_no_memory_and_30_s() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([binary("").declaring(16 * 1024 * 1024)]);
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        let ((received, secs, _), most) = peak_during(watched(ws.recv())).await;
        assert!(received.unwrap_err().is_timeout() && peer.is_transport_closed());
        assert_eq!(secs, 30);
        assert!(most <= IDLE, "{local:?}: {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2018_21035_excessive_length_is_rejected_before_its_payload() {
    for local in BOTH {
        for declared in [LIMIT as u64 + 1, 1 << 31, 1 << 32, (1 << 63) - 1] {
            let (mut ws, peer) = open_limited(local).await;
            peer.send([binary("").declaring(declared)]);
            let error = within(60, ws.recv()).await.unwrap_err();
            assert_eq!(
                error.close_info().unwrap().cause(),
                CloseCause::ProtocolError(ProtocolError::MessageTooBig)
            );
            peer.end();
            assert!(ws.recv().await.is_err());
            assert!(peer.is_transport_closed());
            let held = held_by(ws);
            assert!(held <= IDLE, "{held}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_42786_endless_continuations_cost_the_limit() {
    for local in BOTH {
        for len in [1, 100, 10_000] {
            let piece = continuation(vec![1; len]).unfinished().bytes(local == Local::Server);
            // About 10 KB at a time, however small the pieces are.
            let piece = piece.repeat(1 + 10_000 / piece.len());
            let piece_len = piece.len();
            let first = binary("first").unfinished().bytes(local == Local::Server);
            let (fault, most) = flooded(local, first, piece).await;
            assert_eq!(fault, ProtocolError::MessageTooBig);
            let allowed = 2 * LIMIT + READ_BUFFER + 4 * piece_len + IDLE;
            assert!(most <= allowed, "{local:?}, {len}: {most} of {allowed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_48779_endless_empty_fragments_cost_nothing_and_end_at_a_thousand() {
    for local in BOTH {
        let piece = continuation("").unfinished().bytes(local == Local::Server);
        let first = text("first").unfinished().bytes(local == Local::Server);
        let (fault, most) = flooded(local, first, piece.repeat(100)).await;
        assert_eq!(fault, ProtocolError::TooManyEmptyFragments);
        assert!(most <= READ_BUFFER + 8 * 1024, "{local:?}: {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_123817_a_message_in_single_bytes_costs_twice_its_bytes() {
    const LEN: usize = 50_000;
    for local in BOTH {
        let (mut ws, peer) = open_limited(local).await;
        peer.change_rules(|rules| rules.read_max = 1);
        peer.send([binary(vec![1; LEN]).declaring(LEN as u64 + 1)]);
        let receiving = async {
            while peer.unread_len() > 0 {
                assert!(poll_once(pin!(ws.recv())).await.is_pending());
            }
        };
        let ((), most) = peak_during(receiving).await;
        assert!(most <= READ_BUFFER + 2 * LEN + IDLE, "{local:?}: {most}");
        let held = held_by(ws);
        assert!((LEN..=2 * LEN + IDLE).contains(&held), "{local:?}: {held}");
    }
}

/// A connection that compresses, with a message size limit of 64 KiB.
async fn open_deflating() -> (WebSocket, WebSocket) {
    let mut limits = Limits::default();
    limits.message_size_max = LIMIT as u64;
    let server = Server::builder()
        .limits(limits.clone())
        .compression(DeflateConfig::default());
    let client = Client::builder().limits(limits).compression(DeflateConfig::default());
    pair(&client.build().unwrap(), &server.build()).await
}

#[tokio::test(start_paused = true)]
async fn cve_2026_39804_decompression_bomb_costs_the_limit_and_closes_1009() {
    let bomb = vec![0_u8; 8 * 1024 * 1024];
    for from_client in [true, false] {
        let (client, server) = open_deflating().await;
        let (mut attacker, mut victim) = match from_client {
            true => (client, server),
            false => (server, client),
        };
        // The thread now has its buffers and codecs.
        attacker
            .feed(Message::from("x".repeat(1000)).compress(Compress::Always))
            .await
            .unwrap();
        attacker.flush().await.unwrap();
        victim.recv().await.unwrap();
        attacker
            .feed(Message::from(bomb.as_slice()).compress(Compress::Always))
            .await
            .unwrap();
        attacker.flush().await.unwrap();
        let (received, most) = peak_during(victim.recv()).await;
        assert!(!victim.is_open());
        drop(attacker);
        let error = received.unwrap_err();
        assert_eq!(
            error.close_info().unwrap().cause(),
            CloseCause::ProtocolError(ProtocolError::MessageTooBig)
        );
        assert!(most <= 2 * LIMIT + 64 * 1024, "{most}");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_27571_compressed_frame_without_negotiation_is_rejected() {
    for local in BOTH {
        let (mut ws, peer) = open_limited(local).await;
        // A text frame with RSV1 and a compressed payload.
        let mut bytes = frame(0x1, [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).bytes(local == Local::Server);
        bytes[0] |= 0x40;
        peer.send_bytes(bytes);
        let error = within(60, ws.recv()).await.unwrap_err();
        assert_eq!(
            error.close_info().unwrap().cause(),
            CloseCause::ProtocolError(ProtocolError::ReservedBits)
        );
        assert_eq!(peer.take_frames()[0].payload()[..2], 1002_u16.to_be_bytes());
    }
}
