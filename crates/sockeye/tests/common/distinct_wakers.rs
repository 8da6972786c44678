//! Counted wakers that never equal each other for `will_wake`, not even a waker and its clone.
#![allow(
    unsafe_code,
    reason = "wakers that are not equal to their clones cannot be made without"
)]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

/// Counts the polls and wakers of a future.
#[derive(Debug, Default)]
pub(crate) struct WakerCounts {
    pub(crate) polls: AtomicUsize,
    pub(crate) clones: AtomicUsize,
    pub(crate) wake_ups: AtomicUsize,
    /// The number of live wakers.
    pub(crate) live: AtomicUsize,
    /// The peak number of live wakers.
    pub(crate) live_max: AtomicUsize,
}

/// The data of a waker.
struct Counted {
    task: Waker,
    counts: Arc<WakerCounts>,
}

impl Counted {
    fn count_one_more(&self) {
        let live = self.counts.live.fetch_add(1, Relaxed) + 1;
        self.counts.live_max.fetch_max(live, Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.live.fetch_sub(1, Relaxed);
    }
}

/// A future that is polled with wakers that differ from their clones and from those of other polls, according to
/// [`Waker::will_wake`]. Its documentation allows that, and tokio's wakers do it if a program contains a vtable twice.
pub(crate) struct DistinctWakers<F> {
    future: Pin<Box<F>>,
    counts: Arc<WakerCounts>,
    has_spurious_polls: bool,
}

impl<F: Future> DistinctWakers<F> {
    pub(crate) fn new(future: F, counts: Arc<WakerCounts>) -> Self {
        Self {
            future: Box::pin(future),
            counts,
            has_spurious_polls: false,
        }
    }

    /// Polls again, without a wake-up, after every third poll.
    pub(crate) fn with_spurious_polls(mut self) -> Self {
        self.has_spurious_polls = true;
        self
    }

    fn poll_once(&mut self, cx: &Context<'_>) -> Poll<F::Output> {
        let waker = new_waker(cx.waker(), &self.counts);
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl<F: Future> Future for DistinctWakers<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polls = self.counts.polls.fetch_add(1, Relaxed) + 1;
        let mut polled = self.poll_once(cx);
        if polled.is_pending() && self.has_spurious_polls && polls.is_multiple_of(3) {
            polled = self.poll_once(cx);
        }
        polled
    }
}

/// Each waker owns its own box, so no two have the same data.
fn new_waker(task: &Waker, counts: &Arc<WakerCounts>) -> Waker {
    let counted = Counted {
        task: task.clone(),
        counts: counts.clone(),
    };
    counted.count_one_more();
    let data = Box::into_raw(Box::new(counted));
    // SAFETY: the functions of the vtable treat the data as the box that it is, and its contents are `Send` and `Sync`.
    unsafe { Waker::from_raw(RawWaker::new(data.cast_const().cast(), &VTABLE)) }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, free);

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the cloned waker owns the box, and is borrowed.
    let counted = unsafe { &*data.cast::<Counted>() };
    counted.counts.clones.fetch_add(1, Relaxed);
    let waker = new_waker(&counted.task, &counted.counts);
    let raw = RawWaker::new(waker.data(), waker.vtable());
    std::mem::forget(waker);
    raw
}

unsafe fn wake(data: *const ()) {
    // SAFETY: as for `wake_by_ref`; the waker is consumed together with its box.
    unsafe {
        wake_by_ref(data);
        free(data);
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the waker owns the box, and is borrowed.
    let counted = unsafe { &*data.cast::<Counted>() };
    counted.counts.wake_ups.fetch_add(1, Relaxed);
    counted.task.wake_by_ref();
}

unsafe fn free(data: *const ()) {
    // SAFETY: the waker owned the box, which `new_waker` created, and is dropped.
    drop(unsafe { Box::from_raw(data.cast_mut().cast::<Counted>()) });
}
