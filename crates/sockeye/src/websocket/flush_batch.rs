//! One task that flushes many connections.
//!
//! A broadcast queues a message on every connection at the same moment. Waking every connection's task only to write would
//! cost as much as all other user-space work per delivery. Instead each connection is added to a batch of the current thread,
//! and one task writes for the whole batch, once the broadcasting task has yielded. Everything that was queued until then is
//! written together.
//!
//! That task is spawned on the runtime of the connections' own tasks. If it ends early, because the runtime shuts down or a
//! transport panics, the connections' tasks flush.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use crate::runtime::{Runtime, Spawner, SpawnerId};
use crate::websocket::batch::Batch;
use crate::websocket::shared::Shared;

/// The size of a batch. Each batch has its own task, so that other tasks run in between, and idle threads of the runtime can
/// take some of them.
const BATCH_LEN: usize = 64;

/// How many bytes the task writes before it yields: as much work as one part of a message that is being compressed.
const WORK_MAX: u64 = 1024 * 1024;

/// Connections that have something to write, all of one runtime.
#[derive(Clone)]
struct Open {
    runtime: SpawnerId,
    batch: Arc<Batch<Weak<Shared>>>,
}

thread_local! {
    /// The batch that this thread adds to.
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
}

/// A new batch whose task is not spawned yet.
#[derive(Debug)]
#[must_use = "a batch without a task is never written"]
pub(crate) struct NewBatch {
    runtime: Runtime,
    spawner: Spawner,
    batch: Arc<Batch<Weak<Shared>>>,
}

/// Adds a connection to a batch on the runtime of `spawner`. Returns the batch if it is a new one: the caller spawns its task
/// once the connection is unlocked.
#[inline]
pub(crate) fn schedule(connection: &Arc<Shared>, runtime: Runtime, spawner: &Spawner) -> Option<NewBatch> {
    let connection = Arc::downgrade(connection);
    OPEN.with_borrow_mut(|open| {
        let refused = match open {
            Some(open) if open.runtime == spawner.id() => open.batch.push(connection),
            _ => Err(connection),
        };
        let batch = Arc::new(Batch::new(refused.err()?, BATCH_LEN));
        *open = Some(Open {
            runtime: spawner.id(),
            batch: batch.clone(),
        });
        Some(NewBatch {
            runtime,
            spawner: spawner.clone(),
            batch,
        })
    })
}

impl NewBatch {
    pub(crate) fn spawn(self) {
        let task = FlushTask {
            runtime: self.runtime,
            batch: self.batch,
            rest: Vec::new(),
        };
        self.spawner.spawn(task.run());
    }
}

/// The task of a batch.
struct FlushTask {
    runtime: Runtime,
    batch: Arc<Batch<Weak<Shared>>>,
    /// The connections that are not flushed yet, in reverse order.
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
                // All others are flushed before it continues.
                self.rest.rotate_right(1);
            } else {
                self.rest.pop();
            }
            work += outcome.map_or(0, |outcome| outcome.work);
            if work >= WORK_MAX {
                work = 0;
                self.runtime.yield_now().await;
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
