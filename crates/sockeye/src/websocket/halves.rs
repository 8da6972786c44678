//! Two tasks that use one unsplit connection through the traits `Stream` and `Sink`.
//!
//! That is what the halves of futures' `StreamExt::split` do. To receive may write, and to write may receive, so each
//! direction of the transport has to wake both tasks.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::endpoint::Driver;
use crate::websocket::wakers::{SlotKey, WakerSlots};

/// The wakers of the task that uses the connection as a stream, and of the one that uses it as a sink.
pub(crate) struct Halves {
    wakers: Arc<WakerSlots>,
    /// Wakes both.
    waker: Waker,
    stream: SlotKey,
    sink: SlotKey,
}

/// Which trait a task uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Stream,
    Sink,
}

impl Halves {
    pub(crate) fn new() -> Self {
        let wakers = Arc::new(WakerSlots::new());
        Self {
            waker: futures_task::waker(wakers.clone()),
            wakers,
            stream: SlotKey::receiver(),
            sink: SlotKey::operation(),
        }
    }

    /// Wakes both.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Polls the driver for one half, and registers its task if that is pending.
    pub(crate) fn poll<R>(
        &mut self,
        half: Half,
        driver: &mut Driver,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let seen = self.wakers.seen();
        let state = |driver: &Driver| (driver.is_open(), driver.is_lost(), driver.has_transport());
        let (state_before, had_read_ahead) = (state(driver), driver.has_read_ahead());
        let polled = poll(driver, &mut Context::from_waker(&self.waker));
        let key = match half {
            Half::Stream => &mut self.stream,
            Half::Sink => &mut self.sink,
        };
        // A waker stays in its slot when its operation is ready: another operation of the same task may wait there too.
        if polled.is_pending() && !self.wakers.register(key, cx.waker(), seen) {
            cx.waker().wake_by_ref();
        }
        let has_received = !had_read_ahead && driver.has_read_ahead();
        if state_before != state(driver) || has_received {
            // The other waits with an earlier state's deadline, for a transport that may be gone, or for messages that were
            // received ahead.
            self.wakers.wake_all();
        }
        polled
    }
}

impl fmt::Debug for Halves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Halves").finish_non_exhaustive()
    }
}
