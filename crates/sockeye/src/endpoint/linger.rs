//! Finishes the closing handshake in a background task, after `recv` has reported the end or the connection was
//! dropped.
//!
//! After both close frames, no messages arrive, but closing TCP may take a while. A server has to read until the client
//! closes its side, for at most one second: closing a socket with unread input resets the connection, and the client
//! could lose the close frame. The background task does this so that the application does not wait.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use super::driver::Driver;
use crate::runtime::{Runtime, Spawner, Timer};

/// Maximum number of connections that finish in the background, per process. Beyond it, connections are closed
/// immediately, so that peers that connect and disconnect rapidly cannot accumulate sockets.
const COUNT_MAX: usize = 1024;

/// Maximum time in the background, including writing everything queued before the close frame. An application that
/// wants to give a slow peer longer has to await [`WebSocket::close`](crate::WebSocket::close).
const TIME_MAX: Duration = Duration::from_secs(60);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Counts one background connection while it exists.
struct CountGuard;

impl CountGuard {
    fn take() -> Option<Self> {
        let is_free = COUNT.fetch_add(1, Ordering::Relaxed) < COUNT_MAX;
        // If the limit is reached, dropping this reverts the count.
        let count_guard = Self;
        is_free.then_some(count_guard)
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A slot for one connection in the background.
pub(super) struct LingerSlot {
    runtime: Runtime,
    spawner: Spawner,
    count_guard: CountGuard,
}

/// Acquires a slot on the current runtime. `None` outside of a runtime, or if too many connections are finishing.
pub(super) fn try_acquire_slot(runtime: Runtime) -> Option<LingerSlot> {
    let spawner = runtime.spawner()?;
    let count_guard = CountGuard::take()?;
    Some(LingerSlot {
        runtime,
        spawner,
        count_guard,
    })
}

impl LingerSlot {
    /// Spawns the task that finishes the connection.
    pub(super) fn finish(self, mut driver: Driver) {
        let Self {
            runtime,
            spawner,
            count_guard,
        } = self;
        let deadline = runtime.now() + TIME_MAX;
        let mut timer = Timer::default();
        spawner.spawn(async move {
            poll_fn(|cx| match driver.poll_finish(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => timer.poll(runtime, cx, deadline),
            })
            .await;
            drop(driver);
            drop(count_guard);
        });
    }
}
