//! Runs other programs, without a terminal and without standard input.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Error, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Runs a named step and prints how long it took.
pub(crate) fn step<T>(name: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    judged_step(name, body, |_| true)
}

/// Like [`step`], for results that can be bad without being an error, as `is_good` decides.
pub(crate) fn judged_step<T>(
    name: &str,
    body: impl FnOnce() -> Result<T>,
    is_good: impl FnOnce(&T) -> bool,
) -> Result<T> {
    println!("==> {name}");
    let start = Instant::now();
    let result = body().with_context(|| format!("step failed: {name}"));
    let word = if result.as_ref().is_ok_and(is_good) {
        "ok"
    } else {
        "FAILED"
    };
    println!("    {word}: {name} ({:.1} s)", start.elapsed().as_secs_f64());
    result
}

/// Prints that part of a step cannot run on this machine. Returns the reason, for the summary at the end.
pub(crate) fn skip(reason: &str, error: &Error) -> String {
    println!("    SKIPPED: {reason}");
    println!("    {}", format!("{error:#}").trim().replace('\n', "\n    "));
    reason.to_owned()
}

/// Runs a program with inherited output. Fails unless it exits with status 0.
pub(crate) fn call(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// Runs a program and returns its standard output. Fails with all of its output unless it exits with status 0.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} ended with {}:\n{stdout}{stderr}", output.status);
    }
    Ok(stdout)
}

/// Runs a program, prints its standard output and passes each line to `look`. Returns whether it exited with status 0.
pub(crate) fn watch(command: &mut Command, mut look: impl FnMut(&str)) -> Result<bool> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.with_context(|| format!("cannot read the output of {shown}"))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            look(&line);
        }
    }
    Ok(child.wait()?.success())
}

/// Runs a closure on one processor. Child processes and threads started by it stay there.
pub(crate) fn on_cpu<T>(cpu: usize, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).with_context(|| format!("cannot run on processor {cpu}"))?;
    let result = body();
    sched_setaffinity(None, &before)?;
    result
}

/// A number with commas between groups of three digits, such as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(OsStr::to_string_lossy);
    // Shortens an argument that is a whole script.
    let words: Vec<_> = words
        .map(|word| if word.contains('\n') { "<script>".into() } else { word })
        .collect();
    format!("`{}`", words.join(" "))
}
