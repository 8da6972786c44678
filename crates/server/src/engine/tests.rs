//! Tests of an engine by its deliveries.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::stream::StreamLimits;
use super::streams::Streams;
use super::*;
use crate::config::{ChannelOptions, Limits};
use crate::presence::Generation;

/// Records what an engine delivers.
#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<String>>,
    subscribed: Mutex<Vec<ChannelName>>,
}

impl Deliver for Recorder {
    fn has_subscribers(&self, channel: &ChannelName) -> bool {
        self.subscribed.lock().contains(channel)
    }

    fn publication(&self, channel: &ChannelName, publication: &Publication, epoch: Option<&Epoch>) {
        let data = publication.content.data.to_json();
        let has_epoch = epoch.is_some();
        self.events
            .lock()
            .push(format!("{channel} {} {data} {has_epoch}", publication.offset));
    }

    fn join(&self, channel: &ChannelName, info: &ClientInfo) {
        self.events.lock().push(format!("{channel} join {}", info.user));
    }

    fn leave(&self, channel: &ChannelName, info: &ClientInfo) {
        self.events.lock().push(format!("{channel} leave {}", info.user));
    }
}

struct Fixture {
    recorder: Arc<Recorder>,
    engine: MemoryEngine,
}

const TTL: Duration = Duration::from_secs(60);

impl Fixture {
    fn new(history_count_max: usize, limits: Limits) -> Self {
        let options = ChannelOptions {
            history_count_max,
            history_ttl: TTL,
            ..Default::default()
        };
        let recorder = Arc::new(Recorder::default());
        Self {
            engine: MemoryEngine::new(recorder.clone(), &options, &limits),
            recorder,
        }
    }

    async fn publish(&self, channel: &str, data: &str) {
        let content = Content {
            data: Data::json(data).unwrap(),
            info: None,
            tags: None,
        };
        self.engine.publish(&name(channel), content).await.unwrap();
    }

    async fn history(&self, channel: &str) -> History {
        let query = HistoryQuery {
            limit: 100,
            ..Default::default()
        };
        self.engine.history(&name(channel), query).await.unwrap()
    }

    fn delivered(&self) -> Vec<String> {
        std::mem::take(&mut self.recorder.events.lock())
    }
}

fn name(channel: &str) -> ChannelName {
    ChannelName::new(channel).unwrap()
}

fn member(bits: u128, user: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        client: ClientId::from_random(bits),
        user: user.into(),
        conn_info: None,
        chan_info: None,
    })
}

#[tokio::test]
async fn publications_are_numbered_per_channel() {
    let fixture = Fixture::new(10, Limits::default());
    for (channel, data) in [("a", "1"), ("b", "2"), ("a", "3")] {
        fixture.publish(channel, data).await;
    }
    assert_eq!(fixture.delivered(), ["a 1 1 true", "b 1 2 true", "a 2 3 true"]);
    assert_eq!(fixture.history("a").await.publications.len(), 2);
    assert_ne!(
        fixture.history("a").await.top.epoch,
        fixture.history("b").await.top.epoch
    );
}

#[tokio::test]
async fn without_history_publications_have_no_offset() {
    let fixture = Fixture::new(0, Limits::default());
    fixture.publish("a", "1").await;
    assert_eq!(fixture.delivered(), ["a 0 1 false"]);
    let history = fixture.engine.history(&name("a"), HistoryQuery::default()).await;
    assert_eq!(history.unwrap_err(), EngineError::NoHistory);
}

#[tokio::test]
async fn joins_and_leaves_are_delivered() {
    let fixture = Fixture::new(10, Limits::default());
    fixture.engine.publish_join(&name("a"), member(1, "ada")).await.unwrap();
    fixture
        .engine
        .publish_leave(&name("a"), member(1, "ada"))
        .await
        .unwrap();
    assert_eq!(fixture.delivered(), ["a join ada", "a leave ada"]);
}

