//! The programs: the built `sockeye`, and the tools that `cargo xtask` prepared.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use crate::{Certificate, MESSAGE_SIZE_MAX, Process, SIZES};

/// A listening `sockeye`.
#[derive(Debug)]
pub struct Sockeye {
    /// The running program.
    pub process: Process,
    /// The URL it printed, such as `ws://127.0.0.1:4711/`.
    pub url: String,
}

impl Sockeye {
    /// Starts `sockeye echo` on a free port, with the message limit [`MESSAGE_SIZE_MAX`] and the subprotocols `chat`
    /// and `superchat`.
    pub async fn echo(options: &[&str]) -> Self {
        let limit = format!("{}MiB", MESSAGE_SIZE_MAX >> 20);
        let subprotocols = ["--subprotocol", "chat", "--subprotocol", "superchat"];
        let usual = ["echo", "--listen", "127.0.0.1:0", "--max-message-size", &limit];
        Self::start(&[&usual, &subprotocols[..], options].concat()).await
    }

    /// Starts `sockeye echo` with TLS and `certificate`.
    pub async fn echo_tls(certificate: &Certificate) -> Self {
        let (cert, key) = (certificate.cert_path(), certificate.key_path());
        let plain = Self::echo(&[
            "--tls-cert",
            &cert.to_string_lossy(),
            "--tls-key",
            &key.to_string_lossy(),
        ])
        .await;
        // Clients must use TLS, whatever URL was printed.
        let url = format!("wss://{}/", plain.address());
        Self { url, ..plain }
    }

    /// Starts `sockeye serve` on `address`; port 0 picks a free one.
    pub async fn serve(address: &str, options: &[&str]) -> Self {
        Self::start(&[&["serve", "--listen", address], options].concat()).await
    }

    /// Starts `sockeye` with these arguments and waits until it listens.
    pub async fn start(arguments: &[&str]) -> Self {
        let mut process = Process::start(Self::command(arguments));
        let url = process.line_after("listening on ").await;
        Self { process, url }
    }

    /// Starts `sockeye connect` to `url`.
    pub fn connect(url: &str) -> Process {
        Process::start(Self::command(&["connect", url]))
    }

    /// The address without scheme and path, such as `127.0.0.1:4711`.
    pub fn address(&self) -> &str {
        let address = self.url.split_once("://").map_or(&*self.url, |(_, rest)| rest);
        address.trim_end_matches('/')
    }

    /// The program in `SOCKEYE_BIN`, or the one built beside the running test, without the proxies of the environment.
    pub fn command(arguments: &[&str]) -> Command {
        let beside = || {
            let test = env::current_exe().expect("the running test has a path");
            let profile = test
                .parent()
                .and_then(Path::parent)
                .expect("tests run in target/<profile>/deps");
            profile.join(format!("sockeye{}", env::consts::EXE_SUFFIX))
        };
        let mut command = Command::new(env::var_os("SOCKEYE_BIN").map_or_else(beside, PathBuf::from));
        for name in [
            "http_proxy",
            "https_proxy",
            "ws_proxy",
            "wss_proxy",
            "all_proxy",
            "no_proxy",
        ] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.args(arguments);
        command
    }
}

/// A Node peer from `tests/peers/`, with `arguments`.
pub fn node(script: &str, arguments: &[&str]) -> Command {
    let mut command = peer(tool("node"));
    // `peers/node/peers` is a link to `tests/peers`. It must not be resolved, so that modules are found in
    // `peers/node/node_modules`.
    command.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
    command.arg(peers().join("node/peers").join(script)).args(arguments);
    command
}

/// A Python peer from `tests/peers/`, with `arguments`.
pub fn python(script: &str, arguments: &[&str]) -> Command {
    let mut command = peer(peers().join("python/bin/python"));
    // -B: write no compiled files beside the sources.
    command.arg("-B").arg(sources().join(script)).args(arguments);
    command
}

/// A Java peer from `tests/peers/`, a single source file, with `arguments`.
pub fn java(source: &str, arguments: &[&str]) -> Command {
    let mut command = peer(tool("java"));
    command.arg(sources().join(source)).args(arguments);
    command
}

/// The Java peer `CentrifugeClient.java` with the jars of `centrifuge-java`.
pub fn centrifuge_java() -> Command {
    let mut command = peer(tool("java"));
    command.arg("-cp").arg(peers().join("java/*"));
    command.arg(sources().join("CentrifugeClient.java"));
    command
}

/// The Java peer `JavaPeers.java` with the jars of its libraries.
pub fn java_peers(arguments: &[&str]) -> Command {
    let mut command = peer(tool("java"));
    let folder = peers().join("java-peers");
    let class_path = format!("{0}:{0}/*", folder.display());
    command.args(["-cp", &class_path, "JavaPeers"]).args(arguments);
    command
}

/// The Go peer in `tests/peers/go-websocket`.
pub fn go_websocket(arguments: &[&str]) -> Command {
    let mut command = peer(peers().join("go-websocket/go-websocket"));
    command.args(arguments);
    command
}

/// A peer in C or C++ that `cargo xtask` built, such as `beast_peer`.
pub fn built(name: &str, arguments: &[&str]) -> Command {
    let mut command = peer(peers().join(name).join(name));
    command.args(arguments);
    command
}

/// The peer in C# that `cargo xtask` built.
pub fn dotnet_client(arguments: &[&str]) -> Command {
    let mut command = peer(tool("mono"));
    command
        .arg(peers().join("dotnet_client/dotnet_client.exe"))
        .args(arguments);
    command
}

/// The Go peer in `tests/peers/centrifuge-go`.
pub fn centrifuge_go() -> Command {
    peer(peers().join("centrifuge-go/centrifuge-go"))
}

/// nginx in the foreground; `folder` holds its files and `nginx.conf`.
pub fn nginx(folder: &Path) -> Command {
    let mut command = peer(tool("nginx"));
    command
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-e")
        .arg("stderr");
    command
}

/// The folder that `cargo xtask` prepared.
///
/// # Panics
/// If `SOCKEYE_PEERS` is not set.
pub fn peers() -> PathBuf {
    match env::var_os("SOCKEYE_PEERS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            panic!("SOCKEYE_PEERS is not set: run `cargo xtask test`, which prepares the peers")
        }
    }
}

/// The path of an installed program, as found by `cargo xtask`; `name` itself if none is recorded.
pub fn tool(name: &str) -> PathBuf {
    let variable = format!("SOCKEYE_TOOL_{}", name.to_uppercase());
    env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from)
}

/// The folder for test artifacts such as screenshots, created if missing.
///
/// # Panics
/// If it cannot be created.
pub fn artifacts() -> PathBuf {
    let folder = env::var_os("SOCKEYE_ARTIFACTS").map_or_else(|| peers().join("../artifacts"), PathBuf::from);
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// The environment that every peer gets.
fn peer(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let sizes: Vec<_> = SIZES.iter().map(usize::to_string).collect();
    command.env("PEER_SIZES", sizes.join(","));
    command.env("PEER_TOO_BIG", (MESSAGE_SIZE_MAX + 1).to_string());
    command
}
