//! Reverse proxies in front of a Sockeye server.

use std::{fs, path::Path};

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Duration, sleep, timeout};

use crate::{Process, free_address, patience, tool};

/// A running proxy with a folder of its own, both removed when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// The address that it listens on.
    pub address: String,
    _process: Process,
    _folder: TempDir,
}

impl Proxy {
    /// Starts the program `name` with a configuration from `tests/peers`, in which `@LISTEN@` and `@ECHO@` are replaced
    /// by its address and that of the server. `arguments` come before the path of the configuration.
    ///
    /// # Panics
    /// If it does not listen in time.
    pub async fn start(name: &str, config: &str, arguments: &[&str], echo: &str) -> Self {
        let address = free_address();
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(config);
        let template = fs::read_to_string(template).expect("the file is part of this crate");
        let (host, port) = address.split_once(':').expect("it has a port");
        let (echo_host, echo_port) = echo.split_once(':').expect("it has a port");
        let text = template
            .replace("@LISTEN@", &address)
            .replace("@ECHO@", echo)
            .replace("@LISTEN_HOST@", host)
            .replace("@LISTEN_PORT@", port)
            .replace("@ECHO_HOST@", echo_host)
            .replace("@ECHO_PORT@", echo_port);
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join(config);
        fs::write(&path, text).expect("the folder is writable");
        let mut command = Command::new(tool(name));
        // Caddy stores its state in the home folder.
        command
            .env("HOME", folder.path())
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CONFIG_HOME");
        command.args(arguments).arg(path);
        let process = Process::start(command);
        let listening = async {
            while TcpStream::connect(&address).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let is_listening = timeout(patience(), listening).await.is_ok();
        assert!(is_listening, "{name} does not listen:\n{}", process.log());
        Self {
            address,
            _process: process,
            _folder: folder,
        }
    }
}
