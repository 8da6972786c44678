//! Which processor does what: peers are other machines, and take nothing of the server's processor.

use std::{sync::LazyLock, thread};

use anyhow::Result;

use crate::process::on_cpu;

/// Whether there is more than one processor for this program; asked before it gives itself one.
static MAY_CHOOSE: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|processors| processors.get() > 1));

/// Runs what starts a server.
pub(super) fn of_servers<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    on(0, body)
}

/// Runs what is the peers' and their neighbours'.
pub(super) fn of_peers<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    on(1, body)
}

fn on<T>(cpu: usize, body: impl FnOnce() -> Result<T>) -> Result<T> {
    if *MAY_CHOOSE { on_cpu(cpu, body) } else { body() }
}
