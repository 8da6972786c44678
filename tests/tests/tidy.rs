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

/// The top-level modules of `crates/sockeye`, and the modules that each may use. A module may use only modules that are
/// listed before it, so there are no cycles.
const LAYERS: [(&str, &[&str]); 20] = [
    ("convert", &[]),
    ("error", &[]),
    ("num", &[]),
    ("stats", &[]),
    ("observe", &["error", "stats"]),
    ("sync", &[]),
    ("runtime", &[]),
    ("settings", &["runtime"]),
    ("message", &[]),
    // On wasm32, this takes the place of `settings`, `websocket` and `client`.
    ("browser", &["convert", "error", "message"]),
    ("transport", &["error"]),
    (
        "endpoint",
        &[
            "error",
            "num",
            "stats",
            "observe",
            "sync",
            "runtime",
            "settings",
            "message",
            "transport",
        ],
    ),
    (
        "websocket",
        &[
            "error",
            "num",
            "stats",
            "observe",
            "sync",
            "runtime",
            "settings",
            "message",
            "transport",
            "endpoint",
        ],
    ),
    (
        "client",
        &[
            "convert",
            "error",
            "sync",
            "observe",
            "runtime",
            "settings",
            "transport",
            "websocket",
        ],
    ),
    ("reconnect", &["error", "message", "websocket", "client"]),
    (
        "server",
        &[
            "convert",
            "error",
            "sync",
            "observe",
            "runtime",
            "settings",
            "transport",
            "websocket",
        ],
    ),
    ("typed", &["error", "message", "websocket"]),
    ("test_util", &["error", "websocket", "client", "server"]),
    (
        "integration",
        &[
            "convert",
            "error",
            "sync",
            "observe",
            "settings",
            "transport",
            "websocket",
            "server",
        ],
    ),
    (
        "blocking",
        &[
            "convert",
            "error",
            "stats",
            "sync",
            "observe",
            "runtime",
            "message",
            "transport",
            "endpoint",
            "websocket",
            "client",
            "server",
            "typed",
        ],
    ),
];

#[test]
fn sockeye_modules_use_only_lower_layers() {
    for (idx, (module, allowed)) in LAYERS.iter().enumerate() {
        let lower: Vec<_> = LAYERS[..idx].iter().map(|(name, _)| name).collect();
        assert!(
            allowed.iter().all(|name| lower.contains(&name)),
            "{module} is listed too early"
        );
    }
    let src = root().join("crates/sockeye/src");
    let sources = sources();
    let files = sources
        .iter()
        .filter_map(|(path, text)| Some((path.strip_prefix(&src).ok()?, text)));
    let mut seen = 0;
    for (path, text) in files {
        let module = path
            .iter()
            .next()
            .and_then(|name| name.to_str())
            .expect("a file has a name");
        let module = module.trim_end_matches(".rs");
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            assert_eq!(module, "lib", "add the module to LAYERS");
            continue;
        };
        seen += 1;
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let used = used
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap_or("");
                let is_module = LAYERS.iter().any(|(name, _)| *name == used);
                assert!(
                    !is_module || used == module || allowed.contains(&used),
                    "{} uses {used}, which {module} may not",
                    path.display()
                );
            }
        }
    }
    assert!(seen > 30, "the sources are elsewhere than expected");
}

#[test]
fn the_endpoint_does_not_depend_on_tokio() {
    let endpoint = root().join("crates/sockeye/src/endpoint");
    let sources = sources();
    let files: Vec<_> = sources.iter().filter(|(path, _)| path.starts_with(&endpoint)).collect();
    assert!(files.len() > 10, "the sources are elsewhere than expected");
    for (path, text) in files {
        assert!(!text.contains("tokio"), "{} mentions tokio", path.display());
    }
}

#[test]
fn promises_name_tests_and_faults_that_exist() {
    let path = root().join("docs/server/promises.md");
    let page = fs::read_to_string(path).expect("the page is part of the repository");
    let sources = sources();
    let exists = |name: &str, start: &str, end: &str| {
        let definition = format!("{start}{name}{end}");
        sources.iter().any(|(_, text)| text.contains(&definition))
    };
    let rows = || {
        page.lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| report"))
    };
    let mut tests = 0;
    for name in rows().flat_map(|row| row.split('`').skip(1).step_by(2)) {
        // Names of settings have few words, and commands have spaces.
        if name.matches('_').count() < 3 || name.contains([' ', '.', '…']) {
            continue;
        }
        tests += 1;
        assert!(exists(name, "fn ", "("), "promises.md names {name}, which is no test");
    }
    assert!(tests > 80, "the table has another form");
    let words = rows().flat_map(|row| row.split([' ', ',', '|']));
    let is_fault = |word: &&str| {
        let (Some(first), Some(second)) = (word.chars().next(), word.chars().nth(1)) else {
            return false;
        };
        matches!(first, 'N' | 'R') && second.is_ascii_digit() && word.contains('-')
    };
    for name in words.filter(is_fault) {
        assert!(
            exists(name, "name: \"", "\""),
            "promises.md names {name}, which is no fault"
        );
    }
}

#[test]
fn snippets_of_the_guide_are_compiled() {
    let list = fs::read_to_string(root().join("tests/src/guide.rs")).expect("the file is part of this crate");
    let pages = fs::read_dir(root().join("docs/guide")).expect("the guide has a folder");
    let mut seen = 0;
    for path in pages.flatten().map(|entry| entry.path()) {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if text.contains("```rust") {
            seen += 1;
            let name = path.file_name().expect("a file has a name").to_string_lossy();
            assert!(list.contains(&format!("/{name}\"")), "add {name} to tests/src/guide.rs");
        }
    }
    assert!(seen > 10, "the guide is elsewhere than expected");
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