#[tokio::test]
async fn presence_lists_up_to_a_limit_and_counts_beyond_it() {
    let fixture = Fixture::new(10, Limits::default());
    let channel = name("a");
    let subscription = Subscription {
        channel: channel.clone(),
        generation: Generation::default(),
    };
    for (bits, user) in [(1, "ada"), (2, "ada"), (3, "bob")] {
        let info = member(bits, user);
        fixture.engine.presence_add(&subscription, info).await.unwrap();
    }
    assert_eq!(fixture.engine.presence(&channel, 2).await.unwrap(), None);
    assert_eq!(fixture.engine.presence(&channel, 3).await.unwrap().unwrap().len(), 3);
    assert_eq!(
        fixture.engine.presence_stats(&channel).await.unwrap(),
        PresenceStats { clients: 3, users: 2 }
    );
    fixture
        .engine
        .presence_remove(&subscription, ClientId::from_random(3))
        .await
        .unwrap();
    assert_eq!(
        fixture.engine.presence_stats(&channel).await.unwrap(),
        PresenceStats { clients: 2, users: 1 }
    );
}

#[tokio::test(start_paused = true)]
async fn an_unused_stream_is_evicted_and_gets_a_new_epoch() {
    let fixture = Fixture::new(10, Limits::default());
    fixture.publish("a", "1").await;
    fixture.publish("b", "1").await;
    fixture.recorder.subscribed.lock().push(name("b"));
    let (a, b) = (fixture.history("a").await.top, fixture.history("b").await.top);

    tokio::time::advance(TTL).await;
    fixture.engine.sweep();
    fixture.engine.sweep();
    assert_eq!(fixture.history("a").await.top.offset, 0);
    assert_ne!(fixture.history("a").await.top.epoch, a.epoch);
    // This channel has subscribers: its publications expire, and its offsets continue.
    assert_eq!(fixture.history("b").await.top, b);
    assert!(fixture.history("b").await.publications.is_empty());
}

#[tokio::test(start_paused = true)]
async fn all_histories_stay_within_the_memory_budget() {
    let limits = Limits {
        history_bytes_max: 64 << 10,
        ..Default::default()
    };
    let fixture = Fixture::new(10, limits);
    let data = format!("\"{}\"", "x".repeat(1000));
    for n in 0..200 {
        tokio::time::advance(Duration::from_millis(1)).await;
        fixture.publish(&format!("c{n}"), &data).await;
        assert!(fixture.engine.history_bytes() <= 64 << 10);
    }
    assert_eq!(fixture.history("c199").await.publications.len(), 1);
    assert_eq!(fixture.history("c0").await.publications.len(), 0);
}

/// Subscriptions to channels without publications must not use memory or evict other channels.
#[tokio::test(start_paused = true)]
async fn reading_a_channel_without_history_creates_nothing() {
    let limits = Limits {
        history_bytes_max: 64 << 10,
        ..Default::default()
    };
    let fixture = Fixture::new(10, limits);
    fixture.publish("real", "1").await;
    let bytes = fixture.engine.history_bytes();
    for n in 0..10_000 {
        assert_eq!(fixture.history(&format!("never{n}")).await.top.offset, 0);
    }
    assert_eq!(fixture.engine.history_bytes(), bytes);
    assert_eq!(fixture.history("real").await.publications.len(), 1);
}

/// A client that subscribed before the first publication can recover all publications.
#[tokio::test(start_paused = true)]
async fn the_first_publication_continues_the_epoch_that_was_read_before() {
    let fixture = Fixture::new(10, Limits::default());
    let before = fixture.history("a").await.top;
    assert_eq!(before, fixture.history("a").await.top);
    fixture.publish("a", "1").await;
    let history = fixture.history("a").await;
    assert_eq!(history.top.epoch, before.epoch);
    assert!(is_recovered(&before, &history));
}

#[tokio::test(start_paused = true)]
async fn an_evicted_channel_never_has_an_epoch_twice() {
    let fixture = Fixture::new(10, Limits::default());
    let mut epochs = Vec::new();
    for _ in 0..100 {
        fixture.publish("a", "1").await;
        let known = fixture.history("a").await.top;
        tokio::time::advance(TTL).await;
        fixture.engine.sweep();
        // Neither without publications, nor with as many publications as before.
        let absent = fixture.history("a").await;
        assert!(absent.top.offset == 0 && !is_recovered(&known, &absent));
        fixture.publish("a", "1").await;
        assert!(!is_recovered(&known, &fixture.history("a").await));
        epochs.push(known.epoch.as_str().to_owned());
        tokio::time::advance(TTL).await;
        fixture.engine.sweep();
    }
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 100);
}

