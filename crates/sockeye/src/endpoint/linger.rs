//! Finishes the closing handshake in the background, after `recv` has reported the end or the connection was dropped.
//!
//! Once both close frames are exchanged, no more messages arrive, but the end of TCP may take a while. A server reads until
//! the client ends its side, for at most a second: if a socket is closed with unread input, TCP discards what was sent last,
//! here the close frame. A background task does this, so that the application does not wait.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use super::driver::Driver;
use crate::runtime::{Runtime, Spawner};

/// How many connections of the process may finish in the background at once. Beyond this, connections are closed at once:
/// peers that open and close connections as fast as they can do not accumulate sockets.
const COUNT_MAX: usize = 1024;

/// How long a connection may take in the background, including everything queued before its close frame. To give a slow peer
/// longer, the application waits for [`WebSocket::close`](crate::WebSocket::close) itself.
const TIME_MAX: Duration = Duration::from_secs(60);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// One of [`COUNT_MAX`].
struct Permit;

impl Permit {
    fn take() -> Option<Self> {
        let is_free = COUNT.fetch_add(1, Ordering::Relaxed) < COUNT_MAX;
        // If there was none, dropping this reverts the count.
        let permit = Self;
        is_free.then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to finish one connection in a background task.
pub(super) struct LingerSlot {
    runtime: Runtime,
    spawner: Spawner,
    permit: Permit,
}

/// Reserves a slot on the current runtime. `None` outside of a runtime, and if too many connections are finishing already.
pub(super) fn try_reserve(runtime: Runtime) -> Option<LingerSlot> {
    let spawner = runtime.spawner()?;
    let permit = Permit::take()?;
    Some(LingerSlot {
        runtime,
        spawner,
        permit,
    })
}

impl LingerSlot {
    /// Spawns a task that finishes the connection.
    pub(super) fn finish(self, mut driver: Driver) {
        let Self {
            runtime,
            spawner,
            permit,
        } = self;
        let deadline = runtime.now() + TIME_MAX;
        let mut timer = runtime.timer();
        spawner.spawn(async move {
            poll_fn(|cx| match driver.poll_finish(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => timer.poll(cx, deadline),
            })
            .await;
            drop(driver);
            drop(permit);
        });
    }
}
