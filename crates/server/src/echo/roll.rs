//! The connections of one thread: whom to tell when the server stops, and whether anyone is left.
//!
//! Every connection keeps its place for as long as it lives. That costs it 16 bytes here and 16 in its task, where
//! waiting for a `tokio::sync::Notify` would take 64; and asking costs no more than an uncontended lock.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use sockeye_server::sync::lock;

/// The roll; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Roll(Arc<Shared>);

/// A place on the roll, given up when dropped.
#[derive(Debug)]
pub(super) struct Member {
    shared: Arc<Shared>,
    place: u32,
}

#[derive(Debug, Default)]
struct Shared {
    is_dismissed: AtomicBool,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// Who waits at each place.
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
    /// Who waits for all places to be free.
    awaiting_end: Option<Waker>,
}

impl Roll {
    /// Takes a place.
    pub(super) fn join(&self) -> Member {
        let mut places = self.0.places();
        let place = places.free.pop().unwrap_or_else(|| {
            places.wakers.push(None);
            // Connections are limited by descriptors, which are ints.
            (places.wakers.len() - 1) as u32
        });
        let shared = self.0.clone();
        Member { shared, place }
    }

    /// Tells all members, those to come too, that it is over.
    pub(super) fn dismiss(&self) {
        self.0.is_dismissed.store(true, Ordering::Release);
        let wakers: Vec<_> = self.0.places().wakers.iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until no member is left.
    pub(super) async fn empty(&self) {
        poll_fn(|cx| {
            let mut places = self.0.places();
            if places.free.len() == places.wakers.len() {
                return Poll::Ready(());
            }
            places.awaiting_end = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Member {
    /// Waits for the dismissal, in one task at a time. Cancel-safe.
    pub(super) async fn dismissed(&self) {
        poll_fn(|cx| self.poll_dismissed(cx)).await;
    }

    /// [`dismissed`](Self::dismissed) as a poll.
    pub(super) fn poll_dismissed(&self, cx: &Context<'_>) -> Poll<()> {
        if let Some(waker) = self.shared.places().wakers.get_mut(self.place as usize)
            && !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        // Asked after the waker is there: a dismissal in between is seen by one or the other.
        match self.shared.is_dismissed.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut places = self.shared.places();
        if let Some(waker) = places.wakers.get_mut(self.place as usize) {
            *waker = None;
        }
        places.free.push(self.place);
        if places.free.len() == places.wakers.len()
            && let Some(waker) = places.awaiting_end.take()
        {
            waker.wake();
        }
    }
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, Places> {
        lock(&self.places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dismissal_reaches_those_who_wait_and_those_who_come_later() {
        let roll = Roll::default();
        let waiting = roll.join();
        let waiting = tokio::spawn(async move { waiting.dismissed().await });
        tokio::task::yield_now().await;
        roll.dismiss();
        waiting.await.unwrap();
        roll.join().dismissed().await;
        roll.empty().await;
    }

    #[tokio::test]
    async fn it_is_empty_when_the_last_has_left() {
        let roll = Roll::default();
        roll.empty().await;
        let (first, second) = (roll.join(), roll.join());
        let (waiter, waiting) = (
            roll.clone(),
            tokio::spawn({
                let roll = roll.clone();
                async move { roll.empty().await }
            }),
        );
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
        waiter.empty().await;
    }

    #[test]
    fn places_are_used_again() {
        let roll = Roll::default();
        for _ in 0..100 {
            drop((roll.join(), roll.join()));
        }
        assert_eq!(roll.0.places().wakers.len(), 2);
    }
}
