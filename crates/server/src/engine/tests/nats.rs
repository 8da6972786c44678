//! NATS JetStream: the suite on a real server, and what only it does.

use std::sync::OnceLock;

use super::servers::{Daemon, free_port, program};
use super::*;
use crate::engine::nats::{NatsConfig, NatsStore};

mod cluster;
mod failures;
mod model;
mod store;

/// Time for anything that a server does.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with a folder and a port of its own.
struct Server {
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
    daemon: Option<Daemon>,
}

impl Server {
    /// Starts a server that syncs each write, with more lines of configuration.
    fn start(options: &str) -> Self {
        Self::start_with("sync_interval: always", options)
    }

    fn start_with(jetstream: &str, options: &str) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("data");
        let config = format!(
            "listen: 127.0.0.1:{port}\n{options}\njetstream {{ store_dir: {:?}, {jetstream} }}\n",
            store.to_str().unwrap()
        );
        let path = folder.path().join("nats.conf");
        std::fs::write(&path, config).unwrap();
        let mut server = Self {
            port,
            arguments: vec!["-c".to_owned(), path.to_str().unwrap().to_owned()],
            folder,
            daemon: None,
        };
        server.restart();
        server
    }

    fn kill(&mut self) {
        self.daemon = None;
    }

    fn restart(&mut self) {
        self.daemon = None;
        let program = program("SOCKEYE_TOOL_NATS_SERVER");
        self.daemon = Some(Daemon::start(&program, &self.arguments, self.folder.path()).unwrap());
    }

    fn config(&self, query: &str) -> NatsConfig {
        format!("nats://127.0.0.1:{}{query}", self.port).parse().unwrap()
    }

    /// A client of its own, to look at the server.
    async fn client(&self) -> async_nats::Client {
        eventually(async || async_nats::connect(format!("127.0.0.1:{}", self.port)).await.ok()).await
    }

    /// Calls the API of JetStream.
    async fn call(&self, call: &str, body: &str) -> serde_json::Value {
        let client = self.client().await;
        let body = body.to_owned().into();
        let response = client.request(format!("$JS.API.{call}"), body).await.unwrap();
        serde_json::from_slice(&response.payload).unwrap()
    }

    async fn streams(&self) -> Vec<String> {
        let list = self.call("STREAM.NAMES", "{}").await;
        let names = list["streams"].as_array().cloned().unwrap_or_default();
        names
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    }
}

impl Fixture<ClusterBroker> {
    /// A node on a server that all tests of the process share, each with a prefix of its own.
    pub(super) async fn nats(setup: Setup) -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let server = SERVER.get_or_init(|| Server::start_with("max_file_store: 100G", ""));
        let query = format!("?prefix=test-{:x}&stream_bytes=1048576", rand::random::<u64>());
        Self::nats_node(setup, &server.config(&query), "node").await
    }

    async fn nats_node(setup: Setup, config: &NatsConfig, uid: &str) -> Self {
        let store = NatsStore::new(config, uid.into());
        tokio::time::timeout(PATIENCE, Self::over(setup, Arc::new(store), uid))
            .await
            .unwrap()
    }
}

/// Waits until a call returns something.
async fn eventually<T>(mut call: impl AsyncFnMut() -> Option<T>) -> T {
    let attempts = async {
        loop {
            if let Some(value) = call().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, attempts)
        .await
        .expect("it never came true")
}
