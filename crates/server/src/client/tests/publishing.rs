//! Clients that publish while the log is slow.

use parking_lot::RwLock;

use super::events::client;
use super::*;
use crate::channel::Hub;
use crate::client::publishing::PUBLISHING_MAX;
use crate::engine::{HistoryLimits, MemoryBroker};
use crate::journal::JournalOptions;
use crate::journal::tests::sim::{Faults, SimDisk};

/// A node whose log is on a simulated disk.
fn logged() -> (Arc<Node>, SimDisk) {
    let disk = SimDisk::new(1);
    let hub = Arc::new(Hub::new());
    let limits = HistoryLimits {
        count_max: 100,
        bytes_max: 1 << 20,
        ttl: Duration::from_secs(3600),
    };
    let limits = Arc::new(move |_: &ChannelName| Some(limits));
    let options = JournalOptions::new("");
    let broker = MemoryBroker::open_simulated(hub.clone(), limits, 1 << 20, &disk, &options).unwrap();
    let config = Arc::new(RwLock::new(Arc::new(Config::default())));
    (Node::with_memory(config, hub, broker), disk)
}

fn stall(disk: &SimDisk) {
    disk.set_faults(Faults {
        is_stalled: true,
        ..Faults::default()
    });
}

fn publish(id: u32, channel: &str) -> String {
    format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{id}}}}}"#)
}

fn history(id: u32, channel: &str) -> String {
    format!(r#"{{"id":{id},"history":{{"channel":"{channel}","limit":100}}}}"#)
}

impl Peer {
    /// Receives until there are `count` lines, and fails if there are more or it takes too long.
    pub(super) async fn hear(&mut self, count: usize) -> Vec<String> {
        let mut heard = Vec::new();
        let hearing = async {
            while heard.len() < count {
                heard.extend(self.run_until_idle().await.unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(10), hearing)
            .await
            .expect("not all lines arrived");
        assert_eq!(heard.len(), count, "{heard:?}");
        heard
    }
}

/// Stopping the node waits for the threads of its log.
async fn stop(peers: impl Send + 'static, node: Arc<Node>) {
    drop(peers);
    run_pending_tasks().await;
    tokio::task::spawn_blocking(move || drop(node)).await.unwrap();
}

#[tokio::test]
async fn publications_that_wait_for_the_log_delay_only_what_depends_on_them() {
    let (node, disk) = logged();
    let mut subscriber = client(&node).await;
    subscriber.feed(r#"{"id":2,"subscribe":{"channel":"a"}}"#).await;
    let mut peer = client(&node).await;
    stall(&disk);
    let commands = [
        publish(2, "a"),
        publish(3, "b"),
        publish(4, "a"),
        r#"{"id":5,"ping":{}}"#.to_owned(),
        history(6, "c"),
        // Waits for the publications in this channel, and the next command for it.
        history(7, "a"),
        r#"{"id":8,"ping":{}}"#.to_owned(),
    ];
    let heard = peer.feed(&commands.join("\n")).await;
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].starts_with(r#"{"id":5,"#) && heard[1].starts_with(r#"{"id":6,"#));
    // Written means acknowledged, and also delivered.
    assert_eq!(subscriber.run_until_idle().await.unwrap(), [""; 0]);
    disk.set_faults(Faults::default());
    let heard = peer.hear(5).await;
    let replies = [2, 3, 4].map(|id| format!(r#"{{"id":{id},"publish":{{}}}}"#));
    assert_eq!(heard[..3], replies);
    assert!(heard[3].starts_with(r#"{"id":7,"#) && heard[4].starts_with(r#"{"id":8,"#));
    assert_eq!(between(&heard[3], "\"data\":", ","), "2");
    assert!(
        heard[3].contains("\"data\":4,") && heard[3].contains("\"offset\":2"),
        "{}",
        heard[3]
    );
    let pushes = subscriber.hear(2).await;
    assert!(pushes[0].contains("\"offset\":1") && pushes[1].contains("\"offset\":2"));
    stop((peer, subscriber), node).await;
}

#[tokio::test]
async fn the_publications_of_a_client_that_wait_for_the_log_are_limited() {
    let (node, disk) = logged();
    let mut peer = client(&node).await;
    stall(&disk);
    let count = PUBLISHING_MAX as u32 + 5;
    let commands: Vec<_> = (2..count + 2).map(|id| publish(id, "a")).collect();
    assert_eq!(peer.feed(&commands.join("\n")).await, [""; 0]);
    assert_eq!(peer.0.pending_publication_count(), PUBLISHING_MAX);
    disk.set_faults(Faults::default());
    let heard = peer.hear(count as usize).await;
    let replies: Vec<_> = (2..count + 2)
        .map(|id| format!(r#"{{"id":{id},"publish":{{}}}}"#))
        .collect();
    assert_eq!(heard, replies);
    stop(peer, node).await;
}

#[tokio::test]
async fn publications_are_completed_without_their_client() {
    let (node, disk) = logged();
    let mut subscriber = client(&node).await;
    subscriber.feed(r#"{"id":2,"subscribe":{"channel":"a"}}"#).await;
    let mut peer = client(&node).await;
    stall(&disk);
    peer.feed(&publish(2, "a")).await;
    drop(peer);
    disk.set_faults(Faults::default());
    assert!(subscriber.hear(1).await[0].contains("\"data\":2"));
    stop(subscriber, node).await;
}

#[tokio::test]
async fn publications_that_the_log_has_no_room_for_fail() {
    let (node, disk) = logged();
    let mut peer = client(&node).await;
    stall(&disk);
    assert_eq!(peer.feed(&[publish(2, "a"), publish(3, "a")].join("\n")).await, [""; 0]);
    disk.set_faults(Faults {
        capacity: Some(0),
        ..Faults::default()
    });
    let heard = peer.hear(2).await;
    for (id, reply) in [2, 3].into_iter().zip(heard) {
        assert_eq!(
            reply,
            format!(r#"{{"id":{id},"error":{{"code":100,"message":"internal server error","temporary":true}}}}"#)
        );
    }
    stop(peer, node).await;
}
