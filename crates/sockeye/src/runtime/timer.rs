//! The one timer of a connection.
//!
//! Most deadlines move later with each byte. So the timer is set when there is none and for an earlier deadline; for a
//! later one it is left to go off too early, and is set again then.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;
use sockeye_proto::Instant;
use tokio::time::Sleep;

use super::clock;

/// A word, because the timer is a part of every task that owns a connection, and such tasks come in steps of 128 bytes.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Armed>>>);

pin_project! {
    #[derive(Debug)]
    struct Armed {
        #[pin]
        sleep: Sleep,
        // The waker of the task that `sleep` wakes. While that is the waiting task, it need not be polled.
        waker: Option<Waker>,
    }
}

impl Timer {
    /// Ready when the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let at = clock::to_tokio(deadline);
        let armed = self.0.get_or_insert_with(|| {
            Box::pin(Armed {
                sleep: tokio::time::sleep_until(at),
                waker: None,
            })
        });
        let mut armed = armed.as_mut().project();
        if armed.sleep.deadline() > at {
            armed.sleep.as_mut().reset(at);
            *armed.waker = None;
        }
        loop {
            let wakes_us = armed.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if wakes_us && !armed.sleep.is_elapsed() {
                return Poll::Pending;
            }
            *armed.waker = Some(cx.waker().clone());
            ready!(armed.sleep.as_mut().poll(cx));
            *armed.waker = None;
            if clock::now() >= deadline {
                return Poll::Ready(());
            }
            armed.sleep.as_mut().reset(at);
        }
    }
}
