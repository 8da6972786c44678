//! The outbound queue of one client, bounded in bytes. Any task adds items; the client's task removes them.
//!
//! While the queue is empty, a push goes directly to the write buffer of the client's WebSocket, if that has room. The
//! [`Sender`] then flushes it in a task shared by many connections, and the client's task is not woken. Pushes are shared,
//! not copied: a publication to ten thousand subscribers is one allocation. Replies and pushes leave in the order in
//! which they were added. An empty queue has no heap allocation.
//!
//! The slow-consumer policy of a channel decides what happens to its publications in the queue of a slow client: with
//! `disconnect` they stay ([`Item::Push`]), and a client whose queue is full is disconnected. With `drop_oldest` the
//! oldest ones leave a full queue ([`Item::Droppable`]). With `latest` a publication replaces the one before it in its
//! slot ([`Item::Latest`]). The client sees what was dropped as a gap between offsets. If `drop_oldest` drops a publication
//! of a positioned subscription, the queue ends the subscription, so that the client recovers.

mod backlog;
mod dropped;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use sockeye::{Message, PreparedMessage, Sender};

use crate::auth::Overrides;
use crate::channel::ChannelName;
use crate::codes::{DisconnectCode, UnsubscribeCode};
use crate::config::SlowConsumerPolicy;
use crate::engine::{Position, Tags};
use crate::hooks::HookError;
use crate::ids::{Generation, Subscription};
use crate::protocol::{Data, Encoding, Push, PushTarget, bytes};
use crate::session::Decision;
pub(crate) use backlog::Slot;
pub(crate) use dropped::Dropped;

use backlog::Backlog;

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
    items: Backlog,
    bytes: usize,
    /// Whether the client's task has taken a frame that it may not have passed to the WebSocket yet. Direct sends would
    /// overtake it.
    is_taken: bool,
    /// Number of items dropped since [`Queue::take_dropped`].
    dropped: u32,
    /// Subscriptions ended by this queue that the hub may still list.
    ended: Vec<Subscription>,
    /// Bytes that may be sent before the next [`Queue::add_credit`], if the client has asked for a slow link. Negative
    /// after a frame that was larger than the credit.
    credit: Option<i64>,
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
    /// A publication that a full queue may drop. Dropping it ends the subscription, if one is given.
    Droppable(PreparedMessage, Option<Subscription>),
    /// A publication that replaces the one of the same slot, if that is not sent yet.
    Latest(Slot, PreparedMessage),
    /// The push that a subscription has ended. The session must be updated too.
    Unsubscribe(Subscription, UnsubscribeCode, PreparedMessage),
    /// A command of the server API for the session of the client.
    Command(Box<ServerCommand>),
    /// The decision about an event of the client.
    Answer(Box<Answer>),
}

/// The decision about an event of a client, or why there is none.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Number of the event among those of the client.
    pub(crate) ticket: u64,
    pub(crate) decision: Result<Decision, HookError>,
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        self.ticket == other.ticket
    }
}

impl Eq for Answer {}

/// A command of the server API that the session of a client executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerCommand {
    /// Subscribes the client to a channel.
    Subscribe(ServerSubscribe),
    /// Cancels subscriptions to a channel that wait for the backend.
    CancelSubscribe(ChannelName),
    /// Ends all subscriptions, and cancels those that wait for the backend.
    UnsubscribeAll,
    /// Changes the expiry of the connection.
    Refresh(ServerRefresh),
    /// Ends the subscriptions that the configuration does not allow any more.
    CheckSubscriptions(Arc<RevokedCount>),
}

/// Counts the subscriptions that a reload ends. Logs their number when the last client has been checked.
#[derive(Debug, Default)]
pub(crate) struct RevokedCount(AtomicUsize);

