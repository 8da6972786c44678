//! Streams, presence and messages between nodes, on a single server and on a cluster.

use super::*;
use crate::ids::Generation;

/// Two nodes on the same servers.
struct Pair {
    one: Fixture<ClusterBroker>,
    two: Fixture<ClusterBroker>,
}

impl Pair {
    async fn start(config: &RedisConfig) -> Self {
        Self {
            one: Fixture::redis_node(Setup::ten(), config, "one").await,
            two: Fixture::redis_node(Setup::ten(), config, "two").await,
        }
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn publications_reach_all_nodes() {
    for servers in Servers::each().await {
        let pair = Pair::start(&servers.config()).await;
        let bytes: Vec<u8> = (0..=255).collect();
        let content = Content {
            data: Data::from(bytes.clone()),
            ..content("0")
        };
        let first = pair.one.engine.publish(&name("a"), content).await.unwrap().position;
        pair.two.publish("a", "2").await;
        pair.one.publish("plain", "3").await;
        for node in [&pair.one, &pair.two] {
            let mut delivered = node.settled().await;
            // Channels have no common order.
            delivered.sort_by_key(|event| event.starts_with("plain"));
            assert_eq!(delivered.len(), 3, "{delivered:?}");
            assert_eq!(delivered[1..], ["a 2 2 true", "plain 0 3 false"]);
            assert!(node.recovers("a", &first).await);
        }
        let stored = pair.two.history("a").await.publications;
        assert_eq!(stored[0].content.data.as_bytes(), bytes);
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn the_server_keeps_no_more_than_the_limits() {
    for servers in Servers::each().await {
        let setup = Setup {
            ttl: Duration::from_secs(3),
            ..Setup::ten()
        };
        let node = Fixture::redis_node(setup, &servers.config(), "node").await;
        for n in 1..=25 {
            node.publish("a", &n.to_string()).await;
        }
        assert_eq!(servers.run::<usize>(&["LLEN", &servers.key(":{a}:h")]).await, 10);
        let pttl: Duration = Duration::from_millis(servers.run::<u64>(&["PTTL", &servers.key(":{a}:m")]).await);
        assert!(pttl > Duration::from_secs(3500), "the state outlives the publications");

        eventually(async || node.stored("a").await.is_empty().then_some(())).await;
        assert_eq!(node.publish("a", "26").await.offset, 26);
        assert_eq!(node.stored("a").await, ["26"]);

        // Larger than the history of a channel may be: numbered and delivered, but not kept.
        let limit = Limits::default().history_bytes_per_channel_max;
        node.publish("b", "1").await;
        let large = format!("\"{}\"", "x".repeat(limit));
        assert_eq!(node.publish("b", &large).await.offset, 2);
        let history = node.history("b").await;
        assert_eq!((history.publications.len(), history.top.offset), (0, 2));
        assert_eq!(node.publish("b", "3").await.offset, 3);
        assert_eq!(node.stored("b").await, ["3"]);
        let bytes: usize = servers.run(&["HGET", &servers.key(":{b}:m"), "b"]).await;
        assert!(bytes < 100, "{bytes}");
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_stream_without_its_state_starts_with_a_new_epoch() {
    for servers in Servers::each().await {
        let node = Fixture::redis_node(Setup::ten(), &servers.config(), "node").await;
        let before = node.publish("a", "1").await;
        node.publish("a", "2").await;
        let _: () = servers.run(&["DEL", &servers.key(":{a}:m")]).await;
        let after = node.publish("a", "3").await;
        assert_ne!(before.epoch, after.epoch);
        assert_eq!((after.offset, node.stored("a").await), (1, vec!["3".to_owned()]));
        let _: () = servers.run(&["DEL", &servers.key(":{a}:m")]).await;
        assert!(node.stored("a").await.is_empty());
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn idempotency_keys_expire() {
    for servers in Servers::each().await {
        let node = Fixture::redis_node(Setup::ten(), &servers.config(), "node").await;
        for channel in ["a", "plain"] {
            let publish = async |data: &str| {
                let publish = Publish {
                    idempotency_key: Some("k".into()),
                    ..content(data).into()
                };
                node.engine.publish(&name(channel), publish).await.unwrap()
            };
            let first = publish("1").await;
            node.publish(channel, "2").await;
            let repeated = publish("3").await;
            assert_eq!(
                (&first.outcome, &repeated.outcome),
                (&PublishOutcome::Delivered, &PublishOutcome::Duplicate)
            );
            assert_eq!(repeated.position, first.position);
            let key = servers.key(&format!(":{{{channel}}}:i:k"));
            let pttl: u64 = servers.run(&["PTTL", &key]).await;
            assert!((290_000..=300_000).contains(&pttl), "{pttl}");
            let _: () = servers.run(&["PEXPIRE", &key, "1"]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(publish("4").await.outcome, PublishOutcome::Delivered);
        }
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn versions_are_compared_exactly() {
    let node = Fixture::redis(Setup::ten()).await;
    let publish = async |number: u64| {
        let version = Some(Version {
            number,
            epoch: "e".into(),
        });
        let publish = Publish {
            version,
            ..content("1").into()
        };
        node.engine.publish(&name("a"), publish).await.unwrap().outcome
    };
    let near_max = u64::MAX - 1;
    assert_eq!(publish(9).await, PublishOutcome::Delivered);
    assert_eq!(publish(10).await, PublishOutcome::Delivered);
    assert_eq!(publish(near_max).await, PublishOutcome::Delivered);
    assert_eq!(publish(near_max).await, PublishOutcome::Suppressed);
    assert_eq!(publish(u64::MAX).await, PublishOutcome::Delivered);
    assert_eq!(publish(near_max).await, PublishOutcome::Suppressed);
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_flushed_script_cache_is_filled_again() {
    for servers in Servers::each().await {
        let pair = Pair::start(&servers.config()).await;
        pair.one.publish("a", "1").await;
        for server in servers.all() {
            let _: () = server.run(&["SCRIPT", "FLUSH"]).await;
        }
        pair.one.publish("a", "2").await;
        assert_eq!(pair.two.stored("a").await, ["1", "2"]);
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn without_memory_publications_are_refused_and_have_no_effect() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let node = Fixture::redis_node(Setup::ten(), &server.config(""), "node").await;
    node.publish("a", "1").await;
    let _: () = server.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for channel in ["a", "new"] {
        let result = node.engine.publish(&name(channel), content("2")).await;
        assert_eq!(result.unwrap_err(), EngineError::Full);
    }
    let _: () = server.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(node.publish("a", "3").await.offset, 2);
    assert_eq!(node.stored("a").await, ["1", "3"]);
    assert_eq!(node.publish("new", "3").await.offset, 1);
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn nodes_know_and_reach_each_other() {
    for servers in Servers::each().await {
        let pair = Pair::start(&servers.config()).await;
        let bus = pair.one.engine.nodes().unwrap();
        let uids = eventually(async || {
            let mut uids: Vec<_> = bus.nodes().await.ok()?.into_iter().map(|node| node.uid).collect();
            uids.sort_unstable();
            (uids.len() == 2).then_some(uids)
        });
        assert_eq!(uids.await, ["one", "two"]);
        bus.send(Some("two"), Bytes::from_static(b"{}")).await.unwrap();
        let received = tokio::time::timeout(PATIENCE, pair.two.engine.nodes().unwrap().next()).await;
        assert_eq!(received.unwrap(), b"{}"[..]);
        pair.two.engine.close().await.unwrap();
        assert_eq!(bus.nodes().await.unwrap().len(), 1);
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_dead_node_leaves_presence_and_each_leave_is_announced_once() {
    for servers in Servers::each().await {
        let config = servers.config();
        let fixture = Fixture::redis_node(Setup::ten(), &config, "one").await;
        let channels: Vec<_> = (0..20).map(|n| name(&format!("room{n}"))).collect();
        let subscription = |channel: &ChannelName| Subscription {
            channel: channel.clone(),
            generation: Generation::default(),
        };
        for channel in channels.iter().chain([&name("a")]) {
            for bits in 1..=3 {
                let info = member(bits, if bits == 3 { "bob" } else { "ada" });
                let added = fixture
                    .engine
                    .presence_add(&subscription(channel), info, bits != 2)
                    .await;
                added.unwrap();
            }
        }
        assert_eq!(fixture.engine.presence(&name("a"), 9).await.unwrap().unwrap().len(), 3);
        let stats = fixture.engine.presence_stats(&name("a")).await.unwrap();
        assert_eq!(stats, PresenceStats { clients: 3, users: 2 });

        // The survivors have the same prefix, and remove the entries at the same time.
        let nodes = [
            Fixture::redis_node(Setup::ten(), &config, "two").await,
            Fixture::redis_node(Setup::ten(), &config, "three").await,
        ];
        fixture.kill().await;
        for channel in channels.iter().chain([&name("a")]) {
            eventually(async || {
                let stats = nodes[0].engine.presence_stats(channel).await.unwrap();
                (stats.clients == 0 && stats.users == 0).then_some(())
            })
            .await;
        }
        let mut leaves = nodes[1].settled().await;
        leaves.sort_unstable();
        assert_eq!(leaves, ["a leave ada", "a leave bob"]);
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_node_that_changes_its_mind_leaves_no_trace_of_presence() {
    for servers in Servers::each().await {
        let node = Fixture::redis_node(Setup::ten(), &servers.config(), "node").await;
        let mut subscription = Subscription {
            channel: name("a"),
            generation: Generation::default().next(),
        };
        let earlier = Subscription {
            generation: Generation::default(),
            ..subscription.clone()
        };
        let client = member(1, "ada").client;
        node.engine
            .presence_add(&subscription, member(1, "ada"), true)
            .await
            .unwrap();
        node.engine
            .presence_add(&subscription, member(1, "bob"), true)
            .await
            .unwrap();
        node.engine.presence_remove(&earlier, client).await.unwrap();
        let stats = node.engine.presence_stats(&name("a")).await.unwrap();
        assert_eq!(stats, PresenceStats { clients: 1, users: 1 });
        subscription.generation = subscription.generation.next();
        node.engine.presence_remove(&subscription, client).await.unwrap();
        assert_eq!(servers.keys(":{a}:*").await, [""; 0]);
        assert_eq!(servers.keys("!node:*").await, [""; 0]);
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_user_with_limited_rights_and_tls_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let ca = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("cert"), ca.cert.pem()).unwrap();
    std::fs::write(path("key"), ca.signing_key.serialize_pem()).unwrap();
    let tls_port = free_port();
    let server = Server::start(&[
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &path("cert"),
        "--tls-key-file",
        &path("key"),
        "--tls-ca-cert-file",
        &path("cert"),
        "--tls-auth-clients",
        "no",
    ]);
    let rules = [
        "ACL",
        "SETUSER",
        "chat",
        "on",
        ">s3cr:t@",
        "~sockeye*",
        "&sockeye*",
        "+@all",
        "-@dangerous",
        "+info",
        "+config|get",
    ];
    let _: () = server.run(&rules).await;
    let url = format!("rediss://chat:s3cr%3At%40@127.0.0.1:{tls_port}?ca={}", path("cert"));
    let node = Fixture::redis_node(Setup::ten(), &url.parse().unwrap(), "node").await;
    node.publish("a", "1").await;
    assert_eq!(node.settled().await, ["a 1 1 true"]);

    let wrong = url.replace("s3cr", "wrong");
    let config: RedisConfig = wrong.parse().unwrap();
    let store = RedisStore::new(&config, "node".into()).unwrap();
    let broker = disconnected(Arc::new(store));
    let reason = eventually(async || match broker.health() {
        Health::NotReady(reason) if reason.contains("WRONGPASS") || reason.contains("uthentication") => Some(reason),
        _ => None,
    })
    .await;
    assert!(!reason.contains("wrong:") && !reason.contains("t@"), "{reason}");
}

/// A running node that is not expected to connect.
fn disconnected(store: Arc<dyn Store>) -> Arc<ClusterBroker> {
    let refuse = Arc::new(|_: &ChannelName| OutagePolicy::Refuse);
    let recorder = Arc::new(Recorder::default());
    let broker = ClusterBroker::new(store, recorder, Setup::ten().limits(), refuse, "node".into());
    let broker = Arc::new(broker);
    let running = broker.clone();
    tokio::spawn(async move { running.run().await });
    broker
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn many_channels_and_members_of_one_come_at_once() {
    for servers in Servers::each().await {
        let node = Fixture::redis_node(Setup::ten(), &servers.config(), "node").await;
        let channels: Vec<_> = (0..2000).map(|n| name(&format!("c{n}"))).collect();
        let opened = channels.iter().map(|channel| async {
            node.recorder.subscribed.lock().push(channel.clone());
            node.engine.interest_changed(channel).await
        });
        assert!(futures_util::future::join_all(opened).await.iter().all(Result::is_ok));
        let mut subscribed = 0;
        for server in servers.all() {
            let kind = match servers {
                Servers::One(_) => "CHANNELS",
                Servers::Cluster { .. } => "SHARDCHANNELS",
            };
            let list = ["PUBSUB", kind, &servers.key(":*")];
            subscribed += server.run::<Vec<String>>(&list).await.len();
        }
        // And the one of the probe.
        assert_eq!(subscribed, 2000 + SUBSCRIBED.len() + 1);

        // Members of one channel come, and some of them leave at once.
        let subscription = Subscription {
            channel: name("hot"),
            generation: Generation::default(),
        };
        for leaving in [100, 1, 100] {
            let members = (0..100).map(|bits| {
                let subscription = &subscription;
                let engine = &node.engine;
                async move {
                    let member = member(bits, "ada");
                    let client = member.client;
                    engine.presence_add(subscription, member, true).await?;
                    match bits < leaving {
                        true => engine.presence_remove(subscription, client).await,
                        false => Ok(()),
                    }
                }
            });
            let results = futures_util::future::join_all(members).await;
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            let clients = node.engine.presence_stats(&name("hot")).await.unwrap().clients;
            assert_eq!(clients as u128, 100 - leaving);
            // The channel is listed for the lease as long as it has an entry, so that a dead node leaves it.
            let listed = servers.keys("!node:*:c").await;
            assert_eq!(listed.len(), usize::from(clients > 0));
        }
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_channel_without_subscribers_after_an_outage_is_not_received() {
    let mut server = Server::start(&[]);
    let node = Fixture::redis_node(Setup::ten(), &server.config(""), "node").await;
    server.kill();
    eventually(async || (node.engine.health() != Health::Ready).then_some(())).await;
    // Its last subscriber leaves, but the server cannot be told.
    node.recorder
        .subscribed
        .lock()
        .retain(|channel| channel.as_str() != "plain");
    let refused = node.engine.interest_changed(&name("plain")).await;
    assert_eq!(refused, Err(EngineError::Unreachable));
    server.restart();
    eventually(async || (node.engine.health() == Health::Ready).then_some(())).await;
    let mut subscribed: Vec<String> = server.run(&["PUBSUB", "CHANNELS", "sockeye:{?*}"]).await;
    subscribed.retain(|name| !name.contains("storage"));
    subscribed.sort_unstable();
    assert_eq!(subscribed, ["sockeye:{a}", "sockeye:{b}"]);
}
