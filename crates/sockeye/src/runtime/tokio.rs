//! The runtime services implemented with tokio.

use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

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

/// Ready once `sleep` has passed the deadline, which may change between calls.
///
/// Most deadlines move later with each received byte. So `sleep` is only reset for an earlier deadline. For a later one
/// it expires early, and is set again then. While the waker that is registered with it, `registered`, wakes the polling
/// task, `sleep` need not be polled.
pub(super) fn poll_sleep(
    mut sleep: Pin<&mut Sleep>,
    registered: &mut Option<Box<Waker>>,
    cx: &mut Context<'_>,
    deadline: Instant,
) -> Poll<()> {
    let at = to_tokio(deadline);
    if sleep.deadline() > at {
        sleep.as_mut().reset(at);
        *registered = None;
    }
    loop {
        let is_registered = registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_registered && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        *registered = Some(Box::new(cx.waker().clone()));
        ready!(sleep.as_mut().poll(cx));
        *registered = None;
        if now() >= deadline {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(at);
    }
}

/// A sleep until the deadline.
pub(super) fn sleep_until(deadline: Instant) -> Sleep {
    tokio::time::sleep_until(to_tokio(deadline))
}
