//! Writes for many connections in one task.
//!
//! A broadcast queues a message on every connection at the same moment. Waking every connection's task just to write costs
//! as much as all other user-space work per delivery. Instead each connection is added to a batch of the current thread,
//! and one task writes for the whole batch, once the broadcasting task has yielded: all that was queued until then leaves
//! together.
//!
//! That task is spawned on the runtime of the connections' own tasks. If it ends early, because the runtime shuts down or a
//! transport panics, the connections' tasks flush.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use tokio::runtime::{Handle, Id};
use tokio::task::yield_now;

use crate::websocket::batch::Batch;
use crate::websocket::shared::Shared;

/// The size of a batch. Each has its own task, so that other tasks run in between, and idle threads of the runtime can
/// take some.
const BATCH_LEN: usize = 64;

/// How much is written before the task yields, in bytes: as much as one part of a message that is being compressed.
const WORK_MAX: u64 = 1024 * 1024;

/// Connections that have something to write, all of one runtime.
#[derive(Clone)]
struct Open {
    runtime: Id,
    batch: Arc<Batch<Weak<Shared>>>,
}

thread_local! {
    /// The batch that this thread adds to.
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
}

/// A new batch, whose task has to be spawned.
#[derive(Debug)]
#[must_use = "a batch without a task is never written"]
pub(crate) struct NewBatch {
    runtime: Handle,
    batch: Arc<Batch<Weak<Shared>>>,
}

/// Adds a connection to a batch of `runtime`. If that is a new one, returns it: its task is to be spawned once the
/// connection is free.
#[inline]
pub(crate) fn schedule(connection: &Arc<Shared>, runtime: &Handle) -> Option<NewBatch> {
    let connection = Arc::downgrade(connection);
    OPEN.with_borrow_mut(|open| {
        let refused = match open {
            Some(open) if open.runtime == runtime.id() => open.batch.push(connection),
            _ => Err(connection),
        };
        let batch = Arc::new(Batch::new(refused.err()?, BATCH_LEN));
        *open = Some(Open {
            runtime: runtime.id(),
            batch: batch.clone(),
        });
        Some(NewBatch {
            runtime: runtime.clone(),
            batch,
        })
    })
}

impl NewBatch {
    pub(crate) fn spawn(self) {
        let task = FlushTask {
            batch: self.batch,
            rest: Vec::new(),
        };
        self.runtime.spawn(task.run());
    }
}

/// The task of a batch.
struct FlushTask {
    batch: Arc<Batch<Weak<Shared>>>,
    /// What is still to be written, last first.
    rest: Vec<Weak<Shared>>,
}

impl FlushTask {
    async fn run(mut self) {
        self.rest = self.batch.take();
        self.rest.reverse();
        let mut work = 0;
        while let Some(connection) = self.rest.last() {
            let outcome = connection.upgrade().map(|connection| connection.flush_queued());
            if outcome.as_ref().is_some_and(|outcome| outcome.is_unfinished) {
                // All others come before it does again.
                self.rest.rotate_right(1);
            } else {
                self.rest.pop();
            }
            work += outcome.map_or(0, |outcome| outcome.work);
            if work >= WORK_MAX {
                work = 0;
                yield_now().await;
            }
        }
    }
}

/// The runtime shuts down, or a transport panicked.
impl Drop for FlushTask {
    fn drop(&mut self) {
        let left = self.batch.take();
        let left = self.rest.drain(..).chain(left);
        left.filter_map(|connection| connection.upgrade())
            .for_each(|connection| connection.delegate_flush());
    }
}
