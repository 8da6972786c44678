//! Autobahn|Testsuite: its cases, and the meaning of its reports.
//!
//! The suite exits with status 0 whatever the results, and writes a partial report if one connection is refused.
//! Therefore the number of cases per section is asserted here.

mod compression;

use std::{collections::BTreeMap, path::Path};

pub use compression::Compression;
use serde_json::{Value, json};

/// The name of the Sockeye server and client in the suite's reports.
pub const AGENT: &str = "sockeye";

/// Number of cases per section; sections 8 and 11 do not exist.
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

/// The sections that run by default. Compression (12 and 13) takes some ten minutes per role and runs with `--all`.
pub const DEFAULT_CASES: &str = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*";

/// The sections about compression.
const COMPRESSED: [u32; 2] = [12, 13];

/// Cases in which RFC 6455 allows several behaviours, so the suite only reports what it observed.
const INFORMATIONAL: [&str; 3] = ["7.1.6", "7.13.1", "7.13.2"];

/// The result of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Strictly as the RFC requires.
    Ok,
    /// Observed; neither right nor wrong.
    Informational,
    /// Anything else: FAILED, NON-STRICT, UNIMPLEMENTED, or an unclean close.
    Failed,
}

impl Verdict {
    /// The verdict on a case from the two results in its report.
    pub fn of(case: &str, behavior: &str, behavior_close: &str) -> Self {
        let informational = INFORMATIONAL.contains(&case);
        match (behavior, behavior_close) {
            ("OK", "OK") => Self::Ok,
            ("OK" | "INFORMATIONAL", "OK" | "INFORMATIONAL") if informational => Self::Informational,
            _ => Self::Failed,
        }
    }
}

/// The results for one role.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Per section: the number of cases with each verdict.
    pub sections: BTreeMap<u32, SectionCounts>,
    /// The informational cases, and the behaviour that the suite observed.
    pub informational: BTreeMap<String, String>,
    /// Per group of sections 12 and 13, such as 12.3: the effect of compression.
    pub compression: BTreeMap<(u32, u32), Compression>,
    /// The failed cases with the results in their reports, and the groups without compression.
    pub failed: Vec<String>,
}

/// The results of one section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectionCounts {
    /// Cases that should have run.
    pub expected: usize,
    /// Cases that passed strictly.
    pub ok: usize,
    /// Cases without right or wrong.
    pub informational: usize,
    /// Cases that failed.
    pub failed: usize,
}

impl Outcome {
    /// Reads the suite's reports in `folder` for the agent [`AGENT`], and compares them with the announced cases.
    ///
    /// # Panics
    /// If a file is missing or malformed.
    pub fn read(folder: &Path, announced: &[String]) -> Self {
        let index = &read_json(&folder.join("index.json"))[AGENT];
        let mut outcome = Self::default();
        for case in announced {
            outcome.add(case, &index[case.as_str()], folder);
        }
        for ((section, group), compression) in &outcome.compression {
            if !compression.is_used() {
                outcome
                    .failed
                    .push(format!("{section}.{group}: not compressed: {compression:?}"));
            }
        }
        outcome
    }

    /// Adds a case from its entry in the index and, where details are needed, from its own report.
    fn add(&mut self, case: &str, entry: &Value, folder: &Path) {
        let [behavior, close] = ["behavior", "behaviorClose"].map(|name| entry[name].as_str().unwrap_or("MISSING"));
        let own_report = || {
            let name = entry["reportfile"].as_str().expect("every case has a report");
            read_json(&folder.join(name))
        };
        let section = section_of(case);
        let counts = self.sections.entry(section).or_default();
        counts.expected += 1;
        match Verdict::of(case, behavior, close) {
            Verdict::Ok => counts.ok += 1,
            Verdict::Informational => {
                counts.informational += 1;
                let seen = own_report()["result"].as_str().unwrap_or_default().to_owned();
                self.informational.insert(case.to_owned(), seen);
            }
            Verdict::Failed => {
                counts.failed += 1;
                let code = &entry["remoteCloseCode"];
                self.failed
                    .push(format!("{case}: {behavior}, close {close}, close code {code}"));
                return;
            }
        }
        if COMPRESSED.contains(&section) {
            let group = number(case.split('.').nth(1));
            self.compression.entry((section, group)).or_default().add(&own_report());
        }
    }

