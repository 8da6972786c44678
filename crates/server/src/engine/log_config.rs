//! The configuration of the log on disk.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::journal::{self, JournalOptions};

/// A log on disk, from which the histories of all channels are restored at the next start.
///
/// A publication in a channel with history is acknowledged and delivered after it was written to the log. [`Fsync`] decides
/// what a power cut can cost. While the disk is full, publishing to channels with history fails with error 100 and the
/// server is not ready; it recovers by itself.
///
/// ```
/// use sockeye_server::{Config, Fsync, LogConfig};
///
/// let mut config = Config::default();
/// let mut log = LogConfig::new("/var/lib/sockeye");
/// log.fsync = Fsync::Always;
/// config.log = Some(log);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogConfig {
    /// The folder of the log, which is created if it does not exist. Only one process may use it.
    pub folder: PathBuf,
    /// When publications are acknowledged, and what a power cut can cost. Every 50 ms by default.
    pub fsync: Fsync,
    /// What to do about a damaged log. By default the server does not start.
    pub repair: LogRepair,
    /// Maximum size of the log in bytes, 4 GiB by default. Beyond it, publishing fails as if the disk were full. The log
    /// takes about twice the size of all histories.
    pub size_max: u64,
    /// Makes files and waits shorter, to reach the limits sooner.
    #[cfg(test)]
    pub(super) is_small: bool,
}

/// When the log is put on disk.
///
/// | | a publication is acknowledged after | `kill -9` costs | a power cut costs |
/// |---|---|---|---|
/// | `Always` | fdatasync | nothing | nothing |
/// | `Every` | write | nothing | publications of the last interval; clients learn that they cannot recover |
/// | `Never` | write | nothing | what the kernel has not written yet; clients learn that they cannot recover |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fsync {
    /// Before a publication is acknowledged. Publications that arrive during one fdatasync share the next one.
    Always,
    /// At most this long after a publication was acknowledged.
    Every(Duration),
    /// Only at a shutdown and at the end of each file of the log.
    Never,
}

/// What to do about a log that is damaged in a way that no crash explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogRepair {
    /// Do not start.
    #[default]
    Refuse,
    /// Keep all valid records, and give all channels new epochs, so that clients load them anew. For a single start: with
    /// it, no client ever recovers across a restart.
    KeepValid,
}

impl LogConfig {
    /// A log in `folder`, with the default of every other field.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let options = JournalOptions::new("");
        Self {
            folder: folder.into(),
            fsync: Fsync::Every(Duration::from_millis(50)),
            repair: LogRepair::Refuse,
            size_max: options.disk_bytes_max,
            #[cfg(test)]
            is_small: false,
        }
    }

    pub(super) fn journal_options(&self) -> JournalOptions {
        let mut options = JournalOptions::new(&self.folder);
        options.fsync = match self.fsync {
            Fsync::Always => journal::Fsync::Always,
            Fsync::Every(interval) => journal::Fsync::Every(interval),
            Fsync::Never => journal::Fsync::Never,
        };
        options.repair = match self.repair {
            LogRepair::Refuse => journal::Repair::Refuse,
            LogRepair::KeepValid => journal::Repair::KeepValid,
        };
        options.disk_bytes_max = self.size_max;
        #[cfg(test)]
        if self.is_small {
            options.segment_bytes = 64 << 10;
            options.full_retry_interval = Duration::from_millis(5);
            options.compaction_interval = Duration::from_millis(5);
        }
        options
    }
}

/// Error: the text is neither `always`, `never`, nor a number of milliseconds such as `50ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidFsync;

impl FromStr for Fsync {
    type Err = InvalidFsync;

    fn from_str(text: &str) -> Result<Self, InvalidFsync> {
        match text {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => {
                let millis = text.strip_suffix("ms").ok_or(InvalidFsync)?;
                match millis.parse() {
                    Ok(millis @ 1..=60_000) => Ok(Self::Every(Duration::from_millis(millis))),
                    _ => Err(InvalidFsync),
                }
            }
        }
    }
}

impl fmt::Display for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Every(interval) => write!(f, "{}ms", interval.as_millis()),
            Self::Never => f.write_str("never"),
        }
    }
}

impl fmt::Display for InvalidFsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be always, never, or an interval from 1ms to 60000ms")
    }
}

impl std::error::Error for InvalidFsync {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fsync_is_parsed_and_displayed() {
        for text in ["always", "never", "1ms", "50ms", "60000ms"] {
            assert_eq!(text.parse::<Fsync>().unwrap().to_string(), text);
        }
        for text in ["", "50", "0ms", "60001ms", "-1ms", "Always", "ms"] {
            assert_eq!(text.parse::<Fsync>(), Err(InvalidFsync), "{text}");
        }
    }
}
