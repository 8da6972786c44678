//! Node and the npm packages of the test peers.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use super::{apt, empty_folder, stamp::Stamp};
use crate::{process::output, workspace::Workspace};

/// The oldest Node version that all packages support.
const MAJOR_MIN: u32 = 18;

/// Installs the packages in `target/peers/node` and returns the path of Node.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    let node = apt::ensure("node", "nodejs")?;
    let version = output(Command::new(&node).arg("--version"))?.trim().to_owned();
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < MAJOR_MIN) {
        bail!(
            "{} is {version}; install Node {MAJOR_MIN} or newer and run again",
            node.display()
        );
    }

    let folder = workspace.peers().join("node");
    let sources = workspace.peer_sources();
    let files = ["package.json", "package-lock.json", ".npmrc"].map(|name| (sources.join(name), folder.join(name)));
    let stamp = Stamp::new(&folder, &files.each_ref().map(|(source, _)| source.clone()), &version)?;
    if !stamp.holds() {
        let npm = apt::ensure("npm", "npm")?;
        empty_folder(&folder)?;
        for (source, copy) in files {
            fs::copy(&source, copy).with_context(|| format!("cannot copy {}", source.display()))?;
        }
        println!("    npm ci");
        output(
            Command::new(npm)
                .args(["ci", "--no-audit", "--no-fund"])
                .current_dir(&folder),
        )?;
        // Peers are run through this link, so that they find the packages beside it.
        std::os::unix::fs::symlink(&sources, folder.join("peers"))?;
        stamp.write()?;
    }
    Ok(node)
}
