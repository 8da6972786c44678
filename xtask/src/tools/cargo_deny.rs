//! cargo-deny, built from crates.io.

use std::{fs, path::PathBuf};

use anyhow::Result;

use super::stamp::Stamp;
use crate::{process::output, workspace::Workspace};

/// The version that deny.toml is written for.
const VERSION: &str = "0.20.2";

/// Installs it under `target/tools` if it is not there; gives the path of the program.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("tools");
    fs::create_dir_all(&folder)?;
    let stamp = Stamp::new(&folder, &[], VERSION)?;
    if !stamp.holds() {
        println!("    cargo install cargo-deny, which takes some minutes, once");
        let mut install = workspace.cargo(["install", "--locked", "--force", "cargo-deny", "--version", VERSION]);
        // What it is built from is of no use afterwards: cargo builds it in a folder of its own and removes that.
        install.arg("--root").arg(&folder).env_remove("CARGO_TARGET_DIR");
        output(&mut install)?;
        stamp.write()?;
    }
    Ok(folder.join("bin/cargo-deny"))
}
