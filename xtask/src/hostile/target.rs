//! The attacked server: its process, and its resource usage as read from `/proc`.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::place;

/// A running `sockeye echo` on the loopback interface; killed when dropped.
#[derive(Debug)]
pub(super) struct Target {
    child: Child,
    pub(super) address: SocketAddr,
}

/// Resource usage of a process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// User memory in bytes: anonymous pages, shared ones counted in proportion. Socket buffers belong to the kernel
    /// and are not included.
    pub(super) memory: u64,
    /// Processor time of all threads so far.
    pub(super) cpu: Duration,
    /// Number of open file descriptors.
    pub(super) descriptors: usize,
}

impl Target {
    /// Starts `sockeye echo` on a free port and waits until it listens.
    pub(super) fn start(binary: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary);
        command
            .args(["echo", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = place::of_servers(|| {
            let spawned = command.spawn();
            spawned.with_context(|| format!("cannot start {}", binary.display()))
        })?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line
            .trim_end()
            .strip_prefix("listening on ws://")
            .and_then(|rest| rest.trim_end_matches('/').parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("`sockeye echo` did not print its address, but {line:?}");
        };
        Ok(Self { child, address })
    }

    pub(super) fn usage(&self) -> Result<Usage> {
        Ok(Usage {
            memory: self.memory()?,
            cpu: self.cpu()?,
            descriptors: self.descriptors()?,
        })
    }

    pub(super) fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(self.file("fd")).context("the server has died")?.count())
    }

    fn memory(&self) -> Result<u64> {
        let text = fs::read_to_string(self.file("smaps_rollup")).context("the server has died")?;
        let kib = text.lines().find_map(|line| {
            line.strip_prefix("Pss_Anon:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        });
        // Kernels before 5.4 report only the sum of all kinds of pages.
        Ok(kib.context("smaps_rollup has no Pss_Anon")? * 1024)
    }

    fn cpu(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for task in fs::read_dir(self.file("task")).context("the server has died")? {
            // A thread may end during the loop, and its time is lost; the server's threads do not end.
            let text = match fs::read_to_string(task?.path().join("schedstat")) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other?,
            };
            let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
            sum += Duration::from_nanos(nanoseconds.context("schedstat has no number")?);
        }
        Ok(sum)
    }

    /// Sends SIGTERM and waits for the process to exit.
    pub(super) fn stop(&mut self, within: Duration) -> Result<(ExitStatus, Duration)> {
        let began_at = Instant::now();
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process has an id")?, Signal::TERM)?;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, began_at.elapsed()));
            }
            if began_at.elapsed() > within {
                bail!("the server still runs {within:?} after SIGTERM");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
