//! Large messages are received into buffers of earlier ones. The pool belongs to the process, so these tests have their
//! own binary and run one at a time.

mod common;
#[path = "common/heap.rs"]
mod heap;

use std::pin::pin;

use common::wire::binary;
use common::{Local, open, poll_once};
use heap::held_by;
use tokio::sync::Mutex;

const MIB: usize = 1 << 20;

static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(start_paused = true)]
async fn large_message_reuses_the_buffer_of_an_earlier_one() {
    const LEN: usize = 3 * MIB;
    let _alone = ALONE.lock().await;
    let (mut ws, peer) = open(Local::Server).await;
    let mut places = Vec::new();
    // Takes the memory that an allocator would otherwise reuse.
    let mut others = Vec::new();
    for byte in 0..3 {
        peer.send([binary(vec![byte; LEN])]);
        let message = ws.recv().await.unwrap().unwrap();
        assert_eq!(message.as_bytes(), vec![byte; LEN]);
        places.push(message.as_bytes().as_ptr());
        // On any thread.
        std::thread::spawn(|| drop(message)).join().unwrap();
        others.push(vec![byte; LEN]);
    }
    assert_eq!(places, [places[0]; 3]);
}

#[tokio::test(start_paused = true)]
async fn declared_but_unsent_messages_cost_at_most_the_pool() {
    const LEN: usize = 16 * MIB;
    const SENT: usize = 100 * 1024;
    const COUNT: usize = 6;
    let _alone = ALONE.lock().await;
    for round in 0..2 {
        let (mut stopped, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..COUNT {
            let (mut ws, peer) = open(Local::Server).await;
            peer.send([binary(vec![1; LEN])]);
            drop(ws.recv().await.unwrap());
            peer.send([binary(vec![2; SENT]).declaring(LEN as u64)]);
            while peer.unread_len() > 0 {
                assert!(poll_once(pin!(ws.recv())).await.is_pending());
            }
            stopped.push(ws);
            peers.push(peer);
        }
        let held = held_by(stopped);
        assert!(
            held <= 32 * MIB + COUNT * (2 * SENT + 4096),
            "round {round}: {held} bytes"
        );
        // One uses a pooled buffer; otherwise this would prove nothing.
        assert!(held >= LEN, "round {round}: {held} bytes");
    }
}
