//! Entry points of the fuzz target `log_segments`: logs in memory, written and recovered.

#![allow(missing_docs, reason = "not part of the API")]

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::format::{self, Header};
use super::recover::recover;
use super::segment::Segment;
use super::storage::{SegmentFile, Storage};
use super::{JournalRepair, Record, RecordKind};

/// A record of the log, with owned content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedRecord {
    pub is_position: bool,
    pub channel: String,
    pub epoch: String,
    pub offset: u64,
    pub time_ms: u64,
    pub payload: Vec<u8>,
}

/// What a recovery found.
#[derive(Debug)]
pub struct Found {
    pub records: Vec<OwnedRecord>,
    /// Every position that clients hold is invalid.
    pub is_era_new: bool,
    pub era: u32,
    /// Damaged places that were removed.
    pub damages: usize,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In the middle of the work of a process.
    Open,
    Sealed,
    /// By a shutdown in order.
    Clean,
}

/// A log in memory.
#[derive(Clone, Debug, Default)]
pub struct Log {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    is_same_boot: bool,
}

const BOOT_ID: [u8; 16] = [7; 16];

impl Log {
    /// An empty log. `is_same_boot`: the operating system was not restarted since its segments were written.
    pub fn new(is_same_boot: bool) -> Self {
        Self {
            files: Arc::default(),
            is_same_boot,
        }
    }

    /// Adds a segment. Each frame says that everything before it was on disk if `is_synced`. Returns its length.
    pub fn add(&self, number: u64, magic: u32, records: &[OwnedRecord], ending: Ending, is_synced: bool) -> usize {
        let header = Header {
            magic: magic.max(1).to_le_bytes(),
            era: 1,
            boot_id: BOOT_ID,
            is_always_synced: is_synced,
        };
        let mut bytes = header.encode().to_vec();
        let mut add = |body: &[u8]| {
            let synced = if is_synced { bytes.len() as u32 } else { 0 };
            format::encode_frame(&mut bytes, header.magic, synced, body);
        };
        for record in records {
            let mut body = Vec::new();
            let record = Record {
                kind: match record.is_position {
                    true => RecordKind::Position,
                    false => RecordKind::Publication,
                },
                channel: &record.channel,
                epoch: &record.epoch,
                offset: record.offset,
                time_ms: record.time_ms,
                payload: &record.payload,
            };
            if record.encode(&mut body).is_ok() {
                add(&body);
            }
        }
        match ending {
            Ending::Open => {}
            Ending::Sealed => add(format::BODY_SEALED),
            Ending::Clean => add(format::BODY_CLEAN_END),
        }
        let len = bytes.len();
        self.add_raw(number, bytes);
        len
    }

    /// Adds a segment with any content.
    pub fn add_raw(&self, number: u64, bytes: Vec<u8>) {
        let segment = Segment {
            first: number,
            last: number,
            len_bytes: 0,
        };
        self.files.lock().insert(segment.name(), bytes);
    }

    /// Changes the bytes of the segment with this index.
    pub fn change(&self, idx: usize, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.files.lock().values_mut().nth(idx) {
            change(bytes);
        }
    }

    /// Reads the log as a start does; with `repairs`, damage is removed.
    ///
    /// # Errors
    /// Why a server with this log does not start.
    pub fn recover(&self, repairs: bool) -> Result<Found, String> {
        let mut records = Vec::new();
        let repair = if repairs {
            JournalRepair::KeepValid
        } else {
            JournalRepair::Refuse
        };
        let recovered = recover(self, repair, &mut |record| {
            records.push(OwnedRecord {
                is_position: record.kind == RecordKind::Position,
                channel: record.channel.to_owned(),
                epoch: record.epoch.to_owned(),
                offset: record.offset,
                time_ms: record.time_ms,
                payload: record.payload.to_vec(),
            });
        });
        let replay = recovered.map_err(|error| error.to_string())?.replay;
        Ok(Found {
            records,
            is_era_new: replay.is_era_new,
            era: replay.era,
            damages: replay.damages.len(),
        })
    }
}

impl Storage for Log {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let files = self.files.lock();
        files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        self.files.lock().insert(name.to_owned(), Vec::new());
        Ok(Box::new(LogFile {
            log: self.clone(),
            name: name.to_owned(),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files
            .lock()
            .remove(name)
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        Some(if self.is_same_boot { BOOT_ID } else { [8; 16] })
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

struct LogFile {
    log: Log,
    name: String,
}

impl SegmentFile for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut files = self.log.files.lock();
        files.entry(self.name.clone()).or_default().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut files = self.log.files.lock();
        files.entry(self.name.clone()).or_default().truncate(len as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
