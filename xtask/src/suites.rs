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
}

/// The Autobahn|Testsuite suite, which also has a command of its own.
pub(crate) const AUTOBAHN: Suite = Suite {
    name: "autobahn",
    needs: &[Tool::Autobahn],
};

/// All suites, the fast ones first.
pub(crate) const SUITES: [Suite; 15] = [
    Suite {
        name: "node_ws",
        needs: &[Tool::Node],
    },
    Suite {
        name: "python_websockets",
        needs: &[Tool::Python],
    },
    Suite {
        name: "python_aiohttp",
        needs: &[Tool::Python],
    },
    Suite {
        name: "hooks",
        needs: &[Tool::Python],
    },
    Suite {
        name: "java_http_client",
        needs: &[Tool::Java],
    },
    Suite {
        name: "centrifuge",
        needs: &[Tool::Node],
    },
    Suite {
        name: "centrifuge_python",
        needs: &[Tool::Python],
    },
    Suite {
        name: "centrifuge_go",
        needs: &[Tool::CentrifugeGo],
    },
    Suite {
        name: "centrifuge_java",
        needs: &[Tool::Java, Tool::CentrifugeJava],
    },
    Suite {
        name: "centrifugo",
        needs: &[Tool::Centrifugo],
    },
    Suite {
        name: "nginx",
        needs: &[Tool::Nginx, Tool::Node],
    },
    Suite {
        name: "haproxy",
        needs: &[Tool::Haproxy],
    },
    Suite {
        name: "proxies",
        needs: &[Tool::Proxies],
    },
    Suite {
        name: "chromium",
        needs: &[Tool::Chromium, Tool::Node],
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
