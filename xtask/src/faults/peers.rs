//! F5, F10 and F12: subscribers that do not read, peers that vanish, and requests that never end.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Environment, Fault, Outcome,
    publisher::{Answer, Publisher, Stream, quantile},
    server::{Server, Spec, TIMEOUT},
    subscribers::{Audit, SubscriberOptions, Subscribers, channel},
};
use crate::{process::output, tools};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "F5-slow",
        what: "half of the subscribers, 100 or more, stop reading while 6 MB go to each",
        rule: "slow ones gone ≤ 10 s; memory ≤ 128 KiB more for each; the others lose nothing and stay connected",
        run: slow_readers,
    },
    Fault {
        name: "F10-dead",
        what: "10 of 20 clients vanish without FIN (packets dropped)",
        rule: "not present any more ≤ 35 s; the others lose nothing and stay connected",
        run: half_open,
    },
    Fault {
        name: "F12-slow-head",
        what: "500 requests whose head gets a byte per second",
        rule: "closed ≤ 12 s; ≤ 16 KiB of memory each; clients lose nothing and stay connected",
        run: |environment| {
            endless_requests(
                environment,
                "GET / HTTP/1.1\r\nHost: HOST\r\nx: ",
                500 * environment.scale,
                16,
            )
        },
    },
    Fault {
        name: "F12-slow-body",
        what: "500 requests to the API whose body gets a byte per second",
        rule: "the same, ≤ 24 KiB",
        run: |environment| {
            let head = "POST /api/publish HTTP/1.1\r\nHost: HOST\r\nX-API-Key: k\r\nContent-Length: 1000\r\n\r\n{";
            endless_requests(environment, head, 500 * environment.scale, 24)
        },
    },
];

const MIB: u64 = 1 << 20;

/// The number of clients in a channel.
fn present(publisher: &mut Publisher) -> Result<u64> {
    let reply = publisher.call(&format!("\"presence_stats\":{{\"channel\":\"{}\"}}", channel(0)))?;
    let count = reply["presence_stats"]["num_clients"].as_u64();
    count.with_context(|| format!("no presence in {reply}"))
}

fn slow_readers(environment: &Environment) -> Result<Outcome> {
    let healthy_count = 100 * environment.scale;
    // More than the bound of a slow one's queue, 1 MiB, in any case.
    let publications = (400 / environment.scale as u64).max(100);
    let (mut server, _) = Server::start(&Spec::new(&environment.binary, &environment.work)?)?;
    let healthy = Subscribers::start(server.address, healthy_count, 1, SubscriberOptions::default())?;
    let slow = SubscriberOptions {
        reads: false,
        reconnects: false,
        ..SubscriberOptions::default()
    };
    let slow = Subscribers::start(server.address, healthy_count, 1, slow)?;
    let mut publisher = Publisher::connect(server.address)?;
    let mut outcome = Outcome::default();
    let before = server.usage()?.memory;
    let began_at = Instant::now();
    let (mut peak, mut gone, mut times) = (before, None, Vec::new());
    let mut acknowledged = std::collections::BTreeSet::new();
    for number in 1..=publications {
        let sent_at = Instant::now();
        let answer = publisher.publish(&channel(0), number, 16_000)?;
        times.push(sent_at.elapsed());
        outcome.require(answer == Answer::Acknowledged, format!("{answer:?}"));
        acknowledged.insert(number);
        if number % 10 == 0 {
            peak = peak.max(server.usage()?.memory);
            if gone.is_none() && present(&mut publisher)? <= healthy_count as u64 {
                gone = Some(began_at.elapsed());
            }
        }
        // Healthy subscribers must keep up on a busy machine, too.
        thread::sleep(Duration::from_millis(15));
    }
    while gone.is_none() && began_at.elapsed() < TIMEOUT {
        if present(&mut publisher)? <= healthy_count as u64 {
            gone = Some(began_at.elapsed());
        }
        thread::sleep(Duration::from_millis(50));
    }
    healthy.wait_until_quiet(Duration::from_millis(500));
    outcome.require(server.is_alive()?, "the server exited");
    let members = healthy.end()?;
    drop(slow);
    let audit = Audit::of(&members, &[acknowledged]);
    let ends: usize = members.iter().map(|member| member.ends.len()).sum();
    let rise = peak.saturating_sub(before);
    outcome.require(
        gone.is_some_and(|gone| gone <= Duration::from_secs(10)),
        format!("slow subscribers are gone after {gone:?}"),
    );
    // They share the publications, but each has a write buffer with copies.
    let rise_max = healthy_count as u64 * (128 << 10);
    outcome.require(rise <= rise_max, format!("{} MiB more", rise / MIB));
    outcome.require(
        audit.is_clean() && ends == 0,
        format!("{audit:?}, {ends} healthy connections ended"),
    );
    outcome.clients = format!(
        "slow ones disconnected {:.1} s after the first publication; publisher p99 {} ms; {} MiB more",
        gone.unwrap_or_default().as_secs_f64(),
        quantile(&times, 0.99).as_millis(),
        rise / MIB
    );
    outcome.lost = format!("{} of {publications} for {healthy_count} others", audit.lost);
    outcome.ready = "always".into();
    Ok(outcome)
}