impl RevokedCount {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// Equal if it is the count of the same reload.
impl PartialEq for RevokedCount {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for RevokedCount {}

impl Drop for RevokedCount {
    fn drop(&mut self) {
        let count = *self.0.get_mut();
        if count > 0 {
            tracing::info!(
                subscriptions = count,
                "reloaded: ended subscriptions that the namespaces do not allow any more"
            );
        }
    }
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
    /// Continue this event.
    Answer(Box<Answer>),
    /// Close the connection.
    Close(DisconnectCode),
}

/// Accounted size of an item without its text.
const ITEM_BYTES: usize = 64;

/// Maximum number of queued bytes on a slow link: see [`Queue::set_credit`].
const SLOW_LINK_BYTES_MAX: usize = 64 << 10;

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
    /// If the queue exceeds its size limit, and nothing in it may be dropped, all queued items are dropped, and the
    /// client is disconnected as too slow.
    pub(crate) fn push(&self, item: Item) {
        self.push_counted(item);
    }

    /// Does what [`push`](Self::push) does. Returns the publications that were dropped or replaced for the item.
    pub(crate) fn push_counted(&self, item: Item) -> Dropped<usize> {
        let mut dropped = Dropped::default();
        let waker = {
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return dropped;
            }
            if state.has_ended(&item) {
                dropped.oldest += 1;
                state.dropped = state.dropped.saturating_add(1);
                return dropped;
            }
            if self.try_send_directly(&state, &item) {
                return dropped;
            }
            state.bytes += item.cost();
            if let Some(replaced) = state.items.push_back(item) {
                state.bytes -= replaced.cost();
                dropped.replaced += 1;
            }
            // Small, so that the policies of channels show within seconds.
            let bytes_max = match state.credit {
                None => self.bytes_max,
                Some(_) => self.bytes_max.min(SLOW_LINK_BYTES_MAX),
            };
            while state.bytes > bytes_max
                && let Some(oldest) = state.items.drop_oldest()
            {
                state.bytes -= oldest.cost();
                dropped.oldest += 1;
                if let Item::Droppable(_, Some(subscription)) = oldest {
                    dropped.oldest += state.end_subscription(subscription, self.encoding);
                    dropped.ended_subscriptions += 1;
                }
            }
            state.dropped = state.dropped.saturating_add(dropped.total() as u32);
            if state.bytes > bytes_max {
                state.drop_items();
                state.closed = Some(DisconnectCode::Slow);
            }
            state.waker.take()
        };
        // Woken without the lock, so that the task does not contend for it immediately.
        if let Some(waker) = waker {
            waker.wake();
        }
        dropped
    }

    /// Sends a push directly if nothing is queued. Returns `false` if the item must be queued, also if the WebSocket is
    /// closed: the client's task handles that.
    fn try_send_directly(&self, state: &State, item: &Item) -> bool {
        let (Some(sender), Item::Push(push) | Item::Droppable(push, _) | Item::Latest(_, push)) = (&self.sender, item)
        else {
            return false;
        };
        let is_idle = state.items.is_empty() && !state.is_taken && state.credit.is_none();
        is_idle && sender.try_send(push).is_ok()
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
        let item = if state.has_credit() { state.pop() } else { None };
        state.is_taken = item.is_some();
        if let (Some(credit), Some(item)) = (&mut state.credit, &item) {
            *credit -= item.cost() as i64;
        }
        let Some(item) = item else {
            return state.closed.map(Outgoing::Close);
        };
        Some(match item {
            Item::Reply(first) => Outgoing::Frame(PreparedMessage::new(state.join_replies(first, self.encoding))),
            Item::Push(push) | Item::Droppable(push, _) | Item::Latest(_, push) => Outgoing::Frame(push),
            Item::Unsubscribe(subscription, code, push) => Outgoing::Unsubscribe(subscription, code, push),
            Item::Command(command) => Outgoing::Command(command),
            Item::Answer(answer) => Outgoing::Answer(answer),
        })
    }

