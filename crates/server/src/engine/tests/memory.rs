//! The memory of the memory engine: what is evicted, and when.

use super::super::epochs::Epochs;
use super::super::streams::Streams;
use super::*;

#[tokio::test(start_paused = true)]
async fn an_unused_stream_is_evicted_and_gets_a_new_epoch() {
    let fixture = Fixture::memory(Setup::ten());
    fixture.publish("a", "1").await;
    fixture.publish("b", "1").await;
    fixture.recorder.subscribed.lock().push(name("b"));
    let (a, b) = (fixture.history("a").await.top, fixture.history("b").await.top);

    tokio::time::advance(TTL).await;
    fixture.broker.sweep();
    fixture.broker.sweep();
    assert_eq!(fixture.history("a").await.top.offset, 0);
    assert_ne!(fixture.history("a").await.top.epoch, a.epoch);
    // This channel has subscribers: its publications expire, and its offsets continue.
    assert_eq!(fixture.history("b").await.top, b);
    assert!(fixture.history("b").await.publications.is_empty());
}

#[tokio::test(start_paused = true)]
async fn all_histories_stay_within_the_memory_budget() {
    let setup = Setup {
        count_max: 10,
        bytes_max: 64 << 10,
        ..Setup::ten()
    };
    let fixture = Fixture::memory(setup);
    let data = format!("\"{}\"", "x".repeat(1000));
    for n in 0..200 {
        tokio::time::advance(Duration::from_millis(1)).await;
        fixture.publish(&format!("c{n}"), &data).await;
        assert!(fixture.broker.history_bytes() <= 64 << 10);
    }
    assert_eq!(fixture.history("c199").await.publications.len(), 1);
    assert_eq!(fixture.history("c0").await.publications.len(), 0);
}

/// Subscriptions to channels without publications must not use memory or evict other channels.
#[tokio::test(start_paused = true)]
async fn reading_a_channel_without_history_creates_nothing() {
    let setup = Setup {
        count_max: 10,
        bytes_max: 64 << 10,
        ..Setup::ten()
    };
    let fixture = Fixture::memory(setup);
    fixture.publish("real", "1").await;
    let bytes = fixture.broker.history_bytes();
    for n in 0..10_000 {
        assert_eq!(fixture.history(&format!("never{n}")).await.top.offset, 0);
    }
    assert_eq!(fixture.broker.history_bytes(), bytes);
    assert_eq!(fixture.history("real").await.publications.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_evicted_channel_never_has_an_epoch_twice() {
    let fixture = Fixture::memory(Setup::ten());
    let mut epochs = Vec::new();
    for _ in 0..100 {
        fixture.publish("a", "1").await;
        let known = fixture.history("a").await.top;
        tokio::time::advance(TTL).await;
        fixture.broker.sweep();
        // Neither without publications, nor with as many publications as before.
        let absent = fixture.history("a").await;
        assert!(absent.top.offset == 0 && !fixture.recovers("a", &known).await);
        fixture.publish("a", "1").await;
        assert!(!fixture.recovers("a", &known).await);
        epochs.push(known.epoch.as_str().to_owned());
        tokio::time::advance(TTL).await;
        fixture.broker.sweep();
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

    let setup = Setup {
        count_max: 3,
        bytes_max: 40 << 10,
        ..Setup::ten()
    };
    let fixture = Fixture::memory(setup);
    let streams = |fixture: &Fixture<MemoryBroker>| fixture.broker.history_bytes();
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
        assert!(streams(&fixture) <= setup.bytes_max);
        // Only the first ones of the list were evicted, and no more than needed.
        let mut gone = 0;
        while gone < used.len() && !fixture.broker.has_stream(&self::name(&used[gone])) {
            gone += 1;
        }
        assert!(
            used[gone..]
                .iter()
                .all(|name| fixture.broker.has_stream(&self::name(name)))
        );
        evicted += gone;
        used.drain(..gone);
    }
    assert!(evicted > 100, "{evicted}");
}

/// Delivery holds the lock of its stream. The sweep and other publishers must not wait for it.
#[tokio::test(start_paused = true)]
async fn eviction_skips_locked_streams() {
    let limits = HistoryLimits {
        count_max: 10,
        bytes_max: 64 << 10,
        ttl: TTL,
    };
    let content = || content(&format!("\"{}\"", "x".repeat(2000)));
    let streams = Streams::new(8 << 10, Epochs::new([0; 16], None));
    let recorder = Recorder::default();
    let append = |channel: &str, deliver: &dyn Fn()| {
        let deliver = |_: &Publication, _: &Epoch| deliver();
        streams
            .append(&name(channel), content(), None, 0, limits, deliver)
            .unwrap();
    };
    append("busy", &|| ());
    tokio::time::advance(TTL * 2).await;
    append("busy", &|| {
        streams.sweep(&recorder);
        for n in 0..100 {
            append(&format!("c{n}"), &|| ());
        }
        assert!(streams.has(&name("busy")));
    });
    assert!(streams.bytes() <= 8 << 10, "{}", streams.bytes());
}

#[tokio::test(start_paused = true)]
async fn a_sweep_frees_each_publication_when_it_expires() {
    let fixture = Fixture::memory(Setup::ten());
    for n in 0..1_000 {
        fixture.publish(&format!("c{n}"), "1").await;
        fixture.publish("busy", "1").await;
    }
    let full = fixture.broker.history_bytes();
    tokio::time::advance(TTL / 2).await;
    fixture.publish("busy", "1").await;
    fixture.broker.sweep();
    assert_eq!(fixture.broker.history_bytes(), full);
    tokio::time::advance(TTL / 2).await;
    fixture.broker.sweep();
    // One publication is left, in the channel that is still used.
    assert!(
        fixture.broker.history_bytes() < 1000,
        "{}",
        fixture.broker.history_bytes()
    );
    tokio::time::advance(TTL / 2).await;
    fixture.broker.sweep();
    assert_eq!(fixture.broker.history_bytes(), 0);
}

/// A TTL beyond the range of `Instant` does not overflow.
#[tokio::test(start_paused = true)]
async fn a_maximal_ttl_does_not_overflow() {
    let setup = Setup {
        ttl: Duration::MAX,
        ..Setup::ten()
    };
    let fixture = Fixture::memory(setup);
    fixture.publish("a", "1").await;
    fixture.broker.sweep();
    assert!(fixture.broker.has_stream(&name("a")));
}
