//! Installs Autobahn|Testsuite, which runs only on CPython 2.7.
//!
//! Uses the Python 2.7 of pyenv or of the system, if any. Otherwise downloads the last Debian package of it (release
//! "bullseye") from the configured mirror and unpacks it under `target/`, without installing it.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{empty_folder, find, python, stamp::Stamp};
use crate::{
    process::{call, output},
    workspace::Workspace,
};

/// Python 2.7, the old libraries it needs, and its headers, which one package needs to build.
const DEBIAN_PACKAGES: [&str; 9] = [
    "libffi7",
    "libpython2.7",
    "libpython2.7-dev",
    "libpython2.7-minimal",
    "libpython2.7-stdlib",
    "libssl1.1",
    "python2.7",
    "python2.7-dev",
    "python2.7-minimal",
];

/// A script that fails unless Python has the modules and headers that the suite needs.
const USABLE: &str = "import os, ssl, sysconfig, zlib\n\
    assert os.path.exists(os.path.join(sysconfig.get_paths()['include'], 'Python.h'))";

/// Installs the suite in `target/peers/autobahn`; its `wstest` starts it.
pub(crate) fn prepare(workspace: &Workspace) -> Result<()> {
    let folder = workspace.peers().join("autobahn");
    let sources = workspace.peer_sources();
    let [tools, packages] = ["autobahn-pip.txt", "autobahn-requirements.txt"].map(|name| sources.join(name));
    let stamp = Stamp::new(&folder, &[tools.clone(), packages.clone()], &sources.to_string_lossy())?;
    if stamp.holds() {
        return Ok(());
    }
    let python3 = python::prepare(workspace)?;
    empty_folder(&folder)?;
    let python27 = match find_python27() {
        Some(path) => Python27 { path, root: None },
        None => unpack_python27(&folder)?,
    };
    println!("    CPython 2.7: {}", python27.path.display());

    // Bootstraps pip by running its wheel in place.
    let (wheels, site) = (folder.join("wheels"), folder.join("site"));
    output(
        python::pip(&python3)
            .args(["download", "--no-deps", "--requirement"])
            .arg(&tools)
            .arg("--dest")
            .arg(&wheels),
    )?;
    let pip_wheel = fs::read_dir(&wheels)?.flatten().map(|entry| entry.path());
    let pip_wheel = pip_wheel.into_iter().find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("pip-"))
    });
    let pip_wheel = pip_wheel.context("pip was not downloaded")?;
    let install = [
        "install",
        "--quiet",
        "--no-input",
        "--no-python-version-warning",
        "--disable-pip-version-check",
        "--no-deps",
    ];
    let mut first = python27.command(&site);
    first
        .arg(pip_wheel.join("pip"))
        .args(install)
        .arg("--target")
        .arg(&site);
    output(
        first
            .args(["--no-index", "--find-links"])
            .arg(&wheels)
            .arg("--requirement")
            .arg(&tools),
    )?;
    println!("    pip install --requirement autobahn-requirements.txt");
    let mut second = python27.command(&site);
    second.args(["-m", "pip"]).args(install).arg("--target").arg(&site);
    output(second.arg("--requirement").arg(&packages))?;

    let wstest = folder.join("wstest");
    fs::write(&wstest, python27.launcher(&site, &sources.join("wstest.py")))?;
    fs::set_permissions(&wstest, fs::Permissions::from_mode(0o755))?;
    output(Command::new(wstest).arg("--autobahnversion"))
        .context("Autobahn|Testsuite was installed but does not start")?;
    stamp.write()
}

/// A Python 2.7 interpreter.
struct Python27 {
    path: PathBuf,
    /// The folder into which its packages were unpacked, if it was not installed.
    root: Option<PathBuf>,
}

impl Python27 {
    /// Its environment variables; `site` is the folder with the Python packages.
    fn variables(&self, site: &Path) -> Vec<(&'static str, String)> {
        let site = site.display();
        let mut variables = vec![("PYTHONPATH", site.to_string()), ("WSTEST_SITE", site.to_string())];
        variables.push(("PYTHONWARNINGS", "ignore".to_owned()));
        if let Some(root) = &self.root {
            let root = root.display();
            let triple = format!("{}-linux-gnu", env::consts::ARCH);
            variables.push((
                "LD_LIBRARY_PATH",
                format!("{root}/usr/lib/{triple}:{root}/lib/{triple}"),
            ));
            variables.push(("PYTHONHOME", format!("{root}/usr")));
            variables.push(("CPATH", format!("{root}/usr/include/python2.7:{root}/usr/include")));
        }
        variables
    }

    fn command(&self, site: &Path) -> Command {
        let mut command = Command::new(&self.path);
        command.envs(self.variables(site));
        command
    }

    /// A shell script that runs `program` with this Python.
    fn launcher(&self, site: &Path, program: &Path) -> String {
        let exports = self
            .variables(site)
            .into_iter()
            .map(|(name, value)| format!("export {name}='{value}'\n"));
        let exports: String = exports.collect();
        format!(
            "#!/bin/sh\n{exports}exec '{}' -B '{}' \"$@\"\n",
            self.path.display(),
            program.display()
        )
    }
}

fn find_python27() -> Option<PathBuf> {
    let pyenv = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv")));
    let versions = pyenv.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let candidates = versions
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/python2.7"));
    let mut candidates = candidates.filter(|path| path.is_file()).chain(find("python2.7"));
    candidates.find(|path| output(Command::new(path).args(["-c", USABLE])).is_ok())
}

/// Unpacks the Debian packages with a private apt configuration, so that the system's stays unchanged.
fn unpack_python27(folder: &Path) -> Result<Python27> {
    if find("apt-get").is_none() || find("dpkg-deb").is_none() {
        bail!("CPython 2.7 is missing; install it (with pyenv: pyenv install 2.7.18) and run again");
    }
    let (apt, root) = (folder.join("apt"), folder.join("python27"));
    for name in ["state/lists/partial", "cache/archives/partial", "packages"] {
        fs::create_dir_all(apt.join(name))?;
    }
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let source = format!("deb [signed-by={keyring}] {} bullseye main\n", debian_mirror()?);
    fs::write(apt.join("sources.list"), source)?;
    let apt_get = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        let at = |name: &str| apt.join(name).display().to_string();
        for (option, value) in [
            ("Dir::Etc::SourceList", at("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::State", at("state")),
            ("Dir::State::status", "/var/lib/dpkg/status".to_owned()),
            ("Dir::Cache", at("cache")),
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.args(["-o", &format!("{option}={value}")]);
        }
        output(command.args(words).current_dir(apt.join("packages")))
    };
    println!("    unpacking Debian's python2.7");
    apt_get(&["update"]).context("the configured Debian mirror does not have the release bullseye")?;
    apt_get(&[&["download"], &DEBIAN_PACKAGES[..]].concat())?;
    for package in fs::read_dir(apt.join("packages"))?.flatten() {
        call(Command::new("dpkg-deb").arg("--extract").arg(package.path()).arg(&root))?;
    }
    Ok(Python27 {
        path: root.join("usr/bin/python2.7"),
        root: Some(root),
    })
}

/// The URL of the Debian mirror that this machine uses.
fn debian_mirror() -> Result<String> {
    let mut list = Command::new("apt-get");
    let addresses = output(list.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]))?;
    let mirror = addresses
        .lines()
        .find(|address| address.trim_end_matches('/').ends_with("/debian"));
    mirror
        .map(str::to_owned)
        .context("no Debian mirror is configured; install CPython 2.7 (pyenv install 2.7.18)")
}
