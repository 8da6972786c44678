//! Autobahn|Testsuite: which cases there are, and what each of its reports means.
//!
//! The suite ends with status 0 whatever it found, and writes a partial report when one connection is refused. So the
//! number of cases is asserted here, per section, against a table of our own.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

/// The name that our server and our client have in the suite's reports.
pub const AGENT: &str = "sockeye";

/// How many cases each section has; there is no section 8 or 11.
pub const SECTIONS: [(u32, usize); 11] = [
    (1, 16),
    (2, 11),
    (3, 7),
    (4, 10),
    (5, 20),
    (6, 145),
    (7, 37),
    (9, 54),
    (10, 1),
    (12, 90),
    (13, 126),
];

/// The sections run by default. 12 and 13 are compression and take some ten minutes for each role: `--all` runs them.
pub const DEFAULT_CASES: &str = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*";

/// Cases in which RFC 6455 leaves the choice open, so the suite only tells what it saw.
const INFORMATIONAL: [&str; 3] = ["7.1.6", "7.13.1", "7.13.2"];

/// What one case came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the RFC has it, strictly.
    Ok,
    /// Seen, and neither right nor wrong.
    Informational,
    /// Anything else: FAILED, NON-STRICT, UNIMPLEMENTED, an unclean close.
    Failed,
}

impl Verdict {
    /// Judges one case by the two words of its report.
    pub fn of(case: &str, behavior: &str, behavior_close: &str) -> Self {
        let informational = INFORMATIONAL.contains(&case);
        match (behavior, behavior_close) {
            ("OK", "OK") => Self::Ok,
            ("OK" | "INFORMATIONAL", "OK" | "INFORMATIONAL") if informational => Self::Informational,
            _ => Self::Failed,
        }
    }
}

/// The report of one role.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Per section: how many cases ran with each verdict.
    pub sections: BTreeMap<u32, Tally>,
    /// The cases that failed, each with the words of its report.
    pub failed: Vec<String>,
}

/// The cases of one section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that should have run.
    pub expected: usize,
    /// Cases that were strictly right.
    pub ok: usize,
    /// Cases in which there is no right or wrong.
    pub informational: usize,
    /// Cases that failed.
    pub failed: usize,
}

impl Outcome {
    /// Reads `index.json`, of which every agent but the first is ignored, and compares it with the cases announced.
    ///
    /// # Panics
    /// If the file is missing or not of the suite's form.
    pub fn read(index: &Path, announced: &[String]) -> Self {
        let text = std::fs::read_to_string(index).unwrap_or_else(|error| panic!("no {}: {error}", index.display()));
        let index: Value = serde_json::from_str(&text).expect("the suite writes JSON");
        let no_cases = Value::Null;
        let cases = index
            .as_object()
            .and_then(|agents| agents.values().next())
            .unwrap_or(&no_cases);
        let mut outcome = Self::default();
        for case in announced {
            let report = &cases[case.as_str()];
            let [behavior, close] =
                ["behavior", "behaviorClose"].map(|name| report[name].as_str().unwrap_or("MISSING"));
            let tally = outcome.sections.entry(section_of(case)).or_default();
            tally.expected += 1;
            match Verdict::of(case, behavior, close) {
                Verdict::Ok => tally.ok += 1,
                Verdict::Informational => tally.informational += 1,
                Verdict::Failed => {
                    tally.failed += 1;
                    let code = &report["remoteCloseCode"];
                    outcome
                        .failed
                        .push(format!("{case}: {behavior}, close {close}, close code {code}"));
                }
            }
        }
        outcome
    }

    /// The whole as JSON, for programs.
    pub fn to_json(&self, role: &str) -> Value {
        let sections = self.sections.iter().map(|(section, tally)| {
            let Tally { expected, ok, informational, failed } = tally;
            json!({ "section": section, "expected": expected, "ok": ok, "informational": informational, "failed": failed })
        });
        json!({ "role": role, "sections": sections.collect::<Vec<_>>(), "failed": self.failed })
    }
}

/// Reads the list of cases from the suite's own announcement, `Cases = ['1.1.1', '1.1.2']`, and checks that every
/// section asked for as a whole in `patterns` is there as a whole.
///
/// # Panics
/// If it is not.
pub fn announced_cases(announcement: &str, patterns: &[&str]) -> Vec<String> {
    let words = announcement.split(['[', ']', ',', ' ', '\'', '"', 'u']);
    let cases: Vec<_> = words.filter(|word| word.contains('.')).map(str::to_owned).collect();
    assert!(!cases.is_empty(), "the suite has no case that matches {patterns:?}");
    for (section, count) in SECTIONS {
        if patterns.contains(&"*") || patterns.contains(&&*format!("{section}.*")) {
            let found = cases.iter().filter(|case| section_of(case) == section).count();
            assert_eq!(found, count, "the suite announced {found} cases of section {section}");
        }
    }
    cases
}

fn section_of(case: &str) -> u32 {
    case.split('.')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_add_up_to_all_517_cases() {
        assert_eq!(SECTIONS.iter().map(|(_, count)| count).sum::<usize>(), 517);
    }

    #[test]
    fn only_ok_is_ok() {
        assert_eq!(Verdict::of("1.1.1", "OK", "OK"), Verdict::Ok);
        assert_eq!(Verdict::of("6.4.1", "NON-STRICT", "OK"), Verdict::Failed);
        assert_eq!(Verdict::of("12.1.1", "UNIMPLEMENTED", "OK"), Verdict::Failed);
        assert_eq!(Verdict::of("1.1.1", "OK", "UNCLEAN"), Verdict::Failed);
        assert_eq!(Verdict::of("1.1.1", "MISSING", "MISSING"), Verdict::Failed);
    }

    #[test]
    fn informational_passes_for_three_cases_alone() {
        assert_eq!(
            Verdict::of("7.1.6", "INFORMATIONAL", "INFORMATIONAL"),
            Verdict::Informational
        );
        assert_eq!(Verdict::of("7.13.1", "INFORMATIONAL", "OK"), Verdict::Informational);
        assert_eq!(Verdict::of("7.1.6", "FAILED", "OK"), Verdict::Failed);
        assert_eq!(Verdict::of("7.1.5", "INFORMATIONAL", "INFORMATIONAL"), Verdict::Failed);
    }

    #[test]
    fn reads_the_announcement() {
        assert_eq!(
            announced_cases("Cases = ['1.1.1', u'10.1.1']", &["1.1.1", "10.*"]),
            ["1.1.1", "10.1.1"]
        );
    }

    #[test]
    #[should_panic(expected = "announced 1 cases of section 3")]
    fn a_missing_case_is_noticed() {
        announced_cases("Cases = ['3.1']", &["3.*"]);
    }

    #[test]
    fn a_case_without_report_has_failed() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let index = folder.path().join("index.json");
        let text = r#"{"agent":{"1.1.1":{"behavior":"OK","behaviorClose":"OK","remoteCloseCode":1000}}}"#;
        std::fs::write(&index, text).expect("the folder is writable");
        let outcome = Outcome::read(&index, &["1.1.1".to_owned(), "1.1.2".to_owned()]);
        assert_eq!(
            outcome.sections[&1],
            Tally {
                expected: 2,
                ok: 1,
                informational: 0,
                failed: 1
            }
        );
        assert_eq!(outcome.failed, ["1.1.2: MISSING, close MISSING, close code null"]);
    }
}
