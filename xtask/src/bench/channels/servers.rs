//! The servers, their configuration, and how each is started.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    Places,
    engines::{Engine, EngineProcess},
    tail,
};

/// A server to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `sockeye serve`, with histories in memory.
    Sockeye,
    /// `sockeye serve` with a log on disk, which is written through every 50 ms.
    SockeyeLog,
    /// Centrifugo with its memory engine.
    Centrifugo,
    /// Two nodes of `sockeye serve` with one Redis.
    SockeyeRedis,
    /// Two nodes of `sockeye serve` with one NATS server.
    SockeyeNats,
    /// Two nodes of Centrifugo with one Redis.
    CentrifugoRedis,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sockeye => "sockeye",
            Self::SockeyeLog => "sockeye, log at 50ms",
            Self::Centrifugo => "centrifugo",
            Self::SockeyeRedis => "sockeye, redis",
            Self::SockeyeNats => "sockeye, nats",
            Self::CentrifugoRedis => "centrifugo, redis",
        }
    }

    pub(super) fn is_centrifugo(self) -> bool {
        matches!(self, Self::Centrifugo | Self::CentrifugoRedis)
    }

    /// The engine that the nodes share.
    pub(super) fn engine(self) -> Option<Engine> {
        match self {
            Self::Sockeye | Self::SockeyeLog | Self::Centrifugo => None,
            Self::SockeyeRedis | Self::CentrifugoRedis => Some(Engine::Redis),
            Self::SockeyeNats => Some(Engine::Nats),
        }
    }
}

/// The configuration of Centrifugo: channels like those of Sockeye, anonymous clients, no log lines of clients, no
/// usage statistics.
pub(super) const CENTRIFUGO_CONFIG: &str = r#"{
  "http_server": { "address": "127.0.0.1", "port": PORT },
  "log": { "level": "error" },
  "usage_stats": { "disabled": true },
  "client": { "allow_anonymous_connect_without_token": true },
  "channel": {
    "without_namespace": {
      "presence": true,
      "history_size": 100,
      "history_ttl": "24h",
      "allow_recovery": true,
      "allow_positioning": true,
      "allow_subscribe_for_client": true,
      "allow_subscribe_for_anonymous": true,
      "allow_publish_for_client": true,
      "allow_publish_for_anonymous": true
    }
  }
}
"#;

/// The configuration of Sockeye. Centrifugo limits neither commands nor handshakes by default.
pub(super) const SOCKEYE_CONFIG: &str = r#"listen = "127.0.0.1:0"
anonymous = true

[limits]
commands_per_second_max = 1000000
handshakes_per_second_max = 1000000

[channels]
presence = true
history_size = 100
history_ttl = "24h"
allow_subscribe = "anyone"
allow_publish = "anyone"
"#;

/// The line of [`SOCKEYE_CONFIG`] that a workload may replace.
const HANDSHAKES_UNLIMITED: &str = "handshakes_per_second_max = 1000000";

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(20);

/// The processes of a server: one, or two nodes with the engine that they share.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) nodes: Vec<Process>,
    // Dropped after the nodes.
    pub(super) engine: Option<EngineProcess>,
}

impl Deployment {
    /// Starts a server on the processors of this process and waits until each node takes clients.
    pub(super) fn start(kind: Kind, handshakes_max: u32, places: &Places) -> Result<Self> {
        let engine = kind.engine();
        let engine = engine.map(|engine| EngineProcess::start(engine, &places.engines, &places.work));
        let engine = engine.transpose()?;
        let setting = Setting {
            kind,
            handshakes_max,
            engine_url: engine.as_ref().map(|engine| engine.url.as_str()),
            places,
        };
        let count = if engine.is_some() { 2 } else { 1 };
        let nodes: Result<_> = (0..count).map(|idx| Process::start(&setting, idx)).collect();
        Ok(Self { nodes: nodes?, engine })
    }

