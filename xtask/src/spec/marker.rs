//! Markers in comments: `[6455-5.1-1]` beside the line that obeys a requirement, `checks [6455-5.1-1]` in a test.
//!
//! One pair of brackets may hold several ids, separated by a comma and a space. Brackets whose content does not start
//! like an id are ignored.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The folders that are searched. `xtask` is not among them, because the examples in this file would count.
const FOLDERS: [&str; 2] = ["crates", "tests"];

/// An id found in a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) id: String,
    pub(super) purpose: Purpose,
    /// Relative to the repository root.
    pub(super) path: PathBuf,
    /// Starts at 1.
    pub(super) line: usize,
}

/// What a marker says about its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Obeys,
    Checks,
}

/// All markers, and the problems with how some are written.
#[derive(Debug, Default)]
pub(super) struct Markers {
    pub(super) found: Vec<Marker>,
    pub(super) problems: Vec<String>,
}

impl Markers {
    /// Reads all source files of the repository.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut sources = Vec::new();
        for folder in FOLDERS {
            list_sources(&root.join(folder), &mut sources)?;
        }
        sources.sort();
        let mut markers = Self::default();
        for source in sources {
            let text = fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
            markers.read_source(source.strip_prefix(root)?, &text);
        }
        Ok(markers)
    }

    /// Reads one source file.
    pub(super) fn read_source(&mut self, path: &Path, text: &str) {
        let is_test_file = path.iter().any(|part| part == "tests" || part == "tests.rs");
        let mut is_test = is_test_file;
        let mut lines = text.lines().enumerate().peekable();
        while let Some((idx, line)) = lines.next() {
            let next = lines.peek().map_or("", |(_, next)| next);
            is_test |= line == "#[cfg(test)]" && next.starts_with("mod ");
            for bracket in brackets(line) {
                let place = format!("{}:{}", path.display(), idx + 1);
                let purpose = bracket.purpose;
                match (purpose, is_test) {
                    (Purpose::Obeys, true) => self.problems.push(format!("{place}: in a test, write `checks [...]`")),
                    (Purpose::Checks, false) => self.problems.push(format!("{place}: `checks` is for tests only")),
                    (Purpose::Obeys, false) | (Purpose::Checks, true) => {}
                }
                for id in bracket.ids.split(", ") {
                    if !is_id(id) {
                        self.problems.push(format!("{place}: `{id}` is not a requirement id"));
                        continue;
                    }
                    self.found.push(Marker {
                        id: id.to_owned(),
                        purpose,
                        path: path.to_owned(),
                        line: idx + 1,
                    });
                }
            }
        }
    }
}

/// The content of a pair of brackets that starts like an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bracket<'a> {
    purpose: Purpose,
    ids: &'a str,
}

/// The bracketed ids in the comment of a line.
fn brackets(line: &str) -> impl Iterator<Item = Bracket<'_>> {
    let comment = line.split_once("//").map_or("", |(_, comment)| comment);
    comment.match_indices('[').filter_map(|(start, _)| {
        let (ids, _) = comment[start + 1..].split_once(']')?;
        let (rfc, _) = ids.split_once('-')?;
        let is_marker = rfc.len() == 4 && is_number(rfc);
        let is_check = comment[..start].trim_end().ends_with("checks");
        let purpose = if is_check { Purpose::Checks } else { Purpose::Obeys };
        is_marker.then_some(Bracket { purpose, ids })
    })
}

/// Whether the text is an id such as `6455-5.1-3`: an RFC, a section, a number.
fn is_id(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let [rfc, section, number] = parts[..] else {
        return false;
    };
    is_number(rfc) && section.split('.').all(is_number) && is_number(number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn list_sources(folder: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        // Skips what npm and cargo write beside the sources.
        let is_foreign = path.ends_with("node_modules") || path.ends_with("target");
        if kind.is_dir() && !is_foreign {
            list_sources(&path, sources)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, text: &str) -> Markers {
        let mut markers = Markers::default();
        markers.read_source(Path::new(path), text);
        markers
    }

    #[track_caller]
    fn check(line: &str, expected: &[(Purpose, &str)]) {
        let found: Vec<_> = brackets(line).map(|found| (found.purpose, found.ids)).collect();
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn markers_stand_in_comments_only() {
        check("// A rule. [6455-5.1-3]", &[(Purpose::Obeys, "6455-5.1-3")]);
        check("let x = 1; // As told. [6455-3-1]", &[(Purpose::Obeys, "6455-3-1")]);
        check("/// checks [6455-3-1]", &[(Purpose::Checks, "6455-3-1")]);
        check("let x = table[6455-3-1];", &[]);
        check("", &[]);
    }

    #[test]
    fn a_line_may_hold_several() {
        check(
            "// [6455-5.1-3] and checks [6455-5.2-1, 7692-6-1].",
            &[
                (Purpose::Obeys, "6455-5.1-3"),
                (Purpose::Checks, "6455-5.2-1, 7692-6-1"),
            ],
        );
    }

    #[test]
    fn other_brackets_are_ignored() {
        check("/// See [`Limits`](crate::Limits) and [1-2], buf[6455], [6455", &[]);
        check("// [64-bit] [12345-1-1] [] [", &[]);
    }

    #[test]
    fn an_id_has_three_parts() {
        for id in ["6455-3-1", "6455-5.1-12", "7692-7.1.2.2-4"] {
            assert!(is_id(id), "{id}");
        }
        for id in [
            "",
            "6455",
            "6455-5.1",
            "6455-5.1-",
            "6455-5..1-1",
            "6455-5.1-1-1",
            "6455-a-1",
            "6455 -3-1",
        ] {
            assert!(!is_id(id), "{id}");
        }
    }

    #[test]
    fn each_id_has_its_line_and_a_misspelt_one_is_a_problem() {
        let markers = read("crates/a/src/b.rs", "\n// Rule. [6455-3-1, 6455-3-2]\n// [6455-3.1]\n");
        let found: Vec<_> = markers
            .found
            .iter()
            .map(|found| (found.id.as_str(), found.line))
            .collect();
        assert_eq!(found, [("6455-3-1", 2), ("6455-3-2", 2)]);
        assert_eq!(
            markers.problems,
            ["crates/a/src/b.rs:3: `6455-3.1` is not a requirement id"]
        );
    }

    #[test]
    fn code_obeys_and_tests_check() {
        let source = "// [6455-3-1]\n#[cfg(test)]\nfn seen() {}\n// [6455-3-2]\n\
            #[cfg(test)]\nmod tests {\n// checks [6455-3-1]\n}";
        assert!(read("crates/a/src/b.rs", source).problems.is_empty());
        for path in ["crates/a/tests/b.rs", "crates/a/src/b/tests.rs", "tests/src/b.rs"] {
            let problems = read(path, source).problems;
            assert_eq!(problems.len(), 2, "{problems:?}");
        }
        let problems = read("crates/a/src/b.rs", "// checks [6455-3-1]").problems;
        assert_eq!(problems, ["crates/a/src/b.rs:1: `checks` is for tests only"]);
    }
}
