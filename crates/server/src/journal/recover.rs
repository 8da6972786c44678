//! Reading the log at start: replay, the torn tail, damage, and repair.
//!
//! Every segment but the newest was on disk before the next one was created, and ends with a frame that says so. Damage
//! in one of those is therefore never the trace of a crash. In the newest segment, each frame says how much of the
//! segment was on disk when it was written: damage before that position is no trace of a crash either, and damage
//! behind it is what a power cut leaves of writes that no fdatasync had covered. While the operating system keeps
//! running, a crash leaves nothing but an incomplete last frame.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::format::{self, Body, Frame, Header};
use super::segment::{self, Segment, TEMPORARY_NAME};
use super::storage::Storage;
use super::{JournalRepair, OpenError, Record};

/// What a start found in the log.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) struct Replay {
    pub(crate) end: End,
    /// Number that the caller must make part of the epochs that clients see. It changes when publications that were
    /// acknowledged, and perhaps delivered, may be missing: their offsets will be assigned again, and a client that
    /// has seen the missing ones must not be told that it recovered.
    pub(crate) era: u32,
    /// The era is a new one: every position that clients hold is invalid.
    pub(crate) is_era_new: bool,
    pub(crate) records: u64,
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
    /// The end of the newest segment that was dropped, if it was not valid.
    pub(crate) cut: Option<Cut>,
    /// Damage that [`JournalRepair::KeepValid`] removed.
    pub(crate) damages: Vec<Damage>,
}

/// How the process that wrote the log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// There was no log.
    New,
    /// By [`Journal::close`](super::Journal::close).
    Clean,
    /// Without a shutdown, but everything acknowledged is there: the operating system kept running, or everything was
    /// on disk.
    Killed,
    /// Without a shutdown, and the operating system was restarted since, or cannot tell.
    PowerCut,
}

/// Bytes dropped from the end of the newest segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) file: PathBuf,
    /// Where the valid part ends.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// Valid records were among them, behind an invalid one. All of them were written after the last fdatasync.
    pub(crate) has_valid_records: bool,
}

/// Damage that no crash explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) kind: DamageKind,
}

/// What is wrong at the place of a [`Damage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum DamageKind {
    /// Both copies of the header are invalid, so that no record can be read.
    Header,
    /// An invalid record.
    Record,
    /// The segment ends too early.
    Truncated,
    /// The file does not exist.
    Missing,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.kind {
            DamageKind::Header => write!(f, "{file}: the header is invalid"),
            DamageKind::Record => write!(f, "{file}: the record at offset {} is invalid", self.offset),
            DamageKind::Truncated => write!(f, "{file}: the file ends too early, at offset {}", self.offset),
            DamageKind::Missing => write!(f, "{file}: the file is missing"),
        }
    }
}

/// State of the log after the replay, from which the writer goes on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) replay: Replay,
    pub(super) sealed: Vec<Segment>,
    /// The newest segment, if it needs to be rewritten as a sealed one before a new one is created.
    pub(super) unsealed: Option<Unsealed>,
    /// Number of the next segment.
    pub(super) next: u64,
}

/// The newest segment of an earlier process that did not shut down in order.
#[derive(Clone, Debug)]
pub(super) struct Unsealed {
    pub(super) segment: Segment,
    pub(super) header: Header,
    /// End of the valid part.
    pub(super) len: usize,
}

impl Unsealed {
    /// Rewrites the valid part as a sealed segment of the given era.
    ///
    /// Written anew rather than truncated: after a failed fdatasync the page cache may hold bytes that the kernel takes
    /// for written although they are not on disk.
    pub(super) fn seal(&self, storage: &dyn Storage, era: u32) -> io::Result<Segment> {
        let bytes = storage.read(&self.segment.name())?;
        let mut segment = self.segment;
        let header = Header { era, ..self.header };
        segment::write_sealed(storage, &mut segment, header, |add| {
            let mut at = format::HEADER_BYTES;
            while at < self.len
                && let Some(frame) = format::decode_frame(&bytes, at, self.header.magic)
            {
                add_record(&frame, add);
                at = frame.end;
            }
        })?;
        Ok(segment)
    }
}

