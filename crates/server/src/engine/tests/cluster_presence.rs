//! Presence of several nodes that share a simulated store, while calls fail. Time is virtual.

use tokio::time::sleep;

use super::cluster::MembershipKind;
use super::cluster::simulated::SimFaults;
use super::*;

/// Time for two renewals of the lease, after which everything was repeated that had failed.
const RENEWALS: Duration = Duration::from_secs(5);

struct Nodes {
    server: Arc<SimServer>,
    /// The node with the clients.
    own: Fixture<ClusterBroker>,
    other: Fixture<ClusterBroker>,
}

impl Nodes {
    async fn start() -> Self {
        let server = SimServer::new(1);
        let own = Fixture::node(Setup::ten(), &server, "own").await;
        let other = Fixture::node(Setup::ten(), &server, "other").await;
        sleep(RENEWALS).await;
        Self { server, own, other }
    }

    async fn add(&self, client: u128, generation: u64) -> Result<(), EngineError> {
        let info = member(client, "ada");
        self.own
            .engine
            .presence_add(&subscription(generation), info, true)
            .await
    }

    /// A client leaves, as a node does it.
    async fn leave(&self, client: u128, generation: u64) {
        let info = member(client, "ada");
        let engine = &self.own.engine;
        let _ = engine.presence_remove(&subscription(generation), info.client).await;
        let _ = engine.publish_leave(&name("a"), info).await;
    }

    /// The number of clients that all nodes see.
    async fn clients(&self) -> usize {
        self.other.engine.presence_stats(&name("a")).await.unwrap().clients
    }

    /// The members that all nodes see.
    async fn users(&self) -> Vec<String> {
        let members = self.other.engine.presence(&name("a"), usize::MAX).await.unwrap();
        let members = members.unwrap();
        members.iter().map(|member| member.user.to_string()).collect()
    }

    async fn outage(&self, during: impl Future<Output = ()>) {
        self.server.set_down(true);
        sleep(Duration::from_millis(100)).await;
        during.await;
        self.server.set_down(false);
        sleep(RENEWALS).await;
    }
}

fn subscription(generation: u64) -> Subscription {
    Subscription {
        channel: name("a"),
        generation: crate::ids::Generation(generation),
    }
}

