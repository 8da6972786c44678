//! Live delivery: one core NATS subscription for each channel with subscribers on this node.
//!
//! A subscription costs about 5 KiB, mostly the queue of the client library. Its task moves messages to the inbox,
//! which never blocks. If a queue is full nevertheless, the client library drops messages and says so; the positions of
//! all channels are then compared with their streams. If a task ends because of a fault of its own, the channel is
//! subscribed to once more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::super::cluster::{Event, Inbox, Membership, MembershipKind, StoreError, StoredPublication};
use super::super::{Epoch, Position, unix_time_ms};
use super::api::{parse_time_ms, publish_error, unavailable};
use super::history::{MARKER, publisher_time};
use super::{Link, Shared};
use crate::channel::ChannelName;

/// Header of messages that are not publications: `join` or `leave`.
const KIND: &str = "Sockeye-Kind";

/// Time for other servers of a cluster to learn of a subscription.
pub(super) const PROPAGATION: Duration = Duration::from_millis(500);

/// Pause before a channel whose task has ended is subscribed to again.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);

const RESUBSCRIBE_ATTEMPTS: u32 = 10;

/// The channels to which this node is subscribed.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    channels: Mutex<HashMap<ChannelName, Subscription>>,
}

#[derive(Debug)]
struct Subscription {
    state: Arc<State>,
    task: AbortHandle,
}

/// What is known about a channel.
#[derive(Debug, Default)]
pub(super) struct State {
    confirmed: Mutex<Option<Confirmed>>,
    /// Whether the server has processed the subscription.
    is_subscribed: AtomicBool,
}

/// The newest position of a channel, which the stream has confirmed.
#[derive(Clone, Debug)]
struct Confirmed {
    position: Position,
    at: Instant,
}

impl State {
    fn confirm(&self, position: &Position) {
        let mut confirmed = self.confirmed.lock();
        // A replica may lag behind.
        if let Some(known) = &*confirmed
            && known.position.epoch == position.epoch
            && known.position.offset > position.offset
        {
            return;
        }
        *confirmed = Some(Confirmed {
            position: position.clone(),
            at: Instant::now(),
        });
    }

    /// The offset that was confirmed in this epoch less than `age_max` ago.
    fn confirmed(&self, epoch: &Epoch, age_max: Duration) -> Option<u64> {
        let confirmed = self.confirmed.lock();
        let known = confirmed.as_ref()?;
        (known.position.epoch == *epoch && known.at.elapsed() < age_max).then_some(known.position.offset)
    }
}

impl Subscriptions {
    /// Ends all subscriptions.
    pub(super) fn clear(&self) {
        for (_, subscription) in self.channels.lock().drain() {
            subscription.task.abort();
        }
    }
}

impl Shared {
    pub(super) async fn subscribe(self: &Arc<Self>, channel: &ChannelName) -> Result<(), StoreError> {
        let link = self.link()?;
        let state = self.subscribe_if_missing(link, channel).await?;
        if state.is_subscribed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.barrier(link).await?;
        let is_new = !state.is_subscribed.swap(true, Ordering::AcqRel);
        if is_new && link.client.server_info().cluster.is_some() {
            // Other servers learn of the subscription a little later, and until then do not send.
            let (shared, channel) = (self.clone(), channel.clone());
            tokio::spawn(async move {
                sleep(PROPAGATION).await;
                if shared.subscriptions.channels.lock().contains_key(&channel)
                    && let Some(inbox) = shared.inbox.get()
                {
                    inbox.mark_dirty(&channel);
                }
            });
        }
        Ok(())
    }

    /// Subscribes to a channel, unless this node is subscribed. The server may not have processed it yet.
    pub(super) async fn subscribe_if_missing(
        self: &Arc<Self>,
        link: &Link,
        channel: &ChannelName,
    ) -> Result<Arc<State>, StoreError> {
        if let Some(subscription) = self.subscriptions.channels.lock().get(channel) {
            return Ok(subscription.state.clone());
        }
        let subscriber = link.client.subscribe(self.subjects.live(channel)).await;
        let subscriber = subscriber.map_err(|error| StoreError::Unavailable(error.to_string().into()))?;
        let state = Arc::new(State::default());
        let receive = receive(self.clone(), channel.clone(), state.clone(), subscriber);
        let task = tokio::spawn(receive).abort_handle();
        let subscription = Subscription {
            state: state.clone(),
            task,
        };
        if let Some(old) = self.subscriptions.channels.lock().insert(channel.clone(), subscription) {
            old.task.abort();
        }
        Ok(state)
    }

    pub(super) fn unsubscribe(&self, channel: &ChannelName) {
        let mut channels = self.subscriptions.channels.lock();
        if let Some(subscription) = channels.remove(channel) {
            // The task drops the subscriber, which unsubscribes.
            subscription.task.abort();
        }
        if channels.len() < channels.capacity() / 4 {
            channels.shrink_to_fit();
        }
    }

    /// Ends the subscriptions to channels that have lost their last subscriber while the server could not be told.
    pub(super) fn end_unwanted_subscriptions(&self, inbox: &Inbox) {
        // In this order, so that a channel that gets a subscriber now is not taken for one without.
        let subscribed: Vec<_> = self.subscriptions.channels.lock().keys().cloned().collect();
        let wanted: HashSet<_> = inbox.subscriptions().into_iter().collect();
        for channel in subscribed.iter().filter(|channel| !wanted.contains(*channel)) {
            self.unsubscribe(channel);
        }
    }

