//! Who is measured, and how each is started.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{Folders, trial::Certificate, workload::Group};

/// A program of `bench/peers`.
#[derive(Debug)]
pub(super) struct Server {
    /// The folder and the program.
    pub(super) name: &'static str,
    /// The crate in bench/Cargo.lock whose version is told, where it is somebody else's.
    pub(super) crate_name: Option<&'static str>,
    pub(super) speaks: Speaks,
    pub(super) is_baseline: bool,
    pub(super) has_tls: bool,
    pub(super) has_deflate: bool,
}

/// What a server does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// Sends the bytes back.
    Raw,
    /// Sends the bytes back, over TLS.
    RawTls,
    /// Sends the messages back.
    WebSocket,
    /// Gives each message to all other connections.
    Fanout,
}

const fn rival(name: &'static str) -> Server {
    Server {
        name,
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

/// All that may be there: those that the others are compared with, ours, then the others.
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
        ..rival(OURS)
    },
    Server {
        crate_name: None,
        speaks: Speaks::Fanout,
        ..rival("fanout-ours")
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
];

/// The one that all this is about.
const OURS: &str = "ours";

/// Whether it is one of our own.
pub(super) fn is_ours(name: &str) -> bool {
    name == OURS || name.ends_with("-ours")
}

impl Server {
    pub(super) fn package(&self) -> String {
        format!("peer-{}", self.name)
    }

    pub(super) fn is_there(&self, folders: &Folders) -> bool {
        folders.bench.join("peers").join(self.name).join("Cargo.toml").exists()
    }

    /// What to tell the load about it.
    pub(super) fn protocol(&self, group: Group) -> &'static str {
        match (self.speaks, group) {
            (Speaks::Raw | Speaks::RawTls, _) => "raw",
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
    /// Starts it on the processors of this process; it is listening when this returns.
    pub(super) fn start(server: &Server, group: Group, folders: &Folders, certificate: &Certificate) -> Result<Self> {
        let mut command = Command::new(folders.binary(server.name));
        command.args(["--listen", "127.0.0.1:0"]);
        if group == Group::Tls {
            command.arg("--tls").args([&certificate.cert, &certificate.key]);
        }
        if group == Group::Deflate {
            command.arg("--deflate");
        }
        let mut child = command
            // It ends when this is closed, even if we cannot tell it.
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
            bail!("{} did not say where it listens, but {line:?}", server.name);
        };
        Ok(Self {
            address: address.into(),
            child,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