fn failing(percent: u32) -> SimFaults {
    SimFaults {
        failed_calls: percent,
        ..SimFaults::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_during_an_outage_is_removed_afterwards() {
    let nodes = Nodes::start().await;
    nodes.add(1, 1).await.unwrap();
    nodes.add(2, 1).await.unwrap();
    // The lease does not end, so no other node removes the entry.
    nodes.outage(nodes.leave(1, 1)).await;
    assert_eq!(nodes.clients().await, 1);
    assert_eq!(nodes.other.delivered(), ["a leave ada"]);
    sleep(RENEWALS).await;
    assert!(nodes.other.delivered().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_fails_while_the_store_is_connected_is_repeated() {
    let nodes = Nodes::start().await;
    nodes.add(1, 1).await.unwrap();
    nodes.server.set_faults(failing(100));
    nodes.leave(1, 1).await;
    nodes.server.set_faults(SimFaults::default());
    sleep(RENEWALS).await;
    assert_eq!(nodes.clients().await, 0);
    assert_eq!(nodes.other.delivered(), ["a leave ada"]);
}

#[tokio::test(start_paused = true)]
async fn an_addition_that_takes_effect_after_the_removal_is_removed() {
    let nodes = Nodes::start().await;
    nodes.server.set_presence_delay(Duration::from_secs(1));
    let late = async {
        // The caller has given up, but the store still has the call.
        let store = SimStore::new(&nodes.server, "own");
        let entry = super::cluster::PresenceEntry {
            client: member(1, "ada").client,
            generation: crate::ids::Generation(1),
            user: "ada".into(),
            info: super::record::encode_client(&member(1, "ada")).into(),
            announces_leave: true,
        };
        store.presence_put(&name("a"), entry).await.unwrap();
    };
    let gives_up = async {
        let added = tokio::time::timeout(Duration::from_millis(500), nodes.add(1, 1)).await;
        assert!(added.is_err());
        nodes.leave(1, 1).await;
    };
    tokio::join!(late, gives_up);
    sleep(2 * RENEWALS).await;
    assert_eq!(nodes.clients().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_does_not_leave() {
    let nodes = Nodes::start().await;
    nodes.add(1, 1).await.unwrap();
    nodes.server.set_faults(failing(100));
    nodes.leave(1, 1).await;
    nodes.server.set_faults(SimFaults::default());
    nodes.add(1, 2).await.unwrap();
    sleep(RENEWALS).await;
    assert_eq!(nodes.clients().await, 1);
    assert!(nodes.other.delivered().is_empty());
}

#[tokio::test(start_paused = true)]
async fn information_that_changes_during_an_outage_is_stored_afterwards() {
    let nodes = Nodes::start().await;
    nodes.add(1, 1).await.unwrap();
    let replace = async |user| {
        let (subscription, info) = (subscription(1), member(1, user));
        nodes.own.engine.presence_add(&subscription, info, true).await
    };
    nodes.outage(async { assert!(replace("bob").await.is_err()) }).await;
    assert_eq!(nodes.users().await, ["bob"]);
    // While the store is connected, but fails.
    nodes.server.set_faults(failing(100));
    assert!(replace("eve").await.is_err());
    nodes.server.set_faults(SimFaults::default());
    sleep(RENEWALS).await;
    assert_eq!(nodes.users().await, ["eve"]);
    assert!(nodes.other.delivered().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_without_presence_that_comes_back_does_not_leave() {
    let nodes = Nodes::start().await;
    nodes.server.set_faults(failing(100));
    let engine = &nodes.own.engine;
    assert!(engine.publish_leave(&name("a"), member(1, "ada")).await.is_err());
    nodes.server.set_faults(SimFaults::default());
    engine.publish_join(&name("a"), member(1, "ada")).await.unwrap();
    sleep(RENEWALS).await;
    assert_eq!(nodes.other.delivered(), ["a join ada"]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_restored_is_tried_again() {
    let nodes = Nodes::start().await;
    for client in 0..50 {
        nodes.add(client, 1).await.unwrap();
    }
    nodes.server.fail_over(0);
    nodes.server.set_faults(failing(70));
    sleep(Duration::from_secs(2)).await;
    nodes.server.set_faults(SimFaults::default());
    sleep(RENEWALS).await;
    assert_eq!(nodes.clients().await, 50);
}

#[tokio::test(start_paused = true)]
async fn the_lease_does_not_end_while_entries_are_restored() {
    let nodes = Nodes::start().await;
    for client in 0..2000 {
        nodes.add(client, 1).await.unwrap();
    }
    // Restoring takes 31 s.
    nodes.server.set_presence_delay(Duration::from_secs(1));
    nodes.outage(std::future::ready(())).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(nodes.clients().await, 2000);
    assert!(nodes.other.delivered().is_empty(), "other nodes took it for dead");
}

#[tokio::test(start_paused = true)]
async fn joins_are_announced_again_after_a_lapse() {
    let nodes = Nodes::start().await;
    nodes.add(1, 1).await.unwrap();
    nodes.own.delivered();
    nodes.outage(sleep(Duration::from_secs(8))).await;
    assert_eq!(nodes.clients().await, 1);
    let heard = nodes.other.delivered();
    assert_eq!(heard.last().map(String::as_str), Some("a join ada"), "{heard:?}");
}

/// Delays that cover one renewal and the one-second calls it repeats.
fn start_delays() -> impl Iterator<Item = Duration> {
    (0..40).map(|n| n * Duration::from_millis(100))
}

/// The last join or leave, and the number of leaves.
fn last_and_leaves(heard: &[String]) -> (Option<&str>, usize) {
    let leaves = heard.iter().filter(|event| event.contains("leave")).count();
    (heard.last().map(String::as_str), leaves)
}

#[tokio::test(start_paused = true)]
async fn a_repeated_leave_does_not_overtake_the_join_of_a_client_that_is_back() {
    for delay in start_delays() {
        let nodes = Nodes::start().await;
        nodes.add(1, 1).await.unwrap();
        nodes.server.set_faults(failing(100));
        nodes.leave(1, 1).await;
        nodes.server.set_faults(SimFaults::default());
        nodes
            .server
            .delay_announcements(MembershipKind::Leave, Duration::from_secs(1));
        sleep(delay).await;
        nodes.add(1, 2).await.unwrap();
        nodes
            .own
            .engine
            .publish_join(&name("a"), member(1, "ada"))
            .await
            .unwrap();
        sleep(2 * RENEWALS).await;
        let heard = nodes.other.delivered();
        let (last, leaves) = last_and_leaves(&heard);
        assert!(last == Some("a join ada") && leaves <= 1, "{delay:?}: {heard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_join_does_not_follow_the_leave_of_its_client() {
    for delay in start_delays() {
        let nodes = Nodes::start().await;
        nodes.add(1, 1).await.unwrap();
        // Long enough that the other node announces the leave, so that the join is announced again.
        nodes.server.set_down(true);
        sleep(Duration::from_secs(8)).await;
        nodes.server.set_down(false);
        nodes
            .server
            .delay_announcements(MembershipKind::Join, Duration::from_secs(1));
        sleep(delay).await;
        nodes.leave(1, 1).await;
        sleep(2 * RENEWALS).await;
        let heard = nodes.other.delivered();
        let (last, _) = last_and_leaves(&heard);
        assert_eq!(last, Some("a leave ada"), "{delay:?}: {heard:?}");
        assert_eq!(nodes.clients().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_ended_its_registration_does_not_renew_it() {
    let nodes = Nodes::start().await;
    nodes.own.engine.close().await.unwrap();
    for _ in 0..5 {
        sleep(Duration::from_secs(1)).await;
        let registered = nodes.other.engine.nodes().unwrap().nodes().await.unwrap();
        let uids: Vec<_> = registered.iter().map(|node| node.uid.as_str()).collect();
        assert_eq!(uids, ["other"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ends_announces_the_leaves_that_have_failed() {
    let nodes = Nodes::start().await;
    let engine = &nodes.own.engine;
    // Without presence, other nodes do not know the client.
    nodes.server.set_faults(failing(100));
    assert!(engine.publish_leave(&name("a"), member(1, "ada")).await.is_err());
    nodes.server.set_faults(SimFaults::default());
    engine.close().await.unwrap();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(nodes.other.delivered(), ["a leave ada"]);
}