    /// The results as JSON.
    pub fn to_json(&self) -> Value {
        let sections = self.sections.iter().map(|(section, counts)| {
            let SectionCounts {
                expected,
                ok,
                informational,
                failed,
            } = counts;
            json!({
                "section": section, "expected": expected,
                "ok": ok, "informational": informational, "failed": failed,
            })
        });
        let groups = self.compression.iter();
        let groups = groups.map(|((section, group), compression)| compression.to_json(&format!("{section}.{group}")));
        json!({
            "sections": sections.collect::<Vec<_>>(), "informational": self.informational,
            "compression": groups.collect::<Vec<_>>(), "failed": self.failed,
        })
    }
}

/// Parses the suite's list of cases, `Cases = ['1.1.1', '1.1.2']`, and checks that every section that `patterns`
/// selects as a whole is complete.
///
/// # Panics
/// If it is not.
pub fn announced_cases(announcement: &str, patterns: &[&str]) -> Vec<String> {
    let words = announcement.split(['[', ']', ',', ' ', '\'', '"', 'u']);
    let cases: Vec<_> = words.filter(|word| word.contains('.')).map(str::to_owned).collect();
    assert!(!cases.is_empty(), "no case of the suite matches {patterns:?}");
    for (section, count) in SECTIONS {
        if patterns.contains(&"*") || patterns.contains(&&*format!("{section}.*")) {
            let found = cases.iter().filter(|case| section_of(case) == section).count();
            assert_eq!(found, count, "the suite announced {found} cases of section {section}");
        }
    }
    cases
}

fn section_of(case: &str) -> u32 {
    number(case.split('.').next())
}

fn number(word: Option<&str>) -> u32 {
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("no {}: {error}", path.display()));
    serde_json::from_str(&text).expect("the suite writes JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_add_up_to_all_517_cases() {
        assert_eq!(SECTIONS.iter().map(|(_, count)| count).sum::<usize>(), 517);
    }

    #[test]
    fn only_strict_results_are_ok() {
        assert_eq!(Verdict::of("1.1.1", "OK", "OK"), Verdict::Ok);
        assert_eq!(Verdict::of("6.4.1", "NON-STRICT", "OK"), Verdict::Failed);
        assert_eq!(Verdict::of("12.1.1", "UNIMPLEMENTED", "OK"), Verdict::Failed);
        assert_eq!(Verdict::of("1.1.1", "OK", "UNCLEAN"), Verdict::Failed);
        assert_eq!(Verdict::of("1.1.1", "MISSING", "MISSING"), Verdict::Failed);
    }

    #[test]
    fn informational_is_accepted_for_three_cases_only() {
        assert_eq!(
            Verdict::of("7.1.6", "INFORMATIONAL", "INFORMATIONAL"),
            Verdict::Informational
        );
        assert_eq!(Verdict::of("7.13.1", "INFORMATIONAL", "OK"), Verdict::Informational);
        assert_eq!(Verdict::of("7.1.6", "FAILED", "OK"), Verdict::Failed);
        assert_eq!(Verdict::of("7.1.5", "INFORMATIONAL", "INFORMATIONAL"), Verdict::Failed);
    }

    #[test]
    fn parses_the_announced_cases() {
        assert_eq!(
            announced_cases("Cases = ['1.1.1', u'10.1.1']", &["1.1.1", "10.*"]),
            ["1.1.1", "10.1.1"]
        );
    }

    #[test]
    #[should_panic(expected = "announced 1 cases of section 3")]
    fn missing_case_is_detected() {
        announced_cases("Cases = ['3.1']", &["3.*"]);
    }

    #[test]
    fn case_without_report_fails() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let text = r#"{"sockeye":{"1.1.1":{"behavior":"OK","behaviorClose":"OK","remoteCloseCode":1000}}}"#;
        std::fs::write(folder.path().join("index.json"), text).expect("the folder is writable");
        let outcome = Outcome::read(folder.path(), &["1.1.1".to_owned(), "1.1.2".to_owned()]);
        assert_eq!(
            outcome.sections[&1],
            SectionCounts {
                expected: 2,
                ok: 1,
                informational: 0,
                failed: 1
            }
        );
        assert_eq!(outcome.failed, ["1.1.2: MISSING, close MISSING, close code null"]);
    }
}
