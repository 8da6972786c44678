//! What the log keeps over a restart, and what publishers see when it fails.

use super::super::idempotency::KEY_TTL;
use super::*;

/// A server that is restarted on one folder.
struct Restarting {
    folder: TempDir,
    setup: Setup,
    fsync: Fsync,
}

impl Restarting {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            setup: Setup::ten(),
            fsync: Fsync::Every(Duration::from_millis(50)),
        }
    }

    fn start(&self) -> Fixture<MemoryBroker> {
        let mut config = JournalConfig::new(self.folder.path());
        config.fsync = self.fsync;
        Fixture::open(self.setup, config, None)
    }
}

/// Ends an engine as `kill -9` does: without a mark in the log.
async fn kill(fixture: Fixture<MemoryBroker>) {
    // Dropping the journal waits for its threads.
    tokio::task::spawn_blocking(move || drop(fixture)).await.unwrap();
}

async fn stop(fixture: Fixture<MemoryBroker>) {
    fixture.engine.close().await.unwrap();
    kill(fixture).await;
}

#[tokio::test]
async fn history_and_positions_survive_a_restart() {
    let restarting = Restarting::new();
    let mut known: Vec<Position> = Vec::new();
    for round in 0..6 {
        let fixture = restarting.start();
        for (n, channel) in ["a", "b"].into_iter().enumerate() {
            let history = fixture.history(channel).await;
            if let Some(known) = known.get(n) {
                assert_eq!(history.top, *known, "round {round}");
                assert!(fixture.recovers(channel, known).await);
            }
            assert_eq!(history.publications.len(), (3 * round).min(10));
        }
        assert_eq!(fixture.delivered(), [""; 0]);
        known.clear();
        for channel in ["a", "b"] {
            for n in 0..3 {
                fixture.publish(channel, &n.to_string()).await;
            }
            known.push(fixture.history(channel).await.top);
        }
        match round % 2 {
            0 => kill(fixture).await,
            _ => stop(fixture).await,
        }
    }
}

#[tokio::test]
async fn channels_without_publications_keep_their_epoch() {
    let restarting = Restarting::new();
    let fixture = restarting.start();
    let before = fixture.history("a").await.top;
    kill(fixture).await;
    let fixture = restarting.start();
    assert_eq!(fixture.history("a").await.top, before);
    fixture.publish("a", "1").await;
    kill(fixture).await;
    let fixture = restarting.start();
    assert!(fixture.recovers("a", &before).await);
}

#[tokio::test]
async fn sender_tags_versions_and_keys_survive_a_restart() {
    let restarting = Restarting::new();
    let publish = || Publish {
        content: Content {
            info: Some(member(1, "ada")),
            tags: Some(Arc::new(Tags::from([("a".to_owned(), "b".to_owned())]))),
            ..content("1")
        },
        idempotency_key: Some("k".into()),
        version: Some(Version {
            number: 5,
            epoch: "v".into(),
        }),
        skips_history: false,
    };
    let fixture = restarting.start();
    let first = fixture.engine.publish(&name("a"), publish()).await.unwrap();
    kill(fixture).await;

    let fixture = restarting.start();
    let stored = fixture.history("a").await.publications.remove(0);
    assert_eq!(stored.content.info, publish().content.info);
    assert_eq!(stored.content.tags, publish().content.tags);
    let repeated = fixture.engine.publish(&name("a"), publish()).await.unwrap();
    assert_eq!(
        (repeated.position, repeated.outcome),
        (first.position, PublishOutcome::Duplicate)
    );
    let without_key = Publish {
        idempotency_key: None,
        ..publish()
    };
    let suppressed = fixture.engine.publish(&name("a"), without_key).await.unwrap();
    assert_eq!(suppressed.outcome, PublishOutcome::Suppressed);
    assert!(KEY_TTL > Duration::from_secs(60), "or the test is too slow for it");
}

#[tokio::test]
async fn removed_history_stays_removed() {
    let restarting = Restarting::new();
    let fixture = restarting.start();
    fixture.publish("a", "1").await;
    let before = fixture.publish("a", "2").await;
    fixture.engine.history_remove(&name("a")).await.unwrap();
    kill(fixture).await;
    let fixture = restarting.start();
    let history = fixture.history("a").await;
    assert!(history.publications.is_empty());
    assert_eq!(history.top, before);
    assert_eq!(fixture.publish("a", "3").await.offset, 3);
    kill(fixture).await;
    assert_eq!(restarting.start().stored("a").await, ["3"]);
}

