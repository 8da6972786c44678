//! The fuzz targets, and how each is built.

use std::process::Command;

use anyhow::{Context, Result};

use super::campaign::Program;
use crate::{
    process::{call, output},
    workspace::Workspace,
};

/// Compiler flags for coverage and comparison tracing; `cargo fuzz` sets the same.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// One fuzz target.
#[derive(Debug)]
pub(crate) struct Target {
    /// Name of its program.
    pub(crate) name: &'static str,
    /// Maximum input length: long enough to reach all states, short enough to be fast.
    pub(crate) len_max: usize,
    /// Whether to use the address sanitizer, which makes the target three times slower, because it reaches `unsafe`
    /// code.
    sanitizes: bool,
    /// Whether libFuzzer gets a dictionary of HTTP words.
    pub(crate) speaks_http: bool,
    /// Whether it needs the server, which takes longer to build.
    is_of_server: bool,
}

/// All targets, the fastest first.
pub(crate) const TARGETS: [Target; 13] = [
    Target::new("server_read", 192),
    Target::new("client_read", 192),
    Target::new("close_utf8", 64),
    Target::new("request", 300).speaks_http(),
    Target::new("response", 300).speaks_http(),
    Target::new("extension", 100).speaks_http(),
    Target::new("inflate", 128).sanitizes(),
    Target::new("deflate_round_trip", 96).sanitizes(),
    Target::new("pair", 80),
    Target::new("commands_json", 400).of_server(),
    Target::new("commands_protobuf", 200).of_server(),
    Target::new("token", 300).of_server(),
    Target::new("log_segments", 200).of_server(),
];

impl Target {
    const fn new(name: &'static str, len_max: usize) -> Self {
        Self {
            name,
            len_max,
            sanitizes: false,
            speaks_http: false,
            is_of_server: false,
        }
    }

    const fn of_server(self) -> Self {
        Self {
            is_of_server: true,
            ..self
        }
    }

    const fn sanitizes(self) -> Self {
        Self {
            sanitizes: true,
            ..self
        }
    }

    const fn speaks_http(self) -> Self {
        Self {
            speaks_http: true,
            ..self
        }
    }

    /// Builds the program in a target folder of its own.
    pub(crate) fn build(&'static self, workspace: &Workspace) -> Result<Program> {
        // With --target, so that build scripts and proc macros are not instrumented.
        let host = host()?;
        let folder = workspace
            .target
            .join(if self.sanitizes { "fuzz/asan" } else { "fuzz/plain" });
        let mut cargo = workspace.cargo(["build", "--quiet", "--release", "--manifest-path", "fuzz/Cargo.toml"]);
        cargo.args(["--target", &host, "--bin", self.name]);
        if self.is_of_server {
            cargo.args(["--features", "server"]);
        }
        cargo.env("CARGO_TARGET_DIR", &folder);
        if self.sanitizes {
            // -Z needs a nightly compiler or RUSTC_BOOTSTRAP.
            cargo.env("RUSTC_BOOTSTRAP", "1");
            cargo.env("RUSTFLAGS", format!("{COVERAGE} -Zsanitizer=address"));
        } else {
            cargo.env("RUSTFLAGS", COVERAGE);
        }
        call(&mut cargo)?;
        Ok(Program {
            target: self,
            path: folder.join(host).join("release").join(self.name),
        })
    }
}

fn host() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc did not print its host")?.to_owned())
}
