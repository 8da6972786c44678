//! A disk in memory that loses what a real one may lose.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::storage::{SegmentFile, Storage};

/// The disk. What a process has open becomes useless by a crash, as if the process were gone.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    /// The names that a power cut leaves.
    durable_names: BTreeMap<String, usize>,
    boot: u128,
    /// Counts processes.
    generation: u64,
    faults: Faults,
    rng: StdRng,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    data: Vec<u8>,
    /// The content that a power cut leaves at least.
    durable: Vec<u8>,
}

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Bytes of all files together that fit.
    pub(crate) capacity: Option<usize>,
    /// Writes take some of their bytes only.
    pub(crate) is_writing_short: bool,
    pub(crate) is_sync_failing: bool,
    pub(crate) is_folder_sync_failing: bool,
    /// Writes wait until this is over.
    pub(crate) is_stalled: bool,
}

const SECTOR: usize = 64;

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            boot: 1,
            generation: 0,
            faults: Faults::default(),
            rng: StdRng::seed_from_u64(seed),
        })))
    }

    /// The disk as a new process sees it.
    pub(in crate::journal) fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(SimStorage {
            generation: self.0.lock().generation,
            disk: self.clone(),
        })
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Ends the process. The kernel keeps what it was given.
    pub(crate) fn kill(&self) {
        self.0.lock().generation += 1;
    }

    /// Ends the machine: sectors that were not synced are lost one by one, and so are the names.
    pub(crate) fn cut_power(&self) {
        let mut state = self.0.lock();
        let state = &mut *state;
        state.generation += 1;
        state.boot += 1;
        for inode in &mut state.inodes {
            inode.lose_unsynced(&mut state.rng);
        }
        match state.rng.random_range(0..3) {
            0 => state.names = state.durable_names.clone(),
            // Some of the changes of names had been written already.
            1 => state.names.extend(state.durable_names.clone()),
            _ => {}
        }
        state.durable_names = state.names.clone();
    }

    /// Restarts the machine after all was written back.
    pub(crate) fn reboot(&self) {
        let mut state = self.0.lock();
        state.generation += 1;
        state.boot += 1;
    }

    /// Another disk of the same content, in a machine that does not restart.
    pub(crate) fn copy(&self) -> Self {
        let state = self.0.lock();
        Self(Arc::new(Mutex::new(State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            boot: state.boot,
            generation: 0,
            faults: Faults::default(),
            rng: StdRng::seed_from_u64(0),
        })))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.0.lock().used_bytes()
    }

    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.0.lock();
        state.inodes[state.names[name]].data.clone()
    }

    /// Replaces a file, durably.
    pub(crate) fn set_content(&self, name: &str, content: &[u8]) {
        let mut state = self.0.lock();
        let id = state.names[name];
        state.inodes[id].data = content.to_owned();
        state.inodes[id].durable = content.to_owned();
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.lock().names.remove(name);
    }
}

impl Inode {
    fn lose_unsynced(&mut self, rng: &mut StdRng) {
        let mut left = self.data.clone();
        let first = self.durable.len() / SECTOR * SECTOR;
        let is_all_there = rng.random_bool(0.2);
        let len = match rng.random_bool(0.5) {
            true => rng.random_range(self.durable.len().min(left.len())..=left.len()),
            false => left.len(),
        };
        for at in (first..left.len()).step_by(SECTOR) {
            if !is_all_there && rng.random_bool(0.3) {
                let end = left.len().min(at + SECTOR);
                let mut old = self.durable.get(at..).unwrap_or_default().to_owned();
                old.resize(SECTOR, 0);
                left[at..end].copy_from_slice(&old[..end - at]);
            }
        }
        if !is_all_there {
            left.truncate(len);
        }
        self.durable.clone_from(&left);
        self.data = left;
    }
}

impl State {
    fn used_bytes(&self) -> usize {
        self.names.values().map(|id| self.inodes[*id].data.len()).sum()
    }
}

#[derive(Debug)]
struct SimStorage {
    disk: SimDisk,
    generation: u64,
}

impl SimStorage {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        if state.generation != self.generation {
            return Err(io::Error::other("the process is gone"));
        }
        f(&mut state)
    }

    /// Whether the disk does not answer. A process that is gone does not wait: the test may be waiting for its threads.
    fn is_stalled(&self) -> bool {
        let state = self.disk.0.lock();
        state.faults.is_stalled && state.generation == self.generation
    }

    fn with_inode<T>(&self, name: &str, f: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        self.with(|state| match state.names.get(name) {
            Some(id) => Ok(f(&mut state.inodes[*id])),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }
}

impl Storage for SimStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        self.with(|state| Ok(state.names.keys().cloned().collect()))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.with_inode(name, |inode| inode.data.clone())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let inode = self.with(|state| {
            if let Some(id) = state.names.get(name) {
                state.inodes[*id].data.clear();
                return Ok(*id);
            }
            let id = state.inodes.len();
            state.inodes.push(Inode::default());
            state.names.insert(name.to_owned(), id);
            Ok(id)
        })?;
        Ok(Box::new(SimFile {
            storage: Self {
                disk: self.disk.clone(),
                generation: self.generation,
            },
            inode,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|state| {
            let id = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), id);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|state| {
            state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            Ok(())
        })
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.with(|state| {
            if state.faults.is_folder_sync_failing {
                return Err(io::Error::other("fsync of the folder failed"));
            }
            state.durable_names = state.names.clone();
            Ok(())
        })
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        Some(self.disk.0.lock().boot.to_be_bytes())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/simulated").join(name)
    }
}

struct SimFile {
    storage: SimStorage,
    inode: usize,
}

impl SegmentFile for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.storage.is_stalled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.storage.with(|state| {
            let room = state
                .faults
                .capacity
                .map_or(usize::MAX, |capacity| capacity.saturating_sub(state.used_bytes()));
            let mut len = bytes.len().min(room);
            if state.faults.is_writing_short && len > 1 {
                len = state.rng.random_range(1..=len);
            }
            if len == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.inodes[self.inode].data.extend(&bytes[..len]);
            Ok(len)
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.storage.with(|state| {
            state.inodes[self.inode].data.truncate(len as usize);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.storage.with(|state| {
            if state.faults.is_sync_failing {
                return Err(io::Error::other("fdatasync failed"));
            }
            let inode = &mut state.inodes[self.inode];
            inode.durable.clone_from(&inode.data);
            Ok(())
        })
    }
}
