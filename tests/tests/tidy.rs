//! Checks of the source files that the compiler does not make.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Longer files should be split.
const LINES_MAX: usize = 1000;

#[test]
fn sources_have_no_fixme() {
    // Concatenated, so that this file does not contain the word.
    let word = ["FIX", "ME"].concat();
    for (path, text) in sources() {
        assert!(!text.contains(&word), "{} still has a {word}", path.display());
    }
}

#[test]
fn files_are_below_the_line_limit() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= LINES_MAX,
            "{} has {lines} lines: look for the second idea inside",
            path.display()
        );
    }
}

#[test]
fn npm_lock_file_names_no_registry() {
    let lock = root().join("tests/peers/package-lock.json");
    let text = fs::read_to_string(lock).expect("the file is part of this crate");
    assert!(
        !text.contains("\"resolved\""),
        "run npm in tests/peers, where .npmrc leaves the addresses out"
    );
    assert!(
        text.contains("\"integrity\""),
        "the packages are pinned by their hashes"
    );
}

#[test]
fn python_packages_are_pinned() {
    for name in ["requirements.txt", "autobahn-pip.txt", "autobahn-requirements.txt"] {
        let text = fs::read_to_string(root().join("tests/peers").join(name)).expect("the file is part of this crate");
        let packages: Vec<_> = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        assert!(!packages.is_empty(), "{name} is empty");
        let loose: Vec<_> = packages.iter().filter(|package| !package.contains("==")).collect();
        assert!(loose.is_empty(), "{name} leaves the version open of {loose:?}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text of every source file, without generated and installed ones.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders: Vec<_> = ["crates", "tests", "xtask"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.flatten().map(|entry| entry.path()) {
            let is = |extensions: &[&str]| {
                path.extension()
                    .is_some_and(|found| extensions.iter().any(|one| found == *one))
            };
            if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
                folders.push(path);
            } else if is(&["rs", "mjs", "py", "java", "js", "css", "html"]) {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                sources.push((path, text));
            }
        }
    }
    assert!(sources.len() > 50, "the sources are elsewhere than expected");
    sources
}
