//! A deadline for futures, on any runtime.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use sockeye_proto::Instant;

use super::{Runtime, Timer};

/// A deadline for one or more waits, with one timer for all of them.
pub(crate) struct Deadline {
    runtime: Runtime,
    at: Instant,
    timer: Timer,
}

/// The deadline has passed.
#[derive(Debug)]
pub(crate) struct Elapsed;

impl Deadline {
    /// The deadline of waits that start now. A very long duration means never.
    pub(crate) fn after(runtime: Runtime, wait: Duration) -> Self {
        Self::at(runtime, runtime.deadline_after(wait))
    }

    pub(crate) fn at(runtime: Runtime, at: Instant) -> Self {
        Self {
            runtime,
            at,
            timer: Timer::default(),
        }
    }

    /// Moves the deadline to `wait` from now, unless it is earlier.
    pub(crate) fn shorten_to(&mut self, wait: Duration) {
        self.at = self.at.min(self.runtime.deadline_after(wait));
    }

    /// Awaits a future until the deadline. A future that is ready at once is not affected by a deadline that has
    /// passed.
    pub(crate) fn limit<F: Future>(&mut self, future: F) -> Limited<'_, F> {
        Limited { future, deadline: self }
    }
}

pin_project! {
    /// The future of [`Deadline::limit`].
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Limited<'a, F> {
        #[pin]
        future: F,
        deadline: &'a mut Deadline,
    }
}

impl<F: Future> Future for Limited<'_, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let Deadline { runtime, at, timer } = &mut **this.deadline;
        timer.poll(*runtime, cx, *at).map(|()| Err(Elapsed))
    }
}
