//! Runs one target and parses the output of libFuzzer.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Folders, corpus, targets::Target};

/// A target that has been built.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) target: &'static Target,
    pub(crate) path: PathBuf,
}

/// The result of running a target.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) target: &'static Target,
    pub(crate) executions: u64,
    pub(crate) seconds: u64,
    /// Size of the corpus: inputs that each reach something that no other reaches.
    pub(crate) corpus: usize,
    /// Edges of the program that the corpus covers.
    pub(crate) edges: u64,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Fine,
    Failed {
        /// The panic message, or the path of the log.
        message: String,
        /// The input that failed, if there is one.
        input: Option<PathBuf>,
    },
}

impl Program {
    /// A command that runs the target, without arguments for this run.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        // Without leak detection, because libFuzzer's C++ code would be reported. Targets count Rust allocations
        // themselves.
        command.arg("-detect_leaks=0");
        command
    }

    /// Runs the target for this time.
    pub(crate) fn run(&self, folders: &Folders, duration: Duration, len_max: Option<usize>) -> Result<Run> {
        let name = self.target.name;
        let found = folders.work.join("corpus").join(name);
        let artifacts = folders.fuzz.join("artifacts").join(name);
        let committed = folders.committed(name);
        let log = folders.work.join("log").join(name);
        for folder in [&found, &artifacts, &committed, &folders.work.join("log")] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut command = self.command();
        // libFuzzer writes new inputs to the first folder and only reads the second.
        command.args([&found, &committed]);
        command
            .arg(format!("-max_len={}", len_max.unwrap_or(self.target.len_max)))
            .arg(format!("-max_total_time={}", duration.as_secs()))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-print_final_stats=1", "-timeout=10"]);
        if self.target.speaks_http {
            command.arg(format!("-dict={}", folders.fuzz.join("http.dict").display()));
        }
        let start = Instant::now();
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).with_context(|| format!("cannot write {}", log.display()))?)
            .status()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let outcome = match status.success() {
            true => Outcome::Fine,
            false => Outcome::Failed {
                message: last_words(&text, &log),
                input: text.lines().rev().find_map(written_input),
            },
        };
        Ok(Run {
            target: self.target,
            executions: last_number(&text, "stat::number_of_executed_units:"),
            seconds: start.elapsed().as_secs(),
            corpus: corpus::count(&found)?,
            edges: last_number(&text, " cov:"),
            outcome,
        })
    }
}

impl Run {
    /// The message for a failed run: the input, and the command that reproduces the failure.
    pub(crate) fn failure(&self) -> Option<String> {
        let Outcome::Failed { message, input } = &self.outcome else {
            return None;
        };
        let name = self.target.name;
        Some(match input {
            Some(input) => {
                let input = input.display();
                format!(
                    "{name} failed: {message}\n  input: {input}\n  \
                     again: cargo xtask fuzz --target {name} --input {input}"
                )
            }
            None => format!("{name} failed: {message}"),
        })
    }
}

/// The location and message of the panic, or the path of the log.
fn last_words(text: &str, log: &Path) -> String {
    let mut lines = text.lines().skip_while(|line| !line.contains("panicked at"));
    match (lines.next(), lines.next()) {
        (Some(place), Some(message)) => format!("{place} {message}"),
        _ => format!("see {}", log.display()),
    }
}

/// The path in a line such as `artifact_prefix='…'; Test unit written to /…/crash-0123`.
fn written_input(line: &str) -> Option<PathBuf> {
    line.split_once("Test unit written to ")
        .map(|(_, path)| PathBuf::from(path.trim()))
}

/// The number after the last occurrence of `label`; 0 if there is none.
fn last_number(text: &str, label: &str) -> u64 {
    let after = text.rsplit_once(label).map_or("", |(_, after)| after);
    let word = after.split_whitespace().next().unwrap_or_default();
    word.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 30Mb
#524288\tpulse  cov: 566 ft: 2071 corp: 521/25Kb lim: 192 exec/s: 120132 rss: 28Mb
thread '<unnamed>' (7) panicked at targets/pair.rs:166:13:
connection lost
artifact_prefix='a/'; Test unit written to a/crash-31d1
stat::number_of_executed_units: 126690
stat::peak_rss_mb:              73
";

    #[test]
    fn the_last_figures_count() {
        assert_eq!(last_number(PRINTED, "stat::number_of_executed_units:"), 126_690);
        assert_eq!(last_number(PRINTED, " cov:"), 566);
        assert_eq!(last_number("", " cov:"), 0);
    }

    #[test]
    fn a_failure_has_its_message_and_its_input() {
        let words = last_words(PRINTED, Path::new("log"));
        assert_eq!(
            words,
            "thread '<unnamed>' (7) panicked at targets/pair.rs:166:13: connection lost"
        );
        let input = PRINTED.lines().rev().find_map(written_input);
        assert_eq!(input, Some(PathBuf::from("a/crash-31d1")));
        assert_eq!(last_words("killed", Path::new("log")), "see log");
    }
}