    /// Simulates a slow link: with a credit, frames stay in the queue until [`add_credit`](Self::add_credit) has
    /// provided for them. `None` ends that.
    pub(crate) fn set_credit(&self, bytes: Option<usize>) {
        let waker = {
            let mut state = self.state.lock();
            state.credit = bytes.map(|bytes| bytes as i64);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Adds to the credit, and returns `false` if the queue is closed. Unused credit does not accumulate beyond
    /// `bytes`.
    pub(crate) fn add_credit(&self, bytes: usize) -> bool {
        let (is_open, waker) = {
            let mut state = self.state.lock();
            if let Some(credit) = &mut state.credit {
                *credit = (*credit + bytes as i64).min(bytes as i64);
            }
            let waker = state.is_ready().and_then(|()| state.waker.take());
            (state.closed.is_none(), waker)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        is_open
    }

    /// Whether the queue has ended this subscription. If so, the caller must remove it from the hub, and then call
    /// [`forget_ended`](Self::forget_ended).
    pub(crate) fn has_ended(&self, subscription: &Subscription) -> bool {
        self.state.lock().ended.contains(subscription)
    }

    /// Forgets a subscription that the queue has ended. No publications of it may be pushed any more.
    pub(crate) fn forget_ended(&self, subscription: &Subscription) {
        let mut state = self.state.lock();
        state.ended.retain(|ended| ended != subscription);
        if state.ended.is_empty() {
            state.ended = Vec::new();
        }
    }

    /// Returns the number of items that were dropped or replaced since the last call.
    pub(crate) fn take_dropped(&self) -> u32 {
        std::mem::take(&mut self.state.lock().dropped)
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
        (!self.items.is_empty() && self.has_credit() || self.closed.is_some()).then_some(())
    }

    fn has_credit(&self) -> bool {
        self.credit.is_none_or(|credit| credit > 0)
    }

    /// Whether an item is a publication of a subscription that the queue has ended.
    fn has_ended(&self, item: &Item) -> bool {
        matches!(item, Item::Droppable(_, Some(subscription)) if self.ended.contains(subscription))
    }

    /// Ends a subscription of which a publication was dropped. Its later publications are dropped, too, so that the
    /// client recovers all of them. Returns their number.
    fn end_subscription(&mut self, subscription: Subscription, encoding: Encoding) -> usize {
        let removed = self.items.remove_droppable(&subscription);
        self.bytes -= removed.iter().map(Item::cost).sum::<usize>();
        let code = UnsubscribeCode::InsufficientState;
        let target = PushTarget::channel(subscription.channel.as_str());
        let push = PreparedMessage::new(encoding.push(target, &Push::Unsubscribe(code)));
        self.ended.push(subscription.clone());
        let item = Item::Unsubscribe(subscription, code, push);
        self.bytes += item.cost();
        self.items.push_back(item);
        removed.len()
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
        self.items = Backlog::default();
        self.bytes = 0;
    }
}

impl Item {
    /// A publication in a channel with this policy. Without the tag that the policy names, there is one slot for all
    /// publications of the channel that do not have it. `positioned` is the generation of a positioned subscription,
    /// which must end if `drop_oldest` drops the publication.
    pub(crate) fn publication(
        push: PreparedMessage,
        policy: &SlowConsumerPolicy,
        channel: &ChannelName,
        tags: Option<&Tags>,
        positioned: Option<Generation>,
    ) -> Self {
        match policy {
            SlowConsumerPolicy::Disconnect => Self::Push(push),
            SlowConsumerPolicy::DropOldest => {
                let subscription = positioned.map(|generation| Subscription {
                    channel: channel.clone(),
                    generation,
                });
                Self::Droppable(push, subscription)
            }
            SlowConsumerPolicy::Latest { key_tag } => {
                let value = key_tag.as_ref().zip(tags).and_then(|(tag, tags)| tags.get(tag));
                let slot = Slot {
                    channel: channel.clone(),
                    key: value.map(|value| Arc::from(value.as_str())),
                };
                Self::Latest(slot, push)
            }
        }
    }

    /// The push, if this is one of a channel.
    pub(crate) fn message(&self) -> Option<&PreparedMessage> {
        match self {
            Self::Push(push) | Self::Droppable(push, _) | Self::Latest(_, push) => Some(push),
            Self::Reply(_) | Self::Unsubscribe(..) | Self::Command(_) | Self::Answer(_) => None,
        }
    }

    fn cost(&self) -> usize {
        let len = match self {
            Self::Reply(reply) => reply.len(),
            Self::Push(push) | Self::Droppable(push, _) | Self::Unsubscribe(_, _, push) => push.message().len(),
            // The text of the key is also in the message.
            Self::Latest(_, push) => ITEM_BYTES + push.message().len(),
            Self::Command(command) => command.cost(),
            // A client has few of them, and their size is limited.
            Self::Answer(_) => size_of::<Answer>(),
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
                Self::CancelSubscribe(_) | Self::UnsubscribeAll | Self::CheckSubscriptions(_) => 0,
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

    #[test]
    fn a_slow_link_sends_what_its_credit_covers() {
        let queue = Queue::new(1 << 20, None);
        queue.set_credit(Some(0));
        for text in ["a", "b", "c"] {
            queue.push(push(text));
        }
        assert_eq!(queue.take(), None);
        // One item costs 65 bytes: a smaller credit is overdrawn once, and paid back.
        for (bytes, expect) in [(40, frame("a")), (20, None), (20, frame("b")), (40, None)] {
            assert!(queue.add_credit(bytes));
            assert_eq!(queue.take(), expect, "after {bytes}");
        }
        queue.set_credit(None);
        assert_eq!(queue.take(), frame("c"));
        queue.close(DisconnectCode::Shutdown);
        assert!(!queue.add_credit(1));
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

    fn publication(text: &str, policy: &SlowConsumerPolicy, tag: &str) -> Item {
        let tags = Tags::from([("symbol".to_owned(), tag.to_owned())]);
        let channel = ChannelName::new("market").unwrap();
        Item::publication(PreparedMessage::new(text), policy, &channel, Some(&tags), None)
    }

    /// A publication of 200 bytes.
    fn positioned(text: &str, channel: &str, generation: Generation) -> (Item, Subscription) {
        let channel = ChannelName::new(channel).unwrap();
        let push = PreparedMessage::new(text.repeat(200).as_str());
        let item = Item::publication(push, &SlowConsumerPolicy::DropOldest, &channel, None, Some(generation));
        (item, Subscription { channel, generation })
    }

    fn taken(queue: &Queue) -> Vec<String> {
        let mut taken = Vec::new();
        while let Some(Outgoing::Frame(frame)) = queue.take() {
            taken.push(frame.message().as_text().unwrap().to_owned());
        }
        taken
    }

    #[test]
    fn drop_oldest_keeps_the_newest_publications_and_all_other_items() {
        let queue = Queue::new(4 * (ITEM_BYTES + 1), None);
        queue.push(push("x"));
        let dropped: usize = (0..6)
            .map(|n: u32| {
                queue
                    .push_counted(publication(&n.to_string(), &SlowConsumerPolicy::DropOldest, ""))
                    .oldest
            })
            .sum();
        assert_eq!(dropped, 3);
        assert_eq!((queue.take_dropped(), queue.take_dropped()), (3, 0));
        assert_eq!(queue.bytes(), 4 * (ITEM_BYTES + 1));
        assert_eq!(taken(&queue), ["x", "3", "4", "5"]);
        // What may not be dropped still disconnects.
        for _ in 0..5 {
            queue.push(push("x"));
        }
        assert_eq!(queue.take(), Some(Outgoing::Close(DisconnectCode::Slow)));
    }

    #[test]
    fn a_positioned_subscription_ends_when_a_publication_is_dropped() {
        let first = Generation::default();
        let queue = Queue::new(3 * (ITEM_BYTES + 200) + 2 * (ITEM_BYTES + 1), None);
        let push = |text, channel, generation| queue.push_counted(positioned(text, channel, generation).0);
        let (_, a) = positioned("", "a", first);
        for (text, channel) in [("1", "a"), ("x", "b"), ("2", "a")] {
            assert_eq!(push(text, channel, first), Dropped::default());
        }
        queue.push(reply("r"));
        queue.push(reply("r"));
        // The client recovers from the last publication that it has received, so the newer one that waits is dropped, too.
        let dropped = push("y", "b", first);
        assert_eq!((dropped.oldest, dropped.ended_subscriptions), (2, 1));
        assert!(queue.has_ended(&a));
        let dropped = push("3", "a", first);
        assert_eq!((dropped.oldest, dropped.ended_subscriptions), (1, 0));
        assert_eq!(queue.take_dropped(), 3);

        let (x, y) = ("x".repeat(200), "y".repeat(200));
        assert_eq!(taken(&queue), [x.as_str(), "r\nr", &y]);
        // `taken` also took the unsubscribe item and stopped there.
        assert_eq!((queue.bytes(), queue.take()), (0, None));
        // The next subscription is not concerned, even before the hub knows that the first one has ended.
        assert_eq!(push("4", "a", first.next()), Dropped::default());
        queue.forget_ended(&a);
        assert!(!queue.has_ended(&a));
        assert_eq!(taken(&queue), ["4".repeat(200)]);
    }

    #[test]
    fn the_end_of_a_subscription_follows_what_was_queued_before_it() {
        let queue = Queue::new((ITEM_BYTES + 200) + (ITEM_BYTES + 1), None);
        let (item, subscription) = positioned("1", "a", Generation::default());
        queue.push(item);
        queue.push(push("p"));
        queue.push(positioned("2", "a", Generation::default()).0);
        assert_eq!(queue.take(), frame("p"));
        let Some(Outgoing::Unsubscribe(ended, code, push)) = queue.take() else {
            panic!("the subscription has not ended");
        };
        assert_eq!((ended, code), (subscription, UnsubscribeCode::InsufficientState));
        let push = push.message().as_text().unwrap();
        assert!(push.contains("\"channel\":\"a\"") && push.contains("2500"), "{push}");
    }

    #[test]
    fn a_reply_displaces_publications_that_may_be_dropped() {
        let queue = Queue::new(3 * (ITEM_BYTES + 1), None);
        queue.push(push("p"));
        for text in ["1", "2"] {
            queue.push(publication(text, &SlowConsumerPolicy::DropOldest, ""));
        }
        assert_eq!(queue.push_counted(reply("r")).oldest, 1);
        assert_eq!(taken(&queue), ["p", "2", "r"]);
    }

    #[test]
    fn a_publication_larger_than_the_queue_disconnects() {
        let queue = Queue::new(100, None);
        queue.push(publication("1", &SlowConsumerPolicy::DropOldest, ""));
        queue.push(publication(&"x".repeat(100), &SlowConsumerPolicy::DropOldest, ""));
        assert_eq!(queue.take(), Some(Outgoing::Close(DisconnectCode::Slow)));
    }

    #[test]
    fn latest_keeps_one_publication_per_channel_or_key() {
        let queue = Queue::new(1 << 20, None);
        let whole = SlowConsumerPolicy::Latest { key_tag: None };
        let dropped: Vec<usize> = ["1", "2", "3"]
            .map(|text| queue.push_counted(publication(text, &whole, text)).replaced)
            .into();
        assert_eq!(dropped, [0, 1, 1]);
        assert_eq!(taken(&queue), ["3"]);

        let by_symbol = SlowConsumerPolicy::Latest {
            key_tag: Some("symbol".to_owned()),
        };
        for (text, symbol) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "c"), ("5", "b")] {
            queue.push(publication(text, &by_symbol, symbol));
        }
        assert_eq!(taken(&queue), ["3", "4", "5"]);
        assert_eq!(queue.bytes(), 0);
        // What was sent is not replaced.
        assert_eq!(
            queue.push_counted(publication("6", &by_symbol, "a")),
            Dropped::default()
        );
        assert_eq!(taken(&queue), ["6"]);
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
        let connecting = client.request("ws://localhost/").connect_over(far);
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