/// An evicted channel never gets an epoch that it had before, also not in the next process.
#[tokio::test]
async fn evicted_channels_get_new_epochs_across_restarts() {
    let mut restarting = Restarting::new();
    restarting.setup.bytes_max = 8 << 10;
    let mut epochs = Vec::new();
    for _ in 0..10 {
        let fixture = restarting.start();
        let before = fixture.history("a").await.top;
        let position = fixture.publish("a", "1").await;
        assert_eq!(position.epoch, before.epoch);
        // Evicts it.
        for n in 0..12 {
            fixture
                .publish(&format!("other{n}"), &format!("\"{}\"", "x".repeat(1000)))
                .await;
        }
        let after = fixture.history("a").await;
        assert_eq!(after.top.offset, 0);
        assert!(!fixture.recovers("a", &position).await && !fixture.recovers("a", &before).await);
        kill(fixture).await;
        let fixture = restarting.start();
        // The eviction is not in the log, so the old stream may be back. Then nothing was published since.
        let restored = fixture.history("a").await;
        assert!(restored.top == position || !fixture.recovers("a", &position).await);
        assert!(!fixture.recovers("a", &after.top).await);
        epochs.push(restored.top.epoch.as_str().to_owned());
        stop(fixture).await;
        // Forget the streams, but not the evictions.
        drop_stream(&restarting, "a").await;
    }
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 10);
}

async fn drop_stream(restarting: &Restarting, channel: &str) {
    let fixture = restarting.start();
    for n in 0..12 {
        fixture
            .publish(&format!("more{n}"), &format!("\"{}\"", "x".repeat(1000)))
            .await;
    }
    let top = fixture.history(channel).await.top;
    assert_eq!(top.offset, 0);
    // A publication replaces the old stream in the log.
    fixture.publish(channel, "1").await;
    for n in 0..12 {
        fixture
            .publish(&format!("more{n}"), &format!("\"{}\"", "x".repeat(1000)))
            .await;
    }
    stop(fixture).await;
}

#[tokio::test]
async fn a_new_era_changes_all_epochs() {
    let restarting = Restarting::new();
    let fixture = restarting.start();
    let (published, read) = (fixture.publish("a", "1").await, fixture.history("b").await.top);
    stop(fixture).await;
    let mut config = JournalConfig::new(restarting.folder.path());
    config.repair = JournalRepair::KeepValid;
    let fixture = Fixture::open(restarting.setup, config, None);
    assert!(!fixture.recovers("a", &published).await);
    assert!(!fixture.recovers("b", &read).await);
    assert_eq!(fixture.stored("a").await, ["1"]);
    let position = fixture.publish("a", "2").await;
    assert_eq!(position.offset, 2);
    stop(fixture).await;
    assert!(restarting.start().recovers("a", &position).await);
}

#[tokio::test]
async fn a_channel_that_lost_its_history_does_not_reuse_offsets() {
    let restarting = Restarting::new();
    let fixture = restarting.start();
    let position = fixture.publish("a", "1").await;
    stop(fixture).await;
    // The configuration without history.
    let config = JournalConfig::new(restarting.folder.path());
    let none: Arc<HistoryLimitsOf> = Arc::new(|_: &ChannelName| None);
    let broker = MemoryBroker::open(Arc::new(Recorder::default()), none, 1 << 20, &config).unwrap();
    broker.publish(&name("a"), content("2").into()).await.unwrap();
    broker.close().await.unwrap();
    tokio::task::spawn_blocking(move || drop(broker)).await.unwrap();
    let fixture = restarting.start();
    assert_eq!(fixture.history("a").await.top.epoch, position.epoch);
    assert_eq!(fixture.publish("a", "3").await.offset, 2);
}

