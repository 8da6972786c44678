//! The test peer in Go, built where Go is installed.

use std::{fs, process::Command};

use anyhow::{Result, bail};

use super::{find, stamp::Stamp};
use crate::{process::output, workspace::Workspace};

/// Builds `tests/peers/centrifuge-go` as `target/peers/go/centrifuge-go`.
pub(crate) fn prepare(workspace: &Workspace) -> Result<()> {
    let Some(go) = find("go") else {
        bail!("Go is missing; install it to test with the Go SDK");
    };
    let sources = workspace.peer_sources().join("centrifuge-go");
    let folder = workspace.peers().join("go");
    fs::create_dir_all(&folder)?;
    let version = output(Command::new(&go).arg("version"))?;
    let files = ["main.go", "go.mod", "go.sum"].map(|name| sources.join(name));
    let stamp = Stamp::new(&folder, &files, version.trim())?;
    if !stamp.holds() {
        println!("    go build");
        let mut build = Command::new(go);
        build.args(["build", "-o"]).arg(folder.join("centrifuge-go")).arg(".");
        output(build.current_dir(&sources))?;
        stamp.write()?;
    }
    Ok(())
}
