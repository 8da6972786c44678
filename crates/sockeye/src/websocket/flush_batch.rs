//! One task that flushes many connections.
//!
//! A broadcast queues a message on every connection at once. Waking every connection's task just to write would cost as
//! much as all other user-space work per delivery. Instead, each connection is added to a batch of the current thread,
//! and one task writes for the whole batch after the broadcasting task has yielded. Everything queued until then is
//! written together.
//!
//! The task is spawned on the runtime of the connections' own tasks. If it ends early, because the runtime shuts down
//! or a transport panics, the connections' tasks flush instead.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use crate::runtime::{Runtime, Spawner, SpawnerId};
use crate::websocket::batch::Batch;
use crate::websocket::shared::Shared;

/// Maximum number of connections in a batch. Each batch has its own task, so that other tasks run in between and idle
/// threads of the runtime can take over some batches.
const BATCH_LEN: usize = 64;

/// Number of bytes that the task writes before it yields: as much work as compressing one part of a message.
const WORK_MAX: u64 = 1024 * 1024;

/// A batch of connections of one runtime that can still be added to.
#[derive(Clone)]
struct OpenBatch {
    runtime: SpawnerId,
    batch: Arc<Batch<Weak<Shared>>>,
}

thread_local! {
    /// The batch that this thread adds to.
    static OPEN_BATCH: RefCell<Option<OpenBatch>> = const { RefCell::new(None) };
}

/// A new batch whose task is not spawned yet.
#[derive(Debug)]
#[must_use = "a batch without a task is never written"]
pub(crate) struct NewBatch {
    runtime: Runtime,
    spawner: Spawner,
    batch: Arc<Batch<Weak<Shared>>>,
}

/// Adds a connection to a batch on the runtime of `spawner`. Returns the batch if it is new: the caller has to spawn
/// its task once the connection is unlocked.
#[inline]
pub(crate) fn schedule(connection: &Arc<Shared>, runtime: Runtime, spawner: &Spawner) -> Option<NewBatch> {
    let connection = Arc::downgrade(connection);
    OPEN_BATCH.with_borrow_mut(|open| {
        let rejected = match open {
            Some(open) if open.runtime == spawner.id() => open.batch.push(connection),
            _ => Err(connection),
        };
        let batch = Arc::new(Batch::new(rejected.err()?, BATCH_LEN));
        *open = Some(OpenBatch {
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
                // Flush all others before continuing with this one.
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

/// Runs early if the runtime shuts down or a transport panics.
impl Drop for FlushTask {
    fn drop(&mut self) {
        let left = self.batch.take();
        let left = self.rest.drain(..).chain(left);
        left.filter_map(|connection| connection.upgrade())
            .for_each(|connection| connection.delegate_flush());
    }
}