    /// What the nodes wrote to standard error last, for messages.
    pub(super) fn last_words(&self) -> String {
        self.nodes.iter().map(Process::last_words).collect()
    }
}

/// How to start a node.
#[derive(Debug)]
struct Setting<'a> {
    kind: Kind,
    handshakes_max: u32,
    engine_url: Option<&'a str>,
    places: &'a Places,
}

/// A running node on the loopback interface; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) address: String,
    data: Option<PathBuf>,
    /// What it writes to standard error.
    log: PathBuf,
}

impl Process {
    fn start(setting: &Setting<'_>, idx: usize) -> Result<Self> {
        let log = setting.places.work.join(format!("stderr-{idx}.txt"));
        let process = match setting.kind.is_centrifugo() {
            true => Self::start_centrifugo(setting, log)?,
            false => Self::start_sockeye(setting, log)?,
        };
        Ok(process)
    }

    fn start_sockeye(setting: &Setting<'_>, log: PathBuf) -> Result<Self> {
        let places = setting.places;
        let data = (setting.kind == Kind::SockeyeLog).then(|| places.work.join("log"));
        if let Some(data) = data.as_ref().filter(|data| data.exists()) {
            fs::remove_dir_all(data)?;
        }
        let config = places.work.join("sockeye.toml");
        let handshakes = format!("handshakes_per_second_max = {}", setting.handshakes_max);
        fs::write(&config, SOCKEYE_CONFIG.replace(HANDSHAKES_UNLIMITED, &handshakes))?;
        let mut command = Command::new(&places.sockeye);
        command.arg("serve").arg("--config").arg(&config);
        if let Some(url) = setting.engine_url {
            command.args(["--engine", url]);
        }
        if let Some(data) = &data {
            command.arg("--data").arg(data).args(["--fsync", "50ms"]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start sockeye")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim_end().strip_prefix("listening on http://");
        let mut process = Self {
            child,
            address: String::new(),
            data,
            log,
        };
        let Some(address) = address else {
            bail!(
                "sockeye did not print its address, but {line:?}{}",
                process.last_words()
            );
        };
        process.address = address.trim_end_matches('/').to_owned();
        process.wait_for("/health/ready", b"HTTP/1.1 200")?;
        Ok(process)
    }

    fn start_centrifugo(setting: &Setting<'_>, log: PathBuf) -> Result<Self> {
        let places = setting.places;
        // Centrifugo does not print which free port it got, so a port is chosen for it.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = places.work.join(format!("centrifugo-{port}.json"));
        let mut text = CENTRIFUGO_CONFIG.replace("PORT", &port.to_string());
        if let Some(url) = setting.engine_url {
            let engine =
                format!("{{\n  \"engine\": {{ \"type\": \"redis\", \"redis\": {{ \"address\": \"{url}\" }} }},");
            text = text.replacen('{', &engine, 1);
        }
        fs::write(&config, text)?;
        let child = Command::new(&places.centrifugo)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start centrifugo")?;
        let process = Self {
            child,
            address: format!("127.0.0.1:{port}"),
            data: None,
            log,
        };
        process.wait_for("/", b"HTTP/1.1 ")?;
        Ok(process)
    }

    /// Waits until the node answers a request for this path with a response that starts so.
    fn wait_for(&self, path: &str, start: &[u8]) -> Result<()> {
        let is_ready = || {
            let mut stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address)?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?;
            Ok::<_, std::io::Error>(status.starts_with(start))
        };
        let began_at = Instant::now();
        while !is_ready().unwrap_or(false) {
            if began_at.elapsed() > START_MAX {
                bail!("the server is not ready{}", self.last_words());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server wrote to standard error last, for messages.
    fn last_words(&self) -> String {
        match tail(&self.log) {
            words if words.is_empty() => words,
            words => format!(" (the server wrote: {words})"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data) = &self.data {
            let _ = fs::remove_dir_all(data);
        }
    }
}
