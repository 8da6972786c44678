//! Records what each peer passed, for the table in `docs/interop.md`.
//!
//! Each fact is a line `role feature` in a file of the artifacts folder. The file is named after the suite, or after the
//! peer if the suite has several. `cargo xtask test` empties the folder, makes the table, and compares it with the page.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::{collections::BTreeSet, env};

use crate::artifacts;

/// The role of the peer.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// It connects to a Sockeye server.
    Client,
    /// A Sockeye client connects to it.
    Server,
    /// A Sockeye client connects through it to a Sockeye server.
    Proxy,
}

/// Records that the peer of the running suite passed these features, in the file of the suite.
///
/// # Panics
/// If the file cannot be written.
pub fn record(role: Role, features: &[&str]) {
    let test = env::current_exe().expect("the running test has a path");
    let stem = test.file_stem().unwrap_or_default().to_string_lossy();
    // Cargo appends a hash.
    record_of(stem.rsplit_once('-').map_or(&*stem, |(suite, _)| suite), role, features);
}

/// Records that a peer passed these features, in the file that the list of suites names for it.
///
/// # Panics
/// If the file cannot be written.
pub fn record_of(peer: &str, role: Role, features: &[&str]) {
    let folder = artifacts().join("interop");
    fs::create_dir_all(&folder).expect("the artifacts folder is writable");
    let role = match role {
        Role::Client => "client",
        Role::Server => "server",
        Role::Proxy => "proxy",
    };
    let lines: String = features.iter().map(|feature| format!("{role} {feature}\n")).collect();
    let file = OpenOptions::new().create(true).append(true).open(folder.join(peer));
    let written = file.and_then(|mut file| file.write_all(lines.as_bytes()));
    written.expect("the artifacts folder is writable");
}

/// The features that the cases of a client show.
pub(crate) fn features_of(cases: &BTreeSet<String>) -> Vec<&'static str> {
    let cases_of = [
        ("text", "text 125"),
        ("binary", "binary 125"),
        ("1 MiB", "text 1048576"),
        ("fragments", "fragmented binary"),
        ("ping", "ping"),
        ("close", "close with code and reason"),
    ];
    let has = |(_, case): &(&str, &str)| cases.contains(*case);
    cases_of.into_iter().filter(has).map(|(feature, _)| feature).collect()
}
