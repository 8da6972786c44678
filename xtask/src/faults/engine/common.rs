//! Faults that are the same for all engines.

use std::{
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    ANSWER_MAX, CATCH_UP_MAX, CHANNELS, Environment, MEMBERS, Nodes, TIMEOUT, millis, node, proxy::Proxy,
    require_complete,
};
use crate::{
    faults::{
        Outcome,
        publisher::{Answer, Publisher},
        subscribers::channel,
    },
    tools,
};

/// The network between one node and the server of the engine is cut for 10 s.
pub(super) fn partition(
    environment: &Environment,
    folder: &Path,
    port: u16,
    url: impl Fn(SocketAddr) -> String,
) -> Result<Outcome> {
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let proxy = Proxy::start(server)?;
    let mut nodes = Nodes::start(environment, folder, [&url(server), &url(proxy.address)])?;
    let mut outcome = Outcome::default();
    let mut publisher = Publisher::connect(nodes.servers[1].address)?;
    proxy.cut(true);
    let cut_at = Instant::now();
    let answer = publisher.publish("elsewhere", 1, 10)?;
    let answered = cut_at.elapsed();
    outcome.require(
        answered <= ANSWER_MAX,
        format!("a command was answered after {answered:?}"),
    );
    outcome.require(
        answer != Answer::Acknowledged,
        "a publication was acknowledged without the engine",
    );
    let not_ready = nodes.wait_until_not_ready(1)?;
    let (status, _) = nodes.servers[0].get("/health/ready")?;
    outcome.require(status == 200, format!("the other node answered {status}"));
    thread::sleep(Duration::from_secs(10).saturating_sub(cut_at.elapsed()));
    let published = nodes.end_stream()?;
    // What the last publication still needs to the clients of the other node.
    thread::sleep(Duration::from_millis(200));
    proxy.cut(false);
    let expected = nodes.subscribers[0].received();
    let caught_up = nodes.wait_for(1, expected)?;
    let ready = nodes.wait_until_ready()?;
    outcome.require(caught_up <= CATCH_UP_MAX, format!("caught up after {caught_up:?}"));
    let audit = nodes.finish(&published, &mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.clients += &format!(
        "; the node: error after {}, not ready after {}",
        millis(answered),
        millis(not_ready)
    );
    outcome.ready = format!(
        "caught up {} after the cut, ready {} later",
        millis(caught_up),
        millis(ready)
    );
    Ok(outcome)
}

pub(super) fn clients_in(publisher: &mut Publisher, channel: &str) -> Result<u64> {
    let reply = publisher.call(&format!(r#""presence_stats":{{"channel":"{channel}"}}"#))?;
    reply["presence_stats"]["num_clients"]
        .as_u64()
        .with_context(|| format!("no presence: {reply}"))
}

/// The clock of one node is an hour ahead.
pub(super) fn clock(environment: &Environment, folder: &Path, url: &str) -> Result<Outcome> {
    let library = match tools::faketime() {
        Ok(library) => library,
        Err(error) => return Ok(Outcome::skipped(format!("no libfaketime ({error:#})"))),
    };
    let mut specs = [
        node(environment, folder, "one", url)?,
        node(environment, folder, "two", url)?,
    ];
    for (name, value) in [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", "+1h".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
    ] {
        specs[1].variables.push((name.into(), value));
    }
    let nodes = Nodes::start_as(&specs)?;
    let mut outcome = Outcome::default();
    // Longer than a lease of a node.
    thread::sleep(Duration::from_secs(10));
    let expected = (2 * MEMBERS / CHANNELS) as u64;
    for server in &nodes.servers {
        let clients = clients_in(&mut Publisher::connect(server.address)?, &channel(0))?;
        outcome.require(
            clients == expected,
            format!("{clients} of {expected} clients are present"),
        );
    }
    let ready = nodes.wait_until_ready()?;
    let audit = nodes.end(&mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.ready = format!("always ({})", millis(ready));
    Ok(outcome)
}

/// A node is killed.
pub(super) fn node_killed(mut nodes: Nodes) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut publisher = Publisher::connect(nodes.servers[0].address)?;
    let expected = (MEMBERS / CHANNELS) as u64;
    let present = clients_in(&mut publisher, &channel(0))?;
    outcome.require(present == 2 * expected, format!("{present} clients are present"));
    if let Some(server) = nodes.servers.pop() {
        server.kill()?;
    }
    // Its clients have nowhere to go. Before the death, it would have noticed that they leave.
    drop(nodes.subscribers.pop());
    let killed_at = Instant::now();
    let mut left = Duration::ZERO;
    for idx in 0..CHANNELS {
        while clients_in(&mut publisher, &channel(idx))? != expected && killed_at.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(50));
        }
        left = killed_at.elapsed();
    }
    outcome.require(left <= Duration::from_secs(10), format!("they left after {left:?}"));
    let audit = nodes.end(&mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.clients += &format!(
        "; the {MEMBERS} of the other node left presence after {:.1} s",
        left.as_secs_f64()
    );
    outcome.ready = "always".into();
    Ok(outcome)
}
