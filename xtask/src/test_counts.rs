//! Counts test results in the output of `cargo test`.

use std::fmt;

/// Number of tests that passed, failed and were skipped, and what the failed ones printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestCounts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    /// The output of the failed tests, each under a line with the test's name.
    failures: Vec<String>,
    /// The lines that follow are the output of a failed test.
    in_failure: bool,
}

/// Lines kept of the output of one failed test, so that the summary stays readable.
const FAILURE_LINES_MAX: usize = 40;

impl TestCounts {
    pub(crate) fn with_skipped(skipped: usize) -> Self {
        Self {
            skipped,
            ..Self::default()
        }
    }

    /// Adds one line of a test program's output.
    ///
    /// Tests that are ignored because `cargo xtask` runs them later are not counted here.
    pub(crate) fn add_line(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.in_failure = true;
            self.failures.push(line.to_owned());
        } else if line == "failures:" {
            self.in_failure = false;
        } else if self.in_failure
            && let Some(failure) = self.failures.last_mut()
            && failure.lines().count() <= FAILURE_LINES_MAX
        {
            failure.push('\n');
            failure.push_str(line);
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
        } else if line.starts_with("test ") && line.contains(" ... ignored") && !line.contains("cargo xtask") {
            self.skipped += 1;
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// What the failed tests printed.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Adds the results of the step or suite `name`.
    pub(crate) fn add(&mut self, name: &str, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        if other.failed > 0 && other.failures.is_empty() {
            self.failures
                .push(format!("{name} failed before a test reported its failure"));
        }
        self.failures
            .extend(other.failures.into_iter().map(|failure| format!("{name}: {failure}")));
    }
}

impl fmt::Display for TestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

fn number_before(text: &str, word: &str) -> usize {
    let before = text.split(word).next().unwrap_or("");
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::TestCounts;

    #[test]
    fn adds_results_of_several_programs() {
        let mut counts = TestCounts::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            counts.add_line(line);
        }
        assert_eq!(
            counts,
            TestCounts {
                passed: 13,
                failed: 2,
                ..TestCounts::default()
            }
        );
    }

    #[test]
    fn ignored_tests_that_no_later_step_runs_count_as_skipped() {
        let mut counts = TestCounts::default();
        counts.add_line("test slow ... ignored, takes an hour");
        counts.add_line("test peer ... ignored, needs Node: run `cargo xtask test`");
        assert_eq!(
            counts,
            TestCounts {
                passed: 0,
                failed: 0,
                skipped: 1,
                ..TestCounts::default()
            }
        );
    }
    #[test]
    fn output_of_failed_tests_is_kept_for_the_summary() {
        let mut suite = TestCounts::default();
        for line in [
            "test a ... FAILED",
            "",
            "failures:",
            "",
            "---- a stdout ----",
            "thread 'a' panicked at a.rs:1:1:",
            "expected 3",
            "",
            "failures:",
            "    a",
            "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            suite.add_line(line);
        }
        let mut total = TestCounts::default();
        total.add("peers", suite);
        assert_eq!(
            total.failures(),
            ["peers: ---- a stdout ----\nthread 'a' panicked at a.rs:1:1:\nexpected 3\n"]
        );
    }

    #[test]
    fn failure_without_output_is_named() {
        let mut total = TestCounts::default();
        let suite = TestCounts {
            failed: 1,
            ..TestCounts::default()
        };
        total.add("peers", suite);
        assert_eq!(total.failures(), ["peers failed before a test reported its failure"]);
    }
}
