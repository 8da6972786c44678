//! `cargo xtask api`: the public API of the published crates, as committed listings in `docs/api`.
//!
//! A listing has one line per public item, made from the JSON that rustdoc writes. A change of the API therefore shows
//! up in review as a change of a listing. rustdoc JSON is unstable and its format differs between compiler releases, so
//! the listings are always made with the compiler that `rust-version` names.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;
use public_api::{Builder, PublicApi};

use crate::{
    process::{call, output, skip},
    workspace::Workspace,
};

/// The crates that promise a stable API.
const PACKAGES: [&str; 2] = ["sockeye-proto", "sockeye"];

/// Traits that are never listed.
const UNLISTED_TRAITS: [&str; 5] = [
    "core::marker::Freeze",
    "core::marker::StructuralPartialEq",
    "core::marker::UnsafeUnpin",
    "core::panic::unwind_safe::RefUnwindSafe",
    "core::panic::unwind_safe::UnwindSafe",
];

/// Auto traits that are listed where a type does not implement them, or does so under a condition.
const AUTO_TRAITS: [&str; 3] = ["core::marker::Send", "core::marker::Sync", "core::marker::Unpin"];

/// Methods whose signature follows from the trait that the line above them names.
const UNLISTED_METHODS: [&str; 4] = ["::clone(&self)", "::eq(&self,", "::fmt(&self,", "::hash<"];

/// Options of `cargo xtask api`.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Accept the current API: write the listings in docs/api instead of comparing with them.
    #[arg(long)]
    write: bool,
}

/// Compares the listings with the source, or writes them. Returns the reason if this machine cannot do it.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<Option<String>> {
    let Some(mut rustdoc) = rustdoc_command(workspace)? else {
        let version = workspace.rust_version("sockeye")?;
        let reason = format!("public API: rustup toolchain install {version}");
        return Ok(Some(skip(
            &reason,
            &anyhow::anyhow!("rustdoc JSON needs Rust {version}"),
        )));
    };
    let built = workspace.target.join("api");
    let committed = workspace.root.join("docs/api");
    for folder in [&built, &committed] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut changed = Vec::new();
    for package in PACKAGES {
        let listing = listing(&mut rustdoc(package), &built, package)?;
        let (current, accepted) = (
            built.join(format!("{package}.txt")),
            committed.join(format!("{package}.txt")),
        );
        let path = if options.write { &accepted } else { &current };
        fs::write(path, &listing).with_context(|| format!("cannot write {}", path.display()))?;
        if !options.write && fs::read_to_string(&accepted).is_ok_and(|text| text == listing) {
            continue;
        }
        if !options.write {
            // A missing listing counts as empty.
            let before = if accepted.exists() {
                &accepted
            } else {
                Path::new("/dev/null")
            };
            let mut diff = Command::new("git");
            diff.args(["--no-pager", "diff", "--no-index", "--unified=0"]);
            // Its status is 1 because the files differ.
            let _ = call(diff.arg(before).arg(&current));
            changed.push(package);
        }
    }
    if !changed.is_empty() {
        bail!(
            "the public API of {} differs from docs/api; if this is intended, run `cargo xtask api --write` and commit",
            changed.join(" and ")
        );
    }
    Ok(None)
}

/// Returns a function that gives the rustdoc command for a package, or `None` without the required compiler.
fn rustdoc_command(workspace: &Workspace) -> Result<Option<impl FnMut(&str) -> Command>> {
    let version = workspace.rust_version("sockeye")?;
    let is_current = output(Command::new("rustc").arg("--version"))?.starts_with(&format!("rustc {version}."));
    let is_installed = || {
        let rustc = ["run", version, "rustc", "--version"];
        output(Command::new("rustup").args(rustc)).is_ok()
    };
    if !is_current && !is_installed() {
        return Ok(None);
    }
    let version = version.to_owned();
    let (root, target) = (workspace.root.clone(), workspace.target.join("api"));
    Ok(Some(move |package: &str| {
        let mut command = if is_current {
            Command::new("cargo")
        } else {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", &version, "cargo"]);
            // cargo set them for the toolchain that runs this program.
            rustup.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
            rustup
        };
        command
            .args(["rustdoc", "--quiet", "--lib", "--all-features", "--package", package])
            .args(["--", "-Z", "unstable-options", "--output-format", "json"])
            .current_dir(&root)
            .env("CARGO_TARGET_DIR", &target)
            // Allows the unstable output format on a stable compiler.
            .env("RUSTC_BOOTSTRAP", "1");
        command
    }))
}

/// The listing of one package.
fn listing(rustdoc: &mut Command, target: &Path, package: &str) -> Result<String> {
    call(rustdoc)?;
    let json = target.join("doc").join(format!("{}.json", package.replace('-', "_")));
    let api = Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .build()
        .with_context(|| {
            format!(
                "cannot read {}; the crate public-api must fit `rust-version` (rustdoc JSON format)",
                json.display()
            )
        })?;
    Ok(lines(&api))
}

fn lines(api: &PublicApi) -> String {
    let items = api.items().map(|item| item.to_string());
    let listed = items.filter(|line| is_listed(line)).map(|line| line + "\n");
    listed.collect()
}

fn is_listed(line: &str) -> bool {
    if line.starts_with("impl") {
        let is_unlisted = |name: &&str| {
            [" ", " !"]
                .iter()
                .any(|sign| line.contains(&format!("{sign}{name} for ")))
        };
        let is_usual = |name: &&str| line.starts_with(&format!("impl {name} for "));
        return !UNLISTED_TRAITS.iter().any(is_unlisted) && !AUTO_TRAITS.iter().any(is_usual);
    }
    !(line.starts_with("pub fn ") && UNLISTED_METHODS.iter().any(|method| line.contains(method)))
}

#[cfg(test)]
mod tests {
    use super::is_listed;

    #[test]
    fn lists_trait_impls_without_derived_methods() {
        assert!(is_listed("impl core::clone::Clone for a::B"));
        assert!(!is_listed("impl core::marker::Send for a::B"));
        assert!(is_listed("impl !core::marker::Send for a::B"));
        assert!(is_listed(
            "impl<T> core::marker::Sync for a::B<T> where T: core::marker::Sync"
        ));
        assert!(!is_listed("impl !core::marker::Freeze for a::B"));
        assert!(!is_listed("impl<T> !core::panic::unwind_safe::UnwindSafe for a::B<T>"));
        assert!(is_listed("pub fn a::B::new(&self) -> Self"));
        assert!(!is_listed("pub fn a::B::clone(&self) -> a::B"));
    }
}
