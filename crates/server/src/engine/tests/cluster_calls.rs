//! Many calls at once to the store of a cluster engine, in virtual time.

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::*;
use crate::channel::{Hub, PositionCheck, STEPS, SubscriberOptions};
use crate::ids::Generation;
use crate::queue::Queue;

/// A node whose calls to the store take `latency`.
async fn slow_node(latency: Duration) -> (Arc<SimServer>, Arc<Fixture<ClusterBroker>>) {
    let server = SimServer::new(1);
    let node = Fixture::node(Setup::ten(), &server, "node").await;
    server.set_latency(latency);
    (server, Arc::new(node))
}

impl Fixture<ClusterBroker> {
    /// As for the first subscriber of a channel.
    async fn subscribe(&self, channel: &ChannelName) -> Result<(), EngineError> {
        self.recorder.subscribed.lock().push(channel.clone());
        self.engine.interest_changed(channel).await
    }
}

#[tokio::test(start_paused = true)]
async fn many_channels_are_opened_at_once() {
    let (_server, node) = slow_node(Duration::from_millis(500)).await;
    let channels: Vec<_> = (0..1000).map(|n| name(&format!("c{n}"))).collect();
    let start = Instant::now();
    let results = join_all(channels.iter().map(|channel| node.subscribe(channel))).await;
    assert_eq!(results, [Ok(()); 1000]);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_calls_waits_for_its_turn() {
    let (_server, node) = slow_node(Duration::from_secs(1)).await;
    let start = Instant::now();
    let (channel, content) = (name("plain"), content("1"));
    let publish = (0..3000).map(|_| node.engine.publish(&channel, content.clone()));
    let results = join_all(publish).await;
    let failed = results.iter().filter(|result| result.is_err()).count();
    assert_eq!(failed, 0, "after {:?}", start.elapsed());
    // Beyond that, calls fail at last.
    let publish = (0..10_000).map(|_| node.engine.publish(&channel, content.clone()));
    let start = Instant::now();
    let results = join_all(publish).await;
    assert!(results.contains(&Err(EngineError::Unreachable)));
    assert!(start.elapsed() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn subscribers_of_one_channel_share_calls() {
    let (server, node) = slow_node(Duration::from_millis(500)).await;
    let before = server.subscribe_calls();
    let channel = name("hot");
    let results = join_all((0..1000).map(|_| node.subscribe(&channel))).await;
    assert_eq!(results, [Ok(()); 1000]);
    assert_eq!(server.subscribe_calls() - before, 2);
    assert!(server.is_subscribed("node", &channel));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_whose_predecessor_gives_up_makes_its_own_call() {
    let (server, node) = slow_node(Duration::from_millis(500)).await;
    let channel = name("hot");
    let first = timeout(Duration::from_millis(100), node.subscribe(&channel));
    let (first, second) = futures_util::join!(first, node.subscribe(&channel));
    assert!(first.is_err());
    assert_eq!(second, Ok(()));
    assert!(server.is_subscribed("node", &channel));
}

#[tokio::test(start_paused = true)]
async fn the_last_change_of_a_channel_wins() {
    let (server, node) = slow_node(Duration::from_millis(100)).await;
    let channel = name("hot");
    for has_subscribers in [false, true] {
        let subscribe = node.subscribe(&channel);
        let change = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            node.recorder
                .subscribed
                .lock()
                .retain(|subscribed| *subscribed != channel);
            let left = node.engine.interest_changed(&channel);
            match has_subscribers {
                false => left.await,
                true => futures_util::join!(left, node.subscribe(&channel)).1,
            }
        };
        let results = futures_util::join!(subscribe, change);
        assert_eq!(results, (Ok(()), Ok(())));
        assert_eq!(server.is_subscribed("node", &channel), has_subscribers);
    }
}

#[tokio::test(start_paused = true)]
async fn subscribers_do_not_wait_for_a_timeout_each() {
    let (_server, node) = slow_node(Duration::from_secs(60)).await;
    let start = Instant::now();
    let channel = name("hot");
    let results = join_all((0..100).map(|_| node.subscribe(&channel))).await;
    assert_eq!(results, [Err(EngineError::Unreachable); 100]);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_round_of_position_checks_makes_few_calls() {
    const CHANNELS: usize = 20_000;
    let server = SimServer::new(1);
    let hub = Arc::new(Hub::new());
    let refuse = Arc::new(|_: &ChannelName| OutagePolicy::Refuse);
    let store = SimStore::new(&server, "node");
    let broker = ClusterBroker::new(store, hub.clone(), Setup::ten().limits(), refuse, "node".into());
    let engine = Engine::new(Arc::new(broker), Arc::new(MemoryPresence::new()));
    let running = engine.clone();
    tokio::spawn(async move { running.run().await });
    while engine.health() != Health::Ready {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let queue = Arc::new(Queue::new(1 << 20, None));
    let client = ClientId::from_random(1);
    for n in 0..CHANNELS {
        let subscription = Subscription {
            channel: name(&format!("c{n}")),
            generation: Generation::default().next(),
        };
        let options = SubscriberOptions {
            positioned: true,
            ..SubscriberOptions::default()
        };
        hub.subscribe(&subscription, client, queue.clone(), options);
        let top = engine
            .positions(std::slice::from_ref(&subscription.channel))
            .await
            .unwrap();
        hub.activate(&subscription.channel, client, None, top[0].as_ref(), None)
            .unwrap();
    }
    server.set_latency(Duration::from_millis(20));
    let (start, before) = (Instant::now(), server.position_calls());
    let mut check = PositionCheck::default();
    for _ in 0..STEPS {
        assert_eq!(check.step(&hub, &engine, Instant::now()).await, 0);
    }
    assert_eq!(
        server.position_calls() - before,
        u64::from(STEPS),
        "one call for each part of the hub"
    );
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
