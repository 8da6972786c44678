//! Loom models of the hand-written wake-up protocols: every interleaving of a few threads, and every value that the
//! memory model allows a load to return.
//!
//! The modules under test are those of the library, compiled with loom's types instead of `std::sync`. Loom reports a
//! lost wake-up as a deadlock.

use loom::future::block_on;
use loom::sync::atomic::Ordering::Relaxed;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::thread;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

#[path = "../src/websocket/batch.rs"]
mod batch;
#[path = "../src/websocket/try_lock.rs"]
mod try_lock;
#[path = "../src/websocket/wakers.rs"]
mod wakers;

/// Replaces `src/sync.rs`.
mod sync {
    use std::sync::PoisonError;

    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicUsize};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

use batch::Batch;
use try_lock::{EnqueueError, QueueMode, Release, Request, TryLock};
use wakers::{SlotKey, WakerSlots};

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // A higher bound found no additional injected bug, and takes hours.
    builder.preemption_bound = Some(3);
    builder.check(run);
}

/// Waits until `is_ready`, like an operation of a connection: polls first, then registers.
fn wait_for(slots: &WakerSlots, mut key: SlotKey, mut is_ready: impl FnMut() -> bool) {
    block_on(poll_fn(|cx| {
        let wake_count = slots.wake_count();
        if is_ready() {
            slots.release(&mut key);
            return Poll::Ready(());
        }
        if !slots.register(&mut key, cx.waker(), wake_count) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }));
}

mod waker_slots {
    use super::*;

    #[test]
    fn wake_up_between_poll_and_registration_is_not_lost() {
        model(|| {
            let (slots, event) = (Arc::new(WakerSlots::new()), Arc::new(AtomicBool::new(false)));
            let waker = {
                let (slots, event) = (slots.clone(), event.clone());
                thread::spawn(move || {
                    event.store(true, Relaxed);
                    slots.wake_all();
                })
            };
            wait_for(&slots, SlotKey::receiver(), || event.load(Relaxed));
            waker.join().unwrap();
        });
    }

    /// The waiting task registers while it holds the lock, so the end happens before its check or after its
    /// registration.
    #[test]
    fn operation_waiting_for_the_end_is_woken_only_by_the_end() {
        model(|| {
            let slots = Arc::new(WakerSlots::new());
            let is_open = Arc::new(loom::sync::Mutex::new(true));
            let ender = {
                let (slots, is_open) = (slots.clone(), is_open.clone());
                thread::spawn(move || {
                    slots.wake_for_progress();
                    *is_open.lock().unwrap() = false;
                    slots.wake_all();
                })
            };
            let mut key = SlotKey::operation();
            loom::future::block_on(std::future::poll_fn(|cx| {
                let is_open = is_open.lock().unwrap();
                if *is_open {
                    slots.register_for_end(&mut key, cx.waker());
                    return std::task::Poll::Pending;
                }
                std::task::Poll::Ready(())
            }));
            slots.release(&mut key);
            ender.join().unwrap();
        });
    }

    #[test]
    fn every_operation_is_woken_while_others_complete() {
        model(|| {
            let (slots, event) = (Arc::new(WakerSlots::new()), Arc::new(AtomicBool::new(false)));
            let other = {
                let (slots, event) = (slots.clone(), event.clone());
                thread::spawn(move || wait_for(&slots, SlotKey::operation(), || event.load(Relaxed)))
            };
            let waker = {
                let (slots, event) = (slots.clone(), event.clone());
                thread::spawn(move || {
                    event.store(true, Relaxed);
                    slots.wake_all();
                })
            };
            wait_for(&slots, SlotKey::operation(), || event.load(Relaxed));
            other.join().unwrap();
            waker.join().unwrap();
        });
    }

    #[test]
    fn completed_operation_takes_no_wake_up_from_another() {
        model(|| {
            let (slots, event) = (Arc::new(WakerSlots::new()), Arc::new(AtomicBool::new(false)));
            let dropped = {
                let slots = slots.clone();
                thread::spawn(move || {
                    let mut key = SlotKey::operation();
                    let wake_count = slots.wake_count();
                    let _ = slots.register(&mut key, std::task::Waker::noop(), wake_count);
                    slots.release(&mut key);
                })
            };
            let waker = {
                let (slots, event) = (slots.clone(), event.clone());
                thread::spawn(move || {
                    event.store(true, Relaxed);
                    slots.wake_all();
                })
            };
            wait_for(&slots, SlotKey::operation(), || event.load(Relaxed));
            dropped.join().unwrap();
            waker.join().unwrap();
        });
    }
}

/// What the library's `Shared` and `ConnectionGuard` do, without a driver: the value counts messages, the command queue
/// holds messages, and the snapshot says whether there is room.
struct Shared {
    lock: TryLock<State, Vec<usize>, AtomicBool>,
    slots: WakerSlots,
    /// The batch that can still be added to.
    open: loom::sync::Mutex<Option<Arc<Batch<()>>>>,
    /// The batches whose tasks were spawned. The test runs them.
    spawned: loom::sync::Mutex<Vec<Arc<Batch<()>>>>,
}

