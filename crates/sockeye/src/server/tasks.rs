//! The tasks of a server: counts them, wakes, closes and aborts them.
//!
//! Not tokio-util's `TaskTracker` and `CancellationToken`: waiting for a token adds a wait node to the future of every
//! connection, which then no longer fits into the size class of its task.
//!
//! A task is woken by the waker of its first poll. That suffices because the tasks are spawned: their wakers stay
//! valid.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::timeout;

use crate::sync::lock;

/// How long a shutdown waits for aborted tasks to end. A task that blocks its thread cannot be aborted.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// The values of [`ConnectionTasks::phase`].
const RUNNING: u8 = 0;
const CLOSING: u8 = 1;
const ABORTED: u8 = 2;

/// Counts the tasks of a server, and closes or aborts them.
#[derive(Debug)]
pub(crate) struct ConnectionTasks {
    phase: AtomicU8,
    registry: Mutex<Registry>,
}

/// Not a map or a slab, whose entries would be larger.
#[derive(Debug, Default)]
struct Registry {
    /// The wakers of tasks by id. `None` before the first poll of a task, and for ids that are not in use.
    wakers: Vec<Option<Waker>>,
    /// The ids that are not in use.
    free: Vec<u32>,
    /// Woken when no task is left: one for each caller of `wait_until_idle`.
    idle_wakers: Vec<Waker>,
}

impl Registry {
    /// The number of tasks.
    fn len(&self) -> usize {
        self.wakers.len() - self.free.len()
    }

    fn add(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            // Memory for so many tasks does not exist.
            (self.wakers.len() - 1) as u32
        })
    }

    /// Ends a registration. Returns its waker.
    fn remove(&mut self, id: u32) -> Option<Waker> {
        let waker = self.wakers[id as usize].take();
        self.free.push(id);
        if self.len() == 0 {
            self.wakers = Vec::new();
            self.free = Vec::new();
        }
        waker
    }
}

impl ConnectionTasks {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(RUNNING),
            registry: Mutex::default(),
        })
    }

    /// Registers a new task. Dropping the token ends the registration.
    pub(crate) fn track(self: &Arc<Self>) -> TaskToken {
        let id = self.registry().add();
        TaskToken {
            tasks: self.clone(),
            id,
            is_registered: false,
        }
    }

    /// The number of tasks.
    #[cfg(feature = "hyper")]
    pub(crate) fn count(&self) -> usize {
        self.registry().len()
    }

    /// Asks every task to close, and wakes it.
    fn close(&self) {
        self.set_phase(CLOSING);
    }

    /// Ends every task without polling it further. Returns the number of tasks.
    fn abort(&self) -> usize {
        self.set_phase(ABORTED)
    }

    /// Returns a guard that aborts all tasks when it is dropped.
    pub(crate) fn abort_on_drop(self: &Arc<Self>) -> AbortOnDrop {
        AbortOnDrop(self.clone())
    }

    /// Waits until every task has ended.
    async fn wait_until_idle(&self) {
        poll_fn(|cx| {
            let mut registry = self.registry();
            if registry.len() == 0 {
                return Poll::Ready(());
            }
            if !registry.idle_wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                registry.idle_wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Asks every task to close, and aborts those that have not ended at the deadline. Returns their number.
    pub(crate) async fn shut_down(&self, deadline: Duration) -> usize {
        self.close();
        if timeout(deadline, self.wait_until_idle()).await.is_ok() {
            return 0;
        }
        let aborted = self.abort();
        let _ = timeout(ABORT_TIMEOUT, self.wait_until_idle()).await;
        aborted
    }

    fn set_phase(&self, phase: u8) -> usize {
        self.phase.fetch_max(phase, SeqCst);
        // A task that registers later sees the phase, because it checks it after registering.
        let (count, wakers) = {
            let registry = self.registry();
            let wakers: Vec<_> = registry.wakers.iter().flatten().cloned().collect();
            (registry.len(), wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        count
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }
}

/// The registration of one task.
#[derive(Debug)]
pub(crate) struct TaskToken {
    tasks: Arc<ConnectionTasks>,
    id: u32,
    /// Whether the waker of this task is registered.
    is_registered: bool,
}

impl TaskToken {
    pub(crate) fn is_closing(&self) -> bool {
        self.tasks.phase.load(SeqCst) != RUNNING
    }

    /// Runs a future until it is ready. Returns `None` once the tasks are asked to close.
    pub(crate) async fn run_until_closing<F: Future + Unpin>(&mut self, mut future: F) -> Option<F::Output> {
        poll_fn(|cx| self.poll_until(CLOSING, Pin::new(&mut future), cx)).await
    }

    /// Runs a future until it is ready. Returns `None` once the tasks are aborted. When the tasks are asked to close,
    /// the future is polled once more, so that it can react.
    pub(crate) async fn run_until_aborted<F: Future + Unpin>(&mut self, mut future: F) -> Option<F::Output> {
        poll_fn(|cx| self.poll_until_aborted(Pin::new(&mut future), cx)).await
    }

    /// The poll function of [`run_until_aborted`](Self::run_until_aborted).
    pub(crate) fn poll_until_aborted<F: Future>(
        &mut self,
        future: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<F::Output>> {
        self.poll_until(ABORTED, future, cx)
    }

    fn poll_until<F: Future>(
        &mut self,
        phase: u8,
        future: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<F::Output>> {
        if !self.is_registered {
            self.is_registered = true;
            self.register(cx.waker());
        }
        if self.tasks.phase.load(SeqCst) >= phase {
            return Poll::Ready(None);
        }
        future.poll(cx).map(Some)
    }

    fn register(&self, waker: &Waker) {
        let replaced = self.tasks.registry().wakers[self.id as usize].replace(waker.clone());
        // Dropping a waker runs code of the runtime, so the registry is unlocked before.
        drop(replaced);
    }

    /// Moves the registration to another task of the runtime, which registers its own waker when it is first polled.
    pub(crate) fn transfer(mut self) -> Self {
        self.is_registered = false;
        self
    }
}

impl Drop for TaskToken {
    fn drop(&mut self) {
        let mut registry = self.tasks.registry();
        let removed = registry.remove(self.id);
        let idle_wakers = match registry.len() == 0 {
            true => std::mem::take(&mut registry.idle_wakers),
            false => vec![],
        };
        // Dropping a waker runs code of the runtime, so unlock first.
        drop(registry);
        drop(removed);
        idle_wakers.into_iter().for_each(Waker::wake);
    }
}

/// Aborts the tasks when the future that runs them is dropped.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(Arc<ConnectionTasks>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
