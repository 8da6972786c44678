//! The measured servers, and how each is built and started.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{Folders, trial::Certificate, workload::Group};
use crate::{process::call, workspace::Workspace};

/// A server program to measure.
#[derive(Debug)]
pub(super) struct Server {
    /// The name in tables, and of the folder in `bench/peers`.
    pub(super) name: &'static str,
    pub(super) program: Program,
    /// Name of the crate in bench/Cargo.lock whose version is reported, for servers of other crates.
    pub(super) crate_name: Option<&'static str>,
    pub(super) speaks: Speaks,
    pub(super) is_baseline: bool,
    pub(super) has_tls: bool,
    pub(super) has_deflate: bool,
}

/// Where a server program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// A package of `bench/peers`.
    Peer,
    /// `sockeye echo`, the program that users install.
    SockeyeEcho,
}

/// The protocol of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// Echoes bytes.
    Raw,
    /// Echoes bytes over TLS.
    RawTls,
    /// Echoes messages.
    WebSocket,
    /// Forwards each message to all other connections.
    Fanout,
    /// Echoes messages in a thread for each connection.
    Threads,
    /// Echoes messages in fragments, while they arrive.
    Streams,
}

const fn rival(name: &'static str) -> Server {
    Server {
        name,
        program: Program::Peer,
        crate_name: Some(name),
        speaks: Speaks::WebSocket,
        is_baseline: false,
        has_tls: false,
        has_deflate: false,
    }
}

const fn baseline(name: &'static str, speaks: Speaks, crate_name: Option<&'static str>) -> Server {
    Server {
        crate_name,
        speaks,
        is_baseline: true,
        has_tls: matches!(speaks, Speaks::RawTls),
        ..rival(name)
    }
}

/// All servers: baselines, Sockeye, other crates. A server is skipped if its folder does not exist.
pub(super) const SERVERS: &[Server] = &[
    baseline("raw-epoll", Speaks::Raw, None),
    baseline("raw-tokio", Speaks::Raw, Some("tokio")),
    baseline("raw-uring", Speaks::Raw, Some("io-uring")),
    baseline("raw-tokio-rustls", Speaks::RawTls, Some("tokio-rustls")),
    baseline("fanout-raw", Speaks::Fanout, None),
    Server {
        crate_name: None,
        has_tls: true,
        has_deflate: true,
        ..rival(SOCKEYE)
    },
    Server {
        program: Program::SockeyeEcho,
        crate_name: None,
        has_tls: true,
        has_deflate: true,
        ..rival(SOCKEYE_ECHO)
    },
    Server {
        crate_name: None,
        speaks: Speaks::Fanout,
        ..rival(FANOUT_SOCKEYE)
    },
    Server {
        has_tls: true,
        ..rival("tokio-tungstenite")
    },
    Server {
        has_tls: true,
        ..rival("fastwebsockets")
    },
    Server {
        has_tls: true,
        ..rival("tokio-websockets")
    },
    Server {
        has_deflate: true,
        ..rival("yawc")
    },
    Server {
        has_deflate: true,
        ..rival("sockudo-ws")
    },
    rival("soketto"),
    Server {
        has_deflate: true,
        ..rival("wtx")
    },
    Server {
        crate_name: Some("tokio-tungstenite"),
        speaks: Speaks::Fanout,
        ..rival("fanout-tungstenite")
    },
    Server {
        crate_name: None,
        speaks: Speaks::Threads,
        ..rival(BLOCKING_SOCKEYE)
    },
    Server {
        crate_name: Some("tungstenite"),
        speaks: Speaks::Threads,
        ..rival("blocking-tungstenite")
    },
    Server {
        crate_name: None,
        speaks: Speaks::Streams,
        ..rival(STREAMS_SOCKEYE)
    },
];

/// Echo by the library `sockeye`.
pub(super) const SOCKEYE: &str = "sockeye";

/// Fan-out by the library `sockeye`.
const FANOUT_SOCKEYE: &str = "fanout-sockeye";

