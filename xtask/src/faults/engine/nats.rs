//! Faults of NATS JetStream: a single server, and a cluster of three.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    CHANNELS, Environment, MEMBERS, Nodes, TIMEOUT, common,
    daemon::{Daemon, free_port},
    folder, millis, require_complete,
};
use crate::{
    faults::{
        Fault, Outcome,
        disk::Mount,
        publisher::{Answer, Publisher},
        subscribers::channel,
    },
    process::output,
};

pub(in crate::faults) const FAULTS: &[Fault] = &[
    Fault {
        name: "N1-always",
        what: "NATS with `sync_interval: always` is killed, and started again after 2 s; three times",
        rule: "nobody disconnected, 0 lost, all recover; answers ≤ 6 s",
        run: killed,
    },
    Fault {
        name: "N2-lost",
        what: "NATS is killed, and comes back without the writes of the last four seconds",
        rule: "nobody disconnected; 0 lost silently: every client learns of a gap; answers ≤ 6 s",
        run: lost_writes,
    },
    Fault {
        name: "N3-cluster",
        what: "the leader of a stream is killed in a cluster of three, and started again after 4 s",
        rule: "nobody disconnected, 0 lost, all recover; answers ≤ 6 s",
        run: leader_killed,
    },
    Fault {
        name: "N4-stepdown",
        what: "the leaders of all streams step down in a cluster of three, five times",
        rule: "nobody disconnected, 0 lost, all recover; answers ≤ 6 s",
        run: leaders_stepped_down,
    },
    Fault {
        name: "N5-deleted",
        what: "the streams of publications are deleted, while clients are subscribed",
        rule: "nobody disconnected; 0 lost silently; ready; answers ≤ 6 s",
        run: streams_deleted,
    },
    Fault {
        name: "N6-full",
        what: "the disk of NATS is full, then has room again, and NATS is restarted",
        rule: "an error to the publisher, nobody disconnected, 0 lost silently; ready after the restart",
        run: full_disk,
    },
    Fault {
        name: "N7-partition",
        what: "the network between one node and NATS is cut for 10 s",
        rule: "that node is not ready, answers ≤ 6 s, and catches up ≤ 12 s without a later publication; nobody disconnected, 0 lost, all recover",
        run: |environment| {
            let folder = folder(environment)?;
            let nats = Nats::start(environment, &folder)?;
            common::partition(environment, &folder, nats.port, |address| format!("nats://{address}"))
        },
    },
    Fault {
        name: "N8-node",
        what: "a node is killed",
        rule: "its clients leave presence ≤ 10 s; the others lose nothing",
        run: |environment| {
            let (_nats, nodes) = single(environment)?;
            // A node that has just connected does not judge others.
            thread::sleep(Duration::from_secs(6));
            common::node_killed(nodes)
        },
    },
    Fault {
        name: "N9-clock",
        what: "the clock of one node is an hour ahead",
        rule: "nobody disconnected, 0 lost, all recover; presence is right",
        run: |environment| {
            let folder = folder(environment)?;
            let nats = Nats::start(environment, &folder)?;
            common::clock(environment, &folder, &nats.url())
        },
    },
    Fault {
        name: "N10-versions",
        what: "the nodes run an earlier version, and are replaced one after the other by this one",
        rule: common::REPLACED_RULE,
        run: |environment| match (environment.earlier)()? {
            Some(earlier) => replaced(environment, earlier),
            None => Ok(Outcome::skipped("this repository does not contain the earlier version")),
        },
    },
    Fault {
        name: "N11-deploy",
        what: "the nodes are replaced one after the other by the same version",
        rule: common::REPLACED_RULE,
        run: |environment| replaced(environment, environment.binary.clone()),
    },
];

/// A server of NATS.
struct Nats {
    name: String,
    port: u16,
    daemon: Daemon,
    data: PathBuf,
}

impl Nats {
    /// Starts a server that syncs each write.
    fn start(environment: &Environment, folder: &Path) -> Result<Self> {
        let server = Self::run(environment, folder, "server", free_port()?, &folder.join("data"), "")?;
        server.wait_until_up()?;
        Ok(server)
    }

    fn run(
        environment: &Environment,
        folder: &Path,
        name: &str,
        port: u16,
        data: &Path,
        options: &str,
    ) -> Result<Self> {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        let config = folder.join("nats.conf");
        let text = format!(
            "listen: 127.0.0.1:{port}\nserver_name: {name}\n{options}\n\
             jetstream {{ store_dir: {:?}, sync_interval: always }}\n",
            data.display().to_string()
        );
        fs::write(&config, text)?;
        let arguments = vec!["-c".to_owned(), config.display().to_string()];
        let daemon = Daemon::start(&(environment.nats_server)()?, arguments, &folder)?;
        Ok(Self {
            name: name.to_owned(),
            port,
            daemon,
            data: data.to_owned(),
        })
    }

