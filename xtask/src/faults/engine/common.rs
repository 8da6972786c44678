//! Faults that are the same for all engines.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use rustix::process::Signal;

use super::{
    ANSWER_MAX, CATCH_UP_MAX, CHANNELS, Environment, MEMBERS, Nodes, TIMEOUT, millis, node, proxy::Proxy,
    require_complete,
};
use crate::{
    faults::{
        Outcome,
        publisher::{Answer, Publisher, quantile},
        server::Server,
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

/// How a replacement of nodes counts as survived.
pub(super) const REPLACED_RULE: &str = "each client is disconnected with 3001 when its node ends, and reconnects to \
     the other node; no command fails, 0 lost, all recover; presence is correct after each replacement";

/// The nodes are replaced one after the other, as in a deploy, by the program that is tested. First they run `old`.
pub(super) fn replaced(environment: &Environment, folder: &Path, old: PathBuf, url: &str) -> Result<Outcome> {
    let mut specs = [
        node(environment, folder, "one", url)?.arguments(&["--drain", "2s"]),
        node(environment, folder, "two", url)?.arguments(&["--drain", "2s"]),
    ];
    let new = std::mem::replace(&mut specs[0].binary, old.clone());
    specs[1].binary = old;
    let mut nodes = Nodes::start_with(&specs, true)?;
    let mut outcome = Outcome::default();
    let mut longest = Duration::ZERO;
    let all = (2 * MEMBERS / CHANNELS) as u64;
    for (idx, spec) in specs.iter_mut().enumerate() {
        let mut other = Publisher::connect(nodes.servers[1 - idx].address)?;
        nodes.servers[idx].signal(Signal::TERM)?;
        let stopped_at = Instant::now();
        // Commands to the other node, until the new process has been ready for a while.
        let commands = thread::spawn(move || {
            let mut errors = 0;
            while stopped_at.elapsed() < Duration::from_secs(6) {
                errors += usize::from(clients_in(&mut other, &channel(1)).is_err());
                errors += usize::from(other.publish("elsewhere", 1, 10)? != Answer::Acknowledged);
                thread::sleep(Duration::from_millis(10));
            }
            Ok::<_, anyhow::Error>(errors)
        });
        let (status, _) = nodes.servers[idx].wait()?;
        outcome.require(status.success(), format!("the process ended with {status}"));
        spec.binary = new.clone();
        // The publisher connects as soon as the port is open.
        nodes.servers[idx] = Server::start(spec)?.0;
        let started_at = Instant::now();
        nodes.wait_until_ready()?;
        longest = longest.max(started_at.elapsed());
        let errors = match commands.join() {
            Ok(errors) => errors?,
            Err(_) => bail!("the thread of the commands panicked"),
        };
        outcome.require(errors == 0, format!("{errors} commands to the other node failed"));
        for server in &nodes.servers {
            let clients = clients_in(&mut Publisher::connect(server.address)?, &channel(0))?;
            outcome.require(clients == all, format!("{clients} of {all} clients are present"));
        }
    }
    let published = nodes.end_stream()?;
    let (members, audit) = nodes.compare(&published, &mut outcome)?;
    require_complete(audit, &mut outcome);
    let codes = || {
        members
            .iter()
            .flat_map(|member| member.ends.iter().map(|(_, code)| *code))
    };
    let unexpected: Vec<_> = codes().filter(|code| *code != Some(3001)).collect();
    outcome.require(unexpected.is_empty(), format!("connections ended with {unexpected:?}"));
    // The clients of the first node are on the second when that is replaced.
    let disconnects = codes().count();
    outcome.require(disconnects == 3 * MEMBERS, format!("{disconnects} connections ended"));
    let errors = members.iter().map(|member| member.errors).sum::<usize>() + published.errors;
    outcome.require(errors == 0, format!("{errors} commands failed"));
    let back: Vec<_> = members.iter().flat_map(|member| member.back.iter().copied()).collect();
    outcome.clients = format!(
        "{} clients: {disconnects} disconnected with 3001, back after p50 {}, p99 {}; {errors} commands failed, slowest answer {}",
        members.len(),
        millis(quantile(&back, 0.5)),
        millis(quantile(&back, 0.99)),
        millis(published.slowest)
    );
    outcome.ready = format!("{} after the start of a node", millis(longest));
    Ok(outcome)
}
