//! A cluster of three servers.

use std::path::Path;

use super::*;

/// Starts three servers. A node that is connected to one of them uses streams on all.
async fn start() -> Vec<Server> {
    let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
    let routes: Vec<_> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let routes = routes.join(", ");
    let servers: Vec<_> = ports
        .iter()
        .enumerate()
        .map(|(index, port)| {
            let options =
                format!("server_name: n{index}\ncluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{routes}] }}");
            Server::start(&options)
        })
        .collect();
    for server in &servers {
        eventually(async || {
            let client = server.client().await;
            let response = client.request("$JS.API.INFO", "".into()).await.ok()?;
            let info: serde_json::Value = serde_json::from_slice(&response.payload).ok()?;
            info.get("error").is_none().then_some(())
        })
        .await;
    }
    servers
}

async fn node(server: &Server, query: &str) -> Fixture<ClusterBroker> {
    let config = server.config(&format!("?stream_bytes=1048576{query}"));
    Fixture::nats_node(Setup::ten(), &config, "node").await
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap();
    assert!(copied.success());
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn an_entry_that_is_removed_at_once_is_gone_on_all_replicas() {
    let servers = start().await;
    let node = node(&servers[0], "&replicas=3").await;
    let subscription = Subscription {
        channel: name("a"),
        generation: crate::ids::Generation(1),
    };
    for round in 0..20 {
        let members = (0..20).map(async |n| {
            let member = member(round * 100 + n, "ada");
            let client = member.client;
            // A leader may still be elected. What fails here, the node repeats.
            let add = async || node.engine.presence_add(&subscription, member.clone(), true).await.ok();
            eventually(add).await;
            let _ = node.engine.presence_remove(&subscription, client).await;
        });
        futures_util::future::join_all(members).await;
    }
    let stats = eventually(async || {
        let stats = node.engine.presence_stats(&name("a")).await.ok()?;
        (stats.clients == 0).then_some(stats)
    });
    assert_eq!(stats.await.users, 0);
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn a_loss_on_a_server_to_which_no_node_is_connected_is_noticed() {
    let mut servers = start().await;
    let channel = name("a");
    let first = {
        let config = servers[0].config("?stream_bytes=1048576");
        let node = Fixture::nats_node(Setup::ten(), &config, "first").await;
        node.publish("a", "1").await
    };
    let mut leader = None;
    for stream in servers[0].streams().await {
        let info = servers[0].call(&format!("STREAM.INFO.{stream}"), "").await;
        let subject = info["config"]["subjects"][0].as_str().unwrap_or_default();
        if subject.contains(first.epoch.as_str()) {
            leader = info["cluster"]["leader"].as_str().map(str::to_owned);
        }
    }
    let leader: usize = leader.unwrap().trim_start_matches('n').parse().unwrap();
    let node = node(&servers[(leader + 1) % 3], "").await;
    let folder = servers[leader].folder.path().to_owned();
    let (data, old) = (folder.join("data"), folder.join("copy"));
    servers[leader].kill();
    copy(&data, &old);
    servers[leader].restart();
    let mut lost = first.clone();
    for n in 2..=5 {
        lost = eventually(async || {
            let published = node.engine.publish(&channel, content(&n.to_string())).await;
            published.ok().map(|published| published.position)
        })
        .await;
    }
    assert_eq!(lost.epoch, first.epoch);
    eventually(async || {
        let received = node.recorder.events.lock();
        received
            .iter()
            .any(|event| event.starts_with(&format!("{channel} {} ", lost.offset)))
            .then_some(())
    })
    .await;
    servers[leader].kill();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&old, &data);
    servers[leader].restart();
    let top = eventually(async || {
        let history = node.engine.history(&channel, HistoryQuery::default()).await.ok()?;
        (history.top.epoch != lost.epoch).then_some(history.top)
    })
    .await;
    assert!(!node.recovers(channel.as_str(), &lost).await);
    assert_eq!(node.publish(channel.as_str(), "6").await.epoch, top.epoch);
}
