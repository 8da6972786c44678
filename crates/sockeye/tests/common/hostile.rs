//! Wakers that never equal each other for `will_wake`, not even a waker and its clone. Some executors have such wakers.
#![allow(unsafe_code, reason = "`Wake` has no say in what a clone is")]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

/// Counts the wakers of one future.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    /// The number of live wakers.
    pub(crate) alive: AtomicUsize,
    /// The peak number of live wakers.
    pub(crate) alive_max: AtomicUsize,
    pub(crate) clones: AtomicUsize,
    pub(crate) wakes: AtomicUsize,
}

struct Relay {
    waker: Waker,
    wakers: Arc<Wakers>,
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_raw);

/// A waker whose clones `will_wake` neither it nor each other.
pub(crate) fn hostile(waker: Waker, wakers: Arc<Wakers>) -> Waker {
    // SAFETY: `raw` creates the data that the vtable expects: a box with a `Relay`, owned by this waker.
    unsafe { Waker::from_raw(raw(waker, wakers)) }
}

fn raw(waker: Waker, wakers: Arc<Wakers>) -> RawWaker {
    let alive = wakers.alive.fetch_add(1, Ordering::Relaxed) + 1;
    wakers.alive_max.fetch_max(alive, Ordering::Relaxed);
    let relay = Box::new(Relay { waker, wakers });
    RawWaker::new(Box::into_raw(relay).cast_const().cast(), &VTABLE)
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: created by `raw`, and not dropped yet.
    let relay = unsafe { &*data.cast::<Relay>() };
    relay.wakers.clones.fetch_add(1, Ordering::Relaxed);
    raw(relay.waker.clone(), relay.wakers.clone())
}

unsafe fn wake(data: *const ()) {
    // SAFETY: same contract as this function.
    unsafe { wake_by_ref(data) };
    // SAFETY: same contract as this function: `data` is not used any more.
    unsafe { drop_raw(data) };
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: created by `raw`, and not dropped yet.
    let relay = unsafe { &*data.cast::<Relay>() };
    relay.wakers.wakes.fetch_add(1, Ordering::Relaxed);
    relay.waker.wake_by_ref();
}

unsafe fn drop_raw(data: *const ()) {
    // SAFETY: created by `raw` from a box, and not used any more.
    let relay = unsafe { Box::from_raw(data.cast_mut().cast::<Relay>()) };
    relay.wakers.alive.fetch_sub(1, Ordering::Relaxed);
}

/// Polls a future with such wakers, a new one each time. Every third poll is repeated spuriously.
pub(crate) struct Hostile<F> {
    future: Pin<Box<F>>,
    polls: usize,
    wakers: Arc<Wakers>,
}

impl<F: Future> Hostile<F> {
    pub(crate) fn new(future: F, wakers: Arc<Wakers>) -> Self {
        Self {
            future: Box::pin(future),
            polls: 0,
            wakers,
        }
    }
}

impl<F: Future> Future for Hostile<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls += 1;
        let spurious = usize::from(self.polls.is_multiple_of(3));
        for _ in 0..=spurious {
            let waker = hostile(cx.waker().clone(), self.wakers.clone());
            if let Poll::Ready(output) = self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    }
}
