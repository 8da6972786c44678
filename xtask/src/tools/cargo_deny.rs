//! cargo-deny, built from crates.io.

use std::{fs, path::PathBuf};

use anyhow::Result;

use super::stamp::Stamp;
use crate::{process::output, workspace::Workspace};

/// The version that deny.toml is written for.
const VERSION: &str = "0.20.2";

/// Installs cargo-deny in `target/tools` if it is missing, and returns the path of the program.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("tools");
    fs::create_dir_all(&folder)?;
    let stamp = Stamp::new(&folder, &[], VERSION)?;
    if !stamp.holds() {
        println!("    cargo install cargo-deny (takes a minute or two, only once)");
        let mut install = workspace.cargo(["install", "--locked", "--force", "cargo-deny", "--version", VERSION]);
        // An optimized build takes minutes and would save less than a second per run.
        install.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "0");
        // Without CARGO_TARGET_DIR, cargo builds in a temporary folder and removes it afterwards.
        install.arg("--root").arg(&folder).env_remove("CARGO_TARGET_DIR");
        output(&mut install)?;
        stamp.write()?;
    }
    Ok(folder.join("bin/cargo-deny"))
}
