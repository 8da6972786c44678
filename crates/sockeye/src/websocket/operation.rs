//! The operations of a split connection that wait.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::endpoint::{Driver, Ticket};
use crate::error::Error;
use crate::message::outbound::Outbound;
use crate::stats::Stats;
use crate::websocket::guard::ConnectionGuard;
use crate::websocket::inbox::NotQueued;
use crate::websocket::shared::Shared;
use crate::websocket::try_lock::InboxMode;
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

    /// Calls `work` once the connection is locked. The inbox is closed meanwhile: a message in it would be queued
    /// behind a close frame.
    pub(crate) async fn lock<R>(mut self, work: impl FnOnce(&mut ConnectionGuard<'_>) -> R) -> R {
        let mut work = Some(work);
        poll_fn(|cx| {
            let Self { shared, slot } = &mut self;
            shared.poll(slot, cx, InboxMode::Closed, wait_for_lock, |guard, _| {
                match work.take() {
                    Some(work) => Poll::Ready(work(guard)),
                    None => Poll::Pending,
                }
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
            .poll(&mut self.slot, cx, InboxMode::Open, wait_for_lock, |guard, cx| {
                poll(&mut guard.driver, cx)
            })
    }

    pub(crate) async fn stats(mut self) -> Stats {
        poll_fn(|cx| self.poll(cx, |driver, _| Poll::Ready(driver.stats()))).await
    }

    /// Waits until no message can be sent any more. Only that wakes the task.
    pub(crate) fn poll_closed(&mut self, cx: &Context<'_>) -> Poll<()> {
        loop {
            if let Some(guard) = self.shared.try_lock(InboxMode::Open) {
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

    /// Polls until a message is queued or added to the inbox.
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
        shared.poll(slot, cx, shared.inbox_mode_for(message), enqueue, poll)
    }
}

/// A task that waits for a reservation.
#[derive(Debug)]
pub(super) struct Reserve<'a> {
    shared: &'a Arc<Shared>,
    slot: SlotKey,
    len: usize,
    /// Its place in the line, while it waits.
    ticket: Option<Ticket>,
}

impl<'a> Reserve<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, len: usize) -> Self {
        Self {
            shared,
            slot: SlotKey::operation(),
            len,
            ticket: None,
        }
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let Self {
            shared,
            slot,
            len,
            ticket,
        } = self;
        shared.poll(slot, cx, InboxMode::Open, wait_for_lock, |guard, cx| {
            if ready!(guard.driver.poll_reserve(cx, ticket, *len))? {
                guard.wake_all();
            }
            Poll::Ready(Ok(()))
        })
    }
}

/// Leaves the line.
impl Drop for Reserve<'_> {
    fn drop(&mut self) {
        self.shared.release(&mut self.slot);
        if let Some(ticket) = self.ticket.take() {
            self.shared.leave_line(ticket);
        }
    }
}

/// The `if_locked` of operations that need the lock: see [`Shared::poll`].
pub(crate) fn wait_for_lock<R>() -> Result<R, NotQueued> {
    Err(NotQueued::Full)
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.shared.release(&mut self.slot);
    }
}
