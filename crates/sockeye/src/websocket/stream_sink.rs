//! Two tasks that use one unsplit connection as `Stream` and `Sink`, such as the halves of `futures`'
//! `StreamExt::split`.
//!
//! Receiving may write, and writing may receive. So the transport has to wake both tasks in each direction.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::endpoint::Driver;
use crate::websocket::wakers::{SlotKey, WakerSlots};

/// The wakers of the task that uses the stream and of the task that uses the sink.
pub(crate) struct StreamSinkWakers {
    wakers: Arc<WakerSlots>,
    /// Wakes both tasks.
    waker: Waker,
    stream: SlotKey,
    sink: SlotKey,
}

/// The trait through which a task uses the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsedAs {
    Stream,
    Sink,
}

impl StreamSinkWakers {
    pub(crate) fn new() -> Self {
        let wakers = Arc::new(WakerSlots::new());
        Self {
            waker: futures_task::waker(wakers.clone()),
            wakers,
            stream: SlotKey::receiver(),
            sink: SlotKey::operation(),
        }
    }

    /// A waker that wakes both tasks.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Polls the driver for one task, and registers it if the result is pending.
    pub(crate) fn poll<R>(
        &mut self,
        used_as: UsedAs,
        driver: &mut Driver,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let wake_count = self.wakers.wake_count();
        let before = driver.wake_flags();
        let polled = poll(driver, &mut Context::from_waker(&self.waker));
        let key = match used_as {
            UsedAs::Stream => &mut self.stream,
            UsedAs::Sink => &mut self.sink,
        };
        // A ready operation leaves the waker in the slot: another operation of the same task may depend on it.
        if polled.is_pending() && !self.wakers.register(key, cx.waker(), wake_count) {
            cx.waker().wake_by_ref();
        }
        if driver.wake_flags().must_wake_since(before) {
            self.wakers.wake_all();
        }
        polled
    }
}

impl fmt::Debug for StreamSinkWakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSinkWakers").finish_non_exhaustive()
    }
}