/// Reads all segments in order and hands each record to `visit`.
pub(super) fn recover(
    storage: &dyn Storage,
    repair: JournalRepair,
    visit: &mut dyn FnMut(&Record<'_>),
) -> Result<Recovered, OpenError> {
    let io = |error| OpenError::io(storage, error);
    let mut segments = list(storage).map_err(io)?;
    let mut recovery = Recovery {
        storage,
        repair,
        visit,
        records: 0,
        bytes: 0,
        era: 0,
        damages: Vec::new(),
        to_repair: Vec::new(),
    };
    recovery.check_numbers(&segments)?;
    let newest = segments.pop();
    for segment in &mut segments {
        recovery.read_sealed(segment)?;
    }
    let mut recovered = match newest {
        None => recovery.conclude(End::New, 1, false, None),
        Some(newest) => recovery.read_newest(newest)?,
    };
    // Those that were repaired are on the list already, with their new length.
    segments.retain(|segment| recovered.sealed.iter().all(|known| known.first != segment.first));
    recovered.sealed.extend(segments);
    recovered.sealed.sort_unstable();
    recovered.replay.segments = recovered.sealed.len() + usize::from(recovered.unsealed.is_some());
    Ok(recovered)
}

/// The segments, without what an interrupted rewrite left behind.
fn list(storage: &dyn Storage) -> io::Result<Vec<Segment>> {
    let names = storage.list()?;
    if names.iter().any(|name| name == TEMPORARY_NAME) {
        storage.remove(TEMPORARY_NAME)?;
    }
    let mut found: Vec<_> = names.iter().filter_map(|name| Segment::parse_name(name)).collect();
    found.sort_unstable_by_key(|segment| (segment.first, std::cmp::Reverse(segment.last)));
    let mut segments: Vec<Segment> = Vec::new();
    for segment in found {
        match segments.last() {
            // A merge was interrupted between its rename and its removals.
            Some(merged) if merged.contains(&segment) => storage.remove(&segment.name())?,
            _ => segments.push(segment),
        }
    }
    Ok(segments)
}

struct Recovery<'a> {
    storage: &'a dyn Storage,
    repair: JournalRepair,
    visit: &'a mut dyn FnMut(&Record<'_>),
    records: u64,
    bytes: u64,
    /// The newest era in a header.
    era: u32,
    damages: Vec<Damage>,
    /// Segments that [`JournalRepair::KeepValid`] rewrites once the new era is known.
    to_repair: Vec<Segment>,
}

/// The end of the valid frames of a segment.
struct Walk {
    end: usize,
    /// The last frame, if there is one.
    last: Option<Ending>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Clean,
    Sealed,
    Other,
}

