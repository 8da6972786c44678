//! The file system as the log uses it, behind traits that tests replace by a simulated disk.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One folder of files.
pub(super) trait Storage: Send + Sync + fmt::Debug {
    fn list(&self) -> io::Result<Vec<String>>;
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Creates an empty file, or empties the one there is.
    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> io::Result<()>;
    /// Differs after each start of the operating system; `None` if unknown.
    fn boot_id(&self) -> Option<[u8; 16]>;
    /// Path of a file, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// A file that is written from its start to its end.
pub(super) trait SegmentFile: Send {
    /// Writes some of the bytes at the end.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Drops everything behind `len`, where the next write begins.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Makes the content durable: fdatasync.
    fn sync(&mut self) -> io::Result<()>;
}

/// Writes all bytes.
pub(super) fn write_all(file: &mut dyn SegmentFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an error means that the disk or quota is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero
    )
}

/// A folder on disk. [`open`](Self::open) locks it against other processes for as long as the value lives.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    _lock: Option<File>,
}

/// Why a folder cannot be used.
#[derive(Debug)]
pub(super) enum DiskError {
    Locked,
    Io(io::Error),
}

pub(super) const LOCK_NAME: &str = "journal.lock";

const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

impl Disk {
    /// A folder that exists, without a lock.
    pub(super) fn unlocked(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            _lock: None,
        }
    }

    /// Creates the folder if needed, and locks it.
    pub(super) fn open(folder: &Path) -> Result<Self, DiskError> {
        let io = DiskError::Io;
        std::fs::create_dir_all(folder).map_err(io)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(LOCK_NAME))
            .map_err(io)?;
        acquire(&lock)?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // The folder itself may be new. Its parent may be unreadable for us, which is no reason not to start.
            let _ = sync_folder(parent);
        }
        Ok(Self {
            folder: folder.to_owned(),
            _lock: Some(lock),
        })
    }
}

/// Locks the file. Waits up to [`LOCK_TIMEOUT`]: the previous owner may be about to exit, and a process that this one
/// is starting holds a copy of every open file until it has executed its program.
fn acquire(lock: &File) -> Result<(), DiskError> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY_INTERVAL),
            Err(TryLockError::WouldBlock) => return Err(DiskError::Locked),
            Err(TryLockError::Error(error)) => return Err(DiskError::Io(error)),
        }
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            // A name that is not UTF-8 is not ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(DiskFile(File::create(self.path(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        sync_folder(&self.folder)
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        // Available on Linux only. Elsewhere, every unclean shutdown is treated as a power cut.
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits = text.trim().replace('-', "");
        u128::from_str_radix(&digits, 16)
            .ok()
            .map(u128::to_be_bytes)
            .filter(|id| *id != [0; 16])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Windows has no such call, and NTFS journals its folders.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

struct DiskFile(File);

impl SegmentFile for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)?;
        self.0.seek(SeekFrom::Start(len)).map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
