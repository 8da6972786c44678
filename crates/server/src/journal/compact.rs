//! Compaction: rewrites sealed segments without obsolete records.
//!
//! Each segment is rewritten in its place, so records stay in order. Dropping a record must not make an older record of
//! the same channel valid again. The newest record of a channel in a segment is therefore replaced by a
//! [`RecordKind::Position`], unless the segment is the oldest.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::format::{self, Body, Header, Record, RecordKind};
use super::segment::{self, Segment};
use super::storage::Storage;
use super::writer::{Shared, wait_sealed};
use super::{JournalOptions, Retain, State};

pub(super) struct Compactor {
    storage: Arc<dyn Storage>,
    shared: Arc<Shared>,
    retain: Arc<dyn Retain>,
    segment_bytes: u64,
    interval: Duration,
    /// Number of the first segment to examine next.
    cursor: u64,
}

/// Segments examined for each that is sealed. With n, dead segments are at most 1 / (n - 1) of the others.
const EXAMINED_PER_SEALED: usize = 4;
/// Size of a sealed segment without records.
const EMPTY_BYTES: u64 = (format::HEADER_BYTES + format::FRAME_FIELDS_BYTES + format::BODY_SEALED.len()) as u64;

impl Compactor {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        shared: Arc<Shared>,
        retain: Arc<dyn Retain>,
        options: &JournalOptions,
    ) -> Self {
        Self {
            storage,
            shared,
            retain,
            segment_bytes: options.segment_bytes,
            interval: options.compaction_interval,
            cursor: 0,
        }
    }

    /// Compacts until the log is closed.
    pub(super) fn run(mut self) {
        loop {
            let mut sealed = wait_sealed(&self.shared, self.interval);
            if sealed.is_stopped {
                return;
            }
            let new = std::mem::take(&mut sealed.new);
            // While the log is full, each retry of the writer comes here.
            let count = match self.shared.state() == State::Full {
                true => sealed.segments.len(),
                false => (new * EXAMINED_PER_SEALED).clamp(1, sealed.segments.len().max(1)),
            };
            drop(sealed);
            for _ in 0..count {
                if self.shared.sealed.lock().is_stopped {
                    return;
                }
                if let Err(error) = self.examine_next() {
                    tracing::warn!(%error, "the log could not be compacted; will try again");
                    break;
                }
            }
        }
    }

    /// Examines the segment at the cursor, and moves the cursor on.
    pub(super) fn examine_next(&mut self) -> io::Result<()> {
        let segments = self.shared.sealed.lock().segments.clone();
        let index = segments.partition_point(|segment| segment.first < self.cursor);
        // Wrap around to the oldest segment.
        let index = if index < segments.len() { index } else { 0 };
        let Some(segment) = segments.get(index) else {
            return Ok(());
        };
        self.cursor = segment.last + 1;
        let previous = index.checked_sub(1).map(|index| segments[index]);
        self.examine(*segment, previous, index)
    }

    fn examine(&self, segment: Segment, previous: Option<Segment>, index: usize) -> io::Result<()> {
        let content = LoadedSegment::read(&*self.storage, segment)?;
        let plan = Plan::new(&[&content], &*self.retain, index == 0);
        if index == 0 && plan.is_empty() {
            return self.replace(&[segment], &plan, true);
        }
        let is_sparse = plan.bytes() * 2 < segment.len_bytes.saturating_sub(EMPTY_BYTES);
        let is_small = segment.len_bytes < self.segment_bytes / 4;
        match previous {
            Some(previous) if (is_sparse || is_small) && previous.len_bytes + plan.bytes() <= self.segment_bytes => {
                let before = LoadedSegment::read(&*self.storage, previous)?;
                let plan = Plan::new(&[&before, &content], &*self.retain, index == 1);
                self.replace(&[previous, segment], &plan, index == 1)
            }
            _ if is_sparse => self.replace(&[segment], &plan, index == 0),
            _ => Ok(()),
        }
    }

    /// Puts what the plan keeps in the place of neighboring segments.
    fn replace(&self, old: &[Segment], plan: &Plan<'_>, is_oldest: bool) -> io::Result<()> {
        let (Some(first), Some(last)) = (old.first(), old.last()) else {
            return Ok(());
        };
        if is_oldest && plan.is_empty() {
            // Oldest first: an interruption leaves no gap in the numbers.
            for segment in old {
                self.storage.remove(&segment.name())?;
                self.shared.sealed.lock().segments.retain(|known| known != segment);
            }
            return self.storage.sync_folder();
        }
        let mut new = Segment {
            first: first.first,
            last: last.last,
            len_bytes: 0,
        };
        let header = Header {
            magic: segment::random_magic(),
            era: plan.era,
            boot_id: [0; 16],
            is_always_synced: true,
        };
        segment::write_sealed(&*self.storage, &mut new, header, |add| plan.encode(add))?;
        let mut sealed = self.shared.sealed.lock();
        sealed.segments.retain(|known| !new.contains(known));
        let index = sealed.segments.partition_point(|known| known.first < new.first);
        sealed.segments.insert(index, new);
        drop(sealed);
        let merged = old.iter().filter(|segment| segment.name() != new.name());
        for segment in merged {
            self.storage.remove(&segment.name())?;
        }
        self.storage.sync_folder()
    }
}

