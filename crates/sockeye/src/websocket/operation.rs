//! The operations of a split connection that wait.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::endpoint::{Driver, WaiterId};
use crate::error::Error;
use crate::message::outbound::Outbound;
use crate::websocket::command_queue::NotQueued;
use crate::websocket::guard::ConnectionGuard;
use crate::websocket::shared::Shared;
use crate::websocket::try_lock::QueueMode;
use crate::websocket::wakers::SlotKey;

/// An operation of a sender, with the slot of its waker.
#[derive(Debug)]
pub(crate) struct Operation<'a> {
    shared: &'a Arc<Shared>,
    slot: SlotKey,
}

impl<'a> Operation<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self {
            shared,
            slot: SlotKey::operation(),
        }
    }

    /// Calls `work` once the connection is locked. The command queue is closed meanwhile: a message in it would be
    /// queued behind a close frame.
    pub(crate) async fn lock<R>(mut self, work: impl FnOnce(&mut ConnectionGuard<'_>) -> R) -> R {
        let mut work = Some(work);
        poll_fn(|cx| {
            let Self { shared, slot } = &mut self;
            shared.poll(slot, cx, QueueMode::Closed, needs_lock, |guard, _| match work.take() {
                Some(work) => Poll::Ready(work(guard)),
                None => Poll::Pending,
            })
        })
        .await
    }

    /// Like [`Shared::poll`]. Waits for the connection while another task holds it.
    pub(crate) fn poll<R>(
        &mut self,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        self.shared
            .poll(&mut self.slot, cx, QueueMode::Open, needs_lock, |guard, cx| {
                poll(&mut guard.driver, cx)
            })
    }

    /// Reads from the driver once the connection is locked.
    pub(crate) async fn get<R>(mut self, get: impl Fn(&Driver) -> R) -> R {
        poll_fn(|cx| self.poll(cx, |driver, _| Poll::Ready(get(driver)))).await
    }

    /// Waits until no message can be sent any more. Only that wakes the task.
    pub(crate) fn poll_closed(&mut self, cx: &Context<'_>) -> Poll<()> {
        loop {
            if let Some(guard) = self.shared.try_lock(QueueMode::Open) {
                if guard.driver.is_open() {
                    // Registered while holding the lock, so that the task that ends the connection later sees the
                    // waker.
                    self.shared.wakers.register_for_end(&mut self.slot, cx.waker());
                    return Poll::Pending;
                }
                drop(guard);
                self.shared.release(&mut self.slot);
                return Poll::Ready(());
            }
            if self.shared.wait_for_lock(&mut self.slot, cx) {
                return Poll::Pending;
            }
        }
    }

    /// Polls until a message is queued or added to the command queue.
    pub(crate) fn poll_queue(&mut self, cx: &Context<'_>, message: &Outbound) -> Poll<Result<(), Error>> {
        self.shared.poll_queue(&mut self.slot, cx, message)
    }

    /// Like [`poll_queue`](Self::poll_queue). `poll` queues the message if the connection is not locked.
    pub(crate) fn poll_queue_with(
        &mut self,
        cx: &Context<'_>,
        message: &Outbound,
        poll: impl FnOnce(&mut ConnectionGuard<'_>, &mut Context<'_>) -> Poll<Result<(), Error>>,
    ) -> Poll<Result<(), Error>> {
        let Self { shared, slot } = self;
        let enqueue = || shared.try_enqueue(message).map(Ok);
        shared.poll(slot, cx, shared.queue_mode_for(message), enqueue, poll)
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.shared.release(&mut self.slot);
    }
}

/// A task that waits for a reservation.
#[derive(Debug)]
pub(super) struct ReserveOperation<'a> {
    shared: &'a Arc<Shared>,
    slot: SlotKey,
    len: usize,
    /// Its place in the wait queue, while it waits.
    waiter: Option<WaiterId>,
}

impl<'a> ReserveOperation<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, len: usize) -> Self {
        Self {
            shared,
            slot: SlotKey::operation(),
            len,
            waiter: None,
        }
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let Self {
            shared,
            slot,
            len,
            waiter,
        } = self;
        shared.poll(slot, cx, QueueMode::Open, needs_lock, |guard, cx| {
            if ready!(guard.driver.poll_reserve(cx, waiter, *len))? {
                guard.wake_all();
            }
            Poll::Ready(Ok(()))
        })
    }
}

/// Leaves the wait queue.
impl Drop for ReserveOperation<'_> {
    fn drop(&mut self) {
        self.shared.release(&mut self.slot);
        if let Some(waiter) = self.waiter.take() {
            self.shared.cancel_reserve(waiter);
        }
    }
}

/// The `if_locked` argument for operations that the command queue cannot complete: see [`Shared::poll`].
pub(crate) fn needs_lock<R>() -> Result<R, NotQueued> {
    Err(NotQueued::NeedsLock)
}
