//! The machine and the versions that were measured.

use std::fs;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Folders, servers::Server};
use crate::{process::output, workspace::Workspace};

/// The properties of the machine that matter to readers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) processors: usize,
    pub(super) memory_gib: u64,
    pub(super) kernel: String,
    pub(super) rustc: String,
    pub(super) is_virtual: bool,
}

pub(super) fn describe() -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let kib = field(&meminfo, "MemTotal").and_then(|value| value.trim_end_matches(" kB").parse::<u64>().ok());
    let line = |program: &str, argument: &str| {
        let text = output(std::process::Command::new(program).arg(argument));
        text.map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
    };
    Machine {
        processor: field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
        processors: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        memory_gib: kib.unwrap_or(0) / (1 << 20),
        kernel: line("uname", "-sr"),
        rustc: line("rustc", "--version"),
        is_virtual: field(&cpuinfo, "flags").is_some_and(|flags| flags.contains(" hypervisor")),
    }
}

/// The load average of the last minute: how many threads ran or waited for a processor.
pub(super) fn load_average() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The measured commit, with a plus if files differ from it.
pub(super) fn commit(workspace: &Workspace) -> Result<String> {
    let git = |arguments: &[&str]| {
        output(
            std::process::Command::new("git")
                .arg("-C")
                .arg(&workspace.root)
                .args(arguments),
        )
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let is_changed = !git(&["status", "--porcelain", "--untracked-files=no"])?
        .trim()
        .is_empty();
    Ok(format!("{}{}", commit.trim(), if is_changed { "+" } else { "" }))
}

/// The version of a server's crate in the lock file.
pub(super) fn version(folders: &Folders, server: &Server) -> String {
    let found = || {
        let text = fs::read_to_string(folders.bench.join("Cargo.lock")).ok()?;
        let lock: toml::Table = text.parse().ok()?;
        let packages = lock.get("package")?.as_array()?;
        let is_it = |package: &&toml::Value| package.get("name").and_then(toml::Value::as_str) == server.crate_name;
        Some(packages.iter().find(is_it)?.get("version")?.as_str()?.to_owned())
    };
    found().unwrap_or_default()
}
