//! Writes for many connections in one task.
//!
//! A broadcast queues something on every connection at the same moment. To wake the task of each, so that it finds its
//! way back to its connection and writes, costs as much as all else that is done for a delivery outside of the kernel.
//! So the connections go on a list of the thread, and one task writes for all that are on it, once the task that
//! queues has let others run: whatever it queued until then leaves together.
//!
//! The writing task runs where the connections' own tasks do, on their runtime: where it cannot run, they cannot
//! either. If it ends early, for its runtime does, the connections are left to their tasks.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, Weak};

use tokio::runtime::{Handle, Id};
use tokio::task::yield_now;

use crate::lock::lock;
use crate::split::Shared;

/// How many connections a list holds. Each list has a task of its own, so that others get their turn in between, and
/// idle threads of the runtime their share.
const LIST_LEN: usize = 64;

/// How much is done before others get their turn, in bytes: one part of a message that is being compressed is as much.
const TURN_MAX: u64 = 1024 * 1024;

/// Connections that have something to write, all of one runtime.
#[derive(Debug)]
struct List {
    runtime: Id,
    /// `None` once they are being written for.
    connections: Mutex<Option<Vec<Weak<Shared>>>>,
}

thread_local! {
    /// The list that this thread fills.
    static FILLING: RefCell<Option<Arc<List>>> = const { RefCell::new(None) };
}

/// A list that was begun, whose task is still to be spawned.
#[must_use = "a list without a task is never written"]
pub(crate) struct Begun {
    runtime: Handle,
    list: Arc<List>,
}

/// Has a task of `runtime` write what is queued on a connection. A new list is returned, for its task is to be spawned
/// where nothing is locked.
#[inline]
pub(crate) fn enlist(connection: &Arc<Shared>, runtime: &Handle) -> Option<Begun> {
    let connection = Arc::downgrade(connection);
    FILLING.with_borrow_mut(|filling| {
        let refused = match filling {
            Some(list) if list.runtime == runtime.id() => list.push(connection),
            _ => Err(connection),
        };
        let list = Arc::new(List::begin(refused.err()?, runtime.id()));
        *filling = Some(list.clone());
        Some(Begun {
            runtime: runtime.clone(),
            list,
        })
    })
}

impl Begun {
    pub(crate) fn spawn(self) {
        let round = Round {
            list: self.list,
            rest: Vec::new(),
        };
        self.runtime.spawn(round.run());
    }
}

impl List {
    fn begin(connection: Weak<Shared>, runtime: Id) -> Self {
        let mut connections = Vec::with_capacity(LIST_LEN);
        connections.push(connection);
        Self {
            runtime,
            connections: Mutex::new(Some(connections)),
        }
    }

    /// Gives the connection back if the list is full, or being written.
    #[inline]
    fn push(&self, connection: Weak<Shared>) -> Result<(), Weak<Shared>> {
        match &mut *lock(&self.connections) {
            Some(connections) if connections.len() < LIST_LEN => {
                connections.push(connection);
                Ok(())
            }
            _ => Err(connection),
        }
    }

    fn take(&self) -> Vec<Weak<Shared>> {
        lock(&self.connections).take().unwrap_or_default()
    }
}

/// The task of a list.
struct Round {
    list: Arc<List>,
    /// What is still to be written, last first.
    rest: Vec<Weak<Shared>>,
}

impl Round {
    async fn run(mut self) {
        self.rest = self.list.take();
        self.rest.reverse();
        let mut done = 0;
        while let Some(connection) = self.rest.last() {
            let passed = connection.upgrade().map(|connection| connection.write_queued());
            if passed.as_ref().is_some_and(|passed| passed.is_unfinished) {
                // The others come before it comes again.
                self.rest.rotate_right(1);
            } else {
                self.rest.pop();
            }
            done += passed.map_or(0, |passed| passed.work);
            if done >= TURN_MAX {
                done = 0;
                yield_now().await;
            }
        }
    }
}

/// The runtime ends, or a transport has panicked.
impl Drop for Round {
    fn drop(&mut self) {
        let left = self.list.take();
        let left = self.rest.drain(..).chain(left);
        left.filter_map(|connection| connection.upgrade())
            .for_each(|connection| connection.leave_to_its_tasks());
    }
}