#[derive(Default)]
struct State {
    queued: Vec<usize>,
    written: Vec<usize>,
    /// Whether the connection is in a batch.
    is_in_batch: bool,
    /// Whether the task of a batch has ended early.
    is_flush_delegated: bool,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lock: TryLock::new(State::default(), Vec::new(), AtomicBool::new(true)),
            slots: WakerSlots::new(),
            open: loom::sync::Mutex::new(None),
            spawned: loom::sync::Mutex::new(Vec::new()),
        })
    }

    /// Locks the state if it is free, runs `work`, and serves the requests.
    fn try_use(&self, queue_mode: QueueMode, work: impl FnOnce(&mut State)) -> bool {
        self.try_queue(queue_mode, |state| {
            work(state);
            false
        })
    }

    /// The same. `work` returns whether to schedule a flush.
    fn try_queue(&self, queue_mode: QueueMode, work: impl FnOnce(&mut State) -> bool) -> bool {
        let Some(mut guard) = self.lock.try_lock(queue_mode) else {
            return false;
        };
        let mut new_batch = None;
        if work(&mut guard) {
            self.schedule(&mut guard, &mut new_batch);
        }
        let has_waiting = loop {
            match guard.release() {
                Release::Released { has_waiting } => break has_waiting,
                Release::Requested(requests) => {
                    if requests.flush {
                        guard.is_in_batch = false;
                    }
                    guard.is_flush_delegated |= requests.delegate_flush;
                    if requests.commands {
                        let commands = std::mem::take(&mut *self.lock.command_queue());
                        guard.queued.extend(commands);
                    }
                    if !guard.queued.is_empty() && !guard.is_flush_delegated {
                        self.schedule(&mut guard, &mut new_batch);
                    }
                }
            }
        };
        self.spawned.lock().unwrap().extend(new_batch);
        if has_waiting {
            self.slots.wake_for_lock();
        }
        true
    }

    fn schedule(&self, state: &mut State, new_batch: &mut Option<Arc<Batch<()>>>) {
        if std::mem::replace(&mut state.is_in_batch, true) {
            return;
        }
        let mut open = self.open.lock().unwrap();
        if open.as_ref().is_some_and(|batch| batch.push(()).is_ok()) {
            return;
        }
        let batch = Arc::new(Batch::new((), 2));
        *open = Some(batch.clone());
        let earlier = new_batch.replace(batch);
        self.spawned.lock().unwrap().extend(earlier);
    }

    /// Like `try_send`.
    fn send(&self, message: usize) {
        loop {
            let sent = self.try_queue(QueueMode::Open, |state| {
                state.queued.push(message);
                true
            });
            if sent {
                return;
            }
            match self.lock.try_enqueue(|command_queue| command_queue.push(message)) {
                Ok(()) => return,
                Err(error) => assert_eq!(error, EnqueueError::Unlocked),
            }
        }
    }

    /// Runs the spawned tasks.
    fn run_batches(&self) {
        loop {
            let Some(batch) = self.spawned.lock().unwrap().pop() else {
                return;
            };
            for () in batch.take() {
                loop {
                    let flushed = self.try_use(QueueMode::Open, |state| {
                        let queued = std::mem::take(&mut state.queued);
                        state.written.extend(queued);
                        state.is_in_batch = false;
                    });
                    if flushed || self.lock.request(Request::Flush) {
                        break;
                    }
                }
            }
        }
    }

    /// Waits for the lock, then runs `work`.
    fn use_when_free(&self, mut work: impl FnMut(&mut State)) {
        let mut key = SlotKey::operation();
        block_on(poll_fn(|cx: &mut Context<'_>| {
            loop {
                if self.try_use(QueueMode::Open, &mut work) {
                    self.slots.release(&mut key);
                    return Poll::Ready(());
                }
                self.slots.register_for_lock(&mut key, cx.waker());
                if self.lock.request(Request::Wake) {
                    return Poll::Pending;
                }
            }
        }));
    }

    /// Runs the remaining batches, and returns what was written.
    fn written(&self) -> Vec<usize> {
        self.run_batches();
        let mut written = None;
        assert!(self.try_use(QueueMode::Open, |state| {
            assert!(state.queued.is_empty(), "queued, and nobody will write it");
            written = Some(state.written.clone());
        }));
        assert!(
            self.lock.command_queue().is_empty(),
            "nobody will take it from the command queue"
        );
        written.unwrap()
    }
}

mod try_lock_state {
    use super::*;

