//! The history of one channel: the newest publications, limited in number, size and age.
//!
//! With a log, a publication is numbered before it is in the log ([`Stream::begin`]), and becomes part of the history
//! when it is ([`Stream::commit`]). Until then it is pending: it is not delivered, reads do not return it, and it
//! displaces no older publication. If it cannot be stored, its offset is taken back, and those of later ones with it
//! ([`Stream::abort`]).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Content, Epoch, History, HistoryLimits, HistoryQuery, Position, Publication, Version};

#[derive(Debug)]
pub(super) struct Stream {
    epoch: Epoch,
    /// The offset of the newest publication, which may have been evicted.
    top: u64,
    publications: VecDeque<(Instant, Publication)>,
    bytes: usize,
    /// The limits at the last publication.
    limits: HistoryLimits,
    /// The newest version of the state that was published.
    version: Option<Version>,
    pending: VecDeque<Pending>,
    /// Number of the newest pending change.
    serial: Serial,
    /// Set when the stream was evicted. Holders of a reference must look the channel up again.
    is_evicted: bool,
}

/// A change that is not in the log yet.
#[derive(Debug)]
struct Pending {
    serial: Serial,
    change: Change,
    /// The newest version after the change.
    version: Option<Version>,
}

#[derive(Debug)]
enum Change {
    Publication(Publication),
    /// Removes all publications up to this offset.
    Removal(u64),
}

/// Number of a pending change of a stream. Offsets may be assigned again; these numbers are not.
pub(super) type Serial = u64;

/// Accounted size of an empty stream: itself, its map entry, its epoch and its name.
pub(super) const STREAM_BYTES: usize = 512;

/// Accounted size of a publication without its JSON: at least its memory, and at least its size in a reply without the
/// JSON (72 + 36 + 40 bytes: field names, client id, two numbers of maximum length).
pub(crate) const PUBLICATION_BYTES: usize = 160;

impl Stream {
    pub(super) fn new(epoch: Epoch, limits: HistoryLimits) -> Self {
        Self {
            epoch,
            top: 0,
            publications: VecDeque::new(),
            bytes: STREAM_BYTES,
            limits,
            version: None,
            pending: VecDeque::new(),
            serial: 0,
            is_evicted: false,
        }
    }

    /// Numbers and stores a publication, and evicts the oldest ones beyond the limits.
    pub(super) fn append(
        &mut self,
        content: Content,
        version: Option<Version>,
        time_ms: u64,
        now: Instant,
    ) -> Publication {
        let publication = Publication {
            content,
            offset: self.top + 1,
            previous: self.top,
            time_ms,
        };
        self.version = version.or(self.version.take());
        self.store(publication.clone(), now);
        publication
    }

    /// Numbers a publication that is about to be logged.
    pub(super) fn begin(&mut self, content: Content, version: Option<Version>, time_ms: u64) -> (Serial, u64) {
        let offset = self.next_offset();
        let publication = Publication {
            content,
            offset,
            previous: offset - 1,
            time_ms,
        };
        let serial = self.add_pending(Change::Publication(publication), version);
        (serial, offset)
    }

    /// Adds a removal of all publications that is about to be logged. Returns the offset up to which they are removed.
    pub(super) fn begin_removal(&mut self) -> (Serial, u64) {
        let offset = self.next_offset() - 1;
        let serial = self.add_pending(Change::Removal(offset), None);
        (serial, offset)
    }

