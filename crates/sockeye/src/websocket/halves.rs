//! Two tasks that use one unsplit connection through the traits `Stream` and `Sink`, as the halves of `StreamExt::split` of
//! `futures` do.
//!
//! Receiving may write, and writing may receive, so each direction of the transport has to wake both tasks.

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

    /// Polls the driver for one half, and registers its task if the result is pending.
    pub(crate) fn poll<R>(
        &mut self,
        half: Half,
        driver: &mut Driver,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let seen = self.wakers.seen();
        let before = driver.wake_state();
        let polled = poll(driver, &mut Context::from_waker(&self.waker));
        let key = match half {
            Half::Stream => &mut self.stream,
            Half::Sink => &mut self.sink,
        };
        // When the operation is ready its waker stays in its slot: another operation of the same task may wait there too.
        if polled.is_pending() && !self.wakers.register(key, cx.waker(), seen) {
            cx.waker().wake_by_ref();
        }
        if driver.wake_state().must_wake_since(before) {
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
