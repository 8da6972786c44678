//! Debian packages.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use anyhow::{Context, Result, bail};

use super::find;
use crate::process::output;

/// Installs packages without starting their services, by means of a temporary policy, unless the machine has a policy
/// of its own.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get install --yes --no-install-recommends "$@"
"#;

/// Returns the path of `program`, after installing `package` if it is missing.
pub(crate) fn ensure(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = find(program) {
        return Ok(path);
    }
    install(package).with_context(|| {
        format!("`{program}` is missing; install it (on Debian: apt-get install {package}) and run again")
    })?;
    find(program).with_context(|| format!("the package {package} is installed but does not contain `{program}`"))
}

/// Installs one package, as root or with `sudo -n`.
pub(crate) fn install(package: &str) -> Result<()> {
    if find("apt-get").is_none() {
        bail!("apt-get is not available");
    }
    static UPDATED: OnceLock<bool> = OnceLock::new();
    // Outdated package lists make an install fail that would succeed. Once per run is enough.
    let updated = UPDATED.get_or_init(|| {
        println!("    apt-get update");
        as_root(&["apt-get", "update"])
            .inspect_err(|error| println!("    {error:#}"))
            .is_ok()
    });
    println!(
        "    apt-get install {package}{}",
        if *updated { "" } else { " (with the old lists)" }
    );
    as_root(&["sh", "-e", "-c", INSTALL, "install", package])
}

fn as_root(words: &[&str]) -> Result<()> {
    // Noninteractive: there is no terminal for questions.
    let env = ["env", "DEBIAN_FRONTEND=noninteractive", "APT_LISTCHANGES_FRONTEND=none"];
    let sudo = if output(Command::new("id").arg("-u"))?.trim() == "0" {
        &[][..]
    } else {
        &["sudo", "-n"]
    };
    let words: Vec<_> = sudo.iter().chain(&env).chain(words).collect();
    let Some((program, arguments)) = words.split_first() else {
        bail!("no command given")
    };
    output(Command::new(program).args(arguments)).map(drop)
}
