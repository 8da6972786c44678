//! Renders the results of the model.

use std::fmt::Write;

use anyhow::{Result, bail};

use super::{
    figures::{self, Unit},
    model::{
        ADMISSION_RATE, CLIENT_RATE, GLOBAL_RATE, Installation, Limit, NODE_CORES, POSITION_CHECK, PUBLICATION_BYTES,
        USE_MAX, clients_of_one_server,
    },
};
use crate::process::grouped;

/// The text of the page, with placeholders.
const PAGE: &str = include_str!("page.md");

/// The installations: clients and nodes.
const INSTALLATIONS: &[Installation] = &[
    of(1e6, 10.0),
    of(1e6, 20.0),
    of(1e6, 50.0),
    of(1e7, 100.0),
    of(1e7, 200.0),
    of(1e7, 500.0),
];

const fn of(clients: f64, nodes: f64) -> Installation {
    Installation { clients, nodes }
}

/// The page, with each placeholder, a line of its own or in braces, replaced.
pub(super) fn render() -> Result<String> {
    let mut page = String::new();
    for line in PAGE.lines() {
        match line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")) {
            Some(name) => page += &table(name)?,
            None => {
                page += &values(line)?;
                page.push('\n');
            }
        }
    }
    Ok(page)
}

fn table(name: &str) -> Result<String> {
    Ok(match name {
        "figures" => measured(),
        "nodes" => rows(
            "clients | nodes | clients per node | memory (GiB) | idle (cores) | channel of all (cores) | own channels (cores) | use of the node",
            |installation| {
                let node = installation.node();
                format!(
                    "{} | {:.1} | {:.2} | {:.2} | {:.2} | {}",
                    count(node.clients),
                    gib(node.memory),
                    node.idle,
                    node.global,
                    node.own,
                    percent(node.cores() / NODE_CORES)
                )
            },
        ),
        "broadcast" => rows(
            "clients | nodes | CPU of all nodes (s) | until the last subscriber (s) | sent by a node (MB) | at most per second | CPU of Redis (ms)",
            |installation| {
                let broadcast = installation.broadcast();
                format!(
                    "{:.1} | {:.3} | {:.1} | {:.0} | {:.2}",
                    broadcast.nodes,
                    broadcast.time,
                    broadcast.node_bytes / 1e6,
                    broadcast.rate_max,
                    broadcast.engine * 1e3
                )
            },
        ),
        "engine" => rows(
            "clients | nodes | publications per second | cores | position checks per second | cores | leases and probes (cores) | subscriptions | memory (GiB) | Redis servers",
            |installation| {
                let engine = installation.engine();
                format!(
                    "{} | {:.2} | {} | {:.2} | {:.3} | {} | {:.1} | {}",
                    count(engine.publications_per_second),
                    engine.publications,
                    count(engine.checks_per_second),
                    engine.checks,
                    engine.nodes,
                    count(engine.subscriptions),
                    gib(engine.memory),
                    engine.servers
                )
            },
        ),
        "storm" => rows(
            "clients | nodes | clients that reconnect | for each node | CPU of each node (s) | CPU of Redis (s) | one Redis: all back after (s) | limited by | Redis servers | all back after (s) | limited by",
            |installation| {
                let servers = installation.engine().servers;
                let (one, sharded) = (installation.storm(1.0), installation.storm(servers));
                format!(
                    "{} | {} | {:.2} | {:.1} | {:.1} | {} | {} | {:.1} | {}",
                    count(one.clients),
                    count(one.per_node),
                    one.node,
                    one.engine,
                    one.time,
                    name_of(one.limit),
                    servers,
                    sharded.time,
                    name_of(sharded.limit)
                )
            },
        ),
        other => bail!("page.md has an unknown placeholder `{other}`"),
    })
}

/// A line with each `{name}` replaced.
fn values(line: &str) -> Result<String> {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            bail!("page.md has a `{{` without `}}`: {line}");
        };
        text += before;
        text += &value(name)?;
        rest = after;
    }
    Ok(text + rest)
}

fn value(name: &str) -> Result<String> {
    let million = of(1e6, 20.0);
    let ten = of(1e7, 200.0);
    Ok(match name {
        "cores" => format!("{NODE_CORES}"),
        "use" => percent(USE_MAX),
        "global-rate" => format!("{GLOBAL_RATE}"),
        "client-seconds" => format!("{:.0}", 1.0 / CLIENT_RATE),
        "admission" => count(ADMISSION_RATE),
        "position-check" => format!("{POSITION_CHECK}"),
        "bytes" => format!("{PUBLICATION_BYTES}"),
        "clients-of-one-redis" => {
            let clients = clients_of_one_server(50_000.0);
            count((clients / 10_000.0).floor() * 10_000.0)
        }
        "checks-share-million" => {
            let engine = million.engine();
            percent(engine.checks / (engine.checks + engine.publications + engine.nodes))
        }
        "servers-ten-million" => format!("{}", ten.engine().servers),
        "cold-start-million" => format!("{:.0}", million.cold_start(million.engine().servers)),
        "cold-start-ten-million" => format!("{:.0}", ten.cold_start(ten.engine().servers)),
        "connections-ten-million" => count(ten.nodes * ten.engine().servers),
        "broadcasts-million" => format!("{:.0}", million.broadcast().rate_max),
        "client-deliveries-million" => count(GLOBAL_RATE * million.clients),
        other => bail!("page.md has an unknown value `{other}`"),
    })
}

fn rows(titles: &str, row: impl Fn(Installation) -> String) -> String {
    let columns = titles.split('|').count();
    let mut text = format!("| {titles} |\n|{}\n", "---:|".repeat(columns));
    for installation in INSTALLATIONS {
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            count(installation.clients),
            installation.nodes,
            row(*installation)
        );
    }
    text
}

fn measured() -> String {
    let mut text = String::from("| what | measured | source |\n|---|---:|---|\n");
    for figure in figures::ALL {
        let value = match figure.unit {
            Unit::Microseconds => format!("{:.3} µs", figure.value * 1e6),
            Unit::Bytes => format!("{:.0} B", figure.value),
        };
        let value = value.replace(".000 ", " ").replace("00 µs", " µs");
        let _ = writeln!(text, "| {} | {value} | {} |", figure.name, figure.source);
    }
    text
}

fn name_of(limit: Limit) -> &'static str {
    match limit {
        Limit::Sdks => "pauses of the SDKs",
        Limit::Admission => "admission",
        Limit::Nodes => "CPU of the nodes",
        Limit::Engine => "Redis",
    }
}

fn count(number: f64) -> String {
    grouped(number.round() as u64)
}

fn gib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 30)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::{table, values};

    #[test]
    fn placeholders_are_replaced() {
        assert_eq!(values("a {cores}-core node").expect("it is known"), "a 8-core node");
        values("{what}").expect_err("unknown");
        values("{cores").expect_err("unfinished");
        table("what").expect_err("unknown");
    }
}
