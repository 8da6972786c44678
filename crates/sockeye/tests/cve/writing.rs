//! C8: peers that do not read.

use std::pin::pin;

use sockeye::TrySendError;

use crate::common::wire::{Frame, binary, ping, pong};
use crate::common::{BOTH, Local, open, poll_once};
use crate::heap::{held_by, peak_during};
use crate::{ASLEEP, READ_BUFFER, echo, watched};

/// The default limit of queued bytes.
const WRITE_BUFFER_MAX: usize = 1024 * 1024;

/// The default limit of bytes read ahead, with the overhead of the queue.
const READ_AHEAD_MAX: usize = 8 * 1024 * 1024 + 512 * 1024;

fn repeated(local: Local, frame: Frame) -> Vec<u8> {
    frame.bytes(local == Local::Server).repeat(16)
}

#[tokio::test(start_paused = true)]
async fn cve_rustsec_2020_0043_unread_echoes_cost_the_queue_limit_and_end_after_10_s() {
    const MESSAGE_LEN: usize = 4096;
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let flood = repeated(local, binary([1; MESSAGE_LEN]));
        let flood_len = flood.len();
        peer.change_rules(|rules| {
            rules.room = 0;
            rules.endless = flood;
        });
        let ((ended, secs, _), most) = peak_during(watched(echo(&mut ws))).await;
        assert!(ended.unwrap_err().is_timeout() && peer.is_transport_closed());
        assert_eq!(secs, 10);
        // Queued output, messages read ahead, read but undelivered bytes, and the script's own copy of the flood.
        let allowed = WRITE_BUFFER_MAX + READ_AHEAD_MAX + 2 * MESSAGE_LEN + READ_BUFFER + 4 * flood_len;
        assert!(
            (WRITE_BUFFER_MAX..=allowed).contains(&most),
            "{local:?}: {most} of {allowed}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn cve_rustsec_2020_0043_broadcast_to_a_full_queue_is_rejected() {
    for local in BOTH {
        let (ws, peer) = open(local).await;
        let (sender, receiver) = ws.split();
        peer.change_rules(|rules| rules.room = 0);
        let message = "m".repeat(1000);
        let count = (0..100_000)
            .take_while(|_| sender.try_send(message.as_str()).is_ok())
            .count();
        assert!(count * 1004 <= WRITE_BUFFER_MAX + 8, "{count}");
        assert!(matches!(
            sender.try_send(message.as_str()),
            Err(TrySendError::Full { .. })
        ));
        let held = held_by((sender, receiver));
        assert!(
            (WRITE_BUFFER_MAX - 1008..WRITE_BUFFER_MAX + 8 * 1024).contains(&held),
            "{held}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn cve_rustsec_2020_0043_a_flood_of_pings_with_a_zero_window_costs_2_kib_and_ends_after_10_s() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        let flood = repeated(local, ping([7; 125]));
        peer.change_rules(|rules| {
            rules.room = 0;
            rules.endless = flood;
        });
        // The clock does not advance while there is input: this is about 160,000 pings.
        for _ in 0..10_000 {
            assert!(poll_once(pin!(ws.recv())).await.is_pending());
        }
        let ((), most) = peak_during(async {
            for _ in 0..10_000 {
                assert!(poll_once(pin!(ws.recv())).await.is_pending());
            }
        })
        .await;
        // While output is queued, input is read into a buffer of 8 KiB.
        assert!(most <= 9 * 1024, "{local:?}: {most} bytes more");
        peer.change_rules(|rules| rules.endless = vec![]);
        while peer.unread_len() > 0 {
            assert!(poll_once(pin!(ws.recv())).await.is_pending());
        }
        peer.change_rules(|rules| rules.room = usize::MAX);
        assert!(poll_once(pin!(ws.recv())).await.is_pending());
        let pongs = peer.take_frames();
        assert!(pongs.len() <= 2048 / 127 + 3, "{} pongs", pongs.len());
        assert!(pongs.iter().all(|frame| *frame == pong([7; 125])));

        peer.change_rules(|rules| rules.room = 0);
        peer.send([ping("?")]);
        let (received, secs, polls) = watched(ws.recv()).await;
        assert!(received.unwrap_err().is_timeout() && peer.is_transport_closed());
        assert_eq!(secs, 10);
        assert!(polls <= ASLEEP, "{polls}");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_rustsec_2020_0043_own_pings_do_not_accumulate() {
    for local in BOTH {
        let (mut ws, peer) = open(local).await;
        peer.change_rules(|rules| rules.room = 0);
        for _ in 0..10_000 {
            // Waits for the transport, which takes nothing.
            assert!(poll_once(pin!(ws.send_ping(&[1; 125]))).await.is_pending());
        }
        let held = held_by(ws);
        assert!(held <= 8 * 1024, "{local:?}: {held} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_rustsec_2024_0003_tasks_waiting_for_one_peer_all_fail_after_10_s() {
    let (ws, peer) = open(Local::Server).await;
    let (sender, mut receiver) = ws.split();
    peer.change_rules(|rules| rules.room = 0);
    while sender.try_send("m".repeat(1000)).is_ok() {}
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let sender = sender.clone();
        waiting.spawn(async move { sender.send("one more").await });
    }
    let all = async {
        let (received, sent) = tokio::join!(receiver.recv(), waiting.join_all());
        assert!(received.unwrap_err().is_timeout());
        sent
    };
    let (sent, secs, _) = watched(all).await;
    assert!(
        sent.iter()
            .all(|sent| sent.as_ref().is_err_and(|error| error.is_timeout()))
    );
    assert_eq!((sent.len(), secs), (1000, 10));
    // The queue was freed with the connection, although its handles still exist.
    let held = held_by((sender, receiver));
    assert!(held <= 8 * 1024, "{held}");
    assert!(peer.is_transport_closed());
}
