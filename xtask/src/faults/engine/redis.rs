//! Faults of Redis: a single server, Sentinel, and Cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    CHANNELS, Environment, MEMBERS, Nodes, TIMEOUT, common,
    daemon::{Daemon, free_port},
    folder, millis, require_complete,
};
use crate::{
    faults::{Fault, Outcome, publisher::Publisher, subscribers::channel},
    process::output,
    tools,
};

pub(in crate::faults) const FAULTS: &[Fault] = &[
    Fault {
        name: "R1-always",
        what: "Redis with `appendfsync always` is killed, and started again after 2 s; three times",
        rule: "nobody disconnected, 0 lost, all recover; answers ≤ 6 s",
        run: |environment| killed(environment, &["--appendonly", "yes", "--appendfsync", "always"], true),
    },
    Fault {
        name: "R1-everysec",
        what: "the same with `appendfsync everysec`",
        rule: "nobody disconnected; 0 lost silently: every client learns of a gap; answers ≤ 6 s",
        run: |environment| {
            killed(
                environment,
                &["--appendonly", "yes", "--appendfsync", "everysec"],
                false,
            )
        },
    },
    Fault {
        name: "R2-sentinel",
        what: "the primary dies with writes that its replica does not have; Sentinel promotes the replica",
        rule: "nobody disconnected; 0 lost silently: every client learns of a gap; answers ≤ 6 s",
        run: failover,
    },
    Fault {
        name: "R3-slots",
        what: "the slots of all channels are moved in a cluster of six",
        rule: "nobody disconnected, 0 lost, all recover",
        run: slots_moved,
    },
    Fault {
        name: "R3-failover",
        what: "a primary of a cluster of six is killed",
        rule: "nobody disconnected; 0 lost silently; answers ≤ 6 s",
        run: cluster_failover,
    },
    Fault {
        name: "R4-output",
        what: "messages exceed `client-output-buffer-limit`, so Redis closes the event connections; five times",
        rule: "nobody disconnected, 0 lost, all recover",
        run: output_buffer,
    },
    Fault {
        name: "R5-kill",
        what: "`CLIENT KILL` of all connections, ten times",
        rule: "nobody disconnected, 0 lost, all recover",
        run: clients_killed,
    },
    Fault {
        name: "R6-sleep",
        what: "`DEBUG SLEEP 5`",
        rule: "nobody disconnected, 0 lost, all recover; answers ≤ 6 s",
        run: asleep,
    },
    Fault {
        name: "R7-full",
        what: "memory full, `noeviction`, for 3 s",
        rule: "publishers get an error; nobody disconnected, 0 lost, all recover",
        run: full,
    },
    Fault {
        name: "R7-evict",
        what: "memory full, `allkeys-random`: keys of channels are evicted",
        rule: "a warning at the start; nobody disconnected; 0 lost silently",
        run: evicted,
    },
    Fault {
        name: "R8-flush",
        what: "`SCRIPT FLUSH`, twenty times",
        rule: "nobody disconnected, 0 lost, all recover",
        run: scripts_flushed,
    },
    Fault {
        name: "R9-partition",
        what: "the network between one node and Redis is cut for 10 s",
        rule: "that node is not ready, answers ≤ 6 s, and catches up ≤ 12 s without a later publication; nobody disconnected, 0 lost, all recover",
        run: |environment| {
            let folder = folder(environment)?;
            let redis = Redis::start(&folder, "redis", &[])?;
            common::partition(environment, &folder, redis.port, |address| format!("redis://{address}"))
        },
    },
    Fault {
        name: "R10-clock",
        what: "the clock of one node is an hour ahead",
        rule: "nobody disconnected, 0 lost, all recover; presence is right",
        run: |environment| {
            let folder = folder(environment)?;
            let redis = Redis::start(&folder, "redis", &[])?;
            common::clock(environment, &folder, &redis.url())
        },
    },
    Fault {
        name: "R11-node",
        what: "a node is killed",
        rule: "its clients leave presence ≤ 10 s; the others lose nothing",
        run: |environment| {
            let (_redis, nodes) = single(environment, &[])?;
            common::node_killed(nodes)
        },
    },
    Fault {
        name: "R12-versions",
        what: "the nodes run an earlier version, and are replaced one after the other by this one",
        rule: common::REPLACED_RULE,
        run: |environment| match (environment.earlier)()? {
            Some(earlier) => replaced(environment, earlier),
            None => Ok(Outcome::skipped("this repository does not contain the earlier version")),
        },
    },
    Fault {
        name: "R13-deploy",
        what: "the nodes are replaced one after the other by the same version",
        rule: common::REPLACED_RULE,
        run: |environment| replaced(environment, environment.binary.clone()),
    },
];

