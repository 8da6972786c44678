//! Paths and metadata of the workspace.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::output;

/// The workspace, as `cargo metadata` describes it.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder with the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// cargo's target folder, which also holds everything that the commands install or write.
    pub(crate) target: PathBuf,
    metadata: Value,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let mut command = cargo();
        command
            .args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"])
            .arg(manifest);
        let metadata: Value = serde_json::from_str(&output(&mut command)?)?;
        let folder = |name: &str| {
            metadata[name]
                .as_str()
                .map(PathBuf::from)
                .context("cargo metadata names no folder")
        };
        Ok(Self {
            root: folder("workspace_root")?,
            target: folder("target_directory")?,
            metadata,
        })
    }

    /// A `cargo` command that runs in the workspace root.
    pub(crate) fn cargo<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = cargo();
        command.args(arguments).current_dir(&self.root);
        command
    }

    /// A `cargo` command that runs in a folder of `tests` that is a workspace of its own.
    pub(crate) fn separate_cargo<const N: usize>(&self, name: &str, arguments: [&str; N]) -> Command {
        let mut command = self.cargo(arguments);
        command.current_dir(self.root.join("tests").join(name));
        command.env("CARGO_TARGET_DIR", self.target.join(name));
        command
    }

    /// The folder with the source code of the test peers.
    pub(crate) fn peer_sources(&self) -> PathBuf {
        self.root.join("tests/peers")
    }

    /// The folder in which the dependencies of the test peers are installed.
    pub(crate) fn peers(&self) -> PathBuf {
        self.target.join("peers")
    }

    /// The features of a package, without `default` and the internal ones that start with `__`.
    pub(crate) fn features(&self, package: &str) -> Result<Vec<String>> {
        let features = self.package(package)?["features"]
            .as_object()
            .context("cargo metadata lists no features")?;
        let public = features
            .keys()
            .filter(|name| *name != "default" && !name.starts_with("__"));
        Ok(public.cloned().collect())
    }

    /// The version of a package.
    pub(crate) fn version(&self, package: &str) -> Result<&str> {
        self.package(package)?["version"]
            .as_str()
            .context("cargo metadata lists no version")
    }

    /// The `rust-version` of a package.
    pub(crate) fn rust_version(&self, package: &str) -> Result<&str> {
        self.package(package)?["rust_version"]
            .as_str()
            .context("cargo metadata lists no rust-version")
    }

    fn package(&self, name: &str) -> Result<&Value> {
        let packages = self.metadata["packages"]
            .as_array()
            .context("cargo metadata lists no packages")?;
        let found = packages.iter().find(|found| found["name"] == name);
        found.with_context(|| format!("there is no package {name}"))
    }
}

/// The cargo profile to build with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    /// Fast to build.
    Debug,
    /// Fast to run.
    Release,
}

impl Profile {
    /// The arguments for cargo.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Debug => &[],
            Self::Release => &["--release"],
        }
    }
}

fn cargo() -> Command {
    // cargo sets this when it runs this program, so that the same toolchain is used.
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
