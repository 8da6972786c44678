//! Centrifugo, built from the Go module proxy where Go is installed. Debian's Go is too old for it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, bail};

use super::{find, stamp::Stamp};
use crate::{process::output, workspace::Workspace};

const MODULE: &str = "github.com/centrifugal/centrifugo/v6";

/// The version that `docs/differences-centrifugo.md` is about.
const VERSION: &str = "v6.9.1";

/// Builds Centrifugo in `target/tools/centrifugo` if it is missing, and returns the path of the program.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    let Some(go) = find("go") else {
        bail!("Go is missing; install it to compare the server with Centrifugo");
    };
    let folder = workspace.target.join("tools/centrifugo");
    fs::create_dir_all(&folder)?;
    let stamp = Stamp::new(&folder, &[], VERSION)?;
    if !stamp.holds() {
        println!("    go install {MODULE}@{VERSION} (takes some minutes, only once)");
        let mut install = Command::new(go);
        install.arg("install").arg(format!("{MODULE}@{VERSION}"));
        output(install.env("GOBIN", &folder).current_dir(&folder))?;
        stamp.write()?;
    }
    Ok(folder.join("centrifugo"))
}
