//! `cargo xtask ci`: everything a change must pass, from the cheapest check to the dearest.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    api, bench, count, deny, fuzz,
    process::{call, output, skip, step},
    spec, test,
    workspace::Workspace,
};

/// The target without an operating system's help that proves the protocol crate does no I/O.
const WASM: &str = "wasm32-unknown-unknown";

/// Runs each step in turn; the first that fails ends it. What this machine cannot do is counted in the last line.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut skipped = Vec::new();
    step("format", || call(&mut workspace.cargo(["fmt", "--all", "--check"])))?;
    step("requirements of the RFCs", || {
        spec::run(workspace, &spec::Options::brief())
    })?;
    step("lints", || {
        let everything = ["clippy", "--workspace", "--all-targets", "--all-features"];
        call(workspace.cargo(everything).args(["--", "-D", "warnings"]))
    })?;
    step("documentation", || {
        let mut docs = workspace.cargo(["doc", "--workspace", "--no-deps", "--all-features"]);
        call(docs.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    skipped.extend(step("public API", || api::run(workspace, &api::Options::default()))?);
    step("fuzz targets", || fuzz::check(workspace))?;
    step("load generator", || bench::check(workspace))?;
    step("sockeye-proto for wasm32", || {
        install_wasm()?;
        call(&mut workspace.cargo(["build", "-p", "sockeye-proto", "--target", WASM]))
    })?;
    for package in ["sockeye-proto", "sockeye"] {
        step(&format!("feature combinations of {package}"), || {
            feature_combinations(workspace, package)
        })?;
    }
    step("instructions", || count::run(workspace, &count::Options::default()))?;
    skipped.extend(step("dependencies", || deny::run(workspace))?);
    skipped.extend(step("Miri", || miri(workspace))?);
    skipped.extend(step("address sanitizer", || sanitize(workspace))?);
    step("enumeration", || enumerate(workspace))?;
    test::run(workspace, &test::Options::default(), skipped)
}

/// All inputs up to a size, of which the tests run a small part. Prints how many; the test asserts it.
fn enumerate(workspace: &Workspace) -> Result<()> {
    let exhaustive = ["test", "--release", "-p", "sockeye-proto", "--test", "exhaustive"];
    call(workspace.cargo(exhaustive).args(["--", "--ignored"]))
}

/// The one unsafe block there is, `Text::as_str`, and all ways to get to it; and the library tests of the protocol, for
/// the unsafe code of what it depends on. Where there is no Miri, gives how to get it.
fn miri(workspace: &Workspace) -> Result<Option<String>> {
    let miri = ["run", "nightly", "cargo", "miri"];
    if let Err(error) = output(Command::new("rustup").args(miri).arg("--version")) {
        let reason = "Miri: rustup toolchain install nightly --component miri,rust-src";
        return Ok(Some(skip(reason, &error)));
    }
    let unsafe_block = ["-p", "sockeye", "--no-default-features", "--lib", "message::"];
    let protocol = ["-p", "sockeye-proto", "--lib"];
    for tests in [&unsafe_block[..], &protocol[..]] {
        call(
            Command::new("rustup")
                .args(miri)
                .arg("test")
                .args(tests)
                .current_dir(&workspace.root)
                .env("CARGO_TARGET_DIR", workspace.target.join("miri"))
                // What cargo set for the toolchain that runs us is not the nightly's.
                .env_remove("CARGO")
                .env_remove("RUSTUP_TOOLCHAIN"),
        )?;
    }
    Ok(None)
}

/// The tests of the protocol, and those of its driver that go by the unsafe block, under the address sanitizer, which
/// looks for leaks too. The stable compiler has it behind a switch.
fn sanitize(workspace: &Workspace) -> Result<Option<String>> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    if !cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")) {
        return Ok(Some(format!("address sanitizer: only on {TARGET}")));
    }
    let protocol = ["-p", "sockeye-proto", "--all-features", "--tests"];
    let driver = [
        "-p", "sockeye", "--lib", "--test", "prepared", "--test", "writes", "--test", "memory",
    ];
    for tests in [&protocol[..], &driver[..]] {
        call(
            workspace
                .cargo(["test", "--target", TARGET])
                .args(tests)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTFLAGS", "-Zsanitizer=address")
                .env("CARGO_TARGET_DIR", workspace.target.join("sanitizer")),
        )?;
    }
    Ok(None)
}

/// Adds the target if it is missing, which takes rustup.
fn install_wasm() -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "target-libdir", "--target", WASM]))?;
    if Path::new(sysroot.trim()).exists() {
        return Ok(());
    }
    call(Command::new("rustup").args(["target", "add", WASM]))
        .with_context(|| format!("the target {WASM} is missing and rustup cannot add it; install it and run again"))
}

/// Checks the package with no feature, with each alone, and with all of them.
fn feature_combinations(workspace: &Workspace, package: &str) -> Result<()> {
    let features = workspace.features(package)?;
    let check = |choice: &[&str]| {
        let mut command = workspace.cargo(["check", "--quiet", "--no-default-features", "-p", package]);
        println!(
            "    {package} {}",
            if choice.is_empty() {
                "without features".to_owned()
            } else {
                choice.join(" ")
            }
        );
        call(command.args(choice))
    };
    check(&[])?;
    for feature in &features {
        check(&["--features", feature])?;
    }
    check(&["--all-features"])
}
