//! `cargo xtask ci`: every check that a change must pass, the cheapest first.

use std::process::Command;

use anyhow::Result;

use crate::{
    api, bench, count, deny, fuzz,
    process::{call, output, skip, step},
    spec, test,
    tools::{
        self,
        wasm::{TARGET as WASM, install_target},
    },
    workspace::Workspace,
};

/// A microcontroller (Cortex-M4 and M7) without a standard library: building for it shows that the protocol crate needs
/// none.
const MICROCONTROLLER: &str = "thumbv7em-none-eabihf";

/// Runs the steps in order and stops at the first failure. The last line counts what this machine had to skip.
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
    skipped.extend(step("sockeye-proto and sockeye for wasm32", || wasm(workspace))?);
    skipped.extend(step("sockeye-proto and a client for a microcontroller", || {
        microcontroller(workspace)
    })?);
    for package in ["sockeye-proto", "sockeye"] {
        step(&format!("feature combinations of {package}"), || {
            feature_combinations(workspace, package)
        })?;
    }
    step("TLS crypto providers", || cryptography(workspace))?;
    step("instructions", || count::run(workspace, &count::Options::default()))?;
    skipped.extend(step("dependencies", || deny::run(workspace))?);
    skipped.extend(step("Miri", || miri(workspace))?);
    skipped.extend(step("address sanitizer", || sanitize(workspace))?);
    step("enumeration", || enumerate(workspace))?;
    test::run(workspace, &test::Options::default(), skipped)
}

/// Tests all inputs up to a size, of which `cargo test` covers a small part. The test prints and asserts the number.
fn enumerate(workspace: &Workspace) -> Result<()> {
    let exhaustive = ["test", "--release", "-p", "sockeye-proto", "--test", "exhaustive"];
    call(workspace.cargo(exhaustive).args(["--", "--ignored"]))
}

/// Runs Miri on the unsafe block in `Text::as_str` and every path to it, and on the library tests of the protocol
/// crate, for the unsafe code of its dependencies. Without Miri, returns how to install it.
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
                // cargo set these for the stable toolchain that runs this program.
                .env_remove("CARGO")
                .env_remove("RUSTUP_TOOLCHAIN"),
        )?;
    }
    Ok(None)
}

/// Runs the protocol tests, and the driver tests that reach the unsafe block, under the address sanitizer, which also
/// detects leaks. `RUSTC_BOOTSTRAP` enables it on the stable compiler.
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

/// Builds the protocol crate, and checks the client for web pages and the page that tests it. Without the target,
/// returns how to install it.
fn wasm(workspace: &Workspace) -> Result<Option<String>> {
    if let Err(error) = install_target(WASM) {
        let reason = format!("wasm32: rustup target add {WASM}");
        return Ok(Some(skip(&reason, &error)));
    }
    call(&mut workspace.cargo(["build", "-p", "sockeye-proto", "--target", WASM]))?;
    for features in ["--no-default-features", "--all-features"] {
        let mut clippy = workspace.cargo(["clippy", "-p", "sockeye", "--target", WASM]);
        call(clippy.args([features, "--", "-D", "warnings"]))?;
    }
    let mut docs = workspace.cargo(["doc", "-p", "sockeye", "--no-deps", "--all-features", "--target", WASM]);
    call(docs.env("RUSTDOCFLAGS", "-D warnings"))?;
    call(&mut tools::wasm::cargo(workspace, ["fmt", "--all", "--check"]))?;
    let page = ["clippy", "--locked", "-p", "page", "--target", WASM];
    call(tools::wasm::cargo(workspace, page).args(["--", "-D", "warnings"]))?;
    Ok(None)
}

/// Builds the protocol crate and a client that uses it, without `std`. Without the target, returns how to install it.
fn microcontroller(workspace: &Workspace) -> Result<Option<String>> {
    if let Err(error) = install_target(MICROCONTROLLER) {
        let reason = format!("microcontroller: rustup target add {MICROCONTROLLER}");
        return Ok(Some(skip(&reason, &error)));
    }
    let build = ["build", "-p", "sockeye-proto", "--no-default-features", "--target"];
    call(workspace.cargo(build).arg(MICROCONTROLLER))?;
    let client = ["build", "--locked", "--target", MICROCONTROLLER];
    call(&mut workspace.separate_cargo("embedded", client)).map(|()| None)
}

/// Tests that the application chooses the cryptography of TLS, with both features and with `aws-lc-rs` alone. With `ring`
/// alone it is tested with the others.
fn cryptography(workspace: &Workspace) -> Result<()> {
    for features in [
        &["--features", "aws-lc-rs"][..],
        &["--no-default-features", "--features", "aws-lc-rs"],
    ] {
        let mut test = workspace.cargo(["test", "-p", "sockeye", "--test", "crypto_provider"]);
        call(test.args(features))?;
    }
    Ok(())
}

/// Checks a package without features, with each feature alone, and with all features.
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
