//! `cargo xtask spec`: compares the requirement ledgers in `specs/` with the markers in the sources.
//!
//! Each requirement needs a comment that ends with its id where the code obeys it, and a marker in a test that checks
//! it; otherwise the ledger must give a reason. Anything else is reported as a problem of the code, the tests or the
//! ledger.

mod ledger;
mod marker;
mod page;

use std::{collections::BTreeSet, fmt, fs, path::Path};

use anyhow::{Context, Result, bail};

use self::{
    ledger::{Ledger, Level, Requirement},
    marker::{Marker, Markers, Purpose},
};
use crate::workspace::Workspace;

/// Paths of the ledgers, relative to the repository root.
const LEDGERS: [&str; 2] = ["specs/rfc6455.toml", "specs/rfc7692.toml"];

/// Options of `cargo xtask spec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print only the problems and the totals.
    #[arg(long)]
    brief: bool,
    /// Write docs/rfc.md.
    #[arg(long)]
    write: bool,
}

impl Options {
    /// The options that CI uses: check everything, write nothing.
    pub(crate) fn brief() -> Self {
        Self {
            brief: true,
            write: false,
        }
    }
}

/// Prints the tables; fails if a requirement is not covered or docs/rfc.md is out of date.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let ledgers = Ledgers::read(&workspace.root)?;
    if !options.brief {
        ledgers.print();
    }
    let mut problems = ledgers.problems();
    let path = workspace.root.join(page::PATH);
    let page = page::render(&ledgers);
    if options.write {
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    } else if fs::read_to_string(&path).ok() != Some(page) {
        problems.push(format!("{} is out of date: run `cargo xtask spec --write`", page::PATH));
    }
    for ledger in &ledgers.all {
        println!("    RFC {}: {}", ledger.rfc, ledgers.count(ledger));
    }
    for problem in &problems {
        eprintln!("    {problem}");
    }
    if !problems.is_empty() {
        bail!("{} problems found", problems.len());
    }
    Ok(())
}

/// The ledgers, and the markers found in the sources.
#[derive(Debug)]
struct Ledgers {
    all: Vec<Ledger>,
    markers: Markers,
}

impl Ledgers {
    fn read(root: &Path) -> Result<Self> {
        let all = LEDGERS.iter().map(|path| Ledger::read(&root.join(path)));
        Ok(Self {
            all: all.collect::<Result<_>>()?,
            markers: Markers::read(root)?,
        })
    }

    /// The markers of one requirement with this purpose.
    fn at(&self, id: &str, purpose: Purpose) -> impl Iterator<Item = &Marker> {
        let found = self.markers.found.iter();
        found.filter(move |marker| marker.id == id && marker.purpose == purpose)
    }

    fn has(&self, id: &str, purpose: Purpose) -> bool {
        self.at(id, purpose).next().is_some()
    }

    fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.all.iter().flat_map(Ledger::requirements)
    }

    fn count(&self, ledger: &Ledger) -> Count {
        let of = |is: &dyn Fn(&Requirement) -> bool| ledger.requirements().filter(|it| is(it)).count();
        Count {
            requirements: of(&|_| true),
            obeyed: of(&|it| self.has(&it.id, Purpose::Obeys)),
            checked: of(&|it| self.has(&it.id, Purpose::Checks)),
            exceptions: of(&|it| it.exception.is_some()),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = self.markers.problems.clone();
        let mut ids = BTreeSet::new();
        for ledger in &self.all {
            for section in &ledger.sections {
                for requirement in &section.requirements {
                    let id = &requirement.id;
                    if !id.starts_with(&format!("{}-{}-", ledger.rfc, section.number)) {
                        problems.push(format!("{id} stands in section {} of {}", section.number, ledger.rfc));
                    }
                    if !ids.insert(id.as_str()) {
                        problems.push(format!("{id} is listed twice"));
                    }
                }
            }
        }
        for requirement in self.requirements() {
            let Requirement { id, level, text, .. } = requirement;
            let problems_of_it = self.problems_of(requirement);
            problems.extend(
                problems_of_it
                    .into_iter()
                    .map(|problem| format!("{id} {problem}: {level} {text}")),
            );
        }
        for marker in &self.markers.found {
            if !ids.contains(marker.id.as_str()) {
                problems.push(format!("{marker}: unknown requirement {}", marker.id));
            }
        }
        problems
    }

    /// The problems of one requirement.
    fn problems_of(&self, requirement: &Requirement) -> Vec<&'static str> {
        let (id, level) = (&requirement.id, requirement.level);
        let is_must = matches!(level, Level::Must | Level::MustNot);
        let (is_obeyed, is_checked) = (self.has(id, Purpose::Obeys), self.has(id, Purpose::Checks));
        let is_excepted = requirement.exception.is_some();
        let is_untested = requirement.untested.is_some();
        let reasons = [&requirement.exception, &requirement.untested];
        let problems = [
            (!is_obeyed && !is_excepted, "has no marker in the code"),
            (
                !is_checked && !is_excepted && !is_untested && level != Level::May,
                "has no marker in a test",
            ),
            (is_must && is_untested, "is a MUST and needs a test"),
            (
                is_excepted && (is_obeyed || is_checked),
                "is an exception but has a marker",
            ),
            (is_untested && is_checked, "is listed as untested but has a test marker"),
            (
                reasons.into_iter().flatten().any(|reason| reason.trim().is_empty()),
                "has no reason",
            ),
        ];
        problems
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, problem)| problem)
            .collect()
    }

    fn print(&self) {
        for ledger in &self.all {
            println!("RFC {}: {}", ledger.rfc, ledger.title);
            for section in &ledger.sections {
                println!("\n  §{} {}", section.number, section.title);
                section.requirements.iter().for_each(|it| self.print_one(it));
            }
            println!();
        }
    }

    fn print_one(&self, requirement: &Requirement) {
        let Requirement {
            id, level, role, text, ..
        } = requirement;
        println!("    {id:<16} {level:<10} {role:<13} {text}");
        for (word, purpose) in [("obeyed", Purpose::Obeys), ("checked", Purpose::Checks)] {
            self.at(id, purpose)
                .for_each(|marker| println!("      {word:<9} {marker}"));
        }
        for (word, reason) in [
            ("exception", &requirement.exception),
            ("untested", &requirement.untested),
        ] {
            reason.iter().for_each(|reason| println!("      {word:<9} {reason}"));
        }
    }
}

