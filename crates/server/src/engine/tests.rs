//! What every engine has to do, told through what is delivered.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::config::{ChannelOptions, Limits};
use crate::sync::lock;

/// Writes down what an engine delivers.
#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<String>>,
    wanted: Mutex<Vec<ChannelName>>,
}

impl Deliver for Recorder {
    fn is_wanted(&self, channel: &ChannelName) -> bool {
        lock(&self.wanted).contains(channel)
    }

    fn publication(&self, channel: &ChannelName, publication: &Publication, epoch: Option<&Epoch>) {
        let data = publication.content.data.as_str();
        let has_epoch = epoch.is_some();
        lock(&self.events).push(format!("{channel} {} {data} {has_epoch}", publication.offset));
    }

    fn join(&self, channel: &ChannelName, info: &ClientInfo) {
        lock(&self.events).push(format!("{channel} join {}", info.user));
    }

    fn leave(&self, channel: &ChannelName, info: &ClientInfo) {
        lock(&self.events).push(format!("{channel} leave {}", info.user));
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
            data: Json::parse(data).unwrap(),
            info: None,
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
        std::mem::take(&mut lock(&self.recorder.events))
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
async fn without_history_there_are_no_numbers() {
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
    for (bits, user) in [(1, "ada"), (2, "ada"), (3, "bob")] {
        fixture.engine.presence_add(&channel, member(bits, user)).await.unwrap();
    }
    assert_eq!(fixture.engine.presence(&channel, 2).await.unwrap(), None);
    assert_eq!(fixture.engine.presence(&channel, 3).await.unwrap().unwrap().len(), 3);
    assert_eq!(
        fixture.engine.presence_stats(&channel).await.unwrap(),
        PresenceStats { clients: 3, users: 2 }
    );
    fixture
        .engine
        .presence_remove(&channel, ClientId::from_random(3))
        .await
        .unwrap();
    assert_eq!(
        fixture.engine.presence_stats(&channel).await.unwrap(),
        PresenceStats { clients: 2, users: 1 }
    );
}

#[tokio::test(start_paused = true)]
async fn an_unused_stream_is_forgotten_and_begins_a_new_epoch() {
    let fixture = Fixture::new(10, Limits::default());
    fixture.publish("a", "1").await;
    fixture.publish("b", "1").await;
    lock(&fixture.recorder.wanted).push(name("b"));
    let (a, b) = (fixture.history("a").await.top, fixture.history("b").await.top);

    tokio::time::advance(TTL).await;
    fixture.engine.sweep();
    fixture.engine.sweep();
    assert_eq!(fixture.history("a").await.top.offset, 0);
    assert_ne!(fixture.history("a").await.top.epoch, a.epoch);
    // Somebody listens to this one: its messages are gone, its numbers go on.
    assert_eq!(fixture.history("b").await.top, b);
    assert!(fixture.history("b").await.publications.is_empty());
}

#[tokio::test(start_paused = true)]
async fn all_history_together_stays_within_its_budget() {
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
    // Asking for channels that never spoke is bounded by the same budget.
    for n in 0..1000 {
        fixture.history(&format!("never{n}")).await;
        assert!(fixture.engine.history_bytes() <= 64 << 10);
    }
}
