//! Faults of the engines that several nodes share: two nodes, clients on both, a publisher on the first.

mod common;
pub(super) mod daemon;
pub(super) mod nats;
mod proxy;
pub(super) mod redis;

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use self::daemon::free_port;
use super::{
    Environment, Outcome,
    publisher::{Published, Stream},
    server::{Server, Spec, TIMEOUT},
    subscribers::{Audit, Member, SubscriberOptions, Subscribers},
};

const CHANNELS: usize = 10;

/// Clients of each node.
const MEMBERS: usize = 40;

/// Pace of the publisher, below the limit of 250 commands per second of one client.
const PACE: Duration = Duration::from_millis(10);

/// How long a command may take while the engine is away.
const ANSWER_MAX: Duration = Duration::from_secs(6);

/// How long a node may take to deliver what it has missed.
const CATCH_UP_MAX: Duration = Duration::from_secs(12);

/// A configuration as open as the default, with enough history for all publications of a fault.
const CONFIG: &str = r#"anonymous = true

[channels]
history_size = 5000
history_ttl = "10m"
presence = true
allow_subscribe = "anyone"
allow_publish = "anyone"
allow_presence = "anyone"
"#;

/// An empty folder for the files of a fault.
fn folder(environment: &Environment) -> Result<std::path::PathBuf> {
    let folder = environment.work.join("engine");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// How a node with this engine is started.
fn node(environment: &Environment, folder: &Path, name: &str, engine: &str) -> Result<Spec> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    let mut spec = Spec::new(&environment.binary, &folder)?.config(&folder, CONFIG)?;
    spec.address.set_port(free_port()?);
    Ok(spec.arguments(&["--engine", engine]))
}

/// Two nodes and their clients.
struct Nodes {
    servers: Vec<Server>,
    subscribers: Vec<Subscribers>,
    stream: Option<Stream>,
}

impl Nodes {
    /// Starts nodes that use the same engine, and waits until all clients are subscribed.
    fn start(environment: &Environment, folder: &Path, engines: [&str; 2]) -> Result<Self> {
        let specs = [
            node(environment, folder, "one", engines[0])?,
            node(environment, folder, "two", engines[1])?,
        ];
        Self::start_as(&specs)
    }

    fn start_as(specs: &[Spec]) -> Result<Self> {
        Self::start_with(specs, false)
    }

    /// Starts nodes. Clients that lose their connection stay with their node, or change to the other one, as behind a
    /// load balancer.
    fn start_with(specs: &[Spec], changes_nodes: bool) -> Result<Self> {
        let mut nodes = Self {
            servers: Vec::new(),
            subscribers: Vec::new(),
            stream: None,
        };
        for spec in specs {
            nodes.servers.push(Server::start(spec)?.0);
        }
        nodes.wait_until_ready()?;
        for (idx, server) in nodes.servers.iter().enumerate() {
            let options = SubscriberOptions {
                other_node: changes_nodes.then(|| specs[1 - idx].address),
                ..SubscriberOptions::default()
            };
            let subscribers = Subscribers::start(server.address, MEMBERS, CHANNELS, options)?;
            nodes.subscribers.push(subscribers);
        }
        nodes.stream = Some(Stream::start(nodes.servers[0].address, CHANNELS, PACE, 100)?);
        thread::sleep(Duration::from_millis(500));
        Ok(nodes)
    }

    /// Waits until both nodes are ready, and their clients subscribed.
    fn wait_until_ready(&self) -> Result<Duration> {
        let began_at = Instant::now();
        for server in &self.servers {
            server.wait_until_ready()?;
        }
        for subscribers in &self.subscribers {
            subscribers.wait_until_ready()?;
        }
        Ok(began_at.elapsed())
    }

    /// Waits until a node is not ready.
    fn wait_until_not_ready(&self, idx: usize) -> Result<Duration> {
        let began_at = Instant::now();
        while self.servers[idx].get("/health/ready")?.0 == 200 {
            if began_at.elapsed() > TIMEOUT {
                bail!("a node without its engine is ready after {TIMEOUT:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(began_at.elapsed())
    }

    /// Ends the publisher.
    fn end_stream(&mut self) -> Result<Published> {
        match self.stream.take() {
            Some(stream) => stream.end(),
            None => bail!("the publisher has ended already"),
        }
    }

    /// Waits until the clients of a node have received this many publications.
    fn wait_for(&self, idx: usize, count: usize) -> Result<Duration> {
        let began_at = Instant::now();
        while self.subscribers[idx].received() < count && began_at.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(began_at.elapsed())
    }

    /// Ends all, and compares what was acknowledged with what the clients have seen. Nobody may have been disconnected.
    fn end(mut self, outcome: &mut Outcome) -> Result<Audit> {
        let published = self.end_stream()?;
        self.finish(&published, outcome)
    }

    fn finish(self, published: &Published, outcome: &mut Outcome) -> Result<Audit> {
        let (members, audit) = self.compare(published, outcome)?;
        let ends: usize = members.iter().map(|member| member.ends.len()).sum();
        outcome.require(ends == 0, format!("{ends} connections ended"));
        let refused: usize = members.iter().filter(|member| member.recovery_refused > 0).count();
        outcome.clients = format!(
            "{} clients: 0 disconnected, {refused} learned of a gap; {} publications refused, slowest answer {} ms",
            members.len(),
            published.errors,
            published.slowest.as_millis()
        );
        Ok(audit)
    }

    /// Ends all, and compares what was acknowledged with what the clients have seen.
    fn compare(self, published: &Published, outcome: &mut Outcome) -> Result<(Vec<Member>, Audit)> {
        let mut members = Vec::new();
        for subscribers in self.subscribers {
            subscribers.wait_until_quiet(Duration::from_secs(1));
            members.extend(subscribers.end()?);
        }
        let audit = Audit::of(&members, &published.acknowledged);
        outcome.require(audit.is_clean(), format!("{audit:?}"));
        outcome.require(published.count() > 50, "hardly anything was published");
        outcome.require(
            published.slowest <= ANSWER_MAX,
            format!("a command was answered after {:?}", published.slowest),
        );
        outcome.lost = format!(
            "{} of {} acknowledged; {} repeated, {} out of order",
            audit.lost,
            published.count(),
            audit.repeated,
            audit.reordered
        );
        Ok((members, audit))
    }
}

/// Requires that every client has recovered.
fn require_complete(audit: Audit, outcome: &mut Outcome) {
    let refused = audit.recovery_refused;
    outcome.require(refused == 0, format!("recovery was refused {refused} times"));
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