/// Compares the channels with history to a list that is sorted by last use.
#[tokio::test(start_paused = true)]
async fn the_least_recently_used_channels_are_evicted_first() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    let limits = Limits {
        history_bytes_max: 40 << 10,
        ..Default::default()
    };
    let fixture = Fixture::new(3, limits.clone());
    let streams = |fixture: &Fixture| fixture.engine.history_bytes();
    // Channel names, least recently used first.
    let mut used: Vec<String> = Vec::new();
    let mut rng = StdRng::seed_from_u64(6455);
    let mut evicted = 0;
    for _ in 0..2_000 {
        tokio::time::advance(Duration::from_micros(1)).await;
        let name = format!("c{}", rng.random_range(0..80));
        let is_known = used.iter().position(|known| *known == name);
        if rng.random_range(0..4) == 0 {
            assert_eq!(fixture.history(&name).await.top.offset > 0, is_known.is_some());
            if let Some(at) = is_known {
                let name = used.remove(at);
                used.push(name);
            }
            continue;
        }
        if let Some(at) = is_known {
            used.remove(at);
        }
        fixture
            .publish(&name, &format!("\"{}\"", "x".repeat(rng.random_range(0..1500))))
            .await;
        used.push(name);
        assert!(streams(&fixture) <= limits.history_bytes_max);
        // Only the first ones of the list were evicted, and no more than needed.
        let mut gone = 0;
        while gone < used.len() && !fixture.engine.has_stream(&self::name(&used[gone])) {
            gone += 1;
        }
        assert!(
            used[gone..]
                .iter()
                .all(|name| fixture.engine.has_stream(&self::name(name)))
        );
        evicted += gone;
        used.drain(..gone);
    }
    assert!(evicted > 100, "{evicted}");
}

/// Delivery holds the lock of its stream. The sweep and other publishers must not wait for it.
#[tokio::test(start_paused = true)]
async fn eviction_skips_locked_streams() {
    let limits = StreamLimits {
        count_max: 10,
        bytes_max: 64 << 10,
        ttl: TTL,
    };
    let content = || Content {
        data: Data::json(format!("\"{}\"", "x".repeat(2000))).unwrap(),
        info: None,
        tags: None,
    };
    let streams = Streams::new(limits, 8 << 10);
    let recorder = Recorder::default();
    streams.append(&name("busy"), content(), 0, |_, _| ());
    tokio::time::advance(TTL * 2).await;
    streams.append(&name("busy"), content(), 0, |_, _| {
        streams.sweep(&recorder);
        for n in 0..100 {
            streams.append(&name(&format!("c{n}")), content(), 0, |_, _| ());
        }
        assert!(streams.has(&name("busy")));
    });
    assert!(streams.bytes() <= 8 << 10, "{}", streams.bytes());
}

#[tokio::test(start_paused = true)]
async fn a_sweep_frees_each_publication_when_it_expires() {
    let fixture = Fixture::new(10, Limits::default());
    for n in 0..1_000 {
        fixture.publish(&format!("c{n}"), "1").await;
        fixture.publish("busy", "1").await;
    }
    let full = fixture.engine.history_bytes();
    tokio::time::advance(TTL / 2).await;
    fixture.publish("busy", "1").await;
    fixture.engine.sweep();
    assert_eq!(fixture.engine.history_bytes(), full);
    tokio::time::advance(TTL / 2).await;
    fixture.engine.sweep();
    // One publication is left, in the channel that is still used.
    assert!(
        fixture.engine.history_bytes() < 1000,
        "{}",
        fixture.engine.history_bytes()
    );
    tokio::time::advance(TTL / 2).await;
    fixture.engine.sweep();
    assert_eq!(fixture.engine.history_bytes(), 0);
}

/// A TTL beyond the range of `Instant` does not overflow.
#[tokio::test(start_paused = true)]
async fn a_maximal_ttl_does_not_overflow() {
    let options = ChannelOptions {
        history_ttl: Duration::MAX,
        ..Default::default()
    };
    let engine = MemoryEngine::new(Arc::new(Recorder::default()), &options, &Limits::default());
    let content = Content {
        data: Data::json("1").unwrap(),
        info: None,
        tags: None,
    };
    engine.publish(&name("a"), content).await.unwrap();
    engine.sweep();
    assert!(engine.has_stream(&name("a")));
}
