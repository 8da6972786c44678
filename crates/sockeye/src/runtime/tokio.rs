//! The services of tokio.

use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use sockeye_proto::Instant;
use tokio::task::{coop, unconstrained};
use tokio::time::Sleep;

/// The time from which the protocol's instants count: a day before the clock was first read. In tests with a paused clock
/// each runtime has a clock of its own. A clock that is behind the first one must not appear to stand still.
static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
const ORIGIN_OFFSET: Duration = Duration::from_secs(24 * 60 * 60);

/// Stands for "never": 30 years, which every clock can represent.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

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

fn to_tokio(instant: Instant) -> tokio::time::Instant {
    origin() + instant.since_origin()
}

/// The time at which a wait that begins now ends. The longest durations mean never.
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

/// The timer of a connection.
///
/// Most deadlines move later with each received byte. So the timer is set if it is not set yet, and set again for an earlier
/// deadline. For a later deadline it is left to expire early, and is set again then.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// The waker registered with `sleep`. While it wakes the polling task, `sleep` need not be polled.
    waker: Option<Waker>,
}

impl Timer {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let at = to_tokio(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
            self.waker = None;
        }
        loop {
            let is_registered = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if is_registered && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            self.waker = Some(cx.waker().clone());
            ready!(sleep.as_mut().poll(cx));
            self.waker = None;
            if now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}
