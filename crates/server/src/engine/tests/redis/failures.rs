//! Servers that die, lose writes, or move channels.

use super::*;

/// A client that follows channels: it notices gaps, and what it cannot recover.
#[derive(Default)]
struct Follower {
    state: Mutex<Following>,
}

#[derive(Default)]
struct Following {
    positions: Vec<(ChannelName, Option<Position>)>,
    log: Vec<String>,
}

impl Deliver for Follower {
    fn has_subscribers(&self, channel: &ChannelName) -> bool {
        self.state.lock().positions.iter().any(|(known, _)| known == channel)
    }

    fn publication(&self, channel: &ChannelName, publication: &Publication, epoch: Option<&Epoch>) {
        let mut state = self.state.lock();
        let data = publication.content.data.to_json();
        state.log.push(format!("{channel} {data}"));
        if let Some(epoch) = epoch {
            let position = Position {
                epoch: epoch.clone(),
                offset: publication.offset,
            };
            state.set(channel, position);
        }
    }

    fn join(&self, _: &ChannelName, _: &ClientInfo) {}

    fn leave(&self, _: &ChannelName, _: &ClientInfo) {}
}

impl Following {
    fn get(&self, channel: &ChannelName) -> Option<Position> {
        let known = self.positions.iter().find(|(known, _)| known == channel);
        known.and_then(|(_, position)| position.clone())
    }

    fn set(&mut self, channel: &ChannelName, position: Position) {
        let known = self.positions.iter_mut().find(|(known, _)| known == channel);
        known.unwrap().1 = Some(position);
    }
}

impl ChannelPositions for Follower {
    fn continuity(&self, channel: &ChannelName, epoch: &Epoch, offset: u64, previous: u64) -> Continuity {
        match self.state.lock().get(channel) {
            Some(seen) if seen.epoch != *epoch => Continuity::Gap,
            Some(seen) if seen.offset == previous => Continuity::Next,
            Some(seen) if offset <= seen.offset => Continuity::Repeated,
            Some(_) => Continuity::Gap,
            None => Continuity::Next,
        }
    }

    fn position(&self, channel: &ChannelName) -> Option<Position> {
        self.state.lock().get(channel)
    }

    fn positions(&self) -> Vec<(ChannelName, Position)> {
        let state = self.state.lock();
        let positions = state.positions.iter().cloned();
        positions
            .filter_map(|(channel, position)| Some((channel, position?)))
            .collect()
    }

    fn channels(&self) -> Vec<ChannelName> {
        let state = self.state.lock();
        state.positions.iter().map(|(channel, _)| channel.clone()).collect()
    }

    fn catch_up(&self, channel: &ChannelName, seen: &Position, top: &Position) -> bool {
        let mut state = self.state.lock();
        let is_same = state.get(channel).as_ref() == Some(seen);
        if is_same {
            state.log.push(format!("{channel} gap"));
            state.set(channel, top.clone());
        }
        is_same
    }
}

/// A node with one subscriber.
struct Node {
    store: Arc<RedisStore>,
    follower: Arc<Follower>,
    broker: Arc<ClusterBroker>,
    running: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn start(config: &RedisConfig, channels: &[&str]) -> Self {
        let follower = Arc::new(Follower::default());
        let store = Arc::new(RedisStore::new(config, "node".into()).unwrap());
        let refuse = Arc::new(|_: &ChannelName| OutagePolicy::Refuse);
        let setup = Setup {
            count_max: 1000,
            ..Setup::ten()
        };
        let broker = ClusterBroker::new(store.clone(), follower.clone(), setup.limits(), refuse, "node".into());
        let broker = Arc::new(broker);
        let run = broker.clone();
        let running = tokio::spawn(async move { run.run().await });
        let node = Self {
            store,
            follower,
            broker,
            running,
        };
        node.until_ready().await;
        for channel in channels {
            node.follower.state.lock().positions.push((name(channel), None));
            node.broker.interest_changed(&name(channel)).await.unwrap();
            let top = node.top(channel).await;
            node.follower.state.lock().set(&name(channel), top);
        }
        node
    }

    async fn until_ready(&self) {
        eventually(async || (self.broker.health() == Health::Ready).then_some(())).await;
    }

    async fn until_not_ready(&self) {
        eventually(async || (self.broker.health() != Health::Ready).then_some(())).await;
    }

