//! The behaviour of every engine. Each test runs on each kind of engine.

use super::*;
use crate::ids::Generation;

/// Runs a test on all engines of this process. A test gets a fixture with ten publications of history per channel and a
/// TTL of a minute.
macro_rules! suite_in_process {
    ($($(#[$attribute:meta])* $test:ident;)*) => {
        mod memory {
            use super::*;

            $($(#[$attribute])*
            #[tokio::test(start_paused = true)]
            async fn $test() {
                super::$test(Fixture::memory(Setup::ten()).erased()).await;
            })*
        }

        mod logged {
            use super::*;

            $($(#[$attribute])*
            #[tokio::test(start_paused = true)]
            async fn $test() {
                super::$test(Fixture::logged(Setup::ten()).erased()).await;
            })*
        }

        mod cluster {
            use super::*;

            $($(#[$attribute])*
            #[tokio::test(start_paused = true)]
            async fn $test() {
                super::$test(Fixture::cluster(Setup::ten()).await.erased()).await;
            })*
        }
    };
}

/// Runs a test on all engines that number the publications of each channel 1, 2, 3... Tests of real servers run with
/// `cargo xtask test`.
macro_rules! suite_that_counts {
    ($($test:ident;)*) => {
        suite_in_process! { $($test;)* }

        mod redis {
            use super::*;

            $(#[tokio::test]
            #[ignore = "needs Redis: run `cargo xtask test`"]
            async fn $test() {
                super::$test(Fixture::redis(Setup::ten()).await.erased()).await;
            })*
        }

        mod redis_cluster {
            use super::*;

            $(#[tokio::test]
            #[ignore = "needs Redis: run `cargo xtask test`"]
            async fn $test() {
                super::$test(Fixture::redis_cluster(Setup::ten()).await.erased()).await;
            })*
        }
    };
}

/// Runs a test on all engines.
macro_rules! suite {
    ($($test:ident;)*) => {
        suite_that_counts! { $($test;)* }

        mod nats {
            use super::*;

            $(#[tokio::test]
            #[ignore = "needs NATS: run `cargo xtask test`"]
            async fn $test() {
                super::$test(Fixture::nats(Setup::ten()).await.erased()).await;
            })*
        }
    };
}

// With NATS, several channels share numbers and an epoch.
mod counting {
    use super::*;

    suite_that_counts! {
        publications_are_numbered_per_channel;
    }
}

// These advance the time by minutes, which a real server does not. It has tests of its own for what is to expire.
mod advancing {
    use super::*;

    suite_in_process! {
        expired_publications_are_not_read;
        an_unused_channel_gets_a_new_epoch;
        a_repeated_key_returns_the_first_position;
    }
}

suite! {
    without_history_publications_have_no_offset;
    publications_can_skip_the_history;
    publishing_returns_the_position;
    joins_and_leaves_are_delivered;
    presence_lists_up_to_a_limit_and_counts_beyond_it;
    history_is_read_in_pages;
    publications_keep_sender_and_tags;
    the_first_publication_continues_the_epoch_that_was_read_before;
    removed_history_keeps_its_position;
    concurrent_publications_with_one_key_are_published_once;
    old_versions_are_suppressed;
    concurrent_publications_are_delivered_in_order;
    a_dropped_publication_is_completed_or_has_no_effect;
    a_healthy_engine_passes_the_probe;
    positions_of_many_channels_are_read_at_once;
}

type Any = Fixture<dyn Broker>;

async fn publications_are_numbered_per_channel(fixture: Any) {
    for (channel, data) in [("a", "1"), ("b", "2"), ("a", "3")] {
        fixture.publish(channel, data).await;
    }
    assert_eq!(fixture.settled().await, ["a 1 1 true", "b 1 2 true", "a 2 3 true"]);
    assert_eq!(fixture.history("a").await.publications.len(), 2);
    assert_ne!(
        fixture.history("a").await.top.epoch,
        fixture.history("b").await.top.epoch
    );
}

async fn without_history_publications_have_no_offset(fixture: Any) {
    assert_eq!(fixture.publish("plain", "1").await, Position::none());
    assert_eq!(fixture.settled().await, ["plain 0 1 false"]);
    let plain = name("plain");
    let history = fixture.engine.history(&plain, HistoryQuery::default()).await;
    assert_eq!(history.unwrap_err(), EngineError::NoHistory);
    assert_eq!(
        fixture.engine.positions(std::slice::from_ref(&plain)).await,
        Ok(vec![None])
    );
    assert_eq!(fixture.engine.history_remove(&plain).await, Err(EngineError::NoHistory));
}

async fn publications_can_skip_the_history(fixture: Any) {
    fixture.publish("a", "1").await;
    let publish = Publish {
        skips_history: true,
        ..content("2").into()
    };
    let published = fixture.engine.publish(&name("a"), publish).await.unwrap();
    assert_eq!(published.position, Position::none());
    fixture.publish("a", "3").await;
    assert_eq!(fixture.settled().await, ["a 1 1 true", "a 0 2 false", "a 2 3 true"]);
    assert_eq!(fixture.stored("a").await, ["1", "3"]);
}

async fn publishing_returns_the_position(fixture: Any) {
    for offset in 1..=3 {
        let position = fixture.publish("a", "1").await;
        assert_eq!(position.offset, offset);
        assert_eq!(position, fixture.history("a").await.top);
        assert_eq!(position, fixture.position("a").await);
    }
}

async fn positions_of_many_channels_are_read_at_once(fixture: Any) {
    let mut channels: Vec<_> = (0..POSITIONS_PER_CALL - 1).map(|n| name(&format!("c{n}"))).collect();
    channels.insert(100, name("plain"));
    let publish = channels.iter().step_by(3).map(async |channel| {
        let published = fixture.engine.publish(channel, content("1")).await.unwrap();
        let large = format!("\"{}\"", "x".repeat(10_000));
        match channel.as_str() {
            "c99" => fixture.engine.publish(channel, content(&large)).await.unwrap().position,
            _ => published.position,
        }
    });
    let published = futures_util::future::join_all(publish).await;
    let positions = fixture.engine.positions(&channels).await.unwrap();
    assert_eq!(positions.len(), channels.len());
    for (index, (channel, position)) in channels.iter().zip(&positions).enumerate() {
        match (channel.as_str(), index % 3) {
            ("plain", _) => assert_eq!(*position, None),
            (_, 0) => assert_eq!(position.as_ref(), Some(&published[index / 3]), "{channel}"),
            _ => assert!(position.is_some(), "{channel}"),
        }
    }
    // A stream that did not exist has a position from then on.
    assert_eq!(fixture.engine.positions(&channels).await.unwrap(), positions);
}

async fn joins_and_leaves_are_delivered(fixture: Any) {
    fixture.engine.publish_join(&name("a"), member(1, "ada")).await.unwrap();
    fixture
        .engine
        .publish_leave(&name("a"), member(1, "ada"))
        .await
        .unwrap();
    assert_eq!(fixture.settled().await, ["a join ada", "a leave ada"]);
}

async fn presence_lists_up_to_a_limit_and_counts_beyond_it(fixture: Any) {
    let channel = name("a");
    let subscription = Subscription {
        channel: channel.clone(),
        generation: Generation::default(),
    };
    for (bits, user) in [(1, "ada"), (2, "ada"), (3, "bob")] {
        let info = member(bits, user);
        fixture.engine.presence_add(&subscription, info, false).await.unwrap();
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

async fn history_is_read_in_pages(fixture: Any) {
    for n in 1..=12 {
        fixture.publish("a", &n.to_string()).await;
    }
    let read = async |since, limit, is_reversed| {
        let query = HistoryQuery {
            since,
            limit,
            is_reversed,
        };
        let history = fixture.engine.history(&name("a"), query).await.unwrap();
        assert_eq!(history.top.offset, 12);
        history
            .publications
            .iter()
            .map(|publication| publication.offset)
            .collect::<Vec<_>>()
    };
    assert_eq!(read(None, 0, false).await, [0; 0]);
    assert_eq!(read(None, 2, false).await, [3, 4]);
    assert_eq!(read(Some(4), 2, false).await, [5, 6]);
    assert_eq!(read(Some(11), 9, false).await, [12]);
    assert_eq!(read(None, 2, true).await, [12, 11]);
    assert_eq!(read(Some(5), 9, true).await, [4, 3]);
}

async fn publications_keep_sender_and_tags(fixture: Any) {
    let tags = Arc::new(Tags::from([("price".to_owned(), "1".to_owned())]));
    let content = Content {
        info: Some(member(1, "ada")),
        tags: Some(tags.clone()),
        ..content("1")
    };
    fixture.engine.publish(&name("a"), content).await.unwrap();
    let stored = fixture.history("a").await.publications.remove(0);
    assert_eq!(stored.content.info, Some(member(1, "ada")));
    assert_eq!(stored.content.tags, Some(tags));
}

async fn expired_publications_are_not_read(fixture: Any) {
    fixture.publish("a", "1").await;
    tokio::time::advance(TTL / 2).await;
    fixture.publish("a", "2").await;
    tokio::time::advance(TTL / 2).await;
    assert_eq!(fixture.stored("a").await, ["2"]);
    assert_eq!(fixture.publish("a", "3").await.offset, 3);
}

async fn an_unused_channel_gets_a_new_epoch(fixture: Any) {
    let before = fixture.publish("a", "1").await;
    for _ in 0..4 {
        tokio::time::advance(TTL).await;
        fixture.engine.maintain().await.unwrap();
    }
    let history = fixture.history("a").await;
    assert_eq!(history.top.offset, 0);
    assert!(!fixture.recovers("a", &before).await);
}

/// A client that subscribed before the first publication can recover all publications.
async fn the_first_publication_continues_the_epoch_that_was_read_before(fixture: Any) {
    let before = fixture.history("a").await.top;
    assert_eq!(before, fixture.history("a").await.top);
    fixture.publish("a", "1").await;
    let history = fixture.history("a").await;
    assert_eq!(history.top.epoch, before.epoch);
    assert!(fixture.recovers("a", &before).await);
}

async fn removed_history_keeps_its_position(fixture: Any) {
    fixture.engine.history_remove(&name("a")).await.unwrap();
    fixture.publish("a", "1").await;
    let before = fixture.publish("a", "2").await;
    fixture.engine.history_remove(&name("a")).await.unwrap();
    let history = fixture.history("a").await;
    assert_eq!(history.top, before);
    assert!(history.publications.is_empty() && fixture.recovers("a", &before).await);
    assert!(fixture.publish("a", "3").await.offset > before.offset);
    assert_eq!(fixture.stored("a").await, ["3"]);
}

fn keyed(data: &str, key: &str) -> Publish {
    Publish {
        idempotency_key: Some(key.into()),
        ..content(data).into()
    }
}

async fn a_repeated_key_returns_the_first_position(fixture: Any) {
    for channel in ["a", "plain"] {
        let publish =
            async |data: &str, key: &str| fixture.engine.publish(&name(channel), keyed(data, key)).await.unwrap();
        let first = publish("1", "k").await;
        assert_eq!(first.outcome, PublishOutcome::Delivered);
        fixture.publish(channel, "2").await;
        let repeated = publish("3", "k").await;
        assert_eq!(
            (repeated.position, repeated.outcome),
            (first.position, PublishOutcome::Duplicate)
        );
        assert_eq!(publish("4", "l").await.outcome, PublishOutcome::Delivered);
        assert_eq!(fixture.settled().await.len(), 3);
        tokio::time::advance(Duration::from_secs(5 * 60)).await;
        assert_eq!(publish("5", "k").await.outcome, PublishOutcome::Delivered);
        assert_eq!(fixture.settled().await.len(), 1);
    }
}

async fn concurrent_publications_with_one_key_are_published_once(fixture: Any) {
    let publishers: Vec<_> = (0..20)
        .map(|n: u32| {
            let engine = fixture.engine.clone();
            tokio::spawn(async move { engine.publish(&name("a"), keyed(&n.to_string(), "k")).await.unwrap() })
        })
        .collect();
    let mut delivered = 0;
    for publisher in publishers {
        let published = publisher.await.unwrap();
        assert_eq!(published.position.offset, 1);
        delivered += u32::from(published.outcome == PublishOutcome::Delivered);
    }
    assert_eq!((delivered, fixture.settled().await.len()), (1, 1));
}

async fn old_versions_are_suppressed(fixture: Any) {
    let publish = async |number, epoch: &str| {
        let publish = Publish {
            version: Some(Version {
                number,
                epoch: epoch.into(),
            }),
            ..content("1").into()
        };
        let published = fixture.engine.publish(&name("a"), publish).await.unwrap();
        (published.position.offset, published.outcome)
    };
    assert_eq!(publish(5, "").await, (1, PublishOutcome::Delivered));
    assert_eq!(publish(5, "").await, (1, PublishOutcome::Suppressed));
    assert_eq!(publish(4, "").await, (1, PublishOutcome::Suppressed));
    assert_eq!(fixture.publish("a", "0").await.offset, 2);
    assert_eq!(publish(5, "").await, (2, PublishOutcome::Suppressed));
    assert_eq!(publish(6, "").await, (3, PublishOutcome::Delivered));
    assert_eq!(publish(1, "restarted").await, (4, PublishOutcome::Delivered));
}

async fn concurrent_publications_are_delivered_in_order(fixture: Any) {
    let publishers: Vec<_> = (0..50)
        .map(|n: u32| {
            let engine = fixture.engine.clone();
            tokio::spawn(async move { engine.publish(&name("a"), content(&n.to_string())).await.unwrap() })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let delivered = fixture.settled().await;
    let offsets: Vec<u64> = delivered
        .iter()
        .map(|event| event.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert_eq!(offsets, (1..=50).collect::<Vec<_>>());
}

async fn a_dropped_publication_is_completed_or_has_no_effect(fixture: Any) {
    for n in 0..50 {
        let name = name("a");
        let publish = keyed(&n.to_string(), &n.to_string());
        let mut publishing = fixture.engine.publish(&name, publish.clone());
        for _ in 0..n % 4 {
            if futures_poll(&mut publishing).await {
                break;
            }
        }
        drop(publishing);
        // Waits for the one before, if it is still in progress.
        fixture.engine.publish(&name, publish).await.unwrap();
    }
    let delivered = fixture.settled().await;
    let expected: Vec<String> = (0..50).map(|n| format!("a {} {n} true", n + 1)).collect();
    assert_eq!(delivered, expected);
}

/// Polls a future once.
async fn futures_poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(Pin::new(&mut *future).poll(cx).is_ready())).await
}

async fn a_healthy_engine_passes_the_probe(fixture: Any) {
    assert_eq!(fixture.engine.health(), Health::Ready);
    for _ in 0..3 {
        fixture.engine.probe().await.unwrap();
    }
    assert_eq!(fixture.settled().await, [""; 0]);
    fixture.engine.close().await.unwrap();
}
