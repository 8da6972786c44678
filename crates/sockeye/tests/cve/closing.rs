//! C9 and C10: peers that never close, and memory that remains after closing.

use std::pin::pin;
use std::time::Duration;

use sockeye::{CloseCode, Error, WebSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::common::wire::{close, frame, ping, pong, text};
use crate::common::{BOTH, Peer, finish, open, poll_once, within};
use crate::heap::{live, peak_during};
use crate::{ASLEEP, READ_BUFFER, echo, watched};

/// The ways to keep a connection half closed.
#[derive(Clone, Copy, Debug)]
enum Half {
    /// The peer never answers our close frame.
    Unanswered,
    /// The peer never takes our close frame.
    ZeroWindow,
    /// The peer sends a close frame and keeps TCP open.
    NeverFin,
    /// The peer sends a close frame and does not take our answer.
    AnswerUntaken,
    /// The peer ends TCP without a close frame, and does not take queued output.
    FinUntaken,
    /// The peer violates the protocol and stays connected.
    ProtocolError,
    /// The peer sends a close frame; the transport cannot half-close.
    ShutdownHangs,
}

const HALVES: [Half; 7] = [
    Half::Unanswered,
    Half::ZeroWindow,
    Half::NeverFin,
    Half::AnswerUntaken,
    Half::FinUntaken,
    Half::ProtocolError,
    Half::ShutdownHangs,
];

/// Runs a connection that its peer keeps half closed, until it ends.
async fn half_closed(half: Half, mut ws: WebSocket, peer: &Peer) -> Result<(), Error> {
    match half {
        Half::ZeroWindow | Half::AnswerUntaken | Half::FinUntaken => peer.change_rules(|rules| rules.room = 0),
        Half::ShutdownHangs => peer.change_rules(|rules| rules.shutdown_hangs = true),
        Half::Unanswered | Half::NeverFin | Half::ProtocolError => {}
    }
    match half {
        Half::Unanswered | Half::ZeroWindow => return ws.close(CloseCode::NORMAL, "").await,
        Half::NeverFin | Half::AnswerUntaken | Half::ShutdownHangs => peer.send([close(1000, "")]),
        Half::FinUntaken => {
            ws.feed("queued").await?;
            peer.end();
        }
        Half::ProtocolError => peer.send([frame(0x3, "")]),
    }
    echo(&mut ws).await
}

#[tokio::test(start_paused = true)]
async fn cve_2024_22201_peer_that_never_closes_costs_no_transport_after_10_s() {
    for local in BOTH {
        for half in HALVES {
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..100 {
                let (ws, peer) = open(local).await;
                tasks.spawn(async move {
                    let _ = half_closed(half, ws, &peer).await;
                    peer
                });
            }
            for peer in tasks.join_all().await {
                finish((), &peer).await;
            }
            assert!(start.elapsed() <= Duration::from_millis(10_010), "{local:?}, {half:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_77791_connection_waiting_for_its_end_is_not_polled() {
    for local in BOTH {
        for half in HALVES {
            let (ws, peer) = open(local).await;
            let (_, _, polls) = watched(half_closed(half, ws, &peer)).await;
            assert!(polls <= ASLEEP, "{local:?}, {half:?}: {polls}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2024_23672_close_ends_5_s_after_writing_its_frame_or_10_s_after_stalling() {
    for local in BOTH {
        for (half, secs_max) in [(Half::Unanswered, 5), (Half::ZeroWindow, 10)] {
            let (ws, peer) = open(local).await;
            let (closed, secs, _) = watched(half_closed(half, ws, &peer)).await;
            assert!(closed.unwrap_err().is_timeout() && peer.is_transport_closed());
            assert_eq!(secs, secs_max, "{local:?}, {half:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_79677_stalled_write_is_detected_despite_endless_input() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        ws.feed("queued").await.unwrap();
        let start = Instant::now();
        let talking = async {
            loop {
                peer.send([text("still"), pong("")]);
                sleep(Duration::from_millis(90)).await;
            }
        };
        let receiving = async {
            loop {
                if let Err(error) = ws.recv().await {
                    return error;
                }
            }
        };
        let ended = async {
            tokio::select! {
                error = receiving => error,
                () = talking => unreachable!(),
            }
        };
        let error = within(60, ended).await;
        assert!(error.is_timeout() && peer.is_transport_closed(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2024_22201_flood_after_protocol_violation_costs_one_buffer_and_5_s() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.send([frame(0x3, "")]);
        assert!(ws.recv().await.unwrap_err().is_protocol());
        peer.take_bytes();
        let flooding = async {
            let flood = vec![0; 100_000];
            loop {
                peer.send_bytes(&flood);
                sleep(Duration::from_millis(100)).await;
            }
        };
        let ended = async {
            tokio::select! {
                ended = watched(finish(ws, &peer)) => ended,
                () = flooding => unreachable!(),
            }
        };
        let (((), secs, _), most) = peak_during(ended).await;
        assert!(secs <= 5, "{secs}");
        // The flood exists three times: in the test, in transit, and in the read buffer.
        assert!(most <= READ_BUFFER + 4 * 131_072, "{local:?}: {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2021_3690_pings_and_pongs_leak_no_memory() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let mut round = async |count: usize| {
            for _ in 0..count {
                peer.send((0..50).flat_map(|_| [ping("?"), pong("unasked for")]));
                assert!(poll_once(pin!(ws.recv())).await.is_pending());
                assert_eq!(peer.take_frames().len(), 50);
                peer.take_writes();
            }
            live()
        };
        let before = round(100).await;
        assert_eq!(round(1000).await, before);
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_1605_connections_leak_no_memory_however_they_end() {
    for half in HALVES {
        let lived = async |count: usize| {
            for _ in 0..count {
                for local in BOTH {
                    let (ws, peer) = open(local).await;
                    let _ = half_closed(half, ws, &peer).await;
                    finish((), &peer).await;
                }
            }
            live()
        };
        // The thread now has its buffers.
        let before = lived(20).await;
        let after = lived(200).await;
        assert!(after - before <= 0, "{half:?}: {} bytes", after - before);
    }
}