    async fn publish(&self, channel: &str, data: &str) -> Position {
        let publish = || content(data).into();
        let published = eventually(async || self.broker.publish(&name(channel), publish()).await.ok()).await;
        published.position
    }

    async fn top(&self, channel: &str) -> Position {
        eventually(async || self.broker.positions(&[name(channel)]).await.ok()?.pop()?).await
    }

    /// Waits until the subscriber has come as far as the stream, and returns what it has received.
    async fn caught_up(&self, channel: &str) -> Vec<String> {
        let top = self.top(channel).await;
        eventually(async || (self.follower.position(&name(channel)).as_ref() == Some(&top)).then_some(())).await;
        std::mem::take(&mut self.follower.state.lock().log)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn numbers(channel: &str, numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    numbers.map(|n| format!("{channel} {n}")).collect()
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_server_that_syncs_every_write_loses_nothing_when_it_is_killed() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::start(&server.config(""), &["a"]).await;
    let mut before = None;
    for n in 1..=5 {
        before = Some(node.publish("a", &n.to_string()).await);
    }
    server.kill();
    node.until_not_ready().await;
    assert_eq!(
        node.broker.publish(&name("a"), content("0").into()).await,
        Err(EngineError::Unreachable)
    );
    server.restart();
    node.until_ready().await;
    let after = node.publish("a", "6").await;
    assert_eq!(
        (Some(&after.epoch), after.offset),
        (before.as_ref().map(|at| &at.epoch), 6)
    );
    assert_eq!(node.caught_up("a").await, numbers("a", 1..=6));
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_server_that_does_not_sync_every_write_announces_a_gap_when_it_is_killed() {
    for options in [&[][..], &["--appendonly", "yes", "--appendfsync", "everysec"]] {
        let mut server = Server::start(options);
        let node = Node::start(&server.config(""), &["a"]).await;
        let before = node.publish("a", "1").await;
        node.caught_up("a").await;
        server.kill();
        server.restart();
        node.until_not_ready().await;
        node.until_ready().await;
        assert_eq!(node.caught_up("a").await, ["a gap"]);
        let after = node.publish("a", "2").await;
        assert_ne!(before.epoch, after.epoch);
        assert_eq!(node.caught_up("a").await, ["a 2"]);
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn connections_that_the_server_closes_are_made_again_and_nothing_is_lost() {
    let server = Server::start(&[]);
    let node = Node::start(&server.config(""), &["a"]).await;
    let mut first = None;
    for (n, kind) in (1..).zip(["pubsub", "normal", "pubsub", "normal", "pubsub"]) {
        first.get_or_insert(node.publish("a", &n.to_string()).await.epoch);
        // The command closes the connection that sent it as well.
        let mut connection = server.connection().await;
        let mut command = Cmd::new();
        command.arg(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
        let _: usize = command.query_async(&mut connection).await.unwrap();
    }
    let last = node.publish("a", "6").await;
    // A publication whose answer was lost was repeated.
    let mut received = node.caught_up("a").await;
    received.dedup();
    assert_eq!(received, numbers("a", 1..=6));
    assert_eq!(Some(last.epoch), first);
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_server_that_becomes_a_replica_is_not_ready() {
    let server = Server::start(&[]);
    let node = Node::start(&server.config(""), &["a"]).await;
    let before = node.publish("a", "1").await;
    let _: () = server.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    node.until_not_ready().await;
    let _: () = server.run(&["REPLICAOF", "NO", "ONE"]).await;
    node.until_ready().await;
    assert_ne!(node.publish("a", "2").await.epoch, before.epoch);
    assert_eq!(node.caught_up("a").await, ["a 1", "a gap", "a 2"]);
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_failover_that_loses_writes_begins_a_new_epoch() {
    let mut primary = Server::start(&[]);
    let of_primary = format!("127.0.0.1 {}", primary.port);
    let replica = Server::start(&["--replicaof", &of_primary]);
    let sentinel = sentinel(&primary);
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let node = Node::start(&url.parse().unwrap(), &["a"]).await;
    let mut epoch = None;
    for n in 1..=3 {
        epoch = Some(node.publish("a", &n.to_string()).await.epoch);
    }
    eventually(async || (primary.run::<usize>(&["WAIT", "1", "100"]).await == 1).then_some(())).await;
    eventually(async || {
        let info: String = primary.run(&["INFO", "replication"]).await;
        let known: Vec<Vec<String>> = sentinel.run(&["SENTINEL", "REPLICAS", "main"]).await;
        (info.contains("state=online") && known.len() == 1).then_some(())
    })
    .await;
    // The replica cannot log in any more, so it does not receive what follows.
    let _: () = replica.run(&["CONFIG", "SET", "masterauth", "wrong"]).await;
    let _: usize = primary.run(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    for n in 4..=5 {
        node.publish("a", &n.to_string()).await;
    }
    assert_eq!(node.caught_up("a").await, numbers("a", 1..=5));
    primary.kill();
    node.until_not_ready().await;
    node.until_ready().await;
    let after = node.publish("a", "6").await;
    assert_ne!(Some(&after.epoch), epoch.as_ref());
    assert_eq!(node.caught_up("a").await, ["a gap", "a 6"]);
    let history = HistoryQuery {
        limit: 9,
        ..HistoryQuery::default()
    };
    let history = node.broker.history(&name("a"), history).await.unwrap();
    let stored: Vec<_> = history
        .publications
        .iter()
        .map(|publication| publication.content.data.to_json())
        .collect();
    assert_eq!(stored, ["1", "2", "3", "6"]);
}

/// A sentinel that watches a server as `main`. On a busy machine, a healthy server may not answer for a second.
fn sentinel(primary: &Server) -> Server {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds main 3000\nsentinel failover-timeout main 5000\n",
        primary.port
    );
    let path = folder.path().join("sentinel.conf");
    std::fs::write(&path, config).unwrap();
    let mut server = Server {
        port,
        arguments: vec![path.to_str().unwrap().to_owned(), "--sentinel".to_owned()],
        folder,
        daemon: None,
    };
    server.restart();
    server
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_slot_that_is_moved_keeps_its_epoch_and_its_subscribers() {
    let cluster = Cluster::start(0).await;
    let node = Node::start(&cluster.config(""), &["a", "b"]).await;
    let before = node.publish("a", "1").await;
    node.caught_up("a").await;
    let slot: u16 = cluster.servers[0].run(&["CLUSTER", "KEYSLOT", "a"]).await;
    let from = usize::from(slot / 5461).min(2);
    let (from, to) = (&cluster.servers[from], &cluster.servers[(from + 1) % 3]);
    let slot = slot.to_string();
    let from_id: String = from.run(&["CLUSTER", "MYID"]).await;
    let to_id: String = to.run(&["CLUSTER", "MYID"]).await;
    let _: () = to.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
    let _: () = from.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
    let keys: Vec<String> = from.run(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
    assert!(!keys.is_empty());
    let port = to.port.to_string();
    for key in &keys {
        let _: () = from.run(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
    }
    for server in [to, from] {
        let _: () = server.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
    }
    let after = node.publish("a", "2").await;
    assert_eq!((after.epoch, after.offset), (before.epoch, 2));
    assert_eq!(node.caught_up("a").await, ["a 2"]);
    // Delivered by the new server, not only by reading the stream.
    eventually(async || {
        let pair: Vec<::redis::Value> = to.run(&["PUBSUB", "SHARDNUMSUB", "sockeye:{a}"]).await;
        (pair.last() == Some(&::redis::Value::Int(1))).then_some(())
    })
    .await;
    node.publish("a", "3").await;
    assert_eq!(node.caught_up("a").await, ["a 3"]);
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_failover_in_a_cluster_concerns_its_channels_only() {
    let mut cluster = Cluster::start(3).await;
    let channels: Vec<String> = (0..12).map(|n| format!("room{n}")).collect();
    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
    let node = Node::start(&cluster.config(""), &names).await;
    let mut before = Vec::new();
    for channel in &names {
        before.push(node.publish(channel, "1").await.epoch);
    }
    for server in &cluster.servers[..3] {
        eventually(async || {
            let info: String = server.run(&["INFO", "replication"]).await;
            info.contains("state=online").then_some(())
        })
        .await;
    }
    let mut is_moved = Vec::new();
    for channel in &names {
        let slot: u16 = cluster.servers[0].run(&["CLUSTER", "KEYSLOT", channel]).await;
        is_moved.push(slot <= 5460);
    }
    assert!(is_moved.contains(&true) && is_moved.contains(&false));
    cluster.servers[0].kill();
    for (channel, is_moved) in names.iter().zip(&is_moved) {
        if !is_moved {
            let published = node.broker.publish(&name(channel), content("2").into()).await;
            assert!(published.is_ok(), "the other servers go on");
        }
    }
    for ((channel, is_moved), epoch) in names.iter().zip(&is_moved).zip(&before) {
        let after = node.publish(channel, "3").await;
        assert_eq!(after.epoch != *epoch, *is_moved, "{channel}");
    }
    for channel in &names {
        node.caught_up(channel).await;
    }
    node.until_ready().await;
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn the_clients_of_a_killed_node_leave_once() {
    let server = Server::start(&[]);
    let config = server.config("");
    let node = Fixture::redis_node(Setup::ten(), &config, "node").await;
    let other = Fixture::redis_node(Setup::ten(), &config, "other").await;
    many_clients::leave_when_their_node_dies(node, other).await;
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_node_that_starts_without_its_engine_waits_for_it() {
    let mut server = Server::start(&[]);
    let config = server.config("");
    server.kill();
    let starting = Node::start(&config, &["a"]);
    let begin = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.restart();
    };
    let (node, ()) = futures_util::join!(starting, begin);
    node.publish("a", "1").await;
    assert_eq!(node.caught_up("a").await, numbers("a", 1..=1));
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn the_first_replica_does_not_end_the_epoch() {
    let server = Server::start(&[]);
    let node = Node::start(&server.config(""), &["a"]).await;
    let before = node.publish("a", "1").await;
    let info: String = server.run(&["INFO", "replication"]).await;
    let of_primary = format!("127.0.0.1 {}", server.port);
    let _replica = Server::start(&["--replicaof", &of_primary]);
    eventually(async || {
        let now: String = server.run(&["INFO", "replication"]).await;
        now.contains("state=online").then_some(())
    })
    .await;
    let id = |info: &str| {
        info.lines()
            .find(|line| line.starts_with("master_replid:"))
            .map(str::to_owned)
    };
    let now: String = server.run(&["INFO", "replication"]).await;
    assert_ne!(id(&info), id(&now), "Redis draws another replication id");
    // Longer than the check of the connection takes, and for a node that connects now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let other = Node::start(&server.config(""), &["a"]).await;
    let after = other.publish("a", "2").await;
    assert_eq!((&after.epoch, after.offset), (&before.epoch, 2));
    assert_eq!(node.caught_up("a").await, numbers("a", 1..=2));
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn the_first_replica_in_a_cluster_does_not_end_the_epoch() {
    let cluster = Cluster::start(0).await;
    let node = Node::start(&cluster.config(""), &["a"]).await;
    let before = node.publish("a", "1").await;
    let slot: u16 = cluster.servers[0].run(&["CLUSTER", "KEYSLOT", "a"]).await;
    let owner = &cluster.servers[usize::from(slot / 5461).min(2)];
    let owner_id: String = owner.run(&["CLUSTER", "MYID"]).await;
    let bus = free_port().to_string();
    let options = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-node-timeout",
        "2000",
    ];
    let replica = Server::start(&options);
    let port = replica.port.to_string();
    let _: () = owner.run(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
    eventually(async || {
        let mut command = Cmd::new();
        command.arg(&["CLUSTER", "REPLICATE", &owner_id]);
        command.query_async::<()>(&mut replica.connection().await).await.ok()
    })
    .await;
    eventually(async || {
        let now: String = owner.run(&["INFO", "replication"]).await;
        now.contains("state=online").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.until_ready().await;
    let after = node.publish("a", "2").await;
    assert_eq!((&after.epoch, after.offset), (&before.epoch, 2));
    assert_eq!(node.caught_up("a").await, numbers("a", 1..=2));
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn syncing_each_write_from_a_restart_on_does_not_bring_back_what_was_lost_before() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let node = Node::start(&server.config(""), &["a"]).await;
    let before = node.publish("a", "1").await;
    node.caught_up("a").await;
    let restart = async |server: &mut Server| {
        server.kill();
        server.arguments.extend(["--appendfsync", "always"].map(str::to_owned));
        server.restart();
        node.until_not_ready().await;
        node.until_ready().await;
    };
    restart(&mut server).await;
    assert_eq!(node.caught_up("a").await, ["a gap"]);
    let after = node.publish("a", "2").await;
    assert_ne!(before.epoch, after.epoch);
    // From now on, it has everything.
    restart(&mut server).await;
    assert_eq!(node.publish("a", "3").await.epoch, after.epoch);
    assert_eq!(node.caught_up("a").await, ["a 2", "a 3"]);
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_cluster_is_found_again_without_the_server_of_the_url() {
    let mut cluster = Cluster::start(1).await;
    let url = format!("redis+cluster://127.0.0.1:{}", cluster.servers[0].port);
    let node = Node::start(&url.parse().unwrap(), &["a", "b", "c"]).await;
    eventually(async || {
        let info: String = cluster.servers[0].run(&["INFO", "replication"]).await;
        info.contains("state=online").then_some(())
    })
    .await;
    cluster.servers[0].kill();
    // Its replica takes over.
    eventually(async || {
        let info: String = cluster.servers[3].run(&["INFO", "replication"]).await;
        info.contains("role:master").then_some(())
    })
    .await;
    node.until_ready().await;
    // All connections are made again, as after failed probes.
    node.store.reconnect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for channel in ["a", "b", "c"] {
        node.publish(channel, "1").await;
        node.caught_up(channel).await;
    }
    node.until_ready().await;
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_server_that_gives_away_all_its_slots_ends_no_epoch() {
    give_away_all_slots(Duration::ZERO).await;
}

/// The server becomes a replica at once; the others name it as a primary for some time.
#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn a_server_that_is_demoted_before_the_others_know_ends_no_epoch() {
    give_away_all_slots(Duration::from_secs(3)).await;
}

/// `delay`: how much later than the first server the second one knows that it has the slots.
async fn give_away_all_slots(delay: Duration) {
    let cluster = Cluster::start(0).await;
    let node = Node::start(&cluster.config(""), &["a"]).await;
    let channels: Vec<_> = (0..20).map(|n| format!("room{n}")).collect();
    let mut before = Vec::new();
    for channel in &channels {
        before.push(node.publish(channel, "1").await.epoch);
    }
    let [from, to, _] = &cluster.servers[..] else { panic!() };
    let from_id: String = from.run(&["CLUSTER", "MYID"]).await;
    let to_id: String = to.run(&["CLUSTER", "MYID"]).await;
    let port = to.port.to_string();
    // Slots with keys one by one. The others are empty and move together at the end.
    for slot in 0..=5460_u16 {
        let slot = slot.to_string();
        let keys: Vec<String> = from.run(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
        if keys.is_empty() {
            continue;
        }
        let _: () = to.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
        let _: () = from.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
        for key in &keys {
            let _: ::redis::Value = from.run(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
        }
        for server in [to, from] {
            let _: () = server.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
        }
    }
    let (mut on_to, mut on_from) = (to.connection().await, from.connection().await);
    let in_order = match delay {
        Duration::ZERO => [&mut on_to, &mut on_from],
        _ => [&mut on_from, &mut on_to],
    };
    for connection in in_order {
        let mut pipe = ::redis::pipe();
        for slot in 0..=5460_u16 {
            pipe.cmd("CLUSTER")
                .arg("SETSLOT")
                .arg(slot)
                .arg("NODE")
                .arg(&to_id)
                .ignore();
        }
        // The primary may become a replica before the last one.
        let _ = pipe.query_async::<()>(connection).await;
        tokio::time::sleep(delay).await;
    }
    // The node knows the new topology.
    tokio::time::sleep(Duration::from_secs(5)).await;
    node.until_ready().await;
    for (channel, epoch) in channels.iter().zip(&before) {
        let after = node.publish(channel, "2").await;
        assert_eq!((&after.epoch, after.offset), (epoch, 2), "{channel}");
    }
}

#[tokio::test]
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn the_state_of_a_stream_outlives_its_publications() {
    let server = Server::start(&[]);
    let node = Node::start(&server.config(""), &["a"]).await;
    let ttls = async || {
        let ttl = async |suffix: &str| server.run::<i64>(&["PTTL", &format!("sockeye:{{a}}:{suffix}")]).await;
        (ttl("m").await, ttl("h").await)
    };
    node.publish("a", "1").await;
    for _ in 0..3 {
        let (state, publications) = ttls().await;
        assert!(state > publications && publications > 0, "{state} {publications}");
        // Whoever looks at the stream keeps its state.
        let _: u64 = server.run(&["PEXPIRE", "sockeye:{a}:m", "70000"]).await;
        node.top("a").await;
        assert!(ttls().await.0 > 3_600_000);
    }
}
