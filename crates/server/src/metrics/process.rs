//! What the kernel tells about this process.

/// Statistics of this process; zero if the kernel does not tell them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    pub(crate) resident_bytes: usize,
    pub(crate) cpu_seconds: f64,
}

impl Process {
    pub(crate) fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident_kib: usize = resident
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        let stat = read("/proc/self/stat");
        // The name of the program, in parentheses, may contain spaces. User and system time are fields 14 and 15.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Self {
            resident_bytes: resident_kib * 1024,
            // Linux always reports 100 ticks per second to user space.
            cpu_seconds: ticks as f64 / 100.0,
        }
    }
}

/// Number of open file descriptors of this process. Takes time in proportion to them.
pub(super) fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}
