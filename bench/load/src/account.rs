//! Processor time and memory of a process, read from `/proc`.

use std::{
    fs,
    io::ErrorKind,
    ops::{Add, Sub},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Processor time that a process or thread used up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Time spent running, with nanosecond precision.
    pub(crate) cpu: Duration,
    /// Time spent runnable while another thread was running.
    pub(crate) waited: Duration,
    /// User and system time, counted in clock ticks and therefore rough.
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Add for Used {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            cpu: self.cpu + more.cpu,
            waited: self.waited + more.waited,
            user: self.user + more.user,
            system: self.system + more.system,
        }
    }
}

impl Sub for Used {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            waited: self.waited.saturating_sub(before.waited),
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

/// Processor time of a process, summed over its threads.
pub(crate) fn of_process(pid: u32) -> Result<Used> {
    let mut used = Used::default();
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the server has died")? {
        // A thread may end during the loop, and its time is lost; the threads of a server do not end.
        let text = match fs::read_to_string(task?.path().join("schedstat")) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        let (cpu, waited) = schedstat(&text).context("schedstat has no numbers")?;
        used.cpu += cpu;
        used.waited += waited;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("the server has died")?;
    (used.user, used.system) = ticks(&text).context("stat has no numbers")?;
    Ok(used)
}

/// Processor time of this thread.
pub(crate) fn of_this_thread() -> Result<Used> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("cannot read schedstat")?;
    let (_, waited) = schedstat(&text).context("schedstat has no numbers")?;
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Ok(Used {
        cpu: Duration::new(u64::try_from(now.tv_sec)?, u32::try_from(now.tv_nsec)?),
        waited,
        ..Used::default()
    })
}

/// Running and waiting time in nanoseconds.
fn schedstat(text: &str) -> Option<(Duration, Duration)> {
    let mut numbers = text
        .split_whitespace()
        .map(|word| word.parse().map(Duration::from_nanos));
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `utime` and `stime` of /proc/PID/stat, the 14th and 15th field, in hundredths of a second on every Linux. The second
/// field is a name in parentheses that may contain any characters.
fn ticks(text: &str) -> Option<(Duration, Duration)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(|word| word.parse::<u64>());
    let mut next = || Some(Duration::from_millis(10 * fields.next()?.ok()?));
    Some((next()?, next()?))
}

/// User memory of a process in bytes. Socket buffers belong to the kernel and are not included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident pages of all kinds.
    pub(crate) resident: u64,
    /// Resident pages that belong to no file, shared ones counted in proportion.
    pub(crate) anonymous: u64,
}

pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the server has died")?;
    let bytes = |name: &str| {
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok::<_, anyhow::Error>(kib.with_context(|| format!("smaps_rollup has no {name}"))? * 1024)
    };
    Ok(Memory {
        resident: bytes("Rss:")?,
        anonymous: bytes("Pss_Anon:")?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{memory, of_process, of_this_thread, schedstat, ticks};

    #[test]
    fn the_books_are_read() {
        assert_eq!(
            schedstat("1500 20 3\n"),
            Some((Duration::from_nanos(1500), Duration::from_nanos(20)))
        );
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 12 34 0 0 20 0 1 0 100 0 0";
        assert_eq!(
            ticks(stat),
            Some((Duration::from_millis(120), Duration::from_millis(340)))
        );
    }

    #[test]
    fn this_process_has_an_account() {
        let own = std::process::id();
        assert!(of_process(own).expect("this runs").cpu > Duration::ZERO);
        assert!(of_this_thread().expect("this runs").cpu > Duration::ZERO);
        let memory = memory(own).expect("this runs");
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0);
    }
}
