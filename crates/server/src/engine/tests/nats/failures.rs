//! What happens when the server fails.

use super::*;

async fn node(server: &Server) -> Fixture<ClusterBroker> {
    let config = server.config("?stream_bytes=1048576");
    Fixture::nats_node(Setup::ten(), &config, "node").await
}

async fn wait_until_ready(node: &Fixture<ClusterBroker>) {
    eventually(async || (node.engine.health() == Health::Ready).then_some(())).await;
}

async fn wait_until_not_ready(node: &Fixture<ClusterBroker>) {
    eventually(async || (node.engine.health() != Health::Ready).then_some(())).await;
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_killed_server_that_syncs_each_write_loses_nothing() {
    let mut server = Server::start("");
    let node = node(&server).await;
    let mut position = node.publish("a", "0").await;
    for n in 1..=9 {
        position = node.publish("a", &n.to_string()).await;
    }
    server.kill();
    wait_until_not_ready(&node).await;
    let refused = node.engine.publish(&name("a"), content("1")).await;
    assert_eq!(refused.unwrap_err(), EngineError::Unreachable);
    server.restart();
    wait_until_ready(&node).await;
    assert_eq!(node.history("a").await.top, position);
    assert_eq!(node.stored("a").await.len(), 10);
    node.delivered();
    // The subscriptions are renewed.
    let next = node.publish("a", "10").await;
    assert_eq!(next.epoch, position.epoch);
    assert_eq!(node.settled().await, [format!("a {} 10 true", next.offset)]);
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn lost_publications_change_the_epoch() {
    let mut server = Server::start("");
    let node = node(&server).await;
    for n in 0..5 {
        node.publish("a", &n.to_string()).await;
    }
    server.kill();
    let data = server.folder.path().join("data");
    let copy = server.folder.path().join("copy");
    let copied = |from: &std::path::Path, to: &std::path::Path| {
        let done = std::process::Command::new("cp")
            .arg("-a")
            .args([from, to])
            .status()
            .unwrap();
        assert!(done.success());
    };
    copied(&data, &copy);
    server.restart();
    wait_until_not_ready(&node).await;
    wait_until_ready(&node).await;
    for n in 5..9 {
        node.publish("a", &n.to_string()).await;
    }
    let lost = node.history("a").await.top;
    assert!(node.settled().await.len() >= 9);
    server.kill();
    std::fs::remove_dir_all(&data).unwrap();
    copied(&copy, &data);
    server.restart();
    wait_until_not_ready(&node).await;
    wait_until_ready(&node).await;
    let top = node.history("a").await.top;
    assert_ne!(top.epoch, lost.epoch);
    assert!(!node.recovers("a", &lost).await);
    let next = node.publish("a", "9").await;
    assert_eq!(next.epoch, top.epoch);
    assert_eq!(node.stored("a").await, ["9"]);
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_deleted_stream_is_created_again_with_another_epoch() {
    let server = Server::start("");
    let node = node(&server).await;
    let before = node.publish("a", "1").await;
    for stream in server.streams().await {
        let deleted = server.call(&format!("STREAM.DELETE.{stream}"), "").await;
        assert_eq!(deleted["success"], true, "{stream}");
    }
    let top = node.history("a").await.top;
    assert_ne!(top.epoch, before.epoch);
    let after = node.publish("a", "2").await;
    assert_eq!(after.epoch, top.epoch);
    assert!(!node.recovers("a", &before).await && node.recovers("a", &top).await);
    assert_eq!(node.stored("a").await, ["2"]);
    // The streams of presence and leases, too.
    let subscription = Subscription {
        channel: name("a"),
        generation: crate::ids::Generation(0),
    };
    node.engine
        .presence_add(&subscription, member(1, "ada"), true)
        .await
        .unwrap();
    assert_eq!(node.engine.presence_stats(&name("a")).await.unwrap().clients, 1);
    eventually(async || {
        let nodes = node.engine.nodes().unwrap().nodes().await.unwrap();
        nodes.iter().any(|node| node.uid == "node").then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_purged_stream_keeps_the_position_of_subscribed_channels() {
    let server = Server::start("");
    let node = node(&server).await;
    let before = node.publish("a", "1").await;
    assert_eq!(node.history("a").await.top, before);
    for stream in server.streams().await {
        server.call(&format!("STREAM.PURGE.{stream}"), "{}").await;
    }
    assert_eq!(node.history("a").await.top, before);
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_server_without_room_says_so() {
    let server = Server::start_with("max_file_store: 5M", "");
    let config = server.config("?stream_bytes=10000000");
    let node = Fixture::nats_node(Setup::ten(), &config, "node").await;
    let full = node.engine.publish(&name("a"), content("1")).await;
    assert_eq!(full.unwrap_err(), EngineError::Full);
    assert_eq!(node.publish("plain", "1").await, Position::none());
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn too_large_publications_are_refused() {
    let server = Server::start("max_payload: 64K");
    let node = node(&server).await;
    let large = format!("\"{}\"", "x".repeat(100_000));
    for channel in ["a", "plain"] {
        let refused = node.engine.publish(&name(channel), content(&large)).await;
        assert_eq!(refused.unwrap_err(), EngineError::TooLarge);
    }
    node.publish("a", "1").await;
}

async fn reason_of(config: &NatsConfig, expect: &str) {
    let recorder = Arc::new(Recorder::default());
    let store = Arc::new(NatsStore::new(config, "node".into()));
    let refuse = Arc::new(|_: &ChannelName| OutagePolicy::Refuse);
    let broker = Arc::new(ClusterBroker::new(
        store,
        recorder,
        Setup::ten().limits(),
        refuse,
        "node".into(),
    ));
    let running = broker.clone();
    tokio::spawn(async move { running.run().await });
    let mut last = Health::Ready;
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            last = broker.health();
            if matches!(&last, Health::NotReady(reason) if reason.contains(expect)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    if found.await.is_err() {
        panic!("{last:?}");
    }
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn reasons_of_a_failed_connection_are_clear() {
    let mut server = Server::start("authorization { user: ada, password: s3cret }");
    let config = |login: &str| {
        format!("nats://{login}127.0.0.1:{}", server.port)
            .parse::<NatsConfig>()
            .unwrap()
    };
    let (right, wrong) = (config("ada:s3cret@"), config("ada:wr0ng@"));
    reason_of(&wrong, "authorization").await;
    reason_of(&config(""), "authorization").await;
    let node = Fixture::nats_node(Setup::ten(), &right, "node").await;
    node.publish("a", "1").await;
    server.kill();
    reason_of(&right, "cannot connect to NATS at 127.0.0.1").await;
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_server_without_jetstream_is_refused() {
    let mut server = Server::start("");
    server.kill();
    let path = server.folder.path().join("nats.conf");
    std::fs::write(&path, format!("listen: 127.0.0.1:{}\n", server.port)).unwrap();
    server.restart();
    reason_of(&server.config(""), "JetStream is not enabled").await;
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn tokens_log_in() {
    let server = Server::start("authorization { token: s3cret }");
    let config = format!("nats://s3cret@127.0.0.1:{}?stream_bytes=1048576", server.port);
    let node = Fixture::nats_node(Setup::ten(), &config.parse().unwrap(), "node").await;
    node.publish("a", "1").await;
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_channel_without_subscribers_after_an_outage_is_not_received() {
    let mut server = Server::start("");
    let node = node(&server).await;
    let config = server.config("?stream_bytes=1048576");
    let publisher = Fixture::nats_node(Setup::ten(), &config, "publisher").await;
    server.kill();
    wait_until_not_ready(&node).await;
    // Its last subscriber leaves, but the server cannot be told.
    node.recorder
        .subscribed
        .lock()
        .retain(|channel| channel.as_str() != "plain");
    let refused = node.engine.interest_changed(&name("plain")).await;
    assert_eq!(refused, Err(EngineError::Unreachable));
    server.restart();
    for node in [&node, &publisher] {
        wait_until_ready(node).await;
    }
    node.delivered();
    publisher.publish("plain", "1").await;
    let next = publisher.publish("a", "2").await;
    let expect = format!("a {} 2 true", next.offset);
    let received = eventually(async || {
        let events = node.recorder.events.lock().clone();
        events.contains(&expect).then_some(events)
    })
    .await;
    assert_eq!(received, [expect]);
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn the_clients_of_a_killed_node_leave_once() {
    let server = Server::start("");
    let node = node(&server).await;
    let config = server.config("?stream_bytes=1048576");
    let other = Fixture::nats_node(Setup::ten(), &config, "other").await;
    many_clients::leave_when_their_node_dies(node, other).await;
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn impossible_sequences_do_not_end_a_subscription() {
    let server = Server::start("");
    let node = node(&server).await;
    let first = node.publish("a", "1").await;
    node.settled().await;
    let mut stored = String::new();
    for stream in server.streams().await {
        let info = server.call(&format!("STREAM.INFO.{stream}"), "").await;
        let subject = info["config"]["subjects"][0].as_str().unwrap_or_default();
        if subject.contains(first.epoch.as_str()) {
            stored = subject.replace('>', "a");
        }
    }
    assert!(!stored.is_empty());
    let client = server.client().await;
    for (sequence, before) in [("0", "0"), ("1", "18446744073709551615"), ("x", "0")] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Subject", stored.as_str());
        headers.insert("Nats-Sequence", sequence);
        headers.insert("Nats-Last-Sequence", before);
        client
            .publish_with_headers("sockeye.l.a", headers, "".into())
            .await
            .unwrap();
    }
    client.flush().await.unwrap();
    let beyond = Position {
        offset: u64::MAX,
        ..first
    };
    assert!(!node.recovers("a", &beyond).await);
    let next = node.publish("a", "2").await;
    let expect = format!("a {} 2 true", next.offset);
    eventually(async || node.recorder.events.lock().contains(&expect).then_some(())).await;
}
