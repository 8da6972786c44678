//! Debian packages.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use anyhow::{Context, Result, bail};

use super::find;
use crate::process::output;

/// Installs packages without starting the servers in them: a policy that forbids it is put in place meanwhile, unless
/// the machine has one of its own.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get install --yes --no-install-recommends "$@"
"#;

/// The path of `program`; `package` is installed if it is missing.
pub(crate) fn ensure(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = find(program) {
        return Ok(path);
    }
    install(package).with_context(|| {
        format!("`{program}` is missing; install it (on Debian: apt-get install {package}) and run again")
    })?;
    find(program).with_context(|| format!("the package {package} was installed but holds no `{program}`"))
}

/// Installs one package, as root or through `sudo` without a password.
pub(crate) fn install(package: &str) -> Result<()> {
    if find("apt-get").is_none() {
        bail!("this machine has no apt-get");
    }
    static UPDATED: OnceLock<bool> = OnceLock::new();
    // Lists that are old or missing make an install fail that would work; once per run is enough.
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
    // Without a terminal nobody can answer a question; another apt at work is waited for.
    let env = ["env", "DEBIAN_FRONTEND=noninteractive", "APT_LISTCHANGES_FRONTEND=none"];
    let sudo = if output(Command::new("id").arg("-u"))?.trim() == "0" {
        &[][..]
    } else {
        &["sudo", "-n"]
    };
    let words: Vec<_> = sudo.iter().chain(&env).chain(words).collect();
    let Some((program, arguments)) = words.split_first() else {
        bail!("there is nothing to run")
    };
    output(Command::new(program).args(arguments)).map(drop)
}