    /// Applies a pending change that is in the log, and all before it. Passes publications to `deliver`, in order.
    pub(super) fn commit(&mut self, serial: Serial, now: Instant, mut deliver: impl FnMut(&Publication, &Epoch)) {
        // The log stores the changes of a stream in order, so the earlier ones are there too.
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.serial <= serial) {
            self.version = pending.version;
            match pending.change {
                Change::Publication(publication) => {
                    self.store(publication.clone(), now);
                    deliver(&publication, &self.epoch);
                }
                Change::Removal(offset) => self.remove_up_to(offset),
            }
        }
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
    }

    /// Takes back a pending change that could not be logged, and all after it, which the log refuses too.
    pub(super) fn abort(&mut self, serial: Serial) {
        if let Some(index) = self.pending.iter().position(|pending| pending.serial == serial) {
            self.pending.truncate(index);
        }
    }

    /// Applies a publication of the log. `None` stands for one that was not readable, and for a record that the stream
    /// keeps no publication up to there. Returns whether the stream had publications that this replaced.
    pub(super) fn restore(
        &mut self,
        logged_epoch: &str,
        offset: u64,
        publication: Option<(Instant, Publication, Option<Version>)>,
    ) {
        let is_next = self.epoch.as_str() == logged_epoch && offset == self.top.wrapping_add(1);
        if !is_next || publication.is_none() {
            self.remove_up_to(u64::MAX);
        }
        if self.epoch.as_str() != logged_epoch {
            self.epoch = Epoch::new(logged_epoch);
            self.version = None;
        }
        self.top = offset;
        if let Some((at, publication, version)) = publication {
            self.version = version.or(self.version.take());
            self.store(publication, at);
        }
    }

    /// Removes all publications. Offsets continue.
    pub(super) fn remove_all(&mut self) {
        self.remove_up_to(u64::MAX);
    }

    /// Reads a part of the history, without expired publications.
    pub(super) fn read(&mut self, query: HistoryQuery, now: Instant) -> History {
        self.expire(now);
        let all = self.publications.iter().map(|(_, publication)| publication);
        let publications = if query.is_reversed {
            let before = query.since.unwrap_or(u64::MAX);
            all.rev()
                .filter(|publication| publication.offset < before)
                .take(query.limit)
                .cloned()
                .collect()
        } else {
            let after = query.since.unwrap_or(0);
            all.filter(|publication| publication.offset > after)
                .take(query.limit)
                .cloned()
                .collect()
        };
        History {
            publications,
            top: self.top(),
        }
    }

    /// Removes publications older than the TTL. The caller should drop them without holding a lock.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(Instant, Publication)> {
        let is_expired = |(at, _): &(Instant, Publication)| now.duration_since(*at) >= self.limits.ttl;
        // Sorted by time, except for small differences between the clocks of threads.
        let count = self.publications.iter().take_while(|entry| is_expired(entry)).count();
        let expired: Vec<_> = self.publications.drain(..count).collect();
        self.bytes -= expired
            .iter()
            .map(|(_, publication)| accounted_size(publication))
            .sum::<usize>();
        if self.publications.is_empty() {
            self.publications = VecDeque::new();
        }
        expired
    }

    /// Marks the stream as evicted, and returns its publications.
    pub(super) fn evict(&mut self) -> VecDeque<(Instant, Publication)> {
        debug_assert!(self.pending.is_empty(), "the publishers refer to this stream");
        self.is_evicted = true;
        std::mem::take(&mut self.publications)
    }

    pub(super) fn set_limits(&mut self, limits: HistoryLimits) {
        self.limits = limits;
    }

    pub(super) fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Whether the channel already has this version or a later one, pending publications included.
    pub(super) fn has_version(&self, version: &Version) -> bool {
        let newest = self.newest_version();
        newest.is_some_and(|newest| newest.epoch == version.epoch && newest.number >= version.number)
    }

    /// The time of the oldest stored publication.
    pub(super) fn oldest_at(&self) -> Option<Instant> {
        self.publications.front().map(|(at, _)| *at)
    }

    /// The offset of the oldest stored publication, or the one after the newest if none is stored.
    pub(super) fn oldest_offset(&self) -> u64 {
        self.publications
            .front()
            .map_or(self.top + 1, |(_, publication)| publication.offset)
    }

    pub(super) fn ttl(&self) -> Duration {
        self.limits.ttl
    }

    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    pub(super) fn top(&self) -> Position {
        Position {
            epoch: self.epoch.clone(),
            offset: self.top,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.publications.is_empty()
    }

    /// Stores the next publication, and evicts the oldest ones beyond the limits.
    fn store(&mut self, publication: Publication, at: Instant) {
        self.top = publication.offset;
        self.bytes += accounted_size(&publication);
        self.publications.push_back((at, publication));
        while self.publications.len() > self.limits.count_max || self.bytes > self.limits.bytes_max + STREAM_BYTES {
            self.drop_oldest();
        }
        self.expire(at);
    }

    fn add_pending(&mut self, change: Change, version: Option<Version>) -> Serial {
        let version = version.or_else(|| self.newest_version().cloned());
        self.serial += 1;
        self.pending.push_back(Pending {
            serial: self.serial,
            change,
            version,
        });
        self.serial
    }

    fn next_offset(&self) -> u64 {
        let pending = self.pending.back().map(|pending| match &pending.change {
            Change::Publication(publication) => publication.offset,
            Change::Removal(offset) => *offset,
        });
        pending.unwrap_or(self.top) + 1
    }

    fn newest_version(&self) -> Option<&Version> {
        match self.pending.back() {
            Some(pending) => pending.version.as_ref(),
            None => self.version.as_ref(),
        }
    }

    fn remove_up_to(&mut self, offset: u64) {
        while let Some((_, oldest)) = self.publications.front()
            && oldest.offset <= offset
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, oldest)) = self.publications.pop_front() else {
            return;
        };
        self.bytes -= accounted_size(&oldest);
        if self.publications.is_empty() {
            self.publications = VecDeque::new();
        }
    }
}

