//! Builds Centrifugo, whose client protocol Sockeye speaks, with the Go that is installed.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use super::{empty_folder, find, stamp::Stamp};
use crate::{process::output, workspace::Workspace};

/// The package, from the Go module proxy.
const PACKAGE: &str = "github.com/centrifugal/centrifugo/v6";

/// The version that the bench and `docs/differences-centrifugo.md` compare with.
pub(crate) const VERSION: &str = "v6.9.1";

/// Builds the program in `target/tools/centrifugo` and returns its path.
///
/// # Errors
/// If Go is not installed, or the build fails.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    let go = find("go").context("Go is not installed; install Go 1.26 or newer and run again")?;
    let version = output(Command::new(&go).arg("version"))?;
    let folder = workspace.target.join("tools/centrifugo");
    let program = folder.join("centrifugo");
    let stamp = Stamp::new(&folder, &[], &format!("{VERSION} {}", version.trim()))?;
    if stamp.holds() && program.is_file() {
        return Ok(program);
    }
    empty_folder(&folder)?;
    println!("    go install {PACKAGE}@{VERSION} (takes some minutes, only once)");
    output(
        Command::new(go)
            .args(["install", &format!("{PACKAGE}@{VERSION}")])
            // The build must not depend on the folder or on a module in it.
            .env("GOFLAGS", "-trimpath -buildvcs=false")
            .env("GOBIN", &folder)
            .env("CGO_ENABLED", "0")
            .current_dir(&folder),
    )
    .context("Centrifugo could not be built")?;
    ensure!(program.is_file(), "go install wrote no program to {}", folder.display());
    stamp.write()?;
    Ok(program)
}
