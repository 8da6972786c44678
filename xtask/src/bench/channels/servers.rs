//! The servers, their configuration, and how each is started.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Places, tail};

/// A server to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `sockeye serve`, with histories in memory.
    Sockeye,
    /// `sockeye serve` with a log on disk, which is written through every 50 ms.
    SockeyeLog,
    /// Centrifugo with its memory engine.
    Centrifugo,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sockeye => "sockeye",
            Self::SockeyeLog => "sockeye, log at 50ms",
            Self::Centrifugo => "centrifugo",
        }
    }
}

/// The configuration of Centrifugo: channels like those of Sockeye, anonymous clients, no log lines of clients, no usage
/// statistics.
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

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(20);

/// A running server on the loopback interface; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) address: String,
    data: Option<PathBuf>,
}

impl Process {
    /// Starts a server on the processors of this process and waits until it listens.
    pub(super) fn start(kind: Kind, places: &Places) -> Result<Self> {
        match kind {
            Kind::Sockeye => Self::start_sockeye(places, None),
            Kind::SockeyeLog => {
                let data = places.work.join("log");
                if data.exists() {
                    fs::remove_dir_all(&data)?;
                }
                Self::start_sockeye(places, Some(data))
            }
            Kind::Centrifugo => Self::start_centrifugo(places),
        }
    }

    fn start_sockeye(places: &Places, data: Option<PathBuf>) -> Result<Self> {
        let config = places.work.join("sockeye.toml");
        fs::write(&config, SOCKEYE_CONFIG)?;
        let mut command = Command::new(&places.sockeye);
        command.arg("serve").arg("--config").arg(&config);
        if let Some(data) = &data {
            command.arg("--data").arg(data).args(["--fsync", "50ms"]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log(&places.work))?)
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
        };
        let Some(address) = address else {
            bail!(
                "sockeye did not print its address, but {line:?}{}",
                process.last_words(&places.work)
            );
        };
        process.address = address.trim_end_matches('/').to_owned();
        Ok(process)
    }

    fn start_centrifugo(places: &Places) -> Result<Self> {
        // Centrifugo does not print which free port it got, so a port is chosen for it.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = places.work.join("centrifugo.json");
        fs::write(&config, CENTRIFUGO_CONFIG.replace("PORT", &port.to_string()))?;
        let child = Command::new(&places.centrifugo)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log(&places.work))?)
            .spawn()
            .context("cannot start centrifugo")?;
        let process = Self {
            child,
            address: format!("127.0.0.1:{port}"),
            data: None,
        };
        let began_at = Instant::now();
        while TcpStream::connect(&process.address).is_err() {
            if began_at.elapsed() > START_MAX {
                bail!("centrifugo does not listen{}", process.last_words(&places.work));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(process)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server wrote to standard error last, for messages.
    pub(super) fn last_words(&self, work: &Path) -> String {
        match tail(&log(work)) {
            words if words.is_empty() => words,
            words => format!(" (the server wrote: {words})"),
        }
    }
}

fn log(work: &Path) -> PathBuf {
    work.join("stderr.txt")
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
