//! Many hostile peers, on a thread of their own.

use std::{
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

use super::peer::{Mood, Peer, Script};

/// Between two rounds of visits. The visits that are due are spread over the rounds.
const ROUND: Duration = Duration::from_micros(500);

/// Connections opened in one round, well below what a listener lets wait.
const OPENED_PER_ROUND: usize = 50;

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

/// What a crowd sent in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) connections: u64,
    pub(super) bytes: u64,
}

impl Crowd {
    /// `count` peers, the scripts in turn.
    pub(super) fn start(address: SocketAddr, scripts: &[Arc<Script>], count: usize) -> Result<Self> {
        let peers = (0..count).map(|idx| {
            let script = scripts[idx % scripts.len()].clone();
            Peer::new(address, script, idx as f64 / count as f64)
        });
        let peers: Vec<_> = peers.collect();
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("crowd".into()).spawn({
            let shared = shared.clone();
            move || run(peers, &shared)
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// How many have been where they want to be.
    pub(super) fn settled(&self) -> usize {
        self.shared.settled.load(Ordering::Acquire)
    }

    /// Whether all peers are given up, because something is wrong with this program.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Lets those who hold go on.
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

fn run(mut peers: Vec<Peer>, shared: &Shared) -> io::Result<Sent> {
    let mut opened = 0;
    while !shared.is_over.load(Ordering::Acquire) {
        opened = peers.len().min(opened + OPENED_PER_ROUND);
        let mood = match shared.is_released.load(Ordering::Acquire) {
            false => Mood::Hold,
            true => Mood::Released,
        };
        let mut settled = 0;
        for peer in &mut peers[..opened] {
            let now = Instant::now();
            if peer.due <= now {
                peer.visit(now, mood)?;
            }
            settled += usize::from(peer.is_settled);
        }
        shared.settled.store(settled, Ordering::Release);
        thread::sleep(ROUND);
    }
    Ok(peers.iter().fold(Sent::default(), |sum, peer| Sent {
        connections: sum.connections + peer.opened_total,
        bytes: sum.bytes + peer.sent_total,
    }))
}
