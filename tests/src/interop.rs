//! Records what each peer passed, for the table in `docs/interop.md`.
//!
//! A suite tests one peer. Each fact is a line `role feature` in a file of the artifacts folder that is named after the
//! suite. `cargo xtask test` empties the folder, makes the table, and compares it with the page.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::{collections::BTreeSet, env};

use crate::artifacts;

/// The role of the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Records that the peer of the running suite passed these features.
pub(crate) fn record(role: Role, features: &[&str]) {
    let test = env::current_exe().expect("the running test has a path");
    let stem = test.file_stem().unwrap_or_default().to_string_lossy();
    // Cargo appends a hash.
    let suite = stem.rsplit_once('-').map_or(&*stem, |(suite, _)| suite);
    let folder = artifacts().join("interop");
    fs::create_dir_all(&folder).expect("the artifacts folder is writable");
    let role = match role {
        Role::Client => "client",
        Role::Server => "server",
    };
    let lines: String = features.iter().map(|feature| format!("{role} {feature}\n")).collect();
    let file = OpenOptions::new().create(true).append(true).open(folder.join(suite));
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
