//! `cargo xtask deny`: checks the dependencies with cargo-deny and deny.toml.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    process::{call, output, skip},
    tools::cargo_deny,
    workspace::Workspace,
};

/// The RustSec advisory database, as named in deny.toml.
const DATABASE: &str = "https://github.com/RustSec/advisory-db";

/// Checks licences, sources and duplicates. Checks advisories if their database is available; otherwise returns what
/// was skipped and why.
pub(crate) fn run(workspace: &Workspace) -> Result<Option<String>> {
    let program = cargo_deny::prepare(workspace)?;
    let deny = || {
        let mut command = Command::new(&program);
        command.current_dir(&workspace.root).arg("--all-features");
        command
    };
    call(deny().args(["check", "licenses", "bans", "sources"]))?;

    // Checked first, because a failed fetch makes an old copy look new.
    let mut ask = Command::new("git");
    ask.args(["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=20"])
        .args(["ls-remote", "--quiet", DATABASE, "HEAD"])
        .env("GIT_TERMINAL_PROMPT", "0");
    match output(&mut ask) {
        Ok(_) => call(deny().args(["check", "advisories"]))?,
        // deny.toml sets the maximum age of the copy.
        Err(_) if has_database() => {
            println!("    the advisory database is not reachable; using the local copy");
            call(deny().args(["--offline", "check", "advisories"]))?;
        }
        Err(error) => {
            let reason = "advisories: the database is not reachable, and there is no local copy";
            return Ok(Some(skip(reason, &error)));
        }
    }
    Ok(None)
}

/// Whether cargo-deny has a copy of its database.
fn has_database() -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let Some(entries) = home.and_then(|home| fs::read_dir(home.join("advisory-dbs")).ok()) else {
        return false;
    };
    // A failed fetch may leave an empty folder.
    entries.flatten().any(|entry| entry.path().join(".git").exists())
}
