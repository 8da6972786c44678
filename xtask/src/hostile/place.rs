//! Processor placement: peers would be other machines, so they must not use the server's processor.

use std::sync::LazyLock;

use anyhow::Result;
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::process::on_cpu;

/// The first two processors that this program may use, queried before it pins itself.
static PROCESSORS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let all = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).take(2).collect()
});

/// Runs a closure that starts a server.
pub(super) fn of_servers<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    on(0, body)
}

/// Runs a closure that starts peers or neighbours.
pub(super) fn of_peers<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    on(1, body)
}

fn on<T>(idx: usize, body: impl FnOnce() -> Result<T>) -> Result<T> {
    match PROCESSORS[..] {
        [server, peers] => on_cpu([server, peers][idx], body),
        // With one processor they share it.
        _ => body(),
    }
}