#[tokio::test]
async fn two_servers_cannot_share_a_folder() {
    let restarting = Restarting::new();
    let fixture = restarting.start();
    let config = JournalConfig::new(restarting.folder.path());
    let error = MemoryBroker::open(
        Arc::new(Recorder::default()),
        restarting.setup.limits(),
        1 << 20,
        &config,
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("another process uses this folder"),
        "{error}"
    );
    fixture.publish("a", "1").await;
}

/// With a log at its maximum size, publishing fails and nothing is delivered or numbered. When history has expired, it
/// works again by itself.
#[tokio::test]
async fn a_full_log_is_an_error_and_recovers_by_itself() {
    let mut restarting = Restarting::new();
    restarting.setup.ttl = Duration::from_millis(500);
    let mut config = JournalConfig::new(restarting.folder.path());
    // The journal needs at least four segments, 256 KiB. The histories may become larger.
    config.size_max = 1;
    config.is_small = true;
    let fixture = Fixture::open(restarting.setup, config, None);
    let publish = async |n: usize| {
        let data = format!("\"{}\"", "x".repeat(6 << 10));
        fixture
            .engine
            .publish(&name(&format!("c{}", n % 6)), content(&data))
            .await
    };
    let mut tops = [0; 6];
    let mut n = 0;
    let error = loop {
        match publish(n).await {
            Ok(published) => {
                tops[n % 6] += 1;
                assert_eq!(published.position.offset, tops[n % 6]);
            }
            Err(error) => break error,
        }
        n += 1;
        assert!(n < 1000, "never full");
    };
    assert_eq!(error, EngineError::Full);
    assert!(matches!(fixture.engine.health(), Health::NotReady(_)));
    assert_eq!(fixture.position(&format!("c{}", n % 6)).await.offset, tops[n % 6]);
    assert_eq!(fixture.delivered().len(), n);

    let mut attempts = 0;
    while publish(n).await.is_err() {
        attempts += 1;
        assert!(attempts < 2000, "does not recover");
        tokio::time::sleep(Duration::from_millis(5)).await;
        fixture.engine.maintain().await.unwrap();
    }
    tops[n % 6] += 1;
    assert_eq!(fixture.engine.health(), Health::Ready);
    for (channel, top) in tops.into_iter().enumerate() {
        // The log has room for a few records only, until more of it is compacted.
        let mut attempts = 0;
        let published = loop {
            match publish(channel).await {
                Ok(published) => break published,
                Err(error) => assert_eq!(error, EngineError::Full),
            }
            attempts += 1;
            assert!(attempts < 2000, "does not recover");
            tokio::time::sleep(Duration::from_millis(5)).await;
            fixture.engine.maintain().await.unwrap();
        };
        assert_eq!(published.position.offset, top + 1, "offsets have no gap");
    }
    kill(fixture).await;
    let fixture = restarting.start();
    for (channel, top) in tops.into_iter().enumerate() {
        let position = fixture.position(&format!("c{channel}")).await;
        assert_eq!(position.offset, top + 1);
    }
}

#[tokio::test]
async fn a_closed_log_refuses_publications() {
    let fixture = Fixture::logged(Setup::ten());
    let before = fixture.publish("a", "1").await;
    fixture.engine.close().await.unwrap();
    assert!(matches!(fixture.engine.health(), Health::NotReady(_)));
    let published = fixture.engine.publish(&name("a"), content("2")).await;
    assert_eq!(published, Err(EngineError::Unavailable));
    assert_eq!(fixture.engine.probe().await, Err(EngineError::Unavailable));
    assert_eq!(fixture.history("a").await.top, before);
    // Channels without history need no log.
    fixture.publish("plain", "1").await;
    assert!(fixture.folder.is_some());
}

#[tokio::test]
async fn every_fsync_policy_restores_after_kill() {
    for fsync in [Fsync::Always, Fsync::Never, Fsync::Every(Duration::from_millis(1))] {
        let restarting = Restarting {
            fsync,
            ..Restarting::new()
        };
        let fixture = restarting.start();
        let position = fixture.publish("a", "1").await;
        kill(fixture).await;
        let fixture = restarting.start();
        // Only Linux tells a killed process from a power cut.
        if fsync == Fsync::Always || cfg!(target_os = "linux") {
            assert!(fixture.recovers("a", &position).await, "{fsync}");
        }
        assert_eq!(fixture.stored("a").await, ["1"]);
    }
}
