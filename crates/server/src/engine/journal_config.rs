//! The configuration of the log on disk.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::journal::{Fsync, Journal, JournalCheck, JournalOptions, JournalRepair};

/// A log on disk, from which the histories of all channels are restored at the next start.
///
/// A publication in a channel with history is acknowledged and delivered after it was written to the log. [`Fsync`]
/// decides what a power cut can cost. While the disk is full, publishing to channels with history fails with error 100
/// and the server is not ready; it recovers by itself.
///
/// ```
/// use sockeye_server::{Config, Fsync, JournalConfig};
///
/// let mut config = Config::default();
/// let mut journal = JournalConfig::new("/var/lib/sockeye");
/// journal.fsync = Fsync::Always;
/// config.journal = Some(journal);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalConfig {
    /// The folder of the log, which is created if it does not exist. Only one process may use it.
    pub folder: PathBuf,
    /// When publications are acknowledged, and what a power cut can cost. Every 50 ms by default.
    pub fsync: Fsync,
    /// What to do about a damaged log. By default the server does not start.
    pub repair: JournalRepair,
    /// Maximum size of the log in bytes, 4 GiB by default. Beyond it, publishing fails as if the disk were full. The
    /// log takes about twice the size of all histories.
    pub size_max: u64,
    /// Makes files and waits shorter, to reach the limits sooner.
    #[cfg(test)]
    pub(super) is_small: bool,
}

impl JournalConfig {
    /// A log in `folder`, with the default of every other field.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let options = JournalOptions::new("");
        Self {
            folder: folder.into(),
            fsync: Fsync::Every(Duration::from_millis(50)),
            repair: JournalRepair::Refuse,
            size_max: options.disk_bytes_max,
            #[cfg(test)]
            is_small: false,
        }
    }

    /// Checks that a server could open the journal, and leaves its folder as it was: a folder is created and removed to
    /// see whether writing is possible. Reads the whole journal, unless a running server uses the folder.
    ///
    /// # Errors
    /// Fails if the folder or its log cannot be used, for the reasons that a server would not start.
    pub fn check(&self) -> io::Result<JournalCheck> {
        Journal::check(&self.journal_options()).map_err(io::Error::other)
    }

    pub(super) fn journal_options(&self) -> JournalOptions {
        let mut options = JournalOptions::new(&self.folder);
        options.fsync = self.fsync;
        options.repair = self.repair;
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
