//! The runtime services implemented with tokio.

use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use sockeye_proto::Instant;
use tokio::task::{coop, unconstrained};
use tokio::time::Sleep;

use super::never::NEVER;

/// The origin of the protocol's instants: one day before the clock was first read. In tests with a paused clock, each
/// runtime has its own clock; the day keeps times of a clock that is behind the first one representable.
static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
const ORIGIN_OFFSET: Duration = Duration::from_secs(24 * 60 * 60);

fn origin() -> tokio::time::Instant {
    *ORIGIN.get_or_init(|| {
        let now = tokio::time::Instant::now();
        now.checked_sub(ORIGIN_OFFSET).unwrap_or(now)
    })
}

pub(super) fn now() -> Instant {
    let origin = origin();
    Instant::from_origin(tokio::time::Instant::now().saturating_duration_since(origin))
}

pub(super) fn to_tokio(instant: Instant) -> tokio::time::Instant {
    let origin = origin();
    origin
        .checked_add(instant.since_origin())
        .unwrap_or_else(|| origin + NEVER)
}

/// The deadline of a wait that starts now. Very long durations mean never.
pub(crate) fn deadline_after(wait: Duration) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}

/// Not `wake_by_ref`: the runtime would poll this task again before it polls for I/O.
pub(super) fn reschedule(cx: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

pub(super) fn poll_coop(cx: &mut Context<'_>) -> Poll<()> {
    coop::poll_proceed(cx).map(|restore| restore.made_progress())
}

pub(super) fn poll_unconstrained<R>(cx: &mut Context<'_>, future: impl Future<Output = R>) -> Poll<R> {
    pin!(unconstrained(future)).poll(cx)
}

pin_project! {
    /// The timer of a connection, once it is set.
    ///
    /// Most deadlines move later with each received byte. So the timer is only reset for an earlier deadline. For a
    /// later one it expires early, and is set again then.
    // At most 104 bytes: glibc then fits it into the gap that the alignment of tokio's task leaves beside each task,
    // and a connection costs some 180 bytes less. With the feature `rt-multi-thread`, tokio's `Sleep` alone has 112.
    pub(super) struct Timer {
        #[pin]
        sleep: Sleep,
        // The waker registered with `sleep`. While it wakes the polling task, `sleep` need not be polled. Boxed for the
        // size of this struct.
        waker: Option<Box<Waker>>,
    }
}

impl Timer {
    pub(super) fn new(deadline: Instant) -> Self {
        Self {
            sleep: tokio::time::sleep_until(to_tokio(deadline)),
            waker: None,
        }
    }

    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let at = to_tokio(deadline);
        let mut armed = self.project();
        if armed.sleep.deadline() > at {
            armed.sleep.as_mut().reset(at);
            *armed.waker = None;
        }
        loop {
            let is_registered = armed.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if is_registered && !armed.sleep.is_elapsed() {
                return Poll::Pending;
            }
            *armed.waker = Some(Box::new(cx.waker().clone()));
            ready!(armed.sleep.as_mut().poll(cx));
            *armed.waker = None;
            if now() >= deadline {
                return Poll::Ready(());
            }
            armed.sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armed_timer_adds_one_word_to_tokios() {
        // tokio's is larger in tests than the 96 bytes of a release build.
        assert_eq!(size_of::<Timer>(), size_of::<Sleep>() + size_of::<usize>());
    }
}
