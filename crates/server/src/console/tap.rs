//! A live view of the publications of one channel, as lines of JSON in the response to a request.
//!
//! A tap is a subscriber that presence, statistics and other clients do not see. It is bounded: while the operator's
//! browser reads more slowly than the channel publishes, the oldest publications are dropped, and a line says how many.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::channel::{ChannelName, SubscriberOptions};
use crate::config::SlowConsumerPolicy;
use crate::ids::{ClientId, Generation, Subscription};
use crate::node::Node;
use crate::protocol::bytes;
use crate::queue::{Outgoing, Queue};

/// Size of the queue beside the largest publication.
const QUEUE_BYTES: usize = 128 << 10;

/// Time between two parts of the response. With the size of the queue, it limits what a busy channel costs the browser.
const PART_INTERVAL: Duration = Duration::from_millis(100);

/// A line is sent at least this often, so that a browser that is gone is noticed.
const ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A subscriber that is hidden from presence, statistics and other clients. Dropping it ends the subscription.
#[derive(Debug)]
pub(super) struct Tap {
    node: Arc<Node>,
    subscription: Subscription,
    client: ClientId,
    queue: Arc<Queue>,
}

impl Tap {
    /// Subscribes to a channel. Returns `None` if the engine fails.
    pub(super) async fn open(node: &Arc<Node>, channel: ChannelName) -> Option<Self> {
        let publication_size_max = node.config().limits.publication_size_max;
        let tap = Self {
            node: node.clone(),
            subscription: Subscription {
                channel,
                generation: Generation::default().next(),
            },
            client: ClientId::from_random(rand::random()),
            queue: Arc::new(Queue::new(QUEUE_BYTES.saturating_add(publication_size_max), None)),
        };
        let options = SubscriberOptions {
            join_leave: true,
            is_hidden: true,
            slow_consumer: Some(Arc::new(SlowConsumerPolicy::DropOldest)),
            ..SubscriberOptions::default()
        };
        let channel = &tap.subscription.channel;
        node.hub()
            .subscribe(&tap.subscription, tap.client, tap.queue.clone(), options);
        node.interest_changed(channel).await.ok()?;
        node.hub().activate(channel, tap.client, None, None, None).ok()?;
        Some(tap)
    }

    /// Sends lines until `frames` is closed or `ended` completes. Lines are pushes of the client protocol,
    /// `{"dropped":N}`, or `{}` if there was nothing for a while.
    pub(super) async fn run(self, frames: mpsc::Sender<Bytes>, ended: impl Future<Output = ()>) {
        tokio::select! {
            () = ended => {}
            () = frames.closed() => {}
            () = self.send_lines(&frames) => {}
        }
    }

    async fn send_lines(&self, frames: &mpsc::Sender<Bytes>) {
        // At once, so that the page sees that the tap works.
        let mut part = b"{}\n".to_vec();
        let write_timeout = self.node.startup_config().timeouts.write;
        loop {
            let sent = timeout(write_timeout, frames.send(part.into())).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
            sleep(PART_INTERVAL).await;
            let _ = timeout(ALIVE_INTERVAL, self.queue.ready()).await;
            let Some(next) = self.lines() else { return };
            part = next;
        }
    }

    /// Everything that is queued. `None` if the queue is closed.
    fn lines(&self) -> Option<Vec<u8>> {
        let mut lines = match self.queue.take_dropped() {
            0 => Vec::new(),
            dropped => format!("{{\"dropped\":{dropped}}}\n").into_bytes(),
        };
        loop {
            match self.queue.take() {
                Some(Outgoing::Frame(frame)) => {
                    lines.extend_from_slice(bytes(frame.message()));
                    lines.push(b'\n');
                }
                Some(Outgoing::Close(_)) => return None,
                Some(Outgoing::Unsubscribe(..) | Outgoing::Command(_) | Outgoing::Answer(_)) => {}
                None if lines.is_empty() => return Some(b"{}\n".to_vec()),
                None => return Some(lines),
            }
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.node.hub().unsubscribe(&self.subscription, self.client);
        let (node, channel) = (self.node.clone(), self.subscription.channel.clone());
        // Without a runtime, the process is about to end.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = node.interest_changed(&channel).await {
                    tracing::debug!(%channel, %error, "the engine could not record that a tap was closed");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::Content;
    use crate::protocol::Data;

    async fn publish(node: &Node, channel: &ChannelName, data: &str) {
        let content = Content {
            data: Data::json(data).unwrap(),
            info: None,
            tags: None,
        };
        node.engine().publish(channel, content).await.unwrap();
    }

    #[tokio::test]
    async fn a_tap_is_not_counted_and_sees_publications_in_order() {
        let node = Node::new(Config::default());
        let channel = ChannelName::new("room").unwrap();
        let tap = Tap::open(&node, channel.clone()).await.unwrap();
        assert_eq!(node.hub().subscriber_counts(), []);
        assert_eq!(node.hub().stats().subscriptions, 0);
        for number in 1..=3 {
            publish(&node, &channel, &number.to_string()).await;
        }
        let lines = String::from_utf8(tap.lines().unwrap()).unwrap();
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[2].starts_with(r#"{"push":{"channel":"room","pub":{"data":3"#),
            "{lines:?}"
        );
        assert_eq!(tap.lines().unwrap(), b"{}\n");
        drop(tap);
        assert!(!crate::engine::Deliver::has_subscribers(node.hub(), &channel));
    }

    #[tokio::test(start_paused = true)]
    async fn a_browser_that_does_not_read_costs_the_queue_and_sees_what_was_dropped() {
        let node = Node::new(Config::default());
        let channel = ChannelName::new("room").unwrap();
        let tap = Tap::open(&node, channel.clone()).await.unwrap();
        let queue = tap.queue.clone();
        let (frames, mut received) = mpsc::channel(1);
        let running = tokio::spawn(tap.run(frames, std::future::pending()));
        assert_eq!(received.recv().await.unwrap(), "{}\n");
        let large = format!("\"{}\"", "x".repeat(20_000));
        for _ in 0..100 {
            publish(&node, &channel, &large).await;
        }
        assert!(queue.bytes() <= QUEUE_BYTES + Config::default().limits.publication_size_max);
        let part = received.recv().await.unwrap();
        let text = std::str::from_utf8(&part).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        let dropped = 100 - rest.lines().count();
        assert!(dropped > 50, "{dropped}");
        assert_eq!(first, format!("{{\"dropped\":{dropped}}}"));
        // What a tap misses is not missed by a client.
        assert_eq!(node.hub().stats().dropped.total(), 0);
        drop(received);
        running.await.unwrap();
        assert!(!crate::engine::Deliver::has_subscribers(node.hub(), &channel));
    }
}