    #[test]
    fn command_queue_is_emptied_and_flushed() {
        model(|| {
            let shared = Shared::new();
            let receiver = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.try_use(QueueMode::Open, |_| thread::yield_now());
                })
            };
            let flusher = {
                let shared = shared.clone();
                thread::spawn(move || shared.run_batches())
            };
            shared.send(1);
            shared.send(2);
            receiver.join().unwrap();
            flusher.join().unwrap();
            assert_eq!(shared.written(), [1, 2]);
        });
    }

    #[test]
    fn batch_that_ends_early_leaves_the_flush_to_the_tasks() {
        model(|| {
            let shared = Shared::new();
            let ending = {
                let shared = shared.clone();
                thread::spawn(move || {
                    while !shared.try_use(QueueMode::Open, |state| state.is_flush_delegated = true)
                        && !shared.lock.request(Request::DelegateFlush)
                    {}
                })
            };
            shared.try_use(QueueMode::Open, |_| {});
            ending.join().unwrap();
            assert!(shared.try_use(QueueMode::Open, |state| assert!(state.is_flush_delegated)));
        });
    }

    /// Like a `close` whose future is dropped.
    #[test]
    fn close_is_accepted_while_the_command_queue_is_closed() {
        model(|| {
            let shared = Shared::new();
            let holder = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.try_use(QueueMode::Closed, |_| {});
                })
            };
            while !shared.try_use(QueueMode::Open, |state| state.queued.push(1))
                && shared
                    .lock
                    .force_enqueue(|command_queue| command_queue.push(1))
                    .is_none()
            {}
            holder.join().unwrap();
            assert!(shared.try_use(QueueMode::Open, |state| assert_eq!(state.queued, [1])));
        });
    }

    #[test]
    fn two_senders_keep_their_order() {
        model(|| {
            let shared = Shared::new();
            let other = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.send(1);
                    shared.send(2);
                })
            };
            shared.send(11);
            shared.send(12);
            other.join().unwrap();
            let written = shared.written();
            let of = |range: std::ops::Range<usize>| written.iter().filter(move |n| range.contains(n)).copied();
            assert!(of(0..10).eq([1, 2]), "{written:?}");
            assert!(of(10..20).eq([11, 12]), "{written:?}");
        });
    }

    #[test]
    fn batch_that_finds_the_state_locked_is_rescheduled() {
        model(|| {
            let shared = Shared::new();
            shared.send(1);
            let flusher = {
                let shared = shared.clone();
                thread::spawn(move || shared.run_batches())
            };
            shared.use_when_free(|_| {});
            shared.send(2);
            flusher.join().unwrap();
            assert_eq!(shared.written(), [1, 2]);
        });
    }

    /// Like a receiver that has moved to another runtime.
    #[test]
    fn connection_in_two_batches_is_flushed() {
        model(|| {
            let shared = Shared::new();
            shared.send(1);
            shared.try_use(QueueMode::Open, |state| state.is_in_batch = false);
            let flusher = {
                let shared = shared.clone();
                thread::spawn(move || shared.run_batches())
            };
            shared.send(2);
            flusher.join().unwrap();
            assert_eq!(shared.written(), [1, 2]);
        });
    }

    #[test]
    fn waiter_is_woken_on_release() {
        model(|| {
            let shared = Shared::new();
            let others: Vec<_> = (0..2)
                .map(|number| {
                    let shared = shared.clone();
                    thread::spawn(move || shared.use_when_free(|state| state.written.push(number)))
                })
                .collect();
            shared.use_when_free(|state| state.written.push(2));
            others.into_iter().for_each(|other| other.join().unwrap());
            assert_eq!(shared.written().len(), 3);
        });
    }

    /// Like a broadcast while compression of a large message begins: what was accepted can be queued.
    #[test]
    fn message_is_not_enqueued_behind_a_large_one() {
        model(|| {
            let shared = Shared::new();
            let holder = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.try_use(QueueMode::Closed, |state| {
                        state.queued.push(100);
                        shared.lock.snapshot().store(false, Relaxed);
                    });
                    shared.try_use(QueueMode::Open, |_| {});
                })
            };
            let has_room = shared
                .lock
                .try_enqueue(|command_queue| {
                    let has_room = shared.lock.snapshot().load(Relaxed);
                    if has_room {
                        command_queue.push(1);
                    }
                    has_room
                })
                .unwrap_or(false);
            holder.join().unwrap();
            let mut queued = Vec::new();
            assert!(shared.try_use(QueueMode::Open, |state| queued.clone_from(&state.queued)));
            let position = queued.iter().position(|message| *message == 1);
            assert_eq!(position.is_some(), has_room);
            assert_ne!(position, Some(1), "behind what nothing can be queued behind");
        });
    }
}

mod batches {
    use super::*;

    #[test]
    fn batch_item_is_taken_or_returned() {
        model(|| {
            let batch = Arc::new(Batch::new(0, 3));
            let taken = Arc::new(AtomicUsize::new(0));
            let task = {
                let (batch, taken) = (batch.clone(), taken.clone());
                thread::spawn(move || taken.store(batch.take().len(), Relaxed))
            };
            let accepted = [1, 2, 3].map(|item| batch.push(item).is_ok());
            task.join().unwrap();
            let accepted = accepted.into_iter().filter(|accepted| *accepted).count();
            assert_eq!(taken.load(Relaxed), 1 + accepted);
            assert!(accepted <= 2);
        });
    }
}
