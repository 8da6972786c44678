//! What waits to be written to one client: bounded in bytes, filled by anyone, emptied by the client's own task.
//!
//! Where nothing waits, a push goes right to the client's WebSocket, if that has room: the [`Sender`] writes for all
//! subscribers of a channel in one task, and the client's own sleeps on. Pushes are shared, not copied: a publication to
//! ten thousand subscribers is one frame. Order is the order of queueing, for replies and pushes alike. An empty queue
//! owns no memory beyond itself.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use sockeye::{PreparedMessage, Sender, Text};

use crate::codes::DisconnectCode;
use crate::presence::Subscription;
use crate::sync::lock;

/// The outbound queue of one client.
#[derive(Debug)]
pub(crate) struct Queue {
    bytes_max: usize,
    /// The client's WebSocket, for what need not wait.
    sender: Option<Sender>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// Whether the client's task has something that it took from here, and that may not be with the WebSocket yet.
    is_taken: bool,
    /// Why nothing more will be queued.
    closed: Option<DisconnectCode>,
    waker: Option<Waker>,
}

/// Something to be written.
#[derive(Debug)]
pub(crate) enum Item {
    /// The answer to a command. Consecutive replies may leave in one frame.
    Reply(Text),
    /// What a channel says, or a ping.
    Push(PreparedMessage),
    /// The push which says that a subscription has ended; the client's session has to know as well.
    Unsubscribe(Subscription, PreparedMessage),
}

/// What to do next for a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// Write this text frame.
    Frame(PreparedMessage),
    /// The subscription has ended. Write this text frame, unless the client has ended it by itself meanwhile.
    Unsubscribe(Subscription, PreparedMessage),
    /// Close the connection.
    Close(DisconnectCode),
}

/// What an entry costs beyond its text.
const ITEM_BYTES: usize = 64;

/// Replies are joined into one frame up to this size.
const JOINED_BYTES_MAX: usize = 16 << 10;

impl Queue {
    /// Without a sender everything waits to be taken.
    pub(crate) fn new(bytes_max: usize, sender: Option<Sender>) -> Self {
        Self {
            bytes_max,
            sender,
            state: Mutex::default(),
        }
    }