    /// Returns when the server has processed everything that this node has sent to it.
    pub(super) async fn barrier(&self, link: &Link) -> Result<(), StoreError> {
        let number = link.next_barrier();
        let mut passed = link.barriers.subscribe();
        let subject = self.subjects.barrier(&self.uid);
        let published = link.client.publish(subject, number.to_string().into()).await;
        published.map_err(|error| publish_error(&error))?;
        let arrived = tokio::time::timeout(super::api::REQUEST_TIMEOUT, passed.wait_for(|passed| *passed >= number));
        match arrived.await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(unavailable("no response in time").into()),
        }
    }

    pub(super) async fn announce(&self, channel: &ChannelName, membership: Membership) -> Result<(), StoreError> {
        let link = self.link()?;
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(KIND, kind_name(membership.kind));
        let subject = self.subjects.live(channel);
        let published = link.client.publish_with_headers(subject, headers, membership.info);
        published.await.map_err(|error| publish_error(&error))
    }

    /// Remembers the newest position of a channel, if this node is subscribed to it.
    pub(super) fn confirm(&self, channel: &ChannelName, position: &Position) {
        if let Some(subscription) = self.subscriptions.channels.lock().get(channel) {
            subscription.state.confirm(position);
        }
    }

    /// The offset of the channel that this node has confirmed in this epoch less than `age_max` ago. Nothing that was
    /// published since then has expired.
    pub(super) fn confirmed(&self, channel: &ChannelName, epoch: &Epoch, age_max: Duration) -> Option<u64> {
        let channels = self.subscriptions.channels.lock();
        channels.get(channel)?.state.confirmed(epoch, age_max)
    }
}

fn kind_name(kind: MembershipKind) -> &'static str {
    match kind {
        MembershipKind::Join => "join",
        MembershipKind::Leave => "leave",
    }
}

/// Passes the messages of a channel on to the inbox, which never blocks.
async fn receive(shared: Arc<Shared>, channel: ChannelName, state: Arc<State>, mut subscriber: Subscriber) {
    let Some(inbox) = shared.inbox.get().cloned() else {
        return;
    };
    let _receiving = Receiving {
        shared: &shared,
        channel: &channel,
        state: &state,
    };
    let mut marker = None;
    while let Some(message) = subscriber.next().await {
        push(&shared, &inbox, &channel, &state, &mut marker, message);
    }
}

/// Subscribes to a channel once more if its task ends while it is subscribed.
struct Receiving<'a> {
    shared: &'a Arc<Shared>,
    channel: &'a ChannelName,
    state: &'a Arc<State>,
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        {
            let mut channels = self.shared.subscriptions.channels.lock();
            match channels.get(self.channel) {
                Some(current) if Arc::ptr_eq(&current.state, self.state) => channels.remove(self.channel),
                _ => return,
            };
        }
        let (shared, channel) = (self.shared.clone(), self.channel.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tracing::warn!(%channel, "the subscription to a channel has ended; subscribing again");
                // After a disconnection, the supervisor subscribes to all channels.
                for _ in 0..RESUBSCRIBE_ATTEMPTS {
                    sleep(RESUBSCRIBE_PAUSE).await;
                    if shared.subscribe(&channel).await.is_ok()
                        && let Some(inbox) = shared.inbox.get()
                    {
                        inbox.mark_dirty(&channel);
                        return;
                    }
                }
            });
        }
    }
}

/// A marker: its sequence, and the position of the channel.
type Marker = Option<(u64, u64)>;

fn push(shared: &Shared, inbox: &Inbox, channel: &ChannelName, state: &State, marker: &mut Marker, message: Message) {
    let header = |name: &str| Some(message.headers.as_ref()?.get(name)?.as_str());
    if let Some(kind) = header(KIND) {
        let kind = match kind {
            "join" => MembershipKind::Join,
            "leave" => MembershipKind::Leave,
            _ => return,
        };
        let membership = Membership {
            kind,
            info: message.payload,
        };
        inbox.push(Event::Membership {
            channel: channel.clone(),
            membership,
        });
        return;
    }
    let time_ms = message
        .headers
        .as_ref()
        .and_then(publisher_time)
        .unwrap_or_else(unix_time_ms);
    let stored = header("Nats-Subject").and_then(|subject| shared.subjects.parse_stored(subject));
    let Some((key, epoch)) = stored else {
        inbox.push(Event::Publication {
            channel: channel.clone(),
            epoch: None,
            publication: StoredPublication {
                offset: 0,
                previous: 0,
                time_ms,
                payload: message.payload,
            },
        });
        return;
    };
    let number = |name| header(name)?.parse::<u64>().ok();
    let (Some(offset @ 1..), Some(before)) = (number("Nats-Sequence"), number("Nats-Last-Sequence")) else {
        // Another server version, or another program: the stream shows what it is.
        inbox.mark_dirty(channel);
        return;
    };
    if let Some(stream) = shared.streams.known(key, &epoch)
        && let Some(time_ms) = header("Nats-Time-Stamp").and_then(parse_time_ms)
    {
        stream.saw(offset, time_ms);
    }
    if let Some(position) = number(MARKER) {
        *marker = Some((offset, position));
        return;
    }
    let previous = match before {
        // Either the channel had no message, or they have expired.
        0 => state.confirmed(&epoch, key.class.age_max()).unwrap_or(offset - 1),
        before => marker
            .filter(|(marker, _)| *marker == before)
            .map_or(before, |(_, position)| position),
    };
    state.confirm(&Position {
        epoch: epoch.clone(),
        offset,
    });
    inbox.push(Event::Publication {
        channel: channel.clone(),
        epoch: Some(epoch),
        publication: StoredPublication {
            offset,
            previous,
            time_ms,
            payload: message.payload,
        },
    });
}
