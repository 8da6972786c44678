//! The test suites against external programs: which tools each needs, and how to run it.

use std::process::Command;

use anyhow::Result;

use crate::{
    process::{output, watch},
    test_counts::TestCounts,
    tools::{Environment, Tool},
    workspace::{Profile, Workspace},
};

/// One file of `tests/tests/` and the tools it needs.
#[derive(Debug)]
pub(crate) struct Suite {
    /// Name of the test target.
    pub(crate) name: &'static str,
    /// Tools that must be prepared before the suite runs.
    pub(crate) needs: &'static [Tool],
    /// The peer in the table of `docs/interop.md`.
    pub(crate) peer: Option<&'static str>,
}

/// The Autobahn|Testsuite suite, which also has a command of its own.
pub(crate) const AUTOBAHN: Suite = Suite {
    name: "autobahn",
    needs: &[Tool::Autobahn],
    peer: None,
};

/// All suites, the fast ones first.
pub(crate) const SUITES: [Suite; 23] = [
    Suite {
        name: "node_ws",
        needs: &[Tool::Node],
        peer: Some("ws (Node)"),
    },
    Suite {
        name: "python_websockets",
        needs: &[Tool::Python],
        peer: Some("websockets (Python)"),
    },
    Suite {
        name: "python_aiohttp",
        needs: &[Tool::Python],
        peer: Some("aiohttp (Python)"),
    },
    Suite {
        name: "hooks",
        needs: &[Tool::Python],
        peer: None,
    },
    Suite {
        name: "java_http_client",
        needs: &[Tool::Java],
        peer: Some("java.net.http (Java)"),
    },
    Suite {
        name: "node_undici",
        needs: &[Tool::Node],
        peer: Some("undici (Node)"),
    },
    Suite {
        name: "java_okhttp",
        needs: &[Tool::Java, Tool::JavaPeers],
        peer: Some("OkHttp (Java)"),
    },
    Suite {
        name: "java_websocket",
        needs: &[Tool::Java, Tool::JavaPeers],
        peer: Some("Java-WebSocket (Java)"),
    },
    Suite {
        name: "go_gorilla",
        needs: &[Tool::GoWebsocket],
        peer: Some("gorilla/websocket (Go)"),
    },
    Suite {
        name: "go_coder",
        needs: &[Tool::GoWebsocket],
        peer: Some("coder/websocket (Go)"),
    },
    Suite {
        name: "c_libwebsockets",
        needs: &[Tool::Libwebsockets],
        peer: Some("libwebsockets (C)"),
    },
    Suite {
        name: "cpp_beast",
        needs: &[Tool::Beast],
        peer: Some("Boost.Beast (C++)"),
    },
    Suite {
        name: "haproxy",
        needs: &[Tool::Haproxy, Tool::Node],
        peer: Some("HAProxy (proxy)"),
    },
    Suite {
        name: "caddy",
        needs: &[Tool::Caddy, Tool::Node],
        peer: Some("Caddy (proxy)"),
    },
    Suite {
        name: "envoy",
        needs: &[Tool::Envoy, Tool::Node],
        peer: Some("Envoy (proxy)"),
    },
    Suite {
        name: "centrifuge",
        needs: &[Tool::Node],
        peer: None,
    },
    Suite {
        name: "centrifuge_python",
        needs: &[Tool::Python],
        peer: None,
    },
    Suite {
        name: "centrifuge_go",
        needs: &[Tool::CentrifugeGo],
        peer: None,
    },
    Suite {
        name: "centrifuge_java",
        needs: &[Tool::Java, Tool::CentrifugeJava],
        peer: None,
    },
    Suite {
        name: "centrifugo",
        needs: &[Tool::Centrifugo],
        peer: None,
    },
    Suite {
        name: "nginx",
        needs: &[Tool::Nginx, Tool::Node],
        peer: Some("nginx (proxy)"),
    },
    Suite {
        name: "chromium",
        needs: &[Tool::Chromium, Tool::Node],
        peer: Some("Chromium"),
    },
    AUTOBAHN,
];

impl Suite {
    /// Prepares the tools. The error says what is missing and how to install it.
    pub(crate) fn prepare(&self, workspace: &Workspace, environment: &mut Environment) -> Result<()> {
        self.needs.iter().try_for_each(|tool| environment.add(workspace, *tool))
    }

    /// Whether the suite may be skipped without making the run fail: Go, unlike the other tools, is not installed by this
    /// program.
    pub(crate) fn is_optional(&self) -> bool {
        self.needs.iter().any(|tool| tool.is_optional())
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
        command.arg(filter).envs(environment.variables());
        let ok = watch(&mut command, |line| counts.add_line(line))?;
        if !ok && counts.failed == 0 {
            // The suite did not build, or crashed before it reported a failure.
            counts.failed = 1;
        }
        Ok(counts)
    }

    /// Number of tests in the suite.
    pub(crate) fn count(&self, workspace: &Workspace) -> Result<usize> {
        let list = output(self.command(workspace, Profile::Debug).arg("--list"))?;
        Ok(list.lines().filter(|line| line.ends_with(": test")).count())
    }

    /// `cargo test` for the whole workspace, so that cargo selects the same features as in earlier steps and does not
    /// rebuild dependencies.
    fn command(&self, workspace: &Workspace, profile: Profile) -> Command {
        let mut command = workspace.cargo(["test", "--workspace", "--test", self.name]);
        command.args(profile.arguments()).args(["--", "--include-ignored"]);
        command
    }
}