    /// Sends something, or queues it and wakes the client's task.
    ///
    /// One item more than the queue may hold and the client counts as slow: everything queued is dropped, and what is
    /// left to do is to disconnect it.
    pub(crate) fn push(&self, item: Item) {
        let waker = {
            let mut state = lock(&self.state);
            if state.closed.is_some() || self.sends_directly(&state, &item) {
                return;
            }
            state.bytes += item.cost();
            if state.bytes > self.bytes_max {
                state.drop_items();
                state.closed = Some(DisconnectCode::Slow);
            } else {
                state.items.push_back(item);
            }
            state.waker.take()
        };
        // Woken outside the lock, so that the task does not run into it at once.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether a push need not wait here. A WebSocket that is closed is its task's business.
    fn sends_directly(&self, state: &State, item: &Item) -> bool {
        let (Some(sender), Item::Push(push)) = (&self.sender, item) else {
            return false;
        };
        state.items.is_empty() && !state.is_taken && sender.try_send(push).is_ok()
    }

    /// Asks for the connection to be closed after what is already queued. The first reason stays.
    pub(crate) fn close(&self, reason: DisconnectCode) {
        let waker = {
            let mut state = lock(&self.state);
            state.closed.get_or_insert(reason);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes what is to be done next. What was taken before is with the WebSocket by now.
    pub(crate) fn take(&self) -> Option<Outgoing> {
        let mut state = lock(&self.state);
        let item = state.pop();
        state.is_taken = item.is_some();
        let Some(item) = item else {
            return state.closed.map(Outgoing::Close);
        };
        Some(match item {
            Item::Reply(first) => Outgoing::Frame(PreparedMessage::new(state.join_replies(first))),
            Item::Push(push) => Outgoing::Frame(push),
            Item::Unsubscribe(subscription, push) => Outgoing::Unsubscribe(subscription, push),
        })
    }

    /// Bytes waiting.
    pub(crate) fn bytes(&self) -> usize {
        lock(&self.state).bytes
    }

    /// Waits until [`take`](Self::take) has something. For one task at a time: the client's.
    ///
    /// # Cancel safety
    /// Nothing is taken, so nothing can be lost.
    pub(crate) async fn ready(&self) {
        std::future::poll_fn(|cx| self.poll(cx, State::has_something)).await;
    }

    /// Waits until nothing more will be queued, and says why.
    ///
    /// # Cancel safety
    /// Nothing is taken, so nothing can be lost.
    pub(crate) async fn closed(&self) -> DisconnectCode {
        std::future::poll_fn(|cx| self.poll(cx, |state| state.closed)).await
    }

    fn poll<T>(&self, cx: &mut Context<'_>, look: impl Fn(&State) -> Option<T>) -> Poll<T> {
        let mut state = lock(&self.state);
        if let Some(found) = look(&state) {
            return Poll::Ready(found);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl State {
    fn has_something(&self) -> Option<()> {
        (!self.items.is_empty() || self.closed.is_some()).then_some(())
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.cost();
        if self.items.is_empty() {
            self.drop_items();
        }
        Some(item)
    }

    /// The reply and those right behind it, one per line.
    fn join_replies(&mut self, first: Text) -> Text {
        if !matches!(self.items.front(), Some(Item::Reply(_))) {
            return first;
        }
        let mut joined = String::from(first);
        while let Some(Item::Reply(next)) = self.items.front()
            && joined.len() + next.len() < JOINED_BYTES_MAX
        {
            joined.push('\n');
            joined.push_str(next);
            self.pop();
        }
        joined.into()
    }

    fn drop_items(&mut self) {
        self.items = VecDeque::new();
        self.bytes = 0;
    }
}

impl Item {
    fn cost(&self) -> usize {
        let len = match self {
            Self::Reply(text) => text.len(),
            Self::Push(push) | Self::Unsubscribe(_, push) => push.message().len(),
        };
        ITEM_BYTES + len
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    fn reply(text: &str) -> Item {
        Item::Reply(text.into())
    }

    fn push(text: &str) -> Item {
        Item::Push(PreparedMessage::new(text))
    }

    fn frame(text: &str) -> Option<Outgoing> {
        Some(Outgoing::Frame(PreparedMessage::new(text)))
    }

    #[test]
    fn replies_are_joined_and_order_is_kept() {
        let queue = Queue::new(1024, None);
        for item in [reply("1"), reply("2"), push("p"), push("q"), reply("3")] {
            queue.push(item);
        }
        for expect in [frame("1\n2"), frame("p"), frame("q"), frame("3"), None] {
            assert_eq!(queue.take(), expect);
        }
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn one_byte_too_many_makes_the_client_slow() {
        let queue = Queue::new(2 * (ITEM_BYTES + 10), None);
        queue.push(push(&"x".repeat(10)));
        queue.push(push(&"x".repeat(10)));
        assert_eq!(queue.bytes(), 2 * (ITEM_BYTES + 10));
        queue.push(push(""));
        assert_eq!(queue.bytes(), 0);
        queue.push(push("late"));
        queue.close(DisconnectCode::Shutdown);
        assert_eq!(queue.take(), Some(Outgoing::Close(DisconnectCode::Slow)));
    }

    #[test]
    fn closing_comes_after_what_is_queued() {
        let queue = Queue::new(1024, None);
        queue.push(push("last"));
        queue.close(DisconnectCode::Shutdown);
        queue.push(push("too late"));
        assert_eq!(queue.take(), frame("last"));
        assert_eq!(queue.take(), Some(Outgoing::Close(DisconnectCode::Shutdown)));
    }

    #[tokio::test]
    async fn a_push_goes_right_to_the_websocket_where_nothing_is_before_it() {
        let (near, far) = tokio::io::duplex(1024);
        let accepting = async { sockeye::Server::default().accept(near).await?.accept().await };
        let client = sockeye::Client::default();
        let connecting = client.connect_over(far, "ws://localhost/");
        let (ws, peer) = tokio::join!(accepting, connecting);
        let (sender, _receiver) = ws.unwrap().split();
        let (mut peer, _) = peer.unwrap();

        let queue = Queue::new(1024, Some(sender.clone()));
        queue.push(push("a"));
        assert_eq!(queue.take(), None);
        queue.push(reply("b"));
        queue.push(push("c"));
        for expect in ["b", "c"] {
            let Some(Outgoing::Frame(taken)) = queue.take() else {
                panic!("{expect} went by what waits before it");
            };
            // Taken, and not yet with the WebSocket.
            queue.push(push("d"));
            sender.try_send(&taken).unwrap();
        }
        while let Some(Outgoing::Frame(taken)) = queue.take() {
            sender.try_send(&taken).unwrap();
        }
        queue.push(push("e"));
        assert_eq!(queue.take(), None);
        for expect in ["a", "b", "c", "d", "d", "e"] {
            let message = peer.recv().await.unwrap().unwrap();
            assert_eq!(message.as_text(), Some(expect));
        }
    }

    #[test]
    fn every_push_wakes_a_waiting_task_once() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);

        let queue = Queue::new(1024, None);
        assert!(pin!(queue.ready()).poll(&mut cx).is_pending());
        queue.push(push("a"));
        queue.push(push("b"));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(pin!(queue.ready()).poll(&mut cx).is_ready());
        assert!(pin!(queue.closed()).poll(&mut cx).is_pending());
        queue.close(DisconnectCode::Shutdown);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