/// What the run in a network namespace prints before its outcome.
const MARK: &str = "outcome: ";

fn half_open(environment: &Environment) -> Result<Outcome> {
    if environment.inside_namespace {
        let outcome = half_open_inside(environment)?;
        println!("{MARK}{}", serde_json::to_string(&outcome)?);
        return Ok(outcome);
    }
    if let Err(error) = tools::nft().and_then(|_| output(Command::new("unshare").args(["-n", "true"]))) {
        return Ok(Outcome::skipped(format!("packets cannot be dropped here ({error:#})")));
    }
    let own = std::env::current_exe()?;
    let inner = Command::new("unshare")
        .arg("-n")
        .arg(own)
        .args(["faults", "--only", "F10-dead", "--inside-namespace"])
        .output()?;
    let text = String::from_utf8_lossy(&inner.stdout);
    let found = text.lines().find_map(|line| line.strip_prefix(MARK));
    let found = found.with_context(|| format!("{text}{}", String::from_utf8_lossy(&inner.stderr)))?;
    Ok(serde_json::from_str(found)?)
}

fn half_open_inside(environment: &Environment) -> Result<Outcome> {
    output(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let (mut server, _) = Server::start(&Spec::new(&environment.binary, &environment.work)?)?;
    let healthy = Subscribers::start(server.address, 10, 1, SubscriberOptions::default())?;
    let doomed = SubscriberOptions {
        source: Some([127, 0, 0, 2]),
        reconnects: false,
        ..SubscriberOptions::default()
    };
    let doomed = Subscribers::start(server.address, 10, 1, doomed)?;
    let stream = Stream::start(server.address, 1, Duration::from_millis(200), 100)?;
    let mut publisher = Publisher::connect(server.address)?;
    let mut outcome = Outcome::default();
    let all = present(&mut publisher)?;
    outcome.require(all == 20, format!("{all} clients are present"));

    let port = server.address.port();
    let nft = tools::nft()?;
    for rule in [
        "add table ip t".to_owned(),
        "add chain ip t in { type filter hook input priority 0; }".to_owned(),
        format!("add rule ip t in ip saddr 127.0.0.2 tcp dport {port} drop"),
        format!("add rule ip t in ip daddr 127.0.0.2 tcp sport {port} drop"),
    ] {
        output(Command::new(&nft).arg(rule))?;
    }
    let began_at = Instant::now();
    let mut gone = None;
    while gone.is_none() && began_at.elapsed() < Duration::from_secs(60) {
        if present(&mut publisher)? <= 10 {
            gone = Some(began_at.elapsed());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let published = stream.end()?;
    healthy.wait_until_quiet(Duration::from_millis(500));
    outcome.require(server.is_alive()?, "the server exited");
    let members = healthy.end()?;
    drop(doomed);
    let audit = Audit::of(&members, &published.acknowledged);
    let ends: usize = members.iter().map(|member| member.ends.len()).sum();
    outcome.require(
        gone.is_some_and(|gone| gone <= Duration::from_secs(35)),
        format!("dead clients are gone after {gone:?}"),
    );
    outcome.require(
        audit.is_clean() && ends == 0,
        format!("{audit:?}, {ends} healthy connections ended"),
    );
    outcome.clients = format!(
        "dead ones leave presence after {:.1} s",
        gone.unwrap_or_default().as_secs_f64()
    );
    outcome.lost = format!("{} of {} for the others", audit.lost, published.count());
    outcome.ready = "always".into();
    Ok(outcome)
}

/// Opens requests that go on by a byte per second, until the server has closed all.
fn endless_requests(environment: &Environment, head: &str, count: usize, kib_max: u64) -> Result<Outcome> {
    let spec = Spec::new(&environment.binary, &environment.work)?.arguments(&["--api-key", "k"]);
    let (mut server, _) = Server::start(&spec)?;
    let subscribers = Subscribers::start(server.address, 20, 2, SubscriberOptions::default())?;
    let stream = Stream::start(server.address, 2, Duration::from_millis(10), 100)?;
    let mut outcome = Outcome::default();
    let before = server.usage()?.memory;
    let head = head.replace("HOST", &server.address.to_string());
    let began_at = Instant::now();
    let mut open = Vec::new();
    for _ in 0..count {
        let mut peer = TcpStream::connect(server.address)?;
        peer.write_all(head.as_bytes())?;
        peer.set_nonblocking(true)?;
        open.push(peer);
    }
    let (mut peak, mut trickle_at) = (before, Instant::now());
    while !open.is_empty() && began_at.elapsed() < Duration::from_secs(75) {
        let is_due = trickle_at.elapsed() > Duration::from_secs(1);
        if is_due {
            trickle_at = Instant::now();
        }
        open.retain_mut(|peer| {
            if is_due && peer.write_all(b" ").is_err() {
                return false;
            }
            let mut bytes = [0; 512];
            !matches!(peer.read(&mut bytes), Ok(0) | Err(_) if !would_block(peer))
        });
        peak = peak.max(server.usage()?.memory);
        thread::sleep(Duration::from_millis(100));
    }
    let gone = began_at.elapsed();
    let published = stream.end()?;
    subscribers.wait_until_quiet(Duration::from_millis(300));
    outcome.require(server.is_alive()?, "the server exited");
    let members = subscribers.end()?;
    let audit = Audit::of(&members, &published.acknowledged);
    let ends: usize = members.iter().map(|member| member.ends.len()).sum();
    let each = peak.saturating_sub(before) / count as u64;
    outcome.require(
        open.is_empty() && gone <= Duration::from_secs(12),
        format!(
            "{} of {count} requests are open after {:.1} s",
            open.len(),
            gone.as_secs_f64()
        ),
    );
    outcome.require(each <= kib_max << 10, format!("{each} bytes for each request"));
    outcome.require(
        audit.is_clean() && ends == 0,
        format!("{audit:?}, {ends} connections of clients ended"),
    );
    outcome.clients = format!(
        "requests closed after {:.1} s, {:.1} KiB each; publisher p99 {} ms",
        gone.as_secs_f64(),
        each as f64 / 1024.0,
        quantile(&published.times, 0.99).as_millis()
    );
    outcome.lost = format!("{} of {} acknowledged", audit.lost, published.count());
    outcome.ready = "always".into();
    Ok(outcome)
}

/// Whether a connection is open and has nothing to read.
fn would_block(peer: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(peer.peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
}