fn accounted_size(publication: &Publication) -> usize {
    let content = &publication.content;
    let info = content.info.as_ref().and_then(|info| info.conn_info.as_ref());
    let tags = content.tags.iter().flat_map(|tags| tags.iter());
    PUBLICATION_BYTES
        + content.data.len_bytes()
        + info.map_or(0, |info| info.len_bytes())
        + tags
            .map(|(name, value)| TAG_BYTES + name.len() + value.len())
            .sum::<usize>()
}

/// Accounted size of a tag without its text.
const TAG_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Data;

    const LIMITS: HistoryLimits = HistoryLimits {
        count_max: 3,
        bytes_max: 4096,
        ttl: Duration::from_secs(60),
    };

    fn content(text: &str) -> Content {
        Content {
            data: Data::json(text).unwrap(),
            info: None,
            tags: None,
        }
    }

    fn stream_of(count: u64, now: Instant) -> Stream {
        let mut stream = Stream::new(Epoch::new("e"), LIMITS);
        for expect in 1..=count {
            assert_eq!(stream.append(content("1"), None, 0, now).offset, expect);
        }
        stream
    }

    #[track_caller]
    fn check(stream: &mut Stream, query: HistoryQuery, now: Instant, expect: &[u64]) {
        let offsets: Vec<u64> = stream.read(query, now).publications.iter().map(|p| p.offset).collect();
        assert_eq!(offsets, expect);
    }

    #[test]
    fn the_newest_publications_are_kept() {
        let now = Instant::now();
        let all = HistoryQuery {
            limit: usize::MAX,
            ..Default::default()
        };
        check(&mut stream_of(0, now), all, now, &[]);
        check(&mut stream_of(3, now), all, now, &[1, 2, 3]);
        check(&mut stream_of(5, now), all, now, &[3, 4, 5]);
    }

    #[test]
    fn history_is_paginated_in_both_directions() {
        let now = Instant::now();
        let mut stream = stream_of(5, now);
        let query = |since, limit, is_reversed| HistoryQuery {
            since,
            limit,
            is_reversed,
        };
        check(&mut stream, query(Some(3), 10, false), now, &[4, 5]);
        check(&mut stream, query(Some(0), 1, false), now, &[3]);
        check(&mut stream, query(Some(5), 10, false), now, &[]);
        check(&mut stream, query(None, 2, true), now, &[5, 4]);
        check(&mut stream, query(Some(5), 2, true), now, &[4, 3]);
        check(&mut stream, query(None, 0, false), now, &[]);
    }

    #[test]
    fn expired_publications_are_removed_and_offsets_not_reused() {
        let start = Instant::now();
        let mut stream = stream_of(2, start);
        let later = start + LIMITS.ttl;
        check(
            &mut stream,
            HistoryQuery {
                limit: 9,
                ..Default::default()
            },
            later - Duration::from_nanos(1),
            &[1, 2],
        );
        check(
            &mut stream,
            HistoryQuery {
                limit: 9,
                ..Default::default()
            },
            later,
            &[],
        );
        assert_eq!(stream.append(content("1"), None, 0, later).offset, 3);
    }

    #[test]
    fn the_size_in_bytes_is_limited() {
        let now = Instant::now();
        let mut stream = Stream::new(Epoch::new("e"), LIMITS);
        let big = format!("\"{}\"", "x".repeat(1800));
        for _ in 0..3 {
            stream.append(content(&big), None, 0, now);
            assert!(stream.bytes() <= LIMITS.bytes_max + STREAM_BYTES);
        }
        check(
            &mut stream,
            HistoryQuery {
                limit: 9,
                ..Default::default()
            },
            now,
            &[2, 3],
        );
        stream.append(content(&format!("\"{}\"", "x".repeat(9000))), None, 0, now);
        assert!(stream.is_empty());
        assert_eq!((stream.bytes(), stream.top().offset), (STREAM_BYTES, 4));
    }
}
