//! The crate `sockeye` in a web page: the target wasm32 and the page in `tests/wasm`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    process::{call, output},
    workspace::Workspace,
};

/// The target of web pages. It has no operating system, so building for it also shows that a crate does no I/O.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Adds a target with rustup if it is missing.
pub(crate) fn install_target(target: &str) -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
    if Path::new(sysroot.trim()).exists() {
        return Ok(());
    }
    call(Command::new("rustup").args(["target", "add", target]))
        .with_context(|| format!("the target {target} is missing and rustup cannot add it; install it and run again"))
}

/// A `cargo` command in the workspace `tests/wasm`.
pub(crate) fn cargo<const N: usize>(workspace: &Workspace, arguments: [&str; N]) -> Command {
    let mut command = workspace.cargo(arguments);
    command.current_dir(workspace.root.join("tests/wasm"));
    command.env("CARGO_TARGET_DIR", built(workspace));
    command
}

/// Builds the page in `target/peers/wasm`.
pub(super) fn prepare(workspace: &Workspace) -> Result<()> {
    let folder = workspace.peers().join("wasm");
    fs::create_dir_all(&folder)?;
    println!("    cargo build of tests/wasm");
    let build = ["build", "--quiet", "--locked", "-p", "page", "--target", TARGET];
    output(&mut cargo(workspace, build))?;
    let module = built(workspace).join(TARGET).join("debug/page.wasm");
    let bindgen = ["run", "--quiet", "--locked", "-p", "bindgen", "--"];
    output(cargo(workspace, bindgen).arg(module).arg(&folder))?;
    for name in ["index.html", "worker.js"] {
        let file = workspace.root.join("tests/wasm/page").join(name);
        fs::copy(&file, folder.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

fn built(workspace: &Workspace) -> PathBuf {
    workspace.target.join("wasm")
}