impl Recovery<'_> {
    fn check_numbers(&mut self, segments: &[Segment]) -> Result<(), OpenError> {
        for pair in segments.windows(2) {
            if pair[0].last + 1 < pair[1].first {
                let missing = Segment {
                    first: pair[0].last + 1,
                    last: pair[1].first - 1,
                    len_bytes: 0,
                };
                self.damage(missing, 0, DamageKind::Missing)?;
                self.to_repair.push(missing);
            }
        }
        Ok(())
    }

    fn read_sealed(&mut self, segment: &mut Segment) -> Result<(), OpenError> {
        let bytes = self.read(segment)?;
        let Some(header) = self.header(&bytes) else {
            self.damage(*segment, 0, DamageKind::Header)?;
            self.to_repair.push(*segment);
            return Ok(());
        };
        let walk = self.walk(&bytes, header, format::HEADER_BYTES);
        let is_complete = matches!(walk.last, Some(Ending::Clean | Ending::Sealed));
        if walk.end == bytes.len() && is_complete {
            return Ok(());
        }
        self.read_damaged(*segment, &bytes, header, walk.end)
    }

    /// Goes on behind damage at `end`, if repair is wanted.
    fn read_damaged(
        &mut self,
        segment: Segment,
        bytes: &[u8],
        header: Header,
        mut end: usize,
    ) -> Result<(), OpenError> {
        self.to_repair.push(segment);
        loop {
            let next = format::find_frame(bytes, end, header.magic);
            let kind = match next {
                None if end == bytes.len() => DamageKind::Truncated,
                _ => DamageKind::Record,
            };
            self.damage(segment, end as u64, kind)?;
            let Some((at, _)) = next else { return Ok(()) };
            end = self.walk(bytes, header, at).end;
            if end == bytes.len() {
                return Ok(());
            }
        }
    }

    fn read_newest(&mut self, mut segment: Segment) -> Result<Recovered, OpenError> {
        let bytes = self.read(&mut segment)?;
        let next = segment.last + 1;
        let Some(header) = self.header(&bytes) else {
            // The header is on disk before the first record is written.
            if bytes.len() <= format::HEADER_BYTES {
                let recovered = self.conclude(End::Killed, segment.first, false, None);
                return self.finish(recovered);
            }
            self.damage(segment, 0, DamageKind::Header)?;
            self.to_repair.push(segment);
            let mut recovered = self.conclude(End::PowerCut, next, true, None);
            recovered.sealed.push(segment);
            return self.finish(recovered);
        };
        let boot_id = self.storage.boot_id();
        let is_same_boot = boot_id == Some(header.boot_id);
        let walk = self.walk(&bytes, header, format::HEADER_BYTES);
        let mut cut = None;
        if walk.end < bytes.len() {
            let (has_valid_records, is_proven) = frames_behind(&bytes, walk.end, header);
            let is_crash = match is_same_boot {
                true => !has_valid_records && is_torn(&bytes[walk.end..], header),
                false => !is_proven,
            };
            if !is_crash {
                self.read_damaged(segment, &bytes, header, walk.end)?;
                let mut recovered = self.conclude(End::PowerCut, next, true, None);
                recovered.sealed.push(segment);
                return self.finish(recovered);
            }
            cut = Some(Cut {
                file: self.storage.path(&segment.name()),
                offset: walk.end as u64,
                bytes: (bytes.len() - walk.end) as u64,
                has_valid_records,
            });
        }
        let has_valid_records = cut.as_ref().is_some_and(|cut| cut.has_valid_records);
        let (end, is_lossy) = match walk.last {
            Some(Ending::Clean) if cut.is_none() => (End::Clean, false),
            Some(Ending::Sealed) if cut.is_none() => (End::Killed, false),
            _ if is_same_boot => (End::Killed, false),
            _ => (End::PowerCut, !header.is_always_synced || has_valid_records),
        };
        let mut recovered = self.conclude(end, next, is_lossy, cut);
        match end == End::Clean {
            true => recovered.sealed.push(segment),
            false => {
                recovered.unsealed = Some(Unsealed {
                    segment,
                    header,
                    len: walk.end,
                });
            }
        }
        self.finish(recovered)
    }

    fn read(&mut self, segment: &mut Segment) -> Result<Vec<u8>, OpenError> {
        let name = segment.name();
        let bytes = self.storage.read(&name).map_err(|error| OpenError::Io {
            path: self.storage.path(&name),
            error,
        })?;
        segment.len_bytes = bytes.len() as u64;
        self.bytes += segment.len_bytes;
        Ok(bytes)
    }

    fn header(&mut self, bytes: &[u8]) -> Option<Header> {
        let header = Header::decode(bytes)?;
        self.era = self.era.max(header.era);
        Some(header)
    }

    /// Visits the records from `at` on, up to the first invalid frame.
    fn walk(&mut self, bytes: &[u8], header: Header, at: usize) -> Walk {
        let mut walk = Walk { end: at, last: None };
        while let Some(frame) = format::decode_frame(bytes, walk.end, header.magic) {
            if let Body::Record(record) = frame.body {
                self.records += 1;
                (self.visit)(&record);
            }
            walk.last = Some(match frame.body {
                Body::CleanEnd => Ending::Clean,
                Body::Sealed => Ending::Sealed,
                Body::Synced | Body::Record(_) => Ending::Other,
            });
            walk.end = frame.end;
        }
        walk
    }

    /// Fails, or takes note for the repair.
    fn damage(&mut self, segment: Segment, offset: u64, kind: DamageKind) -> Result<(), OpenError> {
        let damage = Damage {
            file: self.storage.path(&segment.name()),
            offset,
            kind,
        };
        match self.repair {
            JournalRepair::Refuse => Err(OpenError::Damaged(damage)),
            JournalRepair::KeepValid => {
                self.damages.push(damage);
                Ok(())
            }
        }
    }

    fn conclude(&mut self, end: End, next: u64, is_lossy: bool, cut: Option<Cut>) -> Recovered {
        let damages = std::mem::take(&mut self.damages);
        let is_era_new = end == End::New || is_lossy || self.repair == JournalRepair::KeepValid;
        Recovered {
            replay: Replay {
                end,
                era: self.era + u32::from(is_era_new),
                is_era_new,
                records: self.records,
                segments: 0,
                bytes: self.bytes,
                cut,
                damages,
            },
            sealed: Vec::new(),
            unsealed: None,
            next,
        }
    }

    /// Repairs what has to be repaired. The new era is in the headers of the repaired segments, so that it is known
    /// even if this process ends before it writes anything else.
    fn finish(&mut self, mut recovered: Recovered) -> Result<Recovered, OpenError> {
        for mut segment in std::mem::take(&mut self.to_repair) {
            self.rewrite_valid(&mut segment, recovered.replay.era)
                .map_err(|error| OpenError::Io {
                    path: self.storage.path(&segment.name()),
                    error,
                })?;
            recovered.sealed.retain(|known| known.first != segment.first);
            recovered.sealed.push(segment);
        }
        Ok(recovered)
    }

    fn rewrite_valid(&self, segment: &mut Segment, era: u32) -> io::Result<()> {
        let bytes = match self.storage.read(&segment.name()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let old = Header::decode(&bytes);
        let header = Header {
            magic: segment::random_magic(),
            era,
            boot_id: [0; 16],
            is_always_synced: true,
        };
        segment::write_sealed(self.storage, segment, header, |add| {
            let mut at = format::HEADER_BYTES;
            while let Some((_, frame)) = old.and_then(|old| format::find_frame(&bytes, at, old.magic)) {
                add_record(&frame, add);
                at = frame.end;
            }
        })
    }
}

fn add_record(frame: &Frame<'_>, add: &mut dyn FnMut(&[u8])) {
    if matches!(frame.body, Body::Record(_)) {
        add(frame.bytes);
    }
}

/// Whether a segment may end like this when the operating system kept running: a write that was interrupted stops in
/// the middle of a frame, or of the zeros that the writer probes a full disk with.
fn is_torn(rest: &[u8], header: Header) -> bool {
    let Some((fields, body)) = rest.split_at_checked(format::FRAME_FIELDS_BYTES) else {
        return true;
    };
    let is_cut_off = fields.starts_with(&header.magic) && format::body_len(fields) > body.len();
    is_cut_off || rest.iter().all(|byte| *byte == 0)
}

/// Whether there are valid frames behind damage at `end`, and whether one of them proves that the damaged bytes had
/// been on disk.
fn frames_behind(bytes: &[u8], end: usize, header: Header) -> (bool, bool) {
    let mut has_valid = false;
    let mut at = end;
    while let Some((_, frame)) = format::find_frame(bytes, at, header.magic) {
        has_valid = true;
        if frame.synced as usize > end || frame.body == Body::CleanEnd {
            return (true, true);
        }
        at = frame.end;
    }
    (has_valid, false)
}
