//! Checks a log folder without leaving changes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::storage::{Disk, LOCK_NAME, SegmentFile, Storage};
use super::{JournalOptions, JournalRepair, OpenError, recover};

/// What is in the folder of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalCheck {
    /// No log: a server would begin one.
    Empty,
    /// A log that a server could open.
    Usable {
        /// Number of its records.
        records: u64,
    },
    /// A process uses the folder, such as a running server, so its log was not read.
    InUse,
}

/// Checks that [`Journal::open`](super::Journal::open) would succeed. Reads the whole log, unless another process uses
/// the folder. While this runs, another process that opens the log fails after 500 ms.
///
/// Creates and removes a folder in it (or in the nearest existing parent), because some file systems, such as `/proc`,
/// refuse writes that their permissions allow.
pub(super) fn check(options: &JournalOptions) -> Result<JournalCheck, OpenError> {
    let folder = &options.folder;
    let io = |error| OpenError::Io {
        path: folder.clone(),
        error,
    };
    let existing = nearest_existing(folder);
    if !existing.metadata().map_err(io)?.is_dir() {
        return Err(io(io::ErrorKind::NotADirectory.into()));
    }
    check_writable(&existing).map_err(io)?;
    check_creates(&existing).map_err(io)?;
    if existing != *folder {
        return Ok(JournalCheck::Empty);
    }
    let lock = match OpenOptions::new().write(true).open(folder.join(LOCK_NAME)) {
        Ok(lock) => Some(lock),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io(error)),
    };
    match lock.as_ref().map(File::try_lock_shared) {
        Some(Err(TryLockError::WouldBlock)) => return Ok(JournalCheck::InUse),
        Some(Err(TryLockError::Error(error))) => return Err(io(error)),
        Some(Ok(())) | None => {}
    }
    let storage = ReadOnly(Disk::unlocked(folder));
    if options.repair == JournalRepair::KeepValid {
        // Repair is enabled, so damage is not an error. The log is not read.
        return Ok(JournalCheck::Usable { records: 0 });
    }
    let recovered = recover::recover(&storage, JournalRepair::Refuse, &mut |_| {})?;
    Ok(match recovered.replay.segments {
        0 => JournalCheck::Empty,
        _ => JournalCheck::Usable {
            records: recovered.replay.records,
        },
    })
}

/// The folder, or the nearest parent that exists.
fn nearest_existing(folder: &Path) -> PathBuf {
    let existing = folder.ancestors().find(|path| path.exists());
    match existing {
        // The parent of a relative path with one component.
        None => PathBuf::from("."),
        Some(path) if path.as_os_str().is_empty() => PathBuf::from("."),
        Some(path) => path.to_owned(),
    }
}

#[cfg(unix)]
fn check_writable(folder: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(not(unix))]
fn check_writable(folder: &Path) -> io::Result<()> {
    match folder.metadata()?.permissions().readonly() {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(()),
    }
}

fn check_creates(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!(".sockeye-check-{}", std::process::id()));
    let created = std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe));
    created.map_err(|error| {
        let reason = format!("cannot create anything in {}: {error}", folder.display());
        io::Error::new(error.kind(), reason)
    })
}

/// Read-only view of a folder. Removing leftovers of an interrupted rewrite does nothing.
#[derive(Debug)]
struct ReadOnly(Disk);

impl Storage for ReadOnly {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.read(name)
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn SegmentFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        self.0.boot_id()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}