/// Totals of one ledger.
#[derive(Clone, Copy, Debug)]
struct Count {
    requirements: usize,
    obeyed: usize,
    checked: usize,
    exceptions: usize,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requirements,
            obeyed,
            checked,
            exceptions,
        } = self;
        write!(
            f,
            "{requirements} requirements: {obeyed} obeyed, {checked} checked by tests, {exceptions} exceptions with a \
             reason."
        )
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of one section with these requirements, given a source file and a test file.
    fn problems(requirements: &str, source: &str, test: &str) -> Vec<String> {
        let ledger = format!("rfc = 1234\ntitle = \"T\"\n[[section]]\nnumber = \"5.1\"\ntitle = \"S\"\n{requirements}");
        let mut markers = Markers::default();
        markers.read_source(Path::new("crates/a/src/lib.rs"), source);
        markers.read_source(Path::new("crates/a/tests/a.rs"), test);
        let all = vec![toml::from_str(&ledger).expect("a ledger")];
        Ledgers { all, markers }.problems()
    }

    fn requirement(id: &str, level: &str, more: &str) -> String {
        format!(
            "[[section.requirement]]\nid = \"{id}\"\nlevel = \"{level}\"\nrole = \"both\"\ntext = \"It is.\"\n{more}\n"
        )
    }

    #[track_caller]
    fn check(level: &str, more: &str, source: &str, test: &str, expected: &[&str]) {
        let found = problems(&requirement("1234-5.1-1", level, more), source, test);
        let expected: Vec<_> = expected
            .iter()
            .map(|problem| format!("1234-5.1-1 {problem}: {level} It is."))
            .collect();
        assert_eq!(found, expected);
    }

    const OBEYED: &str = "// [1234-5.1-1]";
    const CHECKED: &str = "// checks [1234-5.1-1]";

    #[test]
    fn a_requirement_is_obeyed_and_checked() {
        for level in ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT"] {
            check(level, "", OBEYED, CHECKED, &[]);
            check(level, "", "", CHECKED, &["has no marker in the code"]);
            check(level, "", OBEYED, "", &["has no marker in a test"]);
            check(
                level,
                "",
                "",
                "",
                &["has no marker in the code", "has no marker in a test"],
            );
        }
        check("MAY", "", OBEYED, "", &[]);
    }

    #[test]
    fn or_there_is_a_reason() {
        check("MUST", "exception = \"No browser.\"", "", "", &[]);
        check("MUST", "exception = \" \"", "", "", &["has no reason"]);
        let both = ["is an exception but has a marker"];
        check("MUST", "exception = \"No browser.\"", OBEYED, CHECKED, &both);
        check("SHOULD", "untested = \"A matter of taste.\"", OBEYED, "", &[]);
        check(
            "MUST",
            "untested = \"Hard.\"",
            OBEYED,
            "",
            &["is a MUST and needs a test"],
        );
        let both = ["is listed as untested but has a test marker"];
        check("SHOULD", "untested = \"Hard.\"", OBEYED, CHECKED, &both);
    }

    #[test]
    fn ids_are_unique_and_known() {
        let one = requirement("1234-5.1-1", "MUST", "");
        assert_eq!(
            problems(&one.repeat(2), OBEYED, CHECKED),
            ["1234-5.1-1 is listed twice"]
        );
        let elsewhere = requirement("1234-5-1", "MAY", "");
        let found = problems(&elsewhere, "// [1234-5-1]", "");
        assert_eq!(found, ["1234-5-1 stands in section 5.1 of 1234"]);
        let found = problems(&one, "// [1234-5.1-1]\n// [1234-5.1-2]", CHECKED);
        assert_eq!(found, ["crates/a/src/lib.rs:2: unknown requirement 1234-5.1-2"]);
    }
}