/// A server of Redis.
struct Redis {
    port: u16,
    daemon: Daemon,
}

impl Redis {
    fn start(folder: &Path, name: &str, options: &[&str]) -> Result<Self> {
        let port = free_port()?;
        let text = port.to_string();
        let mut arguments = vec!["--port", &text, "--bind", "127.0.0.1", "--save", ""];
        arguments.extend(["--enable-debug-command", "yes"]);
        arguments.extend(options);
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        Self::run(folder, name, port, arguments)
    }

    fn run(folder: &Path, name: &str, port: u16, arguments: Vec<String>) -> Result<Self> {
        let program = tools::redis()?;
        let daemon = Daemon::start(&program, arguments, &folder.join(name))?;
        let server = Self { port, daemon };
        server.wait_until_up()?;
        Ok(server)
    }

    fn wait_until_up(&self) -> Result<()> {
        self.wait_for("an answer", |redis| {
            Ok(redis.cli(&["PING"]).is_ok_and(|answer| answer == "PONG"))
        })
    }

    fn wait_for(&self, what: &str, mut holds: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let began_at = Instant::now();
        while !holds(self)? {
            if began_at.elapsed() > TIMEOUT {
                bail!("no {what} within {TIMEOUT:?} from the Redis at port {}", self.port);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Runs a command and returns its answer.
    fn cli(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(words);
        let answer = output(&mut command)?.trim_end().to_owned();
        let is_error = ["ERR ", "NOAUTH ", "LOADING ", "MASTERDOWN ", "OOM "];
        ensure!(
            !is_error.iter().any(|start| answer.starts_with(start)),
            "{words:?}: {answer}"
        );
        Ok(answer)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// A single server and two nodes on it.
fn single(environment: &Environment, options: &[&str]) -> Result<(Redis, Nodes)> {
    let folder = folder(environment)?;
    let redis = Redis::start(&folder, "redis", options)?;
    let url = redis.url();
    let nodes = Nodes::start(environment, &folder, [&url, &url])?;
    Ok((redis, nodes))
}

fn replaced(environment: &Environment, old: PathBuf) -> Result<Outcome> {
    let folder = folder(environment)?;
    let redis = Redis::start(&folder, "redis", &[])?;
    common::replaced(environment, &folder, old, &redis.url())
}

fn killed(environment: &Environment, options: &[&str], is_complete: bool) -> Result<Outcome> {
    let (mut redis, nodes) = single(environment, options)?;
    let mut outcome = Outcome::default();
    let mut ready = Vec::new();
    for _ in 0..3 {
        redis.daemon.kill();
        nodes.wait_until_not_ready(0)?;
        thread::sleep(Duration::from_secs(2));
        redis.daemon.restart()?;
        ready.push(nodes.wait_until_ready()?);
        thread::sleep(Duration::from_millis(500));
    }
    let audit = nodes.end(&mut outcome)?;
    if is_complete {
        require_complete(audit, &mut outcome);
    } else {
        let expected = 3 * 2 * MEMBERS;
        outcome.require(
            audit.recovery_refused == expected,
            format!("{} of {expected} recoveries were refused", audit.recovery_refused),
        );
    }
    outcome.ready = format!(
        "max {} after the restart",
        millis(ready.into_iter().max().unwrap_or_default())
    );
    Ok(outcome)
}

fn failover(environment: &Environment) -> Result<Outcome> {
    let folder = folder(environment)?;
    let mut primary = Redis::start(&folder, "primary", &[])?;
    let port = primary.port.to_string();
    let replica = Redis::start(&folder, "replica", &["--replicaof", &format!("127.0.0.1 {port}")])?;
    primary.wait_for("replica", |redis| {
        Ok(redis.cli(&["INFO", "replication"])?.contains("state=online"))
    })?;
    let mut sentinels = Vec::new();
    for name in ["s1", "s2", "s3"] {
        let sentinel_port = free_port()?;
        let config = folder.join(format!("{name}.conf"));
        let text = format!(
            "port {sentinel_port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds main 2000\nsentinel failover-timeout main 10000\n"
        );
        fs::write(&config, text)?;
        let arguments = vec![config.display().to_string(), "--sentinel".to_owned()];
        sentinels.push(Redis::run(&folder, name, sentinel_port, arguments)?);
    }
    for sentinel in &sentinels {
        sentinel.wait_for("agreement", |redis| {
            let text = redis.cli(&["SENTINEL", "MASTER", "main"])?;
            let field = |name: &str| text.lines().skip_while(|line| *line != name).nth(1).map(str::to_owned);
            Ok(field("num-slaves").as_deref() == Some("1") && field("num-other-sentinels").as_deref() == Some("2"))
        })?;
    }
    let hosts: Vec<_> = sentinels
        .iter()
        .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
        .collect();
    let url = format!("redis+sentinel://{}/main", hosts.join(","));
    let nodes = Nodes::start(environment, &folder, [&url, &url])?;
    let mut outcome = Outcome::default();
    // The replica cannot log in any more: it does not get what follows.
    replica.cli(&["CONFIG", "SET", "masterauth", "wrong"])?;
    primary.cli(&["CLIENT", "KILL", "TYPE", "replica"])?;
    thread::sleep(Duration::from_millis(500));
    primary.daemon.kill();
    nodes.wait_until_not_ready(0)?;
    let ready = nodes.wait_until_ready()?;
    thread::sleep(Duration::from_millis(500));
    let audit = nodes.end(&mut outcome)?;
    let expected = 2 * MEMBERS;
    outcome.require(
        audit.recovery_refused == expected,
        format!("{} of {expected} recoveries were refused", audit.recovery_refused),
    );
    outcome.ready = format!("{} after the death, of which Sentinel waits 2 s", millis(ready));
    Ok(outcome)
}

/// A cluster of three primaries with a replica each.
fn cluster(folder: &Path) -> Result<Vec<Redis>> {
    let mut servers = Vec::new();
    for idx in 0..6 {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        servers.push(Redis::start(folder, &format!("server{idx}"), &options)?);
    }
    let addresses: Vec<_> = servers
        .iter()
        .map(|server| format!("127.0.0.1:{}", server.port))
        .collect();
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(&addresses);
    output(create.args(["--cluster-replicas", "1", "--cluster-yes"]))?;
    for server in &servers {
        server.wait_for("cluster", |redis| {
            let info = redis.cli(&["CLUSTER", "INFO"])?;
            Ok(info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6"))
        })?;
        server.wait_for("replication", |redis| {
            let info = redis.cli(&["INFO", "replication"])?;
            Ok(info.contains("state=online") || info.contains("master_link_status:up"))
        })?;
    }
    Ok(servers)
}

fn cluster_url(servers: &[Redis]) -> String {
    let hosts: Vec<_> = servers
        .iter()
        .map(|server| format!("127.0.0.1:{}", server.port))
        .collect();
    format!("redis+cluster://{}", hosts.join(","))
}

fn is_primary(server: &Redis) -> Result<bool> {
    Ok(server.cli(&["INFO", "replication"])?.contains("role:master"))
}

fn slots_moved(environment: &Environment) -> Result<Outcome> {
    let folder = folder(environment)?;
    let servers = cluster(&folder)?;
    let url = cluster_url(&servers);
    let nodes = Nodes::start(environment, &folder, [&url, &url])?;
    let mut outcome = Outcome::default();
    let mut primaries = Vec::new();
    for server in &servers {
        if is_primary(server)? {
            primaries.push((server.cli(&["CLUSTER", "MYID"])?, server));
        }
    }
    let began_at = Instant::now();
    for idx in 0..CHANNELS {
        let slot = servers[0].cli(&["CLUSTER", "KEYSLOT", &format!("{{{}}}", channel(idx))])?;
        let mut owner = None;
        for (id, server) in &primaries {
            // Only its owner counts the keys of a slot.
            if server.cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot])? != "0" {
                owner = Some(id.clone());
            }
        }
        let owner = owner.context("no server has the slot")?;
        let from = primaries.iter().position(|(id, _)| *id == owner).context("no owner")?;
        let ((from_id, from), (to_id, to)) = (&primaries[from], &primaries[(from + 1) % primaries.len()]);
        to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", from_id])?;
        from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", to_id])?;
        let to_port = to.port.to_string();
        loop {
            let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])?;
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &to_port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.lines());
            from.cli(&migrate)?;
        }
        for (_, server) in [(to_id, to), (from_id, from)] {
            server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", to_id])?;
        }
    }
    let took = began_at.elapsed();
    let ready = nodes.wait_until_ready()?;
    thread::sleep(Duration::from_secs(1));
    let audit = nodes.end(&mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.ready = format!(
        "{} after {CHANNELS} slots were moved within {}",
        millis(ready),
        millis(took)
    );
    Ok(outcome)
}

fn cluster_failover(environment: &Environment) -> Result<Outcome> {
    let folder = folder(environment)?;
    let mut servers = cluster(&folder)?;
    let url = cluster_url(&servers);
    let nodes = Nodes::start(environment, &folder, [&url, &url])?;
    let mut outcome = Outcome::default();
    let mut primary = None;
    for (idx, server) in servers.iter().enumerate() {
        if is_primary(server)? {
            primary.get_or_insert(idx);
        }
    }
    servers[primary.context("no primary")?].daemon.kill();
    let began_at = Instant::now();
    let mut client = Publisher::connect(nodes.servers[1].address)?;
    for idx in 0..CHANNELS {
        while common::clients_in(&mut client, &channel(idx)).is_err() {
            ensure!(began_at.elapsed() < TIMEOUT, "{} is not available", channel(idx));
            thread::sleep(Duration::from_millis(50));
        }
    }
    let ready = began_at.elapsed();
    nodes.wait_until_ready()?;
    thread::sleep(Duration::from_secs(1));
    nodes.end(&mut outcome)?;
    outcome.ready = format!(
        "all channels {} after the death, of which Redis waits 2 s",
        millis(ready)
    );
    Ok(outcome)
}

fn output_buffer(environment: &Environment) -> Result<Outcome> {
    let (redis, nodes) = single(environment, &[])?;
    let mut outcome = Outcome::default();
    redis.cli(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 16384 0 0"])?;
    let mut publisher = Publisher::connect(nodes.servers[1].address)?;
    for number in 0..5 {
        // One message is more than the buffer may have.
        publisher.publish("large", number, 40_000)?;
        redis.cli(&["PUBLISH", "sockeye:{fault0}", &"x".repeat(60_000)])?;
        thread::sleep(Duration::from_millis(700));
    }
    let ready = nodes.wait_until_ready()?;
    let log = fs::read_to_string(environment.work.join("engine/redis/log.txt"))?;
    let closed = log.lines().filter(|line| line.contains("output buffer limits")).count();
    outcome.require(closed >= 5, format!("Redis closed {closed} connections"));
    thread::sleep(Duration::from_secs(1));
    let audit = nodes.end(&mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.clients += &format!("; {closed} connections closed by Redis");
    outcome.ready = millis(ready);
    Ok(outcome)
}

fn clients_killed(environment: &Environment) -> Result<Outcome> {
    let (redis, nodes) = single(environment, &[])?;
    let mut outcome = Outcome::default();
    for kind in ["normal", "pubsub"].into_iter().cycle().take(10) {
        redis.cli(&["CLIENT", "KILL", "TYPE", kind])?;
        thread::sleep(Duration::from_millis(500));
    }
    let ready = nodes.wait_until_ready()?;
    let audit = nodes.end(&mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.ready = millis(ready);
    Ok(outcome)
}

fn asleep(environment: &Environment) -> Result<Outcome> {
    let (redis, nodes) = single(environment, &[])?;
    let mut outcome = Outcome::default();
    redis.cli(&["DEBUG", "SLEEP", "5"])?;
    let ready = nodes.wait_until_ready()?;
    thread::sleep(Duration::from_secs(1));
    let audit = nodes.end(&mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.ready = format!("{} after it", millis(ready));
    Ok(outcome)
}

fn full(environment: &Environment) -> Result<Outcome> {
    let (redis, mut nodes) = single(environment, &["--maxmemory-policy", "noeviction"])?;
    let mut outcome = Outcome::default();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"])?;
    thread::sleep(Duration::from_secs(3));
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"])?;
    let ready = nodes.wait_until_ready()?;
    thread::sleep(Duration::from_secs(1));
    let published = nodes.end_stream()?;
    outcome.require(published.errors > 0, "no publication was refused");
    let audit = nodes.finish(&published, &mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.ready = format!("{} after there was room", millis(ready));
    Ok(outcome)
}

fn evicted(environment: &Environment) -> Result<Outcome> {
    let (redis, nodes) = single(environment, &["--maxmemory-policy", "allkeys-random"])?;
    let mut outcome = Outcome::default();
    for node in ["one", "two"] {
        let log = fs::read_to_string(environment.work.join("engine").join(node).join("stderr.txt"))?;
        outcome.require(log.contains("maxmemory-policy noeviction"), "no warning at the start");
    }
    let used = redis.cli(&["INFO", "memory"])?;
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:"));
    let used: u64 = used.context("no used_memory")?.trim().parse()?;
    redis.cli(&["CONFIG", "SET", "maxmemory", &(used + (1 << 20)).to_string()])?;
    for _ in 0..10 {
        redis.cli(&["DEBUG", "POPULATE", "2000", "filler", "500"])?;
        redis.cli(&[
            "EVAL",
            "for i = 1, 4000 do redis.call('SET', 'other' .. i, string.rep('x', 500)) end",
            "0",
        ])?;
        thread::sleep(Duration::from_millis(200));
    }
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"])?;
    let ready = nodes.wait_until_ready()?;
    let evicted = redis.cli(&["INFO", "stats"])?;
    let evicted = evicted.lines().find_map(|line| line.strip_prefix("evicted_keys:"));
    let evicted = evicted.unwrap_or("0").trim().to_owned();
    outcome.require(evicted != "0", "nothing was evicted");
    // Longer than a position check.
    thread::sleep(Duration::from_secs(1));
    nodes.end(&mut outcome)?;
    outcome.clients += &format!("; {evicted} keys evicted");
    outcome.ready = millis(ready);
    Ok(outcome)
}

fn scripts_flushed(environment: &Environment) -> Result<Outcome> {
    let (redis, nodes) = single(environment, &[])?;
    let mut outcome = Outcome::default();
    for _ in 0..20 {
        redis.cli(&["SCRIPT", "FLUSH"])?;
        thread::sleep(Duration::from_millis(100));
    }
    let ready = nodes.wait_until_ready()?;
    let audit = nodes.end(&mut outcome)?;
    require_complete(audit, &mut outcome);
    outcome.ready = millis(ready);
    Ok(outcome)
}
