//! Finishes closing in the background, once `recv` has reported the end or the connection was dropped.
//!
//! Once the close frames are exchanged nothing more comes for the application, but the end of TCP may take a while:
//! the server reads until the client ends its side, for at most a second, because closing a socket with unread input
//! makes TCP throw away what was sent last, here the close frame. This is done in the background so that the
//! application does not wait.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::driver::Driver;

/// How many connections of the process may finish in the background at once. Beyond it they are closed at once: peers
/// that open and close connections as fast as they can do not pile up sockets.
const COUNT_MAX: usize = 1024;

/// How long a connection may take in the background, with all that was queued before its close frame. To give a slow peer
/// longer, the application waits for [`WebSocket::close`](crate::WebSocket::close) itself.
const TIME_MAX: Duration = Duration::from_secs(60);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// One of [`COUNT_MAX`].
struct Permit;

impl Permit {
    fn take() -> Option<Self> {
        let is_free = COUNT.fetch_add(1, Ordering::Relaxed) < COUNT_MAX;
        // Counts down again if there was none.
        let permit = Self;
        is_free.then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a connection can finish closing.
pub(super) struct LingerSlot {
    runtime: Handle,
    permit: Permit,
}

/// A place on the current runtime. `None` outside of one, and where too many connections are finishing already.
pub(super) fn try_reserve() -> Option<LingerSlot> {
    let runtime = Handle::try_current().ok()?;
    let permit = Permit::take()?;
    Some(LingerSlot { runtime, permit })
}

impl LingerSlot {
    /// Finishes closing in a task.
    pub(super) fn finish(self, mut driver: Driver) {
        let Self { runtime, permit } = self;
        runtime.spawn(async move {
            let _ = timeout(TIME_MAX, poll_fn(|cx| driver.poll_finish(cx))).await;
            drop(driver);
            drop(permit);
        });
    }
}
