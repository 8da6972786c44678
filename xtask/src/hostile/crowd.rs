//! Many hostile peers on one thread.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use rustix::process::setpriority_process;

use super::peer::{Mood, Peer, Script};

/// Nice value of the thread; Linux has one per thread.
const NICENESS: i32 = 19;

/// The longest sleep between two visits, which bounds how late a new mood is noticed.
const NAP_MAX: Duration = Duration::from_millis(1);

/// Delay between two new connections, because the backlog of a listener is limited.
const OPENING_INTERVAL: Duration = Duration::from_micros(50);

/// Peers that follow their scripts until dropped.
pub(super) struct Crowd {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<io::Result<Sent>>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_released: AtomicBool,
    settled: AtomicUsize,
    is_over: AtomicBool,
}

/// Totals of what a crowd sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) connections: u64,
    pub(super) bytes: u64,
}

impl Crowd {
    /// Starts `count` peers, distributed evenly over the scripts.
    pub(super) fn start(address: SocketAddr, scripts: &[Arc<Script>], count: usize) -> Result<Self> {
        let peers = (0..count).map(|idx| {
            let script = scripts[idx % scripts.len()].clone();
            Peer::new(address, script, idx as f64 / count as f64)
        });
        let peers: Vec<_> = peers.collect();
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("crowd".into()).spawn({
            let shared = shared.clone();
            move || {
                // The thread that measures the neighbours must not wait for this one.
                setpriority_process(None, NICENESS)?;
                run(peers, &shared)
            }
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Number of peers that reached their position.
    pub(super) fn settled(&self) -> usize {
        self.shared.settled.load(Ordering::Acquire)
    }

    /// Whether the crowd stopped because of an internal error.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Lets the holding peers continue.
    pub(super) fn release(&self) {
        self.shared.is_released.store(true, Ordering::Release);
    }

    /// Closes all connections.
    pub(super) fn end(mut self) -> Result<Sent> {
        self.shared.is_over.store(true, Ordering::Release);
        let thread = self.thread.take().context("a crowd ends once")?;
        match thread.join() {
            Ok(sent) => sent.context("a hostile peer could not go on"),
            Err(_) => anyhow::bail!("the thread of the crowd panicked"),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
    }
}

/// Visits each peer when it is due. Peers are independent, so they do not act in bursts.
fn run(mut peers: Vec<Peer>, shared: &Shared) -> io::Result<Sent> {
    let began_at = Instant::now();
    let openings = (0..peers.len()).map(|idx| Reverse((began_at + OPENING_INTERVAL * idx as u32, idx)));
    let mut agenda: BinaryHeap<_> = openings.collect();
    while let Some(mut next) = agenda.peek_mut()
        && !shared.is_over.load(Ordering::Acquire)
    {
        let Reverse((due, idx)) = *next;
        let now = Instant::now();
        if due > now {
            drop(next);
            thread::sleep((due - now).min(NAP_MAX));
            continue;
        }
        let mood = match shared.is_released.load(Ordering::Acquire) {
            false => Mood::Hold,
            true => Mood::Released,
        };
        let peer = &mut peers[idx];
        let was_settled = peer.is_settled;
        peer.visit(now, mood)?;
        let is_newly_settled = peer.is_settled && !was_settled;
        shared.settled.fetch_add(is_newly_settled.into(), Ordering::Release);
        *next = Reverse((peer.due, idx));
    }
    Ok(peers.iter().fold(Sent::default(), |sum, peer| Sent {
        connections: sum.connections + peer.opened_total,
        bytes: sum.bytes + peer.sent_total,
    }))
}
