//! The tasks of a server: how many run, and how to wake, close and abort them.
//!
//! A task is woken by the waker of its first poll: it is spawned, and its waker stays the same.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The values of [`Tasks::phase`].
const RUNNING: u8 = 0;
const CLOSING: u8 = 1;
const ABORTED: u8 = 2;

/// The tasks of a server.
#[derive(Debug)]
pub(crate) struct Tasks {
    phase: AtomicU8,
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    next_id: u64,
    /// `None` before the first poll of a task.
    wakers: HashMap<u64, Option<Waker>>,
    /// Woken when no task is left.
    idle: Option<Waker>,
}

impl Tasks {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(RUNNING),
            registry: Mutex::default(),
        })
    }

    /// Counts a new task, until it is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Task {
        let mut registry = self.registry();
        let id = registry.next_id;
        registry.next_id += 1;
        registry.wakers.insert(id, None);
        Task {
            tasks: self.clone(),
            id,
        }
    }

    /// Has every task close, and wakes it.
    pub(crate) fn close(&self) {
        self.change(CLOSING);
    }

    /// Has every task end without being polled further. Returns their number.
    pub(crate) fn abort(&self) -> usize {
        self.change(ABORTED)
    }

    /// Aborts all tasks when it is dropped.
    pub(crate) fn abort_on_drop(self: &Arc<Self>) -> AbortOnDrop {
        AbortOnDrop(self.clone())
    }

    /// Waits until every task has ended. One caller at a time.
    pub(crate) async fn wait_until_idle(&self) {
        poll_fn(|cx| {
            let mut registry = self.registry();
            if registry.wakers.is_empty() {
                return Poll::Ready(());
            }
            registry.idle = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn change(&self, phase: u8) -> usize {
        self.phase.store(phase, SeqCst);
        // A task that registers later sees the phase: it looks after it has registered.
        let wakers: Vec<_> = self.registry().wakers.values().cloned().collect();
        let count = wakers.len();
        wakers.into_iter().flatten().for_each(Waker::wake);
        count
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    tasks: Arc<Tasks>,
    id: u64,
}

impl Task {
    pub(crate) fn is_closing(&self) -> bool {
        self.tasks.phase.load(SeqCst) != RUNNING
    }

    /// Runs a future until it is ready, or until the tasks are to close: then it gives `None`.
    pub(crate) async fn run_until_closing<F: Future>(&self, future: F) -> Option<F::Output> {
        self.run_until(CLOSING, future).await
    }

    /// Runs a future until it is ready, or until the tasks are aborted: then it gives `None`. It is polled when the tasks are
    /// to close.
    pub(crate) async fn run<F: Future>(&self, future: F) -> Option<F::Output> {
        self.run_until(ABORTED, future).await
    }

    async fn run_until<F: Future>(&self, phase: u8, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut is_registered = false;
        poll_fn(|cx| {
            if !is_registered {
                is_registered = true;
                self.register(cx.waker());
            }
            if self.tasks.phase.load(SeqCst) >= phase {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    fn register(&self, waker: &Waker) {
        if let Some(registered) = self.tasks.registry().wakers.get_mut(&self.id) {
            *registered = Some(waker.clone());
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut registry = self.tasks.registry();
        let removed = registry.wakers.remove(&self.id);
        let idle = match registry.wakers.is_empty() {
            true => registry.idle.take(),
            false => None,
        };
        // Wakers run code of the runtime.
        drop(registry);
        drop(removed);
        if let Some(idle) = idle {
            idle.wake();
        }
    }
}

/// Aborts the tasks when the future that runs them is dropped.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(Arc<Tasks>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
