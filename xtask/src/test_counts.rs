//! Counts test results in the output of `cargo test`.

use std::fmt;

/// Number of tests that passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestCounts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl TestCounts {
    /// Adds one line of a test program's output.
    ///
    /// Tests that are ignored because `cargo xtask` runs them later are not counted here.
    pub(crate) fn add_line(&mut self, line: &str) {
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

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
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
                skipped: 0
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
                skipped: 1
            }
        );
    }
}