/// A segment in memory.
struct LoadedSegment {
    bytes: Vec<u8>,
    header: Header,
}

impl LoadedSegment {
    fn read(storage: &dyn Storage, segment: Segment) -> io::Result<Self> {
        let bytes = storage.read(&segment.name())?;
        let header = Header::decode(&bytes).ok_or_else(|| damaged(storage, segment))?;
        let content = Self { bytes, header };
        // Compaction must not turn damage into a shorter log without a trace.
        match content.frames().last() {
            Some((end, Body::Sealed | Body::CleanEnd)) if end == content.bytes.len() => Ok(content),
            _ => Err(damaged(storage, segment)),
        }
    }

    /// All frames, each with its end.
    fn frames(&self) -> impl Iterator<Item = (usize, Body<'_>)> {
        let mut at = format::HEADER_BYTES;
        std::iter::from_fn(move || {
            let frame = format::decode_frame(&self.bytes, at, self.header.magic)?;
            at = frame.end;
            Some((at, frame.body))
        })
    }

    fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.frames().filter_map(|(_, body)| match body {
            Body::Record(record) => Some(record),
            Body::CleanEnd | Body::Sealed | Body::Synced => None,
        })
    }
}

fn damaged(storage: &dyn Storage, segment: Segment) -> io::Error {
    let path = storage.path(&segment.name());
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()))
}

/// What is kept of neighboring segments.
struct Plan<'a> {
    records: Vec<Record<'a>>,
    era: u32,
}

/// The records of one channel.
#[derive(Default)]
struct Channel {
    newest: usize,
    newest_position: Option<usize>,
    is_any_kept: bool,
}

