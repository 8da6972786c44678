//! The test peers in Go, built where Go is installed.

use std::{fs, process::Command};

use anyhow::{Result, bail};

use super::{find, stamp::Stamp};
use crate::{process::output, workspace::Workspace};

/// Builds `tests/peers/NAME` as `target/peers/NAME/NAME`.
pub(crate) fn prepare(workspace: &Workspace, name: &str) -> Result<()> {
    let Some(go) = find("go") else {
        bail!("Go is missing; install it to test with Go libraries");
    };
    let sources = workspace.peer_sources().join(name);
    let folder = workspace.peers().join(name);
    fs::create_dir_all(&folder)?;
    let version = output(Command::new(&go).arg("version"))?;
    let mut files: Vec<_> = fs::read_dir(&sources)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let stamp = Stamp::new(&folder, &files, version.trim())?;
    if !stamp.holds() {
        println!("    go build");
        let mut build = Command::new(go);
        build.args(["build", "-o"]).arg(folder.join(name)).arg(".");
        output(build.current_dir(&sources))?;
        stamp.write()?;
    }
    Ok(())
}
