//! The outbound queue of one client, bounded in bytes. Any task adds items; the client's task removes them.
//!
//! While the queue is empty, a push goes directly to the write buffer of the client's WebSocket, if that has room. The
//! [`Sender`] then flushes it in a task shared by many connections, and the client's task is not woken. Pushes are shared,
//! not copied: a publication to ten thousand subscribers is one allocation. Replies and pushes leave in the order in which
//! they were added. An empty queue has no heap allocation.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use sockeye::{Message, PreparedMessage, Sender};

use crate::auth::Overrides;
use crate::channel::ChannelName;
use crate::codes::{DisconnectCode, UnsubscribeCode};
use crate::engine::Position;
use crate::presence::Subscription;
use crate::protocol::{Data, Encoding, bytes};

/// The outbound queue of one client.
#[derive(Debug)]
pub(crate) struct Queue {
    bytes_max: usize,
    /// The client's WebSocket, for direct sends.
    sender: Option<Sender>,
    /// The encoding of all items.
    encoding: Encoding,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// Number of publications that were dropped because the client read slowly.
    dropped: u64,
    /// Whether the client's task has taken a frame that it may not have passed to the WebSocket yet. Direct sends would
    /// overtake it.
    is_taken: bool,
    /// Set when the queue is closed.
    closed: Option<DisconnectCode>,
    /// A close code and reason that replace those of `closed`.
    close_frame: Option<Box<(u16, String)>>,
    waker: Option<Waker>,
}

/// An item to send.
#[derive(Debug)]
pub(crate) enum Item {
    /// The reply to a command. Consecutive replies may be sent in one frame.
    Reply(Message),
    /// A push of a channel, or a ping.
    Push(PreparedMessage),
    /// A publication that may be dropped if the client reads slowly.
    Publication(PreparedMessage, Slot),
    /// The push that a subscription has ended. The session must be updated too.
    Unsubscribe(Subscription, UnsubscribeCode, PreparedMessage),
    /// A command of the server API for the session of the client.
    Command(Box<ServerCommand>),
}

/// Decides which queued publications are dropped for a slow client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Dropped when the queue is full, the oldest first.
    Oldest,
    /// Replaced by the next publication of the channel with the same key.
    Latest {
        channel: ChannelName,
        key: Option<Box<str>>,
    },
}

/// A command of the server API that the session of a client executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerCommand {
    /// Subscribes the client to a channel.
    Subscribe(ServerSubscribe),
    /// Changes the expiry of the connection.
    Refresh(ServerRefresh),
}

/// A server-side subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerSubscribe {
    pub(crate) channel: ChannelName,
    /// Additional information about the client in this channel (`chan_info`).
    pub(crate) info: Option<Data>,
    /// Data that the client receives with the subscription.
    pub(crate) data: Option<Data>,
    /// Unix time in seconds at which the subscription expires.
    pub(crate) expire_at: Option<i64>,
    pub(crate) recover_since: Option<Position>,
    /// Options that differ from those of the namespace.
    pub(crate) overrides: Overrides,
}

/// A change of the expiry of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerRefresh {
    /// Whether the connection has expired now.
    pub(crate) is_expired: bool,
    /// Unix time in seconds at which it expires.
    pub(crate) expire_at: Option<i64>,
    /// New information about the client (`conn_info`).
    pub(crate) info: Option<Data>,
}

/// The next action for a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// Send this frame.
    Frame(PreparedMessage),
    /// The subscription has ended. Send this frame, unless the client has unsubscribed in the meantime.
    Unsubscribe(Subscription, UnsubscribeCode, PreparedMessage),
    /// Execute this command.
    Command(Box<ServerCommand>),
    /// Close the connection.
    Close(DisconnectCode),
}

/// Accounted size of an item without its text.
const ITEM_BYTES: usize = 64;

/// Maximum size of a frame of several replies.
const JOINED_BYTES_MAX: usize = 16 << 10;

impl Queue {
    /// Creates an empty queue. Without a `sender`, all items are queued.
    pub(crate) fn new(bytes_max: usize, sender: Option<Sender>) -> Self {
        Self {
            bytes_max,
            sender,
            encoding: Encoding::Json,
            state: Mutex::default(),
        }
    }

