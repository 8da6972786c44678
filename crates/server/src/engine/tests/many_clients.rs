//! A node with many clients dies.

use tokio::time::Instant;

use super::*;

/// Number of clients. `SOCKEYE_PRESENCE_CLIENTS` selects another one, for measurements.
const CLIENTS: u128 = 2_000;

const CHANNELS: u128 = 100;

const PATIENCE: Duration = Duration::from_secs(120);

/// Adds clients to a node, kills it, and waits until the other one has announced each leave once.
pub(super) async fn leave_when_their_node_dies(mut node: Fixture<ClusterBroker>, other: Fixture<ClusterBroker>) {
    let clients = std::env::var("SOCKEYE_PRESENCE_CLIENTS").ok();
    let clients = clients.map_or(CLIENTS, |clients| clients.parse().unwrap());
    for n in 0..CHANNELS {
        let channel = name(&format!("c{n}"));
        other.recorder.subscribed.lock().push(channel.clone());
        other.engine.interest_changed(&channel).await.unwrap();
    }
    let start = Instant::now();
    let all: Vec<_> = (0..clients).collect();
    for part in all.chunks(500) {
        let added = part.iter().map(|n| {
            let subscription = Subscription {
                channel: name(&format!("c{}", n % CHANNELS)),
                generation: crate::ids::Generation(1),
            };
            let engine = node.engine.clone();
            async move { engine.presence_add(&subscription, member(*n, "ada"), true).await }
        });
        for added in futures_util::future::join_all(added).await {
            added.unwrap();
        }
    }
    println!("{clients} clients came within {:?}", start.elapsed());
    // Long enough for the other node to have been connected for the time of a lease.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let killed = Instant::now();
    let running = node.running.take().unwrap();
    running.abort();
    let _ = running.await;
    drop(node);
    let leaves = || {
        other
            .recorder
            .events
            .lock()
            .iter()
            .filter(|event| event.contains(" leave "))
            .count() as u128
    };
    let mut first = None;
    loop {
        let left = leaves();
        if left > 0 {
            first.get_or_insert_with(|| killed.elapsed());
        }
        if left >= clients {
            break;
        }
        assert!(killed.elapsed() < PATIENCE, "{left} of {clients} left");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    println!("the first left after {first:?}, the last after {:?}", killed.elapsed());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(leaves(), clients);
    for n in 0..CHANNELS {
        let stats = other.engine.presence_stats(&name(&format!("c{n}"))).await.unwrap();
        assert_eq!(stats.clients, 0);
    }
}