impl<'a> Plan<'a> {
    fn new(contents: &[&'a LoadedSegment], retain: &dyn Retain, is_oldest: bool) -> Self {
        let records: Vec<Record<'a>> = contents.iter().flat_map(|content| content.records()).collect();
        let mut channels: HashMap<&str, Channel> = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            let channel = channels.entry(record.channel).or_default();
            channel.newest = index;
            if record.kind == RecordKind::Position {
                channel.newest_position = Some(index);
            }
        }
        // Asked once for each stream, so that one answer holds for all its records.
        let mut answers: HashMap<(&str, &str), Option<u64>> = HashMap::new();
        let mut kept = Vec::new();
        for (index, record) in records.into_iter().enumerate() {
            let channel = channels.entry(record.channel).or_default();
            let oldest_kept = *answers
                .entry((record.channel, record.epoch))
                .or_insert_with(|| retain.oldest_kept(record.channel, record.epoch));
            let is_newest = channel.newest == index;
            // Whether this record hides older ones, or is all that is known of a stream that exists.
            let is_needed = !is_oldest || channel.is_any_kept || (is_newest && oldest_kept.is_some());
            let is_live = oldest_kept.is_some_and(|oldest| record.offset >= oldest);
            let record = match record.kind {
                RecordKind::Publication if is_live => record,
                RecordKind::Publication if is_newest && is_needed => Record {
                    kind: RecordKind::Position,
                    payload: &[],
                    ..record
                },
                RecordKind::Position if channel.newest_position == Some(index) && is_needed => record,
                RecordKind::Publication | RecordKind::Position => continue,
            };
            channel.is_any_kept = true;
            kept.push(record);
        }
        Self {
            records: kept,
            era: contents.iter().map(|content| content.header.era).max().unwrap_or(0),
        }
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Size of the records as frames.
    fn bytes(&self) -> u64 {
        const FIXED: usize = format::FRAME_FIELDS_BYTES + format::RECORD_FIELDS_BYTES;
        let sizes = self
            .records
            .iter()
            .map(|record| FIXED + record.channel.len() + record.epoch.len() + record.payload.len());
        sizes.sum::<usize>() as u64
    }

    fn encode(&self, add: &mut dyn FnMut(&[u8])) {
        let mut body = Vec::new();
        for record in &self.records {
            body.clear();
            record
                .encode(&mut body)
                .expect("it was in a frame before, and got no longer");
            add(&body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        magic: *b"abcd",
        era: 3,
        boot_id: [0; 16],
        is_always_synced: true,
    };

    fn publication<'a>(epoch: &'a str, offset: u64) -> Record<'a> {
        Record {
            kind: RecordKind::Publication,
            channel: "chat",
            epoch,
            offset,
            time_ms: 0,
            payload: b"data",
        }
    }

    fn position(epoch: &str, offset: u64) -> Record<'_> {
        Record {
            kind: RecordKind::Position,
            payload: b"",
            ..publication(epoch, offset)
        }
    }

    /// Compares what is kept of a segment of one channel, as the oldest segment and as a later one. `oldest_kept` is an
    /// epoch with the offset from which on the stream keeps publications.
    #[track_caller]
    fn check(
        records: &[Record<'_>],
        oldest_kept: Option<(&'static str, u64)>,
        oldest: &[Record<'_>],
        later: &[Record<'_>],
    ) {
        let mut bytes = HEADER.encode().to_vec();
        for record in records {
            let mut body = Vec::new();
            record.encode(&mut body).unwrap();
            format::encode_frame(&mut bytes, HEADER.magic, 0, &body);
        }
        let content = LoadedSegment { bytes, header: HEADER };
        let retain = move |_: &str, epoch: &str| oldest_kept.filter(|kept| kept.0 == epoch).map(|kept| kept.1);
        assert_eq!(
            Plan::new(&[&content], &retain, true).records,
            oldest,
            "as the oldest segment"
        );
        assert_eq!(
            Plan::new(&[&content], &retain, false).records,
            later,
            "as a later segment"
        );
    }

    #[test]
    fn live_publications_are_kept() {
        let records = [publication("e", 1), publication("e", 2), publication("e", 3)];
        check(&records, Some(("e", 2)), &records[1..], &records[1..]);
        check(&records, Some(("e", 1)), &records, &records);
    }

    #[test]
    fn stream_without_publications_keeps_its_position() {
        let records = [publication("e", 1), publication("e", 2)];
        check(&records, Some(("e", 3)), &[position("e", 2)], &[position("e", 2)]);
    }

    #[test]
    fn stream_that_is_gone_still_hides_older_segments() {
        let records = [publication("e", 1), publication("e", 2)];
        check(&records, None, &[], &[position("e", 2)]);
        check(&records, Some(("newer", 1)), &[], &[position("e", 2)]);
    }

    #[test]
    fn removal_hides_older_segments() {
        let records = [publication("e", 1), position("e", 1), publication("e", 2)];
        check(&records, Some(("e", 2)), &records[2..], &records[1..]);
    }

    /// The stream was replaced between the two questions.
    #[test]
    fn position_of_the_newest_record_is_kept_after_a_kept_record() {
        let records = [publication("old", 1), publication("new", 1)];
        let expected = [publication("old", 1), position("new", 1)];
        check(&records, Some(("old", 1)), &expected, &expected);
    }
}
