//! Redis: the suite on real servers, and what only it does.

use std::sync::OnceLock;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Client, Cmd, FromRedisValue};

use super::servers::{Daemon, free_port, program};
use super::*;
use crate::engine::redis::{RedisConfig, RedisStore};

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
    /// Starts a server without persistence.
    fn start(options: &[&str]) -> Self {
        let port = free_port();
        let mut arguments: Vec<String> = ["--bind", "127.0.0.1", "--save", "", "--port"]
            .map(str::to_owned)
            .into();
        arguments.push(port.to_string());
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        let mut server = Self {
            port,
            folder: tempfile::tempdir().unwrap(),
            arguments,
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
        let program = program("SOCKEYE_TOOL_REDIS");
        self.daemon = Some(Daemon::start(&program, &self.arguments, self.folder.path()).unwrap());
    }

    async fn connection(&self) -> MultiplexedConnection {
        let client = Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        eventually(async || client.get_multiplexed_async_connection().await.ok()).await
    }

    /// Runs a command, and waits until the server is ready for it.
    async fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let connection = self.connection().await;
        eventually(async || {
            match Cmd::new()
                .arg(command)
                .to_owned()
                .query_async(&mut connection.clone())
                .await
            {
                Ok(value) => Some(value),
                Err(error) if error.code() == Some("LOADING") => None,
                Err(error) => panic!("{command:?}: {error}"),
            }
        })
        .await
    }

    fn config(&self, query: &str) -> RedisConfig {
        format!("redis://127.0.0.1:{}{query}", self.port).parse().unwrap()
    }
}

/// Three servers with all slots, and as many replicas as wanted.
struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    async fn start(replicas: usize) -> Self {
        let servers: Vec<_> = (0..3 + replicas)
            .map(|_| {
                let bus = free_port().to_string();
                Server::start(&[
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    &bus,
                    "--cluster-node-timeout",
                    "2000",
                ])
            })
            .collect();
        for (index, range) in [["0", "5460"], ["5461", "10922"], ["10923", "16383"]]
            .iter()
            .enumerate()
        {
            let epoch = (index + 1).to_string();
            let _: () = servers[index].run(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            let _: () = servers[index]
                .run(&["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]])
                .await;
        }
        for server in &servers[1..] {
            let bus = &server.arguments[server
                .arguments
                .iter()
                .position(|word| word == "--cluster-port")
                .unwrap()
                + 1];
            let port = server.port.to_string();
            let _: () = servers[0].run(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
        }
        let cluster = Self { servers };
        for replica in 0..replicas {
            let id: String = cluster.servers[replica % 3].run(&["CLUSTER", "MYID"]).await;
            let server = &cluster.servers[3 + replica];
            eventually(async || {
                let mut connection = server.connection().await;
                let mut command = Cmd::new();
                command.arg(&["CLUSTER", "REPLICATE", &id]);
                command.query_async::<()>(&mut connection).await.ok()
            })
            .await;
        }
        for server in &cluster.servers {
            eventually(async || {
                let info: String = server.run(&["CLUSTER", "INFO"]).await;
                let known = format!("cluster_known_nodes:{}", cluster.servers.len());
                (info.contains("cluster_state:ok") && info.contains(&known)).then_some(())
            })
            .await;
        }
        cluster
    }

    fn config(&self, query: &str) -> RedisConfig {
        let hosts: Vec<_> = self
            .servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port))
            .collect();
        format!("redis+cluster://{}{query}", hosts.join(",")).parse().unwrap()
    }
}

/// What a test runs on: a server of its own, or the cluster that all tests of the process share.
enum Servers {
    One(Server),
    Cluster { cluster: &'static Cluster, prefix: String },
}

impl Servers {
    async fn each() -> [Self; 2] {
        let cluster = Self::Cluster {
            cluster: shared_cluster().await,
            prefix: format!("test-{:x}", rand::random::<u64>()),
        };
        [Self::One(Server::start(&[])), cluster]
    }

    fn config(&self) -> RedisConfig {
        match self {
            Self::One(server) => server.config(""),
            Self::Cluster { cluster, prefix } => cluster.config(&format!("?prefix={prefix}")),
        }
    }

    /// A key, without its prefix.
    fn key(&self, key: &str) -> String {
        match self {
            Self::One(_) => format!("sockeye{key}"),
            Self::Cluster { prefix, .. } => format!("{prefix}{key}"),
        }
    }

    fn all(&self) -> &[Server] {
        match self {
            Self::One(server) => std::slice::from_ref(server),
            Self::Cluster { cluster, .. } => &cluster.servers,
        }
    }

    /// Runs a command on the server that has its key.
    async fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        for server in self.all() {
            let mut connection = server.connection().await;
            match Cmd::new().arg(command).to_owned().query_async(&mut connection).await {
                Ok(value) => return value,
                Err(error) if error.code() == Some("MOVED") => {}
                Err(error) => panic!("{command:?}: {error}"),
            }
        }
        panic!("no server has the key of {command:?}")
    }

    /// The keys of all servers that match a pattern.
    async fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys = Vec::new();
        for server in self.all() {
            keys.extend(server.run::<Vec<String>>(&["KEYS", &self.key(pattern)]).await);
        }
        keys
    }
}

impl Fixture<ClusterBroker> {
    /// A node on a server that all tests of the process share, each with a prefix of its own.
    pub(super) async fn redis(setup: Setup) -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let server = SERVER.get_or_init(|| Server::start(&[]));
        Self::redis_node(setup, &server.config(&own_prefix()), "node").await
    }

    /// A node on a cluster that all tests of the process share.
    pub(super) async fn redis_cluster(setup: Setup) -> Self {
        Self::redis_node(setup, &shared_cluster().await.config(&own_prefix()), "node").await
    }

    async fn redis_node(setup: Setup, config: &RedisConfig, uid: &str) -> Self {
        let store = RedisStore::new(config, uid.into()).unwrap();
        tokio::time::timeout(PATIENCE, Self::over(setup, Arc::new(store), uid))
            .await
            .unwrap()
    }

    /// Ends the tasks of the node as if its process had died.
    async fn kill(mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
        }
    }
}

async fn shared_cluster() -> &'static Cluster {
    static CLUSTER: tokio::sync::OnceCell<Cluster> = tokio::sync::OnceCell::const_new();
    CLUSTER.get_or_init(|| Cluster::start(0)).await
}

fn own_prefix() -> String {
    format!("?prefix=test-{:x}", rand::random::<u64>())
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
