//! The program of an earlier commit, for nodes of two versions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::process::{call, output, step};

/// The first commit on main with Redis and NATS. Replace it with the latest release once there is one.
pub(super) const COMMIT: &str = "ccb2c09e0cc47dfedfc9c356f8326e06b2391208";

/// Builds the program of [`COMMIT`] in a folder of its own, which is kept for later runs. Returns `None` if the
/// commit is not in the repository, as in a shallow clone.
///
/// # Errors
/// The source cannot be extracted, or the build fails.
pub(super) fn build(root: &Path, target: &Path) -> Result<Option<PathBuf>> {
    let folder = target.join("earlier").join(&COMMIT[..12]);
    let binary = folder.join("sockeye");
    if binary.exists() {
        return Ok(Some(binary));
    }
    if !has_commit(root)? {
        return Ok(None);
    }
    let source = folder.join("source");
    fs::create_dir_all(&source)?;
    let archive = folder.join("source.tar");
    let mut git = Command::new("git");
    git.args(["archive", "--output"]).arg(&archive).arg(COMMIT);
    output(git.current_dir(root))?;
    output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&source))?;
    step("build the earlier version", || {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--package=sockeye-cli",
            "--bin=sockeye",
        ]);
        cargo.env("CARGO_TARGET_DIR", folder.join("target"));
        call(cargo.current_dir(&source))
    })?;
    fs::copy(folder.join("target/release/sockeye"), &binary)?;
    // Only the program is needed from now on.
    for leftover in [&source, &folder.join("target")] {
        fs::remove_dir_all(leftover)?;
    }
    fs::remove_file(&archive)?;
    Ok(Some(binary))
}

/// Whether the repository contains [`COMMIT`].
fn has_commit(root: &Path) -> Result<bool> {
    let mut git = Command::new("git");
    git.args(["cat-file", "-e"]).arg(format!("{COMMIT}^{{commit}}"));
    git.stdin(Stdio::null()).stderr(Stdio::null());
    let status = git.current_dir(root).status().context("cannot run git")?;
    Ok(status.success())
}