    fn wait_until_up(&self) -> Result<()> {
        let began_at = Instant::now();
        while self.call("INFO", "").is_err() {
            ensure!(
                began_at.elapsed() < TIMEOUT,
                "no JetStream within {TIMEOUT:?} from the NATS at port {}",
                self.port
            );
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Calls the API of JetStream.
    fn call(&self, call: &str, body: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut input = BufReader::new(stream.try_clone()?);
        let len = body.len();
        write!(
            stream,
            "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB answer 1\r\n\
             PUB $JS.API.{call} answer {len}\r\n{body}\r\n"
        )?;
        loop {
            let mut line = String::new();
            ensure!(input.read_line(&mut line)? > 0, "NATS closed the connection");
            match line.split(' ').next().unwrap_or_default().trim_end() {
                "PING" => stream.write_all(b"PONG\r\n")?,
                "MSG" => {
                    let len = line.trim_end().rsplit(' ').next().unwrap_or_default().parse()?;
                    let mut payload = vec![0; len];
                    input.read_exact(&mut payload)?;
                    let answer: Value = serde_json::from_slice(&payload)?;
                    ensure!(answer["error"].is_null(), "{call}: {}", answer["error"]);
                    return Ok(answer);
                }
                "HMSG" => bail!("nobody answers {call}"),
                "-ERR" => bail!("{call}: {line}"),
                _ => {}
            }
        }
    }

    /// The names of the streams of the channels' publications. The check of storage has a stream of its own.
    fn streams(&self) -> Result<Vec<String>> {
        let answer = self.call("STREAM.NAMES", "{}")?;
        let names = answer["streams"].as_array().cloned().unwrap_or_default();
        let names = names.iter().filter_map(Value::as_str);
        Ok(names
            .filter(|name| name.contains("-h-5000-"))
            .map(str::to_owned)
            .collect())
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

/// A single server and two nodes on it.
fn single(environment: &Environment) -> Result<(Nats, Nodes)> {
    let folder = folder(environment)?;
    let nats = Nats::start(environment, &folder)?;
    let url = nats.url();
    let nodes = Nodes::start(environment, &folder, [&url, &url])?;
    Ok((nats, nodes))
}

/// Three servers, and the URL of all.
fn cluster(environment: &Environment, folder: &Path) -> Result<(Vec<Nats>, String)> {
    let mut ports = Vec::new();
    for _ in 0..3 {
        ports.push((free_port()?, free_port()?));
    }
    let routes: Vec<_> = ports
        .iter()
        .map(|(_, route)| format!("nats://127.0.0.1:{route}"))
        .collect();
    let routes = routes.join(", ");
    let mut servers = Vec::new();
    for (idx, (port, route)) in ports.iter().enumerate() {
        let name = format!("s{idx}");
        let options = format!("cluster {{ name: faults, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}");
        let data = folder.join(&name).join("data");
        servers.push(Nats::run(environment, folder, &name, *port, &data, &options)?);
    }
    for server in &servers {
        server.wait_until_up()?;
    }
    let hosts: Vec<_> = ports.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
    Ok((servers, format!("nats://{}?replicas=3", hosts.join(","))))
}

fn replaced(environment: &Environment, old: PathBuf) -> Result<Outcome> {
    let folder = folder(environment)?;
    let nats = Nats::start(environment, &folder)?;
    common::replaced(environment, &folder, old, &nats.url())
}

fn killed(environment: &Environment) -> Result<Outcome> {
    let (mut nats, nodes) = single(environment)?;
    let mut outcome = Outcome::default();
    let mut ready = Vec::new();
    for _ in 0..3 {
        nats.daemon.kill();
        nodes.wait_until_not_ready(0)?;
        thread::sleep(Duration::from_secs(2));
        nats.daemon.restart()?;
        ready.push(nodes.wait_until_ready()?);
        thread::sleep(Duration::from_millis(500));
    }
    let audit = nodes.end(&mut outcome)?;
    require_complete(audit, &mut outcome);
    let longest = ready.into_iter().max().unwrap_or_default();
    outcome.ready = format!("max {} after the restart", millis(longest));
    Ok(outcome)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    output(Command::new("cp").arg("-a").args([from, to]))?;
    Ok(())
}

fn lost_writes(environment: &Environment) -> Result<Outcome> {
    let (mut nats, nodes) = single(environment)?;
    let mut outcome = Outcome::default();
    let before = nats.data.with_extension("before");
    nats.daemon.kill();
    copy(&nats.data, &before)?;
    nats.daemon.restart()?;
    nodes.wait_until_not_ready(0)?;
    nodes.wait_until_ready()?;
    thread::sleep(Duration::from_secs(4));
    nats.daemon.kill();
    copy(&before, &nats.data)?;
    nats.daemon.restart()?;
    let began_at = Instant::now();
    nodes.wait_until_not_ready(0)?;
    nodes.wait_until_ready()?;
    let ready = began_at.elapsed();
    thread::sleep(Duration::from_secs(1));
    let audit = nodes.end(&mut outcome)?;
    let expected = 2 * MEMBERS;
    outcome.require(
        audit.recovery_refused >= expected,
        format!("{} of {expected} recoveries were refused", audit.recovery_refused),
    );
    outcome.ready = format!("{} after the restart", millis(ready));
    Ok(outcome)
}

fn leader_killed(environment: &Environment) -> Result<Outcome> {
    let folder = folder(environment)?;
    let (mut servers, url) = cluster(environment, &folder)?;
    let nodes = Nodes::start(environment, &folder, [&url, &url])?;
    let mut outcome = Outcome::default();
    let streams = servers[0].streams()?;
    let info = servers[0].call(&format!("STREAM.INFO.{}", streams.first().context("no stream")?), "")?;
    let leader = info["cluster"]["leader"].as_str().context("no leader")?.to_owned();
    let idx = servers
        .iter()
        .position(|server| server.name == leader)
        .context("an unknown leader")?;
    servers[idx].daemon.kill();
    let began_at = Instant::now();
    // Until all channels have a leader.
    let mut publisher = Publisher::connect(nodes.servers[1].address)?;
    for idx in 0..CHANNELS {
        let name = format!("{}-probe", channel(idx));
        while publisher.publish(&name, 1, 10)? != Answer::Acknowledged {
            ensure!(began_at.elapsed() < TIMEOUT, "{name} is not available");
            thread::sleep(Duration::from_millis(50));
        }
    }
    let available = began_at.elapsed();
    nodes.wait_until_ready()?;
    let ready = began_at.elapsed();
    thread::sleep(Duration::from_secs(4).saturating_sub(began_at.elapsed()));
    servers[idx].daemon.restart()?;
    servers[idx].wait_until_up()?;
    thread::sleep(Duration::from_secs(2));
    let audit = nodes.end(&mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.ready = format!(
        "all channels {} after the death, both nodes {}",
        millis(available),
        millis(ready)
    );
    Ok(outcome)
}

fn leaders_stepped_down(environment: &Environment) -> Result<Outcome> {
    let folder = folder(environment)?;
    let (servers, url) = cluster(environment, &folder)?;
    let nodes = Nodes::start(environment, &folder, [&url, &url])?;
    let mut outcome = Outcome::default();
    let mut stepped = 0;
    for _ in 0..5 {
        for stream in servers[0].streams()? {
            // While there is no leader, nobody steps down.
            stepped += usize::from(servers[0].call(&format!("STREAM.LEADER.STEPDOWN.{stream}"), "").is_ok());
        }
        thread::sleep(Duration::from_secs(1));
    }
    outcome.require(stepped > 5, format!("only {stepped} leaders stepped down"));
    let ready = nodes.wait_until_ready()?;
    thread::sleep(Duration::from_secs(1));
    let audit = nodes.end(&mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.ready = format!("always ({}), {stepped} elections", millis(ready));
    Ok(outcome)
}

fn streams_deleted(environment: &Environment) -> Result<Outcome> {
    let (nats, nodes) = single(environment)?;
    let mut outcome = Outcome::default();
    let streams = nats.streams()?;
    outcome.require(!streams.is_empty(), "there is no stream");
    for stream in &streams {
        nats.call(&format!("STREAM.DELETE.{stream}"), "")?;
    }
    let ready = nodes.wait_until_ready()?;
    // Longer than a check of positions.
    thread::sleep(Duration::from_secs(8));
    let again = nats.streams()?.len();
    outcome.require(again == streams.len(), format!("{again} streams exist"));
    let audit = nodes.end(&mut outcome)?;
    outcome.require(audit.recovery_refused > 0, "no client learned of it");
    outcome.clients += &format!("; {} streams deleted", streams.len());
    outcome.ready = millis(ready);
    Ok(outcome)
}

fn full_disk(environment: &Environment) -> Result<Outcome> {
    let folder = folder(environment)?;
    let mount = match Mount::new(environment.work.join("small"), "size=64m") {
        Ok(mount) => mount,
        Err(error) => return Ok(Outcome::skipped(format!("no small disk can be mounted ({error:#})"))),
    };
    let mut nats = Nats::run(environment, &folder, "server", free_port()?, &mount.0.join("data"), "")?;
    nats.wait_until_up()?;
    let url = format!("{}?stream_bytes=10000000", nats.url());
    let mut nodes = Nodes::start(environment, &folder, [&url, &url])?;
    let mut outcome = Outcome::default();
    let filler = mount.0.join("filler");
    let mut file = fs::File::create(&filler)?;
    while file.write_all(&[1; 64 << 10]).is_ok() {}
    drop(file);
    thread::sleep(Duration::from_secs(3));
    fs::remove_file(&filler)?;
    nats.daemon.restart()?;
    let ready = nodes.wait_until_ready()?;
    thread::sleep(Duration::from_secs(1));
    let published = nodes.end_stream()?;
    outcome.require(published.errors > 0, "no publication was refused");
    nodes.finish(&published, &mut outcome)?;
    outcome.ready = format!("{} after the restart", millis(ready));
    Ok(outcome)
}
