//! Names of segments, and writing whole segments aside.

use std::io;

use rand::RngExt;

use super::format::{self, Header};
use super::storage::{Storage, write_all};

/// A segment that is no longer appended to.
///
/// Segments are numbered without gaps. One that compaction merged carries the numbers of all that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) len_bytes: u64,
}

impl Segment {
    pub(super) fn name(&self) -> String {
        format!("{:010}-{:010}.log", self.first, self.last)
    }

    /// The numbers in a file name, or `None` for the name of another file.
    pub(super) fn parse_name(name: &str) -> Option<Self> {
        let (first, last) = name.strip_suffix(".log")?.split_once('-')?;
        let segment = Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            len_bytes: 0,
        };
        (segment.first <= segment.last && segment.name() == name).then_some(segment)
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// A file that is written aside and then renamed. Removed at start.
pub(super) const TEMPORARY_NAME: &str = "rewrite.tmp";

/// A random magic that is not 0.
pub(super) fn random_magic() -> [u8; 4] {
    rand::rng().random_range(1..=u32::MAX).to_le_bytes()
}

/// Writes a sealed segment aside, syncs it and renames it to its name. A crash leaves either the old file of that name
/// or the new one.
///
/// `frames` gets a function that adds the body of a frame.
pub(super) fn write_sealed(
    storage: &dyn Storage,
    segment: &mut Segment,
    header: Header,
    frames: impl FnOnce(&mut dyn FnMut(&[u8])),
) -> io::Result<()> {
    let written = (|| {
        let mut file = storage.create(TEMPORARY_NAME)?;
        let mut bytes = header.encode().to_vec();
        let mut len = 0;
        let mut result = Ok(());
        let mut flush = |bytes: &mut Vec<u8>| {
            len += bytes.len() as u64;
            if result.is_ok() {
                result = write_all(&mut *file, bytes);
            }
            bytes.clear();
        };
        frames(&mut |body| {
            format::encode_frame(&mut bytes, header.magic, 0, body);
            if bytes.len() >= CHUNK_BYTES {
                flush(&mut bytes);
            }
        });
        format::encode_frame(&mut bytes, header.magic, 0, format::BODY_SEALED);
        flush(&mut bytes);
        result?;
        file.sync()?;
        Ok(len)
    })();
    match written {
        Ok(len) => segment.len_bytes = len,
        Err(error) => {
            // Removed at the next start otherwise.
            let _ = storage.remove(TEMPORARY_NAME);
            return Err(error);
        }
    }
    storage.rename(TEMPORARY_NAME, &segment.name())?;
    storage.sync_folder()
}

/// How much is collected for one write.
const CHUNK_BYTES: usize = 1 << 20;
