//! Checks that every test named in the tables of `main.rs` exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("main.rs");

/// Number of rows in each table, so that a lost row is noticed.
const ROWS: [(&str, usize); 5] = [
    ("The URI and the request", 26),
    ("The response", 12),
    ("Frames", 19),
    ("Close frames and the end of TCP", 14),
    ("permessage-deflate", 11),
];

#[test]
fn every_row_names_tests_that_exist() {
    let mut sources = BTreeMap::new();
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for line in PAGE.lines().filter_map(|line| line.strip_prefix("//! ")) {
        if let Some(title) = line.strip_prefix("## ") {
            counts.push((title, 0));
        }
        let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else {
            continue;
        };
        let cells: Vec<_> = row.split(" | ").collect();
        let [input, outcome, rule, tests] = cells[..] else {
            panic!("a row must have four cells: {row}");
        };
        if input == "input" {
            continue;
        }
        assert!(!input.is_empty() && !outcome.is_empty());
        assert!(rule.starts_with("RFC ") && rule.contains('§'), "{row}");
        for test in tests.split(", ") {
            let test = test.strip_prefix('`').and_then(|test| test.strip_suffix('`'));
            let (file, name) = test.and_then(|test| test.split_once("::")).expect("`file::function`");
            let source = sources.entry(file).or_insert_with(|| read(file));
            assert!(is_test(source, name), "there is no test {name} in {file}");
        }
        counts.last_mut().expect("a heading precedes the first row").1 += 1;
    }
    assert_eq!(counts, ROWS);
}

/// Reads a file under `src/` or `tests/`, or all files of a folder there.
fn read(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = match file.starts_with("src/") {
        true => root.join(file),
        false => root.join("tests").join(file),
    };
    if let Ok(source) = fs::read_to_string(path.with_extension("rs")) {
        return source;
    }
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let files = entries.map(|entry| fs::read_to_string(entry.expect("listed").path()).expect("text"));
    files.collect()
}

/// Whether there is a function with this name and the attribute `#[test]`.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim_start).collect();
    let signature = format!("fn {name}(");
    let found = lines.iter().position(|line| line.starts_with(&signature));
    found.is_some_and(|at| {
        let before = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        before.into_iter().any(|line| *line == "#[test]")
    })
}
