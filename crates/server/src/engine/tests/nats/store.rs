//! What the store does with publications and presence.

use super::*;
use crate::ids::Generation;
use crate::serve::tests::Log;

fn ten_with(ttl: Duration) -> Setup {
    Setup { ttl, ..Setup::ten() }
}

async fn nodes<const N: usize>(server: &Server, setup: Setup) -> [Fixture<ClusterBroker>; N] {
    let config = server.config("?stream_bytes=1048576");
    let mut nodes = Vec::new();
    for index in 0..N {
        nodes.push(Fixture::nats_node(setup, &config, &format!("node{index}")).await);
    }
    nodes.try_into().ok().unwrap()
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn offsets_have_gaps_and_recovery_works_over_them() {
    let server = Server::start("");
    let [node] = nodes(&server, Setup::ten()).await;
    let mut positions = Vec::new();
    let (mut offsets, mut others) = (Vec::new(), 0);
    for n in 0..8 {
        positions.push(node.publish("a", &n.to_string()).await);
        offsets.push(positions[n].offset);
        for index in 0..8 {
            others += 1;
            node.publish(&format!("other{index}"), "0").await;
        }
    }
    assert!(
        offsets.windows(2).any(|pair| pair[1] > pair[0] + 1),
        "{offsets:?} {others}"
    );
    for (index, position) in positions.iter().enumerate() {
        assert!(node.recovers("a", position).await, "{index}");
    }
    // As many as the history has, and one more. The one before it is gone.
    for n in 8..10 {
        positions.push(node.publish("a", &n.to_string()).await);
    }
    let first = positions[0].clone();
    assert!(node.recovers("a", &first).await);
    positions.push(node.publish("a", "10").await);
    assert!(node.recovers("a", &first).await);
    assert_eq!(node.stored("a").await.len(), 10);
    node.publish("a", "11").await;
    assert!(!node.recovers("a", &first).await);
    assert!(node.recovers("a", &positions[1]).await);
    assert!(!node.recovers("a", &Position { offset: 0, ..first }).await);
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn all_nodes_receive_and_agree_on_the_epoch() {
    let server = Server::start("");
    let [one, two] = nodes(&server, Setup::ten()).await;
    let position = one.publish("a", "1").await;
    let back = two.publish("a", "2").await;
    assert_eq!(position.epoch, back.epoch);
    one.engine.publish_join(&name("a"), member(1, "ada")).await.unwrap();
    for node in [&one, &two] {
        let expected = [
            format!("a {} 1 true", position.offset),
            format!("a {} 2 true", back.offset),
            "a join ada".to_owned(),
        ];
        let mut seen = Vec::new();
        eventually(async || {
            seen.extend(node.delivered());
            (seen.len() >= 3).then_some(())
        })
        .await;
        assert_eq!(seen, expected);
        assert_eq!(node.history("a").await.top, back);
    }
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn every_valid_channel_name_works() {
    let server = Server::start("");
    let [node] = nodes(&server, Setup::ten()).await;
    let long = "é".repeat(127);
    for channel in ["a b", ".", "a.b.>", "*", "$x#1,2", "=2e", "日本", "a\u{a0}b", &long] {
        node.recorder.subscribed.lock().push(name(channel));
        node.engine.interest_changed(&name(channel)).await.unwrap();
        let position = node.publish(channel, "1").await;
        assert_eq!(node.stored(channel).await, ["1"], "{channel}");
        let expected = [format!("{channel} {} 1 true", position.offset)];
        let mut delivered = Vec::new();
        eventually(async || {
            delivered.extend(node.delivered());
            (!delivered.is_empty()).then_some(())
        })
        .await;
        assert_eq!(delivered, expected);
    }
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn expired_publications_are_hidden_and_the_position_stays() {
    let server = Server::start("");
    let [node] = nodes(&server, ten_with(Duration::from_secs(1))).await;
    let first = node.publish("a", "1").await;
    assert_eq!(node.stored("a").await, ["1"]);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let history = node.history("a").await;
    assert!(history.publications.is_empty());
    assert_eq!(history.top, first);
    assert!(node.recovers("a", &first).await);
    let second = node.publish("a", "2").await;
    assert_eq!(node.stored("a").await, ["2"]);
    assert!(node.recovers("a", &first).await);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    // What was missed has expired.
    assert!(!node.recovers("a", &first).await && node.recovers("a", &second).await);
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_removed_history_has_no_gap_for_those_who_were_there() {
    let server = Server::start("");
    let [node] = nodes(&server, Setup::ten()).await;
    let early = node.publish("a", "1").await;
    let position = node.publish("a", "2").await;
    for _ in 0..2 {
        node.engine.history_remove(&name("a")).await.unwrap();
        assert_eq!(node.history("a").await.top, position);
        assert!(node.stored("a").await.is_empty());
    }
    assert!(node.recovers("a", &position).await && !node.recovers("a", &early).await);
    let next = node.publish("a", "3").await;
    assert!(node.recovers("a", &position).await && !node.recovers("a", &early).await);
    let history = node.history("a").await;
    assert_eq!((history.top, history.publications[0].previous), (next, position.offset));
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_key_is_remembered_in_channels_with_and_without_history() {
    let server = Server::start("");
    let [one, two] = nodes(&server, Setup::ten()).await;
    for channel in ["a", "plain"] {
        let publish = async |node: &Fixture<ClusterBroker>, data: &str, key: &str| {
            let publish = Publish {
                idempotency_key: Some(key.into()),
                ..content(data).into()
            };
            node.engine.publish(&name(channel), publish).await.unwrap()
        };
        let first = publish(&one, "1", "k").await;
        assert_eq!(first.outcome, PublishOutcome::Delivered);
        one.publish(channel, "2").await;
        let repeated = publish(&two, "3", "k").await;
        assert_eq!(
            (repeated.position, repeated.outcome),
            (first.position, PublishOutcome::Duplicate)
        );
        assert_eq!(publish(&two, "4", "l").await.outcome, PublishOutcome::Delivered);
        for node in [&one, &two] {
            // Core NATS orders the messages of one connection only.
            let mut received = node.settled().await;
            for _ in 0..500 {
                if received.len() >= 3 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                received.extend(node.settled().await);
            }
            assert_eq!(received.len(), 3, "{received:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn concurrent_versions_of_two_nodes_are_published_in_order() {
    let server = Server::start("");
    let nodes: [_; 2] = nodes(&server, Setup::ten()).await;
    let publishers: Vec<_> = (1..=40_u64)
        .map(|number| {
            let engine = nodes[number as usize % 2].engine.clone();
            tokio::spawn(async move {
                let version = Version {
                    number,
                    epoch: "".into(),
                };
                let publish = Publish {
                    version: Some(version),
                    ..content(&number.to_string()).into()
                };
                engine.publish(&name("a"), publish).await
            })
        })
        .collect();
    for publisher in publishers {
        // Too many at the same time are refused.
        let _ = publisher.await.unwrap();
    }
    let numbers: Vec<u64> = nodes[0]
        .stored("a")
        .await
        .iter()
        .map(|data| data.parse().unwrap())
        .collect();
    assert!(!numbers.is_empty() && numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

fn subscription(generation: u64) -> Subscription {
    Subscription {
        channel: name("a"),
        generation: Generation(generation),
    }
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn presence_is_the_same_on_all_nodes() {
    let server = Server::start("");
    let [one, two] = nodes(&server, Setup::ten()).await;
    for (node, bits, user) in [(&one, 1, "ada"), (&two, 2, "ada"), (&two, 3, "b.o b")] {
        node.engine
            .presence_add(&subscription(0), member(bits, user), true)
            .await
            .unwrap();
    }
    for node in [&one, &two] {
        let stats = node.engine.presence_stats(&name("a")).await.unwrap();
        assert_eq!(stats, PresenceStats { clients: 3, users: 2 });
        let members = node.engine.presence(&name("a"), 10).await.unwrap().unwrap();
        assert_eq!(members.len(), 3);
    }
    // A newer subscription stays.
    two.engine
        .presence_add(&subscription(2), member(3, "b.o b"), true)
        .await
        .unwrap();
    let client = ClientId::from_random(3);
    two.engine.presence_remove(&subscription(1), client).await.unwrap();
    assert_eq!(one.engine.presence_stats(&name("a")).await.unwrap().clients, 3);
    two.engine.presence_remove(&subscription(2), client).await.unwrap();
    assert_eq!(one.engine.presence_stats(&name("a")).await.unwrap().clients, 2);
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn clients_of_a_dead_node_leave_exactly_once_within_ten_seconds() {
    let server = Server::start("");
    let [one, two] = nodes(&server, Setup::ten()).await;
    // A runtime of its own, which ends like a process that is killed.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let config = server.config("?stream_bytes=1048576");
    let dead = runtime.spawn(async move { Fixture::nats_node(Setup::ten(), &config, "dead").await });
    let dead = dead.await.unwrap();
    let engine = dead.engine.clone();
    let joined = runtime.spawn(async move {
        for bits in 1..=20 {
            let info = member(bits, &bits.to_string());
            engine
                .presence_add(&subscription(0), info, bits % 2 == 0)
                .await
                .unwrap();
        }
    });
    joined.await.unwrap();
    one.engine
        .presence_add(&subscription(0), member(99, "ada"), true)
        .await
        .unwrap();
    let clients = async || one.engine.presence_stats(&name("a")).await.unwrap().clients;
    assert_eq!(clients().await, 21);
    // Nodes do not judge in the first seconds of their connection.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(clients().await, 21);
    let died = std::time::Instant::now();
    runtime.shutdown_background();
    eventually(async || (clients().await == 1).then_some(())).await;
    assert!(died.elapsed() < Duration::from_secs(10), "{:?}", died.elapsed());
    let mut expected: Vec<_> = (1..=10).map(|n| format!("a leave {}", n * 2)).collect();
    expected.sort();
    for node in [one, two] {
        let mut leaves = node.settled().await;
        leaves.sort();
        assert_eq!(leaves, expected);
    }
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn nodes_know_and_reach_each_other() {
    let server = Server::start("");
    let [one, two] = nodes(&server, Setup::ten()).await;
    let bus = one.engine.nodes().unwrap();
    let uids = eventually(async || {
        let mut uids: Vec<_> = bus.nodes().await.ok()?.into_iter().map(|node| node.uid).collect();
        uids.sort_unstable();
        (uids.len() == 2).then_some(uids)
    });
    assert_eq!(uids.await, ["node0", "node1"]);
    bus.send(Some("node1"), Bytes::from_static(b"{}")).await.unwrap();
    let received = tokio::time::timeout(PATIENCE, two.engine.nodes().unwrap().next()).await;
    assert_eq!(received.unwrap(), b"{}"[..]);
    two.engine.close().await.unwrap();
    assert_eq!(bus.nodes().await.unwrap().len(), 1);
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn many_channels_and_members_of_one_come_at_once() {
    let server = Server::start("");
    let [node, other] = nodes(&server, Setup::ten()).await;
    let channels: Vec<_> = (0..2000).map(|n| name(&format!("plain{n}"))).collect();
    let opened = channels.iter().map(async |channel| {
        node.recorder.subscribed.lock().push(channel.clone());
        node.engine.interest_changed(channel).await
    });
    let opened = futures_util::future::join_all(opened).await;
    assert!(opened.iter().all(Result::is_ok));
    for channel in &channels {
        other.publish(channel.as_str(), "1").await;
    }
    let received = || node.recorder.events.lock().len();
    eventually(async || (received() == channels.len()).then_some(())).await;

    // Members of one channel come, and some of them leave at once.
    for leaving in [100, 1, 100] {
        let members = (0..100).map(async |bits| {
            let member = member(bits, "ada");
            let client = member.client;
            node.engine.presence_add(&subscription(1), member, true).await?;
            match bits < leaving {
                true => node.engine.presence_remove(&subscription(1), client).await,
                false => Ok(()),
            }
        });
        let results = futures_util::future::join_all(members).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        for node in [&node, &other] {
            let clients = node.engine.presence_stats(&name("a")).await.unwrap().clients;
            assert_eq!(clients as u128, 100 - leaving);
        }
    }
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn the_server_keeps_no_more_publications_than_the_history_has() {
    let server = Server::start("");
    let [node] = nodes(&server, Setup::ten()).await;
    for n in 1..=25 {
        node.publish("a", &n.to_string()).await;
    }
    let expected: Vec<_> = (16..=25).map(|n| n.to_string()).collect();
    assert_eq!(node.stored("a").await, expected);
    let mut stored = 0;
    for stream in server.streams().await {
        let info = server
            .call(&format!("STREAM.INFO.{stream}"), r#"{"subjects_filter":">"}"#)
            .await;
        let subjects = info["state"]["subjects"].as_object().cloned().unwrap_or_default();
        let of_channel = subjects.iter().filter(|(subject, _)| subject.ends_with(".a"));
        stored += of_channel.filter_map(|(_, count)| count.as_u64()).sum::<u64>();
    }
    // And the one before them, which proves that nothing is missing in between.
    assert_eq!(stored, 11);
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_node_that_starts_does_not_lose_its_first_connection() {
    let server = Server::start("");
    server.client().await;
    let log = Log::capture();
    let [node] = nodes(&server, Setup::ten()).await;
    node.publish("a", "1").await;
    let text = log.text();
    assert!(text.contains("connected to NATS"), "{text}");
    assert!(!text.contains("cannot be reached"), "{text}");
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_server_that_cannot_replicate_says_so() {
    let server = Server::start("");
    let config = server.config("?stream_bytes=1048576&replicas=3");
    let log = Log::capture();
    let node = Fixture::nats_node(Setup::ten(), &config, "node").await;
    for _ in 0..3 {
        assert!(node.engine.probe().await.is_err());
    }
    let text = log.text();
    let reasons = text
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("replicas"));
    assert_eq!(reasons.count(), 1, "{text}");
}