    /// Sets the encoding that the client uses; JSON by default.
    pub(crate) fn with_encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// The encoding that the client uses.
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Sends an item directly, or queues it and wakes the client's task.
    ///
    /// If the item exceeds the size limit, all queued items are dropped, and the client is disconnected as too slow.
    pub(crate) fn push(&self, item: Item) {
        let waker = {
            let mut state = self.state.lock();
            if state.closed.is_some() || self.try_send_directly(&state, &item) {
                return;
            }
            state.make_room(&item, self.bytes_max);
            state.bytes += item.cost();
            if state.bytes > self.bytes_max {
                state.drop_items();
                state.closed = Some(DisconnectCode::Slow);
            } else {
                state.items.push_back(item);
            }
            state.waker.take()
        };
        // Woken without the lock, so that the task does not contend for it immediately.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Sends a push directly if nothing is queued. Returns `false` if the item must be queued, also if the WebSocket is
    /// closed: the client's task handles that.
    fn try_send_directly(&self, state: &State, item: &Item) -> bool {
        let (Some(sender), Item::Push(push) | Item::Publication(push, _)) = (&self.sender, item) else {
            return false;
        };
        state.items.is_empty() && !state.is_taken && sender.try_send_prepared(push).is_ok()
    }

    /// Closes the queue: the client is disconnected after the queued items. If called again, the first reason counts.
    pub(crate) fn close(&self, reason: DisconnectCode) {
        let waker = {
            let mut state = self.state.lock();
            state.closed.get_or_insert(reason);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Closes the queue with a close code and reason of the server API.
    pub(crate) fn close_with(&self, code: u16, reason: String) {
        {
            let mut state = self.state.lock();
            if state.closed.is_none() {
                state.close_frame = Some(Box::new((code, reason)));
            }
        }
        self.close(DisconnectCode::ForceDisconnect);
    }

    /// The code and reason of the close frame for a client that is disconnected with `code`.
    pub(crate) fn close_frame(&self, code: DisconnectCode) -> (u16, String) {
        let state = self.state.lock();
        match &state.close_frame {
            Some(frame) if state.closed == Some(code) => (**frame).clone(),
            _ => (code.code(), code.reason().to_owned()),
        }
    }

    /// Removes the next action. The caller must have passed the previous frame to the WebSocket.
    pub(crate) fn take(&self) -> Option<Outgoing> {
        let mut state = self.state.lock();
        let item = state.pop();
        state.is_taken = item.is_some();
        let Some(item) = item else {
            return state.closed.map(Outgoing::Close);
        };
        Some(match item {
            Item::Reply(first) => Outgoing::Frame(PreparedMessage::new(state.join_replies(first, self.encoding))),
            Item::Push(push) | Item::Publication(push, _) => Outgoing::Frame(push),
            Item::Unsubscribe(subscription, code, push) => Outgoing::Unsubscribe(subscription, code, push),
            Item::Command(command) => Outgoing::Command(command),
        })
    }

    /// Number of publications that were dropped because the client read slowly.
    pub(crate) fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }

    /// Number of queued bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Waits until [`take`](Self::take) returns an action. Only one task may wait at a time. Cancel-safe.
    pub(crate) async fn ready(&self) {
        std::future::poll_fn(|cx| self.poll(cx, State::is_ready)).await;
    }

    /// Waits until the queue is closed, and returns the reason. Cancel-safe.
    pub(crate) async fn closed(&self) -> DisconnectCode {
        std::future::poll_fn(|cx| self.poll(cx, |state| state.closed)).await
    }

    fn poll<T>(&self, cx: &mut Context<'_>, check: impl Fn(&State) -> Option<T>) -> Poll<T> {
        let mut state = self.state.lock();
        if let Some(found) = check(&state) {
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
    fn is_ready(&self) -> Option<()> {
        (!self.items.is_empty() || self.closed.is_some()).then_some(())
    }

    /// Drops publications that the next item replaces, or that must give way because the queue is full.
    fn make_room(&mut self, next: &Item, bytes_max: usize) {
        if let Item::Publication(_, slot @ Slot::Latest { .. }) = next {
            let replaced = |item: &Item| matches!(item, Item::Publication(_, queued) if queued == slot);
            if let Some(index) = self.items.iter().position(replaced) {
                self.drop_item(index);
            }
        }
        while self.bytes + next.cost() > bytes_max {
            let is_droppable = |item: &Item| matches!(item, Item::Publication(_, Slot::Oldest));
            let Some(index) = self.items.iter().position(is_droppable) else {
                return;
            };
            self.drop_item(index);
        }
    }

    fn drop_item(&mut self, index: usize) {
        if let Some(item) = self.items.remove(index) {
            self.bytes -= item.cost();
            self.dropped += 1;
        }
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.cost();
        if self.items.is_empty() {
            self.drop_items();
        }
        Some(item)
    }

    /// Joins the reply and the replies directly behind it.
    fn join_replies(&mut self, first: Message, encoding: Encoding) -> Message {
        if !matches!(self.items.front(), Some(Item::Reply(_))) {
            return first;
        }
        let mut joined = bytes(&first).to_vec();
        while let Some(Item::Reply(next)) = self.items.front()
            && joined.len() + next.len() < JOINED_BYTES_MAX
        {
            Encoding::join(&mut joined, next);
            self.pop();
        }
        encoding.frame(joined)
    }

    fn drop_items(&mut self) {
        self.items = VecDeque::new();
        self.bytes = 0;
    }
}

impl Item {
    fn cost(&self) -> usize {
        let len = match self {
            Self::Reply(reply) => reply.len(),
            Self::Push(push) | Self::Publication(push, _) | Self::Unsubscribe(_, _, push) => push.message().len(),
            Self::Command(command) => command.cost(),
        };
        ITEM_BYTES + len
    }
}

impl ServerCommand {
    fn cost(&self) -> usize {
        let len = |data: &Option<Data>| data.as_ref().map_or(0, Data::len_bytes);
        size_of::<Self>()
            + match self {
                Self::Subscribe(subscribe) => len(&subscribe.info) + len(&subscribe.data),
                Self::Refresh(refresh) => len(&refresh.info),
            }
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
    fn exceeding_the_limit_by_one_byte_disconnects_as_slow() {
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
    fn a_full_queue_drops_the_oldest_publications_that_may_be_dropped() {
        let publication = |text: &str| Item::Publication(PreparedMessage::new(text), Slot::Oldest);
        let queue = Queue::new(3 * (ITEM_BYTES + 1), None);
        queue.push(push("p"));
        for text in ["1", "2", "3", "4"] {
            queue.push(publication(text));
        }
        queue.push(reply("r"));
        assert_eq!((queue.bytes(), queue.dropped()), (3 * (ITEM_BYTES + 1), 3));
        for expect in [frame("p"), frame("4"), frame("r"), None] {
            assert_eq!(queue.take(), expect);
        }
    }

    #[test]
    fn only_the_latest_publication_of_a_channel_or_key_is_kept() {
        let queue = Queue::new(1 << 20, None);
        let publish = |channel: &str, key: Option<&str>, text: &str| {
            let channel = ChannelName::new(channel).unwrap();
            let key = key.map(Into::into);
            queue.push(Item::Publication(
                PreparedMessage::new(text),
                Slot::Latest { channel, key },
            ));
        };
        publish("a", None, "1");
        publish("b", None, "2");
        publish("a", Some("k"), "3");
        publish("a", None, "4");
        publish("a", Some("k"), "5");
        assert_eq!(queue.dropped(), 2);
        for expect in [frame("2"), frame("4"), frame("5"), None] {
            assert_eq!(queue.take(), expect);
        }
    }

    #[test]
    fn queued_items_precede_the_close() {
        let queue = Queue::new(1024, None);
        queue.push(push("last"));
        queue.close(DisconnectCode::Shutdown);
        queue.push(push("too late"));
        assert_eq!(queue.take(), frame("last"));
        assert_eq!(queue.take(), Some(Outgoing::Close(DisconnectCode::Shutdown)));
    }

    #[tokio::test]
    async fn a_push_is_sent_directly_if_nothing_is_queued() {
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
            // Taken, and not yet passed to the WebSocket.
            queue.push(push("d"));
            sender.try_send_prepared(&taken).unwrap();
        }
        while let Some(Outgoing::Frame(taken)) = queue.take() {
            sender.try_send_prepared(&taken).unwrap();
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
