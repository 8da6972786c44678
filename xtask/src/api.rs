//! `cargo xtask api`: the public API of the published crates, as committed listings in `docs/api`.
//!
//! A listing has one line per public item, made from the JSON that rustdoc writes. A change of the API therefore shows
//! up in review as a change of a listing. rustdoc JSON is unstable and its format differs between compiler releases, so
//! the listings are always made with the compiler that `rust-version` names.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;
use public_api::{Builder, PublicApi};

use crate::{
    process::{call, output, skip},
    tools::wasm,
    workspace::Workspace,
};

/// A listing in `docs/api`.
#[derive(Clone, Copy, Debug)]
struct Listing {
    /// The name of the file, without `.txt`.
    name: &'static str,
    package: &'static str,
    /// The target, if the API depends on it.
    target: Option<&'static str>,
}

/// The crates that promise a stable API.
const NATIVE: [Listing; 2] = [
    Listing {
        name: "sockeye-proto",
        package: "sockeye-proto",
        target: None,
    },
    Listing {
        name: "sockeye",
        package: "sockeye",
        target: None,
    },
];

/// The client in the browser.
const BROWSER: Listing = Listing {
    name: "sockeye-wasm32",
    package: "sockeye",
    target: Some(wasm::TARGET),
};

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
    let without_wasm = install_wasm(workspace).err();
    let mut changed = Vec::new();
    for listed in NATIVE.into_iter().chain(without_wasm.is_none().then_some(BROWSER)) {
        let listing = listing(&mut rustdoc(listed), &built, listed)?;
        let name = format!("{}.txt", listed.name);
        let (current, accepted) = (built.join(&name), committed.join(&name));
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
            changed.push(listed.name);
        }
    }
    if !changed.is_empty() {
        bail!(
            "the public API of {} differs from docs/api; if this is intended, run `cargo xtask api --write` and commit",
            changed.join(" and ")
        );
    }
    let Some(error) = without_wasm else {
        check_browser_names(&committed)?;
        return Ok(None);
    };
    let reason = format!("public API for wasm32: rustup target add {}", wasm::TARGET);
    Ok(Some(skip(&reason, &error)))
}

/// Checks that the client in the browser has no names of its own, so that programs for it compile for other targets.
fn check_browser_names(folder: &Path) -> Result<()> {
    let names = |listing: Listing| -> Result<BTreeSet<String>> {
        let path = folder.join(format!("{}.txt", listing.name));
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.lines().filter_map(item_name).map(str::to_owned).collect())
    };
    let [_, native] = NATIVE;
    let native = names(native)?;
    let own: Vec<_> = names(BROWSER)?.difference(&native).cloned().collect();
    if !own.is_empty() {
        bail!("these exist on wasm32 alone: {}", own.join(", "));
    }
    Ok(())
}

/// The path of the item that a line of a listing declares. `None` for an implementation of a trait.
fn item_name(line: &str) -> Option<&str> {
    let start = line.starts_with("pub ").then(|| line.find("sockeye::"))??;
    let path = &line[start..];
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    Some(path[..end.unwrap_or(path.len())].trim_end_matches(':'))
}

/// Adds the target of web pages to the toolchain that makes the listings.
fn install_wasm(workspace: &Workspace) -> Result<()> {
    let version = workspace.rust_version("sockeye")?;
    if is_current(version)? {
        return wasm::install_target(wasm::TARGET);
    }
    call(Command::new("rustup").args(["target", "add", "--toolchain", version, wasm::TARGET]))
}

/// Whether the compiler in use has this version.
fn is_current(version: &str) -> Result<bool> {
    Ok(output(Command::new("rustc").arg("--version"))?.starts_with(&format!("rustc {version}.")))
}

/// Returns a function that gives the rustdoc command for a listing, or `None` without the required compiler.
fn rustdoc_command(workspace: &Workspace) -> Result<Option<impl FnMut(Listing) -> Command>> {
    let version = workspace.rust_version("sockeye")?;
    let is_current = is_current(version)?;
    let is_installed = || {
        let rustc = ["run", version, "rustc", "--version"];
        output(Command::new("rustup").args(rustc)).is_ok()
    };
    if !is_current && !is_installed() {
        return Ok(None);
    }
    let version = version.to_owned();
    let (root, target) = (workspace.root.clone(), workspace.target.join("api"));
    Ok(Some(move |listing: Listing| {
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
            .args([
                "rustdoc",
                "--quiet",
                "--lib",
                "--all-features",
                "--package",
                listing.package,
            ])
            .args(listing.target.iter().flat_map(|target| ["--target", target]))
            .args(["--", "-Z", "unstable-options", "--output-format", "json"])
            .current_dir(&root)
            .env("CARGO_TARGET_DIR", &target)
            // Allows the unstable output format on a stable compiler.
            .env("RUSTC_BOOTSTRAP", "1");
        command
    }))
}

/// Makes a listing.
fn listing(rustdoc: &mut Command, built: &Path, listing: Listing) -> Result<String> {
    call(rustdoc)?;
    let folder = listing
        .target
        .map_or_else(|| built.to_owned(), |target| built.join(target));
    let file = format!("{}.json", listing.package.replace('-', "_"));
    let json = folder.join("doc").join(file);
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
    use super::{is_listed, item_name};

    #[test]
    fn items_are_named_by_their_path() {
        let name = item_name("pub async fn sockeye::Client::connect(&self, &str) -> sockeye::Error");
        assert_eq!(name, Some("sockeye::Client::connect"));
        assert_eq!(item_name("pub struct sockeye::Typed<W, C>"), Some("sockeye::Typed"));
        assert_eq!(item_name("impl core::fmt::Debug for sockeye::Client"), None);
    }

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
