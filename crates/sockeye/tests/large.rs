//! Large messages are received into the buffers of earlier ones. These belong to the process, so that the tests that have
//! to do with them have one of their own, and run one after the other.

mod common;
#[path = "common/heap.rs"]
mod heap;

use std::pin::pin;

use common::wire::binary;
use common::{Local, look, open};
use heap::held_by;
use tokio::sync::Mutex;

const MIB: usize = 1 << 20;

static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(start_paused = true)]
async fn a_large_message_is_received_into_the_buffer_of_the_one_before() {
    const LEN: usize = 3 * MIB;
    let _alone = ALONE.lock().await;
    let (mut ws, peer) = open(Local::Server).await;
    let mut places = Vec::new();
    // What an allocator would give to whoever asks next, these would have.
    let mut others = Vec::new();
    for byte in 0..3 {
        peer.sends([binary(vec![byte; LEN])]);
        let message = ws.recv().await.unwrap().unwrap();
        assert_eq!(message.as_bytes(), vec![byte; LEN]);
        places.push(message.as_bytes().as_ptr());
        // Wherever it is dropped.
        std::thread::spawn(|| drop(message)).join().unwrap();
        others.push(vec![byte; LEN]);
    }
    assert_eq!(places, [places[0]; 3]);
}

#[tokio::test(start_paused = true)]
async fn what_is_declared_and_not_sent_costs_no_more_than_all_that_is_kept() {
    const LEN: usize = 16 * MIB;
    const SENT: usize = 100 * 1024;
    const COUNT: usize = 6;
    let _alone = ALONE.lock().await;
    for round in 0..2 {
        let (mut stopped, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..COUNT {
            let (mut ws, peer) = open(Local::Server).await;
            peer.sends([binary(vec![1; LEN])]);
            drop(ws.recv().await.unwrap());
            peer.sends([binary(vec![2; SENT]).declaring(LEN as u64)]);
            while peer.unread_len() > 0 {
                assert!(look(pin!(ws.recv())).await.is_pending());
            }
            stopped.push(ws);
            peers.push(peer);
        }
        let held = held_by(stopped);
        assert!(
            held <= 32 * MIB + COUNT * (2 * SENT + 4096),
            "round {round}: {held} bytes"
        );
        // One has a buffer that was kept, or this would tell nothing.
        assert!(held >= LEN, "round {round}: {held} bytes");
    }
}
