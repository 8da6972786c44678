//! The tests against programs nobody here wrote: what each needs, and how it is run.

use std::process::Command;

use anyhow::Result;

use crate::{
    process::{output, watch},
    tally::Tally,
    tools::{Environment, Tool},
    workspace::{Profile, Workspace},
};

/// One file of `tests/tests/` and the tools it needs.
#[derive(Debug)]
pub(crate) struct Suite {
    /// The name of the test target.
    pub(crate) name: &'static str,
    /// Tools prepared before it runs.
    pub(crate) needs: &'static [Tool],
}

/// Autobahn|Testsuite has a command of its own, too.
pub(crate) const AUTOBAHN: Suite = Suite {
    name: "autobahn",
    needs: &[Tool::Autobahn],
};

/// All of them, the quick ones first.
pub(crate) const SUITES: [Suite; 8] = [
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
        name: "java_http_client",
        needs: &[Tool::Java],
    },
    Suite {
        name: "centrifuge",
        needs: &[Tool::Node],
    },
    Suite {
        name: "nginx",
        needs: &[Tool::Nginx, Tool::Node],
    },
    Suite {
        name: "chromium",
        needs: &[Tool::Chromium, Tool::Node],
    },
    AUTOBAHN,
];

impl Suite {
    /// Prepares the tools; the error says what is missing and how to get it.
    pub(crate) fn prepare(&self, workspace: &Workspace, environment: &mut Environment) -> Result<()> {
        self.needs.iter().try_for_each(|tool| environment.add(workspace, *tool))
    }

    /// Runs those of its tests whose names contain `filter`.
    pub(crate) fn run(
        &self,
        workspace: &Workspace,
        environment: &Environment,
        profile: Profile,
        filter: &str,
    ) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut command = self.command(workspace, profile);
        command.arg(filter).envs(environment.variables());
        let ok = watch(&mut command, |line| tally.look(line))?;
        if !ok && tally.failed == 0 {
            // It did not build, or died before it could say what failed.
            tally.failed = 1;
        }
        Ok(tally)
    }

    /// How many tests it has.
    pub(crate) fn count(&self, workspace: &Workspace) -> Result<usize> {
        let list = output(self.command(workspace, Profile::Debug).arg("--list"))?;
        Ok(list.lines().filter(|line| line.ends_with(": test")).count())
    }

    /// Naming the whole workspace keeps cargo from choosing other features than in the steps before, and building all
    /// dependencies once more.
    fn command(&self, workspace: &Workspace, profile: Profile) -> Command {
        let mut command = workspace.cargo(["test", "--workspace", "--test", self.name]);
        command.args(profile.arguments()).args(["--", "--include-ignored"]);
        command
    }
}