/// Echo in threads by the library `sockeye`.
const BLOCKING_SOCKEYE: &str = "blocking-sockeye";

/// Echo with byte streams by the library `sockeye`.
const STREAMS_SOCKEYE: &str = "streams-sockeye";

/// The program `sockeye echo`.
const SOCKEYE_ECHO: &str = "sockeye-echo";

/// Whether a server is part of this repository, apart from the baselines.
pub(super) fn is_sockeye(name: &str) -> bool {
    [SOCKEYE, SOCKEYE_ECHO, FANOUT_SOCKEYE, BLOCKING_SOCKEYE, STREAMS_SOCKEYE].contains(&name)
}

impl Server {
    /// Builds the server separately, so that cargo does not unify its features with those of other servers.
    pub(super) fn build(&self, workspace: &Workspace, folders: &Folders) -> Result<()> {
        let mut command = workspace.cargo(["build", "--quiet", "--release", "--locked"]);
        match self.program {
            Program::Peer => command
                .args(["--package", &format!("peer-{}", self.name)])
                .current_dir(&folders.bench)
                .env("CARGO_TARGET_DIR", &folders.build),
            // With the profile of bench/Cargo.toml, so that only the code differs.
            Program::SockeyeEcho => command
                .args(["--package", "sockeye-cli", "--bin", "sockeye"])
                .env("CARGO_PROFILE_RELEASE_LTO", "fat")
                .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
                .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
                .env("CARGO_TARGET_DIR", &folders.program_build),
        };
        call(&mut command)
    }

    /// The command that starts the server on a free port.
    fn command(&self, group: Group, folders: &Folders, certificate: &Certificate) -> Command {
        let Certificate { cert, key } = certificate;
        match self.program {
            Program::Peer => {
                let mut command = Command::new(folders.binary(self.name));
                command.args(["--listen", "127.0.0.1:0"]);
                match group {
                    Group::Tls => command.arg("--tls").args([cert, key]),
                    Group::Deflate => command.arg("--deflate"),
                    Group::Echo | Group::Fanout | Group::Threads | Group::Streams => &mut command,
                };
                command
            }
            Program::SockeyeEcho => {
                let mut command = Command::new(folders.program_build.join("release/sockeye"));
                command.args(["echo", "--listen", "127.0.0.1:0"]);
                match group {
                    Group::Tls => command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key),
                    Group::Deflate => command.arg("--compression=no-takeover"),
                    Group::Echo | Group::Fanout | Group::Threads | Group::Streams => &mut command,
                };
                command
            }
        }
    }

    pub(super) fn is_there(&self, folders: &Folders) -> bool {
        self.program == Program::SockeyeEcho || folders.bench.join("peers").join(self.name).join("Cargo.toml").exists()
    }

    /// The protocol argument for the load generator.
    pub(super) fn protocol(&self, group: Group) -> &'static str {
        match (self.speaks, group) {
            (Speaks::Raw | Speaks::RawTls, _) => "raw",
            (Speaks::Streams, _) => "fragments",
            (_, Group::Deflate) => "deflate",
            _ => "ws",
        }
    }
}

/// A running server on the loopback interface; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) address: String,
}

impl Process {
    /// Starts the server on the processors of this process and waits until it listens.
    pub(super) fn start(server: &Server, group: Group, folders: &Folders, certificate: &Certificate) -> Result<Self> {
        let mut child = server
            .command(group, folders, certificate)
            // A peer exits when its standard input closes, even if this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", server.name))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let Some(address) = line.trim_end().strip_prefix("listening on ") else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{} did not print its address, but {line:?}", server.name);
        };
        Ok(Self {
            address: host_and_port(address).into(),
            child,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// `127.0.0.1:4711` of `ws://127.0.0.1:4711/`, which `sockeye echo` prints, or of itself.
fn host_and_port(address: &str) -> &str {
    let (_, address) = address.split_once("://").unwrap_or(("", address));
    address.trim_end_matches('/')
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
