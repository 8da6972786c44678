//! Several clients on one node, without sockets and with paused time.

mod channels;
mod cluster;
mod events;
mod publishing;
mod tokens;

use super::*;
use crate::config::{Config, SlowConsumerPolicy};
use crate::protocol::commands;

struct Peer(Client);

impl Peer {
    fn new(node: &Arc<Node>) -> Self {
        Self(Client::new(node.clone(), None, PingedBy::Commands))
    }

    async fn connected(node: &Arc<Node>, name: &str) -> Self {
        let mut peer = Self::new(node);
        peer.send(&format!(r#"{{"id":1,"connect":{{"data":{{"name":"{name}"}}}}}}"#))
            .await
            .unwrap();
        peer.receive().await;
        peer
    }

    /// A client that is subscribed to the room with join and leave pushes, with the first pushes already received.
    async fn in_room(node: &Arc<Node>, name: &str) -> Self {
        let mut peer = Self::connected(node, name).await;
        peer.send(r#"{"id":2,"subscribe":{"channel":"room","join_leave":true,"recoverable":true}}"#)
            .await
            .unwrap();
        peer.receive().await;
        peer
    }

    async fn send(&mut self, frame: &str) -> Result<(), DisconnectCode> {
        for command in commands(frame).unwrap() {
            self.0.handle_command(command).await?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> Vec<String> {
        let mut heard = Vec::new();
        while let Some(frame) = self.0.next_frame().unwrap() {
            heard.push(frame.message().as_text().unwrap().to_owned());
        }
        heard
    }

    async fn request(&mut self, frame: &str) -> String {
        self.send(frame).await.unwrap();
        let mut heard = self.receive().await;
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }
}

fn node() -> Arc<Node> {
    Node::new(Config::default())
}

/// Returns the text between two others, to extract random ids and epochs.
#[track_caller]
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start)
        .and_then(|(_, rest)| rest.split_once(end))
        .map(|(found, _)| found)
        .expect("no such text")
}

/// Runs the tasks that announce leaves.
async fn run_pending_tasks() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn replies_to_one_frame_are_sent_in_one_frame_and_in_order() {
    let mut peer = Peer::new(&node());
    let frame = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":3,\"ping\":{}}";
    peer.send(frame).await.unwrap();
    let heard = peer.receive().await;
    assert_eq!(heard.len(), 1);
    let lines: Vec<&str> = heard[0].lines().collect();
    assert!(lines[0].starts_with(r#"{"id":1,"connect":{"client":""#));
    assert_eq!(lines[1..], [r#"{"id":2,"subscribe":{}}"#, r#"{"id":3,"ping":{}}"#]);
}

#[tokio::test]
async fn a_publication_reaches_all_subscribers() {
    let node = node();
    let mut ada = Peer::in_room(&node, "Ada").await;
    let mut bob = Peer::in_room(&node, "Bob").await;
    ada.receive().await;
    ada.send(r#"{"id":3,"publish":{"channel":"room","data":{"text":"hi"}}}"#)
        .await
        .unwrap();
    let (heard_by_ada, heard_by_bob) = (ada.receive().await, bob.receive().await);
    assert_eq!(heard_by_ada[0], heard_by_bob[0]);
    assert_eq!(heard_by_ada[1], r#"{"id":3,"publish":{}}"#);
    let push = &heard_by_bob[0];
    assert!(push.starts_with(r#"{"push":{"channel":"room","pub":{"data":{"text":"hi"},"info":{"user":"","client":""#));
    assert!(push.contains(r#""conn_info":{"unverified":{"name":"Ada"}}},"offset":1,"time":"#));
}

#[tokio::test]
async fn joins_leaves_and_presence_are_consistent() {
    let node = node();
    let mut ada = Peer::in_room(&node, "Ada").await;
    let bob = Peer::in_room(&node, "Bob").await;
    let heard = ada.receive().await;
    assert!(
        heard[0].contains(r#""join":{"info":{"#) && heard[0].contains("Bob"),
        "{heard:?}"
    );

    let stats = r#"{"id":4,"presence_stats":{"channel":"room"}}"#;
    assert_eq!(
        ada.request(stats).await,
        r#"{"id":4,"presence_stats":{"num_clients":2,"num_users":1}}"#
    );
    drop(bob);
    run_pending_tasks().await;
    let heard = ada.receive().await;
    assert!(
        heard[0].contains(r#""leave":{"info":{"#) && heard[0].contains("Bob"),
        "{heard:?}"
    );
    let presence = ada.request(r#"{"id":5,"presence":{"channel":"room"}}"#).await;
    assert!(presence.contains("Ada") && !presence.contains("Bob"));

    ada.send(r#"{"id":6,"unsubscribe":{"channel":"room"}}"#).await.unwrap();
    // Unsubscribed before the announcement: a client does not receive its own leave push.
    assert_eq!(ada.receive().await, [r#"{"id":6,"unsubscribe":{}}"#]);
    assert_eq!(
        node.engine()
            .presence_stats(&ChannelName::new("room").unwrap())
            .await
            .unwrap()
            .clients,
        0
    );
}

#[tokio::test]
async fn a_reconnecting_client_recovers_missed_publications() {
    let node = node();
    let mut ada = Peer::in_room(&node, "Ada").await;
    let mut bob = Peer::connected(&node, "Bob").await;
    let reply = bob
        .request(r#"{"id":2,"subscribe":{"channel":"room","recoverable":true,"positioned":true}}"#)
        .await;
    let epoch = between(&reply, "\"epoch\":\"", "\"");
    assert!(reply.ends_with(r#""offset":0}}"#), "{reply}");

    drop(bob);
    for text in 1..=2 {
        ada.send(&format!(r#"{{"id":3,"publish":{{"channel":"room","data":{text}}}}}"#))
            .await
            .unwrap();
    }
    let mut bob = Peer::connected(&node, "Bob").await;
    let reply = bob
        .request(&format!(
            r#"{{"id":2,"subscribe":{{"channel":"room","recoverable":true,"recover":true,"offset":0,"epoch":"{epoch}"}}}}"#
        ))
        .await;
    assert!(
        reply.contains(r#""offset":0,"was_recovering":true,"recovered":true,"publications":[{"data":1,"#),
        "{reply}"
    );
    assert!(reply.contains(r#"{"data":2,"#));
    ada.send(r#"{"id":3,"publish":{"channel":"room","data":3}}"#)
        .await
        .unwrap();
    let heard = bob.receive().await;
    assert_eq!(heard.len(), 1);
    assert!(heard[0].contains(r#""data":3"#) && heard[0].contains(r#""offset":3"#));
}

#[tokio::test]
async fn failed_recovery_is_reported() {
    let node = node();
    let mut ada = Peer::in_room(&node, "Ada").await;
    ada.send(r#"{"id":3,"publish":{"channel":"room","data":1}}"#)
        .await
        .unwrap();
    let mut bob = Peer::connected(&node, "Bob").await;
    let subscribe = r#""subscribe":{"channel":"room","recover":true,"offset":7,"epoch":"another","#;
    let reply = bob.request(&format!(r#"{{"id":2,{subscribe}"flag":0}}}}"#)).await;
    assert!(reply.contains(r#""offset":1,"was_recovering":true}"#), "{reply}");
    assert!(!reply.contains("recovered") && !reply.contains("publications"));

    let mut eve = Peer::connected(&node, "Eve").await;
    let reply = eve.request(&format!(r#"{{"id":2,{subscribe}"flag":2}}}}"#)).await;
    assert!(reply.contains(r#""error":{"code":112"#), "{reply}");
    // The failed subscription left no state, and was not announced.
    assert!(!ada.receive().await.iter().any(|heard| heard.contains("Eve")));
    let stats = ada
        .0
        .node
        .engine()
        .presence_stats(&ChannelName::new("room").unwrap())
        .await
        .unwrap();
    assert_eq!(stats.clients, 2);
    let again = eve.request(r#"{"id":3,"subscribe":{"channel":"room"}}"#).await;
    assert!(again.starts_with(r#"{"id":3,"subscribe":{"#), "{again}");
}

#[tokio::test]
async fn history_is_read_in_pages_from_either_end() {
    let node = node();
    let mut ada = Peer::in_room(&node, "Ada").await;
    for data in 1..=5 {
        ada.send(&format!(r#"{{"id":3,"publish":{{"channel":"room","data":{data}}}}}"#))
            .await
            .unwrap();
    }
    ada.receive().await;
    let offsets = |reply: &str| -> Vec<String> {
        reply
            .split("\"data\":")
            .skip(1)
            .map(|rest| rest[..1].to_owned())
            .collect()
    };
    let newest = ada
        .request(r#"{"id":4,"history":{"channel":"room","limit":2,"reverse":true}}"#)
        .await;
    assert_eq!(offsets(&newest), ["5", "4"]);
    let after = ada
        .request(r#"{"id":4,"history":{"channel":"room","limit":-1,"since":{"offset":3}}}"#)
        .await;
    assert_eq!(offsets(&after), ["4", "5"]);
    let top = ada.request(r#"{"id":4,"history":{"channel":"room"}}"#).await;
    assert!(top.starts_with(r#"{"id":4,"history":{"publications":[],"epoch":""#) && top.ends_with(r#""offset":5}}"#));
    let lost = ada
        .request(r#"{"id":4,"history":{"channel":"room","since":{"offset":3,"epoch":"old"}}}"#)
        .await;
    assert!(lost.contains("112"));
}

#[tokio::test]
async fn a_reply_larger_than_the_limit_is_an_error_and_not_queued() {
    let mut config = Config::default();
    config.limits.reply_size_max = 300;
    let node = Node::new(config);
    let mut ada = Peer::in_room(&node, "Ada").await;
    assert!(
        ada.request(r#"{"id":3,"presence":{"channel":"room"}}"#)
            .await
            .contains("\"presence\"")
    );
    let _bob = Peer::in_room(&node, "Bob").await;
    ada.receive().await;
    assert!(
        ada.request(r#"{"id":3,"presence":{"channel":"room"}}"#)
            .await
            .contains(r#""code":106"#)
    );
}

#[tokio::test]
async fn a_slow_client_is_disconnected_and_others_are_not() {
    let mut config = Config::default();
    config.limits.queue_bytes_max = 8 << 10;
    let node = Node::new(config);
    let mut slow = Peer::in_room(&node, "Slow").await;
    let mut ada = Peer::in_room(&node, "Ada").await;
    let big = format!(
        r#"{{"id":3,"publish":{{"channel":"room","data":"{}"}}}}"#,
        "x".repeat(1000)
    );
    for _ in 0..20 {
        ada.send(&big).await.unwrap();
        assert!(!ada.receive().await.is_empty());
    }
    assert_eq!(slow.0.next_frame(), Err(DisconnectCode::Slow));
    assert_eq!(slow.0.queue().bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn draining_disconnects_present_and_later_clients() {
    let node = node();
    let mut ada = Peer::in_room(&node, "Ada").await;
    let _ = tokio::time::timeout(Duration::from_secs(1), node.drain(Duration::ZERO)).await;
    assert_eq!(ada.0.next_frame(), Err(DisconnectCode::Shutdown));
    let mut late = Peer::new(&node);
    assert_eq!(late.0.next_frame(), Err(DisconnectCode::Shutdown));
}

#[tokio::test(start_paused = true)]
async fn a_client_is_pinged_within_the_interval_and_removed_after_33_seconds() {
    let node = node();
    let mut ada = Peer::connected(&node, "Ada").await;
    let start = Instant::now();
    tokio::time::sleep_until(ada.0.deadline().unwrap()).await;
    ada.0.handle_timeout().unwrap();
    assert_eq!(ada.receive().await, ["{}"]);
    tokio::time::sleep_until(ada.0.deadline().unwrap()).await;
    assert_eq!(ada.0.handle_timeout(), Err(DisconnectCode::NoPong));
    // Both timeouts are noticed up to a tick later.
    assert!(start.elapsed() <= Duration::from_secs(33) + 2 * TICK);
}

#[tokio::test]
async fn a_hundred_thousand_subscribes_leave_128() {
    let mut config = Config::default();
    config.limits.commands_per_second_max = u32::MAX;
    let node = Node::new(config);
    let mut peer = Peer::connected(&node, "Eve").await;
    for n in 0..100_000 {
        peer.send(&format!(r#"{{"id":2,"subscribe":{{"channel":"c{n}"}}}}"#))
            .await
            .unwrap();
        if n % 1000 == 0 {
            peer.receive().await;
        }
    }
    assert_eq!(peer.0.session.take_subscriptions().len(), 128);
}

#[tokio::test]
async fn the_largest_history_fits_into_one_reply() {
    let mut config = Config::default();
    config.channels.as_mut().unwrap().history_size = usize::MAX;
    config.limits.reply_size_max = 64 << 10;
    config.limits.history_bytes_per_channel_max = 63 << 10;
    config.check().unwrap();
    let mut ada = Peer::in_room(&Node::new(config), "Ada").await;
    // The smallest publications have the largest relative overhead.
    for _ in 0..500 {
        ada.send(r#"{"id":3,"publish":{"channel":"room","data":1}}"#)
            .await
            .unwrap();
        ada.receive().await;
    }
    let reply = ada.request(r#"{"id":4,"history":{"channel":"room","limit":-1}}"#).await;
    let publications = reply.matches("\"data\":1").count();
    assert!((300..500).contains(&publications), "{publications}");
}

/// A room in which Ada receives join and leave pushes, and Bob has a positioned subscription.
struct Watched {
    node: Arc<Node>,
    room: ChannelName,
    ada: Peer,
    bob: Peer,
}

impl Watched {
    async fn new() -> Self {
        let node = node();
        let mut ada = Peer::connected(&node, "Ada").await;
        ada.send(r#"{"id":2,"subscribe":{"channel":"room","join_leave":true}}"#)
            .await
            .unwrap();
        let bob = Peer::in_room(&node, "Bob").await;
        ada.receive().await;
        Self {
            node,
            room: ChannelName::new("room").unwrap(),
            ada,
            bob,
        }
    }

    /// Delivers a publication to the hub without its predecessors, so that Bob is unsubscribed.
    fn lose_a_publication(&self) {
        use crate::engine::{Content, Deliver, Epoch, Publication};
        let content = Content {
            data: crate::protocol::Data::json("1").unwrap(),
            info: None,
            tags: None,
        };
        let publication = Publication {
            content,
            offset: 1 << 40,
            previous: (1 << 40) - 1,
            time_ms: 0,
        };
        self.node
            .hub()
            .publication(&self.room, &publication, Some(&Epoch::new("another")));
    }

    /// The join and leave pushes that Ada received.
    async fn visits(&mut self) -> Vec<&'static str> {
        let heard = self.ada.receive().await;
        let visits = heard.iter().filter_map(|push| match push {
            _ if push.contains("\"join\":") => Some("join"),
            _ if push.contains("\"leave\":") => Some("leave"),
            _ => None,
        });
        visits.collect()
    }

    async fn members(&self) -> usize {
        self.node.engine().presence_stats(&self.room).await.unwrap().clients
    }

    /// Checks that Bob is a member, and that nothing is left after he disconnects.
    async fn check_that_bob_is_there(mut self) {
        run_pending_tasks().await;
        assert_eq!(self.members().await, 2);
        self.bob.receive().await;
        let reply = self
            .bob
            .request(r#"{"id":9,"presence_stats":{"channel":"room"}}"#)
            .await;
        assert!(reply.contains("\"num_clients\":2"), "{reply}");
        self.ada
            .send(r#"{"id":8,"publish":{"channel":"room","data":"hi"}}"#)
            .await
            .unwrap();
        assert!(self.bob.receive().await.iter().any(|push| push.contains("\"hi\"")));
        self.ada.receive().await;
        drop(self.bob);
        run_pending_tasks().await;
        let stats = self.node.engine().presence_stats(&self.room).await.unwrap();
        assert_eq!(stats.clients, 1);
        drop(self.ada);
        run_pending_tasks().await;
        use crate::engine::Deliver;
        assert!(!self.node.hub().has_subscribers(&self.room));
    }
}

const SUBSCRIBE: &str = r#"{"id":3,"subscribe":{"channel":"room","recoverable":true}}"#;

#[tokio::test]
async fn a_client_that_subscribes_again_at_once_stays_present() {
    let mut room = Watched::new().await;
    room.lose_a_publication();
    let heard = room.bob.receive().await;
    assert!(heard[0].contains("\"code\":2500"), "{heard:?}");
    // Before any other task runs.
    room.bob.send(SUBSCRIBE).await.unwrap();
    run_pending_tasks().await;
    assert_eq!(room.visits().await, ["leave", "join"]);
    room.check_that_bob_is_there().await;
}

/// The unsubscribe push of the hub is still queued while the client unsubscribes and subscribes again.
#[tokio::test]
async fn a_late_unsubscription_does_not_end_a_newer_subscription() {
    let mut room = Watched::new().await;
    room.lose_a_publication();
    let frame = format!("{{\"id\":4,\"unsubscribe\":{{\"channel\":\"room\"}}}}\n{SUBSCRIBE}");
    room.bob.send(&frame).await.unwrap();
    let heard = room.bob.receive().await;
    assert!(!heard.iter().any(|push| push.contains("2500")), "{heard:?}");
    room.check_that_bob_is_there().await;
}

#[tokio::test]
async fn a_client_that_disconnects_after_being_unsubscribed_leaves_once() {
    let mut room = Watched::new().await;
    room.lose_a_publication();
    room.bob.receive().await;
    let Watched {
        node,
        room: name,
        ada,
        bob,
    } = room;
    drop(bob);
    run_pending_tasks().await;
    let mut room = Watched {
        bob: Peer::new(&node),
        node,
        room: name,
        ada,
    };
    assert_eq!(room.visits().await, ["leave"]);
    assert_eq!(room.members().await, 1);
}

#[tokio::test]
async fn a_slow_client_receives_the_latest_publication_and_sees_the_gap() {
    for (policy, expected) in [
        (SlowConsumerPolicy::Latest { key_tag: None }, &[3][..]),
        (SlowConsumerPolicy::DropOldest, &[1, 2, 3]),
    ] {
        let mut config = Config::default();
        config.channels.as_mut().unwrap().slow_consumer = policy;
        let node = Node::new(config);
        let mut ada = Peer::in_room(&node, "Ada").await;
        let mut bob = Peer::in_room(&node, "Bob").await;
        ada.receive().await;
        for n in 1..=3 {
            bob.send(&format!(r#"{{"id":{n},"publish":{{"channel":"room","data":{n}}}}}"#))
                .await
                .unwrap();
            bob.receive().await;
        }
        let heard = ada.receive().await;
        let offsets: Vec<u64> = heard
            .iter()
            .map(|push| {
                push.split_once("\"offset\":")
                    .unwrap()
                    .1
                    .split([',', '}'])
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert_eq!(offsets, expected);
        assert_eq!(node.hub().stats().dropped.total(), 3 - expected.len() as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn timeouts_of_all_clients_share_ticks_and_are_never_early() {
    let node = node();
    let mut deadlines = Vec::new();
    for _ in 0..20 {
        tokio::time::advance(Duration::from_millis(7)).await;
        let client = Peer::connected(&node, "ada").await.0;
        let session = Instant::from_std(client.session.deadline().unwrap());
        let deadline = client.deadline().unwrap();
        assert!(deadline >= session && deadline < session + TICK);
        assert_eq!((deadline - node.started()).as_nanos() % TICK.as_nanos(), 0);
        deadlines.push(deadline);
    }
    // The first pings are spread over 12.5 s, whatever their ticks.
    let (first, last) = (deadlines.iter().min().unwrap(), deadlines.iter().max().unwrap());
    assert!(*last - *first > Duration::from_secs(1));
}

#[tokio::test]
async fn a_panic_in_the_task_of_a_client_is_counted() {
    let node = node();
    let client = Peer::connected(&node, "ada").await;
    let task = tokio::spawn(async move {
        let _client = client;
        panic!("asked for by the test");
    });
    assert!(task.await.unwrap_err().is_panic());
    drop(Peer::connected(&node, "bob").await);
    let metrics = node.encode_metrics();
    assert!(metrics.contains("sockeye_panics_total 1\n"), "{metrics}");
}
