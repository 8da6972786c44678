//! Clients on several nodes, which share a simulated store. Time is virtual.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;
use crate::engine::cluster::StorePublish;
use crate::engine::cluster::simulated::{SimFaults, SimServer, SimStore};
use crate::engine::{HistoryLimits, Store};
use crate::handle::{Disconnect, ServerHandle, Target};
use crate::serve::tests::Log;

struct Cluster {
    server: Arc<SimServer>,
    nodes: Vec<Arc<Node>>,
}

impl Cluster {
    async fn new(count: usize) -> Self {
        Self::with_config(count, &Config::default()).await
    }

    async fn with_config(count: usize, config: &Config) -> Self {
        let mut cluster = Self {
            server: SimServer::new(1),
            nodes: Vec::new(),
        };
        for _ in 0..count {
            let uid = crate::node::random_uid();
            let store = SimStore::new(&cluster.server, &uid);
            let node = Node::with_store(config.clone(), store, uid);
            tokio::spawn(crate::handle::run(node.clone()));
            cluster.nodes.push(node);
        }
        cluster.until_ready().await;
        cluster
    }

    async fn until_ready(&self) {
        for node in &self.nodes {
            while node.check_ready().await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    fn handle(&self, node: usize) -> ServerHandle {
        ServerHandle::new(self.nodes[node].clone())
    }

    async fn publish(&self, node: usize, number: u64) {
        let options = crate::handle::PublishOptions::new(number.to_string());
        self.handle(node).publish("room", options).await.unwrap();
    }
}

/// Waits until everything on its way has arrived.
async fn wait_for_deliveries() {
    sleep(Duration::from_millis(300)).await;
}

/// The data of the publications that a client receives, which are numbers.
async fn numbers(peer: &mut Peer) -> Vec<u64> {
    wait_for_deliveries().await;
    let heard = peer.receive().await;
    let lines = heard.iter().flat_map(|frame| frame.lines());
    lines
        .filter(|line| line.contains(r#""pub":{"data":"#))
        .map(|line| between(line, r#""pub":{"data":"#, ",").parse().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn clients_of_different_nodes_meet() {
    let cluster = Cluster::new(2).await;
    let mut ada = Peer::in_room(&cluster.nodes[0], "Ada").await;
    let mut bob = Peer::in_room(&cluster.nodes[1], "Bob").await;
    wait_for_deliveries().await;
    let heard = ada.receive().await.join("\n");
    assert!(heard.contains(r#""join":"#) && heard.contains("Bob"), "{heard}");
    bob.send(r#"{"id":3,"publish":{"channel":"room","data":17}}"#)
        .await
        .unwrap();
    assert_eq!(numbers(&mut ada).await, [17]);
    assert_eq!(
        ada.request(r#"{"id":4,"presence_stats":{"channel":"room"}}"#).await,
        r#"{"id":4,"presence_stats":{"num_clients":2,"num_users":1}}"#
    );
    drop(bob);
    wait_for_deliveries().await;
    let heard = ada.receive().await.join("\n");
    assert!(heard.contains(r#""leave":"#) && heard.contains("Bob"), "{heard}");
    let presence = ada.request(r#"{"id":5,"presence":{"channel":"room"}}"#).await;
    assert!(presence.contains("Ada") && !presence.contains("Bob"), "{presence}");
}

#[tokio::test(start_paused = true)]
async fn calls_of_the_api_reach_all_nodes() {
    let cluster = Cluster::new(3).await;
    let mut peers = Vec::new();
    for node in &cluster.nodes {
        peers.push(Peer::in_room(node, "Ada").await);
    }
    // Nodes register every two seconds.
    sleep(Duration::from_secs(5)).await;
    for peer in &mut peers {
        peer.receive().await;
    }
    let handle = cluster.handle(0);
    let channels = handle.channels("r*").await.unwrap();
    assert_eq!((channels.len(), channels[0].subscribers), (1, 3));
    assert_eq!(handle.channels("[").await, Err(ErrorCode::BadRequest));
    let nodes = handle.nodes().await.unwrap();
    assert_eq!(nodes.len(), 3);
    assert_eq!(nodes.iter().map(|node| node.clients).sum::<usize>(), 3);
    handle.unsubscribe(Target::user(""), "room").await.unwrap();
    wait_for_deliveries().await;
    for peer in &mut peers {
        let heard = peer.receive().await.join("\n");
        assert!(heard.contains(r#""unsubscribe":{"code":2000"#), "{heard}");
    }
    handle
        .disconnect(Target::user(""), Disconnect::default())
        .await
        .unwrap();
    wait_for_deliveries().await;
    for peer in &mut peers {
        assert_eq!(peer.0.next_frame().unwrap_err(), DisconnectCode::ForceDisconnect);
    }
}

#[tokio::test(start_paused = true)]
async fn the_clients_of_a_killed_node_leave_once_within_ten_seconds() {
    let cluster = Cluster::new(3).await;
    let mut ada = Peer::in_room(&cluster.nodes[0], "Ada").await;
    let mut eve = Peer::in_room(&cluster.nodes[1], "Eve").await;
    let bob = Peer::in_room(&cluster.nodes[2], "Bob").await;
    sleep(Duration::from_secs(5)).await;
    for peer in [&mut ada, &mut eve] {
        peer.receive().await;
    }
    let killed = Instant::now();
    cluster.server.kill(cluster.nodes[2].uid());
    // Its process is gone: nothing announces the client.
    std::mem::forget(bob);
    let presence = async || cluster.handle(0).presence_stats("room").await.unwrap().clients;
    while presence().await > 2 {
        assert!(killed.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(10)).await;
    for peer in [&mut ada, &mut eve] {
        let heard = peer.receive().await.join("\n");
        assert!(
            heard.contains("Bob") && heard.matches(r#""leave":"#).count() == 1,
            "{heard}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_calls_fail_at_once_and_subscribers_stay() {
    let cluster = Cluster::new(2).await;
    let mut ada = Peer::in_room(&cluster.nodes[0], "Ada").await;
    cluster.publish(1, 1).await;
    cluster.server.set_down(true);
    wait_for_deliveries().await;
    let start = Instant::now();
    let options = crate::handle::PublishOptions::new("2");
    assert_eq!(
        cluster.handle(1).publish("room", options).await,
        Err(ErrorCode::Internal)
    );
    let mut eve = Peer::connected(&cluster.nodes[1], "Eve").await;
    let refused = eve
        .request(r#"{"id":3,"subscribe":{"channel":"room","recoverable":true}}"#)
        .await;
    assert!(
        refused.contains(r#""code":100"#) && refused.contains(r#""temporary":true"#),
        "{refused}"
    );
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(cluster.nodes[0].check_ready().await.is_err());
    cluster.server.set_down(false);
    cluster.until_ready().await;
    cluster.publish(1, 3).await;
    assert_eq!(numbers(&mut ada).await, [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn publications_wait_for_the_store_where_the_namespace_says_so() {
    let mut config = Config::default();
    config.channels.as_mut().unwrap().outage_buffer = Duration::from_secs(5);
    let cluster = Cluster::with_config(2, &config).await;
    let mut ada = Peer::in_room(&cluster.nodes[0], "Ada").await;
    cluster.server.set_down(true);
    wait_for_deliveries().await;
    let publishers: Vec<_> = (1..=20)
        .map(|number: u64| {
            let handle = cluster.handle(1);
            tokio::spawn(async move {
                sleep(Duration::from_millis(number)).await;
                let options = crate::handle::PublishOptions::new(number.to_string());
                handle.publish("room", options).await
            })
        })
        .collect();
    sleep(Duration::from_secs(2)).await;
    cluster.server.set_down(false);
    for publisher in publishers {
        publisher.await.unwrap().unwrap();
    }
    assert_eq!(numbers(&mut ada).await, (1..=20).collect::<Vec<_>>());
    cluster.server.set_down(true);
    wait_for_deliveries().await;
    let start = Instant::now();
    let options = crate::handle::PublishOptions::new("21");
    assert_eq!(
        cluster.handle(1).publish("room", options).await,
        Err(ErrorCode::Internal)
    );
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn publications_do_not_queue_after_an_outage() {
    let mut config = Config::default();
    config.channels.as_mut().unwrap().outage_buffer = Duration::from_secs(5);
    let cluster = Cluster::with_config(1, &config).await;
    let publish_all = async || {
        let publishing = (1..=50).map(|number| cluster.publish(0, number));
        futures_util::future::join_all(publishing).await;
    };
    cluster.server.set_down(true);
    wait_for_deliveries().await;
    let back = async {
        sleep(Duration::from_secs(1)).await;
        cluster.server.set_down(false);
    };
    tokio::join!(publish_all(), back);
    wait_for_deliveries().await;
    let stats = cluster.nodes[0].engine().stats().cluster.unwrap();
    assert_eq!(stats.waiting_bytes, 0);
    // A call takes 400 µs, so one after another take 20 ms.
    let start = Instant::now();
    publish_all().await;
    assert!(start.elapsed() < Duration::from_millis(5), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn lost_and_repeated_events_are_repaired_without_the_client() {
    let cluster = Cluster::new(2).await;
    let mut ada = Peer::in_room(&cluster.nodes[0], "Ada").await;
    cluster.server.set_faults(SimFaults {
        lost_events: 30,
        repeated_events: 10,
        late_events: 10,
        ..SimFaults::default()
    });
    let mut heard = Vec::new();
    for number in 1..=60 {
        cluster.publish(1, number).await;
        if number % 10 == 0 {
            heard.extend(numbers(&mut ada).await);
        }
    }
    cluster.server.set_faults(SimFaults::default());
    cluster.publish(1, 61).await;
    heard.extend(numbers(&mut ada).await);
    assert_eq!(heard, (1..=61).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_gives_out_an_offset_again_is_noticed() {
    let cluster = Cluster::new(2).await;
    let mut ada = Peer::in_room(&cluster.nodes[0], "Ada").await;
    for number in 1..=5 {
        cluster.publish(1, number).await;
    }
    assert_eq!(numbers(&mut ada).await, [1, 2, 3, 4, 5]);
    cluster.server.forget(3);
    cluster.publish(1, 6).await;
    wait_for_deliveries().await;
    let heard = ada.receive().await.join("\n");
    assert!(heard.contains(r#""unsubscribe":{"code":2500"#), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_a_node_does_not_confirm_fails() {
    let cluster = Cluster::new(2).await;
    let mut ada = Peer::in_room(&cluster.nodes[1], "Ada").await;
    sleep(Duration::from_secs(3)).await;
    ada.receive().await;
    let disconnect = async || {
        let handle = cluster.handle(0);
        handle.disconnect(Target::user(""), Disconnect::default()).await
    };
    cluster.server.set_faults(SimFaults {
        lost_events: 100,
        ..SimFaults::default()
    });
    let start = Instant::now();
    assert_eq!(disconnect().await, Err(ErrorCode::Internal));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(ada.0.next_frame().is_ok());
    cluster.server.set_faults(SimFaults::default());
    cluster.until_ready().await;
    assert_eq!(disconnect().await, Ok(()));
    assert_eq!(ada.0.next_frame().unwrap_err(), DisconnectCode::ForceDisconnect);
}

#[tokio::test(start_paused = true)]
async fn a_command_does_not_wait_for_a_node_that_has_shut_down_meanwhile() {
    let cluster = Cluster::new(2).await;
    sleep(Duration::from_secs(3)).await;
    // The registered nodes are read after 50 ms, and the command is sent after 150 ms.
    cluster.server.set_latency(Duration::from_millis(100));
    let start = Instant::now();
    let shut_down = async {
        sleep(Duration::from_millis(60)).await;
        cluster.nodes[1].engine().close().await.unwrap();
        cluster.server.kill(cluster.nodes[1].uid());
    };
    let handle = cluster.handle(0);
    let disconnect = async {
        let disconnected = handle.disconnect(Target::user("ada"), Disconnect::default()).await;
        (disconnected, start.elapsed())
    };
    let ((disconnected, took), ()) = tokio::join!(disconnect, shut_down);
    assert_eq!(disconnected, Ok(()));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn commands_wait_for_the_first_connection_of_a_node_that_starts() {
    let mut cluster = Cluster::new(1).await;
    let start = async |cluster: &mut Cluster| {
        let uid = crate::node::random_uid();
        let store = SimStore::new(&cluster.server, &uid);
        let node = Node::with_store(Config::default(), store, uid);
        tokio::spawn(crate::handle::run(node.clone()));
        cluster.nodes.push(node);
    };
    start(&mut cluster).await;
    let mut ada = Peer::connected(&cluster.nodes[1], "Ada").await;
    let reply = ada
        .request(r#"{"id":2,"subscribe":{"channel":"room","recoverable":true}}"#)
        .await;
    assert!(reply.contains(r#""recoverable":true"#), "{reply}");
    cluster.publish(1, 1).await;
    assert_eq!(numbers(&mut ada).await, [1]);

    // Not longer than the first attempt takes.
    cluster.server.set_down(true);
    start(&mut cluster).await;
    let began = Instant::now();
    let mut eve = Peer::connected(&cluster.nodes[2], "Eve").await;
    let refused = eve.request(r#"{"id":2,"subscribe":{"channel":"room"}}"#).await;
    assert!(
        refused.contains(r#""code":100"#) && refused.contains(r#""temporary":true"#),
        "{refused}"
    );
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_shuts_down_announces_the_leaves_of_its_clients() {
    let cluster = Cluster::new(2).await;
    let mut ada = Peer::in_room(&cluster.nodes[0], "Ada").await;
    let bob = Peer::in_room(&cluster.nodes[1], "Bob").await;
    wait_for_deliveries().await;
    ada.receive().await;
    cluster.server.set_latency(Duration::from_millis(100));
    drop(bob);
    cluster.nodes[1].drain(Duration::ZERO).await;
    cluster.nodes[1].engine().close().await.unwrap();
    // The process ends.
    cluster.server.kill(cluster.nodes[1].uid());
    wait_for_deliveries().await;
    let heard = ada.receive().await.join("\n");
    assert!(
        heard.contains("Bob") && heard.matches(r#""leave":"#).count() == 1,
        "{heard}"
    );
}

#[tokio::test(start_paused = true)]
async fn many_commands_at_once_are_confirmed() {
    let cluster = Cluster::new(2).await;
    cluster.server.set_latency(Duration::from_millis(5));
    let commands = (0..500).map(|_| {
        let handle = cluster.handle(0);
        async move { handle.disconnect(Target::user("ada"), Disconnect::default()).await }
    });
    let results = futures_util::future::join_all(commands).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_takes_no_longer_than_a_publication() {
    let mut config = Config::default();
    config.channels.as_mut().unwrap().outage_buffer = Duration::from_secs(5);
    let cluster = Cluster::with_config(1, &config).await;
    cluster.server.set_down(true);
    wait_for_deliveries().await;
    let channels: Vec<_> = (0..50).map(|n| format!("room{n}")).collect();
    let start = Instant::now();
    let options = crate::handle::PublishOptions::new("1");
    let results = cluster.handle(0).broadcast(&channels, options).await.unwrap();
    assert!(results.iter().all(|result| *result == Err(ErrorCode::Internal)));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_deliver_what_it_stores_is_noticed_by_itself() {
    let cluster = Cluster::new(1).await;
    let node = &cluster.nodes[0];
    let is_good = || {
        (
            node.is_known_ready(),
            node.engine().stats().cluster.unwrap().is_connected,
        )
    };
    assert_eq!(is_good(), (true, true));
    cluster.server.set_faults(SimFaults {
        lost_publications: 100,
        ..SimFaults::default()
    });
    // Nobody asks for the readiness.
    sleep(Duration::from_secs(7)).await;
    assert_eq!(is_good(), (false, false));
    cluster.server.set_faults(SimFaults::default());
    sleep(Duration::from_secs(7)).await;
    assert_eq!(is_good(), (true, true));
}

#[tokio::test(start_paused = true)]
async fn channels_of_a_dead_server_do_not_delay_the_others() {
    let cluster = Cluster::new(2).await;
    let mut ada = Peer::in_room(&cluster.nodes[0], "Ada").await;
    let dead: Vec<_> = (0..100).map(|n| format!("dead{n}")).collect();
    for (n, channel) in dead.iter().enumerate() {
        let id = n + 10;
        let subscribe = format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}","recoverable":true}}}}"#);
        let reply = ada.request(&subscribe).await;
        assert!(reply.contains(r#""recoverable":true"#), "{reply}");
    }
    cluster.server.set_faults(SimFaults {
        lost_publications: 100,
        ..SimFaults::default()
    });
    let publish = |channel: String| {
        let handle = cluster.handle(1);
        async move {
            let options = crate::handle::PublishOptions::new("1");
            handle.publish(&channel, options).await.unwrap();
        }
    };
    publish("room".to_owned()).await;
    for channel in &dead {
        publish(channel.clone()).await;
    }
    cluster.server.set_faults(SimFaults::default());
    cluster.server.set_dead(Some("dead"));
    cluster.server.set_down(true);
    wait_for_deliveries().await;
    cluster.server.set_down(false);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(numbers(&mut ada).await, [1], "only that of the room");
    cluster.server.set_dead(None);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(numbers(&mut ada).await, [1; 100]);
}

#[tokio::test(start_paused = true)]
async fn a_reported_loss_is_repaired_while_another_channel_cannot_be_read() {
    let mut cluster = Cluster::new(1).await;
    let uid = crate::node::random_uid();
    let store = SimStore::new(&cluster.server, &uid);
    let node = Node::with_store(Config::default(), store.clone(), uid);
    tokio::spawn(crate::handle::run(node.clone()));
    cluster.nodes.push(node);
    cluster.until_ready().await;
    let mut ada = Peer::in_room(&cluster.nodes[1], "Ada").await;
    let subscribe = r#"{"id":10,"subscribe":{"channel":"dead","recoverable":true}}"#;
    let reply = ada.request(subscribe).await;
    assert!(reply.contains(r#""recoverable":true"#), "{reply}");
    cluster.publish(0, 1).await;
    cluster.server.set_dead(Some("dead"));
    cluster.server.set_down(true);
    wait_for_deliveries().await;
    cluster.server.set_down(false);
    // Now the position of the other channel is asked for again and again.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(numbers(&mut ada).await, [1]);
    cluster.server.set_faults(SimFaults {
        lost_publications: 100,
        ..SimFaults::default()
    });
    cluster.publish(0, 2).await;
    cluster.server.set_faults(SimFaults::default());
    assert!(numbers(&mut ada).await.is_empty());
    store.report_loss();
    assert_eq!(numbers(&mut ada).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_node_ignores_what_only_a_newer_version_knows_and_says_so() {
    let log = Log::capture();
    let cluster = Cluster::new(2).await;
    let mut bob = Peer::in_room(&cluster.nodes[1], "Bob").await;
    let bus = cluster.nodes[0].engine().nodes().unwrap();
    let send = async |message: &str| {
        let envelope = format!(r#"{{"from":"newer","format":9,"message":{message}}}"#);
        bus.send(None, envelope.into()).await.unwrap();
        wait_for_deliveries().await;
    };
    for message in [r#"{"teleport":{"to":1}}"#, r#"{"command":{"promote":{}}}"#, "[]"] {
        send(message).await;
    }
    let lines = log.text();
    let warnings = lines
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("does not know"));
    // One for each node.
    assert_eq!(warnings.count(), 2, "{lines}");
    assert!(bob.receive().await.iter().all(|frame| !frame.contains("unsubscribe")));
    // Known commands with unknown fields are executed.
    send(
        r#"{"command":{"unsubscribe":{"target":{"user":"","client":null,"except":[],"where":1},"channel":"room","why":"x"}}}"#,
    )
    .await;
    let heard = bob.receive().await.join("\n");
    assert!(heard.contains(r#""unsubscribe":{"code":2000"#), "{heard}");
    bus.set_info(r#"{"format":9}"#.into());
    cluster.handle(1).nodes().await.unwrap();
    cluster.handle(1).channels("*").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_publication_that_only_a_newer_version_can_read_is_announced_as_missing() {
    let log = Log::capture();
    let cluster = Cluster::new(1).await;
    let mut ada = Peer::in_room(&cluster.nodes[0], "Ada").await;
    cluster.publish(0, 1).await;
    assert_eq!(numbers(&mut ada).await, [1]);
    let store = SimStore::new(&cluster.server, cluster.nodes[0].uid());
    let newer = StorePublish {
        payload: b"\xc8\x02\0\0\0{}".to_vec().into(),
        time_ms: 0,
        idempotency_key: None,
        version: None,
        limits: Some(HistoryLimits {
            count_max: 10,
            bytes_max: 1 << 20,
            ttl: Duration::from_secs(60),
        }),
    };
    let room = ChannelName::new("room").unwrap();
    let top = store.publish(&room, newer).await.unwrap().position;
    wait_for_deliveries().await;
    let heard = ada.receive().await.join("\n");
    assert!(heard.contains(r#""unsubscribe":{"code":2500"#), "{heard}");
    assert!(log.text().contains("a publication of the engine cannot be decoded"));
    // Recovery over it is refused, and then everything goes on.
    let epoch = top.epoch.as_str();
    let subscribe = |offset: u64| {
        format!(r#"{{"id":9,"subscribe":{{"channel":"room","recover":true,"offset":{offset},"epoch":"{epoch}"}}}}"#)
    };
    let reply = ada.request(&subscribe(1)).await;
    assert!(
        reply.contains(r#""was_recovering":true"#) && !reply.contains(r#""recovered":true"#),
        "{reply}"
    );
    cluster.publish(0, 3).await;
    assert_eq!(numbers(&mut ada).await, [3]);
}
