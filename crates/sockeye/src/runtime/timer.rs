//! The one timer of a connection.
//!
//! Most deadlines move later with each byte. So the timer is set when there is none and for an earlier deadline; for a
//! later one it is left to go off too early, and is set again then.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use sockeye_proto::Instant;
use tokio::time::Sleep;

use super::clock;

#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom `sleep` wakes. While that is the waiting task, it need not be polled.
    waker: Option<Waker>,
}

impl Timer {
    /// Ready when the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let at = clock::to_tokio(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
            self.waker = None;
        }
        loop {
            let wakes_us = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if wakes_us && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            self.waker = Some(cx.waker().clone());
            ready!(sleep.as_mut().poll(cx));
            self.waker = None;
            if clock::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}
